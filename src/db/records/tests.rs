//! Texts are cut as a naive reader of the whole text cuts them, in whatever chunks they arrive.

use proptest::prelude::*;

use super::*;

/// The records with their lines, and why they end early.
type Seen = (Vec<(u64, Vec<String>)>, Option<Malformed>);

/// What a text is cut into that arrives in chunks of this size.
fn cut(text: &[u8], size: usize) -> Seen {
    let mut seen = Vec::new();
    let mut records = Records::default();
    let mut each = |record: &StringRecord| -> Result<(), Malformed> {
        seen.push((line_of(record), record.iter().map(str::to_owned).collect()));
        Ok(())
    };
    let pushed = text.chunks(size).try_for_each(|chunk| records.push(chunk, &mut each));
    let outcome = pushed.and_then(|()| records.finish(&mut each));
    (seen, outcome.err())
}

/// The same by looking at the text as a whole.
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
            let name = seen.first().and_then(|(_, header)| header.get(row.len()));
            let place = name.map_or(Place::Numbered(row.len() + 1), |name| Place::Named(name.clone()));
            let malformed = |fault| Some(Malformed { line: line(at), place, fault });
            if text[at..].starts_with('"') {
                // Doubled quotes are hidden, so that the first quote left is the closing one.
                let hidden = text[at + 1..].replace("\"\"", "\0\0");
                let Some(length) = hidden.find('"') else {
                    return (seen.clone(), malformed(Fault::Unclosed));
                };
                let behind = at + length + 2;
                if !(text[behind..].is_empty() || text[behind..].starts_with([',', '\r', '\n'])) {
                    return (seen.clone(), malformed(Fault::BehindQuote));
                }
                row.push(text[at + 1..behind - 1].replace("\"\"", "\""));
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
    fn a_text_is_cut_as_the_naive_reader_cuts_it(text in "\u{feff}?([ab☃]|[,\"\r\n]|\r\n|,\"|\",){0,24}", size in 1..9_usize) {
        prop_assert_eq!(cut(text.as_bytes(), size), naive(&text), "{:?}", text);
    }

    #[test]
    fn it_does_not_matter_in_what_chunks_a_text_arrives(text in prop::collection::vec(any::<u8>(), 0..80), size in 1..9_usize) {
        prop_assert_eq!(cut(&text, size), cut(&text, 1000));
    }

    #[test]
    fn what_the_csv_library_writes_is_read_back_the_same(
        rows in prop::collection::vec(["[^\r\n]{0,6}", "[ab,\"\r\n]{0,6}", "x"], 1..6), size in 1..40_usize,
    ) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        // A byte order mark at the beginning would not be part of the first value.
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

#[test]
fn each_fault_names_its_line_and_column() {
    for (text, line, place, fault) in [
        ("a,b\n1,\"2\n3,4\n", 2, Place::Named("b".to_owned()), Fault::Unclosed),
        ("a,b\n1,\"2\n3,\"4\"\n", 2, Place::Named("b".to_owned()), Fault::BehindQuote),
        ("a,b\r\n\r\n1,2\r\n\"1\" ,2\r\n", 4, Place::Named("a".to_owned()), Fault::BehindQuote),
        ("a,b\r\r1,2\r1,2\"\r", 4, Place::Named("b".to_owned()), Fault::StrayQuote),
        ("a,b\n\"1\r\n\n\",\"2", 4, Place::Named("b".to_owned()), Fault::Unclosed),
        ("a,b\n1,2,\"3", 2, Place::Numbered(3), Fault::Unclosed),
        ("\u{feff}\"a\"b,c\n", 1, Place::Numbered(1), Fault::BehindQuote),
        ("\n\na,\"b", 3, Place::Numbered(2), Fault::Unclosed),
        ("a\n \"1\"", 2, Place::Named("a".to_owned()), Fault::StrayQuote),
    ] {
        for size in 1..=text.len() {
            let malformed = Malformed { line, place: place.clone(), fault };
            assert_eq!(cut(text.as_bytes(), size).1, Some(malformed), "{text:?}");
        }
    }
    for text in [&b"a\n\xff"[..], b"a,b\n\xc3,\xa9", b"\xef\xbb", b"\xef\xbba"] {
        for size in 1..=text.len() {
            assert!(matches!(cut(text, size).1, Some(Malformed { fault: Fault::Encoding, .. })), "{text:?}");
        }
    }
}

#[test]
fn a_record_is_bounded_also_when_its_quote_never_closes() {
    let rows = "a,b\n".repeat(100_000);
    for (text, line, place, fault) in [
        (format!("a,b\n1,\"{rows}"), 2, Place::Named("b".to_owned()), Fault::UnclosedWithinLimit),
        (format!("a,b\n1,{}", "x".repeat(RECORD_MAX_BYTES)), 2, Place::Record, Fault::TooLong),
        (format!("a,b\n1{}", ",".repeat(VALUES_MAX)), 2, Place::Record, Fault::TooManyValues),
    ] {
        let malformed = Some(Malformed { line, place, fault });
        for size in [1000, 100_000] {
            assert_eq!(cut(text.as_bytes(), size).1, malformed, "{fault}");
        }
        let mut records = Records::default();
        let _ = records.push::<Malformed>(text.as_bytes(), &mut |_| Ok(())); // it is refused, as above
        assert!(records.bytes.capacity() <= 2 * RECORD_MAX_BYTES && records.ends.capacity() <= VALUES_MAX);
    }
}
