//! How much of the machine nginx may take: connections and buffers by the container's memory and the descriptors there are.
//!
//! The server takes a quarter of a container's limit for requests (MEMORY_BUDGET), and so does nginx for connections; kernel
//! buffers, supervisord and the programs have the rest.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Two descriptors a request (client and server), and some for logs, listeners and the connections kept alive.
const CONNECTIONS_MAX: u64 = 16_384;
const CONNECTIONS_MIN: u64 = 128;
const DESCRIPTORS_RESERVED: u64 = 128;
/// nginx's structures for a connection, its header and the kernel's socket; TLS doubles it.
const CONNECTION_BYTES: u64 = 16 * 1024;
/// A worker has about 6 MiB of its own before it has any connection.
const WORKER_BYTES: u64 = 64 << 20;
/// What a thousand slow readers may leave unread in the kernel is a quarter of the limit. Linux lets each have up to 4 MiB.
const READERS: u64 = 4096;
const SEND_BUFFER_MIN: u64 = 16 * 1024;
const SEND_BUFFER_MAX: u64 = 4 << 20;
/// Linux's `net.core.wmem_default`.
const SOCKET_BUFFER: u64 = 212_992;

/// One worker per processor that this process may use, as far as their own memory goes.
pub fn workers(limit: Option<u64>) -> u64 {
    let processors = std::thread::available_parallelism().map_or(1, |number| number.get() as u64);
    limit.map_or(processors, |limit| processors.min(limit / WORKER_BYTES).max(1))
}

/// As many connections of a worker as memory and descriptors allow, after the soft limit of these was raised to the hard one.
pub fn connections(limit: Option<u64>) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let descriptors = if raised { maximum } else { current };
    let by_memory = limit.map_or(CONNECTIONS_MAX, |limit| limit / 4 / CONNECTION_BYTES);
    let by_descriptors = descriptors.map_or(CONNECTIONS_MAX, |number| number.saturating_sub(DESCRIPTORS_RESERVED));
    CONNECTIONS_MAX.min(by_memory).min(by_descriptors).max(CONNECTIONS_MIN)
}

/// How many long bodies may be handed on at once, of which one client may have a quarter; none for any number.
///
/// The kernel keeps as much of each between nginx and the server as its default buffer takes, whatever the server refuses.
pub fn long_bodies(limit: Option<u64>) -> Option<u64> {
    limit.map(|limit| (limit / 8 / SOCKET_BUFFER).max(8))
}

/// Directives that have nginx compress in 64 KiB and 32 KiB of buffers, where there is a limit, instead of 256 and 128.
///
/// A list comes to 7 % more then, and takes a fifth more of the processor.
pub fn gzip_memory(limit: Option<u64>) -> &'static str {
    limit.map_or("", |_| "gzip_window 8k; gzip_hash 16k; gzip_buffers 4 8k;")
}

/// The parameter of `listen` that bounds what a slow reader leaves in the kernel; nothing where there is memory enough.
///
/// It bounds the rate of a distant reader too, to this much per round trip.
pub fn send_buffer(limit: Option<u64>) -> String {
    match limit.map(|limit| limit / READERS) {
        // The kernel doubles it, for its own structures.
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
        assert_eq!(connections(small), 1024);
        assert_eq!(connections(Some(1 << 20)), CONNECTIONS_MIN);
        assert_eq!(
            (long_bodies(Some(256 << 20)), long_bodies(Some(1 << 20)), long_bodies(None)),
            (Some(157), Some(8), None)
        );
    }

    #[test]
    fn a_readers_buffer_is_bounded_where_memory_is() {
        assert_eq!(send_buffer(Some(256 << 20)), " sndbuf=32768");
        assert_eq!(send_buffer(Some(1 << 20)), " sndbuf=16384");
        assert_eq!(send_buffer(Some(16 << 30)), "");
        assert_eq!(send_buffer(None), "");
    }
}
