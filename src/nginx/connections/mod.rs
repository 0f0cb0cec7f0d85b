//! Limits nginx's connections per client address once half of them are taken, however little each has sent.
//!
//! nginx counts a client's connections (CONN_LIMIT) when the header of a request has been read. Connections that send nothing,
//! or half a header, are not counted, and a few thousand of them take all there are. So they are counted in the kernel, by a
//! process beside nginx that shares its listening sockets: while more than half are taken, a socket filter (BPF) on those
//! sockets drops the SYN of each address that holds more than its share. That takes no privilege, and no request passes here.
//!
//! Two files of /proc are read a hundred times a second. Connections are listed only while more than half are taken.

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

/// A worker accepts at most about 100,000 connections a second: 1,000 between two looks, of the 8,192 that are left.
const INTERVAL: Duration = Duration::from_millis(10);
/// While more than the limit are taken they are listed so often, and whenever they have grown by such a part of the limit.
const LIST_INTERVAL: Duration = Duration::from_secs(1);
const GROWTH: u64 = 16;
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What the process beside nginx is told.
#[derive(Debug, Clone, Args)]
pub struct ConnectionsArgs {
    /// The process that becomes nginx.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    nginx: i32,
    /// Connections that one of its workers takes.
    #[arg(long)]
    connections: u64,
    /// Its listening sockets, by their numbers.
    #[arg(long, value_delimiter = ',', required = true)]
    sockets: Vec<RawFd>,
    /// Networks that are never refused.
    #[arg(long)]
    trusted: Option<List<Network>>,
}

/// Starts a process that watches the sockets, and ends with this one, which then becomes nginx.
///
/// # Errors
/// When it cannot be started.
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
        // A terminal's Ctrl-C is for nginx alone.
        .process_group(0)
        .spawn()
        .context("cannot start the process that limits connections")?;
    Ok(())
}

/// Watches until nginx closes its sockets.
///
/// # Errors
/// When nginx has gone before it began, or the sockets are not there.
pub fn run(args: &ConnectionsArgs) -> anyhow::Result<ExitCode> {
    let nginx = Pid::from_raw(args.nginx).context("no process has this number")?;
    shutdown::end_with_parent(nginx, Signal::KILL).context("nginx has gone")?;
    let sockets = args.sockets.iter().map(|number| Watched::adopt(*number)).collect::<io::Result<Vec<_>>>()?;
    let trusted = args.trusted.as_ref().map_or(&[][..], |list| &list.0);
    let mut limiter = Limiter::new(sockets, args.connections, trusted);
    if let Err(error) = limiter.watch(nginx) {
        limiter.drop_nobody();
        tracing::warn!(
            reason = &error as &dyn std::error::Error,
            "connections cannot be counted, so one client may take all of them"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses connections of whoever holds too many, while too many are taken.
struct Limiter<'a> {
    sockets: Vec<Watched>,
    connections: u64,
    limit: u64,
    trusted: &'a [Network],
    /// When so many are taken, or after this time, connections are listed again.
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
        // nginx closes its sockets when it begins to drain; ours must go then, or clients would wait instead of being refused.
        while self.sockets.iter().all(|socket| socket.is_held_by(nginx)) {
            self.look(open.count()?)?;
            thread::sleep(INTERVAL); // nobody tells of a new connection
        }
        Ok(())
    }

    /// Takes the number of open sockets, of which nginx's connections are a part.
    fn look(&mut self, taken: u64) -> io::Result<()> {
        if taken <= self.limit {
            self.list_from = self.limit;
            self.refuse(&BTreeSet::new())
        } else if taken >= self.list_from {
            // A list takes tens of milliseconds, in which a burst would take the other half. So nobody connects
            // meanwhile; whoever tries is connected a second later, when its kernel repeats the SYN.
            for socket in &mut self.sockets {
                socket.set(Dropped::Everybody)?;
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
                "dropping new connections of {} addresses, which hold {theirs} of {all} connections; nginx takes {}",
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
            socket.set(if theirs.is_empty() { Dropped::Nobody } else { Dropped::These(theirs) })?;
        }
        Ok(())
    }

    fn drop_nobody(&mut self) {
        for socket in &mut self.sockets {
            let _ = socket.set(Dropped::Nobody); // nothing else is left to try
        }
    }
}
