//! How every PostgreSQL program is started: as its account, out of reach of our environment and
//! of the terminal's signals, and never outliving us.
//!
//! Refuses to hand on our environment: PGDATA, PGPORT or a locale in it would make clusters
//! differ from one shell to the next. Invariant: the thread that spawns must live as long as the
//! program, since Linux takes the death of that thread for the death of the parent.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::account::Account;

/// A program in its own process group, so that Ctrl-C reaches us first, and in the directory it
/// works on, by which [`super::orphans`] knows it from its first instruction.
pub(super) fn command(program: &Path, dir: &Path, account: Option<Account>, at_our_death: Signal) -> Command {
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
        // With the user, the standard library also drops the supplementary groups.
        command.uid(account.uid).gid(account.gid);
    }
    die_with_us(&mut command, at_our_death);
    command
}

/// Asks for `signal` when the spawning thread ends, kill -9 included. This has to happen in the
/// child and after the change of user, which would take the request back.
#[cfg(target_os = "linux")]
fn die_with_us(command: &mut Command, signal: Signal) {
    use rustix::process::{getpid, getppid, set_parent_process_death_signal};

    let parent = getpid();
    let ask = move || {
        set_parent_process_death_signal(Some(signal))?;
        // We may have died before the request; then there will be no signal.
        if getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
    };
    #[expect(unsafe_code, reason = "two system calls, which a forked child may make: no memory, no lock")]
    // SAFETY: `ask` allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(ask);
    }
}

/// Elsewhere nothing announces our death; the next start ends what is left over.
#[cfg(not(target_os = "linux"))]
fn die_with_us(_command: &mut Command, _signal: Signal) {}
