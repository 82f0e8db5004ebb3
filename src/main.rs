//! The `ridewire` program.

use std::process::ExitCode;

/// Requests are small and many: a tenth more of them than with the allocator of libc (docs/performance.md).
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match ridewire::cli::run() {
        Ok(code) => code,
        Err(error) if error.is::<ridewire::cli::Logged>() => ExitCode::FAILURE,
        Err(error) => {
            #[allow(clippy::print_stderr, reason = "logging may not have begun")]
            {
                eprintln!("ridewire: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
