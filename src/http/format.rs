//! The formats of responses with many rows, and their negotiation.

use warp::http::HeaderMap;

use super::accept::negotiate;
use super::body::{CSV, JSON, NDJSON};
use super::problem::Problem;

/// The format of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// One document.
    Json,
    /// A header and one line per row.
    Csv,
    /// One object per line.
    Ndjson,
    /// A single row as an object (PostgREST's media type for it).
    Object,
}

impl Format {
    const ALL: [Self; 4] = [Self::Json, Self::Csv, Self::Ndjson, Self::Object];

    /// Selects the format that the client prefers; the first if it states no preference.
    ///
    /// # Errors
    /// 406 if the client accepts none of them.
    pub fn negotiate(headers: &HeaderMap, offered: &[Self]) -> Result<Self, Problem> {
        let media_types: Vec<&'static str> = offered.iter().map(|format| format.media_type()).collect();
        let best = negotiate(headers, &media_types)?;
        Ok(Self::ALL.into_iter().find(|format| format.media_type() == best).unwrap_or(offered[0]))
    }

    /// The format with this parameter value.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The parameter value of the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
            Self::Object => "object",
        }
    }

    /// The media type of the format.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Csv => CSV,
            Self::Ndjson => NDJSON,
            Self::Object => "application/vnd.pgrst.object+json",
        }
    }

    /// The header `Content-Type` (RFC 4180, section 3, for CSV).
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            other => other.media_type(),
        }
    }
}
