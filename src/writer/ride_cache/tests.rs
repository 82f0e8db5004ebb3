//! Tests of the ride cache: check-out, update, invalidation, eviction and back-off.

use super::*;
use crate::domain::{EventType, LocalShard, Receipts, Ride, Status, UserId};

const RULES: BatchRules = BatchRules { chat_grace: Duration::from_secs(60), shard: LocalShard::ONLY };

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
        closing_times: None,
        closed_at: None,
        closed_seq: None,
        created_at: Time::now(),
        updated_at: Time::now(),
    };
    let read_at = ride.created_at;
    let (participants, receipts) = (Vec::new(), Receipts::default());
    RideSnapshot { head, ride, participants, receipts, location: None, read_at, last_batch: 0 }
}

/// Each event is of a batch of its own, whose id is the event's seq.
fn state(rides: &[(&str, Seq)]) -> BatchState {
    let rides = rides.iter().map(|(name, head)| (snapshot(name, *head), *head));
    BatchState::new(Time::now(), RULES, rides, [], HashMap::new())
}

fn event(seq: Seq, kind: EventType) -> StoredEvent {
    let (batch, batch_before) = (Some(seq), Some(seq - 1));
    StoredEvent { seq, kind, data: "{}".to_owned(), trace: None, at: Time::now(), batch, batch_before }
}

fn check_out(cache: &RideCache, names: &[&str]) -> Option<BatchState> {
    let rides: Vec<_> = names.iter().map(|name| id(name)).collect();
    cache.check_out(&rides, RULES)
}

fn cache_of(rides: &[(&str, Seq)]) -> RideCache {
    let cache = RideCache::default();
    cache.set_clock(Time::now());
    cache.update(&mut state(rides), Instant::now());
    cache
}

fn head(cache: &RideCache, name: &str) -> Option<Seq> {
    check_out(cache, &[name]).map(|state| state.ride(&id(name)).unwrap().head)
}

#[test]
fn rides_that_are_checked_out_are_not_cached() {
    let cache = cache_of(&[("a", 1), ("b", 2), ("d", 3)]);
    assert!(check_out(&cache, &["c"]).is_none());
    let some = check_out(&cache, &["a", "b", "c", "a"]).unwrap();
    assert_eq!((some.ride(&id("a")).unwrap().head, some.ride(&id("b")).unwrap().head), (1, 2));
    assert!(some.find_ride(&id("c")).is_none());
    assert_eq!((head(&cache, "a"), head(&cache, "d")), (None, Some(3)), "the first is checked out");
}

#[test]
fn a_stale_ride_is_not_checked_out() {
    let cache = cache_of(&[("a", 5), ("b", 5), ("c", 5)]);
    let heads = [("a", 4), ("b", 5), ("c", 6)].map(|(name, head)| (Topic::ride(&id(name)), head));
    cache.mark_stale(heads.iter().map(|(topic, head)| (topic, head)));
    assert_eq!((head(&cache, "a"), head(&cache, "b"), head(&cache, "c")), (Some(5), Some(5), None));
}

#[test]
fn events_of_other_replicas_move_the_head() {
    let cache = cache_of(&[("a", 5)]);
    let topic = Topic::ride(&id("a"));
    cache.mark_stale([(&topic, &8)]);
    assert_eq!(head(&cache, "a"), None);
    // A page that begins before the cached head, then the rest.
    cache.apply_events(&topic, 3, &[4, 5, 6].map(|seq| event(seq, EventType::MessageNew)), Instant::now());
    assert_eq!(head(&cache, "a"), None, "there is more");
    let last = Time::now().plus(Duration::from_secs(30));
    let read = StoredEvent { at: last, ..event(8, EventType::MessageRead) };
    cache.apply_events(&topic, 6, &[event(7, EventType::MessageReaction), read], Instant::now());
    let state = check_out(&cache, &["a"]).unwrap();
    assert_eq!(state.ride(&id("a")).unwrap().head, 8);
    assert_eq!(state.now(), last, "the next event is not older");
}

#[test]
fn a_ride_that_others_may_have_changed_is_removed() {
    let topic = Topic::ride(&id("a"));
    for kind in [EventType::RideAccept, EventType::RideCancel, EventType::RideStatus, EventType::RideParticipants] {
        let cache = cache_of(&[("a", 5)]);
        cache.apply_events(&topic, 5, &[event(6, EventType::MessageNew), event(7, kind)], Instant::now());
        assert_eq!(head(&cache, "a"), None, "{kind:?}");
    }
    let newer = EventType::from_stored("ride:of_a_newer_version").unwrap();
    for (after, page) in
        [(6, [event(7, EventType::MessageNew)]), (5, [event(7, EventType::MessageNew)]), (5, [event(6, newer)])]
    {
        let cache = cache_of(&[("a", 5)]);
        cache.mark_stale([(&topic, &7)]);
        cache.apply_events(&topic, after, &page, Instant::now());
        assert_eq!(head(&cache, "a"), None, "after {after}: {page:?}");
    }
}

#[test]
fn an_event_that_does_not_follow_the_cached_one_removes_the_ride() {
    let topic = Topic::ride(&id("a"));
    let next = || event(6, EventType::MessageNew);
    for other in [
        StoredEvent { batch_before: Some(7), ..next() },
        StoredEvent { batch_before: None, ..next() },
        // An event of an older version, without its batch.
        StoredEvent { batch: None, ..next() },
    ] {
        let cache = cache_of(&[("a", 5)]);
        cache.apply_events(&topic, 5, std::slice::from_ref(&other), Instant::now());
        assert_eq!(head(&cache, "a"), None, "{other:?}");
    }
    let cache = cache_of(&[("a", 5)]);
    cache.apply_events(&topic, 5, &[next()], Instant::now());
    let state = check_out(&cache, &["a"]).unwrap();
    assert_eq!(state.expected_batch(&topic), Some(6));
}

#[test]
fn without_the_databases_clock_nothing_is_checked_out() {
    let cache = RideCache::default();
    cache.update(&mut state(&[("a", 1)]), Instant::now());
    assert_eq!(head(&cache, "a"), None);
    cache.set_clock(Time::now());
    assert_eq!(head(&cache, "a"), Some(1));
}

#[test]
fn updates_from_before_a_clear_are_ignored() {
    let cache = cache_of(&[("a", 1)]);
    let before = Instant::now();
    cache.clear();
    cache.set_clock(Time::now());
    cache.update(&mut state(&[("a", 2)]), before);
    assert_eq!(head(&cache, "a"), None);
    cache.update(&mut state(&[("a", 1)]), Instant::now());
    cache.apply_events(&Topic::ride(&id("a")), 1, &[event(2, EventType::MessageNew)], before);
    assert_eq!(head(&cache, "a"), Some(1), "nor are events that were read before applied");
}

#[test]
fn the_time_of_a_batch_is_not_before_the_last_event() {
    let cache = cache_of(&[("a", 1)]);
    // After a failover, the clock may be that of another machine.
    cache.set_clock(Time::from_unix_seconds(0).unwrap());
    let last = cache.rides().find("a").unwrap().at;
    assert_eq!(check_out(&cache, &["a"]).unwrap().now(), last);
}

#[test]
fn a_ride_whose_state_has_changed_is_not_cached() {
    let cache = RideCache::default();
    cache.set_clock(Time::now());
    let mut state = state(&[("a", 1), ("b", 1)]);
    let changed = state.ride(&id("a")).unwrap().ride.clone();
    state.change_ride(changed).unwrap();
    cache.update(&mut state, Instant::now());
    assert_eq!((head(&cache, "a"), head(&cache, "b")), (None, Some(1)));
}

#[test]
fn conflicts_in_a_row_back_off() {
    let cache = cache_of(&[("a", 1)]);
    let mut skipped = Vec::new();
    for _ in 0..8 {
        let mut attempts = 0;
        while head(&cache, "a").is_none() {
            attempts += 1;
        }
        skipped.push(attempts);
        cache.update(&mut state(&[("a", 1)]), Instant::now());
        cache.record_outcome(false);
    }
    assert_eq!(skipped, [0, 0, 1, 3, 7, 15, 31, 63]);
    for _ in 0..200 {
        let _ = check_out(&cache, &["a"]);
        cache.update(&mut state(&[("a", 1)]), Instant::now());
        cache.record_outcome(true);
    }
    cache.record_outcome(false);
    assert_eq!(head(&cache, "a"), Some(1), "after many successes there is no back-off");
}

#[test]
fn rides_without_writes_are_evicted() {
    let cache = cache_of(&[("kept", 1), ("gone", 1)]);
    for generation in 0..2 {
        cache.update(&mut state(&[("kept", 1)]), Instant::now());
        let names: Vec<_> = (0..GENERATION).map(|number| format!("{generation}-{number}")).collect();
        let rides: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        cache.update(&mut state(&rides), Instant::now());
        cache.update(&mut state(&[("kept", 1)]), Instant::now());
    }
    assert_eq!((head(&cache, "kept"), head(&cache, "gone")), (Some(1), None));
}
