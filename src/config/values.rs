//! Parsers for the values of settings. Each error contains the expected form.

use std::str::FromStr;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

/// The least memory. A quarter of it holds a few responses.
const MIN_MEMORY: usize = 16 << 20;

/// Parses an amount of memory: a number of bytes, or with a unit of KiB, MiB or GiB.
pub(super) fn memory(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..).unwrap_or_default() {
        "" | "B" => Some(0),
        "K" | "KiB" => Some(10),
        "M" | "MiB" => Some(20),
        "G" | "GiB" => Some(30),
        _ => None,
    };
    let bytes = shift.zip(digits.trim().parse::<usize>().ok()).and_then(|(shift, count)| count.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes >= MIN_MEMORY).ok_or_else(|| "write it as 512MiB or 2GiB, at least 16MiB".to_owned())
}

/// Parses a URL that is used as the beginning of other URLs.
pub(crate) fn web_address(text: &str) -> Result<String, String> {
    let rest = ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let is_plain = |rest: &str| {
        !rest.is_empty()
            && rest.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'"' | b'@'))
    };
    match rest {
        Some(rest) if is_plain(rest) => Ok(text.to_owned()),
        _ => Err("write it as https://chat.example.com, without a query".to_owned()),
    }
}

/// Parses a duration, which may be zero.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 15s, 3m or 24h"))
}

/// Parses a duration that is not zero: a period or a timeout.
pub(super) fn period(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be more than zero; write it as 15s, 3m or 24h".to_owned()),
        period => Ok(period),
    }
}

/// Parses a whole number.
pub(super) fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "write a whole number, such as 1000".to_owned())
}

/// Parses a whole number that is at least 1.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    number::<usize>(text).ok().filter(|count| *count > 0).ok_or_else(|| "write a whole number, at least 1".to_owned())
}

/// Parses the limit of a request's head.
pub(super) fn head_bytes(text: &str) -> Result<u64, String> {
    let bytes = number::<u64>(text).ok().filter(|bytes| (8_192..=1_048_576).contains(bytes));
    bytes.ok_or_else(|| "write a number of bytes from 8192 to 1048576".to_owned())
}

/// Parses a fraction from 0 to 1.
pub(super) fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "write a number from 0 to 1, such as 0.1".to_owned())
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Validates a log filter. `EnvFilter` parses a misspelt level as the name of a module, and then logs nothing. So here a
/// directive must be a level, or a module with a level.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    let expected = "write a level (error, warn, info, debug, trace, off), or levels of modules, as info,ridewire=debug";
    let is_level = |text: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text));
    let is_valid = |directive: &str| match directive.rsplit_once('=') {
        Some((module, level)) => !module.is_empty() && !module.contains(char::is_whitespace) && is_level(level),
        None => is_level(directive),
    };
    match text.split(',').all(is_valid) && EnvFilter::try_new(text).is_ok() {
        true => Ok(text.to_owned()),
        false => Err(expected.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bytes_or_has_a_unit() {
        assert_eq!(["16777216", "16MiB", "16384K", "1G"].map(|text| memory(text).unwrap() >> 20), [16, 16, 16, 1_024]);
        for wrong in ["", "MiB", "1", "15MiB", "1TB", "-1G", "1.5G", "99999999999999G"] {
            assert!(memory(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_log_filter_must_have_valid_levels() {
        for good in
            ["info", "WARN", "off", "info,ridewire=debug", "ridewire::http=trace,hyper=warn", "ridewire[x{y=1}]=info"]
        {
            assert_eq!(log_filter(good).as_deref(), Ok(good));
        }
        for wrong in
            ["", "verbose", "inof", "ridewire", "ridewire=loud", "=info", "info,", "info;debug", "info ridewire=debug"]
        {
            assert!(log_filter(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_within_their_bounds() {
        assert_eq!((number("7"), at_least_one("1"), head_bytes("8192")), (Ok(7_u32), Ok(1), Ok(8_192)));
        assert_eq!((ratio("0"), ratio("0.25"), ratio("1")), (Ok(0.0), Ok(0.25), Ok(1.0)));
        assert_eq!((duration("0s"), period("1ms")), (Ok(Duration::ZERO), Ok(Duration::from_millis(1))));
        assert!(number::<u32>("-1").is_err() && number::<u32>("4294967296").is_err() && at_least_one("0").is_err());
        assert!(head_bytes("8191").is_err() && head_bytes("1048577").is_err() && period("0s").is_err());
        assert!(["1.1", "-0.1", "NaN", "half"].iter().all(|wrong| ratio(wrong).is_err()));
    }
}
