//! Points in time, with the precision that is stored and sent.

use std::fmt;

use jiff::fmt::temporal::Pieces;
use jiff::{Timestamp, Unit};
use serde::{Serialize, Serializer};

/// A point in time in UTC, in whole milliseconds. The API writes it as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(Timestamp);

impl Time {
    /// Returns the current time of this machine's clock.
    pub fn now() -> Self {
        Timestamp::now().into()
    }

    /// Returns the time `seconds` after 1970 (a JWT's `NumericDate`), or `None` where it is out of range.
    pub fn from_unix_seconds(seconds: i64) -> Option<Self> {
        Timestamp::from_second(seconds).ok().map(Self)
    }

    /// Returns the time `milliseconds` after 1970, or `None` where it is out of range.
    pub fn from_unix_milliseconds(milliseconds: i64) -> Option<Self> {
        Timestamp::from_millisecond(milliseconds).ok().map(Self)
    }

    /// Parses RFC 3339, which has the years 0 to 9999. A time after the maximum of [`Timestamp`], which is one day earlier, becomes
    /// that maximum.
    pub fn parse(text: &str) -> Option<Self> {
        let pieces = Pieces::parse(text).ok().filter(|pieces| pieces.time_zone_annotation().is_none())?;
        let (date, time, offset) = (pieces.date(), pieces.time()?, pieces.to_numeric_offset()?);
        let is_in_range = date.year() >= 0 && text.as_bytes().first().is_some_and(u8::is_ascii_digit);
        is_in_range.then(|| offset.to_timestamp(date.to_datetime(time)).map_or(Self(Timestamp::MAX), Self::from))
    }

    /// Returns the seconds since 1970, rounded down.
    pub fn as_unix_seconds(self) -> i64 {
        self.0.as_second()
    }

    /// Returns the value for a database parameter.
    pub fn timestamp(self) -> Timestamp {
        self.0
    }

    /// Returns the duration from `now` until this time; zero where it has passed.
    pub fn since(self, now: Self) -> std::time::Duration {
        std::time::Duration::try_from(self.0.duration_since(now.0)).unwrap_or_default()
    }

    /// Returns the time `span` later, or the maximum where that is out of range.
    pub fn plus(self, span: std::time::Duration) -> Self {
        Self(self.0.saturating_add(span).unwrap_or(Timestamp::MAX))
    }
}

impl From<Timestamp> for Time {
    fn from(timestamp: Timestamp) -> Self {
        // Rounded down, so that no message has a time in the future.
        let rounding = jiff::TimestampRound::new().smallest(Unit::Millisecond).mode(jiff::RoundMode::Floor);
        Self(timestamp.round(rounding).unwrap_or(timestamp))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339_with_milliseconds() {
        let time = Time::from("2026-01-22T22:45:00.1239Z".parse::<Timestamp>().unwrap());
        assert_eq!(time.to_string(), "2026-01-22T22:45:00.123Z");
        let whole = Time::from_unix_seconds(1_769_121_900).unwrap();
        assert_eq!(whole.to_string(), "2026-01-22T22:45:00.000Z");
        assert_eq!(time.since(whole).as_millis(), 123);
        assert_eq!(whole.since(time).as_millis(), 0);
    }

    #[test]
    fn rfc_3339_is_parsed_and_other_formats_are_rejected() {
        let read = |text: &str| Time::parse(text).map(|time| time.to_string());
        assert_eq!(read("2026-01-22T23:45:00.1239+01:00").unwrap(), "2026-01-22T22:45:00.123Z");
        assert_eq!(read("0000-01-01T00:00:00Z").unwrap(), "0000-01-01T00:00:00.000Z");
        assert_eq!(Time::parse("9999-12-31T23:59:59Z"), Some(Time(Timestamp::MAX)));
        for other in [
            "",
            "now",
            "2026-01-22",
            "2026-01-22T22:45:00",
            "-004800-01-01T00:00:00Z",
            "+002026-01-01T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-22T22:45:00Z[Europe/Berlin]",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
