//! The pre-send hook: asks the platform about each new or edited content before it is stored.
//!
//! Invariants:
//! - A check takes no longer than the timeout, the wait for its turn included.
//! - No more than `CONCURRENCY` requests are under way at once.
//! - A hook that fails again and again is left alone for a while (`moderation/circuit.rs`).
//! - Nothing of a content is logged, nor is it in an error.
//!
//! Not responsible for who may write, or what is stored: handlers ask, and the writer decides.

mod circuit;
mod client;

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

pub use self::circuit::CircuitState;
use self::circuit::{Circuit, Transition};
pub use self::client::Check;
use self::client::Client;
use crate::domain::{Error, Review, Verdict};
use crate::signature::Secret;

/// The most requests to the hook at once. Others wait for their turn, as long as the timeout allows.
const CONCURRENCY: usize = 256;

/// What a content gets that could not be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// It is stored.
    Allow,
    /// It is not; 503.
    Reject,
}

/// How the hook is asked.
#[derive(Debug, Clone)]
pub struct ModerationConfig {
    /// Where it is: `https://…` or `http://…`.
    pub url: String,
    /// What requests are signed with: `whsec_…`.
    pub secret: String,
    /// How long a check may take.
    pub timeout: Duration,
    /// What follows when it fails.
    pub on_failure: OnFailure,
}

/// Why a hook cannot be asked at all: a setting is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ModerationError {
    /// It is no address that we can ask.
    #[error("RIDEWIRE_MODERATION_URL: must be an http:// or https:// address, without a user or password")]
    Url,
    /// The secret is not one.
    #[error("RIDEWIRE_MODERATION_SECRET: {0}")]
    Secret(String),
    /// There is no time to ask.
    #[error("RIDEWIRE_MODERATION_TIMEOUT: must be more than zero; write it as 300ms")]
    Timeout,
    /// There can be no TLS.
    #[error("RIDEWIRE_MODERATION_URL: TLS: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
}

/// Why a check has no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The hook did not respond in time.
    Timeout,
    /// It could not be reached, or the connection broke.
    Unreachable,
    /// It responded with a status other than 2xx.
    Status,
    /// Its response is not a verdict.
    Invalid,
    /// Too many checks were under way, so there was no time left to ask.
    Overloaded,
    /// It has failed too often, and is not asked at the moment.
    CircuitOpen,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Timeout, Self::Unreachable, Self::Status, Self::Invalid, Self::Overloaded, Self::CircuitOpen];

    /// The failure as metrics name it.
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

/// A check that is done.
#[derive(Debug)]
pub struct Checked {
    /// The verdict, or why there is none.
    pub outcome: Result<Verdict, Failure>,
    /// How long it took, the wait for its turn included.
    pub took: Duration,
}

/// Asks the platform's hook.
#[derive(Debug)]
pub struct Moderation {
    client: Client,
    timeout: Duration,
    on_failure: OnFailure,
    turns: Semaphore,
    circuit: Circuit,
}

impl Moderation {
    /// Asks the hook of this configuration. No connection is made yet.
    pub fn new(config: &ModerationConfig) -> Result<Self, ModerationError> {
        if config.timeout.is_zero() {
            return Err(ModerationError::Timeout);
        }
        let secret = Secret::parse(&config.secret).map_err(|error| ModerationError::Secret(error.to_string()))?;
        Ok(Self {
            client: Client::new(&config.url, secret, CONCURRENCY)?,
            timeout: config.timeout,
            on_failure: config.on_failure,
            turns: Semaphore::new(CONCURRENCY),
            circuit: Circuit::default(),
        })
    }

    /// Has a content checked. Safe to drop at any point.
    pub async fn check(&self, check: &Check<'_>) -> Checked {
        let began = Instant::now();
        let outcome = self.verdict(check, began + self.timeout).await;
        Checked { outcome, took: began.elapsed() }
    }

    async fn verdict(&self, check: &Check<'_>, deadline: Instant) -> Result<Verdict, Failure> {
        // Before the wait as well: while nobody is asked there is nothing to wait for.
        if self.circuit.state() == CircuitState::Open {
            return Err(Failure::CircuitOpen);
        }
        let turn = timeout_at(deadline, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(Failure::Overloaded) };
        let Some(admission) = self.circuit.admit() else { return Err(Failure::CircuitOpen) };
        let left = deadline.saturating_duration_since(Instant::now());
        let outcome = match timeout_at(deadline, self.client.ask(check)).await {
            Ok(outcome) => outcome,
            // The wait for its turn took most of the time: that says nothing about the hook.
            Err(_) if left < self.timeout / 2 => return Err(Failure::Overloaded),
            Err(_) => Err(Failure::Timeout),
        };
        match (admission.record(outcome.is_ok()), &outcome) {
            (Some(Transition::Opened), Err(failure)) => {
                tracing::warn!(failure = failure.as_str(), "moderation circuit opened");
            }
            (Some(Transition::Closed), _) => tracing::info!("moderation circuit closed"),
            _ => {}
        }
        outcome
    }

    /// What follows from a check.
    pub fn review(&self, checked: Checked) -> Review {
        match (checked.outcome, self.on_failure) {
            (Ok(verdict), _) => verdict.into(),
            (Err(_), OnFailure::Allow) => Review::NotNeeded,
            (Err(_), OnFailure::Reject) => Review::Refused(Error::ModerationUnavailable),
        }
    }

    /// Whether the hook is asked at the moment.
    pub fn circuit_state(&self) -> CircuitState {
        self.circuit.state()
    }
}
