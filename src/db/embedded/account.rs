//! The user that PostgreSQL's processes run as.
//!
//! PostgreSQL refuses to run as uid 0, so as root it runs under another account; otherwise it runs as the current user.
//! Accounts are never created. Invariant: a cluster is always run by its owner, even if a preferred account has been created
//! since.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::{self, EmbeddedError};

/// In order of preference: the packages' account, its name on macOS, and one that every system has.
const NAMES: [&str; 3] = ["postgres", "_postgres", "nobody"];
const ACCOUNTS: &str = "/etc/passwd";

/// A user other than the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub uid: u32,
    pub gid: u32,
}

/// The account under which a root process runs PostgreSQL; none for an ordinary user.
pub(super) fn for_root() -> Result<Option<Account>, EmbeddedError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string(ACCOUNTS).map_err(error::file("read", Path::new(ACCOUNTS)))?;
    match NAMES.iter().find_map(|name| named(&passwd, name)) {
        Some(account) => Ok(Some(account)),
        None => Err(EmbeddedError::NoAccount),
    }
}

fn named(passwd: &str, name: &str) -> Option<Account> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut ids = line.split(':').skip(2).map(str::parse);
    Some(Account { uid: ids.next()?.ok()?, gid: ids.next()?.ok()? })
}

impl Account {
    /// The owner of `path`, unless that is root or the path does not exist.
    pub fn owner_of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        (found.uid() != 0).then(|| Self { uid: found.uid(), gid: found.gid() })
    }

    /// The topmost directory of `path`, itself included, that this account may not enter. Missing directories do not count:
    /// they will be created accessible.
    pub fn first_closed(self, path: &Path) -> Option<PathBuf> {
        let mut ancestors: Vec<&Path> = path.ancestors().collect();
        ancestors.reverse();
        let closed = |path: &&Path| fs::metadata(path).is_ok_and(|found| !self.may_enter(&found));
        ancestors.into_iter().find(closed).map(Path::to_path_buf)
    }

    /// The kernel's rule: the owner's bits for the owner, else the group's for the group, else the others'. Supplementary
    /// groups are dropped when the user is changed, so they do not count.
    fn may_enter(self, found: &fs::Metadata) -> bool {
        let bit = match (found.uid() == self.uid, found.gid() == self.gid) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        found.mode() & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65533:nobody:/:/bin/false\n";

    #[test]
    fn an_account_is_found_only_by_its_whole_name() {
        assert_eq!(named(PASSWD, "nobody"), Some(Account { uid: 65534, gid: 65533 }));
        assert_eq!(named(PASSWD, "no"), None);
        assert_eq!(named("nobody:x:broken", "nobody"), None);
    }

    #[test]
    fn the_topmost_inaccessible_directory_is_reported() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().expect("a temporary directory");
        let stranger = Account { uid: 4242, gid: 4242 };
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).expect("chmod");
        assert_eq!(stranger.first_closed(&root.path().join("a/b")), Some(root.path().into()));
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o711)).expect("chmod");
        assert_eq!(stranger.first_closed(&root.path().join("a/b")), None);
    }
}
