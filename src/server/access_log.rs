//! The access log: one line per request, formatted by hand.
//!
//! The general logger costs a request a third of its instructions; this one appends the line to the log's buffer.

use std::io::Write;
use std::time::{Duration, SystemTime};

use crate::log_output::{LogFormat, LogOutput, Urgency};

/// What a line says.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The method's label.
    pub method: &'a str,
    /// The route's template.
    pub route: &'a str,
    /// The status that the client saw.
    pub status: u16,
    /// Bytes of the body.
    pub bytes: usize,
    /// Whether the body was cut short.
    pub truncated: bool,
    /// From the first header to the last byte.
    pub duration: Duration,
    /// Printable ASCII, chosen by the client or by us.
    pub request_id: &'a str,
    /// Hexadecimal digits.
    pub trace_id: &'a str,
    /// The name of whoever asked; empty for an anonymous one.
    pub principal: &'a str,
}

/// Takes lines; clones share one output.
#[derive(Clone)]
pub struct AccessLog(Option<(LogFormat, LogOutput)>);

impl AccessLog {
    /// Takes no lines.
    pub fn off() -> Self {
        Self(None)
    }

    /// Writes to an output in the given format.
    pub fn to(format: LogFormat, output: LogOutput) -> Self {
        Self(Some((format, output)))
    }

    /// Appends a line.
    pub fn log(&self, entry: &Entry<'_>) {
        if let Some((format, output)) = &self.0 {
            output.append(Urgency::Soon, |lines, clock| {
                let (stamp, micros) = clock.spell(SystemTime::now());
                write_line(lines, *format, stamp, micros, entry);
            });
        }
    }
}

/// A line in the shape of the general log's.
fn write_line(out: &mut Vec<u8>, format: LogFormat, stamp: &str, micros: u32, entry: &Entry<'_>) {
    let Entry { method, route, status, bytes, truncated, duration, request_id, trace_id, principal } = entry;
    let (ms, us) = (duration.as_millis(), duration.subsec_micros() % 1000);
    // These two may hold any printable character; the rest are our own words.
    let (request_id, principal) = (Escaped(request_id), Escaped(principal));
    let written = match format {
        LogFormat::Text => writeln!(
            out,
            "{stamp}.{micros:06}Z  INFO access: request http.method=\"{method}\" http.route=\"{route}\" \
             http.status={status} http.response.bytes={bytes} http.truncated={truncated} duration_ms={ms}.{us:03} \
             request_id=\"{request_id}\" trace_id=\"{trace_id}\" principal=\"{principal}\""
        ),
        LogFormat::Json => writeln!(
            out,
            "{{\"timestamp\":\"{stamp}.{micros:06}Z\",\"level\":\"INFO\",\"message\":\"request\",\
             \"http.method\":\"{method}\",\"http.route\":\"{route}\",\"http.status\":{status},\
             \"http.response.bytes\":{bytes},\"http.truncated\":{truncated},\"duration_ms\":{ms}.{us:03},\
             \"request_id\":\"{request_id}\",\"trace_id\":\"{trace_id}\",\"principal\":\"{principal}\",\"target\":\"access\"}}"
        ),
    };
    written.expect("a vector takes everything");
}

/// Printable ASCII inside of double quotes.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        for part in self.0.split_inclusive(['"', '\\']) {
            match part.strip_suffix(['"', '\\']) {
                None => formatter.write_str(part)?,
                Some(before) => write!(formatter, "{before}\\{}", &part[before.len()..])?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_is_json_and_holds_every_field() {
        let entry = Entry {
            method: "GET",
            route: "/v1/passengers/{uuid}",
            status: 200,
            bytes: 198,
            truncated: false,
            duration: Duration::from_micros(1234),
            request_id: "a\"b\\c",
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736",
            principal: "https://issuer.example \"me\"",
        };
        let mut line = Vec::new();
        write_line(&mut line, LogFormat::Json, "2026-01-31T23:59:58", 42, &entry);
        let value: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(value["timestamp"], "2026-01-31T23:59:58.000042Z");
        assert_eq!(value["http.status"], 200);
        assert_eq!(value["duration_ms"], 1.234);
        assert_eq!(value["request_id"], "a\"b\\c");
        assert_eq!(value["principal"], "https://issuer.example \"me\"");
        assert_eq!(value["target"], "access");
    }
}
