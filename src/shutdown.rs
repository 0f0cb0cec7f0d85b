//! Being told to stop: one switch, thrown once, seen by everybody who waits for it; and the signals that throw it.

use rustix::process::{Pid, Signal, getppid, test_kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The side that waits for the stop.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// The side that asks for the stop; dropping it asks too, so an owner that failed leaves nothing running.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// A new switch.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Asks for the stop.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Returns once the stop was asked for.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        // An error means that the trigger is gone, which asks for the stop as well.
        let _ = receiver.wait_for(|stop| *stop).await;
    }

    /// Whether the stop was asked for.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// Returns the name of the first SIGTERM or SIGINT.
///
/// # Errors
/// When the system takes no handler.
pub async fn signalled() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

/// Has the kernel send a signal when the process that started this one ends, kill -9 included; to be called by the main
/// thread.
///
/// # Errors
/// When it has ended already.
pub fn end_with_parent(parent: Pid, signal: Signal) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(signal))?;
    // It may have ended before the request, which nobody would announce. A program between the two is none of our concern.
    if getppid() != Some(parent) {
        test_kill_process(parent)?;
    }
    Ok(())
}
