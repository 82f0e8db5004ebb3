//! A circuit breaker: what fails again and again is not asked for a while.
//!
//! Closed: everything is asked. After [`MOST_FAILURES`] in a row it opens, and nothing is. After [`PAUSE`] it is half-open: one
//! request is sent as a probe, and its outcome closes the circuit or opens it again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How many failures in a row open the circuit.
const MOST_FAILURES: u32 = 20;

/// How long nothing is asked then.
const PAUSE: Duration = Duration::from_secs(2);

/// The state of a circuit, as metrics show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitState {
    /// Requests are sent.
    Closed,
    /// None is.
    Open,
    /// One is, as a probe, or may be.
    HalfOpen,
}

impl CircuitState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The state as metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What an outcome has changed.
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

/// A circuit.
#[derive(Debug)]
pub(super) struct Circuit {
    state: Mutex<State>,
    pause: Duration,
}

impl Default for Circuit {
    fn default() -> Self {
        Self { state: Mutex::new(State::Closed { failures: 0 }), pause: PAUSE }
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

    /// Lets a request be sent, unless the circuit is open, or another request probes it.
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

/// A request that is sent. A probe that is dropped without an outcome leaves the circuit for the next one to probe.
#[derive(Debug)]
pub(super) struct Admission<'a> {
    circuit: &'a Circuit,
    is_probe: bool,
    is_recorded: bool,
}

impl Admission<'_> {
    /// Records the outcome. One that was sent before the circuit opened says nothing about it since.
    pub(super) fn record(mut self, is_success: bool) -> Option<Transition> {
        self.is_recorded = true;
        let mut state = self.circuit.lock();
        let failures = match *state {
            State::Probing if self.is_probe => MOST_FAILURES,
            State::Closed { failures } => failures + 1,
            State::Probing | State::Open { .. } => return None,
        };
        if is_success {
            *state = State::Closed { failures: 0 };
            return self.is_probe.then_some(Transition::Closed);
        }
        if failures < MOST_FAILURES {
            *state = State::Closed { failures };
            return None;
        }
        *state = State::Open { until: Instant::now() + self.circuit.pause };
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

    /// Opens a circuit that was closed.
    fn open(circuit: &Circuit) {
        let changes: Vec<_> = (0..MOST_FAILURES).map(|_| circuit.admit().unwrap().record(false)).collect();
        let (last, before) = changes.split_last().unwrap();
        assert!(before.iter().all(Option::is_none) && *last == Some(Transition::Opened), "{changes:?}");
    }

    #[test]
    fn failures_in_a_row_open_it() {
        let circuit = Circuit::default();
        for _ in 1..MOST_FAILURES {
            circuit.admit().unwrap().record(false);
        }
        assert_eq!(circuit.admit().unwrap().record(true), None);
        let early = circuit.admit().unwrap();
        open(&circuit);
        assert_eq!((circuit.state(), circuit.admit().is_none()), (CircuitState::Open, true));
        assert_eq!((early.record(true), circuit.state()), (None, CircuitState::Open), "it was sent before");
    }

    #[test]
    fn after_the_pause_one_probe_at_a_time_decides() {
        let circuit = Circuit { pause: Duration::ZERO, ..Circuit::default() };
        open(&circuit);
        let probe = circuit.admit().unwrap();
        assert_eq!((circuit.state(), circuit.admit().is_none()), (CircuitState::HalfOpen, true), "one at a time");
        assert_eq!(probe.record(false), None, "it is still open");
        drop(circuit.admit().unwrap());
        let next = circuit.admit().unwrap();
        assert_eq!(next.record(true), Some(Transition::Closed), "a probe that is lost blocks nobody");
        assert_eq!(circuit.state(), CircuitState::Closed);
        open(&circuit);
    }
}
