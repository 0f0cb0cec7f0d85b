//! The thread that spawns the postmaster, waits for it, and replaces it when it dies.
//!
//! Refuses to give up on one that keeps dying: it tries again, ever more slowly, and says so.
//! Invariant: the thread lives as long as the postmaster it spawned, as [`super::spawn`] asks,
//! and a pid is signalled only while its process cannot have been reaped, so never a stranger's.

use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tracing::{error, info, warn};

use super::error::{self, EmbeddedError};
use super::postmaster::{Postmaster, Spawned};

/// Fast shutdown with its checkpoint; shutdown without; no shutdown.
const STOP_STEPS: [(Signal, Duration); 3] = [
    (Signal::INT, Duration::from_secs(10)),
    (Signal::QUIT, Duration::from_secs(5)),
    (Signal::KILL, Duration::from_secs(5)),
];
/// How often we look whether it is ready, which it writes into a file and tells nobody; a twentieth of a warm start.
const POLL: Duration = Duration::from_millis(5);
/// The pause before a restart doubles from the one to the other.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// One that served this long died for a new reason: it is replaced without a pause.
const STEADY: Duration = Duration::from_secs(10);

/// Name of the gauge that is 1 while the postmaster serves.
pub const EMBEDDED_UP: &str = "postgres_embedded_up";
/// Name of the counter of postmasters that took the place of one that had died.
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
    /// Starts the thread, and returns when the postmaster is ready or has failed to be.
    pub fn start(postmaster: Postmaster) -> Result<Self, EmbeddedError> {
        let shared = Arc::new(Shared::default());
        let (sender, started) = channel();
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("embedded-pg".to_owned())
            .spawn(move || supervise(&postmaster, &theirs, &sender))
            .map_err(error::file("start a thread for", std::path::Path::new("postgres")))?;
        // It drops its end without a word only if it panics.
        let first = started.recv().unwrap_or(Err(EmbeddedError::Stopped));
        if let Err(failure) = first {
            // It may still be clearing up, which only the lock's holder may do: that is us.
            let _ = thread.join();
            return Err(failure);
        }
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// The running postmaster.
    pub fn pid(&self) -> Option<u32> {
        self.shared.lock().child.as_ref().map(Child::id)
    }

    /// Ends the postmaster, then the thread. Harmless a second time.
    pub fn stop(&self) {
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        for (signal, patience) in STOP_STEPS {
            self.shared.signal(signal);
            if self.shared.wait(patience, |state| state.ended) {
                let _ = thread.join();
                return;
            }
            warn!(?signal, waited_ms = patience.as_millis(), "embedded postgresql does not stop");
        }
        error!("embedded postgresql cannot be ended");
    }
}

impl Shared {
    /// A panic elsewhere leaves the state as valid as before: each change is one assignment.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.lock().child.as_ref().and_then(pid_of) {
            // It may be a zombie already; then there is nothing to end.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits at most `patience` for the condition and returns whether it holds.
    fn wait(&self, patience: Duration, holds: impl Fn(&State) -> bool) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), patience, |state| !holds(state));
        holds(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }
}

/// For the log, which writes the sources too.
fn chain(failure: &EmbeddedError) -> &(dyn std::error::Error + 'static) {
    failure
}

fn pid_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}

/// The thread.
fn supervise(postmaster: &Postmaster, shared: &Shared, started: &Sender<Result<(), EmbeddedError>>) {
    let first = attempt(postmaster, shared);
    let serving = first.is_ok();
    // `start` waits for this, so there is somebody to tell.
    let _ = started.send(first);
    if serving {
        keep_serving(postmaster, shared);
    }
    // One that was killed leaves children, and `stop` promises that none are left.
    if let Err(failure) = postmaster.clear() {
        error!(error = chain(&failure), "embedded postgresql left processes behind");
    }
    shared.end();
}

/// Replaces the postmaster whenever it dies, until told to stop.
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
            warn!(%status, pause_ms = pause.as_millis(), "embedded postgresql died, starting it again");
        }
        if shared.wait(pause, |state| state.stopping) {
            return;
        }
        pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        match attempt(postmaster, shared) {
            Ok(()) => {
                up.set(1.0);
                restarts.increment(1);
                info!(duration_ms = died.elapsed().as_millis(), "embedded postgresql is back");
            }
            Err(EmbeddedError::Stopped) => return,
            Err(failure) => {
                warn!(error = chain(&failure), pause_ms = pause.as_millis(), "embedded postgresql did not start");
            }
        }
    }
}

/// One start, from clearing up after the previous to ready.
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
            Step::Starting => thread::sleep(POLL), // until the next look, or until it took too long
        }
    }
}

/// Spawns under the lock, so that `stop` comes either before, and prevents it, or after, and
/// finds a process to signal.
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
    // Without reaping, and without the lock: until it is reaped below, its pid stays its own.
    let look = || waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    while matches!(look(), Err(rustix::io::Errno::INTR)) {}
    let mut state = shared.lock();
    let status = state.child.as_mut().and_then(|child| child.wait().ok());
    state.child = None;
    status
}
