//! Access tokens of an identity provider: which are accepted, which are refused, and how its keys are cached.

mod clocks;
mod good;
mod hostile;
mod hostile_tokens;
mod http;
mod key_server;
mod refresh;
mod settings;
mod signer;
mod tls;

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pycrudapi::auth::issuer::fetch::Client;
use pycrudapi::auth::issuer::keys::Pace;
use pycrudapi::auth::issuer::rules::{Rules, TokenType};
use pycrudapi::auth::issuer::scope_claim::ScopeRules;
use pycrudapi::auth::issuer::source::Source;
use pycrudapi::auth::issuer::{Issuer, Options};
use pycrudapi::shutdown::{self, Trigger};
use serde_json::{Value, json};

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "https://api.example";
const LEEWAY: Duration = Duration::from_secs(30);
/// The current time of all tests that depend on the clock, in seconds since 1970: the start of the run, so that a running
/// server agrees.
static NOW: LazyLock<u64> =
    LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs());

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(*NOW)
}

/// The claims of a valid token.
fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": *NOW + 3600, "iat": *NOW - 10, "nbf": *NOW - 10,
        "client_id": "shop", "jti": "1", "scope": "openid passengers:read steps:create",
    })
}

/// The valid claims with one of them changed.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").shift_remove(name).expect("it was there");
    claims
}

fn options(source: Source) -> Options {
    Options {
        rules: Rules {
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            leeway: LEEWAY,
            token_type: TokenType::AccessToken,
        },
        scopes: ScopeRules::default(),
        source,
        pace: Pace { refresh: Duration::from_secs(3600), pause: Duration::from_secs(3600) },
    }
}

/// Keys at an address, fetched over plain HTTP.
fn at(url: &str) -> Source {
    let client = Client::new(None).expect("no file to read");
    Source::Url { address: url.parse().expect("an address"), client }
}

/// An issuer whose keys are refreshed until the trigger is dropped.
struct Running {
    issuer: Issuer,
    _trigger: Trigger,
}

impl std::ops::Deref for Running {
    type Target = Issuer;

    fn deref(&self) -> &Issuer {
        &self.issuer
    }
}

fn start(options: Options) -> Running {
    let (trigger, shutdown) = shutdown::channel();
    Running { issuer: Issuer::start(options, shutdown), _trigger: trigger }
}

/// An issuer whose key set is this text, in a file.
fn with_document(document: &str, change: impl FnOnce(&mut Options)) -> (Running, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), document).expect("written");
    let mut options = options(Source::File(file.path().to_owned()));
    change(&mut options);
    (start(options), file)
}
