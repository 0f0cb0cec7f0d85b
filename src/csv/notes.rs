//! Notes on lenient conversions and omissions, for the sender of the data.

use super::records::Records;
use super::separator;

/// Maximum number of listed column names.
const LISTED_MAX: usize = 20;
/// Maximum characters per listed name: nginx forwards 20 KiB of response headers, one of which lists the names percent-encoded.
const SHOWN_MAX_CHARS: usize = 40;

/// How columns and JSON members that a table does not have are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownColumns {
    /// The request is refused.
    Refused,
    /// They are ignored.
    Ignored,
}

/// The conversions and omissions, with counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// The separator, unless it is a comma.
    pub separator: Option<char>,
    /// Ignored columns that the resource does not have.
    pub unknown: Vec<String>,
    /// Ignored columns without a name.
    pub nameless: u64,
    /// Ignored rows without values.
    pub empty_rows: u64,
    /// Words such as `NA` that were read as null.
    pub nulls: u64,
    /// Numbers with a decimal comma.
    pub decimal_commas: u64,
    /// Numbers with thousands separators.
    pub thousands: u64,
    /// Words such as `yes` that were read as booleans.
    pub booleans: u64,
    /// Values of an enumeration in a different letter case.
    pub letter_cases: u64,
    /// Dates in a format other than ISO 8601.
    pub dates: u64,
    /// Texts without the surrounding spaces.
    pub trimmed: u64,
}

impl Notes {
    /// A sentence for each deviation; `records` is the parsed text, if it was CSV.
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
            separator.map(|separator| format!("{} separate the cells", separator::name(separator))),
            self.unknown_columns(),
            counted(
                self.nameless,
                "column without a name, which counts the rows or is empty, was left out",
                "columns without a name, which count the rows or are empty, were left out",
            ),
            counted(self.empty_rows, "row without a value was left out", "rows without a value were left out"),
            counted(self.nulls, "word such as NA was read as null", "words such as NA were read as null"),
            counted(self.decimal_commas, "number has a decimal comma", "numbers have a decimal comma"),
            counted(self.thousands, "number has thousands separators", "numbers have thousands separators"),
            counted(self.booleans, "word such as yes was read as a boolean", "words such as yes were read as booleans"),
            counted(
                self.letter_cases,
                "value was read in a different letter case",
                "values were read in a different letter case",
            ),
            counted(
                self.dates,
                "date was read in a format other than 2026-01-31",
                "dates were read in formats other than 2026-01-31",
            ),
            counted(self.trimmed, "text had surrounding spaces removed", "texts had surrounding spaces removed"),
            records
                .is_some_and(Records::has_end_character)
                .then(|| "the end-of-file character (Ctrl-Z) was left out".to_owned()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Adds the name of an ignored column.
    pub fn left_out(&mut self, name: &str) {
        let name: String = name.chars().take(SHOWN_MAX_CHARS).collect();
        // One more than is listed, so that the note can state that there are more.
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
