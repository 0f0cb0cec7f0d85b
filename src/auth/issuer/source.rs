//! The source of the issuer's keys: its discovery document, the URL of its key set, or a file.

use std::path::PathBuf;

use serde_json::Value;
use thiserror::Error;
use tokio::io::AsyncReadExt;

use super::fetch::{Address, Client, DOCUMENT_MAX_BYTES, FetchError};
use super::json;
use super::key_set::KeySet;

/// The path of the discovery document, relative to the issuer URL (OpenID Connect Discovery, 4).
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// The source of the keys.
#[derive(Clone)]
pub enum Source {
    /// The URL in the issuer's discovery document, which is read again each time.
    Discovery {
        /// The expected issuer in the document.
        issuer: String,
        /// The URL of the document.
        address: Address,
        /// The client for it and for the keys.
        client: Client,
    },
    /// A URL.
    Url {
        /// The URL of the key set.
        address: Address,
        /// The client for it.
        client: Client,
    },
    /// A file.
    File(PathBuf),
}

/// Why the keys could not be read. The texts are for the log.
#[derive(Debug, Error)]
pub enum SourceError {
    /// A document could not be fetched.
    #[error("cannot fetch {what}")]
    Fetch {
        /// The document.
        what: &'static str,
        /// The reason.
        #[source]
        reason: FetchError,
    },
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        reason: std::io::Error,
    },
    /// A document is invalid.
    #[error("{0}")]
    Document(&'static str),
}

impl Source {
    /// The source for an issuer with a discovery document.
    ///
    /// # Errors
    /// If the issuer's name is not a URL, with the reason.
    pub fn discovery(issuer: &str, client: Client) -> Result<Self, &'static str> {
        let address = discovery(issuer).parse()?;
        Ok(Self::Discovery { issuer: issuer.to_owned(), address, client })
    }

    /// Reads the keys.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn read(&self) -> Result<KeySet, SourceError> {
        let document = match self {
            Self::Discovery { issuer, address, client } => {
                let document = fetch("the discovery document", client, address).await?;
                fetch("the key set", client, &keys_address(&document, issuer, address)?).await?
            }
            Self::Url { address, client } => fetch("the key set", client, address).await?,
            Self::File(path) => {
                read_file(path).await.map_err(|reason| SourceError::File { path: path.clone(), reason })?.into()
            }
        };
        if document.len() > DOCUMENT_MAX_BYTES {
            return Err(SourceError::Document("the key set is longer than 256 KiB"));
        }
        KeySet::parse(&document).map_err(SourceError::Document)
    }
}

/// The URL of an issuer's discovery document.
pub fn discovery(issuer: &str) -> String {
    format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'))
}

async fn fetch(what: &'static str, client: &Client, address: &Address) -> Result<bytes::Bytes, SourceError> {
    client.get(address).await.map_err(|reason| SourceError::Fetch { what, reason })
}

/// Reads one byte more than the limit, so that a longer file is detected.
async fn read_file(path: &PathBuf) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tokio::fs::File::open(path).await?.take(DOCUMENT_MAX_BYTES as u64 + 1).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// The URL of the keys in the discovery document, which was fetched from `from`. Only an issuer on this machine may name a
/// server without TLS, which is on this machine as well: another one could otherwise make this service send requests to local
/// programs.
fn keys_address(document: &[u8], issuer: &str, from: &Address) -> Result<Address, SourceError> {
    let members = json::object(document)
        .ok_or(SourceError::Document("the discovery document is not a JSON object, or has a duplicate member"))?;
    // Another issuer's document would name that issuer's keys (OpenID Connect Discovery, 4.3).
    if members.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err(SourceError::Document("the issuer in the discovery document is not AUTH_ISSUER"));
    }
    let address = members.get("jwks_uri").and_then(Value::as_str);
    address
        .and_then(|address| address.parse().ok())
        .filter(|address: &Address| address.is_https() || !from.is_https())
        .ok_or(SourceError::Document("jwks_uri in the discovery document is not an https URL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_issuer_on_this_machine_can_name_keys_without_tls() {
        let (distant, local) = ("https://id.example", "http://localhost:9000");
        let is_taken = |issuer: &str, keys: &str| {
            let document = serde_json::json!({"issuer": issuer, "jwks_uri": keys}).to_string();
            let from = discovery(issuer).parse().expect("a URL");
            keys_address(document.as_bytes(), issuer, &from).is_ok()
        };
        assert!(is_taken(distant, "https://keys.example/k"));
        assert!(!is_taken(distant, "http://localhost:9000/k"));
        assert!(!is_taken(distant, "http://127.0.0.1/k"));
        assert!(is_taken(local, "http://127.0.0.1:9000/k"));
        assert!(!is_taken(local, "http://id.example/k"));
    }
}
