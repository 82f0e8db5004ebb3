//! The report: a page for the operator, and an exit code for programs.

use std::fmt;

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// No problem.
    Ok,
    /// The check could not run, because a precondition is missing.
    Skipped,
    /// The server works now, but may fail later.
    Warning,
    /// The server does not start, or does not meet its guarantees.
    Error,
}

impl Level {
    /// The exit code of a report with this worst level.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Ok | Self::Skipped => 0,
            Self::Warning => 1,
            Self::Error => 2,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

#[derive(Debug)]
struct Finding {
    level: Level,
    check: &'static str,
    text: String,
}

/// All findings, in the order of the checks.
#[derive(Debug, Default)]
pub struct Report(Vec<Finding>);

impl Report {
    /// The worst level.
    pub fn worst(&self) -> Level {
        self.0.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }

    /// Adds a finding. The text of a warning or an error contains the problem and what to do.
    pub(super) fn add(&mut self, level: Level, check: &'static str, text: impl fmt::Display) {
        self.0.push(Finding { level, check, text: text.to_string() });
    }

    pub(super) fn ok(&mut self, check: &'static str, text: impl fmt::Display) {
        self.add(Level::Ok, check, text);
    }

    pub(super) fn error(&mut self, check: &'static str, text: impl fmt::Display) {
        self.add(Level::Error, check, text);
    }

    fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { level, check, text } in &self.0 {
            // Further lines of the same finding are indented.
            let text = text.trim_end().replace('\n', "\n                        ");
            writeln!(f, "{:<8} {check:<14} {text}", level.as_str())?;
        }
        match (self.count(Level::Error), self.count(Level::Warning)) {
            (0, 0) => writeln!(f, "no problem found"),
            (errors, warnings) => writeln!(f, "errors: {errors}, warnings: {warnings}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_decides_the_exit_code() {
        let mut report = Report::default();
        assert_eq!((report.worst().exit_code(), report.to_string().as_str()), (0, "no problem found\n"));
        report.ok("keys", "HS256");
        report.add(Level::Skipped, "proxy", "no --url");
        assert_eq!(report.worst().exit_code(), 0);
        report.add(Level::Warning, "open files", "few");
        assert_eq!(report.worst().exit_code(), 1);
        report.error("database", "away:\nfar");
        assert_eq!(report.worst().exit_code(), 2);
        let page = report.to_string();
        assert!(page.starts_with("ok       keys           HS256\nskipped  proxy          no --url\n"), "{page}");
        assert!(page.ends_with("away:\n                        far\nerrors: 1, warnings: 1\n"), "{page}");
    }
}
