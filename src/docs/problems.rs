//! The pages below `/docs/problems`: each problem's `type` leads to one.
//!
//! They are written from the catalogue when they are asked for, so there is nothing to keep in step.

use std::fmt::Write;

use crate::http::catalogue::{self, Kind};

const TEMPLATE: &str = include_str!("site/problem.html");

/// The page of all kinds.
pub fn list() -> String {
    let mut rows = String::new();
    for kind in catalogue::all() {
        let Kind { status, code, cause, .. } = kind;
        // A String takes everything.
        let _ = writeln!(
            rows,
            "<tr><td>{status}</td><td><a href=\"/docs/problems/{code}\"><code>{code}</code></a></td><td>{}</td></tr>",
            escaped(cause)
        );
    }
    let body = format!(
        "<h1>Problems</h1>\n<p>Every error is a document of the type <code>application/problem+json</code> (RFC 9457). Its \
         <code>code</code> is one of these and stays as it is; its <code>type</code> leads to the page that says what to do.\
         </p>\n<table>\n<thead><tr><th scope=\"col\">Status</th><th scope=\"col\">Code</th><th scope=\"col\">Cause</th></tr>\
         </thead>\n<tbody>\n{rows}</tbody>\n</table>"
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
