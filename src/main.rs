//! The program: parses arguments, sets up logging, and converts a failure to a message and an exit status.

use std::process::ExitCode;

use pycrudapi::app::error::AppError;
use pycrudapi::cli::{self, Cli};
use pycrudapi::config::{ConfigError, WrongSetting, arguments};
use pycrudapi::db::error_chain::error_chain;
use pycrudapi::log_output::LogOutput;
use pycrudapi::resource::registry::RegistryError;
use pycrudapi::telemetry::{self, TelemetryError};

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
            status(&error)
        }
    }
}

/// 2 for a wrong setting, which no restart mends, otherwise 1.
fn status(error: &anyhow::Error) -> ExitCode {
    let is_setting = error.chain().any(|cause| {
        cause.is::<ConfigError>()
            || cause.is::<WrongSetting>()
            || cause.is::<RegistryError>()
            || matches!(cause.downcast_ref(), Some(AppError::Config(_) | AppError::Setting(_)))
            || matches!(cause.downcast_ref(), Some(TelemetryError::Filter(_)))
    });
    ExitCode::from(if is_setting { 2 } else { 1 })
}
