//! Ends a previous nginx in this directory: one whose supervisor was killed may still be draining, and workers whose master was
//! killed would keep the ports and respond with old settings.
//!
//! Never touches an nginx with a running supervisord. supervisor/leftovers.py does the same for a whole stack.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpgid, kill_process};

/// Longer than the default drain timeout of a busy nginx (DRAIN_TIMEOUT_MS).
const PATIENCE: Duration = Duration::from_secs(20);
/// It is not a child of this process, so its end must be polled.
const POLL: Duration = Duration::from_millis(20);

/// Ends an orphaned nginx, and returns when it has exited.
pub fn end(work_dir: &Path) {
    let begun = Instant::now();
    let mut told = Vec::new();
    loop {
        let left = orphans(work_dir);
        if left.is_empty() {
            return;
        }
        for (pid, signal) in left {
            let signal = if begun.elapsed() > PATIENCE { Signal::KILL } else { signal };
            if !told.contains(&(pid, signal)) {
                told.push((pid, signal));
                let _ = kill_process(pid, signal); // it may have exited already
            }
        }
        thread::sleep(POLL); // until the next poll
    }
}

/// The master process of the nginx that runs here.
pub fn running(work_dir: &Path) -> Option<Pid> {
    last_master(work_dir).filter(|pid| is_master(*pid))
}

/// The last master process of nginx here; the process id may have been reused.
fn last_master(work_dir: &Path) -> Option<Pid> {
    Pid::from_raw(fs::read_to_string(work_dir.join("nginx.pid")).ok()?.trim().parse().ok()?)
}

/// The processes of an orphaned nginx, each with the signal that ends it.
fn orphans(work_dir: &Path) -> Vec<(Pid, Signal)> {
    let Some(master) = last_master(work_dir) else { return Vec::new() };
    if is_master(master) {
        let parent = parent_of(master).map(command).unwrap_or_default();
        return if parent.contains("supervisord") { Vec::new() } else { vec![(master, Signal::QUIT)] };
    }
    // Workers overwrite their environment with a title, and are identified by their process group, which is that of the master.
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    let workers = processes.filter(|pid| command(*pid).starts_with("nginx: ") && getpgid(Some(*pid)) == Ok(master));
    workers.map(|pid| (pid, Signal::KILL)).collect()
}

fn is_master(pid: Pid) -> bool {
    command(pid).starts_with("nginx: master")
}

/// The command line or title of a process; empty if it has exited.
fn command(pid: Pid) -> String {
    let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    String::from_utf8_lossy(&line).into_owned()
}

fn parent_of(pid: Pid) -> Option<Pid> {
    // proc_pid_stat(5); the name before these fields may contain any character.
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    Pid::from_raw(stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?)
}
