//! One session of the simulated PostgreSQL.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::wire::{Wire, text};
use super::{CLIENT_CHECK, INT8, INT8_ARRAY, Order, Postgres, READ, Run, WRITE};

/// How a statement ended.
enum Ending {
    Done,
    /// With an error response: it was rolled back.
    Undone,
    /// With the end of the connection.
    Lost(io::Error),
}

pub struct Backend<'a> {
    pub postgres: &'a Postgres,
    pub wire: &'a mut Wire,
    pub inbox: mpsc::UnboundedReceiver<Order>,
    pub timeout: Duration,
    pub statements: BTreeMap<String, &'static str>,
    /// The backend does nothing, or did nothing, until then.
    pub frozen: Option<Instant>,
    /// Index of its running statement in the runs.
    pub running: Option<usize>,
}

impl Backend<'_> {
    pub async fn run(mut self, number: i32) -> io::Result<()> {
        self.wire.put(b'R', &0_i32.to_be_bytes());
        self.wire.put(b'K', &[number.to_be_bytes(), 0_i32.to_be_bytes()].concat());
        self.wire.put(b'Z', b"I");
        self.wire.flush().await?;
        // After a failure everything up to the next Sync is skipped.
        let (mut failed, mut bound) = (false, None);
        loop {
            let mut message = self.next_message().await?;
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

    /// Returns the next message; executes the orders that arrive meanwhile, except a cancel request, which finds nothing to
    /// cancel.
    async fn next_message(&mut self) -> io::Result<BytesMut> {
        loop {
            tokio::select! {
                biased;
                Some(order) = self.inbox.recv() => {
                    self.execute_order(order).await?;
                }
                message = self.wire.frame(1) => return message,
            }
        }
    }

    /// Executes an order; returns whether a running statement is rolled back.
    async fn execute_order(&mut self, order: Order) -> io::Result<bool> {
        match order {
            Order::Cancel => Ok(true),
            Order::Freeze(time) => {
                self.frozen = Some(Instant::now() + time);
                if let Some(index) = self.running {
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
        // A late cancel request may cancel it.
        sleep(self.postgres.random.millis(0, 2)).await;
        let mut cancelled = false;
        while let Ok(order) = self.inbox.try_recv() {
            cancelled |= self.execute_order(order).await?;
        }
        if cancelled {
            self.wire.error("ERROR", "57014");
        } else {
            self.wire.put(b'C', b"SET\0");
        }
        self.wire.put(b'Z', b"I");
        self.wire.flush().await
    }

    /// Executes a statement; returns whether it succeeded.
    async fn execute(&mut self, sql: &'static str, keys: Vec<i64>, time: Duration) -> io::Result<bool> {
        let index = {
            let mut state = self.postgres.lock();
            state.runs.push(Run { sql, keys: keys.clone(), ended: None, frozen: self.frozen, applied: false });
            state.runs.len() - 1
        };
        self.running = Some(index);
        let ending = self.work(time).await;
        self.running = None;
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
            // It may have been committed, and only the response be lost.
            Ending::Lost(error) => {
                run.applied = self.postgres.random.percent(50);
                Err(error)
            }
        }
    }

    async fn work(&mut self, time: Duration) -> Ending {
        let begun = Instant::now();
        let (done, out_of_time) = (begun + time, begun.checked_add(self.timeout));
        // Cancel requests from before do not apply to this statement.
        while let Ok(order) = self.inbox.try_recv() {
            if matches!(order, Order::Cancel) {
                continue;
            }
            if let Err(error) = self.execute_order(order).await {
                return Ending::Lost(error);
            }
        }
        let mut is_connected = true;
        loop {
            tokio::select! {
                biased;
                Some(order) = self.inbox.recv() => {
                    match self.execute_order(order).await {
                        Ok(true) => return Ending::Undone,
                        Ok(false) => {}
                        Err(error) => return Ending::Lost(error),
                    }
                }
                () = sleep_until(done) => return Ending::Done,
                () = async { match out_of_time { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {
                    return Ending::Undone;
                }
                more = self.wire.more(), if is_connected => {
                    is_connected = more.is_ok();
                    if !is_connected {
                        sleep(CLIENT_CHECK).await;
                        return Ending::Lost(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }
}
