//! Parses the arguments and the environment: empty variables, errors, and masking of secrets.

use std::io::Write;

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::fault::{quoted_value, wrong_setting};
use super::values::Secret;
use crate::masked::masked_words;

/// Parses the arguments and the environment of this process. `--help` exits the process, and so does an invalid setting, with a
/// message and status 2.
pub fn read(command: Command) -> ArgMatches {
    let command = without_empty_variables(command);
    if let Some(wrong) = quoted_value(&command) {
        let _ = writeln!(std::io::stderr(), "{wrong}"); // if this fails, the status still reports the error
        std::process::exit(2)
    }
    command.clone().try_get_matches().unwrap_or_else(|error| {
        let message = match wrong_setting(&command, &error) {
            Some(wrong) => without_secrets(&format!("{wrong}\n")),
            None => {
                let plain = error.to_string();
                let masked = without_secrets(&plain);
                if masked == plain || !error.use_stderr() {
                    error.exit(); // with colours
                }
                masked
            }
        };
        let _ = write!(std::io::stderr(), "{message}"); // if this fails, the status still reports the error
        std::process::exit(error.exit_code())
    })
}

/// Masks secrets in an error message that may contain arguments of this process.
pub fn without_secrets(complaint: &str) -> String {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    masked_words(complaint, &words)
}

/// Settings of another program than this one, only from the environment.
///
/// # Errors
/// A message that states the invalid setting.
pub fn of_environment<T: Args + FromArgMatches>() -> Result<T, String> {
    let command = without_empty_variables(T::augment_args(Command::new("environment")));
    let matches = command.clone().try_get_matches_from(["environment"]);
    matches
        .and_then(|matches| T::from_arg_matches(&matches))
        .map_err(|error| wrong_setting(&command, &error).map_or_else(|| error.to_string(), |wrong| wrong.to_string()))
}

/// Treats every empty variable as unset: Compose files and manifests set optional variables to the empty string.
fn without_empty_variables(command: Command) -> Command {
    let is_empty = |argument: &Arg| argument.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    command
        .mut_args(|argument| if is_empty(&argument) { argument.env(Resettable::Reset) } else { argument })
        .mut_subcommands(without_empty_variables)
}

/// The settings given on the command line that contain a password: any user of the machine can read them in /proc.
pub fn shown_passwords(matches: &ArgMatches) -> Vec<&'static str> {
    const SETTINGS: [(&str, &str); 6] = [
        ("database_url", "DATABASE_URL"),
        ("postgres_password", "POSTGRES_PASSWORD"),
        ("migrate_password", "MIGRATE_PASSWORD"),
        ("redis_url", "REDIS_URL"),
        ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
        ("aws_session_token", "AWS_SESSION_TOKEN"),
    ];
    let shown = |id: &str| {
        let given = matches.try_get_one::<Secret>(id).ok().flatten();
        given.is_some_and(|secret| !id.ends_with("_url") || secret.holds_password())
            && matches.value_source(id) == Some(ValueSource::CommandLine)
    };
    SETTINGS.iter().filter(|(id, _)| shown(id)).map(|(_, name)| *name).collect()
}
