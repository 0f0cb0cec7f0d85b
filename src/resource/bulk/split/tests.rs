//! Bodies are split into the same rows whatever the size of their chunks.

use proptest::prelude::*;

use super::*;
use crate::csv::cells::Cells;

/// Every row as text, with its line.
#[derive(Debug, Default, PartialEq)]
struct Seen(Vec<(u64, Vec<String>)>);

impl RowSink for Seen {
    fn json(&mut self, begin: Position, text: &[u8]) {
        self.0.push((begin.line, vec![String::from_utf8_lossy(text).trim().to_owned()]));
    }
}

impl Sink for Seen {
    type Error = SplitError;

    fn fits(&self, _: &Cells) -> bool {
        true
    }

    fn record(&mut self, record: &Cells) -> Result<(), SplitError> {
        self.0.push((record.line(), record.texts().map(str::to_owned).collect()));
        Ok(())
    }
}

fn splitters() -> [Splitter; 3] {
    [Splitter::Array(Array::default()), Splitter::Lines(Lines::default()), Splitter::Csv(Box::new(Records::new(None)))]
}

/// Splits a body that arrives in chunks of this size.
fn cut(mut splitter: Splitter, body: &[u8], size: usize) -> (Seen, Result<(), SplitError>) {
    let mut seen = Seen::default();
    let outcome = body.chunks(size).try_for_each(|chunk| splitter.push(chunk, &mut seen));
    let outcome = outcome.and_then(|()| splitter.finish(&mut seen));
    (seen, outcome)
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Into::into),
        any::<i32>().prop_map(Into::into),
        ".{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(".{0,4}", inner, 0..4)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn an_array_and_lines_are_split_into_their_values(
        values in prop::collection::vec(json(), 0..6), size in 1..40_usize, pretty in any::<bool>(),
    ) {
        let body = if pretty { serde_json::to_vec_pretty(&values) } else { serde_json::to_vec(&values) };
        let [array, ..] = splitters();
        let (seen, outcome) = cut(array, &body.expect("serialised"), size);
        prop_assert_eq!(outcome, Ok(()));
        let read = |seen: &Seen| -> Vec<serde_json::Value> {
            seen.0.iter().map(|(_, row)| serde_json::from_str(&row[0]).expect("JSON")).collect()
        };
        prop_assert_eq!(&read(&seen), &values);
        for ends in ["\n\n", "\r\n\r\n", "\r\r", "\n\r\n", "\n\r"] {
            let [_, lines, _] = splitters();
            let body: String = values.iter().map(|value| format!("{value}{ends}")).collect();
            let (seen, outcome) = cut(lines, body.as_bytes(), size);
            prop_assert_eq!(outcome, Ok(()));
            prop_assert_eq!(&read(&seen), &values);
            prop_assert!(seen.0.iter().enumerate().all(|(index, (line, _))| *line == 2 * index as u64 + 1), "{:?}", ends);
        }
    }

    #[test]
    fn a_body_is_split_the_same_in_chunks_of_any_size(body in prop::collection::vec(any::<u8>(), 0..80), size in 1..9_usize) {
        for (small, whole) in splitters().into_iter().zip(splitters()) {
            prop_assert_eq!(cut(small, &body, size), cut(whole, &body, 1000));
        }
    }
}

#[test]
fn a_body_that_cannot_be_split_reports_where_and_what_is_expected() {
    for (which, body, line, detail) in [
        (0, "", 1, "must be a JSON array; the body is empty"),
        (0, "\n{}", 2, "must be the opening bracket of a JSON array"),
        (0, "[1,\n,2]", 2, "must be a JSON object"),
        (0, "[1,\n]", 2, "must be a JSON object, or the end of the array without a comma before it"),
        (0, "[1\n}", 2, "must be a comma or the array's closing bracket"),
        (0, "[1] x", 1, "must be the end of the body after the array"),
        (0, "[1,\"a", 1, "must be the rest of the array; the body ends too early"),
        (2, "a\n\n\"", 3, "a has an opening quote that is never closed"),
        (2, "a,\"\"b", 1, "column 2 has text after its closing quote"),
    ] {
        let [array, lines, table] = splitters();
        let (_, outcome) = cut([array, lines, table].into_iter().nth(which).expect("one"), body.as_bytes(), 3);
        let error = outcome.expect_err(body);
        let message = format!("{} {}", error.field, error.detail);
        assert_eq!(error.line, line, "{body}");
        assert!(message.trim_start().starts_with(detail), "{body}: {message}");
    }
    let long = "a".repeat(ROW_MAX_BYTES);
    for (splitter, body) in splitters().into_iter().zip([format!("[\"{long}"), format!("\"{long}"), format!("b{long}")])
    {
        assert_eq!(
            cut(splitter, body.as_bytes(), 1000).1,
            Err(SplitError::new(1, "must be a row of at most 16384 bytes"))
        );
    }
}
