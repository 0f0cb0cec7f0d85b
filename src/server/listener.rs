//! Listens on TCP, on a Unix socket, or on a socket inherited from a supervisor.
//!
//! Sockets are bound here, so that an address in use is an error with a remedy instead of a panic. A stale Unix socket file is
//! replaced, a live one refused, and at the end the file is removed only if this process created it.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use socket2::{SockFilter, SockRef};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Owner and group may connect: nginx runs as the same user, or shares its group.
const SOCKET_MODE: u32 = 0o660;

/// A classic BPF program (linux/filter.h) that drops connection attempts (SYN without ACK in byte 14 of the TCP header) and
/// accepts the rest.
const DROP_SYN: [(u16, u8, u8, u32); 5] =
    [(0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, u32::MAX)];

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddr {
    /// `host:port`.
    Tcp(String),
    /// `unix:/path`.
    Unix(PathBuf),
    /// `fd:N`: an inherited, listening Unix socket.
    Inherited(RawFd),
}

impl ListenAddr {
    /// Returns true if only this machine can connect.
    pub fn is_local(&self) -> bool {
        let Self::Tcp(address) = self else { return true };
        let host = address.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || "expected host:port, unix:/path or fd:N, for example 127.0.0.1:8000".to_owned();
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(fault()) };
        }
        if let Some(number) = text.strip_prefix("fd:") {
            return number.parse().map(Self::Inherited).map_err(|_| fault());
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(Self::Tcp(text.to_owned())),
            _ => Err(fault()),
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => formatter.write_str(address),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Self::Inherited(fd) => write!(formatter, "fd:{fd}"),
        }
    }
}

/// Why listening failed.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The address is in use, not local, or malformed.
    #[error("cannot listen on {address}: {reason}; free it or choose another with LISTEN or METRICS_LISTEN")]
    Tcp {
        /// The address.
        address: String,
        /// The system's error.
        reason: io::Error,
    },
    /// Another server listens on the socket.
    #[error("cannot listen on {}: another server is listening on it; stop that server or choose another path with \
             LISTEN", .0.display())]
    Live(PathBuf),
    /// The path exists and is not a socket.
    #[error("cannot listen on {}: the path exists and is not a socket; remove it or choose another with LISTEN", .0.display())]
    NoSocket(PathBuf),
    /// The file system refuses.
    #[error("cannot listen on {}: {reason}; make its directory writable or choose another path with LISTEN", path.display())]
    Unix {
        /// The path.
        path: PathBuf,
        /// The system's error.
        reason: io::Error,
    },
    /// The descriptor is not a listening Unix socket.
    #[error("cannot listen on fd:{fd}: {reason}; LISTEN=fd:N expects a listening Unix socket from a supervisor")]
    Inherited {
        /// The descriptor.
        fd: RawFd,
        /// What is wrong with it.
        reason: io::Error,
    },
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, and the file to remove at the end if this process created it.
    Unix(UnixListener, Option<SocketFile>),
}

/// An accepted connection.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Listener {
    /// Binds an address. Must be called inside the runtime.
    ///
    /// # Errors
    /// If the address is in use, malformed, or not permitted.
    pub async fn bind(address: &ListenAddr) -> Result<Self, ListenError> {
        match address {
            ListenAddr::Tcp(address) => TcpListener::bind(address.as_str())
                .await
                .map(Self::Tcp)
                .map_err(|reason| ListenError::Tcp { address: address.clone(), reason }),
            ListenAddr::Unix(path) => bind_unix(path),
            ListenAddr::Inherited(fd) => inherit(*fd).map_err(|reason| ListenError::Inherited { fd: *fd, reason }),
        }
    }

    /// The TCP address, for tests that bind port 0.
    pub fn tcp_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// Stops new clients from connecting. Returns true if this server must still serve the clients in the queue; those of an
    /// inherited socket are served by its supervisor's next server.
    ///
    /// When a TCP listener closes, the kernel resets the connections in its queue, with the data sent on them. Connection
    /// attempts are therefore dropped first: a new client gets no reply and retries a second later, when it is refused and can
    /// connect elsewhere without having sent anything.
    pub fn withdraw(&mut self) -> bool {
        match self {
            Self::Tcp(listener) => {
                // Without kernel support for filters, connections in the queue may be reset.
                let _ = SockRef::from(&*listener)
                    .attach_filter(&DROP_SYN.map(|(code, yes, no, value)| SockFilter::new(code, yes, no, value)));
                true
            }
            Self::Unix(_, file) => file.take().is_some(),
        }
    }

    /// Accepts a connection; one that was reset before that is skipped.
    ///
    /// # Errors
    /// If the process is out of descriptors or memory.
    pub async fn accept(&self) -> io::Result<Stream> {
        loop {
            let accepted = match self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
                Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            };
            match accepted {
                Ok(Stream::Tcp(stream)) => {
                    // Without it Nagle's algorithm delays the second write of a response (RFC 896); a failure to set it only
                    // costs time.
                    let _ = stream.set_nodelay(true);
                    return Ok(Stream::Tcp(stream));
                }
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
                other => return other,
            }
        }
    }
}

/// The file of a Unix socket that this process created; removed when dropped, unless it was replaced.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path); // an absent file is fine
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

fn bind_unix(path: &Path) -> Result<Listener, ListenError> {
    let fault = |reason| ListenError::Unix { path: path.to_owned(), reason };
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(ListenError::NoSocket(path.to_owned())),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(ListenError::Live(path.to_owned()));
        }
        // The file was left by a killed server.
        Ok(_) => fs::remove_file(path).map_err(fault)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(fault(error)),
    }
    let listener = UnixListener::bind(path).map_err(fault)?;
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(fault)?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path).map_err(fault)? };
    Ok(Listener::Unix(listener, Some(file)))
}

/// Takes over a socket that a supervisor keeps open across restarts, so that connections wait in its queue meanwhile. It is
/// neither unlinked nor shut down: the supervisor owns it.
fn inherit(fd: RawFd) -> io::Result<Listener> {
    // Duplicating checks that the descriptor is open, and leaves the original to the supervisor's child.
    let socket = socket2::Socket::from(duplicate(fd)?);
    if !socket.is_listener()? || socket.domain()? != socket2::Domain::UNIX {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a listening Unix socket"));
    }
    socket.set_nonblocking(true)?;
    let listener = UnixListener::from_std(std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(socket)))?;
    Ok(Listener::Unix(listener, None))
}

/// Duplicates an inherited descriptor.
///
/// # Errors
/// If the number is not an open descriptor.
pub fn duplicate(fd: RawFd) -> io::Result<std::os::fd::OwnedFd> {
    if fd < 0 {
        return Err(ErrorKind::InvalidInput.into());
    }
    #[expect(
        unsafe_code,
        reason = "the standard library has no other way to borrow a raw descriptor, which is only duplicated"
    )]
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned() // fails on a closed descriptor; the copy is closed on exec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_all_three_forms() {
        assert_eq!("127.0.0.1:80".parse(), Ok(ListenAddr::Tcp("127.0.0.1:80".to_owned())));
        assert_eq!("[::]:80".parse(), Ok(ListenAddr::Tcp("[::]:80".to_owned())));
        assert_eq!("unix:/run/a.sock".parse(), Ok(ListenAddr::Unix("/run/a.sock".into())));
        assert_eq!("fd:0".parse(), Ok(ListenAddr::Inherited(0)));
        for wrong in ["", "80", "host:", "host:99999", "unix:relative", "fd:x", ":80"] {
            assert!(wrong.parse::<ListenAddr>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_a_live_one_refused_and_ours_removed() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound")); // the file stays: stale
        let address = ListenAddr::Unix(path.clone());
        let first = Listener::bind(&address).await.expect("a stale socket is replaced");
        let mode = fs::metadata(&path).expect("it exists").permissions().mode() & 0o777;
        assert_eq!(mode, SOCKET_MODE);
        assert!(matches!(Listener::bind(&address).await, Err(ListenError::Live(_))));
        drop(first);
        assert!(!path.exists());
        fs::write(&path, "a file").expect("written");
        assert!(matches!(Listener::bind(&address).await, Err(ListenError::NoSocket(_))));
    }

    #[tokio::test]
    async fn queued_connections_are_served_and_later_ones_refused() {
        let mut listener = Listener::bind(&"127.0.0.1:0".parse().expect("an address")).await.expect("bound");
        let address = listener.tcp_addr().expect("a port");
        let queued = TcpStream::connect(address).await.expect("connected");
        assert!(listener.withdraw());
        let later = tokio::spawn(TcpStream::connect(address));
        let Stream::Tcp(served) = listener.accept().await.expect("the one in the queue") else { panic!("no port") };
        assert_eq!(served.peer_addr().ok(), queued.local_addr().ok());
        served.try_write(b"answer").expect("written");
        queued.readable().await.expect("answered");
        drop(listener);
        let refused = later.await.expect("no panic").expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_server_does_not_remove_the_socket_of_its_successor() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("s");
        let address = ListenAddr::Unix(path.clone());
        let old = Listener::bind(&address).await.expect("bound");
        fs::remove_file(&path).expect("removed");
        let _successor = Listener::bind(&address).await.expect("bound anew");
        drop(old);
        std::os::unix::net::UnixStream::connect(&path).expect("the successor is reached");
    }
}
