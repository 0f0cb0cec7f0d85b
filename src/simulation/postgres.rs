//! PostgreSQL as far as sessions see it: startup, statements that take their time, cancel requests, crashes; in memory, and on
//! the runtime's clock.
//!
//! It has two statements. [`READ`] and [`WRITE`] take keys and a time in milliseconds, and answer with the keys once the time
//! has passed; what was written is remembered. Everything else (`set`, `discard plans`, `select`) is done at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::random::Random;

pub const READ: &str = "read";
pub const WRITE: &str = "write";

/// PostgreSQL looks so often whether the client of a statement is still there (`client_connection_check_interval`).
const CLIENT_CHECK: Duration = Duration::from_millis(500);
const INT8: u32 = 20;
const INT8_ARRAY: u32 = 1016;
const CANCEL_REQUEST: i32 = 80_877_102;
const SSL_REQUEST: i32 = 80_877_103;

/// What becomes of who connects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Up,
    /// Nobody listens.
    Away,
    /// The startup is refused (57P03).
    Starting,
}

/// What a backend is told from outside.
#[derive(Clone, Copy)]
pub enum Order {
    /// A signal: ends the statement at work, and nothing else.
    Cancel,
    /// Ends with a last word (57P01).
    Terminate,
    /// Ends without one.
    Kill,
    /// Does nothing for so long.
    Freeze(Duration),
}

/// A statement that was begun.
pub struct Run {
    pub sql: &'static str,
    pub keys: Vec<i64>,
    pub ended: Option<Instant>,
    /// The backend was frozen until then.
    pub frozen: Option<Instant>,
    pub applied: bool,
}

thread_local! {
    /// Where the sockets of this thread lead.
    static SERVER: RefCell<Option<Postgres>> = const { RefCell::new(None) };
}

/// In the place of a Unix socket.
pub struct Socket;

impl Socket {
    /// Opens a connection to the server of this thread.
    pub async fn connect(path: &Path) -> io::Result<DuplexStream> {
        sleep(Duration::ZERO).await; // a socket may make its caller wait
        SERVER.with_borrow(|server| match server {
            Some(server) => server.open(),
            None => Err(io::Error::new(io::ErrorKind::NotFound, path.display().to_string())),
        })
    }
}

/// The server. Clones share it.
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
    /// Sockets of this thread lead to it from now on.
    pub fn new(random: Random) -> Self {
        let state = State { mode: Mode::Up, runs: Vec::new(), backends: BTreeMap::new(), started: 0, attempts: 0 };
        let server = Self { state: Arc::new(Mutex::new(state)), random };
        SERVER.set(Some(server.clone()));
        server
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics with it")
    }

    pub fn set(&self, mode: Mode) {
        self.lock().mode = mode;
    }

    /// Looks at what was run.
    pub fn runs<T>(&self, look: impl Fn(&[Run]) -> T) -> T {
        look(&self.lock().runs)
    }

    /// How often somebody has tried to connect.
    pub fn attempts(&self) -> usize {
        self.lock().attempts
    }

    pub fn sessions(&self) -> usize {
        self.lock().backends.len()
    }

    /// Gives an order to one backend, or to all of them.
    pub fn order(&self, order: Order, everybody: bool) {
        let state = self.lock();
        let chosen =
            if everybody || state.backends.is_empty() { None } else { Some(self.random.size(0, state.backends.len())) };
        for (index, backend) in state.backends.values().enumerate() {
            if chosen.is_none_or(|chosen| chosen == index) {
                let _ = backend.send(order); // it may be ending
            }
        }
    }

    /// Opens a connection.
    pub fn open(&self) -> io::Result<DuplexStream> {
        self.lock().attempts += 1;
        if self.lock().mode == Mode::Away {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (client, server) = duplex(64 * 1024);
        let postgres = self.clone();
        tokio::spawn(async move {
            let mut wire = Wire { stream: server, read: BytesMut::new(), out: BytesMut::new() };
            // An error is the end of the connection.
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
            sleep(self.random.millis(0, 5)).await; // the signal takes its time
            if let Some(backend) = self.lock().backends.get(&number) {
                let _ = backend.send(Order::Cancel); // it may be ending
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
            at_work: None,
        }
        .run(number)
        .await;
        self.lock().backends.remove(&number);
        ended
    }
}

/// Messages on a connection.
struct Wire {
    stream: DuplexStream,
    read: BytesMut,
    out: BytesMut,
}

impl Wire {
    /// The next message behind so many bytes of a tag, which stays in front of it.
    async fn frame(&mut self, tag: usize) -> io::Result<BytesMut> {
        loop {
            if self.read.len() >= tag + 4 {
                let length = tag + (&self.read[tag..]).get_u32() as usize;
                if self.read.len() >= length {
                    let mut frame = self.read.split_to(length);
                    let tag = frame.split_to(tag);
                    frame.advance(4);
                    let mut whole = tag;
                    whole.extend_from_slice(&frame);
                    return Ok(whole);
                }
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn put(&mut self, tag: u8, body: &[u8]) {
        self.out.put_u8(tag);
        self.out.put_u32(u32::try_from(body.len() + 4).expect("short"));
        self.out.extend_from_slice(body);
    }

    fn error(&mut self, severity: &str, code: &str) {
        self.put(b'E', format!("S{severity}\0V{severity}\0C{code}\0Msimulated\0\0").as_bytes());
    }

    async fn flush(&mut self) -> io::Result<()> {
        let out = self.out.split();
        self.stream.write_all(&out).await
    }
}

/// How a statement ended.
enum Ending {
    Done,
    /// With an answer that says it was undone.
    Undone,
    /// With the connection.
    Lost(io::Error),
}

struct Backend<'a> {
    postgres: &'a Postgres,
    wire: &'a mut Wire,
    inbox: mpsc::UnboundedReceiver<Order>,
    timeout: Duration,
    statements: BTreeMap<String, &'static str>,
    /// It does nothing, or did nothing, until then.
    frozen: Option<Instant>,
    /// What it works on, among the runs.
    at_work: Option<usize>,
}

impl Backend<'_> {
    async fn run(mut self, number: i32) -> io::Result<()> {
        self.wire.put(b'R', &0_i32.to_be_bytes());
        self.wire.put(b'K', &[number.to_be_bytes(), 0_i32.to_be_bytes()].concat());
        self.wire.put(b'Z', b"I");
        self.wire.flush().await?;
        // After a failure everything up to the next Sync is skipped.
        let (mut failed, mut bound) = (false, None);
        loop {
            let mut message = self.idle().await?;
            match message.get_u8() {
                b'Q' => self.simple(&message).await?,
                b'S' => {
                    failed = false;
                    self.wire.put(b'Z', b"I");
                    self.wire.flush().await?;
                }
                b'X' => return Ok(()),
                _ if failed => {}
                b'E' => {
                    let (sql, keys, time) = bound.take().expect("bound before it is executed");
                    failed = !self.execute(sql, keys, time).await?;
                }
                b'B' => {
                    text(&mut message); // portal
                    let sql = self.statements[&text(&mut message)];
                    let formats = usize::from(message.get_u16());
                    message.advance(2 * formats + 2);
                    let mut array = message.clone();
                    array.advance(4 + 12 + 8); // length; dimensions, nulls and type; length and first index
                    let count = (array.len() - 12) / 12;
                    let keys: Vec<i64> = (0..count)
                        .map(|_| {
                            array.advance(4);
                            array.get_i64()
                        })
                        .collect();
                    array.advance(4);
                    bound = Some((sql, keys, Duration::from_millis(array.get_u64())));
                    self.wire.put(b'2', b"");
                }
                b'P' => {
                    let (name, sql) = (text(&mut message), text(&mut message));
                    self.statements.insert(name, if sql == READ { READ } else { WRITE });
                    self.wire.put(b'1', b"");
                }
                b'D' => {
                    let parameters =
                        [&2_u16.to_be_bytes()[..], &INT8_ARRAY.to_be_bytes(), &INT8.to_be_bytes()].concat();
                    self.wire.put(b't', &parameters);
                    let mut row = BytesMut::from(&b"\0\x01keys\0\0\0\0\0\0\0"[..]);
                    row.put_u32(INT8_ARRAY);
                    row.put_slice(&[0xff; 6]); // neither a length nor a modifier
                    row.put_u16(0);
                    self.wire.put(b'T', &row);
                }
                _ => self.wire.put(b'3', b""), // Close
            }
        }
    }

    /// The next message; an order that comes meanwhile is obeyed, but for a cancel request, which finds nothing to cancel.
    async fn idle(&mut self) -> io::Result<BytesMut> {
        loop {
            tokio::select! {
                biased;
                Some(order) = self.inbox.recv() => {
                    self.obey(order).await?;
                }
                message = self.wire.frame(1) => return message,
            }
        }
    }

    /// Whether a statement at work is undone.
    async fn obey(&mut self, order: Order) -> io::Result<bool> {
        match order {
            Order::Cancel => Ok(true),
            Order::Freeze(time) => {
                self.frozen = Some(Instant::now() + time);
                if let Some(index) = self.at_work {
                    self.postgres.lock().runs[index].frozen = self.frozen;
                }
                sleep(time).await;
                Ok(false)
            }
            Order::Terminate => {
                self.wire.error("FATAL", "57P01");
                self.wire.flush().await?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Order::Kill => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    async fn simple(&mut self, message: &BytesMut) -> io::Result<()> {
        let sql = String::from_utf8_lossy(message).into_owned();
        if let Some((_, ms)) = sql.split_once("statement_timeout = ") {
            let digits: String = ms.chars().take_while(char::is_ascii_digit).collect();
            self.timeout = Duration::from_millis(digits.parse().expect("a number"));
        }
        // A late cancel request may hit it.
        sleep(self.postgres.random.millis(0, 2)).await;
        let mut undone = false;
        while let Ok(order) = self.inbox.try_recv() {
            undone |= self.obey(order).await?;
        }
        if undone {
            self.wire.error("ERROR", "57014");
        } else {
            self.wire.put(b'C', b"SET\0");
        }
        self.wire.put(b'Z', b"I");
        self.wire.flush().await
    }

    /// Whether it was done.
    async fn execute(&mut self, sql: &'static str, keys: Vec<i64>, time: Duration) -> io::Result<bool> {
        let index = {
            let mut state = self.postgres.lock();
            state.runs.push(Run { sql, keys: keys.clone(), ended: None, frozen: self.frozen, applied: false });
            state.runs.len() - 1
        };
        self.at_work = Some(index);
        let ending = self.work(time).await;
        self.at_work = None;
        let mut state = self.postgres.lock();
        let run = &mut state.runs[index];
        run.ended = Some(Instant::now());
        match ending {
            Ending::Done => {
                run.applied = true;
                let mut row = BytesMut::new();
                row.put_u16(1);
                let array = 20 + 12 * keys.len();
                row.put_u32(u32::try_from(array).expect("short"));
                for word in [1, 0, INT8, u32::try_from(keys.len()).expect("few"), 1] {
                    row.put_u32(word);
                }
                for key in &keys {
                    row.put_u32(8);
                    row.put_i64(*key);
                }
                self.wire.put(b'D', &row);
                self.wire.put(b'C', b"SELECT 1\0");
                Ok(true)
            }
            Ending::Undone => {
                self.wire.error("ERROR", "57014");
                Ok(false)
            }
            // It may have been committed before, and only the answer be lost.
            Ending::Lost(error) => {
                run.applied = self.postgres.random.percent(50);
                Err(error)
            }
        }
    }

    async fn work(&mut self, time: Duration) -> Ending {
        let begun = Instant::now();
        let (done, out_of_time) = (begun + time, begun.checked_add(self.timeout));
        // Signals from before are not for this one.
        while let Ok(order) = self.inbox.try_recv() {
            if matches!(order, Order::Cancel) {
                continue;
            }
            if let Err(error) = self.obey(order).await {
                return Ending::Lost(error);
            }
        }
        let mut is_there = true;
        loop {
            tokio::select! {
                biased;
                Some(order) = self.inbox.recv() => {
                    match self.obey(order).await {
                        Ok(true) => return Ending::Undone,
                        Ok(false) => {}
                        Err(error) => return Ending::Lost(error),
                    }
                }
                () = sleep_until(done) => return Ending::Done,
                () = async { match out_of_time { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {
                    return Ending::Undone;
                }
                more = self.wire.more(), if is_there => {
                    is_there = more.is_ok();
                    if !is_there {
                        sleep(CLIENT_CHECK).await;
                        return Ending::Lost(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }
}

fn text(message: &mut BytesMut) -> String {
    let end = message.iter().position(|byte| *byte == 0).expect("it ends");
    let text = String::from_utf8_lossy(&message[..end]).into_owned();
    message.advance(end + 1);
    text
}
