//! Entity tags and the conditions that requests put on them (RFC 9110, sections 8.8.3 and 13).
//!
//! A tag is the quoted version of a row, and strong: equal tags mean equal bytes. `If-Match` uses strong comparison, as the RFC
//! requires, so a tag weakened by a proxy never permits a write. A malformed header is refused rather than ignored, because
//! ignoring it would drop the client's precondition.

use std::str::FromStr;

use warp::http::header::{ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::problem::{Code, Problem};
use crate::db::version::Precondition;

/// Whether writes must have `If-Match`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMatch {
    /// It is optional.
    Optional,
    /// It is required; writes without it get 428.
    Required,
}

/// The tag of a version, as text.
pub fn text(version: i64) -> String {
    let mut text = String::with_capacity(22); // two quotes around at most 20 characters
    text.push('"');
    text.push_str(itoa::Buffer::new().format(version));
    text.push('"');
    text
}

/// The tag of a version.
pub fn of(version: i64) -> HeaderValue {
    HeaderValue::try_from(text(version)).expect("digits and quotes are printable")
}

/// Adds the tag of the version that the response represents.
pub fn tagged(mut response: Response, version: i64) -> Response {
    response.headers_mut().insert(ETAG, of(version));
    response
}

/// The preconditions of a read.
#[derive(Debug)]
pub struct ReadCondition {
    only: Option<Tags>,
    except: Option<Tags>,
}

impl ReadCondition {
    /// Reads `If-Match` and `If-None-Match` of a GET or HEAD.
    ///
    /// # Errors
    /// 400 if a header is not a list of tags.
    pub fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self { only: Tags::read(headers, &IF_MATCH)?, except: Tags::read(headers, &IF_NONE_MATCH)? })
    }

    /// The response that replaces the row, if any: 304 if the client has this version already.
    ///
    /// # Errors
    /// 412 if `If-Match` does not match.
    pub fn instead(&self, version: i64) -> Result<Option<Response>, Problem> {
        if self.only.as_ref().is_some_and(|tags| !tags.name(version, Comparison::Strong)) {
            return Err(Problem::stale());
        }
        let known = self.except.as_ref().is_some_and(|tags| tags.name(version, Comparison::Weak));
        Ok(known.then(|| {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            tagged(response, version)
        }))
    }
}

/// Reads `If-Match` and `If-None-Match` of a request with an unsafe method.
///
/// # Errors
/// 400 when a header is no list of tags, 428 when `If-Match` is required and not there.
pub fn condition(headers: &HeaderMap, rule: IfMatch) -> Result<Precondition, Problem> {
    let only = Tags::read(headers, &IF_MATCH)?;
    if only.is_none() && rule == IfMatch::Required {
        return Err(required());
    }
    let mut condition =
        Precondition { required: only.and_then(|tags| tags.versions(Comparison::Strong)), refused: None };
    match Tags::read(headers, &IF_NONE_MATCH)?.map(|tags| tags.versions(Comparison::Weak)) {
        None => {}
        // `If-None-Match: *` requires that the resource does not exist, but a change needs an existing one: no version matches.
        Some(None) => condition.required = Some(Vec::new()),
        Some(versions) => condition.refused = versions,
    }
    Ok(condition)
}

/// The problem for a change without the required `If-Match`.
pub fn required() -> Problem {
    Problem::new(
        Code::PreconditionRequired,
        "read the resource first and send its ETag as If-Match, so that no concurrent change is overwritten",
    )
}

/// Matches requests without `If-Match` and `If-None-Match`. Conditional requests are handled by another route, which clones the
/// headers.
pub fn unconditional() -> impl Filter<Extract = (), Error = Rejection> + Copy + Send + Sync + 'static {
    absent("if-none-match").and(absent("if-match"))
}

/// Rejects a request that has this header.
fn absent(name: &'static str) -> impl Filter<Extract = (), Error = Rejection> + Copy + Send + Sync + 'static {
    warp::header::optional::<Unwanted>(name).map(|_: Option<Unwanted>| ()).untuple_one()
}

/// The type of a header that must be absent: no value parses.
enum Unwanted {}

impl FromStr for Unwanted {
    type Err = ();

    fn from_str(_: &str) -> Result<Self, ()> {
        Err(())
    }
}

/// How tags are compared (RFC 9110, section 8.8.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// Weak tags never match.
    Strong,
    /// Weak and strong tags match alike.
    Weak,
}

/// The tags of one header.
#[derive(Debug, PartialEq, Eq)]
enum Tags {
    /// `*`: any existing version.
    Any,
    /// One of these. Tags that are not versions of this service are omitted, because they match nothing.
    Listed(Vec<Tag>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tag {
    weak: bool,
    version: i64,
}

impl Tags {
    /// Reads all lines of a header; `None` if there are none.
    fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, Problem> {
        let mut lines = headers.get_all(name).iter().peekable();
        if lines.peek().is_none() {
            return Ok(None);
        }
        let mut tags = Vec::new();
        let mut any = false;
        for line in lines {
            match list(line.as_bytes(), &mut tags) {
                Some(Line::Any) => any = true,
                Some(Line::Tags) => {}
                None => {
                    return Err(Problem::new(
                        Code::InvalidHeader,
                        format!("{name} must be * or quoted tags such as \"7\", exactly as in the header ETag"),
                    ));
                }
            }
        }
        Ok(Some(if any { Self::Any } else { Self::Listed(tags) }))
    }

    fn name(&self, version: i64, comparison: Comparison) -> bool {
        self.versions(comparison).is_none_or(|versions| versions.contains(&version))
    }

    /// The listed versions; `None` for `*`.
    fn versions(&self, comparison: Comparison) -> Option<Vec<i64>> {
        match self {
            Self::Any => None,
            Self::Listed(tags) => {
                let counts = |tag: &&Tag| comparison == Comparison::Weak || !tag.weak;
                Some(tags.iter().filter(counts).map(|tag| tag.version).collect())
            }
        }
    }
}

/// What one line of the header contains.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Any,
    Tags,
}

/// Parses `*` or a list of tags, whose elements may be empty; `None` if it is neither.
fn list(line: &[u8], tags: &mut Vec<Tag>) -> Option<Line> {
    let mut rest = line.trim_ascii();
    if rest == b"*" {
        return Some(Line::Any);
    }
    loop {
        rest = rest.trim_ascii_start();
        if let Some(after) = rest.strip_prefix(b",") {
            rest = after;
            continue;
        }
        if rest.is_empty() {
            return Some(Line::Tags);
        }
        let (weak, quoted) = rest.strip_prefix(b"W/").map_or((false, rest), |after| (true, after));
        let inside = quoted.strip_prefix(b"\"")?;
        let end = inside.iter().position(|byte| *byte == b'"')?;
        // RFC 9110, section 8.8.3: no spaces and no control characters.
        if !inside[..end].iter().all(|byte| *byte > b' ' && *byte != 0x7f) {
            return None;
        }
        tags.extend(version(&inside[..end]).map(|version| Tag { weak, version }));
        rest = inside[end + 1..].trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return None;
        }
    }
}

/// The version in a tag. Only the exact form that [`of`] writes is accepted, because tags are compared by their bytes.
fn version(tag: &[u8]) -> Option<i64> {
    let version = std::str::from_utf8(tag).ok()?.parse::<i64>().ok()?;
    (version.to_string().as_bytes() == tag).then_some(version)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(name: &HeaderName, lines: &[&str]) -> HeaderMap {
        let value = |line: &&str| HeaderValue::from_bytes(line.as_bytes()).expect("a header");
        lines.iter().map(|line| (name.clone(), value(line))).collect()
    }

    fn read(lines: &[&str]) -> Result<Option<Tags>, Problem> {
        Tags::read(&headers(&IF_MATCH, lines), &IF_MATCH)
    }

    fn strong(version: i64) -> Tag {
        Tag { weak: false, version }
    }

    #[test]
    fn lists_are_parsed_and_malformed_ones_refused() {
        assert_eq!(read(&[]).expect("fine"), None);
        assert_eq!(read(&[" * "]).expect("fine"), Some(Tags::Any));
        assert_eq!(read(&["\"7\"", "*"]).expect("fine"), Some(Tags::Any));
        for (lines, tags) in [
            (&["\"7\""][..], vec![strong(7)]),
            (
                &["\"7\",\"8\" , , W/\"9\"", " \"10\","],
                vec![strong(7), strong(8), Tag { weak: true, version: 9 }, strong(10)],
            ),
            // Well-formed tags that this service never writes.
            (&["\"\"", "\"a,b\", \"07\", \"+7\", \"7.0\", \"99999999999999999999\", \"\u{e9}\""], vec![]),
            (&[""], vec![]),
        ] {
            assert_eq!(read(lines).expect("fine"), Some(Tags::Listed(tags)), "{lines:?}");
        }
        for line in ["7", "\"7", "7\"", "w/\"7\"", "W/7", "\"7\" \"8\"", "\"7\"x", "*, \"7\"", "\"a b\"", "**"] {
            assert!(read(&[line]).is_err(), "{line}");
        }
    }

    #[test]
    fn if_match_compares_strongly_and_if_none_match_weakly() {
        let condition =
            |name: HeaderName, line: &str| condition(&headers(&name, &[line]), IfMatch::Optional).expect("well formed");
        assert_eq!(condition(IF_MATCH, "*"), Precondition::default());
        assert_eq!(condition(IF_MATCH, "W/\"7\", \"8\"").required, Some(vec![8]));
        assert_eq!(condition(IF_NONE_MATCH, "W/\"7\", \"8\"").refused, Some(vec![7, 8]));
        assert_eq!(condition(IF_NONE_MATCH, "*").required, Some(vec![]));
        let required = |line| super::condition(&headers(&IF_MATCH, line), IfMatch::Required);
        assert!(required(&["*"]).is_ok() && required(&[]).is_err());
        let reading =
            |name: HeaderName, line| ReadCondition::read(&headers(&name, &[line])).expect("well formed").instead(7);
        assert!(reading(IF_NONE_MATCH, "W/\"7\"").is_ok_and(|instead| instead.is_some()));
        assert!(reading(IF_NONE_MATCH, "\"8\"").is_ok_and(|instead| instead.is_none()));
        assert!(reading(IF_MATCH, "\"7\"").is_ok_and(|instead| instead.is_none()));
        assert!(reading(IF_MATCH, "W/\"7\"").is_err());
    }

    proptest! {
        #[test]
        fn a_tag_is_read_back_as_its_version(versions in prop::collection::vec(any::<i64>(), 1..5)) {
            let tags: Vec<HeaderValue> = versions.iter().map(|version| of(*version)).collect();
            let line = tags.iter().map(|tag| tag.to_str().expect("ASCII")).collect::<Vec<_>>().join(", ");
            let expected = versions.into_iter().map(strong).collect();
            prop_assert_eq!(read(&[&line]).expect("well formed"), Some(Tags::Listed(expected)));
        }

        #[test]
        fn any_header_line_can_be_parsed(line in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = list(&line, &mut Vec::new());
        }
    }
}
