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

/// `mi_option_purge_delay` of mimalloc 3: the time in milliseconds until freed memory returns to the system.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// With the default of a second, memory of bodies and lists that have ended adds up with that of their successors: in a
/// container of 256 MiB, 510 slow readers and 500 unfinished bodies needed 240 MiB instead of 175. No request is slower.
const PURGE_DELAY_MS: std::ffi::c_long = 10;

fn main() -> ExitCode {
    return_memory_early();
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

/// Sets the delay unless `MIMALLOC_PURGE_DELAY` has set it.
#[expect(unsafe_code, reason = "mimalloc has no safe interface for its options")]
fn return_memory_early() {
    // SAFETY: called before another thread exists; the option is an integer.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "mimalloc has no safe interface for its options")]
    fn the_option_that_is_set_is_the_purge_delay() {
        // SAFETY: reads an integer.
        let delay = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(delay(), 1000, "mimalloc's default: another number means another option");
        return_memory_early();
        assert_eq!(delay(), PURGE_DELAY_MS);
    }
}
