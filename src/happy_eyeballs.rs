//! Connects to the first of several addresses that responds (Happy Eyeballs, RFC 8305).
//!
//! An address that does not respond, such as one of a machine without power, delays the others by [`ATTEMPT_DELAY`] and
//! not by a whole timeout.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

/// How long an attempt is alone before the next one starts beside it: the "Connection Attempt Delay" that RFC 8305,
/// section 5 recommends.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Runs attempts until one succeeds, and drops the others. The next one starts when one has failed, or after
/// [`ATTEMPT_DELAY`]. So an earlier one is preferred if it responds in time.
///
/// Returns the last error if all fail, and `None` without attempts. It has no timeout of its own.
pub(crate) async fn first_success<T, E, A>(attempts: impl IntoIterator<Item = A>) -> Option<Result<T, E>>
where
    A: Future<Output = Result<T, E>>,
{
    let mut waiting = attempts.into_iter().peekable();
    let mut running = FuturesUnordered::new();
    let mut failed = None;
    loop {
        running.extend(waiting.next());
        if running.is_empty() {
            return failed.map(Err);
        }
        tokio::select! {
            Some(done) = running.next() => match done {
                Ok(connected) => return Some(Ok(connected)),
                Err(error) => failed = Some(error),
            },
            () = sleep(ATTEMPT_DELAY), if waiting.peek().is_some() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::Pin;

    use tokio::sync::oneshot::channel;
    use tokio::time::Instant;

    use super::*;

    type Attempt = Pin<Box<dyn Future<Output = Result<&'static str, &'static str>>>>;

    fn silent() -> Attempt {
        Box::pin(pending())
    }

    fn responding(name: &'static str) -> Attempt {
        Box::pin(ready(Ok(name)))
    }

    fn failing(error: &'static str) -> Attempt {
        Box::pin(ready(Err(error)))
    }

    #[tokio::test]
    async fn a_silent_address_delays_the_next_by_the_attempt_delay() {
        let began = Instant::now();
        assert_eq!(first_success([silent(), silent(), responding("third")]).await, Some(Ok("third")));
        assert!(began.elapsed() >= ATTEMPT_DELAY * 2, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn the_next_attempt_starts_only_after_a_failure_or_the_delay() {
        let unexpected = || -> Attempt { Box::pin(async { unreachable!("the attempt before it has succeeded") }) };
        assert_eq!(first_success([responding("first"), unexpected()]).await, Some(Ok("first")));
        assert_eq!(first_success([failing("refused"), responding("second"), unexpected()]).await, Some(Ok("second")));
    }

    #[tokio::test]
    async fn an_attempt_may_still_succeed_after_the_next_one_has_started() {
        let (started, has_started) = channel();
        let late: Attempt = Box::pin(async { has_started.await.map(|()| "late").map_err(|_| "never started") });
        let next: Attempt = Box::pin(async {
            started.send(()).map_err(|()| "the first attempt was dropped")?;
            pending().await
        });
        assert_eq!(first_success([late, next]).await, Some(Ok("late")));
    }

    #[tokio::test]
    async fn the_last_error_is_returned_if_all_fail() {
        assert_eq!(first_success([failing("refused"), failing("unreachable")]).await, Some(Err("unreachable")));
        assert_eq!(first_success(Vec::<Attempt>::new()).await, None);
    }
}
