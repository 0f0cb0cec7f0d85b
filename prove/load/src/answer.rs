//! An answer, the outcome that it states, and what is wrong with the form of an error (prove/ledger.py, prove/client.py).

use serde_json::Value;

use crate::operation::Outcome;

/// These carry `Retry-After`, unless the outcome is unknown (docs/api.md).
const WITH_RETRY_AFTER: [u16; 4] = [429, 502, 503, 504];

#[derive(Default)]
pub struct Answer {
    pub status: u16,
    pub etag: Option<String>,
    content_type: Option<String>,
    retry_after: Option<String>,
    request_id: Option<String>,
    pub length: usize,
    pub is_chunked: bool,
    pub closes: bool,
    pub body: Vec<u8>,
}

/// What an answer states.
pub struct Verdict {
    pub outcome: Outcome,
    /// The status and the problem's code, of answers that do not report the row's state.
    pub failure: Option<String>,
    /// What is wrong with its form.
    pub malformed: Option<String>,
}

impl Answer {
    /// Parses the head of an answer; none if it is not one of HTTP.
    pub fn parse(head: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let mut answer = Answer { status, ..Answer::default() };
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "etag" => answer.etag = Some(value.to_owned()),
                "content-type" => answer.content_type = Some(value.to_owned()),
                "retry-after" => answer.retry_after = Some(value.to_owned()),
                "x-request-id" => answer.request_id = Some(value.to_owned()),
                "content-length" => answer.length = value.parse().ok()?,
                "transfer-encoding" => answer.is_chunked = value.eq_ignore_ascii_case("chunked"),
                "connection" => answer.closes = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        Some(answer)
    }

    /// `is_read`: the request may be repeated whatever its outcome; `is_restore`: a 409 reports the row's state.
    pub fn verdict(&self, is_read: bool, is_restore: bool) -> Verdict {
        if self.status < 300 {
            return Verdict { outcome: Outcome::Done, failure: None, malformed: None };
        }
        let is_problem = self.content_type.as_deref() == Some("application/problem+json");
        let problem = if is_problem { serde_json::from_slice(&self.body).unwrap_or_default() } else { Value::Null };
        let code = problem["code"].as_str();
        let outcome = match (self.status, code) {
            (404, _) => Some(Outcome::NotFound),
            (412, _) => Some(Outcome::PreconditionFailed),
            (_, Some("unavailable" | "too-many-requests" | "request-timeout" | "idempotency-in-flight")) => {
                Some(Outcome::NotDone)
            }
            (_, Some("outcome-unknown" | "bad-gateway" | "gateway-timeout")) => Some(Outcome::Unknown),
            (_, Some("conflict")) if is_restore => Some(Outcome::Conflict),
            _ => None,
        };
        let reports_state =
            matches!(outcome, Some(Outcome::NotFound | Outcome::PreconditionFailed | Outcome::Conflict));
        let shown = format!("{} {}", self.status, code.unwrap_or("without a code"));
        let malformed = self.malformation(&problem, is_read);
        let malformed = malformed.or_else(|| outcome.is_none().then(|| format!("{shown}: {}", problem["detail"])));
        Verdict {
            outcome: outcome.unwrap_or(Outcome::Unknown),
            failure: (!reports_state).then_some(shown),
            malformed: malformed
                .map(|text| format!("{text} ({})", self.request_id.as_deref().unwrap_or("no request id"))),
        }
    }

    fn malformation(&self, problem: &Value, is_read: bool) -> Option<String> {
        let status = self.status;
        if problem.is_null() {
            return Some(format!("{status} is not a problem document"));
        }
        if problem["status"].as_u64() != Some(status.into()) {
            return Some(format!("{status} has status member {}", problem["status"]));
        }
        let code = problem["code"].as_str().unwrap_or_default();
        if code.is_empty() || problem["type"].as_str() != Some(&format!("/docs/problems/{code}")) {
            return Some(format!("{status} has code {code} and type {}", problem["type"]));
        }
        // HTTP clients treat Retry-After as permission to repeat the request.
        let may_repeat = is_read || code != "outcome-unknown";
        let permits = self.retry_after.as_ref().is_some_and(|text| text.parse::<u64>().is_ok());
        if WITH_RETRY_AFTER.contains(&status) && may_repeat != permits {
            return Some(format!("{status} {code} has Retry-After {:?}", self.retry_after));
        }
        None
    }
}
