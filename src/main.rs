//! The `ridewire` program.

use std::process::ExitCode;

/// Requests make many small allocations: jemalloc serves a tenth more requests than libc (docs/explanation/experiments.md).
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match ridewire::cli::run() {
        Ok(code) => code,
        Err(error) if error.is::<ridewire::cli::AlreadyLogged>() => ExitCode::FAILURE,
        Err(error) => {
            #[allow(clippy::print_stderr, reason = "logging may not have started")]
            {
                eprintln!("ridewire: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
