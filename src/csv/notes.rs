//! What was taken for what it means and not for what it says in a file: told to whoever sent it.

use super::records::Records;
use super::separator::called;

/// Names of columns that are listed.
const LISTED_MAX: usize = 20;
/// Characters of a name that are listed: nginx hands on 20 KiB of headers, one of which lists them percent-encoded.
const SHOWN_MAX_CHARS: usize = 40;

/// What becomes of columns, and of members of JSON, that a table does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownColumns {
    /// The whole text is refused.
    Refused,
    /// They are left out.
    Ignored,
}

/// What was taken otherwise than it was written, and how often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// What separates the cells, if it is no comma.
    pub separator: Option<char>,
    /// Columns that were left out, because the resource does not have them.
    pub unknown: Vec<String>,
    /// Columns without a name that were left out.
    pub nameless: u64,
    /// Rows without a value that were left out.
    pub empty_rows: u64,
    /// Words such as `NA` that were read as null.
    pub nulls: u64,
    /// Numbers with a decimal comma.
    pub decimal_commas: u64,
    /// Numbers with marks between their thousands.
    pub thousands: u64,
    /// Words such as `yes` that were read as booleans.
    pub booleans: u64,
    /// Values of an enumeration in another letter case.
    pub letter_cases: u64,
    /// Days in another form than that of ISO 8601.
    pub dates: u64,
    /// Texts without the blanks around them.
    pub trimmed: u64,
}

impl Notes {
    /// A sentence for each, none for what is as expected; `records` is the text that was read, if it was CSV.
    pub fn sentences(&self, records: Option<&Records>) -> Vec<String> {
        let counted = |count: u64, one: &str, many: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {many}")),
        };
        let separator = self.separator.filter(|separator| *separator != ',');
        let encoding = records.map(Records::encoding).filter(|encoding| *encoding != "UTF-8");
        [
            encoding.map(|encoding| format!("the text was read as {encoding}")),
            separator.map(|separator| format!("{} separate the cells", called(separator))),
            self.unknown_columns(),
            counted(
                self.nameless,
                "column without a name, which counts the rows or is empty, was left out",
                "columns without a name, which count the rows or are empty, were left out",
            ),
            counted(self.empty_rows, "row without a value was left out", "rows without a value were left out"),
            counted(self.nulls, "word such as NA was read as null", "words such as NA were read as null"),
            counted(self.decimal_commas, "number has a decimal comma", "numbers have a decimal comma"),
            counted(
                self.thousands,
                "number has marks between its thousands",
                "numbers have marks between their thousands",
            ),
            counted(self.booleans, "word such as yes was read as a boolean", "words such as yes were read as booleans"),
            counted(
                self.letter_cases,
                "value was taken in another letter case",
                "values were taken in another letter case",
            ),
            counted(
                self.dates,
                "date was read from another form than 2026-01-31",
                "dates were read from other forms than 2026-01-31",
            ),
            counted(self.trimmed, "text lost the blanks around it", "texts lost the blanks around them"),
            records
                .is_some_and(Records::has_end_character)
                .then(|| "the end-of-file character (Ctrl-Z) was left out".to_owned()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Adds the name of something that was left out.
    pub fn left_out(&mut self, name: &str) {
        let name: String = name.chars().take(SHOWN_MAX_CHARS).collect();
        // One more than is listed, so that it is said that there are more.
        if self.unknown.len() <= LISTED_MAX && !self.unknown.contains(&name) {
            self.unknown.push(name);
        }
    }

    fn unknown_columns(&self) -> Option<String> {
        let listed: Vec<String> = self.unknown.iter().take(LISTED_MAX).map(|name| format!("{name:?}")).collect();
        let more = if self.unknown.len() > LISTED_MAX { " and more" } else { "" };
        match listed.as_slice() {
            [] => None,
            [name] => Some(format!("the unknown column {name} was left out")),
            names => Some(format!("the unknown columns {}{more} were left out", names.join(", "))),
        }
    }
}
