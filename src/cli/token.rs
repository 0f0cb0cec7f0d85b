//! `pycrudapi token`: tokens of the API are made, listed, rotated and revoked, beside a running server or without one.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand};
use tokio_postgres::Client;
use uuid::Uuid;

use super::TRANSFER_THREADS;
use super::database::{Use, expect_database, with_database};
use super::output::{say, table};
use crate::auth::scope::Scopes;
use crate::auth::tokens::format::ApiToken;
use crate::auth::tokens::store::{self, Listed};
use crate::auth::tokens::{self, LIFETIME_DEFAULT, NAME_MAX_CHARS, TokenSpec, lifetime};
use crate::config::{DatabaseConfig, ResourcesConfig, unknown_resource};
use crate::db::migrate;
use crate::duration::span;
use crate::resource::registry::Resources;

/// What is done with tokens.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a token and write it to standard output: once, it is stored nowhere.
    Create(Create),
    /// List all tokens: what they are called and allow, never themselves.
    List(At),
    /// Refuse a token from now on; every server does within a second.
    Revoke {
        /// The id of the token, as the list has it.
        #[arg(value_parser = read_id)]
        id: Uuid,
        #[command(flatten)]
        at: At,
    },
    /// Make another token in the place of one: the same name, scopes and lifetime.
    Rotate {
        /// The id of the token, as the list has it.
        #[arg(value_parser = read_id)]
        id: Uuid,
        /// How long the old token can still be used (1s to 720h): a number with s, m or h; it is revoked
        /// at once without.
        #[arg(long, value_parser = span::<720>)]
        overlap: Option<Duration>,
        #[command(flatten)]
        at: At,
    },
}

/// A token to be made.
#[derive(Debug, Args)]
pub struct Create {
    /// What people call it, such as the program that it is for.
    #[arg(long, value_parser = name)]
    name: String,
    /// What it allows, separated by commas: `passengers:read`, `steps:*`, `*:read`, `admin`.
    #[arg(long)]
    scope: Scopes,
    /// How long it can be used: a number with s, m, h or d, or never for no end.
    #[arg(long, default_value = LIFETIME_DEFAULT, value_parser = read_lifetime)]
    expires: Lifetime,
    #[command(flatten)]
    at: At,
}

/// Where the tokens are.
#[derive(Debug, Args)]
pub struct At {
    #[command(flatten)]
    resources: ResourcesConfig,
    #[command(flatten)]
    database: DatabaseConfig,
}

/// How long a token lives; for good without a time.
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

/// Does it.
///
/// # Errors
/// When the database cannot be used, or there is no such token.
pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(create) => {
            let Create { name, scope, expires, at } = create;
            let wanted = TokenSpec { name: name.clone(), scopes: scope.clone(), lifetime: expires.0 };
            at.run(async move |client, resources| {
                if wanted.scopes.is_empty() {
                    bail!("--scope names no scope; name one, such as passengers:read");
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
            table(&rows);
            Ok(())
        }),
        Command::Revoke { id, at } => at.run(async move |client, _| {
            let revoked = store::revoke(client, *id, None).await?.ok_or_else(|| missing(*id))?;
            say(&format!("revoked {}, {}", revoked.name, revoked.id));
            Ok(())
        }),
        Command::Rotate { id, overlap, at } => at.run(async move |client, _| {
            let rotated = tokens::rotate(client, *id, overlap.unwrap_or_default(), None).await?;
            let (token, listed) = rotated.ok_or_else(|| {
                anyhow!("no token that can be used has the id {id}; `pycrudapi token list` lists all")
            })?;
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
    text.parse().map_err(|_| "expected the id of a token, a uuid; `pycrudapi token list` lists them")
}

fn missing(id: Uuid) -> anyhow::Error {
    anyhow!("no token has the id {id}; `pycrudapi token list` lists all")
}

/// The token alone on standard output, for a program; what a person wants to know of it beside.
fn show(token: &ApiToken, listed: &Listed) {
    let ends = listed.expires_at.map_or("never expires".to_owned(), |end| format!("expires {end:.0}"));
    eprintln!(
        "token {}, id {}, scopes {}, {ends}; it is shown this once: keep it where secrets are kept",
        listed.name, listed.id, listed.scopes
    );
    say(token.reveal());
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
