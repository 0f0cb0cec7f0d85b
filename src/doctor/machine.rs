//! The machine: disk space, open files, memory.

use std::path::Path;

use rustix::fs::{Access, access, statfs, statvfs};
use rustix::process::{Resource as Limited, getrlimit};

use super::report::Report;
use crate::config::{BudgetConfig, memory_limit};
use crate::shell::quoted;

const AREA_DISK: &str = "disk";
const AREA_LIMITS: &str = "limits";
const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// Less free space than this lasts only hours, at a moderate load.
const DISK_WARNING: u64 = GIB;
/// PostgreSQL shuts down when it cannot write its WAL: a segment is 16 MiB, and a checkpoint requires several.
const DISK_WRONG: u64 = 200 * MIB;
/// As [`DISK_WARNING`], in percent of the disk.
const DISK_WARNING_PERCENT: u64 = 5;
/// Linux's magic number of a tmpfs (statfs(2)).
const TMPFS: i64 = 0x0102_1994;
/// A client's connection requires one file of the server and two of nginx.
const FILES_WARNING: u64 = 4096;

/// Checks a directory that the service writes to; `name` is its setting.
pub fn disk(report: &mut Report, name: &str, directory: &Path) {
    let shown = format!("{name}={}", directory.display());
    let space = match statvfs(directory) {
        Ok(space) => space,
        Err(error) => {
            return report.wrong(AREA_DISK, format!("{shown} cannot be checked: {error}"), make(directory));
        }
    };
    if let Err(error) = access(directory, Access::WRITE_OK) {
        return report.wrong(AREA_DISK, format!("{shown} cannot be written to: {error}"), make(directory));
    }
    let (free, total) = (space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize);
    let what = format!("{} MiB of {} MiB are free for {shown}", free / MIB, total / MIB);
    let remedy =
        format!("free some space, or move {name} to a larger disk; df -h {}", quoted(&directory.to_string_lossy()));
    if free < DISK_WRONG {
        report.wrong(AREA_DISK, what, remedy);
    } else if free < DISK_WARNING || free < total / 100 * DISK_WARNING_PERCENT {
        report.warning(AREA_DISK, what, remedy);
    } else if space.f_files > 0 && space.f_favail * 100 < space.f_files {
        report.warning(AREA_DISK, format!("fewer than 1 % of the inodes are free for {shown}"), remedy);
    } else {
        report.fine(AREA_DISK, what);
    }
}

fn make(directory: &Path) -> String {
    let directory = quoted(&directory.to_string_lossy());
    format!("mkdir -p {directory}, owned by the service's user")
}

/// Checks the directory for long bodies.
pub fn spool(report: &mut Report, config: &BudgetConfig) {
    disk(report, "SPOOL_DIR", &config.spool_dir);
    let Ok(space) = statfs(&config.spool_dir) else { return };
    if space.f_type == TMPFS {
        let what = format!("SPOOL_DIR={} is a tmpfs: long bodies are stored in memory", config.spool_dir.display());
        report.warning(AREA_DISK, what, "mount a disk there, or set SPOOL_DIR=/var/tmp");
    }
}

/// Checks the resource limits of this process.
pub fn limits(report: &mut Report, config: &BudgetConfig) {
    match getrlimit(Limited::Nofile).current {
        Some(files) if files < FILES_WARNING => report.warning(
            AREA_LIMITS,
            format!("a process can open at most {files} files; every connection requires one"),
            "ulimit -n 65536, or LimitNOFILE=65536 in the service's unit",
        ),
        _ => report.fine(AREA_LIMITS, "the limit of open files is sufficient"),
    }
    if let Some(limit) = memory_limit() {
        if config.memory_budget > limit / 2 {
            report.wrong(
                AREA_LIMITS,
                format!(
                    "MEMORY_BUDGET={} MiB is more than half of this container's {} MiB",
                    config.memory_budget / MIB,
                    limit / MIB
                ),
                "unset MEMORY_BUDGET (a quarter of the limit), or raise the container's limit",
            );
        } else {
            report.fine(AREA_LIMITS, "MEMORY_BUDGET fits into this container's memory");
        }
    }
}
