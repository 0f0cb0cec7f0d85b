//! Where the issuer's keys come from: its discovery document, the address of its key set, or a file.

use std::path::PathBuf;

use serde_json::Value;
use thiserror::Error;
use tokio::io::AsyncReadExt;

use super::fetch::{Address, Client, DOCUMENT_MAX_BYTES, FetchError};
use super::json;
use super::key_set::KeySet;

/// What stands behind the issuer's name in the address of its discovery document (OpenID Connect Discovery, 4).
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Where the keys are.
#[derive(Clone)]
pub enum Source {
    /// Where the issuer's discovery document says; it is asked anew each time.
    Discovery {
        /// As it must stand in the document.
        issuer: String,
        /// The document's address.
        address: Address,
        /// Who fetches it and the keys.
        client: Client,
    },
    /// At an address.
    Url {
        /// The key set's address.
        address: Address,
        /// Who fetches it.
        client: Client,
    },
    /// In a file.
    File(PathBuf),
}

/// Why the keys could not be read. The texts are for the log.
#[derive(Debug, Error)]
pub enum SourceError {
    /// A document could not be fetched.
    #[error("cannot fetch {what}")]
    Fetch {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        reason: FetchError,
    },
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        reason: std::io::Error,
    },
    /// A document is not what it should be.
    #[error("{0}")]
    Document(&'static str),
}

impl Source {
    /// The discovery document of an issuer.
    ///
    /// # Errors
    /// A sentence, when the issuer's name is no address.
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
                fetch("the key set", client, &keys_address(&document, issuer)?).await?
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

/// The address of an issuer's discovery document.
pub fn discovery(issuer: &str) -> String {
    format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'))
}

async fn fetch(what: &'static str, client: &Client, address: &Address) -> Result<bytes::Bytes, SourceError> {
    client.get(address).await.map_err(|reason| SourceError::Fetch { what, reason })
}

/// One byte more than is taken, so that a longer file shows.
async fn read_file(path: &PathBuf) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tokio::fs::File::open(path).await?.take(DOCUMENT_MAX_BYTES as u64 + 1).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// Where the discovery document says that the keys are.
fn keys_address(document: &[u8], issuer: &str) -> Result<Address, SourceError> {
    let members = json::object(document)
        .ok_or(SourceError::Document("the discovery document is not a JSON object, or has a member twice"))?;
    // A document of somebody else would name the keys of somebody else (OpenID Connect Discovery, 4.3).
    if members.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err(SourceError::Document("the discovery document is of another issuer than AUTH_ISSUER"));
    }
    let address = members.get("jwks_uri").and_then(Value::as_str);
    address
        .and_then(|address| address.parse().ok())
        .ok_or(SourceError::Document("jwks_uri in the discovery document is not an https URL"))
}
