//! Ends the processes that a killed server left behind.
//!
//! They are identified by what they are, a PostgreSQL program whose working directory is this cluster, never by a pid in a
//! file, which another process may have by now. Invariant: only the holder of the cluster's lock calls this, so every process
//! found has lost its server.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tracing::warn;

use super::account::Account;
use super::error::EmbeddedError;
use super::postmaster_file;

/// Signals for a postmaster and when they are sent: fast shutdown, immediate shutdown, kill.
const POSTMASTER: [(Duration, Signal); 3] =
    [(Duration::ZERO, Signal::INT), (Duration::from_secs(10), Signal::QUIT), (Duration::from_secs(13), Signal::KILL)];
/// Signals for child processes without a postmaster: they have nothing to finish, because recovery is necessary in any case.
const CHILD: [(Duration, Signal); 2] = [(Duration::ZERO, Signal::QUIT), (Duration::from_secs(1), Signal::KILL)];
/// Longer than both; a process that survives SIGKILL is blocked in the kernel.
const GIVE_UP: Duration = Duration::from_secs(16);
/// They are not child processes of this one, so their end must be polled.
const POLL: Duration = Duration::from_millis(5);

/// Ends every process of the cluster in `data` and returns when none is left.
pub(super) fn end(data: &Path, account: Option<Account>) -> Result<(), EmbeddedError> {
    let begun = Instant::now();
    let mut signalled = BTreeMap::new();
    loop {
        let live = processes::of(data, account);
        if live.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > GIVE_UP {
            return Err(EmbeddedError::Orphans { data: data.to_path_buf(), pids: live });
        }
        for (pid, signal) in due(&live, postmaster_file::read(data).map(|claim| claim.pid), begun.elapsed()) {
            if signalled.insert(pid, signal) != Some(signal) {
                warn!(postgres.pid = pid, ?signal, "ending a leftover postgresql process");
                // It may have exited by itself, which the next iteration detects.
                let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, signal));
            }
        }
        thread::sleep(POLL); // until the next check, or until GIVE_UP
    }
}

/// The processes to signal, and the signals: only the postmaster if it is alive, because it ends its child processes.
fn due(live: &[i32], postmaster: Option<i32>, waited: Duration) -> Vec<(i32, Signal)> {
    let last_of = |steps: &[(Duration, Signal)]| {
        steps.iter().rev().find(|(after, _)| waited >= *after).map_or(Signal::KILL, |(_, signal)| *signal)
    };
    match postmaster.filter(|pid| live.contains(pid)) {
        Some(pid) => vec![(pid, last_of(&POSTMASTER))],
        None => live.iter().map(|pid| (*pid, last_of(&CHILD))).collect(),
    }
}

#[cfg(target_os = "linux")]
mod processes {
    //! Uses /proc. PostgreSQL's processes stay in the data directory for their whole life, and a zombie has no working
    //! directory.

    use std::fs;
    use std::io::ErrorKind;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::CommandExt;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::Account;

    /// A shell or an editor may also have the directory as its working directory; only these may be ended.
    const PROGRAMS: [&str; 2] = ["postgres", "initdb"];
    /// `-ef` compares the targets of the two links, as `of` does.
    const CHECK_SCRIPT: &str =
        r#"dir=$1; shift; for pid; do [ "/proc/$pid/cwd" -ef "$dir" ] && echo "$pid"; done; true"#;

    pub fn of(data: &Path, account: Option<Account>) -> Vec<i32> {
        let Ok(wanted) = fs::metadata(data) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        let mut hidden = Vec::new();
        for pid in programs() {
            match fs::metadata(format!("/proc/{pid}/cwd")) {
                Ok(cwd) if (cwd.dev(), cwd.ino()) == (wanted.dev(), wanted.ino()) => found.push(pid),
                Err(failure) if failure.kind() == ErrorKind::PermissionDenied => hidden.push(pid),
                _ => {}
            }
        }
        if let (Some(account), false) = (account, hidden.is_empty()) {
            found.extend(seen_by(account, data, &hidden));
        }
        found
    }

    fn programs() -> Vec<i32> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_ours = |pid: &i32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            PROGRAMS.contains(&name.trim_end())
        };
        pids.filter(is_ours).collect()
    }

    /// Root in a container often lacks the privilege to inspect other users' processes (CAP_SYS_PTRACE). Their own user always
    /// has it, so this runs a shell as that user.
    fn seen_by(account: Account, data: &Path, pids: &[i32]) -> Vec<i32> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", CHECK_SCRIPT, "sh"]).arg(data).args(pids.iter().map(ToString::to_string));
        command.uid(account.uid).gid(account.gid).current_dir("/").stdin(Stdio::null()).stderr(Stdio::null());
        let printed = command.output().map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&printed).lines().filter_map(|line| line.parse().ok()).collect()
    }
}

#[cfg(not(target_os = "linux"))]
mod processes {
    //! Uses `ps`, which does not report working directories: the postmaster in the pid file, if that process is a PostgreSQL
    //! server.

    use std::path::Path;
    use std::process::Command;

    use super::{Account, postmaster_file};

    pub fn of(data: &Path, _account: Option<Account>) -> Vec<i32> {
        let claimed = postmaster_file::read(data).map(|claim| claim.pid).filter(|pid| *pid > 0);
        claimed.filter(|pid| is_live_postgres(*pid)).into_iter().collect()
    }

    fn is_live_postgres(pid: i32) -> bool {
        let output = Command::new("ps").args(["-o", "stat=,comm=", "-p", &pid.to_string()]).output();
        let printed = output.map(|output| output.stdout).unwrap_or_default();
        let line = String::from_utf8_lossy(&printed);
        line.trim_end().ends_with("postgres") && !line.starts_with('Z')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_of_a_live_postmaster_are_left_to_it() {
        let waited = Duration::from_millis(20);
        assert_eq!(due(&[7, 8, 9], Some(8), waited), [(8, Signal::INT)]);
        assert_eq!(due(&[7, 9], Some(8), waited), [(7, Signal::QUIT), (9, Signal::QUIT)]);
        assert_eq!(due(&[7], None, Duration::from_secs(2)), [(7, Signal::KILL)]);
        assert_eq!(due(&[8], Some(8), Duration::from_secs(15)), [(8, Signal::KILL)]);
    }
}
