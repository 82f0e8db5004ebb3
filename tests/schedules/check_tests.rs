//! Tests of the checks: they find no violation in a correct run, and the right violation in each corrupted one.

use serde_json::{Value, json};

use crate::check::{ViolationKind, Violations, check_database};
use crate::database_state::{DatabaseState, Interval, Location, LoggedEvent, Message, Receipt};
use crate::reader::{Item, Segment, Transcript};
use crate::reader_check::check_reader;
use crate::record::{Operation, Response, RunRecord};
use crate::step::{Action, Actor};

const RIDE: &str = "t-ride1";

/// The record of a ride whose driver was replaced: operations, database, and what three readers received.
struct CorrectRun {
    record: RunRecord,
    database: DatabaseState,
    has_corrupted_feed: bool,
    rider: Transcript,
    first_driver: Transcript,
    merged: Transcript,
}

fn logged(seq: i64, kind: &str, data: Value) -> LoggedEvent {
    LoggedEvent { seq, kind: kind.to_owned(), text: data.to_string(), data }
}

fn message(seq: i64, sender: &str, content: Option<&str>) -> Value {
    let role = if sender == "t-rider" { "rider" } else { "driver" };
    json!({"id": format!("m{seq}"), "rideId": RIDE, "seq": seq, "senderId": sender, "senderRole": role, "content": content})
}

fn participants(joined: &[(&str, &str)], left: &[(&str, &str)], driver: &str) -> Value {
    let list = |of: &[(&str, &str)]| -> Vec<Value> {
        of.iter().map(|(user, role)| json!({"userId": user, "role": role})).collect()
    };
    json!({"ride": {"rideId": RIDE, "status": "accepted", "driverId": driver}, "joined": list(joined), "left": list(left)})
}

fn item(id: Option<&str>, kind: &str, data: &Value) -> Item {
    Item { id: id.map(str::to_owned), kind: kind.to_owned(), text: data.to_string() }
}

fn segment(items: Vec<Item>, has_ended: bool) -> Segment {
    Segment { status: Some(200), items, has_ended, ..Segment::default() }
}

fn operation(action: Action, op: usize, response: Value) -> Operation {
    let mut operation = Operation::new(action, 1, format!("t-says {op}."), 0);
    operation.message = response["id"].as_str().map(str::to_owned);
    *operation.response.lock().unwrap() = Some(Response { status: Some(200), body: response, at: 1 });
    operation
}

fn correct_run() -> CorrectRun {
    let log = vec![
        logged(1, "ride:participants", participants(&[("t-rider", "rider"), ("t-old", "driver")], &[], "t-old")),
        logged(2, "message:new", message(2, "t-rider", Some("t-says 1."))),
        logged(3, "message:new", message(3, "t-old", None)),
        logged(4, "message:deleted", json!({"rideId": RIDE, "messageId": "m3", "seq": 3})),
        logged(5, "message:read", json!({"rideId": RIDE, "userId": "t-old", "seq": 2, "messageId": "m2"})),
        logged(6, "ride:participants", participants(&[("t-new", "driver")], &[("t-old", "driver")], "t-new")),
        logged(7, "message:new", message(7, "t-new", Some("t-says 4."))),
    ];
    let mut record = RunRecord { prefix: "t-".to_owned(), rides: [1].into(), ..RunRecord::default() };
    let send = |actor| Action::Send { actor, named: false };
    record.operations.insert(1, operation(send(Actor::Rider), 1, json!({"id": "m2", "seq": 2})));
    record.operations.insert(2, operation(send(Actor::FirstDriver), 2, json!({"id": "m3", "seq": 3})));
    let mut delete = operation(Action::Delete { of: 2, by_support: false }, 3, Value::Null);
    delete.message = Some("m3".to_owned());
    record.operations.insert(3, delete);
    record.operations.insert(4, operation(send(Actor::SecondDriver), 4, json!({"id": "m7", "seq": 7})));
    let mut locate = operation(Action::Locate { actor: Actor::SecondDriver }, 5, Value::Null);
    (locate.head_before, locate.head_after) = (6, Some(7));
    record.operations.insert(5, locate);

    let assigned = |from: i64| logged(1, "ride:assigned", json!({"ride": {"rideId": RIDE}, "fromSeq": from}));
    let own = [assigned(1), logged(2, "notice", json!({"type": "end"}))];
    let removed = json!({"rideId": RIDE, "lastSeq": 6, "reason": "removed"});
    let user_logs = [
        ("user/t-rider", own.to_vec()),
        ("user/t-old", vec![assigned(1), logged(2, "ride:closed", removed)]),
        ("user/t-new", vec![assigned(6)]),
    ];
    let row = |seq: i64, content: Option<&str>| Message {
        id: format!("m{seq}"),
        ride: RIDE.to_owned(),
        seq,
        sender: "rider".to_owned(),
        content: content.map(str::to_owned),
        is_deleted: content.is_none(),
    };
    let interval = |user: &str, role: &str, from, until| Interval {
        ride: RIDE.to_owned(),
        user: user.to_owned(),
        role: role.to_owned(),
        from,
        until,
    };
    let location = json!({"rideId": RIDE, "driverId": "t-new", "lat": 10.05});
    let mut database = DatabaseState {
        heads: [(format!("ride/{RIDE}"), 7)].into(),
        logs: [(format!("ride/{RIDE}"), log.clone())].into(),
        messages: vec![row(2, Some("t-says 1.")), row(3, None), row(7, Some("t-says 4."))],
        receipts: vec![Receipt {
            ride: RIDE.to_owned(),
            user: "t-old".to_owned(),
            role: "driver".to_owned(),
            delivered: 2,
            read: 2,
        }],
        intervals: vec![
            interval("t-rider", "rider", 1, None),
            interval("t-old", "driver", 1, Some(6)),
            interval("t-new", "driver", 6, None),
        ],
        rides: [(RIDE.to_owned(), ("accepted".to_owned(), Some("t-new".to_owned())))].into(),
        locations: vec![Location { ride: RIDE.to_owned(), driver: "t-new".to_owned(), seq: 6, data: location.clone() }],
        ..DatabaseState::default()
    };
    for (topic, log) in user_logs {
        database.heads.insert(topic.to_owned(), i64::try_from(log.len()).unwrap());
        database.logs.insert(topic.to_owned(), log);
    }
    database.derive_feed_from_logs();

    let state = json!({"asOf": 1, "location": null});
    let sync = item(Some("1"), "stream:sync", &json!({"cursor": "1", "resumed": false, "gap": null, "state": state}));
    let event = |seq: usize| item(Some(&seq.to_string()), &log[seq - 1].kind, &log[seq - 1].data);
    // The message was delivered before it was deleted.
    let before = item(Some("3"), "message:new", &message(3, "t-old", Some("t-says 2.")));
    let part: Vec<_> = [sync].into_iter().chain([event(2), before]).chain((4..7).map(event)).collect();
    let value = item(None, "ride:location", &location);
    let rest = [value.clone(), event(7)];
    let closing = item(None, "stream:closing", &json!({"reason": "removed"}));
    let all_sync = json!({"cursor": "c", "gap": null, "state": {"rides": {RIDE: {"asOf": 6, "location": null}}}});
    let everything = vec![
        item(Some("c1"), "stream:sync", &all_sync),
        value,
        item(Some("c2"), &log[6].kind, &log[6].data),
        item(Some("c3"), "notice", &own[1].data),
    ];
    let transcript =
        |actor, ride, items, has_ended| Transcript { actor, ride, segments: vec![segment(items, has_ended)] };
    CorrectRun {
        record,
        database,
        has_corrupted_feed: false,
        rider: transcript(Actor::Rider, Some(1), part.iter().cloned().chain(rest).collect(), false),
        first_driver: transcript(Actor::FirstDriver, Some(1), part.into_iter().chain([closing]).collect(), true),
        merged: transcript(Actor::Rider, None, everything, false),
    }
}

fn kinds(corrupt: impl FnOnce(&mut CorrectRun)) -> Vec<ViolationKind> {
    let mut run = correct_run();
    corrupt(&mut run);
    let mut violations = Violations::default();
    // The feed follows the corrupted logs, unless the feed itself is corrupted.
    if !run.has_corrupted_feed {
        run.database.derive_feed_from_logs();
    }
    check_database(&run.record, &run.database, &mut violations);
    for (number, transcript) in [&run.rider, &run.first_driver, &run.merged].into_iter().enumerate() {
        check_reader(&run.record, &run.database, number, transcript, &mut violations);
    }
    let mut kinds: Vec<_> = violations.0.iter().map(|violation| violation.kind).collect();
    kinds.dedup();
    kinds
}

fn log(run: &mut CorrectRun) -> &mut Vec<LoggedEvent> {
    run.database.logs.get_mut(&format!("ride/{RIDE}")).unwrap()
}

/// Stores a message a second time.
fn store_again(run: &mut CorrectRun, seq: i64, content: &str) {
    let sender =
        run.database.log(RIDE)[usize::try_from(seq).unwrap() - 1].data["senderId"].as_str().unwrap().to_owned();
    let data = message(8, &sender, Some(content));
    run.rider.segments[0].items.push(item(Some("8"), "message:new", &data));
    run.merged.segments[0].items.push(item(Some("c8"), "message:new", &data));
    log(run).push(logged(8, "message:new", data));
    run.database.heads.insert(format!("ride/{RIDE}"), 8);
    let row = Message {
        id: "m8".into(),
        ride: RIDE.into(),
        seq: 8,
        sender: "rider".into(),
        content: Some(content.to_owned()),
        is_deleted: false,
    };
    run.database.messages.push(row);
}

#[test]
fn a_correct_run_has_no_violations() {
    assert_eq!(kinds(|_| {}), []);
}

#[test]
fn the_checker_finds_messages_that_are_stored_twice_or_after_their_erasure() {
    assert_eq!(kinds(|run| store_again(run, 2, "t-says 1.")), [ViolationKind::StoredTwice]);
    // The old driver is no longer on the ride.
    assert_eq!(kinds(|run| store_again(run, 3, "t-says 2.")), [ViolationKind::Rights, ViolationKind::Erased]);
    assert_eq!(kinds(|run| log(run)[2].data["content"] = json!("t-says 2.")), [ViolationKind::Erased]);
}

#[test]
fn the_checker_finds_events_that_the_feed_lacks_repeats_or_reorders() {
    let corrupt = |corrupt: fn(&mut Vec<i64>)| {
        kinds(|run| {
            run.has_corrupted_feed = true;
            corrupt(run.database.feed.get_mut(&format!("ride/{RIDE}")).unwrap());
        })
    };
    assert_eq!(corrupt(|seqs| seqs.truncate(3)), [ViolationKind::Feed]);
    assert_eq!(corrupt(|seqs| seqs.insert(3, 3)), [ViolationKind::Feed]);
    assert_eq!(corrupt(|seqs| seqs.swap(2, 3)), [ViolationKind::Feed]);
    assert_eq!(corrupt(Vec::clear), [ViolationKind::Feed]);
}

#[test]
fn the_checker_finds_acknowledged_messages_that_are_missing() {
    let lose = |run: &mut CorrectRun| {
        log(run).pop();
        run.database.heads.insert(format!("ride/{RIDE}"), 6);
        run.database.messages.pop();
        run.rider.segments[0].items.pop();
        run.merged.segments[0].items.remove(2);
    };
    assert_eq!(kinds(lose), [ViolationKind::Lost]);
    assert_eq!(kinds(|run| drop(log(run).remove(4))).first(), Some(&ViolationKind::Log));
    assert_eq!(kinds(|run| drop(run.database.messages.pop())), [ViolationKind::Log, ViolationKind::Lost]);
}

#[test]
fn the_checker_finds_watermarks_participants_and_partial_commits_that_differ_from_the_log() {
    assert_eq!(kinds(|run| run.database.receipts[0].read = 0), [ViolationKind::Watermarks]);
    assert_eq!(kinds(|run| run.database.receipts[0].role = "support".into()), [ViolationKind::ReceiptRole]);
    assert_eq!(
        kinds(|run| run.database.rides.get_mut(RIDE).unwrap().0 = "completed".into()),
        [ViolationKind::Participants]
    );
    assert_eq!(kinds(|run| run.database.heads.retain(|topic, _| topic.starts_with("user/"))), [ViolationKind::Partial]);
}

#[test]
fn the_checker_finds_users_who_were_not_notified_of_a_ride_or_more_than_once() {
    let corrupt = |user: &str, corrupt: fn(&mut Vec<LoggedEvent>)| {
        kinds(|run| {
            let topic = format!("user/{user}");
            let log = run.database.logs.get_mut(&topic).unwrap();
            corrupt(log);
            (1..).zip(&mut *log).for_each(|(seq, event)| event.seq = seq);
            run.database.heads.insert(topic, i64::try_from(log.len()).unwrap());
        })
    };
    assert_eq!(corrupt("t-new", Vec::clear), [ViolationKind::Lost]);
    assert_eq!(corrupt("t-new", |log| log.push(log[0].clone())), [ViolationKind::Lost]);
    assert_eq!(corrupt("t-old", |log| log.truncate(1)), [ViolationKind::Lost]);
    assert_eq!(corrupt("t-old", |log| log.push(log[1].clone())), [ViolationKind::Lost]);
}

#[test]
fn the_checker_finds_events_that_a_reader_missed_received_twice_or_may_not_see() {
    assert_eq!(kinds(|run| drop(run.rider.segments[0].items.remove(2))), [ViolationKind::Stream]);
    assert_eq!(kinds(|run| drop(run.rider.segments[0].items.pop())), [ViolationKind::Stream]);
    assert_eq!(kinds(|run| drop(run.merged.segments[0].items.remove(2))), [ViolationKind::Stream]);
    assert_eq!(kinds(|run| drop(run.merged.segments[0].items.pop())), [ViolationKind::Stream]);
    let again = |run: &mut CorrectRun| {
        let item = run.rider.segments[0].items[3].clone();
        run.rider.segments[0].items.insert(4, item);
    };
    assert_eq!(kinds(again), [ViolationKind::Stream]);
    let leak = |run: &mut CorrectRun| {
        let item = run.rider.segments[0].items.last().unwrap().clone();
        run.first_driver.segments[0].items.insert(6, item);
    };
    assert_eq!(kinds(leak), [ViolationKind::Leak]);
    assert_eq!(
        kinds(|run| drop(run.first_driver.segments[0].items.remove(5))),
        [ViolationKind::Stream],
        "the stream ends too early"
    );
}

#[test]
fn the_checker_finds_values_that_leak_arrive_early_or_are_missing() {
    let value = |run: &CorrectRun| run.rider.segments[0].items[6].clone();
    let leak = |run: &mut CorrectRun| {
        let value = value(run);
        run.first_driver.segments[0].items.insert(6, value);
    };
    assert_eq!(kinds(leak), [ViolationKind::Leak]);
    let early = |run: &mut CorrectRun| {
        let value = run.rider.segments[0].items.remove(6);
        run.rider.segments[0].items.insert(5, value);
    };
    assert_eq!(kinds(early), [ViolationKind::EarlyValue]);
    assert_eq!(kinds(|run| drop(run.rider.segments[0].items.remove(6))), [ViolationKind::LatestValue]);
}
