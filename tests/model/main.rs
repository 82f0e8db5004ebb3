//! A model of the batch protocol, checked exhaustively: every order in which the writer, Postgres, the network, other replicas,
//! retention and a failover can take their steps.
//!
//! The model is a specification beside the code (`src/writer/batch.rs`, `src/writer/transaction.rs`, `sql/events/`). A change there needs
//! the same change here. `protocol.rs` contains the rules, `writer.rs` and `in_doubt.rs` the writer, `database.rs` Postgres, `system.rs`
//! the possible steps, and `properties.rs` the guarantees. The tests check two things:
//! - The guarantees hold with every rule of the protocol.
//! - Each rule is needed: without it the checker finds a sequence of steps that violates a guarantee.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod counterexamples;
mod database;
mod in_doubt;
mod properties;
mod protocol;
mod system;
mod writer;

use stateright::{Checker, Model};

use self::database::{Request, Row};
use self::properties::*;
use self::protocol::{Budget, Rules, Scenario, Standby, delete, edit, put, send};

const BOTH_OPEN: [Row; 2] = [Row::Open; 2];
const FIRST_TRIMMED: [Row; 2] = [Row::Trimmed, Row::Open];

const TWICE_EACH: Budget = Budget { losses: 2, failovers: 1, others: 2, retention: 2 };

/// Checks the guarantees in every state of a scenario, with each standby; and that each state of `reached` can be reached.
fn check(name: &str, rows: [Row; 2], batches: &[&[Request]], budget: Budget, reached: &[&str]) {
    let mut discovered = Vec::new();
    for standby in [Standby::Synchronous, Standby::SynchronousUnlessCancelled, Standby::Asynchronous] {
        let batches = batches.iter().map(|batch| batch.to_vec()).collect();
        let scenario = Scenario { rules: Rules::CURRENT, standby, batches, rows, budget };
        let checker = scenario.checker().spawn_bfs().join();
        eprintln!(
            "{name}, {standby:?}: {} states, at most {} steps",
            checker.unique_state_count(),
            checker.max_depth()
        );
        for (name, path) in checker.discoveries() {
            let is_example = checker.model().property(name).expectation == stateright::Expectation::Sometimes;
            assert!(is_example, "violated: {name}\n{:?}", path.into_actions());
            discovered.push(name);
        }
        assert!(checker.is_done());
    }
    for state in reached {
        assert!(discovered.contains(state), "never reached: {state}");
    }
}

#[test]
fn one_batch_on_two_rides_keeps_the_guarantees() {
    let reached = [UNKNOWN_STORED, UNKNOWN_NOT_STORED, STORED_ERASED, STORED_TRIMMED, STORED_AGAIN, STORED_LOST];
    check("one batch on two rides", BOTH_OPEN, &[&[send(0, 0), send(1, 1)]], TWICE_EACH, &reached);
}

#[test]
fn batches_one_after_the_other_keep_the_guarantees() {
    let batches: [&[Request]; 3] = [&[send(0, 0)], &[send(1, 1)], &[send(2, 0)]];
    let budget = Budget { others: 1, retention: 1, ..TWICE_EACH };
    check("three batches", BOTH_OPEN, &batches, budget, &[UNKNOWN_STORED, STORED_AGAIN, STORED_LOST]);
}

#[test]
fn a_ride_that_is_created_while_retention_deletes_it_keeps_the_guarantees() {
    let budget = Budget { others: 1, ..TWICE_EACH };
    let reached = [UNKNOWN_STORED, STORED_AGAIN, STORED_LOST];
    check("a ride that is created again", FIRST_TRIMMED, &[&[put(0, 0), send(1, 1)]], budget, &reached);
}

#[test]
fn edits_and_deletions_keep_the_guarantees() {
    let budget = Budget { others: 1, retention: 1, ..TWICE_EACH };
    let reached = [UNKNOWN_STORED, STORED_ERASED, STORED_TRIMMED, STORED_AGAIN];
    let batches: [&[Request]; 2] = [&[send(0, 0), edit(1, 0, 0)], &[send(2, 0)]];
    check("a send and an edit", BOTH_OPEN, &batches, budget, &reached);
    let batches: [&[Request]; 2] = [&[send(0, 0), send(1, 1)], &[delete(2, 0, 0)]];
    check("a send and a deletion", BOTH_OPEN, &batches, budget, &reached);
    check("both in a batch", BOTH_OPEN, &[&[send(0, 0), delete(1, 0, 0), send(2, 1)]], budget, &reached);
}
