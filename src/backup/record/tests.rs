//! Tests of the records of backups.

use super::*;
use crate::backup::seal::Writer;
use crate::backup::seal::tests::write_first_format;

/// A logical backup of nothing.
pub fn empty() -> Backup {
    Backup {
        id: "20261126T224501Z".to_owned(),
        kind: Kind::Logical,
        program: String::new(),
        postgres: String::new(),
        major: 15,
        database: String::new(),
        system: String::new(),
        schema_version: 1,
        wal: None,
        state: State { at: "2026-11-26T22:45:01Z".to_owned(), lsn: String::new(), tables: Vec::new() },
        sequences: Vec::new(),
        key: None,
        files: Vec::new(),
    }
}

fn record(key: &Key) -> Backup {
    Backup { key: Some(key.mark()), ..empty() }
}

#[test]
fn a_signed_record_is_accepted_until_it_is_changed_or_loses_its_signature() {
    let (folder, key) = (tempfile::tempdir().expect("a temporary directory"), Key::of(&[7; 32]));
    let (path, sealed) = (folder.path().join(FILE), folder.path().join("a.sealed"));
    let mut backup = record(&key);
    let mut writer = Writer::create(&sealed, "20261126T224501Z/a.sealed", Some(&key)).expect("created");
    std::io::Write::write_all(&mut writer, b"a").expect("written");
    backup.note("a.sealed", writer.finish().expect("finished"));
    let is_accepted = |text: &str| {
        std::fs::write(&path, text).expect("written");
        backup.clone().verified(folder.path(), Some(&key)).is_ok()
    };
    let good = backup.to_text(Some(&key)).expect("text");
    assert!(is_accepted(&good));
    assert!(is_accepted(&good.replace("\n", " ")), "blanks do not matter");
    for changed in [
        good.replace("22:45:01Z", "22:45:02Z"),
        good.replace("\"a.sealed\"", "\"b.sealed\""),
        good.replace("\"files\"", "\"more\": 1, \"files\""),
        backup.to_text(Some(&Key::of(&[8; 32]))).expect("text"),
        backup.to_text(None).expect("text"),
        Backup { files: Vec::new(), ..backup.clone() }.to_text(None).expect("text"),
    ] {
        assert!(!is_accepted(&changed), "{changed}");
    }
    let other = Backup { id: "20261127T224501Z".to_owned(), ..backup.clone() };
    assert!(!is_accepted(&other.to_text(Some(&key)).expect("text")), "of another backup");
    // As releases wrote it that did not sign records.
    write_first_format(&sealed, &key, b"a");
    assert!(is_accepted(&backup.to_text(None).expect("text")));
}

#[test]
fn a_record_from_which_sql_settings_or_paths_could_be_injected_is_invalid() {
    let good = record(&Key::of(&[7; 32]));
    assert!(good.is_well_formed());
    let table =
        |columns: &str| Table { name: "t".to_owned(), columns: columns.to_owned(), rows: 0, hash: String::new() };
    let wal = |first: &str| Some(Wal { first: first.to_owned(), last: "0".repeat(24), segment_bytes: 1 << 24 });
    let file = |path: &str| Entry { path: path.to_owned(), bytes: 0, sha256: String::new() };
    let with = |change: &dyn Fn(&mut Backup)| {
        let mut backup = good.clone();
        change(&mut backup);
        backup.is_well_formed()
    };
    assert!(with(&|backup| backup.state.lsn = "0/2000028".to_owned()));
    assert!(!with(&|backup| backup.state.lsn = "0/0'\nrestore_command = 'id".to_owned()));
    assert!(with(&|backup| backup.wal = wal("000000010000000000000002")));
    assert!(!with(&|backup| backup.wal = wal("../000001")));
    assert!(with(&|backup| backup.files = vec![file("tables/t.copy")]));
    assert!(!with(&|backup| backup.files = vec![file("../t")]));
    assert!(!with(&|backup| backup.files = vec![file("/t")]));
    assert!(with(&|backup| backup.state.tables = vec![table("uuid, \"B\"")]));
    assert!(!with(&|backup| backup.state.tables = vec![table("uuid) from program 'id' --")]));
}

#[test]
fn columns_are_identifiers_and_nothing_else() {
    for list in ["uuid", "a_1, \"B, c\", \"say \"\"x\"\"\", größe", "\"a) from program 'id' --\""] {
        assert!(are_identifiers(list), "{list}");
    }
    for list in
        ["", "a,", "a, ", "a,b", "\"\"", "\"a", "\"a\"b", "a) from program 'id' --", "a--", "a; b", "a, (b)", "\"\"\""]
    {
        assert!(!are_identifiers(list), "{list}");
    }
}
