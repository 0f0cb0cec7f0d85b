//! Settings of the bucket for backups, with the variable names of the AWS tools.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::values::{Secret, secret, secret_in};
use crate::backup::bucket::{Access, Address, Bucket, Store};
use crate::backup::folder::Folder;
use crate::backup::repository::Repository;
use crate::db::tls::client_config;
use crate::masked::masked;

/// The bucket's store and its credentials; not used if backups are in a directory.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Bucket")]
pub struct BucketConfig {
    /// URL of an S3-compatible store, such as `https://s3.example.com`; Amazon's by default.
    #[arg(long, env, hide_env_values = true)]
    pub aws_endpoint_url: Option<String>,

    /// Region of the bucket.
    #[arg(long, env, default_value = "us-east-1", hide_env_values = true)]
    pub aws_region: String,

    /// Access key id for the bucket.
    #[arg(long, env, hide_env_values = true)]
    pub aws_access_key_id: Option<String>,

    /// Secret access key; on the command line it is visible to every user of the machine: prefer the variable or the file.
    #[arg(long, env, hide_env_values = true, value_parser = secret)]
    pub aws_secret_access_key: Option<Secret>,

    /// File with AWS_SECRET_ACCESS_KEY, such as a mounted secret.
    #[arg(long, env, hide_env_values = true)]
    pub aws_secret_access_key_file: Option<PathBuf>,

    /// Session token of temporary credentials.
    #[arg(long, env, hide_env_values = true, value_parser = secret)]
    pub aws_session_token: Option<Secret>,

    /// File with the CA certificates (PEM) for the store's certificate, instead of the system's.
    #[arg(long, env, hide_env_values = true)]
    pub aws_ca_bundle: Option<PathBuf>,
}

impl BucketConfig {
    /// The bucket that a text refers to; none if it is a directory.
    ///
    /// # Errors
    /// If a setting is missing or invalid.
    pub fn bucket(&self, text: &str) -> anyhow::Result<Option<Bucket>> {
        let Some(address) = Address::parse(text)? else { return Ok(None) };
        let secret = match (&self.aws_secret_access_key_file, &self.aws_secret_access_key) {
            (Some(path), _) => Some(secret_in("AWS_SECRET_ACCESS_KEY_FILE", path, "AWS_SECRET_ACCESS_KEY")?),
            (None, secret) => secret.as_ref().map(|secret| secret.reveal().to_owned()),
        };
        let (Some(key_id), Some(secret)) = (self.aws_access_key_id.clone(), secret) else {
            bail!(
                "{} requires credentials: set AWS_ACCESS_KEY_ID, and AWS_SECRET_ACCESS_KEY or AWS_SECRET_ACCESS_KEY_FILE",
                masked(text)
            );
        };
        let session = self.aws_session_token.as_ref().map(|token| token.reveal().to_owned());
        let access = Access { key_id, secret, session };
        let endpoint = self.aws_endpoint_url.as_deref();
        let tls = match endpoint {
            Some(endpoint) if endpoint.starts_with("http://") => None,
            _ => Some(
                client_config(self.aws_ca_bundle.as_deref()).context("cannot load CA certificates (AWS_CA_BUNDLE)")?,
            ),
        };
        Ok(Some(Bucket::new(Store::new(&address.bucket, endpoint, &self.aws_region, access, tls)?, address)))
    }

    /// The location of backups to read.
    ///
    /// # Errors
    /// If the directory does not exist, or a setting is missing.
    pub fn repository(&self, text: &str) -> anyhow::Result<Repository> {
        Ok(match self.bucket(text)? {
            Some(bucket) => Repository::Bucket(Box::new(bucket)),
            None => Repository::Folder(Folder::open(Path::new(text))?),
        })
    }
}
