//! Opens the listening sockets, which nginx takes over by their descriptor numbers.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use rustix::io::{FdFlags, fcntl_setfd};
use socket2::{Domain, Socket, Type};

/// nginx sets its own backlog.
const BACKLOG: i32 = 511;
/// An nginx that is draining may still be using a port.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(500);

/// Returns true if an IPv6 socket can be bound.
pub fn ipv6_is_there() -> bool {
    bind(0, Domain::IPV6).is_ok()
}

/// Opens sockets that listen on all addresses.
///
/// # Errors
/// If a port is in use, or not permitted for this user.
pub fn listen(ports: &[u16], ipv6: bool) -> anyhow::Result<Vec<Socket>> {
    let families = [Domain::IPV4].into_iter().chain(ipv6.then_some(Domain::IPV6));
    let addresses = ports.iter().flat_map(|port| families.clone().map(move |family| (*port, family)));
    let all = || addresses.clone().map(|(port, family)| listening(port, family)).collect::<io::Result<_>>();
    let mut left = TRIES;
    loop {
        left -= 1;
        match all() {
            Err(error) if left > 0 && error.kind() == ErrorKind::AddrInUse => thread::sleep(PAUSE), // there is no notification
            outcome => {
                let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" and ");
                let remedy = || format!("cannot listen on port {ports}; free it, or set HTTP_PORT or HTTPS_PORT");
                return outcome.with_context(remedy);
            }
        }
    }
}

fn listening(port: u16, family: Domain) -> io::Result<Socket> {
    let socket = bind(port, family)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    // nginx and the process that limits connections inherit the descriptor.
    fcntl_setfd(&socket, FdFlags::empty())?;
    Ok(socket)
}

fn bind(port: u16, family: Domain) -> io::Result<Socket> {
    let socket = Socket::new(family, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    let address = if family == Domain::IPV6 {
        socket.set_only_v6(true)?;
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
    } else {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
    };
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The descriptor numbers, for the variable NGINX.
pub fn numbers(sockets: &[Socket]) -> impl Iterator<Item = i32> {
    sockets.iter().map(AsRawFd::as_raw_fd)
}

/// Leaves the sockets open for nginx, and returns the value of its variable NGINX.
pub fn hand_over(sockets: Vec<Socket>) -> OsString {
    sockets.into_iter().map(|socket| format!("{};", socket.into_raw_fd())).collect::<String>().into()
}
