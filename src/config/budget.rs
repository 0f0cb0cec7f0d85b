//! Memory and disk space that requests may use, and the minimum rate of a slow sender.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, value_parser};

use super::values::bytes;
use crate::http::body::BodyLimits;
use crate::http::budget::Budget;
use crate::http::reply::Buffers;
use crate::http::spool::Disk;

/// Requests may use one in this many parts of a container's memory limit; the rest is for nginx, the kernel's buffers,
/// supervisord and the program itself.
const OF_LIMIT: u64 = 4;
/// Default without a limit: lists of a thousand concurrent slow readers.
const WITHOUT_LIMIT: u64 = 512 << 20;
/// Bounds of the setting.
const BUDGET_MIN: u64 = 8 << 20;
const BUDGET_MAX: u64 = 1 << 40;
/// Number of slow readers whose data in kernel buffers may amount to another half of the budget.
const READERS: u64 = 2048;
/// Linux's `net.core.wmem_default`.
const SOCKET_DEFAULT: usize = 212_992;
/// One client may use one in this many parts of each budget.
const SHARES: usize = 4;

/// Long single rows may use one in this many parts of a half in addition.
const ROWS: usize = 4;

/// Memory and disk for requests.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Memory and disk")]
pub struct BudgetConfig {
    /// Maximum memory for all request bodies and lists in progress, in bytes or with KiB, MiB or GiB (8MiB to 1TiB).
    ///
    /// Half is for bodies, half for lists that wait for their readers; beyond it requests get 503, or 429 if one address uses a
    /// quarter of a half. Another eighth is for single rows over 16 KiB. A smaller budget refuses large bodies and lists
    /// sooner; one that is too large for a container's limit leads to the container being killed.
    ///
    /// [default: a quarter of the container's memory limit, 512MiB without one]
    #[arg(long, env, default_value_t = default_memory_budget(), value_parser = bytes::<BUDGET_MIN, BUDGET_MAX>, hide_default_value = true, hide_env_values = true)]
    pub memory_budget: u64,

    /// Directory for incomplete bodies that are too long to be kept in memory.
    ///
    /// It must be on a disk: a tmpfs is in memory. The files have no names and are removed when the process exits.
    #[arg(long, env, default_value = "/var/tmp", hide_env_values = true)]
    pub spool_dir: PathBuf,

    /// Maximum total size of such bodies, in bytes or with KiB, MiB or GiB (1MiB to 1TiB); beyond it requests get 503.
    ///
    /// One address may use half of it, and a single body as much as BULK_MAX_BYTES.
    #[arg(long, env, default_value = "1GiB", value_parser = bytes::<{ 1 << 20 }, { 1 << 40 }>, hide_env_values = true)]
    pub spool_bytes: u64,

    /// Minimum rate of a body in bytes per second, over ten seconds; a slower one is aborted with 408 (0 to 1048576).
    ///
    /// 0 leaves slow senders to BODY_TIMEOUT_MS and BULK_TIMEOUT_MS; a rate above that of a slow network refuses legitimate
    /// clients.
    #[arg(long, env, default_value_t = 512, value_parser = value_parser!(u32).range(..=1_048_576), hide_env_values = true)]
    pub body_min_rate: u32,
}

impl BudgetConfig {
    /// The limits of a body with this maximum size and time.
    pub fn body_limits(&self, bodies: &Budget, bytes: u32, timeout: Duration) -> BodyLimits {
        BodyLimits { bytes: bytes as usize, timeout, min_rate: self.body_min_rate as usize, memory: bodies.clone() }
    }

    /// Memory for bodies.
    pub fn bodies(&self) -> Budget {
        Budget::new("bodies", self.half(), self.half() / SHARES)
    }

    /// Memory for lists; `wait` is the longest wait of a request for it.
    pub fn buffers(&self, wait: Duration) -> Buffers {
        Buffers::new(Budget::new("lists", self.half(), self.half() / SHARES), wait)
    }

    /// Memory for long single rows, apart from that for lists, so that slow readers of lists do not use it up.
    pub fn rows(&self, wait: Duration) -> Buffers {
        let total = self.half() / ROWS;
        Buffers::new(Budget::new("rows", total, total / SHARES), wait)
    }

    /// Disk for bodies.
    pub fn disk(&self) -> Disk {
        let total = usize::try_from(self.spool_bytes).unwrap_or(usize::MAX);
        Disk::new(self.spool_dir.clone(), Budget::new("disk", total, total / 2))
    }

    /// Size of the kernel's send buffer for a reader behind nginx, if the default is too large for a thousand of them.
    pub fn send_buffer(&self) -> Option<usize> {
        let bytes = usize::try_from(self.memory_budget / READERS).unwrap_or(usize::MAX);
        // The kernel doubles it, for its own data structures.
        (bytes * 2 < SOCKET_DEFAULT).then_some(bytes)
    }

    fn half(&self) -> usize {
        usize::try_from(self.memory_budget / 2).unwrap_or(usize::MAX)
    }
}

/// The container's memory limit, if it has one.
pub fn memory_limit() -> Option<u64> {
    least_limit(Path::new("/sys/fs/cgroup"), &fs::read_to_string("/proc/self/cgroup").unwrap_or_default())
}

fn default_memory_budget() -> u64 {
    memory_limit().map_or(WITHOUT_LIMIT, |limit| (limit / OF_LIMIT).clamp(BUDGET_MIN, WITHOUT_LIMIT))
}

/// The lowest memory limit of this process's control groups, from `/proc/self/cgroup`; supports versions 1 and 2.
fn least_limit(mounted: &Path, groups: &str) -> Option<u64> {
    let mut least = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => (mounted.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => (mounted.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        // A parent's limit also applies. In a container the group's own path may not exist: its root is the group.
        let parents = Path::new(group.trim_start_matches('/')).ancestors();
        for limit in parents.filter_map(|group| fs::read_to_string(root.join(group).join(file)).ok()) {
            // Without a limit, version 2 has "max", and version 1 a number beyond all memory.
            let limit = limit.trim().parse::<u64>().ok().filter(|limit| *limit < 1 << 60);
            least = least.into_iter().chain(limit).min();
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_of_a_process_and_its_parents_applies_in_both_versions() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let write = |file: &str, text: &str| {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            fs::write(file, text).expect("written");
        };
        assert_eq!(least_limit(folder.path(), "0::/pod/app\n"), None);
        write("memory.max", "max\n");
        write("pod/memory.max", "268435456\n");
        write("pod/app/memory.max", "536870912\n");
        assert_eq!(least_limit(folder.path(), "0::/pod/app\n"), Some(256 << 20));
        assert_eq!(least_limit(folder.path(), "0::/\n"), None);
        assert_eq!(least_limit(folder.path(), "0::/../elsewhere\n"), None);
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(least_limit(folder.path(), "4:cpu:/\n3:memory:/docker/abc\n"), None);
        write("memory/memory.limit_in_bytes", "134217728\n"); // a container that sees its own group as the root
        assert_eq!(least_limit(folder.path(), "3:memory:/docker/abc\n"), Some(128 << 20));
    }
}
