//! Keeps the issuer's keys: read at the start, ahead of time, and when a token names one that is not known.
//!
//! One task reads them, so there is never more than one reading at a time and a client that goes away ends none. Whatever number of
//! tokens name unknown keys, a pause lies between two readings. Keys that were read once stay until a later reading succeeds: an
//! issuer that is away fails nobody whose key is known.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{counter, gauge};
use tokio::sync::watch;
use tokio::time::Instant;

use super::key_set::KeySet;
use super::source::{Source, SourceError};
use crate::shutdown::Shutdown;

/// The pause after a first failure; it doubles up to [`Pace::pause`].
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// How often the log says again that keys cannot be read.
const REMINDER: Duration = Duration::from_secs(600);

/// How often keys are read.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Ahead of time: after at most this, and a random fifth less, so that replicas do not ask together.
    pub refresh: Duration,
    /// At least this lies between two readings, whatever tokens name.
    pub pause: Duration,
}

/// What is known of the keys.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The keys; `None` until they were read for the first time.
    pub set: Option<Arc<KeySet>>,
    /// Grows whenever they have changed.
    pub generation: u64,
    /// Whether the latest reading failed.
    pub failed: bool,
    /// How many readings have ended.
    readings: u64,
    /// When the next one may be asked for.
    next: Option<Instant>,
}

/// The keys of an issuer. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Keys {
    known: watch::Receiver<Known>,
    /// How many readings are wanted in all.
    wanted: Arc<watch::Sender<u64>>,
}

impl Keys {
    /// Begins to read the keys, until the shutdown.
    pub fn start(source: Source, pace: Pace, shutdown: Shutdown) -> Self {
        let (sender, known) = watch::channel(Known::default());
        let (wanted, wants) = watch::channel(0);
        let reader = Reader { source, pace, sender, wants, complained: None };
        tokio::spawn(async move {
            tokio::select! {
                () = reader.run() => {}
                () = shutdown.requested() => {}
            }
        });
        Self { known, wanted: Arc::new(wanted) }
    }

    /// What is known now.
    pub fn known(&self) -> Known {
        self.known.borrow().clone()
    }

    /// Grows whenever the keys have changed.
    pub fn generation(&self) -> u64 {
        self.known.borrow().generation
    }

    /// What is known after another reading than the one that was `seen`; the same when the pause is not over.
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
            // The server stops.
            Err(_) => now,
        }
    }
}

struct Reader {
    source: Source,
    pace: Pace,
    sender: watch::Sender<Known>,
    wants: watch::Receiver<u64>,
    /// When the log was told last that the keys cannot be read; none since they could.
    complained: Option<Instant>,
}

impl Reader {
    /// Returns when nobody is left to read for.
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
            let readings = self.tell(outcome, now + pause);
            tokio::select! {
                // An issuer that changes its keys tells nobody: they are read when they are due, or a token names one.
                () = tokio::time::sleep_until(now + due) => {}
                wanted = self.wants.wait_for(|wanted| *wanted > readings) => if wanted.is_err() { return },
            }
            // The issuer is asked no more often than this, however many tokens name keys that are not there.
            tokio::time::sleep_until(now + pause).await;
        }
    }

    /// Says what came of a reading, and after which time the next may be; the number of readings so far.
    fn tell(&mut self, outcome: Result<KeySet, SourceError>, next: Instant) -> u64 {
        let result = if outcome.is_ok() { "ok" } else { "failed" };
        counter!("auth_key_fetches_total", "result" => result).increment(1);
        let complained = &mut self.complained;
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
                            tracing::warn!("AUTH_ISSUER has no key that can be used, so its tokens are refused");
                        }
                        known.set = Some(Arc::new(set));
                        known.generation += 1;
                    } else if complained.is_some() {
                        tracing::info!("the keys of AUTH_ISSUER can be read again");
                    }
                    *complained = None;
                }
                // Once per loss, and now and then while it lasts: whoever reads only the end of a log must see it.
                Err(error) if complained.is_none_or(|at| at.elapsed() >= REMINDER) => {
                    *complained = Some(Instant::now());
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot read the keys of AUTH_ISSUER");
                }
                Err(_) => {}
            }
        });
        self.sender.borrow().readings
    }
}

/// Between 0 and 1.
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
    async fn keys_that_cannot_be_read_are_complained_of_again_now_and_then() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let (trigger, shutdown) = shutdown::channel();
        let pace = Pace { refresh: Duration::from_secs(5), pause: Duration::from_secs(1) };
        let keys = Keys::start(Source::File("/nowhere/keys".into()), pace, shutdown);
        tokio::time::sleep(REMINDER * 6 - REMINDER / 2).await; // the paused clock: no time passes
        drop(trigger);
        let told = String::from_utf8(log.0.lock().expect("no panic").clone()).expect("text");
        assert_eq!(told.matches("cannot read the keys of AUTH_ISSUER").count(), 6, "{told}");
        assert!(keys.known().failed && keys.known().readings > 600);
    }
}
