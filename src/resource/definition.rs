//! A resource as requests use it: built from its description once, at startup, and kept for the life of the process.

use std::collections::BTreeSet;

use tokio_postgres::types::Type;

use super::check::{self, measure};
use super::column::{Column, leak};
use super::description::{Description, Fault, Operation, Seed, Statistics, key_at, line_at};
use super::operations::DbOperations;
use super::parser;
use super::sql::Statements;
use super::value::Value;

/// Parameters that contain a group of conditions.
pub const GROUPS: [&str; 4] = ["and", "or", "not.and", "not.or"];

/// A resource.
#[derive(Debug)]
pub struct Resource {
    /// The name in URLs, on the command line and in metrics.
    pub name: &'static str,
    /// The name of one row, for messages.
    pub singular: &'static str,
    /// A heading.
    pub title: &'static str,
    /// A sentence about it.
    pub description: Option<&'static str>,
    /// The table.
    pub table: &'static str,
    /// The operations offered.
    pub operations: BTreeSet<Operation>,
    /// All columns, the key first, in row order.
    pub columns: Vec<Column>,
    /// The SQL statements.
    pub sql: Statements,
    /// The database operations, named as in metrics.
    pub db: DbOperations,
    /// The URLs of each operation.
    pub urls: ResourceUrls,
    /// Grouping columns and measures.
    pub statistics: Option<Measures>,
    /// The initial rows of a new table, as CSV.
    pub seed: Option<&'static [u8]>,
    /// The names of the columns that a client sets, separated by commas.
    pub field_names: &'static str,
    /// The names of all columns, separated by commas.
    pub column_names: &'static str,
    /// The expected CSV header, for messages.
    pub expected_header: &'static str,
    /// The detail of a 404.
    pub missing: &'static str,
    /// The detail of a 400 for a path without a valid uuid.
    pub invalid_uuid: &'static str,
    /// The parameters that contain conditions.
    pub conditions: &'static [&'static str],
    /// Word lists for generated rows.
    pub words: Vec<(String, Vec<String>)>,
}

/// The templates of each operation's URLs, the canonical one first.
#[derive(Debug)]
pub struct ResourceUrls {
    /// List.
    pub list: &'static [&'static str],
    /// Statistics.
    pub statistics: &'static [&'static str],
    /// Create.
    pub create: &'static [&'static str],
    /// Read one row.
    pub read: &'static [&'static str],
    /// Replace.
    pub replace: &'static [&'static str],
    /// Patch.
    pub patch: &'static [&'static str],
    /// Delete.
    pub delete: &'static [&'static str],
    /// List the changes of one row; empty without a history.
    pub history: &'static [&'static str],
    /// Restore an earlier state of a row; empty without a history.
    pub restore: &'static [&'static str],
}

/// Grouping columns and measures.
#[derive(Debug)]
pub struct Measures {
    /// Columns by which rows may be grouped.
    pub by: Vec<&'static str>,
    /// The measures, each with its key in the response.
    pub measures: Vec<Measure>,
}

/// An aggregate over a group of rows.
#[derive(Debug)]
pub struct Measure {
    /// Its key in the response.
    pub key: &'static str,
    /// The aggregate function.
    pub function: Function,
    /// The index of its column.
    pub column: usize,
}

/// An aggregate function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// The number of true values.
    Count,
    /// The fraction of the non-null values that are true, 0 to 1.
    Rate,
    /// The arithmetic mean.
    Mean,
    /// The sum.
    Sum,
    /// The minimum.
    Min,
    /// The maximum.
    Max,
}

impl Resource {
    /// Builds a resource from the text of a description; `file` reads the files that the description refers to.
    ///
    /// # Errors
    /// All errors of the description.
    pub fn load(text: &str, file: impl Fn(&str) -> Result<Vec<u8>, String>) -> Result<&'static Self, Vec<Fault>> {
        let description = parser::parse(text)?;
        let mut faults = check::faults(text, &description);
        let mut columns = vec![Column::key()];
        for column in &description.column {
            match Column::new(columns.len(), column.as_ref()) {
                Ok(column) => columns.push(column),
                // `check::faults` has reported an invalid rule already.
                Err(_) if column.as_ref().kind().is_err() => {}
                Err(fault) => faults.push(Fault {
                    line: line_at(text, key_at(text, column.span().start, &fault)),
                    message: format!("column {:?}: {fault}", column.as_ref().name),
                }),
            }
        }
        let name_line = line_at(text, description.name.span().start);
        let seed = description.seed.as_ref().map(|Seed { file: name }| file(name)).transpose();
        let seed = seed.unwrap_or_else(|fault| {
            faults.push(Fault { line: name_line, message: format!("seed.file: {fault}") });
            None
        });
        if !faults.is_empty() {
            faults.sort_by_key(|fault| fault.line);
            return Err(faults);
        }
        Ok(Box::leak(Box::new(Self::new(&description, columns, seed))))
    }

    fn new(description: &Description, columns: Vec<Column>, seed: Option<Vec<u8>>) -> Self {
        let name = leak(description.name.as_ref().as_str());
        let singular =
            description.singular.clone().unwrap_or_else(|| name.strip_suffix('s').unwrap_or(name).to_owned());
        let table = leak(name.replace('-', "_"));
        let names = |columns: &[Column]| leak(columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", "));
        let header = columns[1..].iter().map(|column| column.name).collect::<Vec<_>>().join(",");
        let conditions = columns.iter().map(|column| column.name).chain(GROUPS).collect::<Vec<_>>();
        let operations = description.operations.clone().unwrap_or_else(|| {
            let statistics = description.statistics.is_some();
            Operation::ALL.into_iter().filter(|operation| statistics || *operation != Operation::Statistics).collect()
        });
        let urls = description.urls.as_ref().map(|urls| urls.get_ref().clone()).unwrap_or_default();
        let many = leak(format!("/v1/{name}"));
        let one = leak(format!("/v1/{name}/{{uuid}}"));
        // An operation that is not offered has no URL.
        let templates = |operation, canonical: &'static str, other: Option<&String>| -> &'static [&'static str] {
            let other = other.map(|url| leak(url.as_str()));
            let all = std::iter::once(canonical).chain(other).filter(|_| operations.contains(&operation));
            Vec::leak(all.collect())
        };
        let templates_of_history = |operation, last: &str| -> &'static [&'static str] {
            let template = leak(format!("{one}/{last}"));
            if description.history { templates(operation, template, None) } else { &[] }
        };
        Self {
            name,
            title: leak(description.title.clone().unwrap_or_else(|| capitalised(name))),
            description: description.description.clone().map(leak),
            table,
            sql: Statements::of(table, &columns, description.history),
            db: DbOperations::of(name),
            urls: ResourceUrls {
                list: templates(Operation::List, many, urls.list.as_ref()),
                statistics: templates(Operation::Statistics, leak(format!("/v1/{name}/stats")), None),
                create: templates(Operation::Create, many, urls.create.as_ref()),
                read: templates(Operation::Read, one, urls.read.as_ref()),
                replace: templates(Operation::Replace, one, urls.replace.as_ref()),
                patch: templates(Operation::Patch, one, None),
                delete: templates(Operation::Delete, one, urls.delete.as_ref()),
                history: templates_of_history(Operation::Read, "history"),
                restore: templates_of_history(Operation::Replace, "restore"),
            },
            statistics: description.statistics.as_ref().map(|statistics| Measures::of(statistics.as_ref(), &columns)),
            seed: seed.map(|seed| &*Vec::leak(seed)),
            field_names: names(&columns[1..]),
            column_names: names(&columns),
            expected_header: leak(format!("{header}, optionally with uuid")),
            missing: leak(format!("no {singular} has this uuid; GET /v1/{name} lists those that exist")),
            invalid_uuid: leak(format!(
                "the key in the path must be a uuid such as 0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10; \
                 GET /v1/{name} lists those that exist"
            )),
            conditions: Vec::leak(conditions),
            words: description.words.clone().into_iter().collect(),
            singular: leak(singular),
            operations,
            columns,
        }
    }

    /// The key.
    pub fn key(&self) -> &Column {
        &self.columns[0]
    }

    /// The columns that a client sets.
    pub fn fields(&self) -> &[Column] {
        &self.columns[1..]
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The column that a client sets, of this name.
    pub fn field(&self, name: &str) -> Option<&Column> {
        self.fields().iter().find(|column| column.name == name)
    }

    /// The types of the columns, the key first.
    pub fn types(&self) -> Vec<Type> {
        self.columns.iter().map(Column::pg_type).collect()
    }

    /// The field of a table constraint; constraints are named `<table>_<column>`.
    pub fn constraint_field(&self, constraint: &str) -> Option<&Column> {
        let identifier = constraint.strip_prefix(self.table)?.strip_prefix('_')?;
        self.fields().iter().find(|column| column.identifier == identifier)
    }

    /// The URLs other than the canonical ones.
    pub fn short_urls(&self) -> impl Iterator<Item = &'static str> {
        let ResourceUrls { list, create, read, replace, delete, .. } = self.urls;
        [list, create, read, replace, delete].into_iter().flat_map(|templates| templates.iter().skip(1).copied())
    }

    /// Whether an operation is offered.
    pub fn offers(&self, operation: Operation) -> bool {
        self.operations.contains(&operation)
    }

    /// An example row as a client sends it.
    pub fn example(&self) -> serde_json::Map<String, serde_json::Value> {
        let example = |column: &Column| {
            let value = column.docs.example.clone();
            (column.name.to_owned(), value.unwrap_or_else(|| super::examples::example(column)))
        };
        self.fields().iter().map(example).collect()
    }

    /// The defaults of the columns.
    pub fn defaults(&self) -> impl Iterator<Item = &Value<'static>> {
        self.fields().iter().map(|column| &column.default)
    }
}

impl Measures {
    fn of(statistics: &Statistics, columns: &[Column]) -> Self {
        let index = |name: &str| columns.iter().position(|column| column.name == name).expect("it was checked");
        let measure = |(key, text): (&String, &String)| {
            let (function, column) = measure(text).expect("it was checked");
            let function = match function {
                "count" => Function::Count,
                "rate" => Function::Rate,
                "mean" => Function::Mean,
                "sum" => Function::Sum,
                "min" => Function::Min,
                _ => Function::Max,
            };
            Measure { key: leak(key.as_str()), function, column: index(column) }
        };
        Self {
            by: statistics.by.iter().map(|name| columns[index(name)].name).collect(),
            measures: statistics.measures.iter().map(measure).collect(),
        }
    }
}

/// `deep-sea` as `Deep sea`.
pub fn capitalised(name: &str) -> String {
    let mut letters = name.chars().map(|letter| if letter == '-' { ' ' } else { letter });
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// `deep-sea` as `DeepSea`, for identifiers.
pub fn camel(name: &str) -> String {
    name.split('-').map(capitalised).collect()
}
