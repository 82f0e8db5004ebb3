//! The retry schedule of deliveries.

use std::time::Duration;

use crate::web::retry_after::delay;

/// The retry schedule of deliveries.
#[derive(Debug, Clone)]
pub struct Retries {
    /// The delay after each failed attempt. The last one is used for all further attempts.
    pub delays: Vec<Duration>,
    /// The time from its first attempt after which a delivery fails for good. An endpoint that has failed for as long is
    /// disabled.
    pub give_up: Duration,
}

impl Retries {
    /// Returns the delay after a failed attempt; `None` if it was the last attempt.
    ///
    /// `attempts` is the number of attempts before it, `age` the time since the first one, and `requested` the delay that the
    /// endpoint requested. The last attempt is made exactly when `give_up` has passed.
    pub(super) fn delay(&self, attempts: i64, age: Duration, requested: Option<Duration>) -> Option<Duration> {
        let left = self.give_up.checked_sub(age).filter(|left| !left.is_zero())?;
        Some(delay(&self.delays, attempts, requested).min(left))
    }

    /// Whether an endpoint that has failed for this long is to be disabled.
    pub(super) fn disables(&self, failing: Duration) -> bool {
        failing >= self.give_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::retry_after::MIN_DELAY;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn retries() -> Retries {
        let delays = [5, 300, 1_800, 7_200, 18_000, 36_000, 43_200].map(Duration::from_secs);
        Retries { delays: delays.into(), give_up: 72 * HOUR }
    }

    /// The times of all attempts, since the first one.
    fn attempts(requested: Option<Duration>) -> Vec<Duration> {
        let (mut age, mut times) = (Duration::ZERO, Vec::new());
        while let Some(delay) = retries().delay(i64::try_from(times.len()).unwrap(), age, requested) {
            age += delay;
            times.push(age);
        }
        times
    }

    #[test]
    fn attempts_continue_for_three_days() {
        let times = attempts(None);
        assert!((9..=12).contains(&times.len()), "{times:?}");
        assert_eq!(times.last(), Some(&(72 * HOUR)));
        assert!(times[0] >= Duration::from_millis(4_250) && times[0] <= Duration::from_millis(5_750), "{times:?}");
        assert!(times[5] > 14 * HOUR && times[5] < 21 * HOUR, "{times:?}");
    }

    #[test]
    fn the_requested_delay_applies_within_its_bounds() {
        let delay = |attempts, requested| {
            retries().delay(attempts, Duration::ZERO, Some(Duration::from_secs(requested))).unwrap()
        };
        assert!(delay(0, 60) >= Duration::from_secs(60) && delay(0, 60) <= Duration::from_secs(66));
        assert!(delay(4, 60) <= Duration::from_secs(66), "sooner than the schedule");
        assert!(delay(4, 0) >= MIN_DELAY);
        assert_eq!(
            delay(0, 1_000_000),
            72 * HOUR,
            "the last attempt is made even if the endpoint requests a longer delay"
        );
        assert_eq!(retries().delay(3, 72 * HOUR, None), None);
    }
}
