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

#[test]
fn two_resources_cannot_have_the_same_schemas_in_the_openapi_document() {
    let folder = tempfile::tempdir().expect("a folder");
    let list = || program(folder.path(), &["list", "--resources-dir", "."]);
    let write = |file: &str, text: &str| fs::write(folder.path().join(file), text).expect("written");
    write("ship.toml", &described("ship", "Ship"));
    write("ships.toml", &described("ships", "Ships"));
    let same = refused(&list(), 2);
    let expected = "the schema Ship of the OpenAPI document (singular = \"ship\") is taken; choose another one";
    assert!(same.contains("ships.toml") && same.contains(expected), "{same}");
    write("ships.toml", &format!("singular = \"vessel\"\n{}", described("ships", "Ships")));
    assert_eq!(succeeded(&list()).lines().count(), 3);
    write("ships.toml", &described("problems", "Problems"));
    let reserved = refused(&list(), 2);
    assert!(reserved.contains("the schema Problem of the OpenAPI document"), "{reserved}");
    // Passengers have an enumeration of this name; one with the same values is the same schema.
    let with = |values: &str| {
        let column = format!("[[column]]\nname = \"b\"\ntype = \"string\"\nschema = \"Sex\"\nenum = {values}\n");
        write("ships.toml", &(described("crew", "Crew") + &column));
        list()
    };
    assert_eq!(succeeded(&with("[\"male\", \"female\"]")).lines().count(), 3);
    let other = refused(&with("[\"m\", \"f\"]"), 2);
    assert!(other.contains("the schema Sex of the OpenAPI document (schema = \"Sex\")"), "{other}");
}
