//! Replaces hyper's bare refusals by problem documents that state what is wrong with the head.

use std::fmt::Write;

use bytes::BytesMut;
use uuid::Uuid;
use warp::http::header::HeaderValue;

use super::identity::{ascii, is_printable};
use crate::http::problem::{Code, Problem};
use crate::http::request_id::REQUEST_ID;

/// The start of hyper's refusals.
pub const BEGINS: &[u8] = b"HTTP/1.1 4";
/// Bytes of a head that are examined.
pub const KEPT: usize = 8 * 1024;
/// hyper's limit on header fields.
const FIELDS_MAX: usize = 100;
/// Maximum length of hyper's refusals: status and three headers.
const BARE_MAX: usize = 160;

/// The response to a head that hyper cannot parse.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The id under which it is logged.
    pub request_id: String,
    /// Length of the document.
    pub length: usize,
    /// The whole response.
    pub bytes: BytesMut,
}

/// Returns true if these bytes are hyper's own refusal; the service's responses have more headers.
pub fn is_bare(written: &[u8]) -> bool {
    let Some(text) = std::str::from_utf8(written).ok().filter(|text| text.len() < BARE_MAX) else { return false };
    let mut lines = text.split("\r\n");
    lines.next().is_some_and(|status| ["400", "414", "431"].iter().any(|code| status[9..].starts_with(code)))
        && lines.next() == Some("connection: close")
        && lines.next() == Some("content-length: 0")
        && lines.next().is_some_and(|date| date.starts_with("date: "))
        && lines.eq(["", ""])
}

/// Adds a document to a refusal; `head` is the start of the refused head.
pub fn answer(head: &[u8], bare: &[u8]) -> Answer {
    let bare = String::from_utf8_lossy(bare);
    let status = bare.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(400);
    let request_id = given_id(head).unwrap_or_else(|| Uuid::new_v4().simple().to_string());
    let document = problem(head, status).to_json(&request_id);
    let mut text = bare.trim_end().replace("content-length: 0", &format!("content-length: {}", document.len()));
    let _ = write!(
        text,
        "\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n\
         x-request-id: {request_id}\r\n\r\n"
    );
    let mut bytes = BytesMut::from(text.as_bytes());
    let length = if head.starts_with(b"HEAD ") { 0 } else { document.len() };
    bytes.extend_from_slice(&document[..length]);
    Answer { status, request_id, length, bytes }
}

/// The request id, for example from nginx, as far as the head can be parsed.
fn given_id(head: &[u8]) -> Option<String> {
    let mut values = head.split(|byte| *byte == b'\n').filter_map(|line| {
        let (name, value) = line.split_at_checked(REQUEST_ID.as_str().len())?;
        let value = value.strip_prefix(b":").filter(|_| name.eq_ignore_ascii_case(REQUEST_ID.as_str().as_bytes()))?;
        HeaderValue::from_bytes(value.trim_ascii()).ok().filter(is_printable)
    });
    Some(ascii(&values.next()?).to_owned())
}

fn problem(head: &[u8], status: u16) -> Problem {
    match status {
        414 => Problem::new(Code::UriTooLong, "the request line is too long; shorten the query string"),
        431 => Problem::new(
            Code::HeadersTooLarge,
            format!(
                "a request may have {FIELDS_MAX} header fields, including those that proxies add, of 64 KiB in total; \
                 send fewer or shorter ones"
            ),
        ),
        _ => Problem::new(Code::BadRequest, fault(head)),
    }
}

/// Describes what is wrong with a head, and the remedy.
fn fault(head: &[u8]) -> String {
    if head.starts_with(&[0x16, 3]) {
        return "the bytes are TLS, but this is a plain HTTP port; use an http:// URL, or the HTTPS port".to_owned();
    }
    // A line that was cut off is not examined.
    let whole = head.iter().rposition(|byte| *byte == b'\n').filter(|_| head.len() >= KEPT).unwrap_or(head.len());
    let mut lines = head[..whole].split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let request = lines.find(|line| !line.is_empty()).unwrap_or_default();
    if let Some(fault) = fault_of_request_line(request) {
        return fault.to_owned();
    }
    let fields: Vec<&[u8]> = lines.take_while(|line| !line.is_empty()).collect();
    let of_one = fields.iter().enumerate().find_map(|(index, line)| fault_of_field(index + 1, line));
    of_one.unwrap_or_else(|| {
        let unknown =
            "this is not a well-formed HTTP request; check the request line, the headers and the percent-encoding of the URL";
        fault_of_length(request, &fields).unwrap_or(unknown).to_owned()
    })
}

/// Reports ambiguous body framing.
fn fault_of_length(request: &[u8], fields: &[&[u8]]) -> Option<&'static str> {
    let given = |name: &str| {
        let begins =
            |line: &&&[u8]| line.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name.as_bytes()));
        fields.iter().filter(begins).count()
    };
    match (given("content-length:"), given("transfer-encoding:")) {
        (2.., _) => Some("Content-Length must be given once"),
        (_, 2..) => Some("Transfer-Encoding must be given once"),
        (1, 1) => Some("Content-Length and Transfer-Encoding must not be given together"),
        (_, 1) if request.ends_with(b"HTTP/1.0") => Some("Transfer-Encoding requires HTTP/1.1; send Content-Length"),
        _ => None,
    }
}

fn fault_of_request_line(line: &[u8]) -> Option<&'static str> {
    let mut parts = line.splitn(2, |byte| *byte == b' ');
    let (method, rest) = (parts.next().unwrap_or_default(), parts.next());
    if method.is_empty() || !method.iter().all(is_token) {
        return Some("the request line must begin with a method, such as GET");
    }
    let Some(rest) = rest else {
        return Some("the request line must be a method, a target and a version, such as: GET /v1/passengers HTTP/1.1");
    };
    let (target, version) = match rest.iter().rposition(|byte| *byte == b' ') {
        Some(blank) => (&rest[..blank], &rest[blank + 1..]),
        None => (rest, &b""[..]),
    };
    if !version.starts_with(b"HTTP/") {
        return Some("the request line must end with a space and HTTP/1.1; a space in the target must be sent as %20");
    }
    if version != b"HTTP/1.1" && version != b"HTTP/1.0" {
        return Some("the HTTP version must be 1.1 or 1.0");
    }
    if target.iter().any(|byte| byte.is_ascii_control() || *byte == b' ') {
        return Some("the target contains a space or a control character; percent-encode it, a space as %20");
    }
    if !target.starts_with(b"/") && !target.starts_with(b"http") && target != b"*" {
        return Some("the target must begin with /");
    }
    None
}

fn fault_of_field(number: usize, line: &[u8]) -> Option<String> {
    let name = match line.iter().position(|byte| *byte == b':') {
        Some(colon) if colon > 0 && line[..colon].iter().all(is_token) => &line[..colon],
        _ => {
            return Some(format!(
                "header field {number} must begin with a name of letters, digits and hyphens and a colon; send every \
                 field on one line"
            ));
        }
    };
    let (shown, value) = (String::from_utf8_lossy(name), &line[name.len() + 1..]);
    if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Some(format!("the header {shown} contains a control character; remove or encode it"));
    }
    let value = value.trim_ascii();
    if name.eq_ignore_ascii_case(b"content-length") && (value.is_empty() || !value.iter().all(u8::is_ascii_digit)) {
        return Some("Content-Length must be one whole number".to_owned());
    }
    if name.eq_ignore_ascii_case(b"transfer-encoding") && !value.eq_ignore_ascii_case(b"chunked") {
        return Some("Transfer-Encoding must be chunked, and requires HTTP/1.1".to_owned());
    }
    None
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}
