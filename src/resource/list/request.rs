//! Parses a list request from the query string and the headers; every error is reported, not only the first.

use warp::http::HeaderMap;

use super::super::column::Column;
use super::super::definition::Resource;
use super::cursor::{self, CursorPosition};
use super::filter::{Filter, Join};
use super::grammar::{ConditionParser, shown};
use super::order::Order;
use super::shape::Shape;
use crate::db::position::Consistency;
use crate::http::format::Format;
use crate::http::problem::Problem;
use crate::http::query::Query;

/// Default number of rows of a page.
pub const PAGE_DEFAULT: usize = 100;
/// Maximum number of rows of a page.
pub const PAGE_MAX: usize = 1000;

/// The formats of rows; the first is the default.
pub const FORMATS: &[Format] = &[Format::Json, Format::Csv, Format::Ndjson];
/// The formats of a list, which may also be a single object.
const OFFERED: &[Format] = &[Format::Json, Format::Csv, Format::Ndjson, Format::Object];

/// The other parameters of lists and of statistics.
const LIST: &[&str] = &["select", "order", "limit", "after", "before"];
const STATISTICS: &[&str] = &["by"];
/// Parameters that contain a group of conditions.
const GROUPS: [(&str, bool, Join); 4] =
    [("and", false, Join::And), ("or", false, Join::Or), ("not.and", true, Join::And), ("not.or", true, Join::Or)];

const CURSOR: &str =
    "is not a cursor of this order; take it from the header Link of a page in the same order, or leave it out";

/// A list request.
#[derive(Debug)]
pub struct ListRequest {
    /// The filter.
    pub filter: Filter,
    /// The order.
    pub order: Order,
    /// The maximum number of rows; all when absent.
    pub limit: Option<usize>,
    /// The start position.
    pub start: Start,
    /// The format and columns.
    pub shape: Shape,
    /// The position that must have been replayed: that of the page whose cursor was sent.
    pub consistency: Consistency,
}

/// Where a list starts.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    /// At its beginning.
    First,
    /// After a position.
    After(CursorPosition),
    /// The page that ends before a position.
    Before(CursorPosition),
}

/// Parses the parameters of a list; without `limit` it has `default` rows, or all.
///
/// # Errors
/// 400 that lists every invalid parameter; 406 when no offered format is accepted.
pub fn read_list<'a>(
    resource: &'static Resource,
    raw: &'a str,
    headers: &HeaderMap,
    default: Option<usize>,
) -> Result<(ListRequest, Query<'a>), Problem> {
    let mut query = Query::parse_repeatable(raw, resource.conditions, LIST);
    let filter = read_filter(resource, &mut query);
    let mut faults = Vec::new();
    let order = query.get("order").map(|text| Order::parse(resource, text, &mut faults));
    let order = order.unwrap_or_else(|| Order::of_key(resource));
    faults_of(&mut query, "order", std::mem::take(&mut faults));
    let columns = query.get("select").map(|text| read_selection(resource, text, &mut faults));
    let columns = columns.filter(|columns| !columns.iter().copied().eq(&resource.columns));
    faults_of(&mut query, "select", faults);
    let limit = query.optional("limit", "must be a whole number between 0 and 1000", |text| {
        text.parse().ok().filter(|limit| *limit <= PAGE_MAX)
    });
    let limit = limit.or(default);
    let after = query.optional("after", CURSOR, |text| cursor::decode(&order, text));
    let before = query.optional("before", CURSOR, |text| cursor::decode(&order, text));
    if after.is_some() && before.is_some() {
        query.fault("before", "cannot be combined with after; keep one");
    }
    if before.is_some() && limit.is_none() {
        query.fault("before", "requires limit, which determines where the page starts");
    }
    query.finish()?;
    let (start, consistency) = match (after, before) {
        (Some((position, consistency)), _) => (Start::After(position), consistency),
        (None, Some((position, consistency))) => (Start::Before(position), consistency),
        (None, None) => (Start::First, Consistency::Eventual),
    };
    let shape = Shape { resource, format: Format::negotiate(headers, OFFERED)?, columns };
    // A second row shows that there is more than one.
    let limit = if shape.format == Format::Object { Some(limit.map_or(2, |limit| limit.min(2))) } else { limit };
    Ok((ListRequest { filter, order, limit, start, shape, consistency }, query))
}

/// Parses the parameters of statistics: the filter and the grouping columns.
///
/// # Errors
/// 400 that lists every invalid parameter.
pub fn read_statistics(resource: &'static Resource, raw: &str) -> Result<(Filter, Vec<&'static Column>), Problem> {
    let mut query = Query::parse_repeatable(raw, resource.conditions, STATISTICS);
    let filter = read_filter(resource, &mut query);
    let mut faults = Vec::new();
    let possible = resource.statistics.as_ref().map(|statistics| statistics.by.as_slice()).unwrap_or_default();
    let by = query.get("by").map(|text| {
        let names: Vec<&str> = text.split(',').map(str::trim).collect();
        read_columns(resource, &names, possible, &mut faults)
    });
    let by = by.unwrap_or_default();
    faults_of(&mut query, "by", faults);
    query.finish()?;
    Ok((filter, by))
}

fn read_filter(resource: &'static Resource, query: &mut Query<'_>) -> Filter {
    let mut parser = ConditionParser::new(resource);
    let mut nodes = Vec::new();
    for name in resource.conditions {
        let texts: Vec<String> = query.all(name).map(str::to_owned).collect();
        for text in texts {
            let group = GROUPS.iter().find(|(group, ..)| group == name);
            nodes.extend(match (group, resource.column(name)) {
                (Some((_, negated, join)), _) => parser.group(*negated, *join, &text),
                (None, column) => column.and_then(|column| parser.condition(column, &text)),
            });
        }
        faults_of(query, name, parser.take_faults());
    }
    Filter(nodes)
}

/// Parses `select`; `*` stands for all columns not listed.
fn read_selection(resource: &'static Resource, text: &str, faults: &mut Vec<String>) -> Vec<&'static Column> {
    let all: Vec<&str> = resource.columns.iter().map(|column| column.name).collect();
    let mut names: Vec<&str> = text.split(',').map(str::trim).collect();
    if let Some(index) = names.iter().position(|name| *name == "*") {
        let others: Vec<&str> = all.iter().filter(|name| !names.contains(name)).copied().collect();
        names.splice(index..=index, others);
    }
    read_columns(resource, &names, &all, faults)
}

/// Resolves column names, each of which must be one of `possible` and occur once.
fn read_columns(
    resource: &'static Resource,
    names: &[&str],
    possible: &[&str],
    faults: &mut Vec<String>,
) -> Vec<&'static Column> {
    let mut columns = Vec::new();
    for name in names {
        match resource.column(name).filter(|column| possible.contains(&column.name)) {
            Some(column) if columns.contains(&column) => {
                faults.push(format!("has the duplicate column {name}; keep one"));
            }
            Some(column) => columns.push(column),
            None => {
                let known = column_in(name, possible).map(|known| format!("; write {known}")).unwrap_or_default();
                let columns = possible.join(", ");
                faults.push(format!("has the unknown column {}; the columns are {columns}{known}", shown(name)));
            }
        }
    }
    columns
}

/// The column in an item of PostgREST's `select` that is not supported, `title:name`, `age::text`, `fare.sum()`, or in another
/// letter case.
fn column_in<'p>(item: &str, possible: &[&'p str]) -> Option<&'p str> {
    let item = item.split("::").next().unwrap_or_default();
    let item = item.rsplit(':').next().unwrap_or_default();
    let name = item.split(['.', '(', ' ']).next().unwrap_or_default();
    possible.iter().find(|known| known.eq_ignore_ascii_case(name)).copied()
}

fn faults_of(query: &mut Query<'_>, name: &'static str, faults: Vec<String>) {
    for fault in faults {
        query.fault(name, fault);
    }
}
