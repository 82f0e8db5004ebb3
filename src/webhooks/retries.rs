//! When a delivery is attempted again.

use std::time::Duration;

use crate::web::retry_after::delay;

/// When a delivery is attempted again.
#[derive(Debug, Clone)]
pub struct Retries {
    /// How long to wait after each attempt that has failed; the last one is used again and again.
    pub delays: Vec<Duration>,
    /// How long after its first attempt a delivery is given up; and how long after it has begun to fail an endpoint.
    pub give_up: Duration,
}

impl Retries {
    /// How long to wait after an attempt that was not the first, of which there were `attempts` before, `age` after the first one;
    /// `None` where it was the last. The last one comes when the delivery is given up.
    pub(super) fn delay(&self, attempts: i64, age: Duration, wanted: Option<Duration>) -> Option<Duration> {
        let left = self.give_up.checked_sub(age).filter(|left| !left.is_zero())?;
        Some(delay(&self.delays, attempts, wanted).min(left))
    }

    /// Whether an endpoint that has been failing for so long is disabled.
    pub(super) fn disables(&self, failing: Duration) -> bool {
        failing >= self.give_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::retry_after::SOONEST;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn retries() -> Retries {
        let delays = [5, 300, 1_800, 7_200, 18_000, 36_000, 43_200].map(Duration::from_secs);
        Retries { delays: delays.into(), give_up: 72 * HOUR }
    }

    /// Attempts until the delivery is given up: how long after the first each one is.
    fn attempts(wanted: Option<Duration>) -> Vec<Duration> {
        let (mut age, mut times) = (Duration::ZERO, Vec::new());
        while let Some(delay) = retries().delay(i64::try_from(times.len()).unwrap(), age, wanted) {
            age += delay;
            times.push(age);
        }
        times
    }

    #[test]
    fn attempts_go_on_for_three_days() {
        let times = attempts(None);
        assert!((9..=12).contains(&times.len()), "{times:?}");
        assert_eq!(times.last(), Some(&(72 * HOUR)));
        assert!(times[0] >= Duration::from_millis(4_250) && times[0] <= Duration::from_millis(5_750), "{times:?}");
        assert!(times[5] > 14 * HOUR && times[5] < 21 * HOUR, "{times:?}");
    }

    #[test]
    fn an_endpoint_is_asked_when_it_wants_but_not_sooner_than_it_may() {
        let delay =
            |attempts, wanted| retries().delay(attempts, Duration::ZERO, Some(Duration::from_secs(wanted))).unwrap();
        assert!(delay(0, 60) >= Duration::from_secs(60) && delay(0, 60) <= Duration::from_secs(66));
        assert!(delay(4, 60) <= Duration::from_secs(66), "sooner than the schedule");
        assert!(delay(4, 0) >= SOONEST);
        assert_eq!(delay(0, 1_000_000), 72 * HOUR, "the last attempt comes even if the endpoint wants to wait longer");
        assert_eq!(retries().delay(3, 72 * HOUR, None), None);
    }
}
