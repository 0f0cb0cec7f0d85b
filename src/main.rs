//! The program: parses arguments, sets up logging, and converts a failure to a message and an exit status.

use std::process::ExitCode;

use pycrudapi::cli::{self, Cli};
use pycrudapi::config::arguments;
use pycrudapi::db::error_chain::error_chain;
use pycrudapi::log_output::LogOutput;
use pycrudapi::telemetry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::read(); // an invalid setting exits here, with status 2
    let output = LogOutput::to_stderr();
    let _closing = output.closing(); // after the last line, including a panic's
    let outcome = telemetry::init_logs(&cli.log, &output).map_err(Into::into).and_then(|()| cli::run(&cli, &output));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            output.write_line(&format!("pycrudapi: {}", arguments::without_secrets(&error_chain(error.as_ref()))));
            ExitCode::FAILURE
        }
    }
}
