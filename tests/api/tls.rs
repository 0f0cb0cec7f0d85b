//! Accepted certificates of PostgreSQL by `sslmode`: a server that negotiates TLS like PostgreSQL, with a real certificate, and
//! records whether the client continued after the handshake.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use pycrudapi::db::conninfo::ConnInfo;
use pycrudapi::db::error::is_unreachable;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};

/// The name in the server's certificate.
const NAME: &str = "db.example";

fn openssl(folder: &Path, arguments: &str) {
    let made = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().expect("openssl runs");
    assert!(made.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&made.stderr));
}

/// Creates two CAs and a server certificate for `name` signed by the first; returns the server's TLS configuration.
pub fn certificates(folder: &Path, name: &str) -> Arc<ServerConfig> {
    let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    for authority in ["ca", "stranger"] {
        openssl(folder, &format!("{new} -keyout {authority}.key -out {authority}.pem -subj /CN={authority}"));
    }
    openssl(
        folder,
        &format!(
            "{new} -CA ca.pem -CAkey ca.key -keyout server.key -out server.pem -subj /CN=server \
             -addext subjectAltName=DNS:{name} -addext basicConstraints=critical,CA:FALSE"
        ),
    );
    let chain = vec![CertificateDer::from_pem_file(folder.join("server.pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).expect("a key");
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map(Arc::new)
        .expect("a configuration")
}

/// Accepts one connection, offers TLS, and returns whether the client sent anything inside it.
fn serve_once(listener: &TcpListener, config: &Arc<ServerConfig>) -> bool {
    let (mut socket, _) = listener.accept().expect("a client");
    let mut asks_for_tls = [0; 8];
    socket.read_exact(&mut asks_for_tls).expect("an SSLRequest");
    socket.write_all(b"S").expect("sent");
    let mut connection = ServerConnection::new(config.clone()).expect("a session");
    let mut startup = [0; 1];
    matches!(Stream::new(&mut connection, &mut socket).read(&mut startup), Ok(1))
}

#[tokio::test]
async fn certificates_are_verified_as_required_by_sslmode_including_the_host_name() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let config = certificates(folder.path(), NAME);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").expect("port 0 is free"));
    let port = listener.local_addr().expect("an address").port();

    for (host, mode, root, taken) in [
        (NAME, "verify-full", Some("ca.pem"), true),
        ("other.example", "verify-full", Some("ca.pem"), false),
        ("example", "verify-full", Some("ca.pem"), false),
        ("db.example.other.example", "verify-full", Some("ca.pem"), false),
        (NAME, "verify-full", Some("stranger.pem"), false),
        ("other.example", "verify-ca", Some("ca.pem"), true),
        (NAME, "verify-ca", Some("stranger.pem"), false),
        (NAME, "require", Some("stranger.pem"), false),
        ("other.example", "require", Some("ca.pem"), true),
        ("other.example", "require", None, true),
        ("other.example", "prefer", None, true),
    ] {
        let root = root.map(|root| format!("sslrootcert={}", path(root))).unwrap_or_default();
        let text = format!("host={host} hostaddr=127.0.0.1 port={port} user=u sslmode={mode} {root}");
        let conninfo = ConnInfo::parse(&text).expect("understood");
        let server = {
            let (listener, config) = (listener.clone(), config.clone());
            thread::spawn(move || serve_once(&listener, &config))
        };
        let error =
            conninfo.config.connect(conninfo.tls.clone()).await.err().expect("the server sends no response inside TLS");
        assert_eq!(server.join().expect("no panic"), taken, "{text}: {error}");
        // A server with an untrusted certificate is reachable and must not be classified as unreachable.
        assert_eq!(is_unreachable(&error), taken, "{text}: {error:?}");
    }
}
