//! The access log: one line per request, formatted by hand.
//!
//! The general logger costs a third of a request's instructions; this one appends the line to the log's buffer.

use std::time::{Duration, SystemTime};

use crate::log_output::{LogFormat, LogOutput, Urgency};

/// The contents of a line.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The method's label.
    pub method: &'a str,
    /// The route's template.
    pub route: &'a str,
    /// The status that the client received.
    pub status: u16,
    /// Bytes of the body.
    pub bytes: usize,
    /// Whether the body was truncated.
    pub truncated: bool,
    /// From the first header to the last byte.
    pub duration: Duration,
    /// Printable ASCII, chosen by the client or generated.
    pub request_id: &'a str,
    /// Hexadecimal digits.
    pub trace_id: &'a str,
    /// The name of the principal; empty for an anonymous request.
    pub principal: &'a str,
}

/// The probes of orchestrators, which are sent every few seconds and are not worth logging while the status is 200.
const PROBES: [&str; 2] = ["/livez", "/readyz"];

/// Writes access log lines; clones share one output.
#[derive(Clone)]
pub struct AccessLog {
    output: Option<(LogFormat, LogOutput)>,
    /// Whether successful probes are logged.
    probes: bool,
}

impl AccessLog {
    /// A log that discards all lines.
    pub fn off() -> Self {
        Self { output: None, probes: false }
    }

    /// A log that writes to an output in this format; `probes` includes successful probes.
    pub fn to(format: LogFormat, output: LogOutput, probes: bool) -> Self {
        Self { output: Some((format, output)), probes }
    }

    /// Appends a line.
    pub fn log(&self, entry: &Entry<'_>) {
        if let Some((format, output)) = &self.output
            && (self.probes || entry.status != 200 || !PROBES.contains(&entry.route))
        {
            output.append(Urgency::Soon, |lines, clock| {
                let (stamp, micros) = clock.spell(SystemTime::now());
                write_line(lines, *format, stamp, micros, entry);
            });
        }
    }
}

/// Writes a line in the format of the general log. The pieces are appended one by one, because `write!` costs three times as
/// much.
fn write_line(out: &mut Vec<u8>, format: LogFormat, stamp: &str, micros: u32, entry: &Entry<'_>) {
    let Entry { method, route, status, bytes, truncated, duration, request_id, trace_id, principal } = entry;
    let (ms, us) = (duration.as_millis(), duration.subsec_micros() % 1000);
    let truncated = if *truncated { "true" } else { "false" };
    let mut line = Line(out);
    match format {
        LogFormat::Text => {
            line.text(stamp).text(".").digits::<6>(micros).text("Z  INFO access: request http.method=\"").text(method);
            line.text("\" http.route=\"").text(route).text("\" http.status=").number(*status);
            line.text(" http.response.bytes=").number(*bytes).text(" http.truncated=").text(truncated);
            line.text(" duration_ms=").number(ms).text(".").digits::<3>(us).text(" request_id=\"").escaped(request_id);
            line.text("\" trace_id=\"").text(trace_id).text("\" principal=\"").escaped(principal).text("\"\n");
        }
        LogFormat::Json => {
            line.text("{\"timestamp\":\"").text(stamp).text(".").digits::<6>(micros);
            line.text("Z\",\"level\":\"INFO\",\"message\":\"request\",\"http.method\":\"").text(method);
            line.text("\",\"http.route\":\"").text(route).text("\",\"http.status\":").number(*status);
            line.text(",\"http.response.bytes\":").number(*bytes).text(",\"http.truncated\":").text(truncated);
            line.text(",\"duration_ms\":").number(ms).text(".").digits::<3>(us);
            line.text(",\"request_id\":\"").escaped(request_id).text("\",\"trace_id\":\"").text(trace_id);
            line.text("\",\"principal\":\"").escaped(principal).text("\",\"target\":\"access\"}\n");
        }
    }
}

/// A line being built.
struct Line<'a>(&'a mut Vec<u8>);

impl Line<'_> {
    fn text(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// Appends text with printable characters, for use inside double quotes.
    fn escaped(&mut self, text: &str) -> &mut Self {
        let mut rest = text;
        while let Some(at) = memchr::memchr2(b'"', b'\\', rest.as_bytes()) {
            let (before, behind) = rest.split_at(at);
            self.text(before).text("\\").text(&behind[..1]);
            rest = &behind[1..];
        }
        self.text(rest)
    }

    fn number(&mut self, number: impl itoa::Integer) -> &mut Self {
        self.text(itoa::Buffer::new().format(number))
    }

    /// Appends a number with leading zeros.
    fn digits<const N: usize>(&mut self, mut number: u32) -> &mut Self {
        let mut digits = [b'0'; N];
        for digit in digits.iter_mut().rev() {
            *digit += u8::try_from(number % 10).expect("a digit");
            number /= 10;
        }
        self.0.extend_from_slice(&digits);
        self
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
        line.clear();
        write_line(&mut line, LogFormat::Text, "2026-01-31T23:59:58", 42, &entry);
        let expected = concat!(
            r#"2026-01-31T23:59:58.000042Z  INFO access: request http.method="GET" http.route="/v1/passengers/{uuid}" "#,
            r#"http.status=200 http.response.bytes=198 http.truncated=false duration_ms=1.234 request_id="a\"b\\c" "#,
            r#"trace_id="4bf92f3577b34da6a3ce929d0e0e4736" principal="https://issuer.example \"me\"""#,
            "\n"
        );
        assert_eq!(String::from_utf8(line).expect("UTF-8"), expected);
    }
}
