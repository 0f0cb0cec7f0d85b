//! Settings of the bucket that backups are in, by the names that every tool of Amazon's and of others reads.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::values::{Secret, secret, secret_in};
use crate::backup::bucket::{Access, Address, Bucket, Store};
use crate::backup::folder::Folder;
use crate::backup::place::Place;
use crate::db::tls::client_config;
use crate::masked::masked;

/// The bucket's store and the key to it; where backups are in a folder, none of them is looked at.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Bucket")]
pub struct BucketConfig {
    /// URL of a store that speaks S3, such as `https://s3.example.com`; Amazon's without it.
    #[arg(long, env, hide_env_values = true)]
    pub aws_endpoint_url: Option<String>,

    /// Region of the bucket.
    #[arg(long, env, default_value = "us-east-1", hide_env_values = true)]
    pub aws_region: String,

    /// Id of the key to the bucket.
    #[arg(long, env, hide_env_values = true)]
    pub aws_access_key_id: Option<String>,

    /// The key's secret; on the command line every user of the machine sees it: prefer the variable or the file.
    #[arg(long, env, hide_env_values = true, value_parser = secret)]
    pub aws_secret_access_key: Option<Secret>,

    /// File that holds AWS_SECRET_ACCESS_KEY, such as a mounted secret.
    #[arg(long, env, hide_env_values = true)]
    pub aws_secret_access_key_file: Option<PathBuf>,

    /// Token of a key that is lent for some hours.
    #[arg(long, env, hide_env_values = true, value_parser = secret)]
    pub aws_session_token: Option<Secret>,

    /// File with the certificates (PEM) of the authorities that the store's certificate is signed by, instead of the system's.
    #[arg(long, env, hide_env_values = true)]
    pub aws_ca_bundle: Option<PathBuf>,
}

impl BucketConfig {
    /// The bucket that a text names; none when it names a folder.
    ///
    /// # Errors
    /// When a setting is missing or wrong.
    pub fn bucket(&self, text: &str) -> anyhow::Result<Option<Bucket>> {
        let Some(address) = Address::parse(text)? else { return Ok(None) };
        let secret = match (&self.aws_secret_access_key_file, &self.aws_secret_access_key) {
            (Some(path), _) => Some(secret_in("AWS_SECRET_ACCESS_KEY_FILE", path, "AWS_SECRET_ACCESS_KEY")?),
            (None, secret) => secret.as_ref().map(|secret| secret.reveal().to_owned()),
        };
        let (Some(key_id), Some(secret)) = (self.aws_access_key_id.clone(), secret) else {
            bail!(
                "{} takes a key: set AWS_ACCESS_KEY_ID, and AWS_SECRET_ACCESS_KEY or AWS_SECRET_ACCESS_KEY_FILE",
                masked(text)
            );
        };
        let session = self.aws_session_token.as_ref().map(|token| token.reveal().to_owned());
        let access = Access { key_id, secret, session };
        let endpoint = self.aws_endpoint_url.as_deref();
        let tls = match endpoint {
            Some(endpoint) if endpoint.starts_with("http://") => None,
            _ => Some(client_config(self.aws_ca_bundle.as_deref()).context("no authority is trusted (AWS_CA_BUNDLE)")?),
        };
        Ok(Some(Bucket::new(Store::new(&address.bucket, endpoint, &self.aws_region, access, tls)?, address)))
    }

    /// Where backups are read from.
    ///
    /// # Errors
    /// When there is no such folder, or a setting is missing.
    pub fn place(&self, text: &str) -> anyhow::Result<Place> {
        Ok(match self.bucket(text)? {
            Some(bucket) => Place::Bucket(Box::new(bucket)),
            None => Place::Folder(Folder::open(Path::new(text))?),
        })
    }
}
