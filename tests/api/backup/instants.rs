//! Point-in-time restores while clients write.

use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use uuid::Uuid;

use super::{Follower, Rig, received};
use crate::harness::{eventually, passenger_with};

const CLIENTS: usize = 4;
const WRITES: usize = 150;
const INSTANTS: usize = 20;

/// An acknowledged create.
struct Write {
    name: String,
    begun: Timestamp,
    acknowledged: Timestamp,
}

async fn write(rig: &Rig, client: usize, stop: &AtomicBool) -> Vec<Write> {
    let mut writes = Vec::new();
    for number in 0..WRITES {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("{client} {number}");
        // The database runs on this machine, so both use the same clock.
        let begun = Timestamp::now();
        rig.app.create(&passenger_with("name", name.as_str())).await;
        writes.push(Write { name, begun, acknowledged: Timestamp::now() });
    }
    writes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_to_any_instant_contains_all_writes_acknowledged_before_and_none_begun_after_it() {
    follow_write_and_restore(&[], INSTANTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_wal_is_restored_to_any_instant_as_well() {
    let keys = tempfile::tempdir().expect("a temporary directory");
    let file = keys.path().join("key");
    std::fs::write(&file, "ab".repeat(32)).expect("written");
    let flag = format!("--key-file={}", file.display());
    follow_write_and_restore(&[&flag], 3).await;
}

async fn follow_write_and_restore(flags: &[&str], instants: usize) {
    let rig = Rig::start().await;
    let _follower = Follower::start(&rig, flags);
    let stop = AtomicBool::new(false);
    let writing = futures_util::future::join_all((0..CLIENTS).map(|client| write(&rig, client, &stop)));
    let writes: Vec<Write> = writing.await.into_iter().flatten().collect();
    let first = writes.iter().map(|write| write.acknowledged).min().expect("there were writes");
    let last = writes.iter().map(|write| write.acknowledged).max().expect("there were writes");
    eventually(|| async {
        let up_to = received(rig.folder());
        if up_to.is_some_and(|up_to| up_to > last) { Ok(()) } else { Err(format!("{up_to:?}, not {last}")) }
    })
    .await;
    for number in 0..instants {
        let share = u32::from_be_bytes(Uuid::new_v4().as_bytes()[..4].try_into().expect("4 bytes"));
        let span = u64::try_from(last.duration_since(first).as_micros()).expect("later");
        let at = first + std::time::Duration::from_micros(span * u64::from(share) / u64::from(u32::MAX));
        let text = at.to_string();
        let found = rig.restore(&[&["--at", text.as_str()], flags].concat()).names().await;
        for write in &writes {
            let is_there = found.binary_search(&write.name).is_ok();
            let name = &write.name;
            assert!(is_there || write.acknowledged >= at, "instant {number}, {at}: {name} is missing");
            assert!(!is_there || write.begun <= at, "instant {number}, {at}: {name} is there");
        }
    }
}
