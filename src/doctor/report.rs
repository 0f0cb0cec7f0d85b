//! What the doctor has found, and how it is told: what is wrong first, each with what mends it.

use std::fmt::Write;

use serde::Serialize;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The service does not do what it should, or loses data when something else fails.
    Wrong,
    /// It works, and will not for long or not for everybody.
    Warning,
    /// It was looked at, and is as it should be.
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

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Finding {
    severity: Severity,
    area: &'static str,
    /// What is so, in a sentence.
    what: String,
    /// The command or setting that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

/// The area of settings that cannot be used.
const SETTINGS: &str = "settings";

/// Everything that was looked at.
#[derive(Debug, Default)]
pub struct Report(Vec<Finding>);

impl Report {
    /// Something is as it should be.
    pub fn fine(&mut self, area: &'static str, what: impl Into<String>) {
        self.0.push(Finding { severity: Severity::Fine, area, what: what.into(), mend: None });
    }

    /// Something will not be well for long.
    pub fn warning(&mut self, area: &'static str, what: impl Into<String>, mend: impl Into<String>) {
        self.add(Severity::Warning, area, &what.into(), mend.into());
    }

    /// Something is wrong.
    pub fn wrong(&mut self, area: &'static str, what: impl Into<String>, mend: impl Into<String>) {
        self.add(Severity::Wrong, area, &what.into(), mend.into());
    }

    /// In one line: PostgreSQL's details and the faults of a description have lines of their own.
    fn add(&mut self, severity: Severity, area: &'static str, what: &str, mend: String) {
        let what = what.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        self.0.push(Finding { severity, area, what, mend: Some(mend) });
    }

    /// A setting cannot be used.
    pub fn setting(&mut self, what: impl Into<String>, mend: impl Into<String>) {
        self.wrong(SETTINGS, what, mend);
    }

    /// Puts what is worst first, and settings before what follows from them; otherwise the order is that in which things were looked at.
    pub fn sort(&mut self) {
        self.0.sort_by_key(|finding| (finding.severity, finding.area != SETTINGS));
    }

    /// Whether anything is wrong.
    fn is_bad(&self) -> bool {
        self.0.iter().any(|finding| finding.severity == Severity::Wrong)
    }

    /// The exit status: 2 when a setting cannot be used, 1 when anything else is wrong.
    pub fn status(&self) -> u8 {
        let has_setting = self.0.iter().any(|finding| finding.area == SETTINGS && finding.severity == Severity::Wrong);
        if has_setting { 2 } else { u8::from(self.is_bad()) }
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Finding { severity, area, what, mend } in &self.0 {
            let severity = severity.name();
            let _ = writeln!(text, "{severity:<8} {area:<9} {what}"); // a String takes everything
            if let Some(mend) = mend {
                let _ = writeln!(text, "{:18} -> {mend}", "");
            }
        }
        let count = |severity| self.0.iter().filter(|finding| finding.severity == severity).count();
        let [wrong, warnings, fine] = [Severity::Wrong, Severity::Warning, Severity::Fine].map(count);
        let _ = write!(text, "{wrong} wrong, {warnings} warnings, {fine} fine");
        text
    }

    /// For a program: a JSON array.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(&self.0).expect("texts are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_comes_first_and_is_what_counts() {
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
