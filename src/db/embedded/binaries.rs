//! Finding the PostgreSQL server binaries on this machine.
//!
//! Refuses to download or to guess a version: each candidate is asked for its own. Invariant: what is
//! returned holds `postgres` and `initdb` of one version, and the account can reach them.

use std::cmp::Reverse;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::account::Account;
use super::error::{EmbeddedError, OLDEST_MAJOR};

/// Where packages put server binaries outside of PATH: a directory, how the names in it begin
/// that have a `bin` with them.
const PACKAGED: [(&str, &str); 8] = [
    ("/usr/lib/postgresql", ""),                      // Debian, Ubuntu
    ("/usr", "pgsql-"),                               // postgresql.org's RPMs
    ("/usr/lib", "postgresql"),                       // openSUSE
    ("/usr/libexec", "postgresql"),                   // Alpine
    ("/opt/homebrew/opt", "postgresql"),              // Homebrew on Apple silicon
    ("/usr/local/opt", "postgresql"),                 // Homebrew on Intel
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql"), // Homebrew on Linux
    ("/Applications/Postgres.app/Contents/Versions", ""),
];

/// Package managers: how to recognise one, what installs a server, and what the server of one
/// major version if it has those.
const INSTALLERS: [(&str, &str, Option<&str>); 6] = [
    ("/usr/bin/apt-get", "apt-get install -y postgresql", Some("-")),
    ("/usr/bin/dnf", "dnf install -y postgresql-server", None),
    ("/usr/bin/zypper", "zypper install -y postgresql-server", None),
    ("/sbin/apk", "apk add postgresql", None),
    ("/usr/bin/pacman", "pacman -S --noconfirm postgresql", None),
    ("/opt/homebrew/bin/brew", "brew install postgresql", Some("@")),
];

/// A release such as 15.14; a beta counts as minor 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub major: u32,
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)
    }
}

/// A directory that holds the binaries of one version.
#[derive(Clone, Debug)]
pub(super) struct Binaries {
    pub dir: PathBuf,
    pub version: Version,
}

/// Where to look, and for whom.
pub(super) struct Sources<'a> {
    pub pg_bin: Option<&'a Path>,
    pub search_path: Option<&'a OsStr>,
    pub account: Option<Account>,
}

/// The newest binaries, or those of the major version a cluster already has.
pub(super) fn find(sources: &Sources<'_>, data: &Path, major: Option<u32>) -> Result<Binaries, EmbeddedError> {
    let all = all(sources);
    match (newest(&all, major).cloned(), major, sources.pg_bin) {
        (Some(found), _, _) => Ok(found),
        (None, Some(major), _) => {
            let (data, install) = (data.to_path_buf(), install_command(Some(major)));
            match all.first() {
                Some(newer) if newer.version.major > major => {
                    Err(EmbeddedError::OldCluster { data, major, newest: newer.version.major, install })
                }
                _ => Err(EmbeddedError::NoBinariesFor { data, major, install }),
            }
        }
        (None, None, Some(dir)) => Err(EmbeddedError::WrongPgBin { dir: dir.to_path_buf() }),
        (None, None, None) => Err(EmbeddedError::NoBinaries { install: install_command(None) }),
    }
}

/// The same, or none.
pub(super) fn newest_of(sources: &Sources<'_>, major: Option<u32>) -> Option<Binaries> {
    newest(&all(sources), major).cloned()
}

/// All that there are, the newest first.
pub(super) fn all(sources: &Sources<'_>) -> Vec<Binaries> {
    let dirs = match sources.pg_bin {
        Some(dir) => vec![dir.to_path_buf()],
        None => candidates(sources.search_path, &PACKAGED),
    };
    usable(&dirs, sources.account)
}

fn newest(all: &[Binaries], major: Option<u32>) -> Option<&Binaries> {
    all.iter().find(|candidate| major.is_none_or(|major| candidate.version.major == major))
}

/// PATH, then the directory `pg_config` names, then the packages'.
fn candidates(search_path: Option<&OsStr>, packaged: &[(&str, &str)]) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = search_path.map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
    let asked: Vec<PathBuf> = dirs.iter().filter_map(|dir| bin_dir_of(&dir.join("pg_config"))).collect();
    dirs.extend(asked);
    for (parent, prefix) in packaged {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                dirs.push(entry.path().join("bin"));
            }
        }
    }
    dirs
}

fn bin_dir_of(pg_config: &Path) -> Option<PathBuf> {
    let printed = ask(pg_config, "--bindir")?;
    Some(PathBuf::from(printed.trim()))
}

/// Among equals the first wins, so PATH goes before the packages' directories.
fn usable(dirs: &[PathBuf], account: Option<Account>) -> Vec<Binaries> {
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for dir in dirs.iter().filter_map(|dir| real_dir(dir)) {
        if seen.contains(&dir) || account.is_some_and(|account| account.first_closed(&dir).is_some()) {
            continue;
        }
        if let Some(version) = version_of(&dir.join("postgres")) {
            found.push(Binaries { dir: dir.clone(), version });
        }
        seen.push(dir);
    }
    found.retain(|candidate| candidate.version.major >= OLDEST_MAJOR);
    found.sort_by_key(|candidate| Reverse(candidate.version));
    found
}

/// Follows links of the program, not of its directory: /usr/local/bin may link a single one out
/// of a directory that holds them all.
fn real_dir(dir: &Path) -> Option<PathBuf> {
    let program = fs::canonicalize(dir.join("postgres")).ok()?;
    let dir = program.parent()?.to_path_buf();
    (dir.join("postgres").is_file() && dir.join("initdb").is_file()).then_some(dir)
}

fn version_of(postgres: &Path) -> Option<Version> {
    parse_version(&ask(postgres, "--version")?)
}

/// Reads `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)` and `… 18beta1`.
fn parse_version(printed: &str) -> Option<Version> {
    let text = printed.split(" (PostgreSQL) ").nth(1)?;
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let major = numbers.next()?.ok()?;
    let minor =
        if text.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('.') { numbers.next()?.ok()? } else { 0 };
    Some(Version { major, minor })
}

fn ask(program: &Path, question: &str) -> Option<String> {
    let answer = Command::new(program).arg(question).env("LC_ALL", "C").stdin(Stdio::null()).output().ok()?;
    answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).into_owned())
}

/// The one command that installs a server here, of the given major version if there is a choice.
pub(super) fn install_command(major: Option<u32>) -> String {
    let sudo = if rustix::process::geteuid().is_root() { "" } else { "sudo " };
    for (sign, command, versioned) in INSTALLERS {
        if Path::new(sign).exists() {
            let sudo = if sign.ends_with("brew") { "" } else { sudo };
            let version = match (versioned, major) {
                (Some(separator), Some(major)) => format!("{separator}{major}"),
                _ => String::new(),
            };
            return format!("{sudo}{command}{version}");
        }
    }
    "brew install postgresql".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A program that prints a line. It is written by a process of its own: what any process has open for writing cannot be
    /// started (ETXTBSY), and the processes that other tests start inherit what is open here.
    fn program_that_says(path: &Path, line: &str) {
        let script = "printf '#!/bin/sh\\necho \"%s\"\\n' \"$2\" >\"$1\" && chmod 755 \"$1\"";
        let mut shell = Command::new("sh");
        let written = shell.args(["-c", script, "sh"]).arg(path).arg(line).status().expect("a shell");
        assert!(written.success());
    }

    /// A directory with programs that know nothing but their version.
    fn installed(root: &Path, name: &str, version: &str) -> PathBuf {
        let dir = root.join(name);
        fs::create_dir(&dir).expect("mkdir");
        for program in ["postgres", "initdb"] {
            program_that_says(&dir.join(program), &format!("{program} (PostgreSQL) {version}"));
        }
        fs::canonicalize(dir).expect("canonical")
    }

    #[test]
    fn a_version_is_read_as_every_packager_prints_it() {
        let version = |text| parse_version(text).map(|version| version.to_string());
        assert_eq!(version("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n").as_deref(), Some("15.14"));
        assert_eq!(version("postgres (PostgreSQL) 18beta1\n").as_deref(), Some("18.0"));
        assert_eq!(version("postgres (PostgreSQL) 9.6.24").as_deref(), Some("9.6"));
        assert_eq!(version("cockroach 23.1"), None);
    }

    #[test]
    fn the_newest_is_taken_and_a_cluster_gets_its_own() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let dirs: Vec<PathBuf> = [("a", "15.9"), ("b", "17.2"), ("c", "15.10"), ("d", "9.6.24")]
            .map(|(name, version)| installed(root.path(), name, version))
            .into();
        let all = usable(&dirs, None);
        let taken = |major| newest(&all, major).map(|found| found.dir.clone());
        assert_eq!(taken(None).as_ref(), Some(&dirs[1]));
        assert_eq!(taken(Some(15)).as_ref(), Some(&dirs[2]));
        assert_eq!(taken(Some(16)), None);
        assert_eq!(taken(Some(9)), None, "too old to be supported");
    }

    #[test]
    fn a_link_to_one_program_leads_to_the_directory_that_holds_all() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let real = installed(root.path(), "real", "17.0");
        let bin = root.path().join("bin");
        fs::create_dir(&bin).expect("mkdir");
        symlink(real.join("postgres"), bin.join("postgres")).expect("symlink");
        assert_eq!(usable(&[bin], None).first().map(|found| &found.dir), Some(&real));
    }

    #[test]
    fn binaries_the_account_cannot_reach_are_passed_over() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let dir = installed(root.path(), "private", "17.0");
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).expect("chmod");
        let stranger = Account { uid: 4242, gid: 4242 };
        assert!(usable(std::slice::from_ref(&dir), Some(stranger)).is_empty());
        assert_eq!(usable(&[dir], None).len(), 1);
    }

    #[test]
    fn path_pg_config_and_the_packages_are_all_asked() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let tools = root.path().join("tools");
        fs::create_dir_all(root.path().join("packages/pgsql-17")).expect("mkdir");
        fs::create_dir(&tools).expect("mkdir");
        program_that_says(&tools.join("pg_config"), "/told/by/pg_config");
        let packages = root.path().join("packages");
        let dirs = candidates(Some(tools.as_os_str()), &[(packages.to_str().expect("utf-8"), "pgsql-")]);
        assert_eq!(dirs, [tools, PathBuf::from("/told/by/pg_config"), packages.join("pgsql-17/bin")]);
    }
}
