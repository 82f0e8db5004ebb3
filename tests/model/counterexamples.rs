//! What goes wrong without the rules of the protocol: for each the fewest steps that break a guarantee, as the checker finds
//! them.

use stateright::{Checker, Model, Path};

use crate::database::{Request, Row};
use crate::properties::{ERASED, HONEST, NOT_LOST, ONCE, RIGHTS, WHOLE};
use crate::protocol::{Budget, Rules, Scenario, Standby, put, send};
use crate::world::Action::{self, *};

/// One send, and what may happen to it.
fn one_send(rules: Rules, budget: Budget) -> Scenario {
    scenario(rules, &[&[send(0, 0)]], budget)
}

fn scenario(rules: Rules, batches: &[&[Request]], budget: Budget) -> Scenario {
    let batches = batches.iter().map(|batch| batch.to_vec()).collect();
    Scenario { rules, standby: Standby::Synchronous, batches, rows: [Row::Open; 2], budget }
}

const IS: Rules = Rules::AS_IT_IS;

/// A lost connection, and nothing else.
const LOSS: Budget = Budget { losses: 1, failovers: 0, others: 0, retention: 0 };

/// The fewest steps that break a guarantee.
fn shortest(scenario: &Scenario, guarantee: &'static str) -> Option<Vec<Action>> {
    scenario.clone().checker().spawn_bfs().join().discovery(guarantee)?;
    // Breadth first, but by the block: only a limit on the depth makes the first that is found one of the shortest.
    let mut paths = (1..).filter_map(|depth| {
        let checker = scenario.clone().checker().target_max_depth(depth).spawn_bfs().join();
        checker.discovery(guarantee)
    });
    paths.next().map(Path::into_actions)
}

/// Without a rule these are the fewest steps that break a guarantee; with it, nothing does.
#[track_caller]
fn assert_needed(without: &Scenario, with: Rules, guarantee: &'static str, steps: &[Action]) {
    assert_eq!(shortest(without, guarantee).as_deref(), Some(steps), "without the rule: {guarantee}");
    let with = Scenario { rules: with, ..without.clone() };
    assert_eq!(shortest(&with, guarantee), None, "with the rule: {guarantee}");
}

/// The check compared the data of events, and a deletion had replaced it: the message was taken for one that was not stored.
#[test]
fn as_it_was_a_deleted_message_reappeared() {
    let budget = Budget { others: 1, ..LOSS };
    let steps = [LockAndSend, CommitUnseen, OtherDeletes(0), Check, LockAndSend, Commit];
    assert_needed(&one_send(Rules::AS_IT_WAS, budget), IS, ERASED, &steps);
    let rules = Rules { identity_is_evidence: false, ..IS };
    let steps = [LockAndSend, CommitUnseen, OtherDeletes(0), Check, Commit];
    assert_needed(&one_send(rules, budget), IS, ERASED, &steps);
}

/// The check released its locks before the second run took them, and the first run arrived in between.
#[test]
fn as_it_was_a_late_commit_was_stored_twice() {
    let steps = [SendOptimistically, LoseConnection, Check, CommitLate(0), LockAndSend, Commit];
    assert_needed(&one_send(Rules::AS_IT_WAS, LOSS), IS, ONCE, &steps);
    let rules = Rules { check_and_run_are_one: false, ..IS };
    assert_needed(&one_send(rules, LOSS), IS, ONCE, &steps);
}

/// On the locking path the events of one ride were found, those of the other not: both were stored again.
#[test]
fn a_part_of_a_batch_that_is_found_proves_that_it_was_committed() {
    let batches: [&[Request]; 1] = [&[send(0, 0), send(1, 1)]];
    let rules = Rules { any_event_proves: false, ..IS };
    let budget = Budget { others: 1, retention: 1, ..LOSS };
    let steps = [LockAndSend, CommitUnseen, OtherCloses(1), TrimLog(1), Check, Commit];
    assert_needed(&scenario(rules, &batches, budget), IS, ONCE, &steps);
}

/// Retention had deleted the log with the run's event, and the command was rejected, because the ride was closed by then.
#[test]
fn an_event_that_retention_may_have_deleted_is_not_taken_for_one_that_was_not_stored() {
    let rules = Rules { absence_is_no_proof: false, ..IS };
    let budget = Budget { others: 1, retention: 1, ..LOSS };
    let steps = [LockAndSend, CommitUnseen, OtherCloses(0), TrimLog(0), Check];
    assert_needed(&one_send(rules, budget), IS, HONEST, &steps);
}

/// A failover lost the commit that the cache was of, and the log grew to the same seq again, by an event that closed the ride.
#[test]
fn a_log_that_ends_at_the_same_seq_is_not_taken_for_the_same_log() {
    let rules = Rules { heads_have_ids: false, ..IS };
    let budget = Budget { losses: 0, failovers: 1, others: 1, retention: 0 };
    let two = scenario(rules, &[&[send(0, 0)], &[send(1, 0)]], budget);
    let steps = [SendOptimistically, Commit, FailOver { lost_commits: 1 }, SendOptimistically, OtherCloses(0), Commit];
    assert_needed(&Scenario { standby: Standby::Asynchronous, ..two }, IS, RIGHTS, &steps);
}

/// A ride was deleted between the statement that would have created its topic and the one that locks it.
#[test]
fn a_part_of_an_append_is_not_committed_on_the_locking_path() {
    let rules = Rules { partial_append_aborts: false, ..IS };
    let budget = Budget { losses: 0, retention: 1, ..LOSS };
    let put = scenario(rules, &[&[put(0, 0)]], budget);
    let steps = [FindTopic, ForgetRide(0), LockAndSend, Commit];
    assert_needed(&Scenario { rows: [Row::Trimmed, Row::Open], ..put }, IS, WHOLE, &steps);
}

/// A cancel request or a restart of Postgres had ended a commit's wait for the synchronous standby, the check found it, and the
/// failover lost what was acknowledged. A check that commits waits for the standby.
#[test]
fn a_commit_that_did_not_wait_for_the_standby_is_acknowledged_only_after_one_that_did() {
    let rules = Rules { check_waits_for_standby: false, ..IS };
    let send = one_send(rules, Budget { failovers: 1, ..LOSS });
    let send = Scenario { standby: Standby::SynchronousUnlessCancelled, ..send };
    let steps = [LockAndSend, CommitBeforeStandby, Check, FailOver { lost_commits: 1 }];
    assert_needed(&send, IS, NOT_LOST, &steps);
}
