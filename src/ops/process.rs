//! Process metrics from the kernel, with the names of Prometheus' client libraries. Read from `/proc`; without it there are
//! none.

use std::fmt::Write;
use std::fs;
use std::str::FromStr;

use rustix::process::{Resource, getrlimit};

/// Clock ticks per second in which the kernel counts process time (`USER_HZ`, 100 on every supported system).
const TICKS_PER_SECOND: f64 = 100.0;

/// All available metrics, in Prometheus' text format; the time that this takes grows with the open descriptors.
pub fn exposition() -> String {
    let stat = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Process::of);
    let boot = field("/proc/stat", "btime ");
    let start = stat.as_ref().zip(boot).map(|(process, boot)| boot + process.start_ticks / TICKS_PER_SECOND);
    // One of the descriptors is that of this directory.
    let open = fs::read_dir("/proc/self/fd").ok().map(|open| open.count().saturating_sub(1).to_string());
    let most = getrlimit(Resource::Nofile).current.map(|most| most.to_string());
    let cpu = stat.as_ref().map(|process| process.cpu_ticks / TICKS_PER_SECOND);
    let memory = field("/proc/self/status", "VmRSS:").map(|kib| kib * 1024.0);
    let text = |number: Option<f64>| number.map(|number| number.to_string());
    let known = [
        ("process_resident_memory_bytes", "gauge", "Resident memory.", text(memory)),
        ("process_open_fds", "gauge", "Open file descriptors.", open),
        ("process_max_fds", "gauge", "Maximum number of open file descriptors.", most),
        ("process_cpu_seconds_total", "counter", "CPU time in user and system mode.", text(cpu)),
        ("process_start_time_seconds", "gauge", "Start time of the process, in seconds since 1970.", text(start)),
        ("process_threads", "gauge", "Threads of the process.", text(stat.map(|process| process.threads))),
    ];
    let mut out = String::new();
    for (name, kind, help, value) in known {
        if let Some(value) = value {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        }
    }
    out
}

/// The number after a name at the start of a line.
fn field(file: &str, name: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// Fields of `/proc/[pid]/stat` (proc(5)).
#[derive(Debug, PartialEq)]
struct Process {
    cpu_ticks: f64,
    threads: f64,
    start_ticks: f64,
}

impl Process {
    fn of(text: &str) -> Option<Self> {
        // The program's name is in parentheses, and may contain any character.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |place: usize| fields.get(place - 3).and_then(|field| f64::from_str(field).ok());
        Some(Self { cpu_ticks: number(14)? + number(15)?, threads: number(20)?, start_ticks: number(22)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 12345 1000 200 18446744073709551615";
        let expected = Process { cpu_ticks: 300.0, threads: 9.0, start_ticks: 12345.0 };
        assert_eq!(Process::of(text), Some(expected));
        assert_eq!(Process::of("7 a S 1"), None);
    }
}
