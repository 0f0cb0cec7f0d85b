//! Finds the PostgreSQL server binaries on this machine.
//!
//! Binaries are never downloaded, and their version is never guessed: each candidate is run to print it. Invariant: the result
//! has `postgres` and `initdb` of one version, and the account can access them.

use std::cmp::Reverse;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::account::Account;
use super::error::{EmbeddedError, OLDEST_MAJOR};

/// Where packages install server binaries outside of PATH: a directory, and the prefix of its subdirectories that contain a
/// `bin`.
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

/// Package managers: a path by which each is detected, the command that installs a server, and the separator before a major
/// version if packages have one.
const INSTALLERS: [(&str, &str, Option<&str>); 6] = [
    ("/usr/bin/apt-get", "apt-get install -y postgresql", Some("-")),
    ("/usr/bin/dnf", "dnf install -y postgresql-server", None),
    ("/usr/bin/zypper", "zypper install -y postgresql-server", None),
    ("/sbin/apk", "apk add postgresql", None),
    ("/usr/bin/pacman", "pacman -S --noconfirm postgresql", None),
    ("/opt/homebrew/bin/brew", "brew install postgresql", Some("@")),
];

/// A release such as 15.14; a beta has minor version 0.
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

/// A directory that contains the binaries of one version.
#[derive(Clone, Debug)]
pub(super) struct Binaries {
    pub dir: PathBuf,
    pub version: Version,
}

/// Where to search, and for which account.
pub(super) struct Sources<'a> {
    pub pg_bin: Option<&'a Path>,
    pub search_path: Option<&'a OsStr>,
    pub account: Option<Account>,
}

/// Returns the newest binaries, or those of an existing cluster's major version.
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

/// As [`find`], but returns none instead of an error.
pub(super) fn newest_of(sources: &Sources<'_>, major: Option<u32>) -> Option<Binaries> {
    newest(&all(sources), major).cloned()
}

/// All binaries, newest first.
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

/// PATH, then the directory that `pg_config` prints, then the packages' directories.
fn candidates(search_path: Option<&OsStr>, packaged: &[(&str, &str)]) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = search_path.map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
    let configured: Vec<PathBuf> = dirs.iter().filter_map(|dir| bin_dir_of(&dir.join("pg_config"))).collect();
    dirs.extend(configured);
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
    let printed = output_of(pg_config, "--bindir")?;
    Some(PathBuf::from(printed.trim()))
}

/// Of equal versions the first is preferred, so PATH takes precedence over the packages' directories.
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

/// Resolves links to the program, not to its directory: /usr/local/bin may contain a link to a single program of a directory
/// that contains them all.
fn real_dir(dir: &Path) -> Option<PathBuf> {
    let program = fs::canonicalize(dir.join("postgres")).ok()?;
    let dir = program.parent()?.to_path_buf();
    (dir.join("postgres").is_file() && dir.join("initdb").is_file()).then_some(dir)
}

fn version_of(postgres: &Path) -> Option<Version> {
    parse_version(&output_of(postgres, "--version")?)
}

/// Parses `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)` and `… 18beta1`.
fn parse_version(printed: &str) -> Option<Version> {
    let text = printed.split(" (PostgreSQL) ").nth(1)?;
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let major = numbers.next()?.ok()?;
    let minor =
        if text.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('.') { numbers.next()?.ok()? } else { 0 };
    Some(Version { major, minor })
}

fn output_of(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).env("LC_ALL", "C").stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command that installs a server on this machine, of the given major version if there is a choice.
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

    /// A program that prints a line. It is written by a separate process: a file that any process has open for writing cannot
    /// be executed (ETXTBSY), and processes started by concurrent tests inherit the files open in this one.
    fn program_that_prints(path: &Path, line: &str) {
        let script = "printf '#!/bin/sh\\necho \"%s\"\\n' \"$2\" >\"$1\" && chmod 755 \"$1\"";
        let mut shell = Command::new("sh");
        let written = shell.args(["-c", script, "sh"]).arg(path).arg(line).status().expect("a shell");
        assert!(written.success());
    }

    /// A directory with programs that only print their version.
    fn installed(root: &Path, name: &str, version: &str) -> PathBuf {
        let dir = root.join(name);
        fs::create_dir(&dir).expect("mkdir");
        for program in ["postgres", "initdb"] {
            program_that_prints(&dir.join(program), &format!("{program} (PostgreSQL) {version}"));
        }
        fs::canonicalize(dir).expect("canonical")
    }

    #[test]
    fn a_version_is_parsed_in_every_packagers_format() {
        let version = |text| parse_version(text).map(|version| version.to_string());
        assert_eq!(version("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n").as_deref(), Some("15.14"));
        assert_eq!(version("postgres (PostgreSQL) 18beta1\n").as_deref(), Some("18.0"));
        assert_eq!(version("postgres (PostgreSQL) 9.6.24").as_deref(), Some("9.6"));
        assert_eq!(version("cockroach 23.1"), None);
    }

    #[test]
    fn the_newest_is_chosen_unless_a_cluster_requires_its_own() {
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
    fn a_link_to_one_program_leads_to_the_directory_that_contains_all() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let real = installed(root.path(), "real", "17.0");
        let bin = root.path().join("bin");
        fs::create_dir(&bin).expect("mkdir");
        symlink(real.join("postgres"), bin.join("postgres")).expect("symlink");
        assert_eq!(usable(&[bin], None).first().map(|found| &found.dir), Some(&real));
    }

    #[test]
    fn binaries_that_the_account_cannot_access_are_skipped() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let dir = installed(root.path(), "private", "17.0");
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).expect("chmod");
        let stranger = Account { uid: 4242, gid: 4242 };
        assert!(usable(std::slice::from_ref(&dir), Some(stranger)).is_empty());
        assert_eq!(usable(&[dir], None).len(), 1);
    }

    #[test]
    fn path_pg_config_and_the_packages_are_all_searched() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let tools = root.path().join("tools");
        fs::create_dir_all(root.path().join("packages/pgsql-17")).expect("mkdir");
        fs::create_dir(&tools).expect("mkdir");
        program_that_prints(&tools.join("pg_config"), "/printed/by/pg_config");
        let packages = root.path().join("packages");
        let dirs = candidates(Some(tools.as_os_str()), &[(packages.to_str().expect("utf-8"), "pgsql-")]);
        assert_eq!(dirs, [tools, PathBuf::from("/printed/by/pg_config"), packages.join("pgsql-17/bin")]);
    }
}
