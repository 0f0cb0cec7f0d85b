//! A server on a cluster whose lock the caller holds: during a restore or an upgrade.

use std::path::PathBuf;
use std::time::Duration;

use super::binaries::Binaries;
use super::config_at;
use super::data_directory::DataDirectory;
use super::error::EmbeddedError;
use super::postmaster::Postmaster;
use super::supervisor::Supervisor;

/// A running server; dropping it stops it.
#[derive(Debug)]
pub struct Server {
    supervisor: Supervisor,
    socket_dir: PathBuf,
    directory: DataDirectory,
}

impl Server {
    /// Starts the server and returns when it accepts connections.
    pub(super) fn start(
        directory: &DataDirectory,
        binaries: &Binaries,
        settings: Vec<(String, String)>,
        ready_within: Duration,
    ) -> Result<Self, EmbeddedError> {
        let socket_dir = directory.create_socket_dir()?;
        let supervisor = Supervisor::start(Postmaster {
            program: binaries.dir.join("postgres"),
            directory: directory.clone(),
            socket_dir: socket_dir.clone(),
            settings,
            ready_within,
        })?;
        Ok(Self { supervisor, socket_dir, directory: directory.clone() })
    }

    /// Connection settings.
    pub fn config(&self) -> tokio_postgres::Config {
        config_at(&self.socket_dir)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.supervisor.stop();
        self.directory.remove_socket_dir(&self.socket_dir);
    }
}
