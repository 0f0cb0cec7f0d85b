//! A generated description: TOML with comments, to be completed by hand.
//!
//! The generated text is valid if its columns are; callers check it (`Sketch::text`) like any other description.

use std::fmt::Write;

use super::definition::capitalised;
use super::description::{ColumnDescription, Index};

/// A generated description.
#[derive(Debug, Clone, Default)]
pub struct Sketch {
    /// The resource's name.
    pub name: String,
    /// Whether every change of a row is recorded.
    pub history: bool,
    /// Comment lines at the top.
    pub comments: Vec<String>,
    /// The columns.
    pub columns: Vec<ColumnSketch>,
}

/// A column of a generated description.
#[derive(Debug, Clone, Default)]
pub struct ColumnSketch {
    /// Comment lines above it.
    pub comments: Vec<String>,
    /// The column.
    pub column: ColumnDescription,
}

impl Sketch {
    /// The text of the file, and the line on which each column starts, counted from 1.
    pub fn text(&self) -> (String, Vec<usize>) {
        let mut text = String::new();
        let mut lines = Vec::new();
        comment(&mut text, &self.comments);
        line(&mut text, "\nname", &quoted(&self.name));
        line(&mut text, "title", &quoted(&capitalised(&self.name)));
        let singular = self.name.strip_suffix('s').unwrap_or(&self.name);
        line(&mut text, "# singular", &format!("{} # the name of one row", quoted(singular)));
        text.push_str("# description = \"What a row represents.\"\n");
        text.push_str(if self.history {
            "history = true\n"
        } else {
            "# history = true # records each change of a row\n"
        });
        for ColumnSketch { comments, column } in &self.columns {
            text.push('\n');
            comment(&mut text, comments);
            text.push_str("[[column]]\n");
            lines.push(text.lines().count());
            write_column(&mut text, column);
        }
        (text, lines)
    }
}

impl ColumnSketch {
    /// A text column.
    pub fn of_text(name: &str) -> Self {
        let column =
            ColumnDescription { name: name.to_owned(), r#type: "string".to_owned(), ..ColumnDescription::default() };
        Self { comments: Vec::new(), column }
    }
}

fn write_column(text: &mut String, column: &ColumnDescription) {
    line(text, "name", &quoted(&column.name));
    line(text, "type", &quoted(&column.r#type));
    if let Some(format) = &column.format {
        line(text, "format", &quoted(format));
    }
    if column.nullable {
        line(text, "nullable", "true");
    }
    for (key, bound) in [("minimum", &column.minimum), ("maximum", &column.maximum)] {
        if let Some(bound) = bound {
            line(text, key, &bound.to_string());
        }
    }
    for (key, length) in [("minLength", column.min_length), ("maxLength", column.max_length)] {
        if let Some(length) = length {
            line(text, key, &length.to_string());
        }
    }
    if let Some(values) = &column.r#enum {
        line(text, "enum", &list(values.iter().map(ToString::to_string)));
    }
    if column.index == Some(Index::Ordered(true)) {
        line(text, "index", "true");
    }
    if !column.csv.is_empty() {
        line(text, "csv", &list(column.csv.iter().map(|header| quoted(header))));
    }
}

fn line(text: &mut String, key: &str, value: &str) {
    writeln!(text, "{key} = {value}").expect("writing to a string cannot fail");
}

fn comment(text: &mut String, lines: &[String]) {
    for line in lines {
        // A comment ends at a line end and must not contain control characters.
        let line: String = line.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        writeln!(text, "# {line}").expect("writing to a string cannot fail");
    }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list(values: impl Iterator<Item = String>) -> String {
    format!("[{}]", values.collect::<Vec<_>>().join(", "))
}
