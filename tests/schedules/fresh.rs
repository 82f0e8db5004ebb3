//! What somebody is told who asks when all is over: by polling, by the history, on either replica.

use reqwest::Method;
use serde_json::Value;

use crate::check::{Fault, Problems};
use crate::run::Run;
use crate::step::{OLD_RIDE, Replica, What, Who};
use crate::told::Told;
use crate::truth::Truth;
use crate::views::Part;

/// Has everybody read everything once more.
pub(crate) async fn check_fresh(run: &mut Run<'_>, truth: &Truth, problems: &mut Problems) {
    for ride in run.told.rides.clone().into_iter().filter(|ride| *ride != OLD_RIDE) {
        // Those who have left, and one of the others.
        for (index, who) in [Who::Old, [Who::Support, Who::New, Who::Rider][ride % 3]].into_iter().enumerate() {
            let at = Replica::BOTH[(ride + index) % 2];
            check_poll(run, truth, (ride, who, at), problems).await;
            // The history is one statement, the same for all who may read it.
            if who != Who::Old {
                check_history(run, truth, (ride, who, at.other()), problems).await;
            }
        }
    }
}

async fn get(run: &mut Run<'_>, who: Who, at: Replica, path: &str) -> (u16, Value) {
    let request = run.request(who, at, Method::GET, path).unwrap();
    match request.send().await {
        Ok(answer) => (answer.status().as_u16(), answer.json().await.unwrap_or_default()),
        Err(_) => (0, Value::Null),
    }
}

async fn check_poll(run: &mut Run<'_>, truth: &Truth, (ride, who, at): (usize, Who, Replica), problems: &mut Problems) {
    let name = run.told.ride(ride);
    let mut cursor = 0;
    let mut expected = true;
    // A page ends where rights move.
    while expected {
        let (status, body) = get(run, who, at, &format!("messages/rides/{name}/poll?after={cursor}&wait=0")).await;
        let part = Part::of(&run.told, truth, who, &name);
        let is_there = !part.is_empty() && (part.is_open() || part.missing(cursor).is_some());
        problems.unless((status == 200) == is_there && (is_there || status == 404), Fault::Leak, || {
            format!("{}'s poll of {name} after {cursor} is answered {status}", who.name())
        });
        let mut place = cursor;
        for event in body["events"].as_array().into_iter().flatten() {
            let seq = event["id"].as_str().and_then(|id| id.parse::<i64>().ok()).unwrap_or(0);
            let logged = part.log.iter().find(|one| one.seq == seq);
            let is_logged = logged.is_some_and(|one| event["type"] == *one.kind && event["data"] == one.data);
            let missing = part.missing(place).map(|one| one.seq).filter(|missing| *missing < seq);
            // Deliveries that polls acknowledge are appended meanwhile.
            let is_news = logged.is_none() && part.log.last().is_some_and(|last| seq > last.seq);
            if !is_news {
                problems.unless(part.has(seq), Fault::Leak, || format!("{}'s poll of {name} has {event}", who.name()));
                problems.unless(is_logged, Fault::Erased, || {
                    format!("{}'s poll of {name} at {at} has {event}, but the log {logged:?}", who.name())
                });
                problems.unless(missing.is_none() && seq > place, Fault::Stream, || {
                    format!("{}'s poll of {name} has {seq} after {place}, but not {missing:?}", who.name())
                });
            }
            place = place.max(seq);
        }
        let next = body["cursor"].as_str().and_then(|cursor| cursor.parse::<i64>().ok()).unwrap_or(0);
        let missing = part.missing(place).map(|event| event.seq);
        expected = status == 200 && missing.is_some() && next > cursor;
        problems.unless(expected || missing.is_none() || status != 200, Fault::Stream, || {
            format!("{}'s poll of {name} ends at {place}, but not with {missing:?}", who.name())
        });
        cursor = next;
    }
}

async fn check_history(
    run: &mut Run<'_>,
    truth: &Truth,
    (ride, who, at): (usize, Who, Replica),
    problems: &mut Problems,
) {
    let name = run.told.ride(ride);
    let (status, body) = get(run, who, at, &format!("messages/rides/{name}?limit=200")).await;
    let part = Part::of(&run.told, truth, who, &name);
    problems.unless((status == 200) == part.is_open(), Fault::Leak, || {
        format!("{}'s history of {name} is answered {status}", who.name())
    });
    if status != 200 {
        return;
    }
    let user = run.told.user(who);
    let rows = |of: &dyn Fn(i64) -> bool| {
        let rows = truth.messages.iter().filter(|row| row.ride == name && of(row.seq));
        rows.map(|row| (row.seq, row.id.clone(), row.content.clone())).collect::<Vec<_>>()
    };
    // Of several times on the ride all. Support who drives as well is a participant then.
    let own: Vec<_> = truth.intervals_of(&name, &user).collect();
    let is_on_ride = own.iter().any(|one| one.until.is_none());
    let expected = rows(&|seq| if is_on_ride { own.iter().any(|one| one.has(seq)) } else { part.has(seq) });
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let told = body["messages"].as_array().cloned().unwrap_or_default();
    let told: Vec<_> = told
        .iter()
        .map(|one| (one["seq"].as_i64().unwrap_or(0), text(&one["id"]).unwrap_or_default(), text(&one["content"])))
        .collect();
    problems.unless(expected == told, Fault::Lost, || {
        format!("{}'s history of {name} has {told:?}, but there is {expected:?}", who.name())
    });
}

/// What was read while the schedule ran: nothing that had been deleted before, and nothing that was not theirs.
pub(crate) fn check_reads(told: &Told, truth: &Truth, problems: &mut Problems) {
    for (op, read) in &told.operations {
        let (who, is_history) = match read.what {
            What::Poll { who } => (who, false),
            What::History { who } => (who, true),
            _ => continue,
        };
        let Some(answer) = read.answer().filter(|answer| answer.status == Some(200)) else { continue };
        let name = told.ride(read.ride);
        let part = Part::of(told, truth, who, &name);
        let text = answer.body.to_string();
        for event in answer.body["events"].as_array().into_iter().flatten() {
            let seq = event["id"].as_str().and_then(|id| id.parse::<i64>().ok()).unwrap_or(0);
            let is_logged = part.log.iter().any(|one| one.seq == seq && event["type"] == *one.kind);
            problems.unless(is_logged && part.has(seq), Fault::Leak, || format!("the poll {op} has {event}"));
        }
        // The log of a replica that has not heard of it yet may still say it; the history is the database's.
        for (deleted, erased) in told.operations.iter().filter(|_| is_history) {
            let is_delete = matches!(erased.what, What::Delete { .. }) && erased.is_acknowledged();
            let is_before = erased.answer().is_some_and(|answer| answer.at < read.began);
            let of = erased.what.about().and_then(|of| told.operations.get(&of));
            let is_there = of.is_some_and(|of| text.contains(&of.content));
            problems.unless(!(is_delete && is_before && is_there), Fault::Erased, || {
                format!("the history {op} has what {deleted} has deleted: {text}")
            });
        }
    }
}
