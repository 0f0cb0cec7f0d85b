//! A failed restore leaves nothing behind; the files of a successful one are readable by their owner only.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::Value;

use super::{Rig, open_folder};
use crate::harness::{Database, passenger};
use crate::transfer::{refused, succeeded};

/// Changes a backup's record in a way that is detected only after everything has been restored.
pub fn alter_record(rig: &Rig, id: &str, change: impl FnOnce(&mut Value)) {
    let record = rig.folder().join(id).join("backup.json");
    let mut value = serde_json::from_slice(&fs::read(&record).expect("a record")).expect("JSON");
    change(&mut value);
    fs::write(&record, value.to_string()).expect("written");
}

fn invalidate(record: &mut Value) {
    for table in record["state"]["tables"].as_array_mut().expect("tables") {
        table["hash"] = "1".into();
    }
    // After the end of the available WAL.
    record["state"]["lsn"] = "FFF/0".into();
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("listed").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_failure_of_a_restore_leaves_the_directory_unchanged() {
    let rig = Rig::start().await;
    rig.app.create(&passenger()).await;
    for (kind, fault) in [("physical", "ended before it was ready"), ("logical", "rows of passengers differ")] {
        let id = rig.backup(&["--kind", kind]);
        alter_record(&rig, &id, invalidate);
        let place = open_folder();
        for into in [place.path().join("not/yet/there"), place.path().to_owned()] {
            let at = into.to_str().expect("UTF-8");
            let said = refused(&rig.program(&["restore", "--backup", &id, "--into", at]));
            assert!(said.contains(fault), "{kind}: {said}");
            assert_eq!(entries(place.path()), [""; 0], "{kind}: {at}");
        }
        // Leftovers of a killed restore do not prevent a restore into the directory, and are removed as well.
        fs::create_dir_all(place.path().join("embedded/restoring/data/base")).expect("made");
        fs::write(place.path().join("embedded/lock"), "1\n").expect("written");
        let at = place.path().to_str().expect("UTF-8");
        refused(&rig.program(&["restore", "--backup", &id, "--into", at]));
        assert_eq!(entries(place.path()), [""; 0], "{kind}: {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_failure_of_a_restore_leaves_the_database_unchanged() {
    const CONTENTS: &str = "
        select relname::text from pg_class where relnamespace = 'public'::regnamespace
        union all select proname::text from pg_proc where pronamespace = 'public'::regnamespace
        union all select extname::text from pg_extension where extname <> 'plpgsql'
        union all select typname::text from pg_type where typnamespace = 'public'::regnamespace
        order by 1";
    let rig = Rig::start().await;
    rig.app.create(&passenger()).await;
    let id = rig.backup(&["--kind=logical"]);
    let good = fs::read(rig.folder().join(&id).join("backup.json")).expect("a record");
    alter_record(&rig, &id, invalidate);
    let database = Database::empty().await;
    let theirs = "create function theirs() returns int language sql as 'select 1'; create view seen as select theirs()";
    database.client().await.batch_execute(theirs).await.expect("made");
    let contents = async || {
        let rows = database.client().await.query(CONTENTS, &[]).await.expect("listed");
        rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()
    };
    let before = contents().await;
    let url = database.url();
    let restore = || rig.program(&["restore", "--backup", &id, "--into", &url]);
    assert!(refused(&restore()).contains("rows of passengers differ"));
    assert_eq!(contents().await, before);
    fs::write(rig.folder().join(&id).join("backup.json"), good).expect("written");
    succeeded(restore());
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_files_are_not_accessible_to_other_users() {
    fn closed(path: &Path) {
        let found = path.symlink_metadata().expect("there");
        assert_eq!(found.mode() & 0o077, 0, "{}: {:o}", path.display(), found.mode());
        if found.is_dir() {
            fs::read_dir(path).expect("listed").flatten().for_each(|entry| closed(&entry.path()));
        }
    }
    let rig = Rig::start().await;
    for kind in ["physical", "logical"] {
        let id = rig.backup(&["--kind", kind]);
        let restored = rig.restore(&["--backup", &id]);
        closed(&restored.place.join("embedded/data"));
        for directory in [&restored.place, &restored.place.join("embedded")] {
            let mode = fs::metadata(directory).expect("there").permissions().mode();
            // PostgreSQL's account only traverses directories owned by root.
            assert_eq!(mode & 0o066, 0, "{kind}: {}: {mode:o}", directory.display());
        }
    }
}
