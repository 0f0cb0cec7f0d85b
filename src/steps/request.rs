//! Reads what clients send: a step out of a query string, a form or a JSON body, and the filters of a list.
//!
//! Every fault is found, not only the first. Parameters at fault are a 400 that names them, fields of a JSON body a 422
//! that points at them.

use std::borrow::Cow;

use serde_json::value::RawValue;
use warp::http::HeaderMap;

use super::model::{Field, Filter, NewStep, TEXT_RULE, check_text, check_time};
use crate::http::body::FORM;
use crate::http::format::Format;
use crate::http::json::{members, text};
use crate::http::problem::{Code, FieldError, ParameterError, Problem};
use crate::http::query::Query;

/// Most rows that a page may hold: one batch.
pub const PAGE_MAX: i64 = 1000;

const STEP: &[&str] = &["component", "version", "owner", "status"];
const LIST: &[&str] = &["start_datetime", "end_datetime", "component", "owner", "format", "limit", "after"];
const DURATIONS: &[&str] =
    &["start_datetime", "end_datetime", "component", "owner", "format", "limit", "after", "summary"];

/// Reads a step from the query string, or from the body when there is one.
///
/// # Errors
/// 400 for parameters, 422 for fields of a JSON body, 400 when both places hold something.
pub fn read_step<'a>(query: &'a str, media_type: &str, body: &'a [u8]) -> Result<NewStep<'a>, Problem> {
    if body.is_empty() {
        return read_parameters(query);
    }
    if !query.is_empty() {
        // A misspelt name is told first.
        Query::parse(query, STEP).finish()?;
        return Err(Problem::new(
            Code::InvalidQuery,
            "send the step in the query string or in the body, not in both; clear one of them",
        ));
    }
    if media_type != FORM {
        return read_json(body);
    }
    match std::str::from_utf8(body) {
        Ok(form) if form.trim_start().starts_with('{') => Err(Problem::new(
            Code::InvalidQuery,
            "the body is JSON and is called a form; send it with the header Content-Type: application/json, which curl -d \
             does not by itself",
        )),
        Ok(form) => read_parameters(form),
        Err(error) => Err(Problem::new(
            Code::InvalidQuery,
            format!("the form is not UTF-8 at byte {}; percent-encode it as UTF-8", error.valid_up_to()),
        )),
    }
}

fn read_parameters(text: &str) -> Result<NewStep<'static>, Problem> {
    let mut query = Query::parse(text, STEP);
    let mut read = |field: Field| {
        query.required(field.name(), TEXT_RULE, |text| check_text(text).map(|text| text.to_owned().into()))
    };
    let values = Field::ALL.map(&mut read);
    query.finish()?;
    Ok(step(values).expect("a missing value is a fault"))
}

fn read_json(body: &[u8]) -> Result<NewStep<'_>, Problem> {
    let members = members(body, || STEP.join(", "))?;
    let mut errors: Vec<FieldError> = Vec::new();
    for (name, _) in members.values.iter().filter(|(name, _)| Field::from_name(name).is_none()) {
        errors.push(FieldError::new(name, format!("is unknown; the fields are {}", STEP.join(", "))));
    }
    for name in &members.repeated {
        errors.push(FieldError::new(name, "is a duplicate field; keep one"));
    }
    let mut read = |field: Field| {
        let Some((_, raw)) = members.values.iter().find(|(name, _)| *name == field.name()) else {
            errors.push(FieldError::new(field.name(), format!("is missing; it {TEXT_RULE}")));
            return None;
        };
        let value = json_text(raw);
        if value.is_none() {
            errors.push(FieldError::new(field.name(), TEXT_RULE));
        }
        value
    };
    let values = Field::ALL.map(&mut read);
    if !errors.is_empty() {
        return Err(Problem::fields(errors));
    }
    Ok(step(values).expect("a missing value is a fault"))
}

fn json_text(raw: &RawValue) -> Option<Cow<'_, str>> {
    text(raw.get()).filter(|text| check_text(text).is_some())
}

/// A step from its values in the order of [`Field::ALL`], if none is missing.
fn step(values: [Option<Cow<'_, str>>; Field::ALL.len()]) -> Option<NewStep<'_>> {
    let [component, version, owner, status] = values;
    Some(NewStep { component: component?, version: version?, owner: owner?, status: status? })
}

/// What a list is asked for.
#[derive(Debug)]
pub struct ListRequest {
    /// Which steps.
    pub filter: Filter,
    /// In which form.
    pub format: Format,
    /// How many; all of them when absent.
    pub limit: Option<i64>,
    /// Those that follow the step with this id.
    pub after: Option<i64>,
    /// Aggregates per status as well.
    pub summary: bool,
}

/// Reads the parameters of `/v1/steps`.
///
/// # Errors
/// 400 that names every parameter at fault; 406 when no format on offer is accepted.
pub fn read_list<'a>(raw: &'a str, headers: &HeaderMap) -> Result<(ListRequest, Query<'a>), Problem> {
    read_filters(Query::parse(raw, LIST), headers, [Format::Csv, Format::Json])
}

/// Reads the parameters of `/v1/steps/durations`.
///
/// # Errors
/// As [`read_list`].
pub fn read_durations<'a>(raw: &'a str, headers: &HeaderMap) -> Result<(ListRequest, Query<'a>), Problem> {
    let mut query = Query::parse(raw, DURATIONS);
    let summary = query.optional("summary", "must be true or false", |text| text.parse().ok());
    let (request, query) = read_filters(query, headers, [Format::Json, Format::Csv])?;
    Ok((ListRequest { summary: summary.unwrap_or(false), ..request }, query))
}

fn read_filters<'a>(
    mut query: Query<'a>,
    headers: &HeaderMap,
    offered: [Format; 2],
) -> Result<(ListRequest, Query<'a>), Problem> {
    let start = query.checked("start_datetime", check_time);
    let end = query.checked("end_datetime", check_time);
    if let (Some(start), Some(end)) = (start, end)
        && end < start
    {
        query.fault("end_datetime", "must not be before start_datetime; exchange the two");
    }
    let mut text = |name| query.optional(name, TEXT_RULE, |text| check_text(text).map(str::to_owned));
    let (component, owner) = (text("component"), text("owner"));
    let format = query.optional("format", "must be csv or json", |text| {
        Format::from_name(text).filter(|format| offered.contains(format))
    });
    let limit = query.optional("limit", "must be a whole number between 1 and 1000", |text| {
        text.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit))
    });
    let after = query.optional("after", AFTER_RULE, |text| text.parse().ok());
    query.finish()?;
    let format = match format {
        Some(format) => format,
        None => Format::negotiate(headers, &offered)?,
    };
    let filter =
        Filter { start: start.unwrap_or(Filter::EARLIEST), end: end.unwrap_or(Filter::LATEST), component, owner };
    Ok((ListRequest { filter, format, limit, after, summary: false }, query))
}

const AFTER_RULE: &str = "must be the id of a step";

/// What is said when `after` names no step.
pub fn unknown_after() -> Problem {
    Problem::parameters(vec![ParameterError::new("after".to_owned(), AFTER_RULE)])
}
