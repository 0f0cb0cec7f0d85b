//! Caches the issuer's keys, which are read at the start, before they are due, and when a token has an unknown key id.
//!
//! A single task reads them, so there is never more than one read at a time, and no client that disconnects aborts one. However
//! many tokens have unknown key ids, there is a minimum interval between reads. Keys stay valid until a later read succeeds: if
//! the issuer is unreachable, tokens with known keys are still accepted.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{counter, gauge};
use tokio::sync::watch;
use tokio::time::Instant;

use super::key_set::KeySet;
use super::source::{Source, SourceError};
use crate::shutdown::Shutdown;

/// The delay after a first failure; it doubles up to [`Pace::pause`].
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Interval at which the log repeats that keys cannot be read.
const REMINDER: Duration = Duration::from_secs(600);

/// How often keys are read.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Maximum interval between reads; up to a random fifth is subtracted, so that replicas do not read at the same time.
    pub refresh: Duration,
    /// Minimum interval between reads, whatever key ids tokens have.
    pub pause: Duration,
}

/// The cached keys and the state of reading.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The keys; `None` before the first successful read.
    pub set: Option<Arc<KeySet>>,
    /// Increases whenever the keys change.
    pub generation: u64,
    /// Whether the last read failed.
    pub failed: bool,
    /// Number of completed reads.
    readings: u64,
    /// The earliest time for the next read.
    next: Option<Instant>,
}

/// The keys of an issuer. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Keys {
    known: watch::Receiver<Known>,
    /// The requested total number of reads.
    wanted: Arc<watch::Sender<u64>>,
}

impl Keys {
    /// Reads the keys until the shutdown.
    pub fn start(source: Source, pace: Pace, shutdown: Shutdown) -> Self {
        let (sender, known) = watch::channel(Known::default());
        let (wanted, wants) = watch::channel(0);
        let reader = Reader { source, pace, sender, wants, warned: None };
        tokio::spawn(async move {
            tokio::select! {
                () = reader.run() => {}
                () = shutdown.requested() => {}
            }
        });
        Self { known, wanted: Arc::new(wanted) }
    }

    /// The current state.
    pub fn known(&self) -> Known {
        self.known.borrow().clone()
    }

    /// The generation of the keys.
    pub fn generation(&self) -> u64 {
        self.known.borrow().generation
    }

    /// Waits for a newer read than `seen`; returns the current state if the minimum interval has not passed.
    pub async fn newer(&self, seen: &Known) -> Known {
        let mut known = self.known.clone();
        let now = self.known();
        if now.readings != seen.readings || now.next.is_some_and(|next| Instant::now() < next) {
            return now;
        }
        self.wanted.send_if_modified(|wanted| {
            let more = *wanted <= seen.readings;
            *wanted = (*wanted).max(seen.readings + 1);
            more
        });
        match known.wait_for(|known| known.readings != seen.readings).await {
            Ok(known) => known.clone(),
            // The server is shutting down.
            Err(_) => now,
        }
    }
}

struct Reader {
    source: Source,
    pace: Pace,
    sender: watch::Sender<Known>,
    wants: watch::Receiver<u64>,
    /// When the log last reported that keys cannot be read; `None` while they can.
    warned: Option<Instant>,
}

impl Reader {
    /// Returns when all [`Keys`] are dropped.
    async fn run(mut self) {
        let mut retry = FIRST_RETRY;
        loop {
            let outcome = self.source.read().await;
            let (pause, due) = if outcome.is_ok() {
                retry = FIRST_RETRY;
                (self.pace.pause, self.pace.refresh.mul_f64(1.0 - random() / 5.0).max(self.pace.pause))
            } else {
                let pause = retry.min(self.pace.pause);
                retry = (retry * 2).min(self.pace.pause.max(FIRST_RETRY));
                (pause, pause)
            };
            let now = Instant::now();
            let readings = self.publish(outcome, now + pause);
            tokio::select! {
                // Issuers do not announce new keys: they are read when they are due, or when a token has an unknown key id.
                () = tokio::time::sleep_until(now + due) => {}
                wanted = self.wants.wait_for(|wanted| *wanted > readings) => if wanted.is_err() { return },
            }
            // The minimum interval, however many tokens have unknown key ids.
            tokio::time::sleep_until(now + pause).await;
        }
    }

    /// Publishes the result of a read and the earliest time for the next; returns the number of reads so far.
    fn publish(&mut self, outcome: Result<KeySet, SourceError>, next: Instant) -> u64 {
        let result = if outcome.is_ok() { "ok" } else { "failed" };
        counter!("auth_key_fetches_total", "result" => result).increment(1);
        let warned = &mut self.warned;
        self.sender.send_modify(|known| {
            known.readings += 1;
            known.next = Some(next);
            known.failed = outcome.is_err();
            match outcome {
                Ok(set) => {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    gauge!("auth_keys_fetched_timestamp_seconds").set(now.as_secs_f64());
                    gauge!("auth_keys").set(f64::from(u32::try_from(set.len()).unwrap_or(u32::MAX)));
                    if known.set.as_deref() != Some(&set) {
                        tracing::info!(keys = set.len(), left_out = set.left_out, "read the keys of AUTH_ISSUER");
                        if set.is_empty() {
                            tracing::warn!("AUTH_ISSUER has no usable key, so its tokens are refused");
                        }
                        known.set = Some(Arc::new(set));
                        known.generation += 1;
                    } else if warned.is_some() {
                        tracing::info!("the keys of AUTH_ISSUER can be read again");
                    }
                    *warned = None;
                }
                // Logged at the first failure and repeated, so that the end of a log shows it too.
                Err(error) if warned.is_none_or(|at| at.elapsed() >= REMINDER) => {
                    *warned = Some(Instant::now());
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot read the keys of AUTH_ISSUER");
                }
                Err(_) => {}
            }
        });
        self.sender.borrow().readings
    }
}

/// A random number between 0 and 1.
fn random() -> f64 {
    f64::from((RandomState::new().build_hasher().finish() >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use super::*;
    use crate::shutdown;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_warning_about_unreadable_keys_is_repeated() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let (trigger, shutdown) = shutdown::channel();
        let pace = Pace { refresh: Duration::from_secs(5), pause: Duration::from_secs(1) };
        let keys = Keys::start(Source::File("/nowhere/keys".into()), pace, shutdown);
        tokio::time::sleep(REMINDER * 6 - REMINDER / 2).await; // on a paused clock
        drop(trigger);
        let logged = String::from_utf8(log.0.lock().expect("no panic").clone()).expect("text");
        assert_eq!(logged.matches("cannot read the keys of AUTH_ISSUER").count(), 6, "{logged}");
        assert!(keys.known().failed && keys.known().readings > 600);
    }
}
