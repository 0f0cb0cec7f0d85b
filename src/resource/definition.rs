//! A resource as requests work with it: made of its description once, at the start, and kept for good.

use std::collections::BTreeSet;

use tokio_postgres::types::Type;

use super::check::{self, measure};
use super::column::{Column, leak};
use super::description::{Description, Fault, Operation, Seed, Statistics, line_at};
use super::form;
use super::operations::DbOperations;
use super::sql::Statements;
use super::value::Value;

/// Parameters that hold a group of conditions.
pub const GROUPS: [&str; 4] = ["and", "or", "not.and", "not.or"];

/// What a resource is.
#[derive(Debug)]
pub struct Resource {
    /// The name in URLs, on the command line and in metrics.
    pub name: &'static str,
    /// One of them.
    pub singular: &'static str,
    /// A heading.
    pub title: &'static str,
    /// A sentence about it.
    pub description: Option<&'static str>,
    /// The table.
    pub table: &'static str,
    /// What can be done.
    pub operations: BTreeSet<Operation>,
    /// Every column, the key first, in the order of a row.
    pub columns: Vec<Column>,
    /// The statements of requests.
    pub sql: Statements,
    /// What they do, as metrics name it.
    pub db: DbOperations,
    /// The URLs of each operation.
    pub urls: ResourceUrls,
    /// Groups and numbers about them.
    pub statistics: Option<Measures>,
    /// What a fresh table is filled with.
    pub seed: Option<&'static [u8]>,
    /// The names of the columns that a client sets, with commas between them.
    pub field_names: &'static str,
    /// The names of all columns, with commas between them.
    pub column_names: &'static str,
    /// The header of CSV as a person would write it.
    pub expected_header: &'static str,
    /// What a 404 says.
    pub missing: &'static str,
    /// What a path without a uuid is told.
    pub invalid_uuid: &'static str,
    /// The parameters that hold conditions.
    pub conditions: &'static [&'static str],
    /// Lists of words for made-up rows.
    pub words: Vec<(String, Vec<String>)>,
}

/// The templates of each operation's URLs, the canonical one first.
#[derive(Debug)]
pub struct ResourceUrls {
    /// Of many rows.
    pub list: &'static [&'static str],
    /// Of statistics.
    pub statistics: &'static [&'static str],
    /// Of creation.
    pub create: &'static [&'static str],
    /// Of one row.
    pub read: &'static [&'static str],
    /// Of replacement.
    pub replace: &'static [&'static str],
    /// Of a patch.
    pub patch: &'static [&'static str],
    /// Of deletion.
    pub delete: &'static [&'static str],
    /// Of the changes of one row; none without a history.
    pub history: &'static [&'static str],
    /// Of bringing an earlier state of a row back; none without a history.
    pub restore: &'static [&'static str],
}

/// Groups and numbers about them.
#[derive(Debug)]
pub struct Measures {
    /// Columns that rows may be grouped by.
    pub by: Vec<&'static str>,
    /// Each with its key in the answer.
    pub measures: Vec<Measure>,
}

/// A number about a group of rows.
#[derive(Debug)]
pub struct Measure {
    /// Its key in the answer.
    pub key: &'static str,
    /// What is computed.
    pub function: Function,
    /// The place of its column.
    pub column: usize,
}

/// What is computed over a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// How many are true.
    Count,
    /// How many of those that are not null are true, 0 to 1.
    Rate,
    /// The arithmetic mean.
    Mean,
    /// The sum.
    Sum,
    /// The least.
    Min,
    /// The greatest.
    Max,
}

impl Resource {
    /// Makes a resource of a description's text; `file` reads what a description refers to.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(text: &str, file: impl Fn(&str) -> Result<Vec<u8>, String>) -> Result<&'static Self, Vec<Fault>> {
        let description = form::parse(text)?;
        let mut faults = check::faults(text, &description);
        let mut columns = vec![Column::key()];
        for column in &description.column {
            match Column::new(columns.len(), column.as_ref()) {
                Ok(column) => columns.push(column),
                // A rule that has no sense is told already.
                Err(_) if column.as_ref().kind().is_err() => {}
                Err(fault) => faults.push(Fault {
                    line: line_at(text, column.span().start),
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
        let urls = &description.urls;
        let many = leak(format!("/v1/{name}"));
        let one = leak(format!("/v1/{name}/{{uuid}}"));
        // What is not offered has no URL.
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

    /// The field that a constraint of the table guards; constraints are named `<table>_<column>`.
    pub fn constraint_field(&self, constraint: &str) -> Option<&Column> {
        let identifier = constraint.strip_prefix(self.table)?.strip_prefix('_')?;
        self.fields().iter().find(|column| column.identifier == identifier)
    }

    /// The URLs besides the canonical ones.
    pub fn short_urls(&self) -> impl Iterator<Item = &'static str> {
        let ResourceUrls { list, create, read, replace, delete, .. } = self.urls;
        [list, create, read, replace, delete].into_iter().flat_map(|templates| templates.iter().skip(1).copied())
    }

    /// Whether an operation is offered.
    pub fn offers(&self, operation: Operation) -> bool {
        self.operations.contains(&operation)
    }

    /// An example of a row as a client sends it.
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
        let place = |name: &str| columns.iter().position(|column| column.name == name).expect("it was checked");
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
            Measure { key: leak(key.as_str()), function, column: place(column) }
        };
        Self {
            by: statistics.by.iter().map(|name| columns[place(name)].name).collect(),
            measures: statistics.measures.iter().map(measure).collect(),
        }
    }
}

/// `deep-sea` as `Deep sea`.
pub fn capitalised(name: &str) -> String {
    let mut letters = name.chars().map(|letter| if letter == '-' { ' ' } else { letter });
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// `deep-sea` as `DeepSea`, for names in programs.
pub fn camel(name: &str) -> String {
    name.split('-').map(capitalised).collect()
}
