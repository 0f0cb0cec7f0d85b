//! The pages under `/docs/problems`, one for each problem `type`.
//!
//! They are generated from the catalogue on request, so they are always current.

use std::fmt::Write;

use crate::http::catalogue::{self, Kind};

const TEMPLATE: &str = include_str!("site/problem.html");

/// The page that lists all kinds.
pub fn list() -> String {
    let mut rows = String::new();
    for kind in catalogue::all() {
        let Kind { status, code, cause, .. } = kind;
        // Writing to a String cannot fail.
        let _ = writeln!(
            rows,
            "<tr><td>{status}</td><td><a href=\"/docs/problems/{code}\"><code>{code}</code></a></td><td>{}</td></tr>",
            escaped(cause)
        );
    }
    let body = format!(
        "<h1>Problems</h1>\n<p>Every error is a document of type <code>application/problem+json</code> (RFC 9457). \
         Its <code>code</code> is one of these and is stable; its <code>type</code> is the URL of the page that \
         explains what to do.</p>\n<table>\n<thead><tr><th scope=\"col\">Status</th><th scope=\"col\">Code</th><th \
         scope=\"col\">Cause</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>"
    );
    filled("Problems", &body)
}

/// The page of one kind.
pub fn page(kind: &Kind) -> String {
    let Kind { status, code, title, cause, remedy, .. } = kind;
    let example = serde_json::to_string_pretty(&kind.example()).unwrap_or_default();
    let (title, cause, remedy) = (escaped(title), escaped(cause), escaped(remedy));
    let body = format!(
        "<p class=\"status\"><code>{code}</code> <span>HTTP {status}</span></p>\n<h1>{title}</h1>\n\
         <h2>What happened</h2>\n<p>{cause}</p>\n<h2>What to do</h2>\n<p>{remedy}</p>\n\
         <h2>Example</h2>\n<pre tabindex=\"0\"><code>{}</code></pre>",
        escaped(&example)
    );
    filled(&title, &body)
}

fn filled(title: &str, body: &str) -> String {
    TEMPLATE.replace("{{title}}", title).replace("{{body}}", body)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
