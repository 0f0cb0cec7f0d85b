//! Spellings of other programs are accepted if they have one meaning, and refused with both readings otherwise.

use super::super::super::registry::passengers;
use super::*;
use crate::resource::definition::Resource;

const THINGS: &str = r#"
    name = "things"
    column = [
        { name = "flag", type = "boolean", nullable = true },
        { name = "number", type = "integer", format = "int32", nullable = true },
        { name = "barcode", type = "integer", nullable = true },
        { name = "size", type = "number", nullable = true },
        { name = "price", type = "decimal(9,2)", nullable = true },
        { name = "kind", type = "string", enum = ["Small", "large", "XL", "xl"], nullable = true },
        { name = "region", type = "string", enum = ["EU", "NA", "None"], nullable = true },
        { name = "day", type = "string", format = "date", nullable = true },
        { name = "note", type = "string", maxLength = 9 },
        { name = "code", type = "string", minLength = 1, maxLength = 9, nullable = true },
        { name = "must", type = "number" },
    ]
"#;

fn things() -> &'static Resource {
    let no_file = |_: &str| Err(String::new());
    Resource::load(THINGS, no_file).unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// Reads cells of a column in a file with this separator, one after the other.
fn read(column: &str, separator: char, cells: &[&str]) -> Vec<String> {
    let resource = things();
    let column = resource.field(column).expect("a column");
    let mut state = ReadState::default();
    let value = |text: &&str| {
        let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let cell = Cell { text: quoted.unwrap_or(text), is_quoted: quoted.is_some() };
        match column.read_cell(cell, separator, false, &mut state) {
            Ok(Value::Text(text)) => format!("{text:?}"),
            Ok(value) => value.to_string(),
            Err(message) => message.into_owned(),
        }
    };
    cells.iter().map(value).collect()
}

#[test]
fn the_spellings_of_other_programs_are_accepted() {
    for (column, cells, expected) in [
        ("flag", &["TRUE", "True", "t", "Yes", "y", "on", "1", "1.0"][..], "true"),
        ("flag", &["FALSE", "False", "f", "No", "n", "off", "0", "0.0"], "false"),
        ("flag", &["", "NA", "\\N", "NULL", "\"NA\""], "null"),
        ("number", &["<NA>", "#NA", "n.a.", "(null)", "[NULL]", "-", "--", "—", ".", "-1.#IND"], "null"),
        ("day", &["<NA>", "-", "n/a", "?", "..", ".a", ".Z"], "null"),
        ("flag", &["-", "None"], "null"),
        (
            "size",
            &["#VALUE!"],
            "must be a number, or empty; #VALUE! is a spreadsheet's value for a failed formula; fix the formula, \
            or leave the cell empty",
        ),
        ("number", &["NA", "NaN", "nan", "null", "\\N", "#N/A", "None", " "], "null"),
        ("number", &["7", "+7", " 7 ", "7.0", "7e0", "\"7\""], "7"),
        ("size", &["#N/A", "-nan", "<NA>"], "null"),
        ("kind", &["small", "SMALL", " Small"], "\"Small\""),
        ("kind", &["XL"], "\"XL\""),
        ("kind", &["Xl", "other"], "must be Small, large, XL or xl, or empty"),
        ("kind", &["N/A"], "null"),
        ("region", &["na", "NA", " Na"], "\"NA\""),
        ("region", &["N/A", "NULL"], "null"),
        ("day", &["NULL"], "null"),
        ("note", &["NA"], "\"NA\""),
        ("note", &["", "\"\""], "\"\""),
        ("code", &["", "\"\""], "null"),
        ("must", &["", "NA", "nan", "inf"], "must be a number"),
        ("must", &["1,5"], "1.5"),
        ("flag", &["WAHR", "Vrai", "VERDADERO", "DOĞRU"], "true"),
        ("flag", &["FALSCH", "faux", "FALSO", "YANLIŞ"], "false"),
        ("flag", &["#NV", "#N/D"], "null"),
        (
            "must",
            &["1e-999", "1e999"],
            "must be a number; a double is zero or has a magnitude between about 5e-324 and 1.8e308",
        ),
        ("flag", &["2", "richtig", "1.5", "10"], "must be true, false, yes, no, on, off, 1 or 0, or empty"),
    ] {
        assert_eq!(read(column, ',', cells), vec![expected; cells.len()], "{column} {cells:?}");
    }
}

#[test]
fn a_point_that_may_separate_thousands_is_refused_in_an_integer() {
    let both = "is 1.000 or 1000; use the same decimal mark, a point or a comma, in all numbers";
    for separator in [',', ';', '\t', '|'] {
        assert_eq!(read("number", separator, &["1.000"]), [both], "{separator:?}");
        assert_eq!(read("number", separator, &["1.0", "1.000", "12."]), ["1", "1", "12"], "{separator:?}");
    }
}

#[test]
fn an_integer_that_may_have_been_rounded_is_refused() {
    for text in ["4.00638E+12", "4,00638E+12", "4.0063E+12", "-4E+11", "4.00638e+12", "1.23457e+06"] {
        let said = read("barcode", ';', &[text]).concat();
        assert!(said.contains("or a number that was rounded to it; write all of its digits"), "{text}: {said}");
    }
    for (text, expected) in [
        ("1E+05", "100000"),
        ("1.5e+12", "1500000000000"),
        ("1.23457e6", "1234570"),
        ("1.23457E+05", "123457"),
        ("4.006381333931E+12", "4006381333931"),
    ] {
        assert_eq!(read("barcode", ',', &[text]), [expected], "{text}");
    }
    assert_eq!(read("size", ',', &["4.00638E+12"]), ["4006380000000.0"]);
}

#[test]
fn a_filter_accepts_the_letters_of_an_enumerated_text_composed_or_decomposed() {
    let description = r#"name = "places"
        column = [{ name = "place", type = "string", enum = ["Café"] }]"#;
    let resource =
        Resource::load(description, |_: &str| Err(String::new())).unwrap_or_else(|faults| panic!("{faults:?}"));
    let column = resource.field("place").expect("a column");
    assert_eq!(column.read_filter("Cafe\u{301}"), Some(Value::Text("Café".into())));
    assert_eq!(column.read_filter("CAFÉ"), None);
    let said = column.json_error("\"Cafe\u{301}\"").detail;
    assert!(said.contains("send Café, in the normalization form"), "{said}");
}

#[test]
fn a_decimal_comma_is_accepted_if_it_is_unambiguous() {
    let both = |first: &str, second: &str| {
        format!("is {first} or {second}; use the same decimal mark, a point or a comma, in all numbers")
    };
    for (cells, expected) in [
        (&["7,25", "-0,5", "8", "1.234,5"][..], vec!["7.25", "-0.5", "8.0", "1234.5"]),
        (&["7.25", "1.234"], vec!["7.25", "1.234"]),
        (&["0.925", "1.234"], vec!["0.925", "1.234"]),
        (&["7,25", "7.25"], vec!["7.25", &both("7.25", "725")]),
        (&["7.25", "7,25"], vec!["7.25", &both("7.25", "725")]),
        (&["1.234"], vec![&both("1.234", "1234")]),
        (&["1,234"], vec![&both("1.234", "1234")]),
        (&["0,5", "1,234"], vec!["0.5", "1.234"]),
        (&["1,234.5", "1,234,567.5", "-1,234,567", "1 234.5"], vec!["1234.5", "1234567.5", "-1234567.0", "1234.5"]),
        (&["1,234.5", "7,25"], vec!["1234.5", &both("7.25", "725")]),
        (&["1,234.5", "1,234", "0,500"], vec!["1234.5", "1234.0", &both("0.500", "0500")]),
        (&["1.234,5", "1.234", "12.34"], vec!["1234.5", "1234.0", &both("12.34", "1234")]),
        (&["1.234.567", "1.234", "-1.000", "7,5"], vec!["1234567.0", "1234.0", "-1000.0", "7.5"]),
        (&["7,25", "1,234.5"], vec!["7.25", "must be a number, or empty; send 1234.5"]),
        (&["7,", "1,2,3", "1.2.3"], vec!["7.0", "must be a number, or empty", "must be a number, or empty"]),
        (&["1 23", "0 234", "12 34,5"], vec!["must be a number, or empty"; 3]),
    ] {
        assert_eq!(read("size", ';', cells), expected, "{cells:?}");
    }
    for separator in [',', '\t', '|'] {
        for (cells, expected) in [
            (&["7,25", "-0,5", "8", "1.234,5"][..], vec!["7.25", "-0.5", "8.0", "1234.5"]),
            (&["1.234", "7.25"], vec!["1.234", "7.25"]),
            (&["1.234", "7,25"], vec!["1.234", &both("7.25", "725")]),
            (&["7,25", "1.234"], vec!["7.25", &both("1.234", "1234")]),
            (&["1,234"], vec![&both("1.234", "1234")]),
            (&["7.25", "1,234"], vec!["7.25", &both("1.234", "1234")]),
        ] {
            assert_eq!(read("size", separator, cells), expected, "{separator:?} {cells:?}");
        }
    }
    assert_eq!(read("number", ',', &["1,234,567", "1,234"]), ["1234567", "1234"]);
    assert_eq!(read("price", ';', &["7,25", "1000000,01"]), ["7.25", "1000000.01"]);
    assert_eq!(read("number", ';', &["2.000", "7,0"]), [both("2.000", "2000").as_str(), "7"]);
    assert_eq!(read("flag", ';', &["1,0"]), ["true"]);
}

#[test]
fn a_backslash_between_tabs_is_refused_if_the_file_may_have_escapes() {
    assert_eq!(read("note", '\t', &["C:\\new", "a\\\\b"]), ["\"C:\\\\new\"", "\"a\\\\\\\\b\""]);
    assert!(read("note", '\t', &["\\N"])[0].contains("is the text \\N or null"));
    assert_eq!(read("note", '\t', &["\"\\N\""]), ["\"\\\\N\""]);
    assert_eq!(read("number", '\t', &["\\N"]), ["null"]);
    assert_eq!(read("note", ',', &["\\N"]), ["\"\\\\N\""]);
    let (number, note) = (things().field("number").expect("a column"), things().field("note").expect("a column"));
    for order in [[(number, "\\N"), (note, "a\\tb")], [(note, "a\\tb"), (number, "\\N")]] {
        let mut state = ReadState::default();
        let [first, second] = order
            .map(|(column, text)| column.read_cell(Cell { text, is_quoted: false }, '\t', false, &mut state).err());
        assert_eq!(first, None);
        assert!(second.is_some_and(|message| message.contains("begins an escape")));
    }
}

#[test]
fn blanks_around_a_text_are_kept_unless_its_row_is_padded() {
    let name = passengers().field("name").expect("a name");
    let mut state = ReadState::default();
    for (text, is_quoted, is_padded, expected) in
        [(" a ", false, false, " a "), (" a ", false, true, "a"), (" a ", true, true, " a ")]
    {
        let value = name.read_cell(Cell { text, is_quoted }, ',', is_padded, &mut state);
        assert_eq!(value, Ok(Value::Text(expected.into())), "{text:?}");
    }
    assert_eq!(state.notes.trimmed, 1);
}
