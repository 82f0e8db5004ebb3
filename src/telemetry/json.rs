//! Log lines as JSON: one object per line, with the time, the level, the message, the fields and the target.
//!
//! The `log` crate adds the path of the source file on the build machine to its records. This module removes it.

use std::fmt::{self, Debug};
use std::io;

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The prefix of the fields that lines of the `log` crate have. Of these fields only the target is kept.
const LOG_FIELDS: &str = "log.";
const LOG_TARGET: &str = "log.target";

/// Formats lines as JSON.
#[derive(Debug)]
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        writer.write_str(r#"{"timestamp":""#)?;
        SystemTime.format_time(&mut writer)?;
        write!(writer, r#"","level":"{}""#, event.metadata().level())?;
        let mut members = Members { writer: &mut writer, target: None, result: Ok(()) };
        event.record(&mut members);
        let Members { target, result, .. } = members;
        result?;
        member(&mut writer, "target", target.as_deref().unwrap_or(event.metadata().target()))?;
        writer.write_str("}\n")
    }
}

/// Writes fields as members of the object.
struct Members<'a, 'w> {
    writer: &'a mut Writer<'w>,
    /// The target of a line of the `log` crate.
    target: Option<String>,
    result: fmt::Result,
}

impl Members<'_, '_> {
    fn put<T: Serialize + ?Sized>(&mut self, field: &Field, value: &T) {
        if self.result.is_ok() && !field.name().starts_with(LOG_FIELDS) {
            self.result = member(self.writer, field.name(), value);
        }
    }
}

impl Visit for Members<'_, '_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == LOG_TARGET {
            self.target = Some(value.to_owned());
        }
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, &format!("{value:?}"));
    }
}

/// Writes a comma and a member.
fn member<T: Serialize + ?Sized>(writer: &mut Writer<'_>, name: &str, value: &T) -> fmt::Result {
    writer.write_char(',')?;
    json(writer, name.strip_prefix("r#").unwrap_or(name))?;
    writer.write_char(':')?;
    json(writer, value)
}

fn json<T: Serialize + ?Sized>(writer: &mut Writer<'_>, value: &T) -> fmt::Result {
    serde_json::to_writer(Bytes(writer), value).map_err(|_| fmt::Error)
}

/// Adapts a text writer to bytes. `serde_json` writes complete UTF-8 characters, so each slice is valid text.
struct Bytes<'a, 'w>(&'a mut Writer<'w>);

impl io::Write for Bytes<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
        self.0.write_str(text).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};

    use super::*;

    /// A buffer of log lines.
    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(log: impl FnOnce()) -> Vec<Value> {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let logger = tracing_subscriber::fmt().with_writer(move || writer.clone()).event_format(Json).finish();
        tracing::subscriber::with_default(logger, log);
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    #[test]
    fn a_line_is_an_object_with_typed_fields() {
        let error = io::Error::other("a \"wrong\"\nthing");
        let role: Option<&str> = None;
        let mut lines = lines(|| {
            tracing::info!(target: "access", status = 200_u16, request.id = "r-1", ms = 1.5, fine = true, role, "done");
            tracing::error!(%error, count = -1, path = ?"\u{7}\\", "two\nlines \u{1F697}");
        });
        for line in &mut lines {
            let time = line.as_object_mut().unwrap().remove("timestamp").unwrap();
            assert!(time.as_str().unwrap().ends_with('Z') && time.as_str().unwrap().len() == 27, "{time}");
        }
        let first = json!({ "level": "INFO", "message": "done", "request.id": "r-1", "status": 200, "ms": 1.5, "fine": true,
            "target": "access" });
        let second = json!({ "level": "ERROR", "message": "two\nlines \u{1F697}", "error": "a \"wrong\"\nthing", "count": -1,
            "path": "\"\\u{7}\\\\\"", "target": module_path!() });
        assert_eq!(lines, [first, second]);
    }

    #[test]
    fn fields_of_the_log_crate_except_the_target_are_removed() {
        let lines = lines(|| {
            tracing::warn!(
                target: "log",
                { log.target = "hyper::proto", log.file = "/home/builder/hyper/src/proto.rs", log.line = 7_u64 },
                "odd"
            );
        });
        assert_eq!(lines[0]["target"], "hyper::proto");
        let names: BTreeSet<_> = lines[0].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, BTreeSet::from(["level", "message", "target", "timestamp"]));
    }
}
