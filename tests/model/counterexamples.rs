//! Counterexamples: for each rule, the shortest sequence of steps that violates a guarantee without it.

use stateright::{Checker, Model, Path};

use crate::database::{Request, Row};
use crate::properties::{ERASED, NOT_LOST, ONCE, REJECTED_NOT_STORED, RIGHTS, WHOLE};
use crate::protocol::{Budget, Rules, Scenario, Standby, put, send};
use crate::system::Action::{self, *};

/// A scenario of one send.
fn one_send(rules: Rules, budget: Budget) -> Scenario {
    scenario(rules, &[&[send(0, 0)]], budget)
}

fn scenario(rules: Rules, batches: &[&[Request]], budget: Budget) -> Scenario {
    let batches = batches.iter().map(|batch| batch.to_vec()).collect();
    Scenario { rules, standby: Standby::Synchronous, batches, rows: [Row::Open; 2], budget }
}

const CURRENT: Rules = Rules::CURRENT;

/// One lost connection, and nothing else.
const LOSS: Budget = Budget { losses: 1, failovers: 0, others: 0, retention: 0 };

/// Returns a shortest sequence of steps that violates a guarantee, if there is one.
fn shortest(scenario: &Scenario, guarantee: &'static str) -> Option<Vec<Action>> {
    scenario.clone().checker().spawn_bfs().join().discovery(guarantee)?;
    // The search is breadth-first, but by blocks. Only a limit on the depth guarantees that the first path is one of the shortest.
    let mut paths = (1..).filter_map(|depth| {
        let checker = scenario.clone().checker().target_max_depth(depth).spawn_bfs().join();
        checker.discovery(guarantee)
    });
    paths.next().map(Path::into_actions)
}

/// Asserts that without a rule, these steps are a shortest violation of a guarantee, and that with it there is none.
#[track_caller]
fn assert_needed(without: &Scenario, with: Rules, guarantee: &'static str, steps: &[Action]) {
    assert_eq!(shortest(without, guarantee).as_deref(), Some(steps), "without the rule: {guarantee}");
    let with = Scenario { rules: with, ..without.clone() };
    assert_eq!(shortest(&with, guarantee), None, "with the rule: {guarantee}");
}

/// The check compared the data of events. A deletion had replaced it, so the check concluded that the message was not stored.
#[test]
fn originally_a_deleted_message_reappeared() {
    let budget = Budget { others: 1, ..LOSS };
    let steps = [LockAndSend, CommitUnseen, OtherDeletes(0), Check, LockAndSend, Commit];
    assert_needed(&one_send(Rules::ORIGINAL, budget), CURRENT, ERASED, &steps);
    let rules = Rules { batch_id_proves_commit: false, ..CURRENT };
    let steps = [LockAndSend, CommitUnseen, OtherDeletes(0), Check, Commit];
    assert_needed(&one_send(rules, budget), CURRENT, ERASED, &steps);
}

/// The check released its locks before the second run took them, and the first run arrived in between.
#[test]
fn originally_a_late_commit_was_stored_twice() {
    let steps = [SendOptimistically, LoseConnection, Check, CommitLate(0), LockAndSend, Commit];
    assert_needed(&one_send(Rules::ORIGINAL, LOSS), CURRENT, ONCE, &steps);
    let rules = Rules { check_and_run_share_transaction: false, ..CURRENT };
    assert_needed(&one_send(rules, LOSS), CURRENT, ONCE, &steps);
}

/// On the locking path the events of one ride were found, but not those of the other. Both were stored again.
#[test]
fn one_event_of_a_batch_proves_its_commit() {
    let batches: [&[Request]; 1] = [&[send(0, 0), send(1, 1)]];
    let rules = Rules { any_event_proves_commit: false, ..CURRENT };
    let budget = Budget { others: 1, retention: 1, ..LOSS };
    let steps = [LockAndSend, CommitUnseen, OtherCloses(1), TrimLog(1), Check, Commit];
    assert_needed(&scenario(rules, &batches, budget), CURRENT, ONCE, &steps);
}

/// Retention had deleted the log with the run's event. The command was rejected, because the ride was closed by then.
#[test]
fn the_absence_of_a_trimmed_event_proves_nothing() {
    let rules = Rules { missing_event_may_be_trimmed: false, ..CURRENT };
    let budget = Budget { others: 1, retention: 1, ..LOSS };
    let steps = [LockAndSend, CommitUnseen, OtherCloses(0), TrimLog(0), Check];
    assert_needed(&one_send(rules, budget), CURRENT, REJECTED_NOT_STORED, &steps);
}

/// A failover lost the cached commit. The log grew to the same seq again, by an event that closed the ride.
#[test]
fn a_log_with_the_same_head_seq_may_be_another_log() {
    let rules = Rules { heads_compare_ids: false, ..CURRENT };
    let budget = Budget { losses: 0, failovers: 1, others: 1, retention: 0 };
    let two = scenario(rules, &[&[send(0, 0)], &[send(1, 0)]], budget);
    let steps = [SendOptimistically, Commit, FailOver { lost_commits: 1 }, SendOptimistically, OtherCloses(0), Commit];
    assert_needed(&Scenario { standby: Standby::Asynchronous, ..two }, CURRENT, RIGHTS, &steps);
}

/// A ride was deleted between the statement that would have created its topic and the statement that locks it.
#[test]
fn a_partial_append_is_not_committed_on_the_locking_path() {
    let rules = Rules { partial_append_aborts: false, ..CURRENT };
    let budget = Budget { losses: 0, retention: 1, ..LOSS };
    let put = scenario(rules, &[&[put(0, 0)]], budget);
    let steps = [FindTopic, DeleteRide(0), LockAndSend, Commit];
    assert_needed(&Scenario { rows: [Row::Trimmed, Row::Open], ..put }, CURRENT, WHOLE, &steps);
}

/// A cancel request or a restart of Postgres ended a commit's wait for the synchronous standby. The check found the commit, and a
/// failover lost it after it was acknowledged. A check that commits waits for the standby.
#[test]
fn a_commit_that_skipped_the_standby_is_acknowledged_only_after_one_that_waited() {
    let rules = Rules { check_waits_for_standby: false, ..CURRENT };
    let send = one_send(rules, Budget { failovers: 1, ..LOSS });
    let send = Scenario { standby: Standby::SynchronousUnlessCancelled, ..send };
    let steps = [LockAndSend, CommitBeforeStandby, Check, FailOver { lost_commits: 1 }];
    assert_needed(&send, CURRENT, NOT_LOST, &steps);
}
