//! The access log: one line per request, formatted by hand and written by a thread of its own.
//!
//! The general logger costs a request a third of its instructions and a system call; this one appends the line to a
//! buffer. The thread hands whole lines to standard error within `FLUSH_EVERY`. The buffer is bounded: while
//! standard error is stuck, lines beyond it are dropped and their number is logged, because a log must not stop the
//! service. What is buffered is written when the log is dropped, so an orderly end loses nothing.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::LogFormat;

/// A line is at most this late.
const FLUSH_EVERY: Duration = Duration::from_millis(50);
/// From here on the writer does not wait for the time to pass.
const FLUSH_BYTES: usize = 32 * 1024;
/// Beyond this lines are dropped: about 5,000 of them.
const BUFFER_MAX_BYTES: usize = 1024 * 1024;

/// What a line says.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The method's label.
    pub method: &'a str,
    /// The route's template.
    pub route: &'a str,
    /// The status that the client saw.
    pub status: u16,
    /// Bytes of the body.
    pub bytes: usize,
    /// Whether the body was cut short.
    pub truncated: bool,
    /// From the first header to the last byte.
    pub duration: Duration,
    /// Printable ASCII, chosen by the client or by us.
    pub request_id: &'a str,
    /// Hexadecimal digits.
    pub trace_id: &'a str,
}

/// Takes lines; clones share one writer.
#[derive(Clone)]
pub struct AccessLog(Option<Arc<Shared>>);

/// Ends the writer when dropped, after it has written everything.
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    format: LogFormat,
    buffer: Mutex<Buffer>,
    wake: Condvar,
}

#[derive(Default)]
struct Buffer {
    lines: Vec<u8>,
    dropped: u64,
    ended: bool,
    /// The second that `stamp` spells.
    second: u64,
    /// `2026-01-31T23:59:58`, kept because most lines share it with the one before.
    stamp: String,
}

impl AccessLog {
    /// Takes no lines.
    pub fn off() -> Self {
        Self(None)
    }

    /// Writes to standard error in the given format.
    pub fn to_stderr(format: LogFormat) -> (Self, Writer) {
        Self::to(format, std::io::stderr())
    }

    fn to(format: LogFormat, output: impl Write + Send + 'static) -> (Self, Writer) {
        let shared = Arc::new(Shared { format, buffer: Mutex::default(), wake: Condvar::new() });
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn({
                let shared = shared.clone();
                move || shared.write_until_ended(output)
            })
            .expect("a thread can be started");
        (Self(Some(shared.clone())), Writer { shared, thread: Some(thread) })
    }

    /// Appends a line.
    pub fn log(&self, entry: &Entry<'_>) {
        if let Some(shared) = &self.0 {
            shared.append(entry, SystemTime::now());
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it does not panic, and there would be nobody to tell
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, entry: &Entry<'_>, now: SystemTime) {
        let mut buffer = self.lock();
        if buffer.lines.len() >= BUFFER_MAX_BYTES {
            buffer.dropped += 1;
            return;
        }
        let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if buffer.stamp.is_empty() || buffer.second != since_epoch.as_secs() {
            buffer.second = since_epoch.as_secs();
            buffer.stamp = utc(since_epoch.as_secs());
        }
        let Buffer { lines, stamp, .. } = &mut *buffer;
        write_line(lines, self.format, stamp, since_epoch.subsec_micros(), entry);
        if buffer.lines.len() >= FLUSH_BYTES {
            self.wake.notify_one();
        }
    }

    fn write_until_ended(&self, mut output: impl Write) {
        let mut ready = Vec::new();
        loop {
            let (dropped, ended) = {
                let mut buffer = self.lock();
                if buffer.lines.len() < FLUSH_BYTES && !buffer.ended {
                    let waited = self.wake.wait_timeout(buffer, FLUSH_EVERY);
                    buffer = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                std::mem::swap(&mut buffer.lines, &mut ready);
                (std::mem::take(&mut buffer.dropped), buffer.ended)
            };
            if !ready.is_empty() {
                let _ = output.write_all(&ready); // there is nowhere to report that standard error is closed
                ready.clear();
            }
            if dropped > 0 {
                tracing::warn!(dropped, "access log lines were dropped because standard error was stuck");
            }
            if ended {
                return;
            }
        }
    }
}

/// A line in the shape of the general log's.
fn write_line(out: &mut Vec<u8>, format: LogFormat, stamp: &str, micros: u32, entry: &Entry<'_>) {
    let Entry { method, route, status, bytes, truncated, duration, request_id, trace_id } = entry;
    let (ms, us) = (duration.as_millis(), duration.subsec_micros() % 1000);
    // A request id may hold any printable character; the rest are our own words.
    let request_id = Escaped(request_id);
    let written = match format {
        LogFormat::Text => writeln!(
            out,
            "{stamp}.{micros:06}Z  INFO access: request http.method=\"{method}\" http.route=\"{route}\" \
             http.status={status} http.response.bytes={bytes} http.truncated={truncated} duration_ms={ms}.{us:03} \
             request_id=\"{request_id}\" trace_id=\"{trace_id}\""
        ),
        LogFormat::Json => writeln!(
            out,
            "{{\"timestamp\":\"{stamp}.{micros:06}Z\",\"level\":\"INFO\",\"message\":\"request\",\
             \"http.method\":\"{method}\",\"http.route\":\"{route}\",\"http.status\":{status},\
             \"http.response.bytes\":{bytes},\"http.truncated\":{truncated},\"duration_ms\":{ms}.{us:03},\
             \"request_id\":\"{request_id}\",\"trace_id\":\"{trace_id}\",\"target\":\"access\"}}"
        ),
    };
    written.expect("a vector takes everything");
}

/// Printable ASCII inside of double quotes.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for part in self.0.split_inclusive(['"', '\\']) {
            match part.strip_suffix(['"', '\\']) {
                None => formatter.write_str(part)?,
                Some(before) => write!(formatter, "{before}\\{}", &part[before.len()..])?,
            }
        }
        Ok(())
    }
}

/// Seconds since 1970 as a date and time in UTC (days to civil date: Howard Hinnant, "chrono-Compatible Low-Level Date
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
mod tests {
    use std::sync::mpsc;

    use super::*;

    const ENTRY: Entry<'static> = Entry {
        method: "GET",
        route: "/v1/passengers/{uuid}",
        status: 200,
        bytes: 198,
        truncated: false,
        duration: Duration::from_micros(1234),
        request_id: "a\"b\\c",
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736",
    };

    #[test]
    fn seconds_are_spelled_as_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_709_251_200, "2024-03-01T00:00:00"),
            (4_102_444_799, "2099-12-31T23:59:59"),
        ] {
            assert_eq!(utc(seconds), expected);
        }
    }

    #[test]
    fn a_json_line_is_json_and_holds_every_field() {
        let mut line = Vec::new();
        write_line(&mut line, LogFormat::Json, "2026-01-31T23:59:58", 42, &ENTRY);
        let value: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(value["timestamp"], "2026-01-31T23:59:58.000042Z");
        assert_eq!(value["http.status"], 200);
        assert_eq!(value["duration_ms"], 1.234);
        assert_eq!(value["request_id"], "a\"b\\c");
        assert_eq!(value["target"], "access");
    }

    /// Hands on what is written, piece by piece, and only when the test takes it.
    struct Rendezvous(mpsc::SyncSender<Vec<u8>>);

    impl Write for Rendezvous {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_vec()).expect("the test listens");
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_output_bounds_the_buffer_and_the_end_writes_what_is_left() {
        let (sender, written) = mpsc::sync_channel(0);
        let (log, writer) = AccessLog::to(LogFormat::Text, Rendezvous(sender));
        for _ in 0..20_000 {
            log.log(&ENTRY);
        }
        let shared = log.0.clone().expect("it is on");
        assert!(shared.lock().lines.len() <= BUFFER_MAX_BYTES + 1024);
        assert!(shared.lock().dropped > 0);
        let ending = std::thread::spawn(move || drop(writer));
        let mut lines = 0;
        while let Ok(piece) = written.recv() {
            lines += piece.split_inclusive(|byte| *byte == b'\n').count();
            assert_eq!(piece.last(), Some(&b'\n'), "a line was torn");
        }
        ending.join().expect("no panic");
        assert!(lines > 1000, "{lines}");
    }
}
