//! A real Redis owned by the test, with a password, to be killed, paused, filled and flushed.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use redis::{Cmd, FromRedisValue};

use crate::harness::eventually;

pub const PASSWORD: &str = "hunter2";

/// An unused port below the ephemeral range, so that it stays free while a server on it is restarted.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset = u16::try_from(std::process::id() % 100).expect("small") * 100;
        let port = 20_000 + offset + NEXT.fetch_add(1, Ordering::Relaxed) % 100;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub struct RedisServer {
    child: Child,
    port: u16,
}

impl RedisServer {
    pub async fn start() -> Self {
        let port = free_port();
        let server = Self { child: spawn(port), port };
        server.ready().await;
        server
    }

    /// The address in the form of `REDIS_URL`.
    pub fn url(&self) -> String {
        format!("redis://:{PASSWORD}@127.0.0.1:{}/0", self.port)
    }

    /// The flag for a server that uses it.
    pub fn flag(&self) -> String {
        format!("--redis-url={}", self.url())
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Restarts it at the same address, empty.
    pub async fn restart(&mut self) {
        self.child = spawn(self.port);
        self.ready().await;
    }

    /// Stops the process with SIGSTOP: connections stay open without a response.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    /// Runs one command on a separate connection.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> T {
        self.try_run(command).await.expect("redis answers")
    }

    async fn try_run<T: FromRedisValue>(&self, command: &Cmd) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.url())?;
        command.query_async(&mut client.get_multiplexed_async_connection().await?).await
    }

    async fn ready(&self) {
        eventually(|| async {
            self.try_run::<String>(&redis::cmd("PING")).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    /// The keys of cached answers, without locks.
    pub async fn answers(&self) -> Vec<String> {
        let keys: Vec<String> = self.run(redis::cmd("KEYS").arg("pycrudapi:air_quality:*")).await;
        keys.into_iter().filter(|key| !key.ends_with(":lock")).collect()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have exited already
        let _ = self.child.wait();
    }
}

fn spawn(port: u16) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--requirepass", PASSWORD])
        .args(["--save", "", "--appendonly", "no", "--dir", "/tmp"])
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}
