//! The thread that spawns the postmaster, waits for it, and restarts it when it exits.
//!
//! It never gives up on a postmaster that keeps exiting: it retries with increasing delays and logs each attempt. Invariant:
//! the thread lives as long as the postmaster it spawned, as [`super::spawn`] requires, and a pid is signalled only while its
//! process cannot have been reaped, so never another process.

use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tracing::{error, info, warn};

use super::error::{self, EmbeddedError};
use super::postmaster::{Postmaster, Spawned};

/// Fast shutdown with a checkpoint; immediate shutdown; kill.
const STOP_STEPS: [(Signal, Duration); 3] = [
    (Signal::INT, Duration::from_secs(10)),
    (Signal::QUIT, Duration::from_secs(5)),
    (Signal::KILL, Duration::from_secs(5)),
];
/// Polling interval for readiness, which the postmaster writes only to a file; a twentieth of a warm start.
const POLL: Duration = Duration::from_millis(5);
/// The delay before a restart doubles from the first value to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A postmaster that ran this long is restarted without a delay: its exit is unrelated to earlier ones.
const STEADY: Duration = Duration::from_secs(10);

/// Name of the gauge that is 1 while the embedded server is running.
pub const EMBEDDED_UP: &str = "postgres_embedded_up";
/// Name of the counter of restarts of the postmaster after it exited.
pub const EMBEDDED_RESTARTS: &str = "postgres_embedded_restarts_total";

/// A supervised postmaster; `stop` ends both.
#[derive(Debug)]
pub(super) struct Supervisor {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Spawned and not yet reaped.
    child: Option<Child>,
    stopping: bool,
    /// The thread has left its loop; nothing will be spawned any more.
    ended: bool,
}

impl Supervisor {
    /// Starts the thread, and returns when the postmaster is ready or has failed to start.
    pub fn start(postmaster: Postmaster) -> Result<Self, EmbeddedError> {
        let shared = Arc::new(Shared::default());
        let (sender, started) = channel();
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("embedded-pg".to_owned())
            .spawn(move || supervise(&postmaster, &theirs, &sender))
            .map_err(error::file("start a thread for", std::path::Path::new("postgres")))?;
        // The sender is dropped without a message only if the thread panics.
        let first = started.recv().unwrap_or(Err(EmbeddedError::Stopped));
        if let Err(failure) = first {
            // The thread may still be cleaning up, which requires the lock that this caller holds.
            let _ = thread.join();
            return Err(failure);
        }
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// The running postmaster.
    pub fn pid(&self) -> Option<u32> {
        self.shared.lock().child.as_ref().map(Child::id)
    }

    /// Stops the postmaster, then the thread. May be called more than once.
    pub fn stop(&self) {
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        for (signal, limit) in STOP_STEPS {
            self.shared.signal(signal);
            if self.shared.wait(limit, |state| state.ended) {
                let _ = thread.join();
                return;
            }
            warn!(?signal, waited_ms = limit.as_millis(), "embedded postgresql does not stop");
        }
        error!("embedded postgresql cannot be stopped");
    }
}

impl Shared {
    /// A panic elsewhere does not leave the state inconsistent: each change is one assignment.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.lock().child.as_ref().and_then(pid_of) {
            // It may be a zombie already, which is harmless.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits at most `limit` for the condition and returns whether it holds.
    fn wait(&self, limit: Duration, holds: impl Fn(&State) -> bool) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), limit, |state| !holds(state));
        holds(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }
}

/// Converts for the log, which also prints the sources.
fn chain(failure: &EmbeddedError) -> &(dyn std::error::Error + 'static) {
    failure
}

fn pid_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}

/// Main function of the thread.
fn supervise(postmaster: &Postmaster, shared: &Shared, started: &Sender<Result<(), EmbeddedError>>) {
    let first = attempt(postmaster, shared);
    let serving = first.is_ok();
    // `start` is waiting for this, so the receiver exists.
    let _ = started.send(first);
    if serving {
        keep_serving(postmaster, shared);
    }
    // A killed postmaster leaves child processes, but after `stop` none must be left.
    if let Err(failure) = postmaster.clear() {
        error!(error = chain(&failure), "cannot clean up after embedded postgresql");
    }
    shared.end();
}

/// Restarts the postmaster whenever it exits, until stopped.
fn keep_serving(postmaster: &Postmaster, shared: &Shared) {
    let mut pause = Duration::ZERO;
    let (up, restarts) = (metrics::gauge!(EMBEDDED_UP), metrics::counter!(EMBEDDED_RESTARTS));
    restarts.increment(0);
    up.set(1.0);
    loop {
        let serving = Instant::now();
        let status = await_exit(shared);
        let died = Instant::now();
        up.set(0.0);
        if shared.lock().stopping {
            return;
        }
        if let Some(status) = status {
            pause = if serving.elapsed() >= STEADY { Duration::ZERO } else { pause };
            warn!(%status, pause_ms = pause.as_millis(), "embedded postgresql exited, restarting it");
        }
        if shared.wait(pause, |state| state.stopping) {
            return;
        }
        pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        match attempt(postmaster, shared) {
            Ok(()) => {
                up.set(1.0);
                restarts.increment(1);
                info!(duration_ms = died.elapsed().as_millis(), "embedded postgresql has been restarted");
            }
            Err(EmbeddedError::Stopped) => return,
            Err(failure) => {
                warn!(error = chain(&failure), pause_ms = pause.as_millis(), "embedded postgresql did not start");
            }
        }
    }
}

/// One start, from cleaning up after the previous one until ready.
fn attempt(postmaster: &Postmaster, shared: &Shared) -> Result<(), EmbeddedError> {
    postmaster.clear()?;
    let begun = Instant::now();
    let log_start = spawn(postmaster, shared)?;
    loop {
        match step(postmaster, shared) {
            Step::Ready => return Ok(()),
            Step::Ended(status) => return Err(ended(postmaster, shared, status, log_start)),
            Step::Starting if begun.elapsed() > postmaster.ready_within => {
                shared.signal(Signal::KILL);
                await_exit(shared);
                let (log, tail) = (postmaster.directory.log(), postmaster.log_tail(log_start));
                return Err(EmbeddedError::NotReady { seconds: postmaster.ready_within.as_secs(), log, tail });
            }
            Step::Starting => thread::sleep(POLL), // until the next check, or the time limit
        }
    }
}

/// Spawns while holding the lock, so that `stop` runs either before, and prevents it, or after, and finds a process to signal.
fn spawn(postmaster: &Postmaster, shared: &Shared) -> Result<u64, EmbeddedError> {
    let mut state = shared.lock();
    if state.stopping {
        return Err(EmbeddedError::Stopped);
    }
    let Spawned { child, log_start } = postmaster.spawn()?;
    state.child = Some(child);
    Ok(log_start)
}

enum Step {
    Starting,
    Ready,
    Ended(ExitStatus),
}

fn step(postmaster: &Postmaster, shared: &Shared) -> Step {
    let mut state = shared.lock();
    let child = state.child.as_mut().expect("only this thread reaps, and it has not");
    if let Ok(Some(status)) = child.try_wait() {
        state.child = None;
        return Step::Ended(status);
    }
    if postmaster.is_ready(child.id()) { Step::Ready } else { Step::Starting }
}

fn ended(postmaster: &Postmaster, shared: &Shared, status: ExitStatus, log_start: u64) -> EmbeddedError {
    if shared.lock().stopping {
        return EmbeddedError::Stopped;
    }
    EmbeddedError::Ended { status, log: postmaster.directory.log(), tail: postmaster.log_tail(log_start) }
}

/// Blocks until the child has exited, then reaps it; none if there is no child.
fn await_exit(shared: &Shared) -> Option<ExitStatus> {
    let pid = shared.lock().child.as_ref().and_then(pid_of)?;
    // Without reaping, and without the lock: until the process is reaped below, its pid is not reused.
    let peek = || waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    while matches!(peek(), Err(rustix::io::Errno::INTR)) {}
    let mut state = shared.lock();
    let status = state.child.as_mut().and_then(|child| child.wait().ok());
    state.child = None;
    status
}
