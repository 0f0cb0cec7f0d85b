//! Settings: one list for flags, environment, `--help` and docs/settings.md; errors name the setting.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use clap::CommandFactory;
use pycrudapi::cli::Cli;

fn program(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pycrudapi"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .expect("the program runs")
}

fn standard_error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every environment variable of every subcommand.
fn variables() -> BTreeSet<String> {
    let command = Cli::command();
    command
        .get_subcommands()
        .chain([&command])
        .flat_map(clap::Command::get_arguments)
        .filter_map(|argument| argument.get_env().map(|name| name.to_string_lossy().into_owned()))
        .collect()
}

#[test]
fn the_docs_list_every_setting_with_its_default() {
    let documented = include_str!("../../docs/settings.md");
    let command = Cli::command();
    for argument in command.get_subcommands().chain([&command]).flat_map(clap::Command::get_arguments) {
        let Some(name) = argument.get_env().map(|name| name.to_string_lossy().into_owned()) else { continue };
        let row = documented
            .lines()
            .find(|line| line.starts_with(&format!("| `{name}` |")))
            .unwrap_or_else(|| panic!("docs/settings.md has no row for {name}"));
        // The default depends on the machine.
        let defaults = if matches!(name.as_str(), "WORKER_THREADS" | "MEMORY_BUDGET") {
            &[]
        } else {
            argument.get_default_values()
        };
        for default in defaults {
            let default = default.to_string_lossy();
            assert!(row.contains(&format!("`{default}`")), "the default {default} is not in: {row}");
        }
    }
}

#[test]
fn the_docs_list_no_unknown_setting() {
    let known = variables();
    let documented = include_str!("../../docs/settings.md").lines().filter_map(|line| line.strip_prefix("| `"));
    for name in documented.map(|row| row.split('`').next().expect("a name")) {
        assert!(known.contains(name) || name == "METRICS_PORT", "no subcommand has the setting {name}");
    }
}

#[test]
fn every_setting_is_listed_in_the_help_of_its_subcommand() {
    for subcommand in Cli::command().get_subcommands() {
        let help = String::from_utf8(program(&[subcommand.get_name(), "--help"], &[]).stdout).expect("UTF-8");
        for name in subcommand.get_arguments().filter_map(clap::Arg::get_env) {
            let name = name.to_string_lossy();
            assert!(help.contains(&format!("[env: {name}]")), "{name} is not in the help of {}", subcommand.get_name());
        }
    }
}

#[test]
fn an_invalid_setting_fails_the_start_with_an_error_that_names_it() {
    for (name, value) in [
        ("POOL_SIZE", "0"),
        ("POOL_SIZE", "many"),
        ("LISTEN", "nowhere"),
        ("METRICS_LISTEN", "nowhere"),
        ("CHECKOUT_TIMEOUT_MS", "1"),
        ("SEED", "perhaps"),
        ("LOG", "info=="),
        ("LOG_FORMAT", "xml"),
        ("MAX_BODY_BYTES", "12"),
        ("MEMORY_BUDGET", "7MiB"),
        ("MEMORY_BUDGET", "64 MB"),
        ("SPOOL_BYTES", "2TiB"),
        ("BODY_MIN_RATE", "-1"),
        ("AIR_QUALITY_CACHE_TTL", "0"),
        ("AIR_QUALITY_CACHE_TTL", "25h"),
        ("AIR_QUALITY_CACHE_TTL", "1d"),
        ("AIR_QUALITY_CACHE_TTL", "-1s"),
        ("IDEMPOTENCY_TTL", "0"),
        ("IDEMPOTENCY_TTL", "721h"),
        ("HISTORY_RETENTION", "3651d"),
        ("HISTORY_RETENTION", "off"),
        ("REQUIRE_IF_MATCH", "maybe"),
        ("CORS_ALLOW_ORIGINS", "https://app.example/"),
        ("CORS_ALLOW_ORIGINS", "app.example"),
        ("ALLOWED_HOSTS", "https://api.example.com"),
        ("ALLOWED_HOSTS", "api.example.com:8080"),
        ("REDIS_TIMEOUT_MS", "0"),
        ("AUTH", "maybe"),
        ("AUTH_ANONYMOUS_SCOPES", "passengers:write"),
        ("AUTH_ANONYMOUS_SCOPES", "nowhere:read"),
        ("AUTH_ANONYMOUS_SCOPES", "admin"),
        ("AUTH_SCOPE_MAP", "reader=nowhere:read"),
        ("PRINCIPAL_RATE_LIMIT", "-1"),
        ("AUTH_ISSUER", "https://id.example.com /"),
        ("AUTH_JWKS_URL", "http://id.example.com/keys"),
        ("AUTH_JWKS_URL", "id.example.com/keys"),
        ("AUTH_JWKS_REFRESH", "0"),
        ("AUTH_CLIENT_ID", "päge"),
        ("AUTH_CLIENT_SCOPE", "openid  email"),
        ("AUTH_CLIENT_SCOPE", "openid \"email\""),
        ("AUTH_LEEWAY", "6m"),
        ("AUTH_LEEWAY", "-1s"),
        ("AUTH_TOKEN_TYPE", "id_token"),
        ("AUTH_SCOPE_MAP", "reader"),
        ("AUTH_SCOPE_MAP", "reader="),
        ("AUTH_SCOPE_MAP", "reader=passengers:write"),
        ("AUTH_SCOPE_MAP", "reader=*:read,reader=steps:*"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "otel-collector:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_RESOURCE_ATTRIBUTES", "nonsense"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "postgres://h/db?sslmode=perhaps"),
    ] {
        let output = program(&["serve"], &[(name, value)]);
        let message = standard_error(&output);
        assert_eq!(output.status.code(), Some(2), "{name}={value}: {message}");
        assert!(message.contains(name), "{name}={value}: {message}");
        // Errors that are detected later than the parsing of the value have another form.
        if !matches!(name, "LOG" | "DATABASE_URL") {
            assert_eq!(message.lines().count(), 1, "{name}={value}: {message}");
            assert!(message.starts_with(&format!("{name}={value}: ")), "{name}={value}: {message}");
            assert!(message.contains(&format!("; example: {name}=")), "{name}={value}: {message}");
        }
        let flag = format!("--{}={value}", name.to_lowercase().replace('_', "-"));
        assert_eq!(standard_error(&program(&["serve", &flag], &[])), message, "{flag}");
    }
}

#[test]
fn quotes_and_units_that_do_not_belong_to_a_value_are_named() {
    for (name, value, expected) in [
        ("DATA_DIR", "\"/tmp/data\"", "expected a path; remove the quotes"),
        ("TLS_CERT", "'/tmp/tls.crt'", "remove the quotes"),
        ("POOL_SIZE", "\"10\"", "expected a whole number without a unit; remove the quotes"),
        ("POOL_SIZE", "10 ", "remove the blanks around it"),
        ("MAX_BODY_BYTES", "1MiB", "expected a whole number without a unit"),
        ("ALLOWED_HOSTS", "\"api.example.com\"", "remove the quotes"),
        ("POSTGRES_HOST", "'db.example'", "expected a value without quotes; remove the quotes"),
        ("POSTGRES_USER", "\"app\"", "remove the quotes"),
        ("LOG", "\"info\"", "remove the quotes"),
    ] {
        let subcommand = if name == "TLS_CERT" { "nginx" } else { "serve" };
        let output = program(&[subcommand], &[(name, value)]);
        let message = standard_error(&output);
        assert_eq!((output.status.code(), message.lines().count()), (Some(2), 1), "{message}");
        assert!(message.starts_with(&format!("{name}={value}: ")) && message.contains(expected), "{message}");
    }
}

#[test]
fn a_url_in_quotes_is_refused_without_repeating_it() {
    for (name, value) in [
        ("DATABASE_URL", "\"postgres://app:hunter2@db.example/app\""),
        ("DATABASE_READ_URL", "'postgres://app:hunter2@db.example/app'"),
        ("REDIS_URL", "\"redis://:hunter2@redis.example\""),
    ] {
        let output = program(&["serve"], &[(name, value)]);
        let message = standard_error(&output);
        assert_eq!((output.status.code(), message.lines().count()), (Some(2), 1), "{message}");
        assert!(
            message.starts_with(&format!("{name}: expected a value without quotes; remove the quotes")),
            "{message}"
        );
        assert!(message.contains("; example: ") && !message.contains("hunter2"), "{message}");
    }
}

#[test]
fn an_invalid_collector_header_fails_the_start_and_is_not_repeated() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
    let output = program(&["serve"], &[endpoint, ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2")]);
    let message = standard_error(&output);
    assert_eq!((output.status.code(), message.lines().count()), (Some(2), 1), "{message}");
    assert!(message.starts_with("OTEL_EXPORTER_OTLP_HEADERS: expected ") && !message.contains("hunter2"), "{message}");
}

#[test]
fn incompatible_identity_provider_settings_fail_the_start() {
    for (name, given) in [
        ("AUTH_AUDIENCE", &[("AUTH_ISSUER", "https://id.example")][..]),
        ("AUTH_AUDIENCE", &[("AUTH_AUDIENCE", "api")]),
        ("AUTH_ISSUER", &[("AUTH_ISSUER", "http://id.example"), ("AUTH_AUDIENCE", "api")]),
    ] {
        let output = program(&["serve"], given);
        let message = standard_error(&output);
        assert_eq!((output.status.code(), message.lines().count()), (Some(2), 1), "{given:?}: {message}");
        assert!(message.starts_with(name), "{given:?}: {message}");
    }
}

#[test]
fn a_wrong_setting_ends_every_subcommand_with_status_2() {
    let commands: [&[&str]; 6] = [
        &["migrate"],
        &["import", "/dev/null"],
        &["export"],
        &["token", "list"],
        &["openapi"],
        &["resource", "sql", "passengers"],
    ];
    for arguments in commands {
        let wrong = [("RESOURCES_DIR", "/dev/null/nowhere"), ("RESOURCES", "nowhere"), ("DATABASE_URL", "nonsense")];
        for (name, value) in wrong {
            if name == "DATABASE_URL" && matches!(arguments[0], "openapi" | "resource") {
                continue; // they need no database
            }
            let output = program(arguments, &[(name, value)]);
            let message = standard_error(&output);
            assert_eq!(output.status.code(), Some(2), "{arguments:?}, {name}={value}: {message}");
            assert!(message.contains(name), "{arguments:?}, {name}={value}: {message}");
        }
    }
}

#[test]
fn an_empty_variable_counts_as_unset_for_every_setting() {
    let variables = variables();
    let empty = variables.iter().filter(|name| *name != "DATA_DIR").map(|name| (name.as_str(), ""));
    // Each command continues to its actual work, which fails because nothing can be stored there, and none reports a setting.
    let environment: Vec<_> = empty.chain([("DATA_DIR", "/dev/null/nowhere")]).collect();
    for arguments in [&["serve"][..], &["migrate"], &["import", "/dev/null"], &["export"]] {
        let output = program(arguments, &environment);
        let message = standard_error(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
        assert!(message.contains("DATA_DIR must be a directory, and /dev/null is a file"), "{arguments:?}: {message}");
    }
    let half = [&environment[..], &[("TLS_CERT", "/dev/null")]].concat();
    let output = program(&["nginx", "check"], &half);
    let message = standard_error(&output);
    assert!(output.status.code() == Some(2) && message.starts_with("TLS_KEY: "), "{message}");
    let message =
        standard_error(&program(&["migrate", "--database-url=postgres://h/?sslmode=perhaps"], &[("DATA_DIR", "")]));
    assert!(message.contains("sslmode"), "{message}");
    let output = program(&["serve", "--data-dir="], &[]);
    assert_eq!(output.status.code(), Some(2), "an empty flag is an error: {}", standard_error(&output));
}

#[test]
fn a_secret_never_reaches_an_error_or_the_log() {
    for (name, value) in [
        ("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/db?sslmode=perhaps"),
        ("DATABASE_URL", "host=127.0.0.1 password=hunter2 nonsense"),
        ("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:port/db"),
        ("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/db?connect_timeout=1"),
    ] {
        let output = program(&["migrate"], &[(name, value), ("LOG", "trace")]);
        assert!(!output.status.success());
        let message = standard_error(&output);
        assert!(!message.contains("hunter2"), "{message}");
        assert!(message.contains("DATABASE_URL"), "{message}");
    }
    for url in ["hunter2", "redis://:hunter2@127.0.0.1:port/0", "http://:hunter2@127.0.0.1", "redis://:hunter2@h/db"] {
        let environment = [("REDIS_URL", url), ("LOG", "trace"), ("METRICS_LISTEN", "off"), ("LISTEN", "127.0.0.1:0")];
        let nowhere = ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none");
        let output = program(&["serve"], &[&environment[..], &[nowhere]].concat());
        let message = standard_error(&output);
        assert!(!output.status.success() && message.contains("REDIS_URL"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
    let secrets = ["--database-url=hunter2", "--postgres-password=hunter2", "--redis-url=hunter2"];
    let settings = crate::harness::Settings::parse(&secrets);
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn a_port_in_use_is_an_error_that_names_the_port_and_the_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = program(
        &["serve"],
        &[("LISTEN", &address), ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"), ("METRICS_LISTEN", "off")],
    );
    let message = standard_error(&output);
    assert!(message.contains(&address) && message.contains("LISTEN"), "{message}");
}

#[test]
fn a_password_on_the_command_line_causes_a_warning_that_does_not_repeat_it() {
    const URL: &str = "postgres://nobody:hunter2@127.0.0.1:1/none";
    let shown = standard_error(&program(&["migrate", "--database-url", URL], &[]));
    assert!(shown.contains("WARN") && shown.contains("DATABASE_URL") && shown.contains("/proc"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    for (arguments, environment) in [
        (&["migrate"][..], &[("DATABASE_URL", URL)][..]),
        (&["migrate", "--database-url", "postgres://nobody@127.0.0.1:1/none"], &[]),
    ] {
        let hidden = standard_error(&program(arguments, environment));
        assert!(!hidden.contains("/proc") && hidden.contains("cannot connect"), "{hidden}");
    }
}

#[test]
fn the_database_url_may_be_read_from_a_file() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("url");
    std::fs::write(&file, "postgres://nobody@127.0.0.1:1/none\n").expect("written");
    let path = file.to_str().expect("UTF-8");
    let message = standard_error(&program(&["migrate"], &[("DATABASE_URL_FILE", path)]));
    assert!(message.contains("cannot connect to the database"), "{message}");
    std::fs::remove_file(&file).expect("removed");
    let message = standard_error(&program(&["migrate"], &[("DATABASE_URL_FILE", path)]));
    assert!(message.contains("DATABASE_URL_FILE") && message.contains(path), "{message}");
}
