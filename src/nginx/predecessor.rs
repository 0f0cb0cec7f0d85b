//! The nginx that ran here before, and its end: one whose supervisor was killed still drains, and workers whose master was
//! killed would keep the ports and answer with old settings.
//!
//! Refuses to touch one that another supervisord keeps. supervisor/leftovers.py does it for a whole stack.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpgid, kill_process};

/// Longer than the drain of a busy one (DRAIN_TIMEOUT_MS) by default.
const PATIENCE: Duration = Duration::from_secs(20);
/// It is not our child, so the kernel tells us of no end: we look.
const POLL: Duration = Duration::from_millis(20);

/// Ends what is left of an nginx that nobody keeps any more, and returns when it has gone.
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
                let _ = kill_process(pid, signal); // it may have gone by itself
            }
        }
        thread::sleep(POLL); // until the next look
    }
}

/// The master of the nginx that runs here.
pub fn running(work_dir: &Path) -> Option<Pid> {
    last_master(work_dir).filter(|pid| is_master(*pid))
}

/// The process that last was nginx's master here; its number may be in use again.
fn last_master(work_dir: &Path) -> Option<Pid> {
    Pid::from_raw(fs::read_to_string(work_dir.join("nginx.pid")).ok()?.trim().parse().ok()?)
}

/// Each process of an nginx that nobody keeps, with the signal that ends it.
fn orphans(work_dir: &Path) -> Vec<(Pid, Signal)> {
    let Some(master) = last_master(work_dir) else { return Vec::new() };
    if is_master(master) {
        let parent = parent_of(master).map(command).unwrap_or_default();
        return if parent.contains("supervisord") { Vec::new() } else { vec![(master, Signal::QUIT)] };
    }
    // They have written titles over their environment, and are known by their group, which is the master's own.
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    let workers = processes.filter(|pid| command(*pid).starts_with("nginx: ") && getpgid(Some(*pid)) == Ok(master));
    workers.map(|pid| (pid, Signal::KILL)).collect()
}

fn is_master(pid: Pid) -> bool {
    command(pid).starts_with("nginx: master")
}

/// The command line of a process, or its title; nothing when it has gone.
fn command(pid: Pid) -> String {
    let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    String::from_utf8_lossy(&line).into_owned()
}

fn parent_of(pid: Pid) -> Option<Pid> {
    // proc_pid_stat(5); the name before these fields may hold anything.
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    Pid::from_raw(stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?)
}
