//! Output of log lines: a bounded buffer, and one thread that writes it to standard error.
//!
//! Logging never waits for the reader of the log. While the output is blocked, closed or full, lines are dropped and counted,
//! and when it works again, the number of dropped lines is logged. Invariants: only whole lines are appended or dropped, and
//! the exit of the process waits for the thread only for a limited time.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use tracing_subscriber::fmt::MakeWriter;

/// Name of the counter of dropped lines.
pub const LOG_LINES_DROPPED: &str = "log_lines_dropped_total";

/// Longest delay of a line that is not urgent.
const FLUSH_INTERVAL: Duration = Duration::from_millis(50);
/// Buffer size at which the thread writes without waiting for the interval.
const FLUSH_BYTES: usize = 32 * 1024;
/// Buffer size at which lines are dropped: about 5,000 lines.
const BUFFER_MAX_BYTES: usize = 1024 * 1024;
/// Longest wait for buffered lines when the process exits.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Formats of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// Receives lines; clones share one buffer and one thread.
#[derive(Clone)]
pub struct LogOutput(Arc<Shared>);

/// Writes the buffered lines when dropped, for at most a second.
pub struct Closing(LogOutput);

/// When a line must be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Together with subsequent lines.
    Soon,
    /// As soon as possible: someone may be waiting for it.
    Now,
}

struct Shared {
    buffer: Mutex<Buffer>,
    /// There is something to write, or the output is closing.
    wake: Condvar,
    /// The thread has ended.
    closed: Condvar,
}

#[derive(Default)]
struct Buffer {
    lines: Vec<u8>,
    clock: Clock,
    urgent: bool,
    /// Lines that did not fit, whose number has not been logged yet.
    dropped: u64,
    closing: bool,
    closed: bool,
}

/// Formats the time of a line.
#[derive(Default)]
pub struct Clock {
    /// The second of `stamp`.
    second: u64,
    /// `2026-01-31T23:59:58`, cached because most lines have the same as the previous one.
    stamp: String,
}

impl LogOutput {
    /// Writes to standard error.
    pub fn to_stderr() -> Self {
        Self::to(io::stderr())
    }

    /// Writes to an output that may be slow, blocked, or fail.
    pub fn to(output: impl Write + Send + 'static) -> Self {
        let shared = Arc::new(Shared { buffer: Mutex::default(), wake: Condvar::new(), closed: Condvar::new() });
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn({
                let shared = shared.clone();
                move || shared.write_until_closed(output)
            })
            .expect("a thread can be started");
        Self(shared)
    }

    /// Returns a guard that writes the buffered lines at the end of a scope.
    pub fn closing(&self) -> Closing {
        Closing(self.clone())
    }

    /// Appends the output of `write`, which must be a whole line.
    pub fn append(&self, urgency: Urgency, write: impl FnOnce(&mut Vec<u8>, &mut Clock)) {
        self.0.append(self.0.lock(), urgency, write);
    }

    /// Appends a line of text.
    pub fn write_line(&self, text: &str) {
        self.append(Urgency::Now, |lines, _| write_text(lines, text));
    }

    /// As [`Self::write_line`], for a panicking thread, which may hold the lock of the buffer.
    pub fn write_line_in_panic(&self, text: &str) {
        let buffer = match self.0.buffer.try_lock() {
            Ok(buffer) => buffer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return count_dropped(1),
        };
        self.0.append(buffer, Urgency::Now, |lines, _| write_text(lines, text));
    }

    fn close(&self, within: Duration) {
        let mut buffer = self.0.lock();
        buffer.closing = true;
        self.0.wake.notify_one();
        let _ = self.0.closed.wait_timeout_while(buffer, within, |buffer| !buffer.closed);
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close(CLOSE_TIMEOUT);
    }
}

impl<'a> MakeWriter<'a> for LogOutput {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// The general logger writes each line at once.
impl Write for &LogOutput {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.append(Urgency::Now, |lines, _| lines.extend_from_slice(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(
        &self,
        mut buffer: MutexGuard<'_, Buffer>,
        urgency: Urgency,
        write: impl FnOnce(&mut Vec<u8>, &mut Clock),
    ) {
        if buffer.lines.len() >= BUFFER_MAX_BYTES {
            buffer.dropped += 1;
            drop(buffer);
            return count_dropped(1);
        }
        let Buffer { lines, clock, .. } = &mut *buffer;
        write(lines, clock);
        buffer.urgent |= urgency == Urgency::Now;
        if buffer.urgent || buffer.lines.len() >= FLUSH_BYTES {
            self.wake.notify_one();
        }
    }

    fn write_until_closed(&self, output: impl Write) {
        let mut output = Lines { output, partial: false };
        let mut ready = Vec::new();
        let mut unreported = 0;
        loop {
            let closing = {
                let mut buffer = self.lock();
                if buffer.lines.len() < FLUSH_BYTES && !buffer.urgent && !buffer.closing {
                    let waited = self.wake.wait_timeout(buffer, FLUSH_INTERVAL);
                    buffer = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                std::mem::swap(&mut buffer.lines, &mut ready);
                buffer.urgent = false;
                unreported += std::mem::take(&mut buffer.dropped);
                buffer.closing
            };
            if !ready.is_empty() {
                let lost = output.write(&ready);
                ready.clear();
                if lost > 0 {
                    count_dropped(lost);
                    unreported += lost;
                } else if unreported > 0 {
                    tracing::warn!(dropped = unreported, "log lines were dropped because standard error was not read");
                    unreported = 0;
                    continue; // writes a last line as well
                }
            }
            if closing {
                self.lock().closed = true;
                self.closed.notify_all();
                return;
            }
        }
    }
}

/// An output to which whole lines are written, as far as possible.
struct Lines<W> {
    output: W,
    /// The last line was written partially.
    partial: bool,
}

impl<W: Write> Lines<W> {
    /// Writes lines and returns how many were lost.
    fn write(&mut self, mut lines: &[u8]) -> u64 {
        if self.partial && self.write_all(&mut b"\n".as_slice()).is_ok() {
            self.partial = false;
        }
        if !self.partial && self.write_all(&mut lines).is_ok() {
            return 0;
        }
        // A partially written line is also lost.
        lines.iter().filter(|byte| **byte == b'\n').count() as u64
    }

    fn write_all(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        let (whole, mut last) = (rest.len(), b'\n');
        while !rest.is_empty() {
            match self.output.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    last = rest[written - 1];
                    *rest = &rest[written..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Another process that shares the output has made it non-blocking. There is no notification of when it is
                // writable, so it is polled.
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(FLUSH_INTERVAL),
                Err(error) => {
                    self.partial |= rest.len() < whole && last != b'\n';
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

fn write_text(lines: &mut Vec<u8>, text: &str) {
    lines.extend_from_slice(text.as_bytes());
    lines.push(b'\n');
}

fn count_dropped(lines: u64) {
    metrics::counter!(LOG_LINES_DROPPED).increment(lines);
}

impl Clock {
    /// The date and time in UTC to the second, and the microseconds.
    pub fn spell(&mut self, now: SystemTime) -> (&str, u32) {
        let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.stamp.is_empty() || self.second != since_epoch.as_secs() {
            self.second = since_epoch.as_secs();
            self.stamp = utc(since_epoch.as_secs());
        }
        (&self.stamp, since_epoch.subsec_micros())
    }
}

/// Formats seconds since 1970 as a date and time in UTC (days to civil date: Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms").
fn utc(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests;
