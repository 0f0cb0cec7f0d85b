//! The folder with descriptions: which files are read, and what is refused.

use std::fs;

use super::{program, refused, succeeded};

/// A description with one column.
fn described(name: &str, title: &str) -> String {
    format!("name = \"{name}\"\ntitle = \"{title}\"\n[[column]]\nname = \"a\"\ntype = \"number\"\n")
}

#[test]
fn a_folder_adds_to_the_built_in_resources_and_may_replace_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let list = |more: &[&str]| program(folder.path(), &[&["list", "--resources-dir", "resources"], more].concat());
    let missing = refused(&list(&[]), 2);
    assert!(missing.contains("resources") && missing.contains("RESOURCES_DIR"), "{missing}");
    fs::create_dir(folder.path().join("resources")).expect("made");
    let write = |file: &str, text: &str| fs::write(folder.path().join("resources").join(file), text).expect("written");
    write("boats.toml", &described("boats", "Boats"));
    write("notes.txt", "none of it");
    write(".boats.toml", "an editor's");
    assert_eq!(succeeded(&list(&[])), "passengers\t8 columns\tPassengers\nboats\t1 column\tBoats\n");
    // The table of the passengers' history has this name, which is therefore reserved while passengers have a history.
    write("y.toml", &described("passengers-history", "History"));
    let of_history = refused(&list(&[]), 2);
    assert!(of_history.contains("y.toml") && of_history.contains("passengers-history is taken"), "{of_history}");
    write("passengers.toml", &described("passengers", "Others"));
    assert_eq!(succeeded(&list(&[])).lines().count(), 3);
    fs::remove_file(folder.path().join("resources/y.toml")).expect("removed");
    assert_eq!(succeeded(&list(&[])), "passengers\t1 column\tOthers\nboats\t1 column\tBoats\n");
    assert_eq!(succeeded(&list(&["--resources", "boats, passengers,boats"])).lines().count(), 2);
    assert_eq!(succeeded(&list(&["--resources", "boats"])), "boats\t1 column\tBoats\n");
    let unknown = refused(&list(&["--resources", "ships"]), 2);
    assert!(unknown.contains("ships") && unknown.contains("passengers, boats"), "{unknown}");
    // Two files with the same name: the program does not choose between them, wherever the folder is.
    write("twice.toml", &described("boats", "Boats again"));
    let twice = refused(&list(&[]), 2);
    assert!(twice.contains("twice.toml") && twice.contains("the name boats is taken"), "{twice}");
    fs::remove_file(folder.path().join("resources/twice.toml")).expect("removed");
    write("x.toml", &described("passengers", "Again"));
    let twice = refused(&list(&[]), 2);
    assert!(twice.contains("x.toml") && twice.contains("the name passengers is taken"), "{twice}");
    write("x.toml", "name = \"x\"\ncolumn = []\nother = 1\n");
    let faulty = refused(&list(&[]), 2);
    assert!(faulty.contains("x.toml") && faulty.contains("line 3: unknown field `other`"), "{faulty}");
}
