//! Output that works, is blocked, fails midway, and is closed.

use std::sync::mpsc;

use super::*;

/// A time limit that is reached only in case of an error.
const TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn seconds_are_formatted_as_dates() {
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

/// Blocks until the test receives the bytes.
struct Rendezvous(mpsc::SyncSender<Vec<u8>>);

impl Write for Rendezvous {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An error means that the test has finished.
        self.0.send(bytes.to_vec()).map_err(|_| ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_blocked_output_bounds_the_buffer_and_the_rest_is_written_at_the_end() {
    let (sender, written) = mpsc::sync_channel(0);
    let output = LogOutput::to(Rendezvous(sender));
    let line = "x".repeat(199);
    for _ in 0..20_000 {
        output.write_line(&line);
    }
    assert!(output.0.lock().lines.len() <= BUFFER_MAX_BYTES + line.len());
    let closing = std::thread::spawn(move || output.close(TIMEOUT));
    let mut bytes = 0;
    while let Ok(chunk) = written.recv_timeout(TIMEOUT) {
        assert_eq!(chunk.last(), Some(&b'\n'), "a partial line");
        bytes += chunk.len();
    }
    closing.join().expect("no panic");
    // What the thread was writing when the output was blocked, and a full buffer.
    assert!((BUFFER_MAX_BYTES..=2 * (BUFFER_MAX_BYTES + line.len() + 1)).contains(&bytes), "{bytes}");
}

#[test]
fn the_end_does_not_wait_for_a_blocked_output() {
    let (sender, written) = mpsc::sync_channel(0);
    let output = LogOutput::to(Rendezvous(sender));
    output.write_line("never received");
    output.close(Duration::from_millis(1));
    assert!(!output.0.lock().closed);
    drop(written);
}

/// Returns errors, writes partially, or writes everything, as configured.
struct Scripted {
    results: Vec<io::Result<usize>>,
    written: mpsc::Sender<u8>,
}

impl Write for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = if self.results.is_empty() { Ok(bytes.len()) } else { self.results.remove(0) };
        for byte in &bytes[..*result.as_ref().unwrap_or(&0)] {
            self.written.send(*byte).expect("the test listens");
        }
        result
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_failing_output_loses_whole_lines_and_they_are_counted() {
    let full = || Err(ErrorKind::StorageFull.into());
    let (written, bytes) = mpsc::channel();
    let results = vec![Ok(6), full(), full(), Err(ErrorKind::WouldBlock.into()), Err(ErrorKind::Interrupted.into())];
    let mut lines = Lines { output: Scripted { results, written }, partial: false };
    assert_eq!(lines.write(b"one\ntwo\nthree\n"), 2, "two was written partially");
    assert_eq!(lines.write(b"four\n"), 1, "not even the partial line could be ended");
    assert_eq!(lines.write(b"five\nsix\n"), 0);
    drop(lines);
    assert_eq!(String::from_utf8(bytes.iter().collect()).expect("ASCII"), "one\ntw\nfive\nsix\n");
}

#[test]
fn a_panic_while_a_line_is_appended_does_not_deadlock() {
    let (sender, _written) = mpsc::sync_channel(0);
    let output = LogOutput::to(Rendezvous(sender));
    output.append(Urgency::Now, |_, _| output.write_line_in_panic("the buffer is in use"));
    output.write_line("the buffer can be used");
}
