//! AWS Signature Version 4 of a request in its header `Authorization`. The secret key itself is never sent.

use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::{digest, hmac};

use crate::hexadecimal;

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');

/// An access key.
#[derive(Clone)]
pub struct Access {
    /// `AWS_ACCESS_KEY_ID`.
    pub key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret: String,
    /// `AWS_SESSION_TOKEN`, for a temporary key.
    pub session: Option<String>,
}

/// The parts of a request that are signed.
pub struct Signed<'a> {
    /// The method.
    pub method: &'a str,
    /// The path as it is sent.
    pub path: &'a str,
    /// The query as it is sent.
    pub query: &'a str,
    /// The header `Host`.
    pub host: &'a str,
    /// SHA-256 of the body.
    pub body: &'a str,
}

/// A key as its path in a URL.
pub fn path(key: &str) -> String {
    utf8_percent_encode(key, PATH).to_string()
}

/// Parameters as a query, sorted.
pub fn query(parameters: &[(&str, &str)]) -> String {
    let mut pairs: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, UNRESERVED))).collect();
    pairs.sort();
    pairs.join("&")
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal::text(digest::digest(&digest::SHA256, bytes).as_ref())
}

impl Access {
    /// The headers that a request needs.
    pub fn headers(&self, request: &Signed<'_>, region: &str, now: Timestamp) -> Vec<(&'static str, String)> {
        let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let scope = format!("{}/{region}/s3/aws4_request", &time[..8]);
        let mut headers = vec![
            ("host", request.host.to_owned()),
            ("x-amz-content-sha256", request.body.to_owned()),
            ("x-amz-date", time.clone()),
        ];
        headers.extend(self.session.clone().map(|session| ("x-amz-security-token", session)));
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let Signed { method, path, query, body, .. } = request;
        let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{body}");
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in [&time[..8], region, "s3", "aws4_request"] {
            key = mac(&key, part);
        }
        let signature = hexadecimal::text(&mac(&key, &text));
        let credential = format!("{}/{scope}", self.key_id);
        let value = format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}");
        headers.push(("authorization", value));
        headers
    }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_signed_as_the_documentation_of_aws_signs_it() {
        // "GET Bucket (List Objects)" of the Signature Calculations in the Amazon S3 API Reference.
        let access = Access {
            key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            session: None,
        };
        let query = query(&[("prefix", "J"), ("max-keys", "2")]);
        let request = Signed {
            method: "GET",
            path: "/",
            query: &query,
            host: "examplebucket.s3.amazonaws.com",
            body: &sha256(b""),
        };
        let now = "2013-05-24T00:00:00Z".parse().expect("a time");
        let (_, signed) = access.headers(&request, "us-east-1", now).pop().expect("the last header");
        let signature = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7";
        assert!(signed.ends_with(&format!("Signature={signature}")), "{signed}");
    }

    #[test]
    fn names_are_written_as_a_url_takes_them() {
        assert_eq!(path("a b/ü+c.copy"), "a%20b/%C3%BC%2Bc.copy");
        assert_eq!(query(&[("prefix", "a/b"), ("delimiter", "/")]), "delimiter=%2F&prefix=a%2Fb");
    }
}
