//! `resource check`: every error of a description, with its line.

use std::fs;

use super::{program, succeeded};

/// The lines of a description, and the errors expected for some of them.
const FAULTY: &[(&str, &[&str])] = &[
    ("name = \"Vessels\"", &["name \"Vessels\" must be 1 to 40 characters of a-z"]),
    ("titel = \"Vessels\"", &["unknown field `titel`, expected one of `name`"]),
    ("operations = [\"list\", \"raed\"]", &["unknown variant `raed`, expected one of `list`"]),
    ("", &[]),
    ("[[column]]", &[]),
    ("name = \"length\"", &[]),
    ("type = \"string\"", &[]),
    ("maxlength = 30", &["unknown field `maxlength`"]),
    ("nullable = \"yes\"", &["invalid type: string \"yes\", expected a boolean"]),
    ("", &[]),
    ("[[column]]", &["missing field `name`; add it"]),
    ("type = \"string\"", &[]),
    ("", &[]),
    ("[[column]]", &[]),
    ("name = \"built\"", &[]),
    ("type = \"integer\"", &[]),
    ("minimum = 9", &["column \"built\": minimum 9 is above maximum 2; exchange them"]),
    ("maximum = 2", &[]),
    ("", &[]),
    ("[[column]]", &["column \"b_uilt\" is a duplicate; names must differ in more than case and _"]),
    ("name = \"b_uilt\"", &[]),
    ("type = \"date\"", &[]),
    ("", &[]),
    ("[[colum]]", &["unknown field `colum`"]),
    ("name = \"lost\"", &[]),
    ("", &[]),
    ("[[column]]", &[]),
    ("name = \"depth\"", &[]),
    ("type = \"number\"", &[]),
    ("index = \"btree\"", &["index must be true, false or \"trigram\""]),
    ("", &[]),
    ("[[column]]", &[]),
    ("name = \"flag\"", &[]),
    ("type = \"string\"", &[]),
    ("format = \"email\"", &["column \"flag\": unknown format \"email\"; expected date, date-time, uuid"]),
];

#[test]
fn every_error_is_reported_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let text: Vec<&str> = FAULTY.iter().map(|(line, _)| *line).collect();
    fs::write(folder.path().join("vessels.toml"), text.join("\n")).expect("written");
    let output = program(folder.path(), &["check", "vessels.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    let mut expected = 0;
    for (index, (_, faults)) in FAULTY.iter().enumerate() {
        for fault in *faults {
            let line = format!("vessels.toml: line {}: {fault}", index + 1);
            assert!(said.lines().any(|said| said.starts_with(&line)), "no {line:?} in\n{said}");
            expected += 1;
        }
    }
    // The type "date" is an additional error of its column.
    assert_eq!(said.lines().count(), expected + 1, "{said}");
}

#[test]
fn invalid_toml_is_reported_with_each_line() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("v.toml"), "name = \"v\"\n[[column]]\nname = a\ntype = string\n").expect("written");
    let output = program(folder.path(), &["check", "v.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(said.contains("v.toml: line 3: ") && said.contains("v.toml: line 4: "), "{said}");
    fs::write(folder.path().join("v.toml"), b"name = \"v\xfc\"").expect("written");
    let latin = program(folder.path(), &["check", "v.toml"]);
    assert_eq!(String::from_utf8_lossy(&latin.stdout), "v.toml: line 1: the file is not UTF-8; save it as UTF-8\n");
    let none = program(folder.path(), &["check", "none.toml"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stdout).contains("none.toml"), "{none:?}");
}

#[test]
fn an_error_is_reported_once_at_the_line_of_its_key() {
    let folder = tempfile::tempdir().expect("a folder");
    for (text, expected) in [
        ("", "v.toml: line 1: missing field `name`; add it\n"),
        ("name = \"v\"\n", "v.toml: line 1: missing field `column`; add it\n"),
        ("name = \"v\"\n[[column]]\nname = \"a\"\n", "v.toml: line 2: missing field `type`; add it\n"),
        (
            "name = \"v\"\n[[column]]\nname = \"a\"\ntype = \"string\"\ndefault = 5\n",
            "v.toml: line 5: column \"a\": default 5 must be a text of 0 to 1000 characters without U+0000\n",
        ),
        (
            "name = \"v\"\nsingular = \"a b\"\n[[column]]\nname = \"a\"\ntype = \"string\"\nenum = [\"x\"]\nschema = \"A b\"\n",
            "v.toml: line 2: singular \"a b\" must be 1 to 40 characters of a-z, A-Z, 0-9 and -, starting with a letter and \
             without -- and a final -\nv.toml: line 7: column \"a\": schema must consist of a-z, A-Z and 0-9\n",
        ),
        (
            "name = \"v\"\n[[column]]\nname = \"a\"\ntype = \"string\"\nmaxLength = -1\n",
            "v.toml: line 5: invalid value: integer `-1`, expected a whole number, 0 or greater\n",
        ),
        (
            "name = \"v\"\n[[column]]\nname = \"a\"\ntype = \"string\"\npattern = \"(\"\n",
            "v.toml: line 5: column \"a\": pattern \"(\" is not a valid regular expression: unclosed group\n",
        ),
        (
            "name = \"v\"\noperations = [\"bulk\"]\n[[column]]\nname = \"a\"\ntype = \"boolean\"\n[urls]\n\
             list = \"/all\"\nread = \"/one\"\n",
            "v.toml: line 2: operations: bulk requires create; add it\n\
             v.toml: line 8: urls.read \"/one\" must have the form /words/{uuid}, with letters, digits, - and _\n",
        ),
        (
            "name = \"v\"\n[[column]]\nname = \"a\"\ntype = \"boolean\"\n[statistics]\nby = [\"a\"]\n\
             measures = { rate = \"mean(a)\" }\n",
            "v.toml: line 7: statistics.measures.rate \"mean(a)\" must be count or rate of a boolean column, or mean, sum, \
             min or max of a numeric column, such as mean(age)\n",
        ),
    ] {
        fs::write(folder.path().join("v.toml"), text).expect("written");
        let output = program(folder.path(), &["check", "v.toml"]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{text}");
    }
}

#[test]
fn valid_descriptions_are_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let passengers = concat!(env!("CARGO_MANIFEST_DIR"), "/resources/passengers.toml");
    let said = succeeded(&program(folder.path(), &["check", passengers]));
    assert_eq!(said, format!("{passengers}: 8 columns, no fault\n"));
    fs::write(folder.path().join("steps.toml"), "name = \"steps\"\n[[column]]\nname = \"a\"\ntype = \"number\"\n")
        .expect("written");
    let taken = program(folder.path(), &["check", "steps.toml"]);
    assert_eq!(taken.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&taken.stdout).contains("steps.toml: the name steps is reserved"), "{taken:?}");
}
