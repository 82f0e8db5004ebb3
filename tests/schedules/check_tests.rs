//! The checker finds what is wrong, and nothing where all is well.

use serde_json::{Value, json};

use crate::check::{Fault, Problems, check_database};
use crate::reader::{Item, Reading, Segment};
use crate::step::{What, Who};
use crate::told::{Answer, Operation, Told};
use crate::truth::{Interval, Location, Logged, Message, Receipt, Truth};
use crate::views::check_reader;

const RIDE: &str = "t-ride1";

/// A ride whose driver was replaced: what was asked, what there is, and what three readers got.
struct World {
    told: Told,
    truth: Truth,
    has_spoiled_feed: bool,
    rider: Reading,
    old: Reading,
    all: Reading,
}

fn logged(seq: i64, kind: &str, data: Value) -> Logged {
    Logged { seq, kind: kind.to_owned(), text: data.to_string(), data }
}

fn message(seq: i64, sender: &str, content: Option<&str>) -> Value {
    let role = if sender == "t-rider" { "rider" } else { "driver" };
    json!({"id": format!("m{seq}"), "rideId": RIDE, "seq": seq, "senderId": sender, "senderRole": role, "content": content})
}

fn people(joined: &[(&str, &str)], left: &[(&str, &str)], driver: &str) -> Value {
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

fn operation(what: What, op: usize, answer: Value) -> Operation {
    let mut operation = Operation::new(what, 1, format!("t-says {op}."), 0);
    operation.message = answer["id"].as_str().map(str::to_owned);
    *operation.answer.lock().unwrap() = Some(Answer { status: Some(200), body: answer, at: 1 });
    operation
}

fn world() -> World {
    let log = vec![
        logged(1, "ride:participants", people(&[("t-rider", "rider"), ("t-old", "driver")], &[], "t-old")),
        logged(2, "message:new", message(2, "t-rider", Some("t-says 1."))),
        logged(3, "message:new", message(3, "t-old", None)),
        logged(4, "message:deleted", json!({"rideId": RIDE, "messageId": "m3", "seq": 3})),
        logged(5, "message:read", json!({"rideId": RIDE, "userId": "t-old", "seq": 2, "messageId": "m2"})),
        logged(6, "ride:participants", people(&[("t-new", "driver")], &[("t-old", "driver")], "t-new")),
        logged(7, "message:new", message(7, "t-new", Some("t-says 4."))),
    ];
    let mut told = Told { prefix: "t-".to_owned(), rides: [1].into(), ..Told::default() };
    let send = |who| What::Send { who, named: false };
    told.operations.insert(1, operation(send(Who::Rider), 1, json!({"id": "m2", "seq": 2})));
    told.operations.insert(2, operation(send(Who::Old), 2, json!({"id": "m3", "seq": 3})));
    let mut delete = operation(What::Delete { of: 2, by_support: false }, 3, Value::Null);
    delete.message = Some("m3".to_owned());
    told.operations.insert(3, delete);
    told.operations.insert(4, operation(send(Who::New), 4, json!({"id": "m7", "seq": 7})));
    let mut locate = operation(What::Locate { who: Who::New }, 5, Value::Null);
    (locate.head_before, locate.head_after) = (6, Some(7));
    told.operations.insert(5, locate);

    let own =
        [logged(1, "ride:assigned", json!({"ride": {"rideId": RIDE}})), logged(2, "notice", json!({"type": "end"}))];
    let row = |seq: i64, content: Option<&str>| Message {
        id: format!("m{seq}"),
        ride: RIDE.to_owned(),
        seq,
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
    let mut truth = Truth {
        heads: [(format!("ride/{RIDE}"), 7), ("user/t-rider".to_owned(), 2)].into(),
        logs: [(format!("ride/{RIDE}"), log.clone()), ("user/t-rider".to_owned(), own.to_vec())].into(),
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
        ..Truth::default()
    };
    truth.take_feed_for_granted();

    let state = json!({"asOf": 1, "location": null});
    let sync = item(Some("1"), "stream:sync", &json!({"cursor": "1", "resumed": false, "gap": null, "state": state}));
    let event = |seq: usize| item(Some(&seq.to_string()), &log[seq - 1].kind, &log[seq - 1].data);
    // What was deleted since had been delivered before.
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
    let reading = |who, ride, items, has_ended| Reading { who, ride, segments: vec![segment(items, has_ended)] };
    World {
        told,
        truth,
        has_spoiled_feed: false,
        rider: reading(Who::Rider, Some(1), part.iter().cloned().chain(rest).collect(), false),
        old: reading(Who::Old, Some(1), part.into_iter().chain([closing]).collect(), true),
        all: reading(Who::Rider, None, everything, false),
    }
}

fn faults(spoil: impl FnOnce(&mut World)) -> Vec<Fault> {
    let mut world = world();
    spoil(&mut world);
    let mut problems = Problems::default();
    // What is spoiled is on the feed as well, unless that is what is spoiled.
    if !world.has_spoiled_feed {
        world.truth.take_feed_for_granted();
    }
    check_database(&world.told, &world.truth, &mut problems);
    for (number, reading) in [&world.rider, &world.old, &world.all].into_iter().enumerate() {
        check_reader(&world.told, &world.truth, number, reading, &mut problems);
    }
    let mut faults: Vec<_> = problems.0.iter().map(|problem| problem.fault).collect();
    faults.dedup();
    faults
}

fn log(world: &mut World) -> &mut Vec<Logged> {
    world.truth.logs.get_mut(&format!("ride/{RIDE}")).unwrap()
}

/// A message is there once more.
fn store_again(world: &mut World, seq: i64, content: &str) {
    let sender = world.truth.log(RIDE)[usize::try_from(seq).unwrap() - 1].data["senderId"].as_str().unwrap().to_owned();
    let data = message(8, &sender, Some(content));
    world.rider.segments[0].items.push(item(Some("8"), "message:new", &data));
    world.all.segments[0].items.push(item(Some("c8"), "message:new", &data));
    log(world).push(logged(8, "message:new", data));
    world.truth.heads.insert(format!("ride/{RIDE}"), 8);
    let row =
        Message { id: "m8".into(), ride: RIDE.into(), seq: 8, content: Some(content.to_owned()), is_deleted: false };
    world.truth.messages.push(row);
}

#[test]
fn nothing_is_wrong_with_a_good_run() {
    assert_eq!(faults(|_| {}), []);
}

#[test]
fn the_checker_finds_what_was_stored_twice_or_after_its_erasure() {
    assert_eq!(faults(|world| store_again(world, 2, "t-says 1.")), [Fault::StoredTwice]);
    // The old driver, who is no longer on the ride.
    assert_eq!(faults(|world| store_again(world, 3, "t-says 2.")), [Fault::Rights, Fault::Erased]);
    assert_eq!(faults(|world| log(world)[2].data["content"] = json!("t-says 2.")), [Fault::Erased]);
}

#[test]
fn the_checker_finds_what_the_feed_lacks_has_twice_or_in_another_order() {
    let spoil = |spoil: fn(&mut Vec<i64>)| {
        faults(|world| {
            world.has_spoiled_feed = true;
            spoil(world.truth.feed.get_mut(&format!("ride/{RIDE}")).unwrap());
        })
    };
    assert_eq!(spoil(|seqs| seqs.truncate(3)), [Fault::Feed]);
    assert_eq!(spoil(|seqs| seqs.insert(3, 3)), [Fault::Feed]);
    assert_eq!(spoil(|seqs| seqs.swap(2, 3)), [Fault::Feed]);
    assert_eq!(spoil(Vec::clear), [Fault::Feed]);
}

#[test]
fn the_checker_finds_what_was_acknowledged_and_is_not_there() {
    let lose = |world: &mut World| {
        log(world).pop();
        world.truth.heads.insert(format!("ride/{RIDE}"), 6);
        world.truth.messages.pop();
        world.rider.segments[0].items.pop();
        world.all.segments[0].items.remove(2);
    };
    assert_eq!(faults(lose), [Fault::Lost]);
    assert_eq!(faults(|world| drop(log(world).remove(4))).first(), Some(&Fault::Log));
    assert_eq!(faults(|world| drop(world.truth.messages.pop())), [Fault::Log, Fault::Lost]);
}

#[test]
fn the_checker_finds_watermarks_participants_and_parts_that_disagree_with_the_log() {
    assert_eq!(faults(|world| world.truth.receipts[0].read = 0), [Fault::Watermarks]);
    assert_eq!(faults(|world| world.truth.receipts[0].role = "support".into()), [Fault::ReceiptRole]);
    assert_eq!(faults(|world| world.truth.rides.get_mut(RIDE).unwrap().0 = "completed".into()), [Fault::Participants]);
    assert_eq!(faults(|world| world.truth.heads.retain(|topic, _| topic.starts_with("user/"))), [Fault::Partial]);
}

#[test]
fn the_checker_finds_what_a_reader_missed_got_twice_or_is_not_theirs() {
    assert_eq!(faults(|world| drop(world.rider.segments[0].items.remove(2))), [Fault::Stream]);
    assert_eq!(faults(|world| drop(world.rider.segments[0].items.pop())), [Fault::Stream]);
    assert_eq!(faults(|world| drop(world.all.segments[0].items.remove(2))), [Fault::Stream]);
    assert_eq!(faults(|world| drop(world.all.segments[0].items.pop())), [Fault::Stream]);
    let again = |world: &mut World| {
        let item = world.rider.segments[0].items[3].clone();
        world.rider.segments[0].items.insert(4, item);
    };
    assert_eq!(faults(again), [Fault::Stream]);
    let leak = |world: &mut World| {
        let item = world.rider.segments[0].items.last().unwrap().clone();
        world.old.segments[0].items.insert(6, item);
    };
    assert_eq!(faults(leak), [Fault::Leak]);
    assert_eq!(faults(|world| drop(world.old.segments[0].items.remove(5))), [Fault::Stream], "it ends too early");
}

#[test]
fn the_checker_finds_values_that_are_not_theirs_come_early_or_do_not_come() {
    let value = |world: &World| world.rider.segments[0].items[6].clone();
    let leak = |world: &mut World| {
        let value = value(world);
        world.old.segments[0].items.insert(6, value);
    };
    assert_eq!(faults(leak), [Fault::Leak]);
    let early = |world: &mut World| {
        let value = world.rider.segments[0].items.remove(6);
        world.rider.segments[0].items.insert(5, value);
    };
    assert_eq!(faults(early), [Fault::EarlyValue]);
    assert_eq!(faults(|world| drop(world.rider.segments[0].items.remove(6))), [Fault::LastValue]);
}
