//! Ending the processes a killed server left behind.
//!
//! Finds them by what they are, a PostgreSQL program working in this cluster's directory, and
//! refuses to believe a pid in a file, which may be somebody else's by now. Invariant: only the
//! holder of the cluster's lock calls this, so whatever is found has lost its server.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tracing::warn;

use super::account::Account;
use super::error::EmbeddedError;
use super::postmaster_file;

/// A postmaster is asked to stop like any other: fast, then at once, then not asked.
const POSTMASTER: [(Duration, Signal); 3] =
    [(Duration::ZERO, Signal::INT), (Duration::from_secs(10), Signal::QUIT), (Duration::from_secs(13), Signal::KILL)];
/// Without a postmaster its children have nothing to finish: recovery is due in any case.
const CHILD: [(Duration, Signal); 2] = [(Duration::ZERO, Signal::QUIT), (Duration::from_secs(1), Signal::KILL)];
/// Longer than both; what survives SIGKILL hangs in the kernel.
const GIVE_UP: Duration = Duration::from_secs(16);
/// They are not our children, so the kernel tells us of no end: we look.
const POLL: Duration = Duration::from_millis(5);

/// Ends every process of the cluster in `data` and returns when none is left.
pub(super) fn end(data: &Path, account: Option<Account>) -> Result<(), EmbeddedError> {
    let begun = Instant::now();
    let mut told = BTreeMap::new();
    loop {
        let live = processes::of(data, account);
        if live.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > GIVE_UP {
            return Err(EmbeddedError::Orphans { data: data.to_path_buf(), pids: live });
        }
        for (pid, signal) in due(&live, postmaster_file::read(data).map(|claim| claim.pid), begun.elapsed()) {
            if told.insert(pid, signal) != Some(signal) {
                warn!(postgres.pid = pid, ?signal, "ending a left-over postgresql process");
                // It may have ended by itself; the next look tells.
                let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, signal));
            }
        }
        thread::sleep(POLL); // until the next look, or until GIVE_UP
    }
}

/// Who is to get which signal: a live postmaster alone, since it takes its children along.
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
    //! By /proc. PostgreSQL's processes stay in the data directory all their life, and a zombie
    //! is in none.

    use std::fs;
    use std::io::ErrorKind;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::CommandExt;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::Account;

    /// A shell or an editor may well stand in the directory; these alone are ours to end.
    const PROGRAMS: [&str; 2] = ["postgres", "initdb"];
    /// `-ef` compares what the two links lead to, as we do.
    const LOOK: &str = r#"dir=$1; shift; for pid; do [ "/proc/$pid/cwd" -ef "$dir" ] && echo "$pid"; done; true"#;

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

    /// Root in a container often lacks the right to look at other users' processes
    /// (CAP_SYS_PTRACE). Their own user always may, so it is asked.
    fn seen_by(account: Account, data: &Path, pids: &[i32]) -> Vec<i32> {
        let mut look = Command::new("/bin/sh");
        look.args(["-c", LOOK, "sh"]).arg(data).args(pids.iter().map(ToString::to_string));
        look.uid(account.uid).gid(account.gid).current_dir("/").stdin(Stdio::null()).stderr(Stdio::null());
        let printed = look.output().map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&printed).lines().filter_map(|line| line.parse().ok()).collect()
    }
}

#[cfg(not(target_os = "linux"))]
mod processes {
    //! By `ps`, which does not know directories: the claimed postmaster, if it is a PostgreSQL.

    use std::path::Path;
    use std::process::Command;

    use super::{Account, postmaster_file};

    pub fn of(data: &Path, _account: Option<Account>) -> Vec<i32> {
        let claimed = postmaster_file::read(data).map(|claim| claim.pid).filter(|pid| *pid > 0);
        claimed.filter(|pid| is_live_postgres(*pid)).into_iter().collect()
    }

    fn is_live_postgres(pid: i32) -> bool {
        let asked = Command::new("ps").args(["-o", "stat=,comm=", "-p", &pid.to_string()]).output();
        let printed = asked.map(|output| output.stdout).unwrap_or_default();
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
