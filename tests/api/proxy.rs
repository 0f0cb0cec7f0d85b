//! A proxy between the server and PostgreSQL that cuts connections at a chosen moment.

use std::sync::{Arc, Mutex};

use pycrudapi::db::conninfo::ConnInfo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// When a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The message does not reach PostgreSQL.
    Before,
    /// PostgreSQL has executed the message, and its response is lost.
    After,
}

struct Cut {
    at: Vec<u8>,
    moment: Moment,
    times: usize,
}

/// Forwards everything until it is set to cut a connection.
pub struct Proxy {
    folder: tempfile::TempDir,
    cut: Arc<Mutex<Option<Cut>>>,
}

impl Proxy {
    pub async fn start(to: &tokio_postgres::Config) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let [tokio_postgres::config::Host::Unix(directory)] = to.get_hosts() else { panic!("one socket") };
        let socket = format!(".s.PGSQL.{}", to.get_ports().first().copied().unwrap_or(5432));
        let target = directory.join(&socket);
        let listener = UnixListener::bind(folder.path().join(&socket)).expect("bound");
        let cut: Arc<Mutex<Option<Cut>>> = Arc::default();
        let passing = cut.clone();
        tokio::spawn(async move {
            while let Ok((server, _)) = listener.accept().await {
                let postgres = UnixStream::connect(&target).await.expect("connected");
                tokio::spawn(pass_on(server, postgres, passing.clone()));
            }
        });
        Self { folder, cut }
    }

    pub fn conninfo(&self, to: &tokio_postgres::Config) -> ConnInfo {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.folder.path()).user("postgres").dbname(to.get_dbname().expect("a name"));
        config.port(to.get_ports().first().copied().unwrap_or(5432));
        ConnInfo::from_config(config).expect("no TLS required")
    }

    /// Cuts the next `times` connections on which these bytes are sent to PostgreSQL.
    pub fn cut(&self, at: &[u8], moment: Moment, times: usize) {
        *self.cut.lock().expect("no panic") = Some(Cut { at: at.to_owned(), moment, times });
    }

    /// Asserts that all cuts were made.
    #[track_caller]
    pub fn assert_cut(&self) {
        assert!(self.cut.lock().expect("no panic").is_none(), "not every cut was made");
    }
}

/// Whether and when to cut a connection on which these bytes were sent.
fn due(cut: &Mutex<Option<Cut>>, sent: &[u8]) -> Option<Moment> {
    let mut cut = cut.lock().expect("no panic");
    let Cut { at, moment, times } = cut.as_mut()?;
    let moment = sent.windows(at.len()).any(|bytes| bytes == at).then_some(*moment)?;
    *times -= 1;
    if *times == 0 {
        *cut = None;
    }
    Some(moment)
}

/// Forwards both directions; returns, which closes both connections, when one side closes or the connection is to be cut.
async fn pass_on(mut server: UnixStream, mut postgres: UnixStream, cut: Arc<Mutex<Option<Cut>>>) {
    let (mut asked, mut answered) = ([0; 16 * 1024], [0; 16 * 1024]);
    let mut cutting = false;
    loop {
        tokio::select! {
            read = server.read(&mut asked) => {
                let Ok(1..) = read else { return };
                let piece = &asked[..read.expect("read")];
                match due(&cut, piece) {
                    Some(Moment::Before) => return,
                    Some(Moment::After) => cutting = true,
                    None => {}
                }
                if postgres.write_all(piece).await.is_err() { return }
            }
            read = postgres.read(&mut answered) => {
                let Ok(1..) = read else { return };
                if cutting || server.write_all(&answered[..read.expect("read")]).await.is_err() { return }
            }
        }
    }
}
