//! Generated descriptions, and the validation of handwritten ones; no database is needed.

mod checked;
mod folders;
mod inferred;
mod written;

use std::path::Path;
use std::process::{Command, Output};

use pycrudapi::resource::definition::Resource;

/// Runs `pycrudapi resource` in a folder.
fn program(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pycrudapi"))
        .arg("resource")
        .args(arguments)
        .env_clear()
        .current_dir(folder)
        .output()
        .expect("the program runs")
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// Standard error of a program that must have exited with this status.
#[track_caller]
fn refused(output: &Output, status: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{said}{}", String::from_utf8_lossy(&output.stdout));
    said
}

/// The resource of a valid description.
#[track_caller]
fn loaded(text: &str) -> &'static Resource {
    let loaded = Resource::load(text, |name| Err(format!("there is no file {name}")));
    loaded.unwrap_or_else(|faults| panic!("{faults:?}\n{text}"))
}
