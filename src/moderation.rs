//! The moderation hook: sends each new or edited message content to the platform before it is stored.
//!
//! Invariants:
//! - A check takes no longer than the timeout, including the wait for a free slot.
//! - At most `CONCURRENCY` requests are in progress.
//! - A circuit breaker stops the requests for a while after repeated failures (`moderation/circuit.rs`).
//! - No message content appears in logs or errors.
//!
//! This module decides neither access nor storage. Handlers request the check, and the writer applies its result.

mod circuit;
mod client;

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

pub use self::circuit::CircuitState;
use self::circuit::{Circuit, Transition};
pub use self::client::CheckRequest;
use self::client::Client;
use crate::domain::{Error, Review, Verdict};
use crate::signature::Secret;

/// The most concurrent requests to the hook. Further checks wait for a slot, as long as the timeout allows.
const CONCURRENCY: usize = 256;

/// The handling of a message whose check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Store it.
    Allow,
    /// Reject it with 503.
    Reject,
}

/// The configuration of the hook.
#[derive(Debug, Clone)]
pub struct ModerationConfig {
    /// Its URL: `https://…` or `http://…`.
    pub url: String,
    /// The secret that signs the requests: `whsec_…`.
    pub secret: String,
    /// The timeout of a check.
    pub timeout: Duration,
    /// The handling of a message whose check failed.
    pub on_failure: OnFailure,
}

/// An invalid setting of the hook.
#[derive(Debug, thiserror::Error)]
pub enum ModerationError {
    /// The URL is invalid.
    #[error("RIDEWIRE_MODERATION_URL: must be an http:// or https:// address, without a user or password")]
    Url,
    /// The secret is invalid.
    #[error("RIDEWIRE_MODERATION_SECRET: {0}")]
    Secret(String),
    /// The timeout is zero.
    #[error("RIDEWIRE_MODERATION_TIMEOUT: must be more than zero; write it as 300ms or 2s")]
    Timeout,
    /// The TLS client could not be configured.
    #[error("RIDEWIRE_MODERATION_URL: TLS: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
}

/// The reason why a check has no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The hook did not respond in time.
    Timeout,
    /// The hook could not be reached, or the connection broke.
    Unreachable,
    /// The hook responded with a status other than 2xx.
    Status,
    /// The response is not a verdict.
    Invalid,
    /// Too many checks were in progress, so no time was left for the request.
    Overloaded,
    /// The circuit is open, so no request was sent.
    CircuitOpen,
}

impl Failure {
    /// All failures.
    pub const ALL: [Self; 6] =
        [Self::Timeout, Self::Unreachable, Self::Status, Self::Invalid, Self::Overloaded, Self::CircuitOpen];

    /// The value of the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Status => "status",
            Self::Invalid => "invalid",
            Self::Overloaded => "overloaded",
            Self::CircuitOpen => "circuit_open",
        }
    }
}

/// The result of a check.
#[derive(Debug)]
pub struct CheckResult {
    /// The verdict, or the reason why there is none.
    pub outcome: Result<Verdict, Failure>,
    /// The duration of the check, including the wait for a slot.
    pub duration: Duration,
}

/// The client of the moderation hook.
#[derive(Debug)]
pub struct Moderation {
    client: Client,
    timeout: Duration,
    on_failure: OnFailure,
    slots: Semaphore,
    circuit: Circuit,
}

impl Moderation {
    /// Creates a client. Does not connect yet.
    pub fn new(config: &ModerationConfig) -> Result<Self, ModerationError> {
        if config.timeout.is_zero() {
            return Err(ModerationError::Timeout);
        }
        let secret = Secret::parse(&config.secret).map_err(|error| ModerationError::Secret(error.to_string()))?;
        Ok(Self {
            client: Client::new(&config.url, secret, CONCURRENCY)?,
            timeout: config.timeout,
            on_failure: config.on_failure,
            slots: Semaphore::new(CONCURRENCY),
            circuit: Circuit::default(),
        })
    }

    /// Checks a content. Cancel safe: dropping the future at any point leaves the circuit and the slots consistent.
    pub async fn check(&self, check: &CheckRequest<'_>) -> CheckResult {
        let started = Instant::now();
        let outcome = self.verdict(check, started + self.timeout).await;
        CheckResult { outcome, duration: started.elapsed() }
    }

    async fn verdict(&self, check: &CheckRequest<'_>, deadline: Instant) -> Result<Verdict, Failure> {
        // Also checked before the wait for a slot: with an open circuit the wait would be useless.
        if self.circuit.state() == CircuitState::Open {
            return Err(Failure::CircuitOpen);
        }
        let slot = timeout_at(deadline, self.slots.acquire()).await;
        let Ok(Ok(_slot)) = slot else { return Err(Failure::Overloaded) };
        let Some(admission) = self.circuit.admit() else { return Err(Failure::CircuitOpen) };
        let left = deadline.saturating_duration_since(Instant::now());
        let outcome = match timeout_at(deadline, self.client.send(check)).await {
            Ok(outcome) => outcome,
            // The wait for a slot took most of the timeout, so the circuit does not count this as a failure of the hook.
            Err(_) if left < self.timeout / 2 => return Err(Failure::Overloaded),
            Err(_) => Err(Failure::Timeout),
        };
        match (admission.record(outcome.is_ok()), &outcome) {
            (Some(Transition::Opened), Err(failure)) => {
                tracing::warn!(
                    failure = failure.as_str(),
                    "moderation circuit opened; RIDEWIRE_MODERATION_ON_FAILURE applies to messages until it closes"
                );
            }
            (Some(Transition::Closed), _) => tracing::info!("moderation circuit closed"),
            _ => {}
        }
        outcome
    }

    /// Converts the result of a check to the review that the writer applies.
    pub fn review(&self, result: CheckResult) -> Review {
        match (result.outcome, self.on_failure) {
            (Ok(verdict), _) => verdict.into(),
            (Err(_), OnFailure::Allow) => Review::NotNeeded,
            (Err(_), OnFailure::Reject) => Review::Rejected(Error::ModerationUnavailable),
        }
    }

    /// The state of the circuit breaker.
    pub fn circuit_state(&self) -> CircuitState {
        self.circuit.state()
    }
}
