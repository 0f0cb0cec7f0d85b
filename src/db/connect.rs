//! Opens connections to PostgreSQL and keeps the server's address, because a cancel request must reach the server that runs the
//! statement. If there are several hosts and addresses, one that does not respond does not delay the others.
//!
//! The driver's own `connect` does not expose the address, and its cancel request returns before the server has read it: the
//! signal could then cancel a statement of the connection's next user. This module waits until PostgreSQL closes the
//! connection, which it does last: by then the cancel request has been processed, or the session has ended.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{fmt, io};

use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(not(test))]
use tokio::net::UnixStream;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::{Host, LoadBalanceHosts, TargetSessionAttrs};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Client, Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;
use uuid::Uuid;

use super::attempt::Unreplicated;
use super::conninfo::ConnInfo;
use super::generation::Generation;
#[cfg(test)]
use crate::simulation::postgres::Socket as UnixStream;
use crate::staggered::{first_of, no_address};

/// PostgreSQL's port if the settings specify none.
const PORT: u16 = 5432;
/// Longest time from accepting a connection until the server has started a session on it.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Why no connection could be opened.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The address cannot be resolved or reached.
    #[error("cannot reach postgres")]
    Socket(#[from] io::Error),
    /// The server rejects the connection or does not speak the protocol.
    #[error("postgres refuses the connection")]
    Postgres(#[from] tokio_postgres::Error),
    /// The server accepted the connection and then sent nothing.
    #[error("postgres does not answer")]
    Silent,
    /// The server was unreachable a moment ago, and another task of the pool is trying to reconnect.
    #[error("postgres is unreachable")]
    Unreachable,
    /// The server is a standby, or is not one.
    #[error("the server does not match target_session_attrs")]
    WrongKind,
    /// The server accepts writes, but another server has been promoted after it.
    #[error("the server is a former primary that has not been demoted: another server has a newer timeline")]
    Replaced,
}

/// An open connection.
pub struct Connection {
    /// The driver's client.
    pub client: Client,
    /// The server at the other end.
    pub server: Server,
    /// Task that drives the connection; ends when PostgreSQL has closed it, or closes it at once when aborted.
    pub driver: JoinHandle<()>,
    /// Set when PostgreSQL warns that a commit was not replicated.
    pub unreplicated: Unreplicated,
    /// Triggered by each notification (`LISTEN`).
    pub announced: Arc<Notify>,
    /// Generation of the connection; it must not be used once this is stale.
    pub generation: Generation,
}

/// The server at the other end of a connection.
pub struct Server {
    address: Address,
    /// The name in its certificate.
    host: String,
    tls: MakeRustlsConnect,
}

enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => path.display().fmt(formatter),
        }
    }
}

impl ConnInfo {
    /// Opens a connection to the first host that accepts one and matches `target_session_attrs`.
    ///
    /// # Errors
    /// The error of the last host.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        let mut indices: Vec<usize> = (0..self.hosts()).collect();
        shuffle_if_configured(&self.config, &mut indices);
        first_of(indices.into_iter().map(|index| self.connect_to(index)), no_address().into()).await
    }

    /// Number of hosts.
    pub fn hosts(&self) -> usize {
        self.config.get_hosts().len().max(self.config.get_hostaddrs().len())
    }

    /// Opens a connection to the first address of a host that accepts one; `index` is less than [`Self::hosts`].
    ///
    /// # Errors
    /// The error of the last address.
    pub async fn connect_to(&self, index: usize) -> Result<Connection, ConnectError> {
        let host = match self.config.get_hosts().get(index) {
            Some(Host::Tcp(name)) => name.as_str(),
            _ => "",
        };
        let servers = addresses(&self.config, index).await?.into_iter();
        let servers = servers.map(|address| Server { address, host: host.to_owned(), tls: self.tls.clone() });
        first_of(servers.map(|server| server.connect(self)), no_address().into()).await
    }
}

fn shuffle_if_configured<T>(config: &Config, list: &mut [T]) {
    if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
        list.sort_by_cached_key(|_| Uuid::new_v4());
    }
}

/// The addresses of one of the hosts.
async fn addresses(config: &Config, index: usize) -> io::Result<Vec<Address>> {
    let port = config.get_ports().get(index).or(config.get_ports().first()).copied().unwrap_or(PORT);
    let host = match (config.get_hostaddrs().get(index), config.get_hosts().get(index)) {
        (Some(address), _) => return Ok(vec![Address::Tcp(SocketAddr::new(*address, port))]),
        (None, Some(Host::Unix(folder))) => return Ok(vec![Address::Unix(folder.join(format!(".s.PGSQL.{port}")))]),
        (None, Some(Host::Tcp(host))) => host,
        (None, None) => {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "hosts and hostaddrs differ in number"));
        }
    };
    let mut addresses: Vec<_> = lookup_host((host.as_str(), port)).await?.map(Address::Tcp).collect();
    shuffle_if_configured(config, &mut addresses);
    Ok(addresses)
}

impl Server {
    async fn connect(self, to: &ConnInfo) -> Result<Connection, ConnectError> {
        let limit = to.config.get_connect_timeout().copied();
        match &self.address {
            Address::Tcp(address) => {
                let stream = within(limit, TcpStream::connect(address)).await?;
                set_options(&stream, &to.config)?;
                self.begin(to, stream).await
            }
            Address::Unix(path) => {
                let stream = within(limit, UnixStream::connect(path)).await?;
                self.begin(to, stream).await
            }
        }
    }

    async fn begin<S>(self, to: &ConnInfo, stream: S) -> Result<Connection, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let beginning = async {
            let generation = to.generations.current();
            let stream = UntilClosed { stream, shut: false };
            let (client, connection) = to.config.connect_raw(stream, self.tls::<UntilClosed<S>>()).await?;
            let (unreplicated, announced) = (Unreplicated::default(), Arc::new(Notify::new()));
            let driving = unreplicated.clone().drive(connection, announced.clone());
            let driver = tokio::spawn(async move {
                if let Err(error) = driving.await {
                    tracing::debug!(error = &error as &dyn std::error::Error, "a postgres connection ended");
                }
            });
            let generation = match to.config.get_target_session_attrs() {
                TargetSessionAttrs::ReadWrite => self.primary(to, &client).await?,
                TargetSessionAttrs::ReadOnly if !is_read_only(&client).await? => return Err(ConnectError::WrongKind),
                _ => generation,
            };
            Ok((client, driver, unreplicated, announced, generation))
        };
        let begun = timeout(HANDSHAKE, beginning).await.unwrap_or(Err(ConnectError::Silent));
        let (client, driver, unreplicated, announced, generation) = begun?;
        Ok(Connection { client, server: self, driver, unreplicated, announced, generation })
    }

    /// The generation of a session on a primary.
    async fn primary(&self, to: &ConnInfo, client: &Client) -> Result<Generation, ConnectError> {
        if is_read_only(client).await? {
            return Err(ConnectError::WrongKind);
        }
        // With load balancing, sessions are spread over several servers on purpose, so none of them is the only primary.
        if to.hosts() < 2 || to.config.get_load_balance_hosts() == LoadBalanceHosts::Random {
            return Ok(to.generations.current());
        }
        let timeline = timeline(client).await?;
        to.generations.for_primary(&self.address.to_string(), timeline).ok_or(ConnectError::Replaced)
    }

    /// Sends the server a cancel request for a connection and returns when the server has processed it: a statement that starts
    /// on the connection after this call returns is not affected.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn cancel(&self, token: &CancelToken) -> Result<(), ConnectError> {
        match &self.address {
            Address::Tcp(address) => self.send_cancel(token, TcpStream::connect(address).await?).await,
            Address::Unix(path) => self.send_cancel(token, UnixStream::connect(path).await?).await,
        }
    }

    async fn send_cancel<S>(&self, token: &CancelToken, stream: S) -> Result<(), ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = UntilClosed { stream, shut: false };
        Ok(token.cancel_query_raw(stream, self.tls::<UntilClosed<S>>()).await?)
    }

    fn tls<S>(&self) -> <MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let made: Result<_, Infallible> = MakeTlsConnect::<S>::make_tls_connect(&mut self.tls.clone(), &self.host);
        match made {
            Ok(tls) => tls,
            Err(never) => match never {},
        }
    }
}

async fn within<T>(limit: Option<Duration>, connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match limit {
        Some(limit) => timeout(limit, connecting).await.unwrap_or(Err(io::ErrorKind::TimedOut.into())),
        None => connecting.await,
    }
}

fn set_options(stream: &TcpStream, config: &Config) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    #[cfg(target_os = "linux")]
    if let Some(limit) = config.get_tcp_user_timeout() {
        socket.set_tcp_user_timeout(Some(*limit))?;
    }
    if config.get_keepalives() {
        let mut keepalive = TcpKeepalive::new().with_time(config.get_keepalives_idle());
        if let Some(interval) = config.get_keepalives_interval() {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(retries) = config.get_keepalives_retries() {
            keepalive = keepalive.with_retries(retries);
        }
        socket.set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}

/// Whether a server rejects writes.
///
/// # Errors
/// When the connection is lost.
pub async fn is_read_only(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let answer = client.simple_query("show transaction_read_only").await?;
    Ok(answer.iter().any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("on"))))
}

/// The timeline of a primary, which is incremented at each promotion; `None` if PostgreSQL does not permit the query.
async fn timeline(client: &Client) -> Result<Option<u32>, tokio_postgres::Error> {
    // The first eight digits of the name of the current WAL file.
    let answer = match client.simple_query("select left(pg_walfile_name(pg_current_wal_lsn()), 8)").await {
        Ok(answer) => answer,
        Err(error) if error.code().is_some() => return Ok(None),
        Err(error) => return Err(error),
    };
    let digits = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()))
}

/// A stream whose shutdown completes only when the peer has closed it too.
struct UntilClosed<S> {
    stream: S,
    /// Whether our side has been shut down.
    shut: bool,
}

impl<S: AsyncRead + Unpin> AsyncRead for UntilClosed<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for UntilClosed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.shut = true;
        }
        loop {
            let mut unread = [0; 512];
            let mut unread = ReadBuf::new(&mut unread);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut unread)) {
                Ok(()) if !unread.filled().is_empty() => {}
                // A reset also ends the connection.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
