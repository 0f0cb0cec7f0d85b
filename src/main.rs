//! The program: reads arguments, sets up logging, and turns a failure into a sentence and an exit status.

use std::process::ExitCode;

use pycrudapi::cli::{self, Cli};
use pycrudapi::telemetry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::read(); // a wrong setting ends here, with status 2
    let outcome = telemetry::init_logs(&cli.log).map_err(Into::into).and_then(|()| cli::run(&cli));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pycrudapi: {error:#}");
            ExitCode::FAILURE
        }
    }
}
