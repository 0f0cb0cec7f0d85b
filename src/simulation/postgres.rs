//! PostgreSQL as clients see it: startup, statements that take time, cancel requests, crashes; in memory, and on the runtime's
//! clock.
//!
//! It has two statements. [`READ`] and [`WRITE`] have keys and a time in milliseconds as parameters, and return the keys after
//! this time; writes are recorded. Everything else (`set`, `discard plans`, `select`) is executed at once.

mod backend;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::random::Random;
use super::wire::Wire;
use backend::Backend;

pub const READ: &str = "read";
pub const WRITE: &str = "write";

/// How often PostgreSQL checks whether the client of a running statement is connected (`client_connection_check_interval`).
const CLIENT_CHECK: Duration = Duration::from_millis(500);
const INT8: u32 = 20;
const INT8_ARRAY: u32 = 1016;
const CANCEL_REQUEST: i32 = 80_877_102;
const SSL_REQUEST: i32 = 80_877_103;

/// How connections are handled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Up,
    /// Connections are refused.
    Down,
    /// The startup is rejected (57P03).
    Starting,
}

/// Signals and faults of a backend.
#[derive(Clone, Copy)]
pub enum Order {
    /// Cancels the running statement.
    Cancel,
    /// Exits with an error message (57P01).
    Terminate,
    /// Exits without a message.
    Kill,
    /// Does nothing for this time.
    Freeze(Duration),
}

/// A statement that was started.
pub struct Run {
    pub sql: &'static str,
    pub keys: Vec<i64>,
    pub ended: Option<Instant>,
    /// The backend was frozen until then.
    pub frozen: Option<Instant>,
    pub applied: bool,
}

thread_local! {
    /// The server that this thread's sockets connect to.
    static SERVER: RefCell<Option<Postgres>> = const { RefCell::new(None) };
}

/// Replaces a Unix socket.
pub struct Socket;

impl Socket {
    /// Opens a connection to the server of this thread.
    pub async fn connect(path: &Path) -> io::Result<DuplexStream> {
        sleep(Duration::ZERO).await; // connecting may block
        SERVER.with_borrow(|server| match server {
            Some(server) => server.open(),
            None => Err(io::Error::new(io::ErrorKind::NotFound, path.display().to_string())),
        })
    }
}

/// The simulated server. Clones share it.
#[derive(Clone)]
pub struct Postgres {
    state: Arc<Mutex<State>>,
    random: Random,
}

pub struct State {
    pub mode: Mode,
    pub runs: Vec<Run>,
    /// Backends by their number.
    backends: BTreeMap<i32, mpsc::UnboundedSender<Order>>,
    started: i32,
    attempts: usize,
}

impl Postgres {
    /// Creates a server to which this thread's sockets connect from now on.
    pub fn new(random: Random) -> Self {
        let state = State { mode: Mode::Up, runs: Vec::new(), backends: BTreeMap::new(), started: 0, attempts: 0 };
        let server = Self { state: Arc::new(Mutex::new(state)), random };
        SERVER.set(Some(server.clone()));
        server
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it is locked")
    }

    pub fn set(&self, mode: Mode) {
        self.lock().mode = mode;
    }

    /// Inspects the statements.
    pub fn runs<T>(&self, inspect: impl Fn(&[Run]) -> T) -> T {
        inspect(&self.lock().runs)
    }

    /// Number of connection attempts.
    pub fn attempts(&self) -> usize {
        self.lock().attempts
    }

    pub fn sessions(&self) -> usize {
        self.lock().backends.len()
    }

    /// Sends an order to one backend, or to all of them.
    pub fn order(&self, order: Order, all: bool) {
        let state = self.lock();
        let chosen =
            if all || state.backends.is_empty() { None } else { Some(self.random.size(0, state.backends.len())) };
        for (index, backend) in state.backends.values().enumerate() {
            if chosen.is_none_or(|chosen| chosen == index) {
                let _ = backend.send(order); // it may be exiting
            }
        }
    }

    /// Opens a connection.
    pub fn open(&self) -> io::Result<DuplexStream> {
        self.lock().attempts += 1;
        if self.lock().mode == Mode::Down {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (client, server) = duplex(64 * 1024);
        let postgres = self.clone();
        tokio::spawn(async move {
            let mut wire = Wire { stream: server, read: BytesMut::new(), out: BytesMut::new() };
            // An error ends the connection.
            let _ = postgres.serve(&mut wire).await;
        });
        Ok(client)
    }

    async fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        sleep(self.random.millis(0, 3)).await;
        let mut startup = wire.frame(0).await?;
        let mut code = startup.get_i32();
        if code == SSL_REQUEST {
            wire.out.put_u8(b'N');
            wire.flush().await?;
            startup = wire.frame(0).await?;
            code = startup.get_i32();
        }
        if code == CANCEL_REQUEST {
            let number = startup.get_i32();
            sleep(self.random.millis(0, 5)).await; // delay of the signal
            if let Some(backend) = self.lock().backends.get(&number) {
                let _ = backend.send(Order::Cancel); // it may be exiting
            }
            return Ok(());
        }
        if self.lock().mode != Mode::Up {
            wire.error("FATAL", "57P03");
            return wire.flush().await;
        }
        let (orders, inbox) = mpsc::unbounded_channel();
        let number = {
            let mut state = self.lock();
            state.started += 1;
            let number = state.started;
            state.backends.insert(number, orders);
            number
        };
        let ended = Backend {
            postgres: self,
            wire,
            inbox,
            timeout: Duration::MAX,
            statements: BTreeMap::new(),
            frozen: None,
            running: None,
        }
        .run(number)
        .await;
        self.lock().backends.remove(&number);
        ended
    }
}
