//! `resource infer`: import accepts every row of the file with the inferred description, and no value changes.

use std::collections::BTreeSet;
use std::fs;

use csv::{Terminator, WriterBuilder};
use proptest::prelude::*;
use pycrudapi::csv::cells::Cells;
use pycrudapi::csv::file;
use pycrudapi::csv::notes::UnknownColumns;
use pycrudapi::csv::splitter::Sink;
use pycrudapi::db::copy::TableError;
use pycrudapi::resource::column::cell::is_null_word;
use pycrudapi::resource::csv::Rows;
use pycrudapi::resource::definition::Resource;
use pycrudapi::resource::description::header_key;
use pycrudapi::resource::infer::infer;
use pycrudapi::resource::kind::Kind;
use pycrudapi::resource::value::Value;

use super::{loaded, program, refused, succeeded};

/// The inferred description of a file.
#[track_caller]
fn described(csv: &str) -> String {
    infer("things", "things.csv", csv.as_bytes(), None).unwrap_or_else(|error| panic!("{error}\n{csv}")).text().0
}

/// The error for a file from which nothing can be inferred.
#[track_caller]
fn error(csv: &str) -> String {
    infer("things", "things.csv", csv.as_bytes(), None).expect_err(csv).to_string()
}

/// The rows imported from a file.
fn imported(description: &str, csv: &[u8]) -> Result<Vec<Vec<Value<'static>>>, TableError> {
    let mut import = Import { resource: loaded(description), rows: None, values: Vec::new() };
    file::read(csv, None, &mut import, |_, _| true)?;
    Ok(import.values)
}

struct Import {
    resource: &'static Resource,
    rows: Option<Rows>,
    values: Vec<Vec<Value<'static>>>,
}

impl Sink for Import {
    type Error = TableError;

    fn fits(&self, header: &Cells) -> bool {
        Rows::with_header(self.resource, header, UnknownColumns::Refused).is_ok()
    }

    fn record(&mut self, record: &Cells) -> Result<(), TableError> {
        match &mut self.rows {
            None => self.rows = Some(Rows::with_header(self.resource, record, UnknownColumns::Refused)?),
            Some(rows) => {
                let row = rows.row(record)?.map(|row| row.values.into_iter().map(Value::into_owned).collect());
                self.values.extend(row);
            }
        }
        Ok(())
    }
}

/// The lines after the name of a column.
fn column<'a>(description: &'a str, name: &str) -> &'a str {
    let (_, behind) = description
        .split_once(&format!("name = \"{name}\"\n"))
        .unwrap_or_else(|| panic!("no {name} in\n{description}"));
    behind.split("\n\n").next().unwrap_or(behind).trim_end()
}

#[test]
fn each_type_is_inferred_from_its_values() {
    for (values, expected) in [
        (&["true", "false", "true"][..], "type = \"boolean\""),
        (&["TRUE", "False", "true"], "type = \"boolean\""),
        (&["0", "1", "1"], "type = \"integer\"\nformat = \"int32\""),
        (&["-5", "", "7"], "type = \"integer\"\nformat = \"int32\"\nnullable = true"),
        (&["1073741825", "1"], "type = \"integer\"\nformat = \"int64\""),
        (&["9223372036854775807", "-9223372036854775808"], "type = \"integer\"\nformat = \"int64\""),
        (&["1.5", "2", "-1e3"], "type = \"number\""),
        (&["1.0", "2.0"], "type = \"number\""),
        (&["2026-01-31", "2024-02-29"], "type = \"string\"\nformat = \"date\""),
        (&["2026-01-31T12:00:00Z", "2026-01-31 12:00:00.5+02:00"], "type = \"string\"\nformat = \"date-time\""),
        (&["0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10", ""], "type = \"string\"\nformat = \"uuid\"\nnullable = true"),
        // No value may change: codes keep their leading zeros, and long numbers their digits.
        (&["007", "12", "31"], "type = \"string\"\nmaxLength = 50"),
        (&["00.5", "1.5"], "type = \"string\"\nmaxLength = 50"),
        (&["9223372036854775808", "1"], "type = \"string\"\nmaxLength = 50"),
        (&["1.5", "9007199254740993"], "type = \"string\"\nmaxLength = 50"),
        (&["2026-01-31", "2026-02-30"], "type = \"string\"\nmaxLength = 50"),
        // Words for a missing value are null in a column of numbers, and ordinary text in other columns.
        (&["1", "NaN"], "type = \"integer\"\nformat = \"int32\"\nnullable = true"),
        (&["NA", "1"], "type = \"integer\"\nformat = \"int32\"\nnullable = true"),
        (&["2.5", "NA", "#N/A"], "type = \"number\"\nnullable = true"),
        (&["a", "NA", "b"], "type = \"string\"\nmaxLength = 50"),
        (&["yes", "no"], "type = \"boolean\""),
        (&["t", "f"], "type = \"boolean\""),
        (&["f", "f"], "type = \"string\"\nmaxLength = 50"),
        (&["F", "NA", "F"], "type = \"string\"\nmaxLength = 50"),
        (&["NO", "no"], "type = \"string\"\nmaxLength = 50"),
        (&["+34600123456", "+34600123457"], "type = \"string\"\nmaxLength = 50"),
        (&["12E4", "98E7"], "type = \"string\"\nmaxLength = 50"),
        (&["1.5E+10", "2e3"], "type = \"number\""),
        (&["3.14159265358979323846", "1.5"], "type = \"string\"\nmaxLength = 50"),
        (
            &["d41d8cd98f00b204e9800998ecf8427e", "0192d3c57a1e7cc39a415f6b8e2d9c10"],
            "type = \"string\"\nmaxLength = 100",
        ),
        (&["1", "inf"], "type = \"string\"\nmaxLength = 50"),
        (&["2026-01-31 12:00:00", "2026-01-31 12:00:00"], "type = \"string\"\nmaxLength = 50"),
        (&["a", "", "b"], "type = \"string\"\nnullable = true\nmaxLength = 50"),
        (&["a", " ", "b"], "type = \"string\"\nmaxLength = 50"),
        (&["", "", ""], "type = \"string\"\nnullable = true\nmaxLength = 50"),
        (&["a", "b", "a", "b", "a", "b"], "type = \"string\"\nenum = [\"a\", \"b\"]"),
        (&["a", " b", "a", "b ", "a", "b", "", " "], "type = \"string\"\nnullable = true\nenum = [\"a\", \"b\"]"),
        // Too few rows, a value that occurs once, a single distinct value, or values that an enum cannot contain.
        (&["a", "b", "a", "b"], "type = \"string\"\nmaxLength = 50"),
        (&["a", "a", "a", "a", "a", "b"], "type = \"string\"\nmaxLength = 50"),
        (&["a", "a", "a", "a"], "type = \"string\"\nmaxLength = 50"),
        (&["\"a,\"", "b", "\"a,\"", "b", "\"a,\"", "b"], "type = \"string\"\nmaxLength = 50"),
    ] {
        let csv = format!("other,value\n{}", values.iter().map(|value| format!("x,{value}\n")).collect::<String>());
        let text = described(&csv);
        assert_eq!(column(&text, "value"), expected, "{csv}");
        assert_eq!(imported(&text, csv.as_bytes()).expect(&csv).len(), values.len());
    }
    let many: String = (0..39).map(|index| format!("v{}\n", index % 13)).collect();
    assert_eq!(column(&described(&format!("value\n{many}")), "value"), "type = \"string\"\nmaxLength = 50");
    for (length, room) in [(25, 50), (26, 100), (500, 1000), (2501, 10_000), (9999, 10_000), (10_000, 10_000)] {
        let letter = if length < 5000 { "é" } else { "e" }; // a record has a limit in bytes
        let text = described(&format!("value\n{}\n", letter.repeat(length)));
        assert_eq!(column(&text, "value"), format!("type = \"string\"\nmaxLength = {room}"));
    }
}

#[test]
fn a_list_of_numbers_does_not_decide_the_decimal_mark_of_other_columns() {
    for (csv, types) in [
        ("ids,price\n\"12,15\",1.5\n\"1,2,3\",2.5\nx,3\n", ["string", "number"]),
        ("price,ids\n1.5,\"12,15\"\n2.5,\"1,2,3\"\n", ["number", "string"]),
        // The comma of the first column decides what 7,225 means.
        ("age;fare\n0,92;7,225\n0,5;8,05\n", ["number", "number"]),
        ("age;fare\n0,92;7,225\nx;8,05\n", ["string", "string"]),
        // All numbers of a file must have the same mark.
        ("a;b\n7,25;1.5\n8,25;2.5\n", ["number", "string"]),
        ("a;b\n8;1.5\n8,25;2.5\n", ["string", "number"]),
        ("a;b\n;1.5\n8,25;2.5\n9,5;x\n", ["number", "string"]),
    ] {
        let text = described(csv);
        let found: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("type = \"")?.strip_suffix('"')).collect();
        assert_eq!(found, types, "{csv}");
        assert_eq!(imported(&text, csv.as_bytes()).expect(csv).len(), csv.lines().count() - 1);
    }
}

#[test]
fn inferred_facts_are_written_as_comments() {
    let text = described("a,b,at\n1,x,2016-10-01 00:00:00.004\n2,y,2016-10-01 00:15:00\nx/a,,2016-10-01 00:30:00\n");
    for part in [
        "# Inferred from things.csv: 3 rows.",
        "# 3 values, 3 distinct, 0 empty; longest: 3 characters\n# a text because of \"x/a\" on line 4; the values before it are integers\n[[column]]\nname = \"a\"",
        "# 2 values, 2 distinct, 1 empty; longest: 1 character\n[[column]]\nname = \"b\"",
        "without an offset from UTC",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let missing = described("a,b\n1,NA\n2,NA\n");
    assert!(!missing.contains("offset from UTC"), "{missing}");
    let numbers = "# The header consists of numbers. If it is a row, add a header to the file.\n";
    assert!(described("1,2.5\n3,4\n").contains(numbers));
    assert!(!described("station,2024,2025\na,3,4\n").contains(numbers));
    let rows: String = (0..1500).map(|row| format!("{row}\n")).collect();
    assert!(
        described(&format!("id\n{rows}"))
            .contains("1500 values, more than 1000 distinct, 0 empty; longest: 4 characters")
    );
}

#[test]
fn headers_become_names_and_are_still_accepted_as_headers() {
    for (header, name) in [
        ("name", "name"),
        ("id_entity", "id_entity"),
        ("TimeInstant", "TimeInstant"),
        ("Gross tonnage (GT)", "grossTonnageGt"),
        ("IMO No.", "imoNo"),
        ("2020", "column2020"),
        ("_id", "id"),
        ("1st_name", "column1stName"),
        ("Größe", "grosse"),
        ("Länge über alles", "langeUberAlles"),
        ("Číslo parcely", "cisloParcely"),
        ("Łączna ilość", "lacznaIlosc"),
        ("Şehir adı", "sehirAdi"),
        ("Cafe\u{301}", "cafe"),
        ("Имя", "column2"),
        ("order", "order_"),
        ("Count", "Count_"),
        (" padded ", "padded"),
        ("a\nb", "aB"),
    ] {
        let csv = format!("first,\"{header}\"\n1,2\n");
        let text = described(&csv);
        let resource = loaded(&text);
        assert_eq!(resource.fields()[1].name, name, "{text}");
        assert_eq!(column(&text, name).contains("csv = ["), header.trim() != name, "{text}");
        assert_eq!(imported(&text, csv.as_bytes()).expect(header).len(), 1);
    }
    let text = described("a%c,a-é,A C D,name two\n1,2,3,4\n");
    assert_eq!(loaded(&text).field_names, "aC, aE, aCD, nameTwo");
    let long = "x".repeat(200);
    let text = described(&format!("{long},{long}y\n1,2\n"));
    assert_eq!(loaded(&text).fields().len(), 2, "{text}");
    let key = "uuid,name\n0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10,a\n";
    assert_eq!(loaded(&described(key)).field_names, "name");
}

#[test]
fn unimportable_files_are_refused_with_the_position() {
    for (csv, expected) in [
        ("a,,b\n1,x,3\n", "line 2, column : has no name, so it must number the rows"),
        ("a,\" \"\n1,2\n1,4\n", "line 3, column : has no name"),
        ("a,b;c\n1,2\n", "line 1: can be read with commas and with semicolons as separators"),
        ("#,a\n1,2\n", "line 1: column 1, \"#\", has no letter or digit; rename it in the file"),
        ("a,b,A\n1,2,3\n", "line 1: columns 1 and 3, \"a\" and \"A\", are the same to import"),
        ("a_b,a b\n1,2\n", "line 1: columns 1 and 2, \"a_b\" and \"a b\", are the same to import"),
        ("a,b\n1,2\n3\n", "line 3: must have 2 cells like the header, but has 1"),
        ("a,b\n1,\"2\n", "line 2, column b: has an opening quote that is never closed"),
        ("a\n1\0\n", "line 2, column a: must be a text of 0 to 10000 characters without U+0000"),
        ("uuid,a\n7,2\n", "line 2, column uuid: must be a uuid, because a column of this name is the key"),
        ("", "it has no rows"),
        ("a,b\n", "it has no rows"),
        ("\u{feff}\n", "it has no rows"),
    ] {
        let said = error(csv);
        assert!(said.starts_with(expected) || said.contains(expected), "{csv:?}: {said}");
    }
    assert!(error("'a','b'\n'1','2'\n").contains("column 'a' is in quotes other than \""));
    let both = error("a,#,A\n1,2,3\n");
    assert!(both.contains("column 2, \"#\"") && both.contains("columns 1 and 3"), "{both}");
    let long = error(&format!("a\n{}\n", "x".repeat(10_001)));
    assert!(long.starts_with("line 2, column a: must be a text of 0 to 10000 characters"), "{long}");
    let wide = error(&format!("{}\n", "a,".repeat(1000)));
    assert_eq!(wide, "line 1: must be a row of at most 1000 cells");
    assert!(infer("things", "-", &b"a\n\xff\n"[..], None).is_err());
}

#[test]
fn the_program_names_the_resource_after_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("My Vessels (2020).csv"), "name,built\nAda,1999\n").expect("written");
    let said = succeeded(&program(folder.path(), &["infer", "My Vessels (2020).csv"]));
    assert_eq!(said, "my-vessels-2020.toml: 2 columns\n");
    let checked = succeeded(&program(folder.path(), &["check", "my-vessels-2020.toml"]));
    assert_eq!(checked, "my-vessels-2020.toml: 2 columns, no fault\n");
    fs::write(folder.path().join("2020.csv"), "name,\nAda,x\n").expect("written");
    let said = refused(&program(folder.path(), &["infer", "2020.csv"]), 1);
    assert!(said.contains("--name"), "{said}");
    let said = refused(&program(folder.path(), &["infer", "2020.csv", "--name", "Vessels"]), 1);
    assert!(said.contains("must be 1 to 40 characters of a-z"), "{said}");
    let said = refused(&program(folder.path(), &["infer", "2020.csv", "--name", "steps"]), 1);
    assert!(said.contains("the name steps is reserved"), "{said}");
    let said = refused(&program(folder.path(), &["infer", "2020.csv", "--name", "vessels"]), 1);
    assert!(said.contains("2020.csv") && said.contains("has no name"), "{said}");
    let header: Vec<String> = (0..251).map(|index| format!("c{index}")).collect();
    fs::write(folder.path().join("wide.csv"), format!("{}\n{}\n", header.join(","), ["1"; 251].join(",")))
        .expect("written");
    let said = refused(&program(folder.path(), &["infer", "wide.csv"]), 1);
    assert!(said.contains("a resource must have 1 to 250 columns"), "{said}");
}

/// Cells of a column of one type, some of them empty.
fn cells() -> impl Strategy<Value = BoxedStrategy<String>> {
    let full = prop_oneof![
        Just(prop::sample::select(vec!["true", "False", "TRUE"]).prop_map(str::to_owned).boxed()),
        Just(any::<i16>().prop_map(|value| value.to_string()).boxed()),
        Just(any::<i64>().prop_map(|value| value.to_string()).boxed()),
        Just(any::<f64>().prop_map(|value| value.to_string()).boxed()),
        Just((-1000.0..1000.0_f64).prop_map(|value| format!("{value:.2}")).boxed()),
        Just((1..=9999_u16, 1..=12_u8, 1..=31_u8).prop_map(|(y, m, d)| format!("{y:04}-{m:02}-{d:02}")).boxed()),
        Just("20[0-9]{2}-0[1-9]-[12][0-9][T ][01][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]0[0-9]:30)".boxed()),
        Just("20[0-9]{2}-0[1-9]-[12][0-9] [01][0-9]:[0-5][0-9]:[0-5][0-9]".boxed()),
        Just(any::<u128>().prop_map(|value| uuid::Uuid::from_u128(value).to_string()).boxed()),
        Just("[a-c]".boxed()),
        Just("[0-9.eE+-]{1,6}".boxed()),
        Just("[a-z ,\";\\\\'é☃\n]{0,12}".boxed()),
        // A byte order mark at the start of a row is refused.
        Just("[^\0\r\u{feff}]{0,30}".boxed()),
    ];
    (full, 0..4_u32).prop_map(|(full, empty)| {
        prop_oneof![9 => full, empty => Just(String::new()), empty / 3 => Just("  ".to_owned())].boxed()
    })
}

/// A file: headers that import can distinguish, and rows.
fn file() -> impl Strategy<Value = (Vec<String>, Vec<Vec<String>>)> {
    let headers = prop::collection::vec(
        prop_oneof![
            "[a-zA-Z_ ()%éß]{1,12}",
            "[^\0\r;\t|'`‘“„«]{1,8}",
            "(order|count|limit|by|not|version|select|1|99)"
        ],
        1..8,
    )
    .prop_map(|headers| {
        let mut keys = BTreeSet::from([String::new(), "uuid".to_owned()]);
        let mut headers: Vec<String> = headers.into_iter().filter(|header| keys.insert(header_key(header))).collect();
        headers.push("last one".to_owned());
        headers.dedup_by_key(|header| header_key(header));
        headers
    })
    .prop_filter("headers differ", |headers| {
        headers.iter().map(|header| header_key(header)).collect::<BTreeSet<_>>().len() == headers.len()
    });
    (headers, prop::collection::vec(cells(), 8))
        .prop_flat_map(|(headers, cells)| {
            let row: Vec<BoxedStrategy<String>> = cells.into_iter().take(headers.len()).collect();
            let width = row.len();
            (Just(headers[..width].to_vec()), prop::collection::vec(row, 1..40))
        })
        // Rows without a value are skipped by import.
        .prop_map(|(headers, mut rows)| {
            rows.retain(|row| row.iter().any(|cell| !cell.trim().is_empty()));
            if rows.is_empty() {
                rows.push(vec!["x".to_owned(); headers.len()]);
            }
            (headers, rows)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_row_is_imported_and_no_value_changes((headers, rows) in file(), crlf in any::<bool>()) {
        let terminator = if crlf { Terminator::CRLF } else { Terminator::Any(b'\n') };
        let mut writer = WriterBuilder::new().terminator(terminator).from_writer(Vec::new());
        writer.write_record(&headers).expect("written");
        for row in &rows {
            writer.write_record(row).expect("written");
        }
        let csv = writer.into_inner().expect("flushed");
        let sketch = infer("things", "things.csv", csv.as_slice(), None).expect("it is CSV");
        let text = sketch.text().0;
        let resource = loaded(&text);
        // If every header begins with a space, spaces are part of the separators.
        let is_padded = headers.len() > 1 && headers[1..].iter().all(|header| header.starts_with([' ', '\t']));
        let imported = imported(&text, &csv);
        let imported = imported.map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(imported.len(), rows.len());
        for (row, cells) in imported.iter().zip(&rows) {
            for ((value, cell), column) in row.iter().zip(cells).zip(resource.fields()) {
                let fits = match (&column.kind, value) {
                    (Kind::Text { .. }, Value::Null) => cell.is_empty(),
                    (Kind::Text { .. }, Value::Text(text)) => {
                        text == cell || (is_padded && text == cell.trim_matches([' ', '\t']))
                    }
                    (Kind::Boolean, Value::Boolean(value)) => {
                        let words = if *value { ["true", "yes", "t", "y", "on"] } else { ["false", "no", "f", "n", "off"] };
                        words.contains(&cell.trim().to_lowercase().as_str())
                    }
                    (_, Value::Null) => cell.trim().is_empty() || is_null_word(cell.trim()),
                    (Kind::Number { .. }, Value::Number(number)) => cell.trim().parse() == Ok(*number),
                    (Kind::Integer { .. }, value) => cell.trim().trim_start_matches("-0").is_empty() || value.to_string() == cell.trim(),
                    (Kind::DateTime, Value::DateTime(_)) => true,
                    (_, value) => value.to_string().eq_ignore_ascii_case(cell.trim()),
                };
                prop_assert!(fits, "{:?} became {:?}\n{}", cell, value, text);
            }
        }
    }
}
