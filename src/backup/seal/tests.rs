//! Tests of encrypted files.

use proptest::prelude::{any, prop_assert, proptest};

use super::*;

const NAME: &str = "20261126T224501Z/base.tar.sealed";

fn sealed(key: Option<&Key>, text: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join(if key.is_some() { "file.sealed" } else { "file" });
    let mut writer = Writer::create(&path, NAME, key).expect("created");
    writer.write_all(text).expect("written");
    let written = writer.finish().expect("finished");
    assert_eq!(measure(&path).expect("measured"), written);
    (folder, path)
}

fn read(path: &Path, key: Option<&Key>) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    open(path, NAME, key)?.read_to_end(&mut text)?;
    Ok(text)
}

#[test]
fn what_was_written_is_read_whatever_its_length() {
    let key = Key::of(&[7; 32]);
    for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
        let text: Vec<u8> = (0..length).map(|number| (number % 251) as u8).collect();
        for key in [None, Some(&key)] {
            let (_folder, path) = sealed(key, &text);
            assert!(read(&path, key).expect("read") == text, "{length} bytes, key: {}", key.is_some());
        }
    }
}

#[test]
fn another_key_and_none_are_refused_by_name() {
    let (_folder, path) = sealed(Some(&Key::of(&[7; 32])), b"a secret");
    let wrong = read(&path, Some(&Key::of(&[8; 32]))).expect_err("refused").to_string();
    assert!(wrong.starts_with("wrong key: "), "{wrong}");
    let none = read(&path, None).expect_err("refused").to_string();
    assert!(none.contains("--key-file"), "{none}");
    let (_plain, plain) = sealed(None, b"anything");
    let unsealed = read(&plain, Some(&Key::of(&[7; 32]))).expect_err("refused").to_string();
    assert!(unsealed.contains("is not encrypted"), "{unsealed}");
    assert!(!std::fs::read(&path).expect("bytes").windows(8).any(|window| window == b"a secret"));
}

#[test]
fn a_file_is_read_under_its_own_name_alone() {
    let key = Key::of(&[7; 32]);
    let (_folder, path) = sealed(Some(&key), b"a secret");
    let exchanged = open(&path, "20261127T224501Z/base.tar.sealed", Some(&key)).err().expect("refused").to_string();
    assert!(exchanged.contains("another one was put in its place"), "{exchanged}");
    // The fingerprint of the name is not what protects it.
    let mut bytes = std::fs::read(&path).expect("bytes");
    let begin = MAGIC.len() + MARK_BYTES + SALT_BYTES;
    bytes[begin..begin + NAME_BYTES].copy_from_slice(&name_mark("another"));
    std::fs::write(&path, bytes).expect("written");
    let mut text = Vec::new();
    open(&path, "another", Some(&key)).expect("opened").read_to_end(&mut text).expect_err("refused");
}

/// Writes a file as releases did that did not bind files to their names.
pub fn write_first_format(path: &Path, key: &Key, text: &[u8]) {
    let (salt, mut chunk) = ([3; SALT_BYTES], text.to_vec());
    key.of_file(&salt, None).encrypt(&mut chunk, true).expect("encrypted");
    std::fs::write(path, [&MAGIC_UNBOUND[..], &key.mark, &salt, &chunk].concat()).expect("written");
}

#[test]
fn a_file_of_the_first_format_is_read_under_any_name() {
    let key = Key::of(&[7; 32]);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("file.sealed");
    write_first_format(&path, &key, b"a secret");
    assert_eq!(read(&path, Some(&key)).expect("read"), b"a secret");
    assert!(is_of_first_format(&path, &key) && !is_of_first_format(&path, &Key::of(&[8; 32])));
    let (_folder, path) = sealed(Some(&key), b"a secret");
    assert!(!is_of_first_format(&path, &key));
    // Whoever has no key can write a header alone.
    let mut bytes = std::fs::read(&path).expect("bytes");
    bytes[..MAGIC.len()].copy_from_slice(MAGIC_UNBOUND);
    std::fs::write(&path, bytes).expect("written");
    assert!(!is_of_first_format(&path, &key));
}

proptest! {
    #[test]
    fn a_file_that_was_changed_or_cut_off_is_never_taken_for_whole(at in any::<usize>(), cut in any::<bool>()) {
        let key = Key::of(&[7; 32]);
        let text = vec![5; CHUNK_BYTES + 100];
        let (_folder, path) = sealed(Some(&key), &text);
        let mut bytes = std::fs::read(&path).expect("bytes");
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] ^= 1 }
        std::fs::write(&path, bytes).expect("written");
        prop_assert!(read(&path, Some(&key)).is_err());
    }
}
