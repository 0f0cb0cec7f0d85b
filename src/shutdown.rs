//! Graceful shutdown: a signal that is sent once and received by every waiting task; and the Unix signals that trigger it.

use rustix::process::{Pid, Signal, getppid, test_kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The receiving side.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// The sending side. Dropping it also requests the shutdown, so that a failed owner leaves nothing running.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// Creates the two sides.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Requests the shutdown.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Returns once the shutdown is requested.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        // An error means that the trigger was dropped, which also requests the shutdown.
        let _ = receiver.wait_for(|stop| *stop).await;
    }

    /// Returns true if the shutdown was requested.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// Returns the name of the first SIGTERM or SIGINT.
///
/// # Errors
/// If the system does not accept a handler.
pub async fn signalled() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

/// Has the kernel send a signal when the process that started this one ends, even by kill -9. Must be called by the main
/// thread.
///
/// # Errors
/// If that process has ended already.
pub fn end_with_parent(parent: Pid, signal: Signal) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(signal))?;
    // The parent may have ended before the call, in which case there is no signal. A process between the two does not matter.
    if getppid() != Some(parent) {
        test_kill_process(parent)?;
    }
    Ok(())
}
