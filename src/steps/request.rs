//! Parses what clients send: a step in a query string, a form or a JSON body, and the filters of a list.
//!
//! Every error is reported, not only the first. Invalid parameters are a 400 that lists them, invalid fields of a JSON body a
//! 422 that points at them.

use warp::http::HeaderMap;

use super::model::{StepFilter, check_end, check_start, field, fields};
use crate::csv::signature::foreign;
use crate::http::body::FORM;
use crate::http::format::Format;
use crate::http::json::members;
use crate::http::problem::{Code, FieldError, ParameterError, Problem};
use crate::http::query::Query;
use crate::resource::column::Column;
use crate::resource::value::Value;

/// Maximum number of rows of a page: one batch.
pub const PAGE_MAX: i64 = 1000;

const STEP: &[&str] = &["component", "version", "owner", "status"];
const LIST: &[&str] = &["start_datetime", "end_datetime", "component", "owner", "format", "limit", "after"];
const DURATIONS: &[&str] =
    &["start_datetime", "end_datetime", "component", "owner", "format", "limit", "after", "summary"];

/// Reads a step from the query string, or from the body if there is one.
///
/// # Errors
/// 400 for parameters, 422 for fields of a JSON body, 400 when neither query nor body is empty.
pub fn read_step<'a>(query: &'a str, media_type: &str, body: &'a [u8]) -> Result<Vec<Value<'a>>, Problem> {
    if body.is_empty() {
        return read_parameters(query);
    }
    if !query.is_empty() {
        // Unknown parameters are reported first.
        Query::parse(query, STEP).finish()?;
        return Err(Problem::new(
            Code::InvalidQuery,
            "send the step in the query string or in the body, not in both; remove one of them",
        ));
    }
    if media_type != FORM {
        return read_json(body);
    }
    if let Some(foreign) = foreign(body, true) {
        return Err(Problem::new(Code::InvalidQuery, format!("the form {foreign}")));
    }
    match std::str::from_utf8(body) {
        Ok(form) if form.trim_start().starts_with('{') => Err(Problem::new(
            Code::InvalidQuery,
            "the body is JSON, but its Content-Type is a form; send it with the header Content-Type: application/json, which \
            curl -d does not set by itself",
        )),
        Ok(form) => read_parameters(form),
        Err(error) => Err(Problem::new(
            Code::InvalidQuery,
            format!("the form is not UTF-8 at byte {}; percent-encode it as UTF-8", error.valid_up_to()),
        )),
    }
}

fn read_parameters(text: &str) -> Result<Vec<Value<'static>>, Problem> {
    let mut query = Query::parse(text, STEP);
    let read = |column: &'static Column| {
        query.required(column.name, column.rule, |text| column.read_csv(text).map(Value::into_owned))
    };
    let values = fields().iter().filter_map(read).collect();
    query.finish()?;
    Ok(values)
}

fn read_json(body: &[u8]) -> Result<Vec<Value<'_>>, Problem> {
    let members = members(body, || STEP.join(", "))?;
    let mut errors: Vec<FieldError> = Vec::new();
    for (name, _) in members.values.iter().filter(|(name, _)| field(name).is_none()) {
        errors.push(FieldError::new(name, format!("is unknown; the fields are {}", STEP.join(", "))));
    }
    for name in &members.repeated {
        errors.push(FieldError::new(name, "is a duplicate field; keep one"));
    }
    let mut read = |column: &'static Column| {
        let Some((_, raw)) = members.values.iter().find(|(name, _)| *name == column.name) else {
            errors.push(FieldError::new(column.name, format!("is missing; it {}", column.rule)));
            return None;
        };
        let value = column.read_json(raw.get());
        if value.is_none() {
            errors.push(match members.unpaired_surrogate(raw) {
                Some(half) => FieldError::new(column.name, format!("{}; {half}", column.rule)),
                None => column.error(),
            });
        }
        value
    };
    let values = fields().iter().filter_map(&mut read).collect();
    if errors.is_empty() { Ok(values) } else { Err(Problem::fields(errors)) }
}

/// A list request.
#[derive(Debug)]
pub struct ListRequest {
    /// The filter.
    pub filter: StepFilter,
    /// The format.
    pub format: Format,
    /// The maximum number of rows; all when absent.
    pub limit: Option<i64>,
    /// The id of the step after which the list starts.
    pub after: Option<i64>,
    /// Whether to add aggregates per status.
    pub summary: bool,
}

/// Parses the parameters of `/v1/steps`.
///
/// # Errors
/// 400 that lists every invalid parameter; 406 when no offered format is accepted.
pub fn read_steps<'a>(raw: &'a str, headers: &HeaderMap) -> Result<(ListRequest, Query<'a>), Problem> {
    read_filters(Query::parse(raw, LIST), headers, [Format::Csv, Format::Json])
}

/// Parses the parameters of `/v1/steps/durations`.
///
/// # Errors
/// As [`read_steps`].
pub fn read_durations<'a>(raw: &'a str, headers: &HeaderMap) -> Result<(ListRequest, Query<'a>), Problem> {
    read_filters(Query::parse(raw, DURATIONS), headers, [Format::Json, Format::Csv])
}

fn read_filters<'a>(
    mut query: Query<'a>,
    headers: &HeaderMap,
    offered: [Format; 2],
) -> Result<(ListRequest, Query<'a>), Problem> {
    let summary = query.optional("summary", "must be true or false", |text| text.parse().ok());
    let start = query.checked("start_datetime", check_start);
    let end = query.checked("end_datetime", check_end);
    if let (Some(start), Some(end)) = (start, end)
        && end < start
    {
        query.fault("end_datetime", "must not be before start_datetime; exchange the two");
    }
    let mut text = |name| {
        let column = field(name)?;
        query.optional(column.name, column.rule, |text| column.read_csv(text).is_some().then(|| text.to_owned()))
    };
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
    let filter = StepFilter {
        start: start.unwrap_or(StepFilter::EARLIEST),
        end: end.unwrap_or(StepFilter::LATEST),
        component,
        owner,
    };
    Ok((ListRequest { filter, format, limit, after, summary: summary.unwrap_or(false) }, query))
}

const AFTER_RULE: &str = "must be the id of a step";

/// The problem when no step has the id in `after`.
pub fn unknown_after() -> Problem {
    Problem::parameters(vec![ParameterError::new("after".to_owned(), AFTER_RULE)])
}
