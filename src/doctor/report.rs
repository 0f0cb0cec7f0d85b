//! The findings of the checks, and their output: problems first, each with its remedy.

use std::fmt::Write;

use serde::Serialize;

/// Severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The service does not work correctly, or loses data in the event of a further failure.
    Wrong,
    /// It works, but not for long or not for every client.
    Warning,
    /// The check has passed.
    Fine,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Wrong => "wrong",
            Self::Warning => "warning",
            Self::Fine => "fine",
        }
    }
}

/// Result of one check.
#[derive(Debug, Serialize)]
pub struct Finding {
    severity: Severity,
    area: &'static str,
    /// The finding, as a sentence.
    what: String,
    /// The command or setting that fixes it.
    #[serde(rename = "mend", skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// Area of invalid settings.
const SETTINGS: &str = "settings";
/// Area of the whole service.
pub const SERVICE: &str = "service";

/// The results of all checks.
#[derive(Debug, Default)]
pub struct Report(Vec<Finding>);

impl Report {
    /// Adds a passed check.
    pub fn fine(&mut self, area: &'static str, what: impl Into<String>) {
        self.0.push(Finding { severity: Severity::Fine, area, what: what.into(), remedy: None });
    }

    /// Adds a problem that will become worse.
    pub fn warning(&mut self, area: &'static str, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(Severity::Warning, area, &what.into(), remedy.into());
    }

    /// Adds a problem.
    pub fn wrong(&mut self, area: &'static str, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(Severity::Wrong, area, &what.into(), remedy.into());
    }

    /// Joins the lines of a text: PostgreSQL's details and the errors of a description have several.
    fn add(&mut self, severity: Severity, area: &'static str, what: &str, remedy: String) {
        let what = what.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        self.0.push(Finding { severity, area, what, remedy: Some(remedy) });
    }

    /// Adds an invalid setting.
    pub fn setting(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.wrong(SETTINGS, what, remedy);
    }

    /// Sorts by severity, and causes before their consequences: invalid settings first, a service that is not ready last.
    /// Otherwise the order of the checks is kept.
    pub fn sort(&mut self) {
        self.0.sort_by_key(|finding| {
            let rank = match finding.area {
                SETTINGS => 0,
                SERVICE => 2,
                _ => 1,
            };
            (finding.severity, rank)
        });
    }

    /// Whether there is a problem.
    fn is_bad(&self) -> bool {
        self.0.iter().any(|finding| finding.severity == Severity::Wrong)
    }

    /// The exit status: 2 if a setting is invalid, 1 if there is another problem.
    pub fn status(&self) -> u8 {
        let has_setting = self.0.iter().any(|finding| finding.area == SETTINGS && finding.severity == Severity::Wrong);
        if has_setting { 2 } else { u8::from(self.is_bad()) }
    }

    /// Output for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Finding { severity, area, what, remedy } in &self.0 {
            let severity = severity.name();
            let _ = writeln!(text, "{severity:<8} {area:<9} {what}"); // cannot fail
            if let Some(remedy) = remedy {
                let _ = writeln!(text, "{:18} -> {remedy}", "");
            }
        }
        let count = |severity| self.0.iter().filter(|finding| finding.severity == severity).count();
        let [wrong, warnings, fine] = [Severity::Wrong, Severity::Warning, Severity::Fine].map(count);
        let _ = write!(text, "{wrong} wrong, {warnings} warnings, {fine} fine");
        text
    }

    /// Output for programs: a JSON array.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(&self.0).expect("texts are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_come_first_and_determine_the_status() {
        let mut report = Report::default();
        report.fine("clock", "it is right");
        report.warning("disk", "nearly full", "free some");
        assert_eq!(report.status(), 0);
        report.wrong("database", "it is away", "start it");
        report.sort();
        assert_eq!(report.status(), 1);
        let text = report.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert!(lines[0].starts_with("wrong    database  it is away"), "{text}");
        assert!(lines[1].trim_start().starts_with("-> start it"), "{text}");
        assert_eq!(lines[5], "1 wrong, 1 warnings, 1 fine");
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!(json[0]["severity"], "wrong");
        assert_eq!(json[0]["mend"], "start it");
        assert!(json[2].get("mend").is_none());
        let mut report = Report::default();
        report.wrong(SERVICE, "it is not ready", "see the other findings");
        report.wrong("database", "it is away", "start it");
        report.sort();
        assert!(report.text().starts_with("wrong    database"), "{}", report.text());
        report.setting("RESOURCES_DIR=/x:\n  it is not there", "correct it");
        report.sort();
        assert_eq!(report.status(), 2);
        assert!(
            report.text().starts_with("wrong    settings  RESOURCES_DIR=/x: it is not there\n"),
            "{}",
            report.text()
        );
    }
}
