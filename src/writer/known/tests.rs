//! What is known, and when it no longer is.

use super::*;
use crate::domain::{EventType, Receipts, Ride, Status, UserId};

const GRACE: Duration = Duration::from_secs(60);

fn id(name: &str) -> RideId {
    RideId::parse(name).unwrap()
}

fn snapshot(name: &str, head: Seq) -> RideSnapshot {
    let ride = Ride {
        id: id(name),
        status: Status::Requested,
        rider: UserId::parse("rider").unwrap(),
        driver: None,
        chat_policy: None,
        has_opened: false,
        ended_at: None,
        closes: None,
        closed_at: None,
        closed_seq: None,
        created_at: Time::now(),
        updated_at: Time::now(),
    };
    let read_at = ride.created_at;
    let (participants, receipts) = (Vec::new(), Receipts::default());
    RideSnapshot { head, ride, participants, receipts, location: None, read_at, last_batch: 0 }
}

/// Each event is of a batch of its own, which has its number.
fn ledger(rides: &[(&str, Seq)]) -> Ledger {
    let rides = rides.iter().map(|(name, head)| (snapshot(name, *head), *head));
    Ledger::new(Time::now(), GRACE, rides, [], HashMap::new())
}

fn event(seq: Seq, kind: EventType) -> StoredEvent {
    let (batch, batch_before) = (Some(seq), Some(seq - 1));
    StoredEvent { seq, kind, data: "{}".to_owned(), trace: None, at: Time::now(), batch, batch_before }
}

fn take(known: &Known, names: &[&str]) -> Option<Ledger> {
    let rides: Vec<_> = names.iter().map(|name| id(name)).collect();
    known.take(&rides, GRACE)
}

fn knowing(rides: &[(&str, Seq)]) -> Known {
    let known = Known::default();
    known.set_clock(Time::now());
    known.learn(&mut ledger(rides), Instant::now());
    known
}

fn head(known: &Known, name: &str) -> Option<Seq> {
    take(known, &[name]).map(|ledger| ledger.ride(&id(name)).unwrap().head)
}

#[test]
fn what_is_known_of_a_batch_is_taken_with_it() {
    let known = knowing(&[("a", 1), ("b", 2), ("d", 3)]);
    assert!(take(&known, &["c"]).is_none());
    let some = take(&known, &["a", "b", "c", "a"]).unwrap();
    assert_eq!((some.ride(&id("a")).unwrap().head, some.ride(&id("b")).unwrap().head), (1, 2));
    assert!(some.find_ride(&id("c")).is_none());
    assert_eq!((head(&known, "a"), head(&known, "d")), (None, Some(3)), "somebody has the first");
}

#[test]
fn a_ride_is_not_used_when_its_log_is_heard_to_go_on() {
    let known = knowing(&[("a", 5), ("b", 5), ("c", 5)]);
    let heads = [("a", 4), ("b", 5), ("c", 6)].map(|(name, head)| (Topic::ride(&id(name)), head));
    known.hear(heads.iter().map(|(topic, head)| (topic, head)));
    assert_eq!((head(&known, "a"), head(&known, "b"), head(&known, "c")), (Some(5), Some(5), None));
}

#[test]
fn what_others_say_moves_a_rides_head_along() {
    let known = knowing(&[("a", 5)]);
    let topic = Topic::ride(&id("a"));
    known.hear([(&topic, &8)]);
    assert_eq!(head(&known, "a"), None);
    // A page that begins before what is known, then the rest.
    known.follow(&topic, 3, &[4, 5, 6].map(|seq| event(seq, EventType::MessageNew)), Instant::now());
    assert_eq!(head(&known, "a"), None, "there is more");
    let last = Time::now().plus(Duration::from_secs(30));
    let read = StoredEvent { at: last, ..event(8, EventType::MessageRead) };
    known.follow(&topic, 6, &[event(7, EventType::MessageReaction), read], Instant::now());
    let ledger = take(&known, &["a"]).unwrap();
    assert_eq!(ledger.ride(&id("a")).unwrap().head, 8);
    assert_eq!(ledger.now(), last, "the next event is not older");
}

#[test]
fn a_ride_that_others_may_have_changed_is_forgotten() {
    let topic = Topic::ride(&id("a"));
    for kind in [EventType::RideAccept, EventType::RideCancel, EventType::RideStatus, EventType::RideParticipants] {
        let known = knowing(&[("a", 5)]);
        known.follow(&topic, 5, &[event(6, EventType::MessageNew), event(7, kind)], Instant::now());
        assert_eq!(head(&known, "a"), None, "{kind:?}");
    }
    let newer = EventType::from_stored("ride:of_a_newer_version").unwrap();
    for (after, page) in
        [(6, [event(7, EventType::MessageNew)]), (5, [event(7, EventType::MessageNew)]), (5, [event(6, newer)])]
    {
        let known = knowing(&[("a", 5)]);
        known.hear([(&topic, &7)]);
        known.follow(&topic, after, &page, Instant::now());
        assert_eq!(head(&known, "a"), None, "after {after}: {page:?}");
    }
}

#[test]
fn an_event_that_does_not_follow_on_the_one_that_is_known_is_of_another_log() {
    let topic = Topic::ride(&id("a"));
    let next = || event(6, EventType::MessageNew);
    for other in [
        StoredEvent { batch_before: Some(7), ..next() },
        StoredEvent { batch_before: None, ..next() },
        // One of an older version, which does not say so.
        StoredEvent { batch: None, ..next() },
    ] {
        let known = knowing(&[("a", 5)]);
        known.follow(&topic, 5, std::slice::from_ref(&other), Instant::now());
        assert_eq!(head(&known, "a"), None, "{other:?}");
    }
    let known = knowing(&[("a", 5)]);
    known.follow(&topic, 5, &[next()], Instant::now());
    let ledger = take(&known, &["a"]).unwrap();
    assert_eq!(ledger.judged_at(&topic), Some(6));
}

#[test]
fn without_the_databases_clock_nothing_is_known() {
    let known = Known::default();
    known.learn(&mut ledger(&[("a", 1)]), Instant::now());
    assert_eq!(head(&known, "a"), None);
    known.set_clock(Time::now());
    assert_eq!(head(&known, "a"), Some(1));
}

#[test]
fn what_was_committed_before_everything_was_forgotten_is_not_learnt() {
    let known = knowing(&[("a", 1)]);
    let before = Instant::now();
    known.forget();
    known.set_clock(Time::now());
    known.learn(&mut ledger(&[("a", 2)]), before);
    assert_eq!(head(&known, "a"), None);
    known.learn(&mut ledger(&[("a", 1)]), Instant::now());
    known.follow(&Topic::ride(&id("a")), 1, &[event(2, EventType::MessageNew)], before);
    assert_eq!(head(&known, "a"), Some(1), "nor is it gone along with");
}

#[test]
fn no_event_is_older_than_the_one_before_it() {
    let known = knowing(&[("a", 1)]);
    // The clock that is asked later may be another machine's, after a failover.
    known.set_clock(Time::from_unix_seconds(0).unwrap());
    let last = known.rides().find("a").unwrap().at;
    assert_eq!(take(&known, &["a"]).unwrap().now(), last);
}

#[test]
fn a_ride_whose_state_has_changed_is_loaded_anew() {
    let known = Known::default();
    known.set_clock(Time::now());
    let mut ledger = ledger(&[("a", 1), ("b", 1)]);
    let changed = ledger.ride(&id("a")).unwrap().ride.clone();
    ledger.change_ride(changed).unwrap();
    known.learn(&mut ledger, Instant::now());
    assert_eq!((head(&known, "a"), head(&known, "b")), (None, Some(1)));
}

#[test]
fn what_is_in_vain_again_and_again_is_tried_less_and_less() {
    let known = knowing(&[("a", 1)]);
    let mut spared = Vec::new();
    for _ in 0..8 {
        let mut tries = 0;
        while head(&known, "a").is_none() {
            tries += 1;
        }
        spared.push(tries);
        known.learn(&mut ledger(&[("a", 1)]), Instant::now());
        known.proved(false);
    }
    assert_eq!(spared, [0, 0, 1, 3, 7, 15, 31, 63]);
    for _ in 0..200 {
        let _ = take(&known, &["a"]);
        known.learn(&mut ledger(&[("a", 1)]), Instant::now());
        known.proved(true);
    }
    known.proved(false);
    assert_eq!(head(&known, "a"), Some(1), "what has been right for long is tried again at once");
}

#[test]
fn who_is_not_written_to_is_forgotten_when_others_come() {
    let known = knowing(&[("kept", 1), ("gone", 1)]);
    for generation in 0..2 {
        known.learn(&mut ledger(&[("kept", 1)]), Instant::now());
        let names: Vec<_> = (0..GENERATION).map(|number| format!("{generation}-{number}")).collect();
        let rides: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        known.learn(&mut ledger(&rides), Instant::now());
        known.learn(&mut ledger(&[("kept", 1)]), Instant::now());
    }
    assert_eq!((head(&known, "kept"), head(&known, "gone")), (Some(1), None));
}
