//! `pycrudapi token`: creates, lists, rotates and revokes API tokens, whether or not the server is running.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand};
use tokio_postgres::Client;
use uuid::Uuid;

use super::TRANSFER_THREADS;
use super::database::{Use, expect_database, with_database};
use super::output::{print_line, print_table};
use crate::auth::scope::Scopes;
use crate::auth::tokens::format::ApiToken;
use crate::auth::tokens::store::{self, Listed};
use crate::auth::tokens::{self, LIFETIME_DEFAULT, NAME_MAX_CHARS, TokenSpec, lifetime};
use crate::config::{DatabaseConfig, ResourcesConfig, unknown_resource};
use crate::db::migrate;
use crate::duration::span;
use crate::resource::registry::Resources;

/// Actions on tokens.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a token and print it to standard output, once: it is not stored.
    Create(Create),
    /// List all tokens with their names and scopes, but not their values.
    List(At),
    /// Revoke a token; every server rejects it within a second.
    Revoke {
        /// The id of the token, as in the list.
        #[arg(value_parser = read_id)]
        id: Uuid,
        #[command(flatten)]
        at: At,
    },
    /// Create a token that replaces another: with the same name, scopes and lifetime.
    Rotate {
        /// The id of the token, as in the list.
        #[arg(value_parser = read_id)]
        id: Uuid,
        /// How long the old token remains valid (1s to 720h): a number with s, m or h; by default it is revoked at once.
        #[arg(long, value_parser = span::<720>)]
        overlap: Option<Duration>,
        #[command(flatten)]
        at: At,
    },
}

/// A token to create.
#[derive(Debug, Args)]
pub struct Create {
    /// A name for people, such as the program that uses it.
    #[arg(long, value_parser = name)]
    name: String,
    /// The scopes, separated by commas: `passengers:read`, `steps:*`, `*:read`, `admin`.
    #[arg(long)]
    scope: Scopes,
    /// The lifetime: a number with s, m, h or d, or never.
    #[arg(long, default_value = LIFETIME_DEFAULT, value_parser = read_lifetime)]
    expires: Lifetime,
    #[command(flatten)]
    at: At,
}

/// The database of the tokens.
#[derive(Debug, Args)]
pub struct At {
    #[command(flatten)]
    resources: ResourcesConfig,
    #[command(flatten)]
    database: DatabaseConfig,
}

/// Lifetime of a token; unlimited if there is none.
#[derive(Debug, Clone, Copy)]
struct Lifetime(Option<Duration>);

fn read_lifetime(text: &str) -> Result<Lifetime, String> {
    lifetime(text).map(Lifetime)
}

fn name(text: &str) -> Result<String, String> {
    if tokens::is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("expected 1 to {NAME_MAX_CHARS} characters, none a control or direction character"))
    }
}

/// Runs the action.
///
/// # Errors
/// If the database cannot be used, or the token does not exist.
pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(create) => {
            let Create { name, scope, expires, at } = create;
            let wanted = TokenSpec { name: name.clone(), scopes: scope.clone(), lifetime: expires.0 };
            at.run(async move |client, resources| {
                if wanted.scopes.is_empty() {
                    bail!("--scope is empty; specify at least one scope, such as passengers:read");
                }
                if let Some(reason) = unknown_resource(&wanted.scopes, resources) {
                    bail!("--scope {}: {reason}", wanted.scopes);
                }
                let (token, listed) = tokens::create(client, &wanted, None).await?;
                show(&token, &listed);
                Ok(())
            })
        }
        Command::List(at) => at.run(async |client, _| {
            let mut rows = vec![["id", "name", "scopes", "state", "expires", "last used", "uses"].map(str::to_owned)];
            rows.extend(store::list(client).await?.iter().map(row));
            print_table(&rows);
            Ok(())
        }),
        Command::Revoke { id, at } => at.run(async move |client, _| {
            let revoked = store::revoke(client, *id, None).await?.ok_or_else(|| missing(*id))?;
            print_line(&format!("revoked {}, {}", revoked.name, revoked.id));
            Ok(())
        }),
        Command::Rotate { id, overlap, at } => at.run(async move |client, _| {
            let rotated = tokens::rotate(client, *id, overlap.unwrap_or_default(), None).await?;
            let (token, listed) =
                rotated.ok_or_else(|| anyhow!("no valid token has the id {id}; `pycrudapi token list` lists all"))?;
            show(&token, &listed);
            Ok(())
        }),
    }
}

impl At {
    fn run(&self, work: impl AsyncFnOnce(&mut Client, Resources) -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
        let resources = self.resources.load()?;
        expect_database(&self.database)?;
        with_database(&self.database, Use::Shared, TRANSFER_THREADS, |conninfo| async move {
            let (_, mut client) = migrate::prepare(&conninfo, &resources, || ()).await?;
            work(&mut client, resources).await
        })
    }
}

fn read_id(text: &str) -> Result<Uuid, &'static str> {
    text.parse().map_err(|_| "expected the id of a token, a UUID; `pycrudapi token list` lists them")
}

fn missing(id: Uuid) -> anyhow::Error {
    anyhow!("no token has the id {id}; `pycrudapi token list` lists all")
}

/// Prints only the token to standard output, for programs, and its details to standard error.
fn show(token: &ApiToken, listed: &Listed) {
    let ends = listed.expires_at.map_or("never expires".to_owned(), |end| format!("expires {end:.0}"));
    eprintln!(
        "token {}, id {}, scopes {}, {ends}; the token is shown only once: store it as a secret",
        listed.name, listed.id, listed.scopes
    );
    print_line(token.reveal());
}

fn row(token: &Listed) -> [String; 7] {
    let time = |at: Option<jiff::Timestamp>| at.map_or("never".to_owned(), |at| format!("{at:.0}"));
    [
        token.id.to_string(),
        token.name.clone(),
        token.scopes.clone(),
        token.state().name().to_owned(),
        time(token.expires_at),
        time(token.last_used_at),
        token.uses.to_string(),
    ]
}
