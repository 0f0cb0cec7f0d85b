//! Checks a description for every error that can be found without a database.

use std::collections::BTreeSet;

use toml::Spanned;

use super::description::{
    ColumnDescription, Description, Fault, Index, IndexName, Operation, Statistics, header_key, key_at, line_at,
};
use super::identifier::snake_case;
use super::kind::Kind;

/// Maximum number of columns; with the key they fit into a JSON object (`MEMBERS_MAX`) and a CSV record (`VALUES_MAX`).
const COLUMNS_MAX: usize = 250;
/// PostgreSQL truncates longer names.
pub const IDENTIFIER_MAX: usize = 63;
/// Names that have another meaning in queries and rows.
pub const RESERVED: &[&str] =
    &["uuid", "version", "count", "and", "or", "not", "select", "order", "limit", "after", "before", "by"];

/// All errors of a description that parses.
pub fn faults(text: &str, description: &Description) -> Vec<Fault> {
    let mut faults = Vec::new();
    let name = description.name.as_ref();
    let mut say = |offset: usize, message: String| faults.push(Fault { line: line_at(text, offset), message });
    let name_at = description.name.span().start;
    let is_name = name.starts_with(|letter: char| letter.is_ascii_lowercase())
        && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-');
    if !is_name || name.len() > 40 {
        say(name_at, format!("name {name:?} must be 1 to 40 characters of a-z, 0-9 and -, starting with a letter"));
    }
    if let Some(singular) = &description.singular
        && !is_singular(singular)
    {
        let message = format!(
            "singular {singular:?} must be 1 to 40 characters of a-z, A-Z, 0-9 and -, starting with a letter and without -- \
             and a final -"
        );
        say(key_at(text, 0, &message), message);
    }
    if description.column.is_empty() || description.column.len() > COLUMNS_MAX {
        say(
            name_at,
            format!("a resource must have 1 to {COLUMNS_MAX} columns; add [[column]] tables or leave some out"),
        );
    }
    let (mut names, mut headers) = (BTreeSet::new(), BTreeSet::from(["uuid".to_owned()]));
    for column in &description.column {
        let at = column.span().start;
        let column = column.as_ref();
        let called = format!("column {:?}", column.name);
        let is_name = column.name.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && column.name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        let snake = snake_case(&column.name);
        if !is_name {
            say(
                at,
                format!(
                    "{called}: a name must consist of a-z, A-Z, 0-9 and _, starting with a letter; list other headers in csv"
                ),
            );
        } else if header_key(&column.name) == "uuid" {
            say(at, format!("{called}: every row already has the key uuid; leave the column out"));
        } else if RESERVED.contains(&column.name.as_str()) || RESERVED.contains(&snake.as_str()) {
            say(at, format!("{called}: the name is reserved; choose another one, such as {snake}_"));
        } else if name.len() + snake.len() + 1 > IDENTIFIER_MAX {
            say(
                at,
                format!("{called}: with the resource's name it exceeds {IDENTIFIER_MAX} bytes; choose a shorter one"),
            );
        }
        let key = header_key(&column.name);
        let mut own = BTreeSet::from([key.clone()]);
        if !names.insert(key.clone()) {
            say(at, format!("{called} is a duplicate; names must differ in more than case and _"));
        } else if key != "uuid" && !headers.insert(key) {
            say(at, format!("{called}: the name is a CSV header of another column; choose another one"));
        }
        for header in &column.csv {
            let key = header_key(header);
            if key.is_empty() {
                say(at, format!("{called}: the header {header:?} has no letter or digit; leave it out of csv"));
            } else if own.insert(key.clone()) && !headers.insert(key) {
                say(at, format!("{called}: the header {header:?} already denotes another column; leave it out of csv"));
            }
        }
        for message in column.faults() {
            say(key_at(text, at, &message), format!("{called}: {message}"));
        }
    }
    if let Some(operations) = &description.operations {
        for (needs, needed) in [(Operation::Bulk, Operation::Create), (Operation::Statistics, Operation::List)] {
            if operations.contains(&needs) && !operations.contains(&needed) {
                let message = format!("operations: {needs:?} requires {needed:?}; add it").to_lowercase();
                say(key_at(text, 0, &message), message);
            }
        }
        if operations.contains(&Operation::Statistics) && description.statistics.is_none() {
            let message = "operations: \"statistics\" requires a table [statistics]; add it".to_owned();
            say(key_at(text, 0, &message), message);
        }
    }
    if let Some(statistics) = &description.statistics {
        let at = statistics.span().start;
        for message in statistics_faults(statistics.as_ref(), description) {
            say(key_at(text, at, &message), message);
        }
    }
    let urls_at = description.urls.as_ref().map_or(0, |urls| urls.span().start);
    let urls = description.urls.as_ref().map(Spanned::get_ref);
    for (key, url, keyed) in urls.into_iter().flat_map(|urls| {
        [
            ("list", &urls.list, false),
            ("create", &urls.create, false),
            ("read", &urls.read, true),
            ("replace", &urls.replace, true),
            ("delete", &urls.delete, true),
        ]
    }) {
        let Some(url) = url else { continue };
        let plain = if keyed { url.strip_suffix("/{uuid}") } else { Some(url.as_str()) };
        let fits = plain.is_some_and(|plain| {
            plain.len() > 1
                && plain.starts_with('/')
                && plain[1..].bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        });
        if !fits {
            let form = if keyed { "/words/{uuid}" } else { "/words" };
            let message = format!("urls.{key} {url:?} must have the form {form}, with letters, digits, - and _");
            say(key_at(text, urls_at, &message), message);
        }
    }
    faults
}

/// Whether a name of one row can be part of identifiers in the OpenAPI document.
fn is_singular(text: &str) -> bool {
    text.len() <= 40
        && text.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && text.split('-').all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Splits a measure such as `mean(age)` into function and column.
pub fn measure(text: &str) -> Option<(&str, &str)> {
    text.strip_suffix(')')?.split_once('(')
}

fn statistics_faults(statistics: &Statistics, description: &Description) -> Vec<String> {
    let mut faults = Vec::new();
    let kind_of = |name: &str| {
        let column = description.column.iter().map(Spanned::as_ref).find(|column| column.name == name)?;
        column.kind().ok()
    };
    for name in &statistics.by {
        match kind_of(name) {
            None => faults.push(format!("statistics.by: unknown column {name:?}; choose one of the columns")),
            Some(Kind::Boolean | Kind::Integer { .. } | Kind::Enum(_)) => {}
            Some(_) => faults.push(format!("statistics.by {name:?} must be a boolean, an integer or an enum")),
        }
    }
    for (key, text) in &statistics.measures {
        let fits = measure(text).and_then(|(function, column)| Some((function, kind_of(column)?))).is_some_and(
            |(function, kind)| match function {
                "count" | "rate" => kind == Kind::Boolean,
                "mean" | "sum" | "min" | "max" => {
                    matches!(kind, Kind::Integer { .. } | Kind::Number { .. } | Kind::Decimal { .. })
                }
                _ => false,
            },
        );
        if !fits {
            faults.push(format!(
                "statistics.measures.{key} {text:?} must be count or rate of a boolean column, or mean, sum, min or max of \
                a numeric column, such as mean(age)"
            ));
        }
        if statistics.by.contains(key) || key == "count" {
            faults.push(format!(
                "statistics.measures.{key}: the name is already a member of each group; choose another one"
            ));
        }
    }
    faults
}

impl ColumnDescription {
    /// All errors of this column alone.
    fn faults(&self) -> Vec<String> {
        let kind = match self.kind() {
            Ok(kind) => kind,
            Err(fault) => return vec![fault],
        };
        let mut faults = Vec::new();
        let is_text = matches!(kind, Kind::Text { .. });
        if matches!(self.index, Some(Index::Named(IndexName::Trigram))) && !is_text {
            faults.push("index = \"trigram\" is only for text columns; use index = true".to_owned());
        }
        if let Kind::Text { min_length: 0, .. } = kind
            && self.nullable
        {
            faults.push("an empty CSV cell means null; add minLength = 1, or leave nullable out".to_owned());
        }
        if self.schema.is_some() && !matches!(kind, Kind::Enum(_)) {
            faults.push("schema is only for enumerations of texts; leave it out".to_owned());
        }
        if self
            .schema
            .as_ref()
            .is_some_and(|name| name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        {
            faults.push("schema must consist of a-z, A-Z and 0-9".to_owned());
        }
        if self.required == Some(false) && !self.nullable && self.default.is_none() {
            faults.push("required = false requires a default or nullable = true".to_owned());
        }
        if self.required == Some(true) && self.default.is_some() {
            faults.push("required = true conflicts with default; leave one of the two out".to_owned());
        }
        faults
    }
}
