//! nginx's share of the machine: connections and buffers according to the memory limit and the available descriptors.
//!
//! The server uses a quarter of a container's memory limit for requests (MEMORY_BUDGET), and nginx another quarter for
//! connections; the rest is for kernel buffers, supervisord and the programs themselves.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A request needs two descriptors (client and server); logs, listeners and idle connections need some more.
const CONNECTIONS_MAX: u64 = 16_384;
const CONNECTIONS_MIN: u64 = 128;
const DESCRIPTORS_RESERVED: u64 = 128;
/// nginx's structures for a connection, its header and the kernel's socket; TLS doubles that.
const CONNECTION_BYTES: u64 = 16 * 1024;
/// A worker needs about 6 MiB before it has any connection.
const WORKER_BYTES: u64 = 64 << 20;
/// The kernel's buffers for a thousand slow readers may use a quarter of the limit. Linux allows each up to 4 MiB.
const READERS: u64 = 4096;
const SEND_BUFFER_MIN: u64 = 16 * 1024;
const SEND_BUFFER_MAX: u64 = 4 << 20;
/// Linux's `net.core.wmem_default`.
const SOCKET_BUFFER: u64 = 212_992;

/// The number of workers: one per available processor, limited by their memory.
pub fn workers(limit: Option<u64>) -> u64 {
    let processors = std::thread::available_parallelism().map_or(1, |number| number.get() as u64);
    limit.map_or(processors, |limit| processors.min(limit / WORKER_BYTES).max(1))
}

/// The number of connections per worker that memory and descriptors allow, after raising the soft descriptor limit to the hard
/// one.
pub fn connections(limit: Option<u64>) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let descriptors = if raised { maximum } else { current };
    let by_memory = limit.map_or(CONNECTIONS_MAX, |limit| limit / 4 / CONNECTION_BYTES);
    let by_descriptors = descriptors.map_or(CONNECTIONS_MAX, |number| number.saturating_sub(DESCRIPTORS_RESERVED));
    CONNECTIONS_MAX.min(by_memory).min(by_descriptors).max(CONNECTIONS_MIN)
}

/// The number of idle connections to the server that a worker keeps.
///
/// Beyond it, each request opens and closes a connection. With 12,000 clients, 1,024 instead of 256 gave a sixth more requests
/// and half the p99; 4,096 gave no more. Each takes 13 KiB in the server, for the two seconds until nginx closes it.
pub fn idle_connections(connections: u64) -> u64 {
    connections / 16
}

/// The number of long bodies that may be forwarded at once, of which one client may have a quarter; `None` means no limit.
///
/// The kernel buffers up to its default socket buffer of each body between nginx and the server, whatever the server refuses.
pub fn long_bodies(limit: Option<u64>) -> Option<u64> {
    limit.map(|limit| (limit / 8 / SOCKET_BUFFER).max(8))
}

/// Directives that reduce nginx's compression buffers from 256 and 128 KiB to 64 and 32 KiB, if there is a memory limit.
///
/// A compressed list is then 7 % larger, and compression takes a fifth more CPU time.
pub fn gzip_memory(limit: Option<u64>) -> &'static str {
    limit.map_or("", |_| "gzip_window 8k; gzip_hash 16k; gzip_buffers 4 8k;")
}

/// The parameter of `listen` that limits the kernel's buffer for a slow reader; empty if there is enough memory.
///
/// It also limits the rate of a distant reader, to this size per round trip.
pub fn send_buffer(limit: Option<u64>) -> String {
    match limit.map(|limit| limit / READERS) {
        // The kernel doubles the value for its own structures.
        Some(bytes) if bytes < SEND_BUFFER_MAX => format!(" sndbuf={}", (bytes / 2).max(SEND_BUFFER_MIN)),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_container_has_fewer_workers_connections_and_bodies() {
        let small = Some(64 << 20);
        assert_eq!(workers(small), 1);
        assert_eq!((connections(small), idle_connections(1024)), (1024, 64));
        assert_eq!(connections(Some(1 << 20)), CONNECTIONS_MIN);
        assert_eq!(
            (long_bodies(Some(256 << 20)), long_bodies(Some(1 << 20)), long_bodies(None)),
            (Some(157), Some(8), None)
        );
    }

    #[test]
    fn a_readers_buffer_is_limited_if_memory_is() {
        assert_eq!(send_buffer(Some(256 << 20)), " sndbuf=32768");
        assert_eq!(send_buffer(Some(1 << 20)), " sndbuf=16384");
        assert_eq!(send_buffer(Some(16 << 30)), "");
        assert_eq!(send_buffer(None), "");
    }
}
