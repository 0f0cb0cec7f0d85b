//! Private directories, which other users of the machine can neither prepare nor enter, and the account of nginx's workers.
//!
//! If nginx runs as root, its workers have another account, whose group gets access; no one else does. supervisor/private.py
//! does the same for supervisord, which binds its sockets before it starts any program.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Gid, Mode, OFlags, fchmod, fchown, fstat, openat, statat};
use rustix::io::Errno;
use rustix::process::geteuid;
use thiserror::Error;

const ACCOUNTS: [&str; 3] = ["www-data", "nginx", "nobody"];
/// The user id of the machine's root in a user namespace that does not map it.
const OVERFLOW_USER: u32 = 65534;

/// A directory that another user may have prepared.
#[derive(Debug, Error)]
#[error("{setting}={}: {reason}; remove it, or set {setting} to a directory of this user", path.display())]
pub struct Refused {
    setting: &'static str,
    path: PathBuf,
    reason: String,
}

/// The account of nginx's workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user name.
    pub user: String,
    /// The group name.
    pub group: String,
    gid: u32,
}

/// The account of nginx's workers; `None` for an ordinary user, which cannot change accounts.
pub fn worker() -> Option<Account> {
    if !geteuid().is_root() {
        return None;
    }
    account(&fs::read_to_string("/etc/passwd").ok()?, &fs::read_to_string("/etc/group").ok()?)
}

fn account(passwd: &str, groups: &str) -> Option<Account> {
    let named = |name| passwd.lines().find(|line| line.split(':').next() == Some(name));
    let line = ACCOUNTS.into_iter().find_map(named)?;
    let fields: Vec<&str> = line.split(':').collect();
    let (user, gid) = (*fields.first()?, *fields.get(3)?);
    let group = groups.lines().find(|line| line.split(':').nth(2) == Some(gid))?.split(':').next()?;
    Some(Account { user: user.to_owned(), group: group.to_owned(), gid: gid.parse().ok()? })
}

/// Creates a private directory, or checks that an existing one is private; a `shared` one can be traversed by the workers.
///
/// # Errors
/// If another user may have prepared it.
pub fn directory(path: &Path, setting: &'static str, shared: bool) -> Result<(), Refused> {
    let refuse = |reason: String| Refused { setting, path: path.to_owned(), reason };
    let fault = |error: io::Error| refuse(format!("it is not a directory of this user ({error})"));
    let above = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(above).map_err(fault)?;
    for folder in above.canonicalize().map_err(fault)?.ancestors() {
        if folder != Path::new("/") && !trusted(fs::metadata(folder).map_err(fault)?.uid()) {
            return Err(refuse(format!("{} belongs to another user", folder.display())));
        }
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fault(error)),
        _ => {}
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(CWD, path, flags, Mode::empty()).map_err(|error| fault(error.into()))?;
    // The open descriptor is used, so that the directory cannot be replaced meanwhile.
    let checked = || -> Result<Option<&str>, Errno> {
        let found = fstat(&opened)?;
        let owners = owners_inside(opened.as_fd())?;
        if found.st_uid != geteuid().as_raw() {
            // A container's volume belongs to root and is writable for the container's only user.
            let foreign = !trusted(found.st_uid) || owners.iter().any(|owner| *owner != geteuid().as_raw());
            return Ok(foreign.then_some("it belongs to another user"));
        }
        if owners.is_empty() {
            let account = if shared { worker() } else { None };
            if let Some(account) = &account {
                fchown(&opened, None, Some(Gid::from_raw(account.gid)))?;
            }
            fchmod(&opened, Mode::from_raw_mode(if account.is_some() { 0o710 } else { 0o700 }))?;
        }
        // Checked again, now that no one else can add files. A directory in use keeps its mode, because it may have other
        // purposes.
        let written = found.st_mode & 0o022 != 0 && !owners_inside(opened.as_fd())?.is_empty();
        Ok(written.then_some("other users may have written to it"))
    };
    match checked() {
        Ok(None) => Ok(()),
        Ok(Some(reason)) => Err(refuse(reason.to_owned())),
        Err(error) => Err(fault(error.into())),
    }
}

/// The owners of the entries in a directory.
fn owners_inside(directory: BorrowedFd<'_>) -> Result<Vec<u32>, Errno> {
    let mut owners = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            owners.push(statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?.st_uid);
        }
    }
    Ok(owners)
}

/// Root and this user. In a user namespace the machine's root may be unmapped and appears as the overflow user.
fn trusted(user: u32) -> bool {
    let mapped = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = mapped.split_whitespace().eq(["0", "0", "4294967295"]);
    user == 0 || user == geteuid().as_raw() || (user == OVERFLOW_USER && !whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_account_has_the_names_of_its_user_and_group() {
        let passwd = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
        let found = account(passwd, "root:x:0:\nnogroup:x:65534:\n");
        let expected = Account { user: "nobody".to_owned(), group: "nogroup".to_owned(), gid: 65534 };
        assert_eq!(found, Some(expected));
        assert_eq!(account(passwd, "root:x:0:\n"), None);
        assert_eq!(account("root:x:0:0::/root:/bin/sh\n", "root:x:0:\n"), None);
    }

    #[test]
    fn a_directory_that_others_may_have_written_to_or_that_is_a_link_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let open = folder.path().join("open");
        directory(&open, "RUN_DIR", false).expect("made");
        let mode = |path: &Path| fs::metadata(path).expect("it exists").mode() & 0o777;
        assert_eq!(mode(&open), 0o700);
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("opened");
        directory(&open, "RUN_DIR", false).expect("nothing is in it");
        assert_eq!(mode(&open), 0o700);
        fs::write(open.join("file"), "").expect("written");
        directory(&open, "RUN_DIR", false).expect("ours alone");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("opened");
        let refused = directory(&open, "RUN_DIR", false).expect_err("it may be somebody's").to_string();
        assert!(refused.starts_with("RUN_DIR=") && refused.contains("other users may have written"), "{refused}");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&open, &link).expect("linked");
        assert!(directory(&link, "TLS_DIR", false).expect_err("a link").to_string().starts_with("TLS_DIR="));
    }
}
