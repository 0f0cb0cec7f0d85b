//! Limits nginx's connections per client address once half of them are in use, however little each has sent.
//!
//! nginx counts a client's connections (CONN_LIMIT) only after it has read the header of a request. Connections that send
//! nothing or an incomplete header are not counted, and a few thousand of them use up all connections. A process beside nginx,
//! which shares its listening sockets, therefore counts them in the kernel: while more than half are in use, a socket filter
//! (BPF) drops the SYN of each address that has more than its share. This requires no privileges, and no request passes through
//! this process.
//!
//! Two files of /proc are read a hundred times per second. Connections are listed only while more than half are in use.

mod kernel;
mod share;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use rustix::process::{Pid, Signal};
use socket2::Socket;

use super::listen;
use crate::config::nginx::{List, Network};
use crate::shutdown;
use kernel::{Dropped, Watched};

/// The subcommand that `start` runs.
pub const SUBCOMMAND: &str = "nginx-connections";

/// A worker accepts at most about 100,000 connections per second: 1,000 between two checks, of the remaining 8,192.
const INTERVAL: Duration = Duration::from_millis(10);
/// While more than the limit are in use, they are listed at this interval, and when their number has grown by this fraction of
/// the limit.
const LIST_INTERVAL: Duration = Duration::from_secs(1);
const GROWTH: u64 = 16;
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The arguments of the process beside nginx.
#[derive(Debug, Clone, Args)]
pub struct ConnectionsArgs {
    /// The process that becomes nginx.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    nginx: i32,
    /// Connections per worker.
    #[arg(long)]
    connections: u64,
    /// The descriptor numbers of its listening sockets.
    #[arg(long, value_delimiter = ',', required = true)]
    sockets: Vec<RawFd>,
    /// Networks that are never refused.
    #[arg(long)]
    trusted: Option<List<Network>>,
}

/// Starts a process that watches the sockets. It ends with this process, which then becomes nginx.
///
/// # Errors
/// If it cannot be started.
pub fn start(sockets: &[Socket], connections: u64, trusted: &[Network]) -> anyhow::Result<()> {
    let listed = |texts: Vec<String>| texts.join(",");
    let program = std::env::current_exe().context("cannot find this program")?;
    Command::new(program)
        .arg(SUBCOMMAND)
        .arg(format!("--nginx={}", std::process::id()))
        .arg(format!("--connections={connections}"))
        .arg(format!("--sockets={}", listed(listen::numbers(sockets).map(|number| number.to_string()).collect())))
        .arg(format!("--trusted={}", listed(trusted.iter().map(ToString::to_string).collect())))
        .stdin(Stdio::null())
        // Ctrl-C in a terminal is for nginx only.
        .process_group(0)
        .spawn()
        .context("cannot start the process that limits connections")?;
    Ok(())
}

/// Watches the sockets until nginx closes them.
///
/// # Errors
/// If the sockets do not exist.
pub fn run(args: &ConnectionsArgs) -> anyhow::Result<ExitCode> {
    let nginx = Pid::from_raw(args.nginx).context("no process has this number")?;
    if shutdown::end_with_parent(nginx, Signal::KILL).is_err() {
        return Ok(ExitCode::SUCCESS); // nginx was stopped before this process started
    }
    let sockets = args.sockets.iter().map(|number| Watched::adopt(*number)).collect::<io::Result<Vec<_>>>()?;
    let trusted = args.trusted.as_ref().map_or(&[][..], |list| &list.0);
    let mut limiter = Limiter::new(sockets, args.connections, trusted);
    if let Err(error) = limiter.watch(nginx) {
        limiter.accept_all();
        tracing::warn!(
            reason = &error as &dyn std::error::Error,
            "cannot count connections, so one client may use all of them"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses connections from clients over their share while too many are in use.
struct Limiter<'a> {
    sockets: Vec<Watched>,
    connections: u64,
    limit: u64,
    trusted: &'a [Network],
    /// The number of connections, or the time, at which they are listed again.
    list_from: u64,
    list_after: Instant,
    logged: Option<Instant>,
}

impl<'a> Limiter<'a> {
    fn new(sockets: Vec<Watched>, connections: u64, trusted: &'a [Network]) -> Self {
        let limit = connections / 2;
        Self { sockets, connections, limit, trusted, list_from: limit, list_after: Instant::now(), logged: None }
    }

    fn watch(&mut self, nginx: Pid) -> io::Result<()> {
        let open = kernel::OpenSockets::new()?;
        // nginx closes its sockets when it starts to drain; ours must be closed then too, or clients would wait instead of
        // being refused.
        while self.sockets.iter().all(|socket| socket.is_held_by(nginx)) {
            self.look(open.count()?)?;
            thread::sleep(INTERVAL); // there is no notification of new connections
        }
        Ok(())
    }

    /// Checks the number of open sockets, which includes nginx's connections.
    fn look(&mut self, taken: u64) -> io::Result<()> {
        if taken <= self.limit {
            self.list_from = self.limit;
            self.refuse(&BTreeSet::new())
        } else if taken >= self.list_from {
            // Listing takes tens of milliseconds, in which a burst could use up the other half. All connection attempts are
            // dropped meanwhile; their kernels retransmit the SYN a second later.
            for socket in &mut self.sockets {
                socket.set(Dropped::All)?;
            }
            self.list(taken)
        } else if Instant::now() >= self.list_after {
            self.list(taken)
        } else {
            Ok(())
        }
    }

    fn list(&mut self, taken: u64) -> io::Result<()> {
        let ports = self.sockets.iter().map(|socket| socket.port).collect();
        let mut held = BTreeMap::new();
        for family in self.sockets.iter().map(|socket| socket.family).collect::<BTreeSet<_>>() {
            kernel::count_connections(family, &ports, &mut held)?;
        }
        let over = share::over(&held, self.limit, self.trusted);
        self.refuse(&over)?;
        let now = Instant::now();
        (self.list_after, self.list_from) = (now + LIST_INTERVAL, taken + self.limit / GROWTH);
        if !over.is_empty() && self.logged.is_none_or(|logged| now > logged + LOG_INTERVAL) {
            self.logged = Some(now);
            let (theirs, all) =
                (over.iter().filter_map(|client| held.get(client)).sum::<u64>(), held.values().sum::<u64>());
            tracing::warn!(
                "dropping new connections of {} addresses, which have {theirs} of {all} connections; nginx accepts at \
                 most {}",
                over.len(),
                self.connections
            );
        }
        Ok(())
    }

    fn refuse(&mut self, clients: &BTreeSet<IpAddr>) -> io::Result<()> {
        for socket in &mut self.sockets {
            let theirs: BTreeSet<IpAddr> =
                clients.iter().filter(|client| kernel::Family::of(**client) == socket.family).copied().collect();
            socket.set(if theirs.is_empty() { Dropped::None } else { Dropped::These(theirs) })?;
        }
        Ok(())
    }

    fn accept_all(&mut self) {
        for socket in &mut self.sockets {
            let _ = socket.set(Dropped::None); // best effort
        }
    }
}
