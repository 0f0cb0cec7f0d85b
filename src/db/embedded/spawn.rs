//! How every PostgreSQL program is started: as its account, isolated from this process's environment and the terminal's
//! signals, and never outliving this process.
//!
//! The environment is not inherited: PGDATA, PGPORT or a locale in it would make clusters differ from one shell to the next.
//! Invariant: the thread that spawns must live as long as the program, because Linux treats the end of that thread as the death
//! of the parent.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::account::Account;

/// A command in its own process group, so that Ctrl-C reaches this process first, and in the directory that it works on, by
/// which [`super::orphans`] recognises it from its first instruction.
pub(super) fn command(program: &Path, dir: &Path, account: Option<Account>, parent_death: Signal) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .current_dir(dir)
        .stdin(Stdio::null())
        .process_group(0);
    if let Some(account) = account {
        // When the user is set, the standard library also drops the supplementary groups.
        command.uid(account.uid).gid(account.gid);
    }
    set_parent_death_signal(&mut command, parent_death);
    command
}

/// Requests `signal` when the spawning thread ends, even by kill -9. This must happen in the child and after the change of
/// user, which would cancel the request.
#[cfg(target_os = "linux")]
fn set_parent_death_signal(command: &mut Command, signal: Signal) {
    use rustix::process::{getpid, getppid, set_parent_process_death_signal};

    let parent = getpid();
    let request = move || {
        set_parent_process_death_signal(Some(signal))?;
        // The parent may have died before the request; then there will be no signal.
        if getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
    };
    #[expect(unsafe_code, reason = "two system calls, which a forked child may make: no memory, no lock")]
    // SAFETY: `request` allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(request);
    }
}

/// Other systems have no such signal; the next start ends leftover processes.
#[cfg(not(target_os = "linux"))]
fn set_parent_death_signal(_command: &mut Command, _signal: Signal) {}
