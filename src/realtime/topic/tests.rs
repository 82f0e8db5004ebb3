//! Which events a topic keeps, and when it drops them.

use super::*;
use crate::domain::{EventType, RideId, UserId};

fn topic() -> TopicState {
    TopicState::new(Topic::ride(&RideId::parse("ride").unwrap()))
}

fn events(seqs: impl IntoIterator<Item = Seq>) -> Vec<Event> {
    seqs.into_iter().map(|seq| Event::new(seq, EventType::MessageNew, "{}")).collect()
}

fn fill(topic: &TopicState, after: Seq, page: Vec<Event>) -> bool {
    let up_to = topic.ring().wanted;
    topic.fill(Missing { after, up_to, generation: 0 }, page)
}

fn after(topic: &TopicState, cursor: Seq) -> Option<Vec<Seq>> {
    topic.after(cursor, 1_000).map(|events| events.iter().map(|event| event.seq).collect())
}

#[test]
fn a_hint_before_after_or_instead_of_the_local_publish_delivers_each_event_once() {
    let orders: [&[&str]; 4] = [&["hint", "publish"], &["publish", "hint"], &["hint"], &["publish"]];
    for order in orders {
        let topic = topic();
        assert!(!topic.observe(10));
        for action in order {
            let missing = match *action {
                "hint" => topic.hint(11),
                _ => topic.publish(events([11])),
            };
            if missing {
                // The page that the loader read may arrive before or after the publish.
                assert!(!fill(&topic, 10, events([11])));
            }
        }
        assert_eq!(after(&topic, 10), Some(vec![11]), "{order:?}");
        assert_eq!(topic.watch().borrow().seq, 11);
    }
}

#[test]
fn the_head_waits_for_missing_events() {
    let topic = topic();
    topic.observe(10);
    assert!(topic.publish(events([13])), "11 and 12 were committed on another replica and are missing");
    assert_eq!(topic.watch().borrow().seq, 10);
    assert!(fill(&topic, 10, events([11])), "the page ended before 13");
    assert_eq!(topic.watch().borrow().seq, 11);
    assert!(!fill(&topic, 11, events([12, 13])));
    assert_eq!(after(&topic, 10), Some(vec![11, 12, 13]));
    assert_eq!(after(&topic, 9), None, "10 is only in the log");
}

#[test]
fn an_event_that_arrives_before_the_first_reader_has_the_head_is_not_lost() {
    // A hint arrives between a reader's registration and its read of the database, which returned an older head.
    let topic = topic();
    assert!(!topic.hint(11));
    assert!(topic.observe(10), "11 is missing, and known to be");
    assert!(!fill(&topic, 10, events([11])));
    assert_eq!(after(&topic, 10), Some(vec![11]));
    // The same with a publish.
    let topic = self::topic();
    assert!(!topic.publish(events([11])));
    assert!(!topic.observe(10));
    assert_eq!(after(&topic, 10), Some(vec![11]));
}

#[test]
fn a_late_page_repeats_no_event() {
    let topic = topic();
    topic.observe(10);
    topic.publish(events([11, 12]));
    assert!(!fill(&topic, 10, events([11, 12])));
    assert!(!fill(&topic, 10, Vec::new()));
    assert_eq!(after(&topic, 10), Some(vec![11, 12]));
    // An empty page, because no event was missing when it was requested, and a hint since then.
    assert!(topic.hint(13));
    assert!(topic.fill(Missing { after: 12, up_to: 12, generation: 0 }, Vec::new()), "13 is missing, not gone");
    assert_eq!(topic.watch().borrow().seq, 12);
}

#[test]
fn a_deletion_empties_the_ring_of_earlier_events() {
    let topic = topic();
    topic.observe(0);
    topic.publish(events([1, 2]));
    topic.publish(vec![Event::new(3, EventType::MessageDeleted, "{}")]);
    assert_eq!(after(&topic, 0), None);
    assert_eq!(after(&topic, 2), Some(vec![3]));
}

#[test]
fn a_gap_in_the_log_does_not_block_readers() {
    let topic = topic();
    topic.observe(10);
    assert!(topic.hint(30));
    assert!(!fill(&topic, 10, events(21..=30)), "11 to 20 are deleted");
    assert_eq!(topic.watch().borrow().seq, 30);
    assert_eq!(after(&topic, 10), None, "a reader finds the gap in the log");
    assert!(topic.hint(40));
    assert!(!fill(&topic, 30, Vec::new()), "all are deleted");
    assert_eq!(topic.watch().borrow().seq, 40);
}

#[test]
fn a_wrong_hint_is_retracted() {
    let topic = topic();
    topic.observe(10);
    assert!(topic.hint(1_000));
    let missing = topic.missing().unwrap();
    topic.retract_hint(missing);
    assert_eq!(topic.missing(), None);
    assert!(!topic.publish(events([11])));
    assert_eq!(after(&topic, 10), Some(vec![11]));
    // A hint that arrives before the retraction stays.
    assert!(topic.hint(12));
    let missing = topic.missing().unwrap();
    assert!(topic.hint(13));
    topic.retract_hint(missing);
    assert!(!fill(&topic, 11, events([12, 13])));
    assert_eq!(after(&topic, 11), Some(vec![12, 13]));
}

#[test]
fn a_state_update_makes_the_hub_load_the_log_up_to_it_and_then_wakes_readers() {
    let topic = topic();
    topic.observe(10);
    let (kind, user) = (EventType::RideLocation, UserId::parse("driver").unwrap());
    let update = StateUpdate { topic: topic.name.clone(), kind, user, version: 1, seq: 12, data: "{}".to_owned() };
    assert!(topic.offer(&update), "11 and 12 are missing, although no hint has arrived");
    assert!(!topic.offer(&update), "the same update again");
    assert_eq!(topic.updates_since(0, 10).0.len(), 0);
    let mut head = topic.watch();
    assert!(!fill(&topic, 10, events([11, 12])));
    assert!(head.has_changed().unwrap() && head.borrow_and_update().seq == 12);
    assert_eq!(topic.updates_since(0, 12).0.len(), 1);
    // An update that names a seq which the log does not have is dropped with its hint.
    assert!(topic.offer(&StateUpdate { version: 2, seq: 99, ..update }));
    topic.retract_hint(topic.missing().unwrap());
    assert_eq!((topic.missing(), topic.version(StateKind::Location)), (None, 1));
}

#[test]
fn the_ring_is_bounded_in_events_and_bytes() {
    let topic = topic();
    topic.observe(0);
    topic.publish(events(1..=1_000));
    assert_eq!(after(&topic, 1_000 - RING_EVENTS as Seq).unwrap().len(), RING_EVENTS);
    assert_eq!(after(&topic, 1_000 - RING_EVENTS as Seq - 1), None);
    let big = "x".repeat(RING_BYTES / 2);
    topic.publish((1_001..=1_010).map(|seq| Event::new(seq, EventType::MessageNew, &big)).collect());
    assert_eq!(after(&topic, 1_009), Some(vec![1_010]));
    assert_eq!(after(&topic, 1_008), None);
}

#[test]
fn a_page_that_was_read_before_an_erasure_is_not_accepted_after_it() {
    let topic = topic();
    topic.observe(0);
    topic.publish(events([1, 2]));
    assert!(topic.hint(4));
    let before = topic.missing().unwrap();
    topic.drop_events();
    assert_eq!(after(&topic, 0), None);
    assert!(topic.fill(before, events([3, 4])), "3 and 4 are still missing");
    assert_eq!(after(&topic, 2), None);
    assert!(!topic.fill(topic.missing().unwrap(), events([3, 4])));
    assert_eq!(after(&topic, 2), Some(vec![3, 4]));
}
