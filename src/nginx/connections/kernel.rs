//! Kernel interfaces for connections and packet filters: /proc, sock_diag(7), and classic BPF.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::fstat;
use rustix::process::Pid;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::server::listener::duplicate;

/// An IPv6 client is identified by its /64.
pub const CLIENT_V6_BITS: u8 = 64;

/// linux/netlink.h, linux/sock_diag.h and linux/inet_diag.h: a dump of the established connections of a family.
const NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const DUMP_REQUEST: u16 = 0x301;
const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;
const ESTABLISHED: u32 = 1 << 1;
const TCP: u8 = 6;
const HEADER_BYTES: usize = 16;
const REQUEST_BYTES: usize = 72;
const PORT_AT: usize = HEADER_BYTES + 4;
const REMOTE_AT: usize = PORT_AT + 4 + 16;
const ANSWER_BYTES: usize = 1 << 15;

/// linux/filter.h. Addresses are loaded from the network header, wherever the transport header begins.
const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const NETWORK: u32 = 0xFFF0_0000;
const WHOLE: u32 = u32::MAX;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The address family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// linux/socket.h.
    fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// The offset of the source address in the network header.
    fn source(self) -> u32 {
        match self {
            Self::V4 => NETWORK + 12,
            Self::V6 => NETWORK + 8,
        }
    }
}

/// The clients whose SYN packets a listening socket drops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dropped {
    /// None.
    None,
    /// All.
    All,
    /// These addresses.
    These(BTreeSet<IpAddr>),
}

/// A listening socket of nginx.
pub struct Watched {
    socket: Socket,
    number: RawFd,
    pub port: u16,
    pub family: Family,
    dropped: Dropped,
}

impl Watched {
    /// Takes an inherited socket by its number.
    pub fn adopt(number: RawFd) -> io::Result<Self> {
        let socket = Socket::from(duplicate(number)?);
        let address = socket.local_addr()?.as_socket().ok_or(ErrorKind::InvalidInput)?;
        Ok(Self { socket, number, port: address.port(), family: Family::of(address.ip()), dropped: Dropped::None })
    }

    /// Returns true if a process that inherited this socket still has it open.
    pub fn is_held_by(&self, process: Pid) -> bool {
        let theirs = fs::metadata(format!("/proc/{}/fd/{}", process.as_raw_nonzero(), self.number));
        match (theirs, fstat(&self.socket)) {
            (Ok(theirs), Ok(ours)) => (theirs.dev(), theirs.ino()) == (ours.st_dev, ours.st_ino),
            // Unknown, for example for a process of another user.
            (Err(error), _) => error.kind() == ErrorKind::PermissionDenied,
            (_, Err(_)) => false,
        }
    }

    /// Has the kernel drop connection attempts of these clients; packets of open connections do not pass through a listening
    /// socket.
    pub fn set(&mut self, dropped: Dropped) -> io::Result<()> {
        if dropped == self.dropped {
            return Ok(());
        }
        match &dropped {
            Dropped::None => self.socket.detach_filter()?,
            Dropped::All => self.socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?,
            Dropped::These(addresses) => self.socket.attach_filter(&filter(self.family, addresses))?,
        }
        self.dropped = dropped;
        Ok(())
    }
}

/// A program that accepts packets from all but these addresses.
fn filter(family: Family, addresses: &BTreeSet<IpAddr>) -> Vec<SockFilter> {
    let mut program = Vec::new();
    for address in addresses {
        let (words, used) = match address {
            IpAddr::V4(address) => ([address.to_bits(), 0], 1),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments().map(u32::from);
                ([a << 16 | b, c << 16 | d], 2)
            }
        };
        for (index, word) in (0u8..).zip(&words[..used as usize]) {
            // On a mismatch it jumps past the instruction that drops the packet.
            let behind = 2 * (used - index - 1) + 1;
            program.push(SockFilter::new(LOAD, 0, 0, family.source() + 4 * u32::from(index)));
            program.push(SockFilter::new(EQUAL, 0, behind, *word));
        }
        program.push(SockFilter::new(RETURN, 0, 0, 0));
    }
    program.push(SockFilter::new(RETURN, 0, 0, WHOLE));
    program
}

/// The number of open TCP sockets on all ports: cheap to read, and never less than nginx's.
pub struct OpenSockets(Vec<(File, &'static str)>);

impl OpenSockets {
    /// Opens the files with the numbers.
    pub fn new() -> io::Result<Self> {
        let files = [("/proc/net/sockstat", "TCP: inuse "), ("/proc/net/sockstat6", "TCP6: inuse ")];
        let opened = files.into_iter().filter_map(|(path, name)| match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None, // a kernel without IPv6
            opened => Some(opened.map(|file| (file, name))),
        });
        opened.collect::<io::Result<_>>().map(Self)
    }

    /// The current number. Reading the file again from its start regenerates it.
    pub fn count(&self) -> io::Result<u64> {
        let mut text = [0; 4096];
        let mut total = 0;
        for (file, name) in &self.0 {
            let length = file.read_at(&mut text, 0)?;
            let text = String::from_utf8_lossy(&text[..length]);
            let number =
                text.split_once(name).and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<u64>().ok());
            total +=
                number.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("no `{name}` in /proc/net")))?;
        }
        Ok(total)
    }
}

/// Adds the number of each address's connections to the ports.
pub fn count_connections(family: Family, ports: &BTreeSet<u16>, held: &mut BTreeMap<IpAddr, u64>) -> io::Result<()> {
    let mut kernel = Socket::new(Domain::from(NETLINK), Type::DGRAM, Some(Protocol::from(NETLINK_SOCK_DIAG)))?;
    kernel.send(&dump_request(family))?;
    let mut answer = vec![0; ANSWER_BYTES];
    loop {
        let length = kernel.read(&mut answer)?;
        let mut rest = &answer[..length];
        while rest.len() >= HEADER_BYTES {
            let size = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            let message = rest.get(..size.max(HEADER_BYTES)).ok_or(ErrorKind::InvalidData)?;
            match u16::from_ne_bytes([message[4], message[5]]) {
                MESSAGE_DONE => return Ok(()),
                MESSAGE_ERROR => return Err(refusal(message)),
                _ => {
                    let (port, remote) = connection(family, message).ok_or(ErrorKind::InvalidData)?;
                    if ports.contains(&port) {
                        *held.entry(remote).or_default() += 1;
                    }
                }
            }
            rest = &rest[message.len().next_multiple_of(4).min(rest.len())..];
        }
    }
}

fn dump_request(family: Family) -> Vec<u8> {
    let mut request = Vec::with_capacity(REQUEST_BYTES);
    request.extend((REQUEST_BYTES as u32).to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(DUMP_REQUEST.to_ne_bytes());
    request.extend([0; 8]); // sequence number and port id, which the kernel does not need
    request.extend([family.number(), TCP, 0, 0]);
    request.extend(ESTABLISHED.to_ne_bytes());
    request.resize(REQUEST_BYTES - 8, 0); // any address, any port
    request.extend([0xFF; 8]); // no cookie
    request
}

/// The local port and the remote address.
fn connection(family: Family, message: &[u8]) -> Option<(u16, IpAddr)> {
    let port = u16::from_be_bytes(message.get(PORT_AT..PORT_AT + 2)?.try_into().ok()?);
    let remote: [u8; 16] = message.get(REMOTE_AT..REMOTE_AT + 16)?.try_into().ok()?;
    Some((
        port,
        match family {
            Family::V4 => Ipv4Addr::new(remote[0], remote[1], remote[2], remote[3]).into(),
            Family::V6 => Ipv6Addr::from_bits(u128::from_be_bytes(remote) & !u128::from(u64::MAX)).into(),
        },
    ))
}

fn refusal(message: &[u8]) -> io::Error {
    let number = message.get(HEADER_BYTES..HEADER_BYTES + 4).and_then(|bytes| bytes.try_into().ok());
    io::Error::from_raw_os_error(number.map_or(0, |bytes| -i32::from_ne_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    #[test]
    fn connections_are_counted_by_client_and_port() {
        for (address, client, family) in [("127.0.0.1:0", "127.0.0.1", Family::V4), ("[::1]:0", "::", Family::V6)] {
            let Ok(listener) = TcpListener::bind(address) else { continue }; // no IPv6 here
            let address = listener.local_addr().expect("an address");
            let opened: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).expect("connected")).collect();
            let mut held = BTreeMap::new();
            count_connections(family, &BTreeSet::from([address.port()]), &mut held).expect("the kernel reports it");
            assert_eq!(held, BTreeMap::from([(client.parse().expect("an address"), 3)]));
            let open = OpenSockets::new().expect("/proc").count().expect("a number");
            assert!(open > opened.len() as u64, "{open} sockets");
        }
    }

    /// Starts to connect; the loopback interface has delivered the SYN when this returns.
    fn connect(listener: &TcpListener, from: &str) -> Socket {
        let address = listener.local_addr().expect("an address");
        let client = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        client.bind(&from.parse::<SocketAddr>().expect("an address").into()).expect("bound");
        client.set_nonblocking(true).expect("it does not wait");
        let _ = client.connect(&address.into()); // in progress
        client
    }

    #[test]
    fn a_filter_refuses_only_the_listed_addresses() {
        // An IPv6 client is all of ::/64, and no other IPv6 address is available here.
        for (listens, refused, named, other) in
            [("127.0.0.1:0", "127.0.0.2:0", "127.0.0.2", "127.0.0.3:0"), ("[::1]:0", "[::1]:0", "::", "[::1]:0")]
        {
            let Ok(listener) = TcpListener::bind(listens) else { continue }; // no IPv6 here
            let mut watched = Watched::adopt(listener.as_raw_fd()).expect("a socket");
            let is_connected = |from| connect(&listener, from).peer_addr().is_ok();
            let these = |text: &str| Dropped::These(BTreeSet::from([text.parse().expect("an address")]));
            watched.set(these(named)).expect("the kernel accepts it");
            assert!(!is_connected(refused));
            watched
                .set(these(if watched.family == Family::V4 { named } else { "fd00::" }))
                .expect("the kernel accepts it");
            assert!(is_connected(other));
            watched.set(Dropped::All).expect("the kernel accepts it");
            assert!(!is_connected(other));
            watched.set(Dropped::None).expect("the kernel accepts it");
            assert!(is_connected(refused) && is_connected(other));
        }
    }
}
