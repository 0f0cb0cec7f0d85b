//! Failures of backups: each is reported with a clear error, and older backups stay valid.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Follower, Rig, received};
use crate::harness::{Database, eventually, passenger_with};
use crate::transfer::{refused, succeeded};

async fn rig_with_a_backup() -> (Rig, String) {
    let rig = Rig::start().await;
    rig.app.create(&passenger_with("name", "kept")).await;
    let id = rig.backup(&[]);
    (rig, id)
}

async fn expect_good(rig: &Rig, id: &str) {
    assert_eq!(rig.restore(&["--backup", id]).names().await, ["kept"]);
}

fn flip_byte(path: &Path) {
    let mut bytes = fs::read(path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("written");
}

fn partials(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).expect("listed").flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".partial")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backup_is_not_listed_and_its_leftovers_are_removed() {
    let (rig, id) = rig_with_a_backup().await;
    let mut killed = rig.command(&["backup"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
    eventually(|| async { if partials(rig.folder()) == 1 { Ok(()) } else { Err("not begun".to_owned()) } }).await;
    killed.kill().expect("kill");
    killed.wait().expect("wait");
    let listed = succeeded(rig.program(&["backups"]));
    assert_eq!(listed.lines().count(), 2, "{listed}");
    expect_good(&rig, &id).await;
    // Files of other programs are never removed, whatever their names.
    let theirs = rig.folder().join("film.partial");
    fs::create_dir(&theirs).expect("made");
    rig.backup(&[]);
    assert_eq!((partials(rig.folder()), theirs.is_dir()), (1, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logical_backup_cannot_be_restored_to_another_instant() {
    let rig = Rig::start().await;
    let id = rig.backup(&["--kind", "logical"]);
    for into in ["/tmp/never-made", "postgres://127.0.0.1:1/never"] {
        let at = ["restore", "--backup", &id, "--at", "2020-01-01T00:00:00Z", "--into", into];
        let said = refused(&rig.program(&at));
        assert!(said.contains("a logical backup is of one instant"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_reported_and_the_older_backup_stays_valid() {
    let (rig, older) = rig_with_a_backup().await;
    let newer = rig.backup(&[]);
    flip_byte(&rig.folder().join(&newer).join("base.tar"));
    let checked = rig.program(&["backups", "--check"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(!checked.status.success() && said.contains("damaged"), "{said}");
    let said = refused(&rig.program(&["restore", "--into", "/tmp/never-made"]));
    assert!(said.contains(&newer) && said.contains("damaged") && said.contains("base.tar"), "{said}");
    assert!(!Path::new("/tmp/never-made/embedded/data").exists());
    let said = refused(&rig.program(&["restore-drill"]));
    assert!(said.contains("damaged"), "{said}");
    expect_good(&rig, &older).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_or_missing_key_is_refused_and_the_right_one_accepted() {
    let rig = Rig::start().await;
    rig.app.create(&passenger_with("name", "kept")).await;
    let keys = tempfile::tempdir().expect("a temporary directory");
    let key = |name: &str, text: String| {
        let path = keys.path().join(name);
        fs::write(&path, text).expect("written");
        format!("--key-file={}", path.display())
    };
    let (right, wrong, none) =
        (key("right", "0a".repeat(32)), key("wrong", "0b".repeat(32)), key("none", String::new()));
    let id = rig.backup(&[&right]);
    for file in fs::read_dir(rig.folder().join(&id)).expect("listed").flatten() {
        let is_readable = file.file_name() == "backup.json" || file.path().is_dir();
        assert!(is_readable || file.file_name().to_string_lossy().ends_with(".sealed"), "{:?}", file.path());
    }
    let said = refused(&rig.program(&["restore", "--into", "/tmp/never-made", &wrong]));
    assert!(said.contains("wrong key"), "{said}");
    let said = refused(&rig.program(&["restore", "--into", "/tmp/never-made"]));
    assert!(said.contains("BACKUP_KEY_FILE"), "{said}");
    let said = refused(&rig.program(&["backup", &none]));
    assert!(said.contains("64 hexadecimal digits"), "{said}");
    let said = refused(&rig.program(&["backup", "--key-file=/dev/zero"]));
    assert!(said.contains("/dev/zero") && said.contains("more than 65536 bytes"), "{said}");
    assert_eq!(rig.restore(&["--backup", &id, &right]).names().await, ["kept"]);
    succeeded(rig.program(&["restore-drill", &right]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_reported_and_harms_no_older_backup() {
    let rig = Rig::start().await;
    rig.app.create(&passenger_with("name", "kept")).await;
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=150m", "none"]).arg(rig.folder()).output();
    if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: a small disk requires root and mount: {mounted:?}");
        return;
    }
    let id = rig.backup(&[]);
    // Leaves less space than a backup needs.
    let (filler, room) = (rig.folder().join("filler"), 150 - 20 - size_of(&rig.folder().join(&id)) / (1 << 20));
    fs::write(&filler, vec![1; usize::try_from(room << 20).expect("small")]).expect("written");
    let said = refused(&rig.program(&["backup"]));
    let partials = partials(rig.folder());
    fs::remove_file(&filler).expect("removed");
    let good = rig.restore(&["--backup", &id]).names().await;
    let unmounted = Command::new("umount").arg(rig.folder()).status().expect("umount runs");
    assert!(unmounted.success());
    let place = format!("the disk of {}", rig.folder().display());
    assert!(said.contains(&place) && said.contains(" is full (") && said.contains("free space there"), "{said}");
    assert_eq!((partials, good), (0, vec!["kept".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_were_changed_and_encrypted_files_that_were_exchanged_are_refused() {
    fn exchange(one: &Path, other: &Path) {
        let (first, second) = (fs::read(one).expect("read"), fs::read(other).expect("read"));
        fs::write(one, second).expect("written");
        fs::write(other, first).expect("written");
    }
    // The record is not encrypted.
    fn forge(record: &Path, one: &str, other: &str) {
        let mut value: Value = serde_json::from_slice(&fs::read(record).expect("a record")).expect("JSON");
        let files = value["files"].as_array_mut().expect("files");
        let at = |name: &str| files.iter().position(|file| file["path"] == name).expect(name);
        let (one, other) = (at(one), at(other));
        let (first, second) = (files[one]["path"].take(), files[other]["path"].take());
        (files[one]["path"], files[other]["path"]) = (second, first);
        fs::write(record, value.to_string()).expect("written");
    }
    let rig = Rig::start().await;
    rig.app.create(&passenger_with("name", "kept")).await;
    let keys = tempfile::tempdir().expect("a temporary directory");
    let key = keys.path().join("key");
    fs::write(&key, "0a".repeat(32)).expect("written");
    let key = format!("--key-file={}", key.display());

    let logical = rig.backup(&["--kind=logical", &key]);
    let directory = rig.folder().join(&logical);
    let [one, other] = ["tables/passengers.copy.sealed", "tables/steps.copy.sealed"];
    let record = directory.join("backup.json");
    let genuine = fs::read_to_string(&record).expect("a record");
    let restore = || refused(&rig.program(&["restore", "--backup", &logical, "--into", "/tmp/never-made", &key]));
    for change in ["\"columns\": \"", "\"rows\": "] {
        fs::write(&record, genuine.replace(change, &format!("{change}1"))).expect("written");
        let said = restore();
        assert!(said.contains("is not the record that was written with this key"), "{said}");
    }
    let unsigned = genuine.replace("\"signature\"", "\"unsigned\"");
    fs::write(&record, unsigned).expect("written");
    assert!(restore().contains("is not the record that was written with this key"));
    fs::write(&record, genuine).expect("written");
    exchange(&directory.join(one), &directory.join(other));
    forge(&directory.join("backup.json"), one, other);
    let said = restore();
    assert!(said.contains("is not the record that was written with this key"), "{said}");
    assert!(!Path::new("/tmp/never-made").exists());

    let follower = Follower::start(&rig, &[&key]);
    for number in 0..3 {
        rig.app.create(&passenger_with("name", format!("{number}").as_str())).await;
        super::connect(&rig._postgres).await.batch_execute("select pg_switch_wal()").await.expect("switched");
    }
    let written = jiff::Timestamp::now();
    eventually(|| async {
        let up_to = received(rig.folder());
        if up_to.is_some_and(|up_to| up_to > written) { Ok(()) } else { Err(format!("{up_to:?}")) }
    })
    .await;
    drop(follower);
    let timeline = fs::read_dir(rig.folder().join("wal")).expect("listed").flatten().next().expect("a timeline").path();
    let mut segments: Vec<_> = fs::read_dir(timeline).expect("listed").flatten().map(|entry| entry.path()).collect();
    segments.retain(|path| path.to_string_lossy().ends_with(".sealed") && !path.to_string_lossy().contains(".partial"));
    segments.sort();
    let [.., one, other] = &segments[..] else { panic!("{segments:?}") };
    exchange(one, other);
    let said = refused(&rig.program(&["restore", "--into", "/tmp/never-made", &key]));
    assert!(said.contains("another one was put in its place"), "{said}");
    exchange(one, other);
    assert_eq!(rig.restore(&[&key]).names().await, ["0", "1", "2", "kept"]);
}

fn size_of(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).expect("listed").flatten();
    entries
        .map(
            |entry| {
                if entry.path().is_dir() {
                    size_of(&entry.path())
                } else {
                    entry.metadata().map_or(0, |file| file.len())
                }
            },
        )
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_backups_and_backups_of_another_cluster_are_refused() {
    let (rig, _) = rig_with_a_backup().await;
    let lock = fs::File::open(rig.folder().join("lock")).expect("a lock");
    lock.lock().expect("locked");
    let said = refused(&rig.program(&["backup"]));
    assert!(said.contains("folder is running"), "{said}");
    drop(lock);
    let database = Database::migrated().await;
    let other =
        rig.command(&["backup", "--kind=physical"]).env("DATABASE_URL", database.url()).output().expect("it runs");
    assert!(refused(&other).contains("backups of another cluster"), "{}", refused(&other));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_replication_is_reported_with_the_statement_that_grants_it() {
    let database = Database::migrated().await;
    let folder = super::open_folder();
    let as_requests = database.url().replace("user=postgres", "user=pycrudapi");
    let run = |kind: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pycrudapi"));
        command.args(["backup", "--kind", kind, "--to"]).arg(folder.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("DATABASE_URL", &as_requests);
        command.output().expect("it runs")
    };
    let said = refused(&run("physical"));
    assert!(said.contains("alter role pycrudapi replication"), "{said}");
    let output = run("auto");
    let warned = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(succeeded(output).contains(", logical, "), "{warned}");
    assert!(warned.contains("alter role pycrudapi replication"), "{warned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_not_encrypted_with_the_key_is_refused() {
    let rig = Rig::start().await;
    rig.app.create(&passenger_with("name", "kept")).await;
    let keys = tempfile::tempdir().expect("a temporary directory");
    let key = keys.path().join("key");
    fs::write(&key, "0a".repeat(32)).expect("written");
    let key = format!("--key-file={}", key.display());
    let sealed = rig.backup(&[&key]);
    for kind in ["physical", "logical"] {
        let plain = rig.backup(&["--kind", kind]);
        for command in [&["restore", "--into", "/tmp/never-made", &key][..], &["restore-drill", &key]] {
            let said = refused(&rig.program(command));
            assert!(said.contains(&format!("backup {plain} is not encrypted")), "{said}");
            assert!(said.contains("without --key-file"), "{said}");
        }
        assert!(!Path::new("/tmp/never-made").exists());
        assert_eq!(rig.restore(&["--backup", &plain]).names().await, ["kept"]);
    }
    // WAL files added next to an encrypted backup are not replayed either.
    let name =
        fs::read_dir(rig.folder().join(&sealed).join("wal")).expect("listed").flatten().next().expect("a segment");
    let name = name.file_name().to_string_lossy().replace(".sealed", "");
    fs::write(rig.folder().join(&sealed).join("wal").join(&name), "anything").expect("written");
    let received = rig.folder().join("wal").join(&name[..8]);
    fs::create_dir_all(&received).expect("made");
    fs::write(received.join(&name), "anything").expect("written");
    assert_eq!(rig.restore(&["--backup", &sealed, &key]).names().await, ["kept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_without_disk_space_reports_the_need_and_leaves_nothing() {
    let (rig, id) = rig_with_a_backup().await;
    let logical = rig.backup(&["--kind=logical"]);
    let small = super::open_folder();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=20m,mode=755", "none"]).arg(small.path()).output();
    if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: a small disk requires root and mount: {mounted:?}");
        return;
    }
    let into = small.path().join("new");
    let restore = |id: &str| rig.program(&["restore", "--backup", id, "--into", into.to_str().expect("UTF-8")]);
    let outputs = [restore(&id), restore(&logical)];
    let left = fs::read_dir(small.path()).expect("listed").count();
    let unmounted = Command::new("umount").arg(small.path()).status().expect("umount runs");
    assert!(unmounted.success());
    assert_eq!(left, 0);
    for said in outputs.map(|output| refused(&output)) {
        assert!(said.contains(" needed): free space there"), "{said}");
        assert!(
            said.contains(&format!("the disk of {}", small.path().display())) && said.contains(" is full ("),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_files_are_not_reported_as_a_missing_backup() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    let (rig, id) = rig_with_a_backup().await;
    let is_root = rustix::process::geteuid().is_root();
    let refused = || {
        let mut command = rig.command(&["backups"]);
        if is_root {
            command.uid(65_534);
        }
        refused(&command.output().expect("it runs"))
    };
    let record = rig.folder().join(&id).join("backup.json");
    let closed = [(record.as_path(), 0o600), (rig.folder(), 0o755)];
    for (path, open) in closed {
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).expect("closed");
        fs::set_permissions(rig.folder().join(&id), fs::Permissions::from_mode(0o755)).unwrap_or_default();
        let said = refused();
        fs::set_permissions(path, fs::Permissions::from_mode(open)).expect("opened");
        assert!(said.contains("user ") && said.contains(&format!("may not read {}", path.display())), "{said}");
    }
}

#[test]
fn secrets_in_arguments_are_not_repeated_in_errors() {
    let url = "postgres://user:se-cret@db.example/name";
    let commands: &[&[&str]] = &[
        &["backups", url],
        &["backup", "--to", url],
        &["backup", "--to=/tmp/never-made", "--kind", url],
        &["backup", "--to=s3://key:se-cret@bucket/prefix"],
        &["backups", "--from=s3://bucket/prefix?key=se-cret"],
        &["restore", "--from=/tmp", "--at", url, "--into=/tmp/never-made"],
        &["restore", "--from=/tmp", "--into=postgre://user:se-cret@db.example/name"],
        &["restore", "--from=/tmp", "--into=user=u password=se-cret port=none"],
        &["token", "create", "--name=t", "--scope", url],
        &["export", "--database-url=postgres://user:se-cret@db.example:none/name"],
        &["export", "--postgres-password=", "se-cret"],
        &["generate", "--rows", url],
        &["healthcheck", "--healthcheck-url=http://user:se-cret@127.0.0.1:1/"],
        &[url],
    ];
    for arguments in commands {
        let output =
            Command::new(env!("CARGO_BIN_EXE_pycrudapi")).args(*arguments).env_clear().output().expect("it runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success(), "{arguments:?}: {said}");
        assert!(!said.is_empty() && !said.contains("se-cret"), "{arguments:?}: {said}");
    }
}
