//! Compares the parser with a naive parser of the whole text, for chunks of any size.

use proptest::prelude::*;

use super::*;
use crate::csv::fault::{RECORD_MAX_BYTES, VALUES_MAX};

/// The records with their lines, and the error that ended parsing.
type Seen = (Vec<(u64, Vec<String>)>, Option<Malformed>);

/// Stores the records; a header fits if it has two columns, separated by a supported separator.
#[derive(Default)]
struct Kept(Vec<(u64, Vec<String>)>);

impl Sink for Kept {
    type Error = Malformed;

    fn fits(&self, header: &Cells) -> bool {
        header.count() == 2 && SEPARATORS.contains(&header.separator())
    }

    fn record(&mut self, record: &Cells) -> Result<(), Malformed> {
        self.0.push((record.line(), record.texts().map(str::to_owned).collect()));
        Ok(())
    }
}

/// Parses a text that arrives in chunks of this size.
fn cut(text: &[u8], size: usize) -> Seen {
    cut_as(None, text, size)
}

fn cut_as(encoding: Option<&'static Encoding>, text: &[u8], size: usize) -> Seen {
    let (mut records, mut kept) = (Records::new(encoding), Kept::default());
    let pushed = text.chunks(size).try_for_each(|chunk| records.push(chunk, &mut kept));
    let outcome = pushed.and_then(|()| records.finish(&mut kept));
    (kept.0, outcome.err())
}

/// Parses the text as a whole.
fn naive(text: &str) -> Seen {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let line = |at: usize| 1 + text[..at].replace("\r\n", "\n").matches(['\r', '\n']).count() as u64;
    let mut seen: Vec<(u64, Vec<String>)> = Vec::new();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start_matches(['\r', '\n']).len();
        if at == text.len() {
            return (seen, None);
        }
        let (begun_on, mut row) = (line(at), Vec::new());
        loop {
            let name = seen.first().and_then(|(_, header)| header.get(row.len())).map(|name| name.trim().to_owned());
            let name = name.filter(|name| !name.is_empty());
            let location = name.map_or(Location::Numbered(row.len() + 1), Location::Named);
            let on = line(at);
            let malformed = |fault| Some(Malformed { line: on, location, fault });
            let blanks = text[at..].len() - text[at..].trim_start_matches([' ', '\t']).len();
            if text[at + blanks..].starts_with('"') {
                at += blanks;
                // Doubled quotes are replaced, so that the first remaining quote is the closing one.
                let hidden = text[at + 1..].replace("\"\"", "\0\0");
                let Some(length) = hidden.find('"') else {
                    return (seen.clone(), malformed(Fault::Unclosed));
                };
                let quote = at + length + 1;
                let behind = text.len() - text[quote + 1..].trim_start_matches([' ', '\t']).len();
                if !(text[behind..].is_empty() || text[behind..].starts_with([',', '\r', '\n'])) {
                    return (seen.clone(), malformed(Fault::TextAfterQuote));
                }
                row.push(text[at + 1..quote].replace("\"\"", "\""));
                at = behind;
            } else {
                let end = text[at..].find([',', '\r', '\n']).map_or(text.len(), |length| at + length);
                if text[at..end].contains('"') {
                    return (seen.clone(), malformed(Fault::StrayQuote));
                }
                row.push(text[at..end].to_owned());
                at = end;
            }
            if !text[at..].starts_with(',') {
                break;
            }
            at += 1;
        }
        seen.push((begun_on, row));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_text_is_split_like_the_naive_parser_splits_it(
        text in "\u{feff}?([ab☃ ]|[,\"\r\n]|\r\n|,\"|\",){0,24}", size in 1..9_usize,
    ) {
        prop_assert_eq!(cut(text.as_bytes(), size), naive(&text), "{:?}", text);
    }

    #[test]
    fn the_result_does_not_depend_on_the_chunks_of_a_text(
        text in prop::collection::vec(any::<u8>(), 0..80), size in 1..9_usize,
    ) {
        prop_assert_eq!(cut(&text, size), cut(&text, 1000));
    }

    #[test]
    fn output_of_the_csv_library_round_trips(
        rows in prop::collection::vec(["[^\r\n\u{feff}]{0,6}", "[ab,\"\r\n]{0,6}", "x"], 1..6), size in 1..40_usize,
    ) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        // A leading byte order mark would not be part of the first value.
        writer.write_record(["header", "", ""]).expect("written");
        for row in &rows {
            writer.write_record(row).expect("written");
        }
        let (seen, malformed) = cut(&writer.into_inner().expect("flushed"), size);
        prop_assert_eq!(malformed, None);
        let seen: Vec<&[String]> = seen[1..].iter().map(|(_, row)| row.as_slice()).collect();
        prop_assert_eq!(seen, rows.iter().map(<[String; 3]>::as_slice).collect::<Vec<_>>());
    }
}

/// The result of the csv library, which tolerates malformed quoting.
fn library(text: &str, separator: char) -> Option<Vec<Vec<String>>> {
    let mut reader = csv::ReaderBuilder::new();
    reader.has_headers(false).delimiter(u8::try_from(separator).expect("ASCII"));
    let records = reader.from_reader(text.as_bytes()).into_records();
    records.map(|record| Some(record.ok()?.iter().map(str::to_owned).collect())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn accepted_texts_are_read_like_the_csv_library_for_any_separator(
        separator in prop::sample::select(&SEPARATORS[..]),
        text in "([ab☃]|[,\"\n]|\r\n|,\"|\",|,){0,24}", size in 1..9_usize,
    ) {
        let text = format!("head,er\n{text}").replace(',', &separator.to_string());
        let (seen, malformed) = cut(text.as_bytes(), size);
        // Only these differences are allowed: malformed quoting, and rows of a different width than the header.
        let is_even = seen.iter().all(|(_, row)| row.len() == 2);
        if malformed.is_none() && is_even {
            let seen: Vec<Vec<String>> = seen.into_iter().map(|(_, row)| row).collect();
            prop_assert_eq!(Some(seen), library(&text, separator), "{:?}", text);
        }
    }

    #[test]
    fn each_encoding_gives_the_same_records(
        row in prop::collection::vec("[a-zà-ÿ ]{0,6}", 2), size in 1..9_usize, crlf in any::<bool>(),
    ) {
        let text = ["header,é".to_owned(), row.join(",")].join(if crlf { "\r\n" } else { "\n" });
        let (seen, malformed) = cut(text.as_bytes(), 1000);
        prop_assert_eq!(malformed, None);
        let latin: Vec<u8> = text.chars().map(|letter| u8::try_from(u32::from(letter)).expect("one byte")).collect();
        prop_assert_eq!(&cut_as(Some(encoding_rs::WINDOWS_1252), &latin, size).0, &seen);
        for (mark, bytes) in [(0xFEFF_u16, u16::to_le_bytes as fn(u16) -> [u8; 2]), (0xFEFF, u16::to_be_bytes)] {
            let wide: Vec<u8> = std::iter::once(mark).chain(text.encode_utf16()).flat_map(bytes).collect();
            prop_assert_eq!(&cut(&wide, size).0, &seen);
        }
    }
}

#[test]
fn the_header_determines_the_separator_unless_a_sep_line_does() {
    let row = |text: &str| cut(text.as_bytes(), 3).0.last().map(|(line, row)| (*line, row.join("/")));
    for (text, expected) in [
        ("a;b\n1,5;2\n", (2, "1,5/2")),
        ("a\tb\n1\t2\n", (2, "1/2")),
        ("a|b\n1|2\n", (2, "1/2")),
        ("\r\n\r\n\"a,b;c\"|d\r\n1|2\r\n", (4, "1/2")),
        ("sep=;\na;b\n1;2\n", (3, "1/2")),
        ("\"SEP=|\"\r\na,b|c\r\n1,2|3\r\n", (3, "1,2/3")),
        ("sep=\t\na\tb\n1\t2\n", (3, "1/2")),
        // The sink accepts headers of two columns.
        ("a;b,c;d\n1;2,3;4\n", (2, "1;2/3;4")),
        ("a\n1;2\n", (2, "1;2")),
        ("a , \"b\" \n 1 , \"2\" \n", (2, " 1 /2")),
        ("a,b\n1,2\n\u{1a}", (2, "1/2")),
        ("a,b\n1,2\u{1a}", (2, "1/2")),
        ("a,b\n1,2\n\u{1a}\r\n", (2, "1/2")),
        ("a\n\u{1a}\n", (2, "\u{1a}")),
    ] {
        assert_eq!(row(text), Some((expected.0, expected.1.to_owned())), "{text:?}");
    }
    for (text, line, fault) in [
        ("a,b;c\n1,2\n", 1, Fault::Separators(',', ';')),
        ("\n\na|b\tc\n1,2\n", 3, Fault::Separators('\t', '|')),
        ("sep=:\na:b\n", 1, Fault::UnknownSeparator),
        ("a\0,\0b\0\n\0", 1, Fault::Null),
        ("a,b\n\u{1a}\n1,2\n", 3, Fault::AfterEnd),
    ] {
        assert_eq!(cut(text.as_bytes(), 2).1, Some(Malformed { line, location: Location::Record, fault }), "{text:?}");
    }
}

#[test]
fn binary_content_is_identified() {
    for (content, foreign) in [
        (&b"\x1f\x8b\x08\0\0"[..], Foreign::Gzip),
        (b"PK\x03\x04\x14\0\0\0[Content_Types].xml", Foreign::Zip),
        (b"\x28\xb5\x2f\xfd\x04", Foreign::Compressed("zstd")),
    ] {
        for size in 1..=content.len() {
            let malformed = Malformed { line: 1, location: Location::Record, fault: Fault::Foreign(foreign) };
            assert_eq!(cut(content, size).1, Some(malformed));
        }
    }
}

#[test]
fn invalid_bytes_are_reported_with_line_and_column() {
    for (text, line, location) in [
        (&b"a,b\r\n1,2\r\n1,\xff\r\n"[..], 3, Location::Named("b".to_owned())),
        (b"a,b\r1,2\r\xe9,2\r", 3, Location::Named("a".to_owned())),
        (b"a,b\n1,2\n1,\"x\n\n\xff\"\n", 5, Location::Named("b".to_owned())),
        (b"a,\xff\n", 1, Location::Numbered(2)),
        (b"a,b\n\n1,\xc3", 3, Location::Named("b".to_owned())),
    ] {
        for size in 1..=text.len() {
            let malformed = Malformed { line, location: location.clone(), fault: Fault::Encoding("UTF-8") };
            assert_eq!(cut(text, size).1, Some(malformed), "{text:?}");
        }
    }
}

#[test]
fn each_fault_names_its_line_and_column() {
    for (text, line, location, fault) in [
        ("a,b\n1,\"2\n3,4\n", 2, Location::Named("b".to_owned()), Fault::Unclosed),
        ("a,b\n1,\"2\n3,\"4\"\n", 2, Location::Named("b".to_owned()), Fault::TextAfterQuote),
        ("a,b\r\n\r\n1,2\r\n\"1\" x,2\r\n", 4, Location::Named("a".to_owned()), Fault::TextAfterQuote),
        ("a,b\r\r1,2\r1,2\"\r", 4, Location::Named("b".to_owned()), Fault::StrayQuote),
        ("a,b\n\"1\r\n\n\",\"2", 4, Location::Named("b".to_owned()), Fault::Unclosed),
        ("a,b\n1,2,\"3", 2, Location::Numbered(3), Fault::Unclosed),
        ("\u{feff}\"a\"b,c\n", 1, Location::Numbered(1), Fault::TextAfterQuote),
        ("\n\na,\"b", 3, Location::Numbered(2), Fault::Unclosed),
        ("a\nx \"1\"", 2, Location::Named("a".to_owned()), Fault::StrayQuote),
    ] {
        for size in 1..=text.len() {
            let malformed = Malformed { line, location: location.clone(), fault };
            assert_eq!(cut(text.as_bytes(), size).1, Some(malformed), "{text:?}");
        }
    }
    for text in [&b"a\n\xff"[..], b"a,b\n\xc3,\xa9", b"\xef\xbb", b"\xef\xbba"] {
        for size in 1..=text.len() {
            assert!(matches!(cut(text, size).1, Some(Malformed { fault: Fault::Encoding("UTF-8"), .. })), "{text:?}");
        }
    }
}

#[test]
fn a_record_is_bounded_also_when_its_quote_never_closes() {
    let rows = "a,b\n".repeat(100_000);
    for (text, line, location, fault) in [
        (format!("a,b\n1,\"{rows}"), 2, Location::Named("b".to_owned()), Fault::UnclosedWithinLimit),
        (format!("a,b\n1,{}", "x".repeat(RECORD_MAX_BYTES)), 2, Location::Record, Fault::TooLong),
        (format!("a,b\n1{}", ",".repeat(VALUES_MAX)), 2, Location::Record, Fault::TooManyValues),
    ] {
        let malformed = Some(Malformed { line, location, fault });
        for size in [1000, 100_000] {
            assert_eq!(cut(text.as_bytes(), size).1, malformed, "{fault}");
        }
        let mut records = Records::new(None);
        let _ = records.push(text.as_bytes(), &mut Discard); // it is refused, as above
        let record = &records.splitter.record;
        assert!(record.text.capacity() <= 2 * RECORD_MAX_BYTES && record.ends.capacity() <= 2 * VALUES_MAX);
    }
}
