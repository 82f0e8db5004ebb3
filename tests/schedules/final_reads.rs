//! Checks what users read after a run, by polling, by the history and as unread counts, on both replicas; and what they have read
//! during the run.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::check::{ViolationKind, Violations};
use crate::database_state::DatabaseState;
use crate::record::RunRecord;
use crate::run::Run;
use crate::step::{Action, Actor, OLD_RIDE, Replica};
use crate::visible_log::VisibleLog;

/// Polls and reads the history of each ride.
pub(crate) async fn check_final_reads(run: &mut Run<'_>, database: &DatabaseState, violations: &mut Violations) {
    for ride in run.record.rides.clone().into_iter().filter(|ride| *ride != OLD_RIDE) {
        // The driver who may have left, and one of the others.
        for (index, actor) in
            [Actor::FirstDriver, [Actor::Support, Actor::SecondDriver, Actor::Rider][ride % 3]].into_iter().enumerate()
        {
            let at = Replica::BOTH[(ride + index) % 2];
            check_poll(run, database, (ride, actor, at), violations).await;
            // The history is one statement, the same for all who may read it.
            if actor != Actor::FirstDriver {
                check_history(run, database, (ride, actor, at.other()), violations).await;
            }
        }
    }
    for (actor, at) in [Actor::Rider, Actor::SecondDriver].into_iter().zip(Replica::BOTH) {
        check_unread_counts(run, database, (actor, at), violations).await;
    }
}

async fn get(run: &mut Run<'_>, actor: Actor, at: Replica, path: &str) -> (u16, Value) {
    let request = run.request(actor, at, Method::GET, path).unwrap();
    match request.send().await {
        Ok(response) => (response.status().as_u16(), response.json().await.unwrap_or_default()),
        Err(_) => (0, Value::Null),
    }
}

async fn check_poll(
    run: &mut Run<'_>,
    database: &DatabaseState,
    (ride, actor, at): (usize, Actor, Replica),
    violations: &mut Violations,
) {
    let name = run.record.ride(ride);
    let mut cursor = 0;
    let mut expected = true;
    // A page ends where access changes.
    while expected {
        let (status, body) = get(run, actor, at, &format!("messages/rides/{name}/poll?after={cursor}&wait=0")).await;
        let visible = VisibleLog::of(&run.record, database, actor, &name);
        let is_there = !visible.is_empty() && (visible.is_open() || visible.missing(cursor).is_some());
        violations.check((status == 200) == is_there && (is_there || status == 404), ViolationKind::Leak, || {
            format!("{}'s poll of {name} after {cursor} returned {status}", actor.name())
        });
        let mut position = cursor;
        for event in body["events"].as_array().into_iter().flatten() {
            let seq = event["id"].as_str().and_then(|id| id.parse::<i64>().ok()).unwrap_or(0);
            let logged = visible.log.iter().find(|logged| logged.seq == seq);
            let is_logged = logged.is_some_and(|logged| event["type"] == *logged.kind && event["data"] == logged.data);
            let missing = visible.missing(position).map(|event| event.seq).filter(|missing| *missing < seq);
            // Delivery receipts that polls acknowledge are appended meanwhile.
            let is_new = logged.is_none() && visible.log.last().is_some_and(|last| seq > last.seq);
            if !is_new {
                violations.check(visible.has(seq), ViolationKind::Leak, || {
                    format!("{}'s poll of {name} has {event}", actor.name())
                });
                violations.check(is_logged, ViolationKind::Erased, || {
                    format!("{}'s poll of {name} at {at} has {event}, but the log {logged:?}", actor.name())
                });
                violations.check(missing.is_none() && seq > position, ViolationKind::Stream, || {
                    format!("{}'s poll of {name} has {seq} after {position}, but not {missing:?}", actor.name())
                });
            }
            position = position.max(seq);
        }
        let next = body["cursor"].as_str().and_then(|cursor| cursor.parse::<i64>().ok()).unwrap_or(0);
        let missing = visible.missing(position).map(|event| event.seq);
        expected = status == 200 && missing.is_some() && next > cursor;
        violations.check(expected || missing.is_none() || status != 200, ViolationKind::Stream, || {
            format!("{}'s poll of {name} ends at {position}, but not with {missing:?}", actor.name())
        });
        cursor = next;
    }
}

async fn check_history(
    run: &mut Run<'_>,
    database: &DatabaseState,
    (ride, actor, at): (usize, Actor, Replica),
    violations: &mut Violations,
) {
    let name = run.record.ride(ride);
    let (status, body) = get(run, actor, at, &format!("messages/rides/{name}?limit=200")).await;
    let visible = VisibleLog::of(&run.record, database, actor, &name);
    violations.check((status == 200) == visible.is_open(), ViolationKind::Leak, || {
        format!("{}'s history of {name} returned {status}", actor.name())
    });
    if status != 200 {
        return;
    }
    let user = run.record.user(actor);
    let rows = |of: &dyn Fn(i64) -> bool| {
        let rows = database.messages.iter().filter(|row| row.ride == name && of(row.seq));
        rows.map(|row| (row.seq, row.id.clone(), row.content.clone())).collect::<Vec<_>>()
    };
    // A participant sees all their intervals. Support that is also the driver is a participant.
    let own: Vec<_> = database.intervals_of(&name, &user).collect();
    let is_on_ride = own.iter().any(|interval| interval.until.is_none());
    let expected =
        rows(&|seq| if is_on_ride { own.iter().any(|interval| interval.has(seq)) } else { visible.has(seq) });
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let returned = body["messages"].as_array().cloned().unwrap_or_default();
    let returned: Vec<_> = returned
        .iter()
        .map(|message| {
            (message["seq"].as_i64().unwrap_or(0), text(&message["id"]).unwrap_or_default(), text(&message["content"]))
        })
        .collect();
    violations.check(expected == returned, ViolationKind::Lost, || {
        format!("{}'s history of {name} has {returned:?}, but there is {expected:?}", actor.name())
    });
}

async fn check_unread_counts(
    run: &mut Run<'_>,
    database: &DatabaseState,
    (actor, at): (Actor, Replica),
    violations: &mut Violations,
) {
    let (status, body) = get(run, actor, at, "messages/unread-count").await;
    let user = run.record.user(actor);
    let mut expected = BTreeMap::new();
    for current in database.intervals.iter().filter(|interval| interval.user == user && interval.until.is_none()) {
        let own: Vec<_> = database.intervals_of(&current.ride, &user).collect();
        let receipt = database.receipts.iter().find(|receipt| receipt.ride == current.ride && receipt.user == user);
        let read = receipt.map_or(0, |receipt| receipt.read);
        let unread = database.messages.iter().filter(|message| {
            let is_readable = message.seq > read && own.iter().any(|interval| interval.has(message.seq));
            message.ride == current.ride && message.sender != user && !message.is_deleted && is_readable
        });
        expected.insert(current.ride.clone(), unread.count());
    }
    expected.retain(|_, unread| *unread > 0);
    let rides = json!(
        expected.iter().map(|(ride, unread)| json!({ "rideId": ride, "unreadCount": unread })).collect::<Vec<_>>()
    );
    violations.check(status == 200 && body["rides"] == rides, ViolationKind::Lost, || {
        format!("{}'s unread counts at {at} are {status} {body}, but there are {rides}", actor.name())
    });
}

/// Checks the reads during the run: they contain nothing that had been deleted before, and nothing that their user may not see.
pub(crate) fn check_earlier_reads(record: &RunRecord, database: &DatabaseState, violations: &mut Violations) {
    for (op, read) in &record.operations {
        let (actor, is_history) = match read.action {
            Action::Poll { actor } => (actor, false),
            Action::History { actor } => (actor, true),
            _ => continue,
        };
        let Some(response) = read.response().filter(|response| response.status == Some(200)) else { continue };
        let name = record.ride(read.ride);
        let visible = VisibleLog::of(record, database, actor, &name);
        let text = response.body.to_string();
        for event in response.body["events"].as_array().into_iter().flatten() {
            let seq = event["id"].as_str().and_then(|id| id.parse::<i64>().ok()).unwrap_or(0);
            let is_logged = visible.log.iter().any(|logged| logged.seq == seq && event["type"] == *logged.kind);
            violations
                .check(is_logged && visible.has(seq), ViolationKind::Leak, || format!("the poll {op} has {event}"));
        }
        // A replica that has not received the deletion may still serve the event from its memory. The history comes from the database.
        for (deleted, erased) in record.operations.iter().filter(|_| is_history) {
            let is_delete = matches!(erased.action, Action::Delete { .. }) && erased.is_acknowledged();
            let is_before = erased.response().is_some_and(|response| response.at < read.began);
            let of = erased.action.about().and_then(|of| record.operations.get(&of));
            let is_there = of.is_some_and(|of| text.contains(&of.content));
            violations.check(!(is_delete && is_before && is_there), ViolationKind::Erased, || {
                format!("the history {op} has what operation {deleted} has deleted: {text}")
            });
        }
    }
}
