//! Serves an issuer's documents on this machine, counts requests, and fails as configured.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::signer::key_set;

/// The behaviour of the key server.
#[derive(Clone)]
pub enum Mode {
    /// Answers 200 with the documents.
    Serving,
    /// Answers every request with these bytes.
    Raw(String),
    /// Accepts connections without responding.
    Silent,
}

struct State {
    mode: Mutex<Mode>,
    documents: Mutex<HashMap<String, String>>,
    requests: AtomicUsize,
}

pub struct KeyServer {
    pub addr: SocketAddr,
    is_tls: bool,
    state: Arc<State>,
}

impl KeyServer {
    /// Serves these keys at `/keys`, and the discovery document that names them.
    pub async fn start(keys: &[serde_json::Value]) -> Self {
        Self::start_with(keys, None).await
    }

    /// The same over TLS.
    pub async fn start_tls(keys: &[serde_json::Value], config: Arc<ServerConfig>) -> Self {
        Self::start_with(keys, Some(TlsAcceptor::from(config))).await
    }

    async fn start_with(keys: &[serde_json::Value], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
        let addr = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            mode: Mutex::new(Mode::Serving),
            documents: Mutex::default(),
            requests: AtomicUsize::new(0),
        });
        let server = Self { addr, is_tls: tls.is_some(), state: state.clone() };
        server.publish(keys);
        server.document(
            "/.well-known/openid-configuration",
            &serde_json::json!({"issuer": server.issuer(), "jwks_uri": server.keys_url()}).to_string(),
        );
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (state, tls) = (state.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => answer(socket, state).await,
                        // A client that does not trust the certificate disconnects.
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                answer(socket, state).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    pub fn issuer(&self) -> String {
        if self.is_tls { format!("https://localhost:{}", self.addr.port()) } else { format!("http://{}", self.addr) }
    }

    pub fn keys_url(&self) -> String {
        format!("{}/keys", self.issuer())
    }

    /// Replaces the served keys.
    pub fn publish(&self, keys: &[serde_json::Value]) {
        self.document("/keys", &key_set(keys));
    }

    pub fn document(&self, path: &str, text: &str) {
        self.state.documents.lock().expect("no panic").insert(path.to_owned(), text.to_owned());
    }

    pub fn set(&self, mode: Mode) {
        *self.state.mode.lock().expect("no panic") = mode;
    }

    /// Number of requests received.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }
}

async fn answer(mut socket: impl AsyncRead + AsyncWrite + Unpin, state: Arc<State>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    state.requests.fetch_add(1, Ordering::SeqCst);
    let head = String::from_utf8(head).expect("a head of text");
    let path = head.split(' ').nth(1).expect("a target").to_owned();
    let mode = state.mode.lock().expect("no panic").clone();
    let text = match mode {
        Mode::Serving => {
            let documents = state.documents.lock().expect("no panic");
            let (status, body) = documents.get(&path).map_or(("404 Not Found", ""), |body| ("200 OK", body.as_str()));
            format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
        }
        Mode::Raw(text) => text,
        Mode::Silent => {
            // Wait until the client disconnects.
            let _ = socket.read_u8().await;
            return;
        }
    };
    let _ = socket.write_all(text.as_bytes()).await; // the client may have disconnected
    let _ = socket.shutdown().await;
}
