//! Read-your-writes consistency when a replica answers lists: each response to a change has a position in the primary's log at
//! or after that change, and a list requested with that position includes the change.
//!
//! Without a replica every read goes to the primary, and requests skip this layer.

use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{HeaderName, HeaderValue};
use warp::http::{HeaderMap, Method};
use warp::reply::Response;

use super::client::Client;
use super::problem::{Code, Problem};
use crate::db::position::Consistency;
use crate::db::reads::{Reader, Reads};
use crate::db::replica::ReadReplica;

/// The log position that a list must include, as returned by the response to a change.
pub const DATABASE_LSN: HeaderName = HeaderName::from_static("database-lsn");

/// Creates a reader for a request with these headers.
///
/// # Errors
/// 400 if the position cannot be parsed: ignoring it could return an older state than requested.
pub fn reader(reads: &Reads, headers: &HeaderMap) -> Result<Reader, Problem> {
    let consistency = if reads.has_replica() { consistency(headers)? } else { Consistency::Eventual };
    Ok(reads.of(Client::of(headers).address(), consistency))
}

/// The greatest position that the request has.
fn consistency(headers: &HeaderMap) -> Result<Consistency, Problem> {
    let mut greatest = Consistency::Eventual;
    for line in headers.get_all(DATABASE_LSN) {
        let texts = line.to_str().map_err(|_| malformed())?;
        for text in texts.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            greatest = greatest.max(text.parse().map_err(|()| malformed())?);
        }
    }
    Ok(greatest)
}

fn malformed() -> Problem {
    Problem::new(
        Code::InvalidHeader,
        format!(
            "{DATABASE_LSN} must be a value from the response to a change, such as 1:0/3000060; omit it to read \
             without a required position"
        ),
    )
}

/// Wraps the routes so that responses to changes have a log position.
pub fn with_position(read_replica: Option<ReadReplica>, routes: BoxedFilter<(Response,)>) -> BoxedFilter<(Response,)> {
    let Some(ReadReplica { positions, .. }) = read_replica else { return routes };
    warp::method()
        .and(routes)
        .then(move |method: Method, mut response: Response| {
            let positions = positions.clone();
            async move {
                if !method.is_safe() && may_have_seen(&response) {
                    // Read after the commit, so the position includes whatever the response reports.
                    let consistency = positions.consistency().await.to_string();
                    response.headers_mut().insert(DATABASE_LSN, HeaderValue::try_from(consistency).expect("ASCII"));
                }
                response
            }
        })
        .boxed()
}

/// Whether the request may have reached the database: a request refused earlier made no change.
fn may_have_seen(response: &Response) -> bool {
    let status = response.status();
    !status.is_client_error() || matches!(status.as_u16(), 404 | 409 | 412)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_position_counts_and_malformed_ones_are_refused() {
        let read = |lines: &[&str]| {
            let line = |line: &&str| (DATABASE_LSN, HeaderValue::try_from(*line).expect("a header"));
            consistency(&lines.iter().map(line).collect()).map(|consistency| consistency.to_string()).ok()
        };
        assert_eq!(read(&[]), Some(String::new()));
        assert_eq!(read(&["1:0/30", " 2:0/10 , 1:0/FF,"]), Some("2:0/10".to_owned()));
        assert_eq!(read(&["1:0/30", "primary"]), Some("primary".to_owned()));
        for wrong in ["0/30", "1:0/30 1:0/40", "replica", "1:0/30,x"] {
            assert_eq!(read(&[wrong]), None, "{wrong}");
        }
    }
}
