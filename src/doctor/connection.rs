//! Why there is no session on PostgreSQL, and what to do about that one reason.
//!
//! Reasons are told apart by SQLSTATE, by the function of PostgreSQL that speaks (its messages are translated), and by the kind of an
//! I/O error. Passwords are never repeated.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::iter::successors;

use rustls::CertificateError;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::{DbError, SqlState};

use super::query::quoted;
use super::settings::Settings;
use crate::db::connect::ConnectError;
use crate::db::conninfo::ConnInfo;
use crate::db::migrate::{self, MigrateError};
use crate::db::error_chain::error_chain;

/// Where PostgreSQL refuses by pg_hba.conf (`src/backend/libpq/auth.c`), other than for a wrong password.
const BY_HBA: &str = "ClientAuthentication";
/// Where it looks at the role (`src/backend/utils/init/miscinit.c`) and at the database (`postinit.c`).
const BY_ROLE: &str = "InitializeSessionUserId";
const BY_DATABASE: &str = "CheckMyDatabase";

/// One reason, and what mends it.
pub struct Fault {
    /// In a sentence.
    pub what: String,
    /// The command or setting.
    pub mend: String,
}

/// Why nobody could connect: one reason for each host, where there are several.
pub async fn faults(error: &MigrateError, to: &ConnInfo, settings: &Settings) -> Vec<Fault> {
    let hosts = places(to);
    let mut faults = Vec::new();
    if hosts.len() > 1 {
        for (index, host) in hosts.iter().enumerate() {
            if let Err(error) = migrate::connect_to(to, index).await {
                let what = format!("{} ({host})", error_chain(&error));
                faults.push(Fault { what, mend: remedy(&error, to, settings, host).await });
            }
        }
    }
    if faults.is_empty() {
        // Also of several, when they are back meanwhile.
        let host = hosts.join(", ");
        let what = format!("{} ({host}, database {}, user {})", error_chain(error), database(to), user(to));
        faults.push(Fault { what, mend: remedy(error, to, settings, &host).await });
    }
    faults
}

/// Whether a server answered that is not of the kind that the settings ask for.
pub fn is_of_other_kind(error: &MigrateError) -> bool {
    cause::<ConnectError>(error).is_some_and(|error| matches!(error, ConnectError::WrongKind))
}

/// What mends one failure; `place` is the host that it is about.
async fn remedy(error: &MigrateError, to: &ConnInfo, settings: &Settings, place: &str) -> String {
    if let Some(said) = cause::<DbError>(error) {
        return if is_refused_for_want_of_tls(said, to).await {
            format!(
                "pg_hba.conf takes sessions with TLS alone: sslmode=require, or better verify-full, in {}",
                settings.tls
            )
        } else {
            of_answer(said, to, settings).unwrap_or_else(|| general(settings))
        };
    }
    if matches!(error, MigrateError::Silent) {
        return format!(
            "{place} takes connections and says nothing: look for a stopped or overloaded PostgreSQL, or a proxy without one behind it; \
             else correct {}",
            settings.place
        );
    }
    if let Some(kind) = cause::<ConnectError>(error).and_then(|error| of_kind(error, to, settings)) {
        return kind;
    }
    let is_socket = cause::<ConnectError>(error).is_some_and(|error| matches!(error, ConnectError::Socket(_)));
    if let Some(io) = cause::<io::Error>(error) {
        return match io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(refused) => of_certificate(refused, settings),
            None if is_socket => of_socket(io, to, settings, place),
            None => foreign(settings, place),
        };
    }
    of_driver(error, to, settings, place)
}

/// The first cause of this type.
fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    successors(Some(error), |&cause| cause.source()).find_map(|cause| cause.downcast_ref::<T>())
}

fn user(to: &ConnInfo) -> String {
    to.config.get_user().unwrap_or("pycrudapi").to_owned()
}

fn database(to: &ConnInfo) -> String {
    to.config.get_dbname().map_or_else(|| user(to), str::to_owned)
}

/// The hosts, as people write them.
fn places(to: &ConnInfo) -> Vec<String> {
    let ports = to.config.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    let hosts = to.config.get_hosts().iter().enumerate().map(|(index, host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port(index)),
        Host::Unix(folder) => format!("{}/.s.PGSQL.{}", folder.display(), port(index)),
    });
    let named: Vec<String> = hosts.collect();
    if named.is_empty() {
        let addresses = to.config.get_hostaddrs().iter().enumerate();
        return addresses.map(|(index, address)| format!("{address}:{}", port(index))).collect();
    }
    named
}

/// Whether the same session is not refused with TLS; asked where the settings forbid it.
async fn is_refused_for_want_of_tls(said: &DbError, to: &ConnInfo) -> bool {
    if said.routine() != Some(BY_HBA) || to.config.get_ssl_mode() != SslMode::Disable {
        return false;
    }
    let mut with_tls = to.clone();
    with_tls.config.ssl_mode(SslMode::Require);
    match migrate::connect(&with_tls).await {
        Ok(_) => true,
        Err(error) => cause::<DbError>(&error).is_some_and(|said| said.code() == &SqlState::INVALID_PASSWORD),
    }
}

/// PostgreSQL answers, and refuses.
fn of_answer(said: &DbError, to: &ConnInfo, settings: &Settings) -> Option<String> {
    let (user, database) = (user(to), database(to));
    let (role, base) = (quoted(&user), quoted(&database));
    let routine = said.routine().unwrap_or_default();
    Some(match said.code() {
        &SqlState::INVALID_PASSWORD => format!(
            "correct {}, or let an administrator set it: \\password {role} in psql; create role {role} login where there is none",
            if settings.password == settings.user {
                settings.password.clone()
            } else {
                format!("{} or {}", settings.password, settings.user)
            }
        ),
        &SqlState::INVALID_AUTHORIZATION_SPECIFICATION if routine == BY_ROLE => {
            format!("correct {}, or: alter role {role} login; (create role {role} login; where there is none)", settings.user)
        }
        &SqlState::INVALID_AUTHORIZATION_SPECIFICATION => format!(
            "add to pg_hba.conf on the server, before the line that refuses: host {base} {role} ADDRESS/32 scram-sha-256 (this \
             machine's address, as the sentence has it; `local` for a socket), then: select pg_reload_conf();"
        ),
        &SqlState::INVALID_CATALOG_NAME => {
            format!("correct {}, or let an administrator make it: create database {base} owner {role};", settings.database)
        }
        &SqlState::INSUFFICIENT_PRIVILEGE if routine == BY_DATABASE => format!("grant connect on database {base} to {role};"),
        &SqlState::TOO_MANY_CONNECTIONS if routine == BY_ROLE => {
            format!("alter role {role} connection limit -1; or lower POOL_SIZE of each server")
        }
        &SqlState::TOO_MANY_CONNECTIONS if routine == BY_DATABASE => {
            format!("alter database {base} connection limit -1; or lower POOL_SIZE of each server")
        }
        &SqlState::TOO_MANY_CONNECTIONS => {
            "see who holds them: select usename, application_name, state, count(*) from pg_stat_activity group by 1, 2, 3; then lower \
             POOL_SIZE of each server, or raise max_connections (alter system, then a restart of PostgreSQL)"
                .to_owned()
        }
        &SqlState::CANNOT_CONNECT_NOW => "it is starting, recovering or stopping: wait, and look again; if it stays so, see the end of \
             PostgreSQL's log (a standby takes sessions with hot_standby = on alone)"
            .to_owned(),
        &SqlState::ADMIN_SHUTDOWN | &SqlState::CRASH_SHUTDOWN => {
            "it is stopping, or a backend of it has crashed: see the end of PostgreSQL's log, and start it if it does not come back".to_owned()
        }
        &SqlState::READ_ONLY_SQL_TRANSACTION => super::writes::READ_ONLY_MEND.to_owned(),
        &SqlState::UNDEFINED_OBJECT | &SqlState::INVALID_PARAMETER_VALUE | &SqlState::CANT_CHANGE_RUNTIME_PARAM => {
            format!("correct or remove `options` in {}", settings.database)
        }
        &SqlState::PROTOCOL_VIOLATION => {
            format!("a pooler in front of PostgreSQL refuses: see its log and its list of databases and users, or correct {}", settings.place)
        }
        _ => return None,
    })
}

/// What target_session_attrs asks for is not there.
fn of_kind(error: &ConnectError, to: &ConnInfo, settings: &Settings) -> Option<String> {
    match error {
        ConnectError::WrongKind if to.config.get_target_session_attrs() == TargetSessionAttrs::ReadOnly => {
            Some(format!(
                "it takes changes: remove target_session_attrs=read-only from {0}, or name a standby in {0}",
                settings.place
            ))
        }
        ConnectError::WrongKind => Some(format!(
            "it is a standby or read-only: name all hosts of the cluster in {}, or promote one: select pg_promote();",
            settings.place
        )),
        ConnectError::Replaced => Some(
            "stop this old primary (pg_ctl stop -m immediate), and make it a standby of the new one: pg_rewind"
                .to_owned(),
        ),
        ConnectError::Silent | ConnectError::Unreachable | ConnectError::Socket(_) | ConnectError::Postgres(_) => None,
    }
}

/// No connection at all.
fn of_socket(io: &io::Error, to: &ConnInfo, settings: &Settings, place: &str) -> String {
    let Settings { place: setting, .. } = settings;
    let is_file = to.config.get_hosts().iter().any(|host| matches!(host, Host::Unix(_)));
    match io.kind() {
        ErrorKind::ConnectionRefused if is_file => {
            format!(
                "a PostgreSQL that was killed has left this socket: start it (systemctl start postgresql), or correct {setting}"
            )
        }
        ErrorKind::ConnectionRefused => format!(
            "nobody listens on {place}: start PostgreSQL there (systemctl start postgresql), see that its listen_addresses and port are \
             these, or correct {setting}"
        ),
        ErrorKind::NotFound if is_file => format!(
            "there is no such socket: start PostgreSQL, or name the directory in its unix_socket_directories and its port in {setting}"
        ),
        ErrorKind::PermissionDenied if is_file => {
            format!(
                "let this user enter the directory and write to the socket (unix_socket_permissions), or correct {setting}"
            )
        }
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => format!(
            "no way leads to {place}: see that the machine is up, and firewalls, network policies and routes between here and there, or \
             correct {setting}"
        ),
        ErrorKind::InvalidInput => format!("name as many hostaddr as host in {setting}"),
        // Nothing but the look-up of a name fails without a number of the system's.
        _ if io.raw_os_error().is_none() => {
            format!(
                "the name is not known here: getent hosts {}; see the machine's DNS, or correct {setting}",
                host_of(place)
            )
        }
        _ => format!("see the network between here and {place}, or correct {setting}"),
    }
}

fn host_of(place: &str) -> &str {
    place.rsplit_once(':').map_or(place, |(host, _)| host)
}

/// PostgreSQL's certificate is not accepted, or ours was not.
fn of_certificate(refused: &rustls::Error, settings: &Settings) -> String {
    let tls = &settings.tls;
    match refused {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!("name the authority that has signed PostgreSQL's certificate: sslrootcert=/path/to/ca.pem in {tls}")
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!(
            "connect by a name that is in PostgreSQL's certificate ({}), or have one made for this name; sslmode=verify-ca in {tls} \
             checks no name",
            settings.place
        ),
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "renew PostgreSQL's certificate (ssl_cert_file), then: select pg_reload_conf();".to_owned()
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "set the clocks of both machines (timedatectl set-ntp true), or have the certificate made anew".to_owned(),
        rustls::Error::InvalidCertificate(_) => {
            format!("have PostgreSQL's certificate (ssl_cert_file) made anew, or correct sslrootcert in {tls}")
        }
        _ => format!(
            "see PostgreSQL's log, its ssl_min_protocol_version (TLS 1.2 or 1.3) and ssl_ciphers, or correct {tls}"
        ),
    }
}

/// The driver gives up by itself. It tells the kind in its text alone, which a test holds.
fn of_driver(error: &MigrateError, to: &ConnInfo, settings: &Settings, place: &str) -> String {
    let Some(driver) = cause::<tokio_postgres::Error>(error) else { return general(settings) };
    let text = driver.to_string();
    if text.starts_with("error performing TLS handshake") {
        return format!(
            "PostgreSQL offers no TLS: ssl = on, ssl_cert_file and ssl_key_file on the server; or, where nobody else is on the network \
             between, sslmode=disable in {}",
            settings.tls
        );
    }
    if text.starts_with("invalid configuration") && to.config.get_password().is_none_or(<[u8]>::is_empty) {
        return format!("PostgreSQL asks for a password: set it in {}", settings.password);
    }
    if text.starts_with("authentication error") {
        return "let pg_hba.conf ask this role for scram-sha-256, then: select pg_reload_conf(); neither GSSAPI, SSPI nor a certificate of \
                a client is known here"
            .to_owned();
    }
    foreign(settings, place)
}

fn foreign(settings: &Settings, place: &str) -> String {
    format!(
        "what answers on {place} ends the connection or is no PostgreSQL: see its log and that of a proxy before it, or correct {}",
        settings.place
    )
}

fn general(settings: &Settings) -> String {
    format!("see PostgreSQL's log, or correct {}", settings.place)
}
