//! The `ridewire` program.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match ridewire::cli::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[allow(clippy::print_stderr, reason = "logging may not have begun")]
            {
                eprintln!("ridewire: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
