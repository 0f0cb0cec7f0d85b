//! Output that flows, is stuck, is torn, and ends.

use std::sync::mpsc;

use super::*;

/// Only what never happens takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// Writes only when the test takes it.
struct Rendezvous(mpsc::SyncSender<Vec<u8>>);

impl Write for Rendezvous {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An error means that the test has ended.
        self.0.send(bytes.to_vec()).map_err(|_| ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stuck_output_bounds_the_buffer_and_the_end_writes_what_is_left() {
    let (sender, written) = mpsc::sync_channel(0);
    let output = LogOutput::to(Rendezvous(sender));
    let line = "x".repeat(199);
    for _ in 0..20_000 {
        output.say(&line);
    }
    assert!(output.0.lock().lines.len() <= BUFFER_MAX_BYTES + line.len());
    let closing = std::thread::spawn(move || output.close(PATIENCE));
    let mut bytes = 0;
    while let Ok(piece) = written.recv_timeout(PATIENCE) {
        assert_eq!(piece.last(), Some(&b'\n'), "a line was torn");
        bytes += piece.len();
    }
    closing.join().expect("no panic");
    // What the thread held when the output got stuck, and a full buffer.
    assert!((BUFFER_MAX_BYTES..=2 * (BUFFER_MAX_BYTES + line.len() + 1)).contains(&bytes), "{bytes}");
}

#[test]
fn the_end_does_not_wait_for_a_stuck_output() {
    let (sender, written) = mpsc::sync_channel(0);
    let output = LogOutput::to(Rendezvous(sender));
    output.say("never taken");
    output.close(Duration::from_millis(1));
    assert!(!output.0.lock().closed);
    drop(written);
}

/// Refuses, writes in part, or takes everything, as it is told.
struct Moody {
    moods: Vec<io::Result<usize>>,
    written: mpsc::Sender<u8>,
}

impl Write for Moody {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mood = if self.moods.is_empty() { Ok(bytes.len()) } else { self.moods.remove(0) };
        for byte in &bytes[..*mood.as_ref().unwrap_or(&0)] {
            self.written.send(*byte).expect("the test listens");
        }
        mood
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_output_that_refuses_loses_whole_lines_and_they_are_counted() {
    let full = || Err(ErrorKind::StorageFull.into());
    let (written, bytes) = mpsc::channel();
    let moods = vec![Ok(6), full(), full(), Err(ErrorKind::WouldBlock.into()), Err(ErrorKind::Interrupted.into())];
    let mut lines = Lines { output: Moody { moods, written }, torn: false };
    assert_eq!(lines.write(b"one\ntwo\nthree\n"), 2, "two was torn");
    assert_eq!(lines.write(b"four\n"), 1, "not even the torn line could be ended");
    assert_eq!(lines.write(b"five\nsix\n"), 0);
    drop(lines);
    assert_eq!(String::from_utf8(bytes.iter().collect()).expect("ASCII"), "one\ntw\nfive\nsix\n");
}

#[test]
fn a_panic_while_a_line_is_appended_waits_for_nobody() {
    let (sender, _written) = mpsc::sync_channel(0);
    let output = LogOutput::to(Rendezvous(sender));
    output.append(Urgency::Now, |_, _| output.say_in_panic("the buffer is in use"));
    output.say("the buffer can be used");
}
