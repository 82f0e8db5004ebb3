//! The delay before a failed request to another server is retried.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::RETRY_AFTER;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// Parses `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // The limit, 136 years, is longer than every wait here.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX)).min(u64::from(u32::MAX))));
    }
    let date = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()?;
    Some(Duration::try_from(date.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO))
}

/// The shortest delay that a server can request with `Retry-After`, unless the schedule has a shorter one.
pub(crate) const MIN_DELAY: Duration = Duration::from_secs(5);

/// Returns the delay after a failed attempt.
///
/// `attempts` is the number of attempts before it; the last of `delays` is used for all further attempts. `requested` is the
/// delay that the server requested. The delay is jittered, so that requests that failed together are not retried together.
pub(crate) fn delay(delays: &[Duration], attempts: i64, requested: Option<Duration>) -> Duration {
    let index = usize::try_from(attempts).unwrap_or(usize::MAX).min(delays.len().saturating_sub(1));
    let delay = delays.get(index).copied().unwrap_or(MIN_DELAY);
    match requested {
        Some(requested) => requested.max(delay.min(MIN_DELAY)).mul_f64(1.0 + 0.1 * fastrand::f64()),
        None => delay.mul_f64(0.85 + 0.3 * fastrand::f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_parsed_in_both_forms() {
        let read = |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]));
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read("99999999999999999999"), Some(Duration::from_secs(u32::MAX.into())));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert!(read("Sun, 06 Nov 2094 08:49:37 GMT").unwrap() > Duration::from_secs(24 * 3_600));
        assert_eq!((read("soon"), read(""), read("-1")), (None, None, None));
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
