//! Readings as a response body: JSON grouped by station, or CSV.
//!
//! The body is serialised once, in the form in which the cache returns it; [`fresh`] converts it to what the first request
//! gets. So nothing is parsed or serialised again for a cached response.

use std::fmt::Write;

use bytes::Bytes;
use tokio_postgres::Row;

use super::model::{MEASURES, write_time};
use super::store;
use crate::db::error::StoreError;
use crate::http::format::Format;

/// The start of a cached body in JSON, and of a fresh one. CSV has no such member.
const CACHED: &[u8] = b"{\"cache\":true";
const FRESH: &[u8] = b"{\"cache\":false";

/// Approximate size of a reading as JSON in bytes.
const READING_BYTES: usize = 160;

/// The body for the rows of [`store::readings`], as the cache returns it.
///
/// # Errors
/// [`StoreError::Internal`] when the rows are not those of the store.
pub fn body(rows: &[Row], format: Format) -> Result<Bytes, StoreError> {
    let body = if format == Format::Csv { csv(rows) } else { json(rows) };
    body.map(|body| body.into_bytes().into())
}

/// The same body for the request that caused the refresh.
pub fn fresh(body: &Bytes, format: Format) -> Bytes {
    if format == Format::Csv {
        return body.clone();
    }
    [FRESH, body.get(CACHED.len()..).unwrap_or_default()].concat().into()
}

fn json(rows: &[Row]) -> Result<String, StoreError> {
    let mut out = String::with_capacity(CACHED.len() + 64 + rows.len() * READING_BYTES);
    out.push_str(str::from_utf8(CACHED).expect("ASCII"));
    out.push_str(",\"entities\":[");
    let mut current = None;
    for row in rows {
        let reading = store::reading(row)?;
        if current == Some(reading.entity) {
            out.push(',');
        } else {
            if current.is_some() {
                out.push_str("]},");
            }
            // A station's name needs no escaping.
            out.push_str("{\"id\":\"");
            out.push_str(reading.entity);
            out.push_str("\",\"values\":[");
            current = Some(reading.entity);
        }
        out.push_str("{\"timestamp\":\"");
        write_time(&mut out, reading.at);
        out.push('"');
        for (measure, value) in MEASURES.iter().zip(reading.values) {
            out.push_str(",\"");
            out.push_str(measure);
            out.push_str("\":");
            match value {
                Some(value) => write_number(&mut out, value),
                None => out.push_str("null"),
            }
        }
        out.push('}');
    }
    out.push_str(if current.is_some() { "]}]}" } else { "]}" });
    Ok(out)
}

fn csv(rows: &[Row]) -> Result<String, StoreError> {
    let mut out = String::with_capacity(64 + rows.len() * READING_BYTES);
    out.push_str("timestamp,id_entity,");
    out.push_str(&MEASURES.join(","));
    out.push('\n');
    for row in rows {
        let reading = store::reading(row)?;
        write_time(&mut out, reading.at);
        out.push(',');
        out.push_str(reading.entity);
        for value in reading.values {
            out.push(',');
            if let Some(value) = value {
                write_number(&mut out, value);
            }
        }
        out.push('\n');
    }
    Ok(out)
}

/// The shortest text that parses to the same number, such as `27.0` and `1e-7`; the same in JSON and CSV.
fn write_number(out: &mut String, value: f64) {
    write!(out, "{value:?}").expect("writing to a string cannot fail");
}
