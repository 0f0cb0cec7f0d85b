//! The machine: room on disks, open files, memory.

use std::path::Path;

use rustix::fs::{Access, access, statfs, statvfs};
use rustix::process::{Resource as Limited, getrlimit};

use super::report::Report;
use crate::config::{BudgetConfig, memory_limit};

const AREA_DISK: &str = "disk";
const AREA_LIMITS: &str = "limits";
const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// Less than this is a matter of hours, at a moderate load.
const DISK_WARNING: u64 = GIB;
/// PostgreSQL ends when it cannot write its log: one segment of it is 16 MiB, and a checkpoint needs several.
const DISK_WRONG: u64 = 200 * MIB;
/// The same as a part of the whole disk, in percent.
const DISK_WARNING_PERCENT: u64 = 5;
/// Linux's magic number of a tmpfs (statfs(2)).
const TMPFS: i64 = 0x0102_1994;
/// A connection of a client takes one of the server's and two of nginx's.
const FILES_WARNING: u64 = 4096;

/// Looks at a directory that the service writes to; `name` is its setting.
pub fn disk(report: &mut Report, name: &str, directory: &Path) {
    let shown = format!("{name}={}", directory.display());
    let space = match statvfs(directory) {
        Ok(space) => space,
        Err(error) => {
            return report.wrong(AREA_DISK, format!("{shown} cannot be looked at: {error}"), make(directory));
        }
    };
    if let Err(error) = access(directory, Access::WRITE_OK) {
        return report.wrong(AREA_DISK, format!("{shown} cannot be written to: {error}"), make(directory));
    }
    let (free, total) = (space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize);
    let what = format!("{} MiB of {} MiB are free for {shown}", free / MIB, total / MIB);
    let mend = format!("free some, or move {name} to a larger disk; df -h {}", directory.display());
    if free < DISK_WRONG {
        report.wrong(AREA_DISK, what, mend);
    } else if free < DISK_WARNING || free < total / 100 * DISK_WARNING_PERCENT {
        report.warning(AREA_DISK, what, mend);
    } else if space.f_files > 0 && space.f_favail * 100 < space.f_files {
        report.warning(AREA_DISK, format!("fewer than 1 % of the inodes are free for {shown}"), mend);
    } else {
        report.fine(AREA_DISK, what);
    }
}

fn make(directory: &Path) -> String {
    let directory = directory.display();
    format!("mkdir -p {directory}, and let the user of the service own it")
}

/// Looks at where long bodies wait until they are whole.
pub fn spool(report: &mut Report, room: &BudgetConfig) {
    disk(report, "SPOOL_DIR", &room.spool_dir);
    let Ok(space) = statfs(&room.spool_dir) else { return };
    if space.f_type == TMPFS {
        let what = format!("SPOOL_DIR={} is a tmpfs: long bodies are in memory after all", room.spool_dir.display());
        report.warning(AREA_DISK, what, "mount a disk there, or set SPOOL_DIR=/var/tmp");
    }
}

/// Looks at what the kernel grants this user.
pub fn limits(report: &mut Report, room: &BudgetConfig) {
    match getrlimit(Limited::Nofile).current {
        Some(files) if files < FILES_WARNING => report.warning(
            AREA_LIMITS,
            format!("a process may open {files} files here; every connection takes one"),
            "ulimit -n 65536, or LimitNOFILE=65536 in the service's unit",
        ),
        _ => report.fine(AREA_LIMITS, "enough files may be open"),
    }
    if let Some(limit) = memory_limit() {
        if room.memory_budget > limit / 2 {
            report.wrong(
                AREA_LIMITS,
                format!(
                    "MEMORY_BUDGET={} MiB is more than half of this container's {} MiB",
                    room.memory_budget / MIB,
                    limit / MIB
                ),
                "unset MEMORY_BUDGET (a quarter of the limit), or raise the container's limit",
            );
        } else {
            report.fine(AREA_LIMITS, "MEMORY_BUDGET fits into this container's memory");
        }
    }
}
