//! The forms of an answer with many rows, and which one a client likes best.

use warp::http::HeaderMap;

use super::accept::negotiate;
use super::body::{CSV, JSON, NDJSON};
use super::problem::Problem;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// One document.
    Json,
    /// A header and one line per row.
    Csv,
    /// One object per line.
    Ndjson,
    /// The only row, as an object (PostgREST's media type for it).
    Object,
}

impl Format {
    const ALL: [Self; 4] = [Self::Json, Self::Csv, Self::Ndjson, Self::Object];

    /// The one that the client likes best of those on offer; the first when it does not say.
    ///
    /// # Errors
    /// 406 when it takes none of them.
    pub fn negotiate(headers: &HeaderMap, offered: &[Self]) -> Result<Self, Problem> {
        let media_types: Vec<&'static str> = offered.iter().map(|format| format.media_type()).collect();
        let best = negotiate(headers, &media_types)?;
        Ok(Self::ALL.into_iter().find(|format| format.media_type() == best).unwrap_or(offered[0]))
    }

    /// The one that a parameter names.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Its name in a parameter.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
            Self::Object => "object",
        }
    }

    /// Its media type.
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
