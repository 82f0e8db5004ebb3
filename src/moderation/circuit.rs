//! A circuit breaker: stops sending requests for a while after repeated failures.
//!
//! A closed circuit admits all requests. After [`FAILURE_THRESHOLD`] failures in a row it opens, and admits none. After
//! [`OPEN_DURATION`] it is half-open: it admits one request as a probe, whose outcome closes the circuit or opens it again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The number of failures in a row that open the circuit.
const FAILURE_THRESHOLD: u32 = 20;

/// How long the circuit stays open.
const OPEN_DURATION: Duration = Duration::from_secs(2);

/// The state of a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitState {
    /// All requests are sent.
    Closed,
    /// No request is sent.
    Open,
    /// One request may be sent as a probe, or is in progress.
    HalfOpen,
}

impl CircuitState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The value of the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A change of the state, caused by an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transition {
    Opened,
    Closed,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    Probing,
}

/// A circuit breaker.
#[derive(Debug)]
pub(super) struct Circuit {
    state: Mutex<State>,
    open_duration: Duration,
}

impl Default for Circuit {
    fn default() -> Self {
        Self { state: Mutex::new(State::Closed { failures: 0 }), open_duration: OPEN_DURATION }
    }
}

impl Circuit {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> CircuitState {
        match *self.lock() {
            State::Closed { .. } => CircuitState::Closed,
            State::Open { until } if Instant::now() < until => CircuitState::Open,
            State::Open { .. } | State::Probing => CircuitState::HalfOpen,
        }
    }

    /// Admits a request. Returns `None` if the circuit is open, or half-open with a probe in progress.
    pub(super) fn admit(&self) -> Option<Admission<'_>> {
        let mut state = self.lock();
        let is_probe = match *state {
            State::Closed { .. } => false,
            State::Open { until } if Instant::now() >= until => true,
            State::Open { .. } | State::Probing => return None,
        };
        if is_probe {
            *state = State::Probing;
        }
        Some(Admission { circuit: self, is_probe, is_recorded: false })
    }
}

/// An admitted request. After a probe that is dropped without an outcome, the next request is the probe.
#[derive(Debug)]
pub(super) struct Admission<'a> {
    circuit: &'a Circuit,
    is_probe: bool,
    is_recorded: bool,
}

impl Admission<'_> {
    /// Records the outcome. The outcome of a request that was admitted before the circuit opened is ignored.
    pub(super) fn record(mut self, is_success: bool) -> Option<Transition> {
        self.is_recorded = true;
        let mut state = self.circuit.lock();
        let failures = match *state {
            State::Probing if self.is_probe => FAILURE_THRESHOLD,
            State::Closed { failures } => failures + 1,
            State::Probing | State::Open { .. } => return None,
        };
        if is_success {
            *state = State::Closed { failures: 0 };
            return self.is_probe.then_some(Transition::Closed);
        }
        if failures < FAILURE_THRESHOLD {
            *state = State::Closed { failures };
            return None;
        }
        *state = State::Open { until: Instant::now() + self.circuit.open_duration };
        (!self.is_probe).then_some(Transition::Opened)
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if self.is_probe && !self.is_recorded {
            *self.circuit.lock() = State::Open { until: Instant::now() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens a closed circuit.
    fn open(circuit: &Circuit) {
        let changes: Vec<_> = (0..FAILURE_THRESHOLD).map(|_| circuit.admit().unwrap().record(false)).collect();
        let (last, before) = changes.split_last().unwrap();
        assert!(before.iter().all(Option::is_none) && *last == Some(Transition::Opened), "{changes:?}");
    }

    #[test]
    fn consecutive_failures_open_the_circuit() {
        let circuit = Circuit::default();
        for _ in 1..FAILURE_THRESHOLD {
            circuit.admit().unwrap().record(false);
        }
        assert_eq!(circuit.admit().unwrap().record(true), None);
        let early = circuit.admit().unwrap();
        open(&circuit);
        assert_eq!((circuit.state(), circuit.admit().is_none()), (CircuitState::Open, true));
        assert_eq!((early.record(true), circuit.state()), (None, CircuitState::Open), "it was admitted before");
    }

    #[test]
    fn a_half_open_circuit_admits_one_probe_at_a_time() {
        let circuit = Circuit { open_duration: Duration::ZERO, ..Circuit::default() };
        open(&circuit);
        let probe = circuit.admit().unwrap();
        assert_eq!((circuit.state(), circuit.admit().is_none()), (CircuitState::HalfOpen, true), "one probe at a time");
        assert_eq!(probe.record(false), None, "it is still open");
        drop(circuit.admit().unwrap());
        let next = circuit.admit().unwrap();
        assert_eq!(next.record(true), Some(Transition::Closed), "a dropped probe does not block the next one");
        assert_eq!(circuit.state(), CircuitState::Closed);
        open(&circuit);
    }
}
