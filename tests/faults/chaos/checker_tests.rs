//! The checker reports nothing for a correct run, and reports each violation that a test adds to it.

use serde_json::json;

use super::checker::check;
use super::journal::{Acknowledged, ClientStart, ConnectionOpened, Entry, Frame, SendStarted, Transport};
use super::participants;

/// Returns the journals of two groups. Each ride has its first event and five messages, of which the third was never
/// acknowledged. Each client was disconnected once.
fn correct_run() -> Vec<Vec<Entry>> {
    (0..2).map(group).collect()
}

fn group(group: usize) -> Vec<Entry> {
    let mut journal = Vec::new();
    let rides = participants::rides(group);
    for (ride, user) in &rides {
        for seq in 2..=6 {
            let (ride, user, name) = (ride.clone(), user.clone(), format!("name-{seq}"));
            let content = content(&ride, seq);
            let (id, sent) = (format!("id of {seq} on {ride}"), (ride.clone(), user.clone(), name.clone()));
            journal.push(Entry::SendStarted(SendStarted { ride, user, name, content }));
            let (ride, user, name) = sent;
            if seq != 4 {
                journal.push(Entry::Acknowledged(Acknowledged { ride, user, name, attempt: 0, status: 201, id, seq }));
            }
        }
    }
    for participants::Client { start, .. } in participants::clients(group) {
        journal.push(Entry::ClientStart(start.clone()));
        let mut frames: Vec<_> = (1..=6).flat_map(|seq| start.rides.iter().map(move |ride| event(ride, seq))).collect();
        if start.transport.is_merged() {
            frames.extend(
                start.rides.iter().map(|ride| {
                    ("ride:assigned".to_owned(), json!({"ride": {"rideId": ride}, "fromSeq": 1}).to_string())
                }),
            );
        }
        let ids = |number: usize| {
            if start.transport.is_merged() { format!("after-{number}") } else { number.to_string() }
        };
        let (mut number, mut from) = (0, None);
        let half = frames.len() / 2;
        for (connection, part) in [(1, &frames[..half]), (2, &frames[half..])] {
            let client = start.client.clone();
            journal.push(Entry::ConnectionOpened(ConnectionOpened {
                client,
                connection,
                from,
                replica: "one".to_owned(),
            }));
            let mut write = |id: Option<String>, event: &str, data: &str| {
                let (client, event, data) = (start.client.clone(), event.to_owned(), data.to_owned());
                journal.push(Entry::Frame(Frame { client, connection, id, event, data }));
            };
            let is_stream = matches!(start.transport, Transport::Stream | Transport::MergedStream);
            let sync = json!({"resumed": true, "gap": null, "state": {"rideId": start.rides[0]}}).to_string();
            if is_stream {
                write(Some(ids(number)), "stream:sync", &sync);
                let presence = json!({"rideId": start.rides[0], "userId": "unknown_client"});
                write(None, "presence:online", &presence.to_string());
            }
            for (kind, data) in part {
                number += 1;
                write(Some(ids(number)), kind, data);
            }
            if !is_stream {
                write(Some(ids(number)), "poll:response", &sync);
            }
            from = Some(ids(number));
        }
    }
    let ClientStart { client, .. } = &participants::outsider(group).start;
    journal.push(Entry::ClientStart(participants::outsider(group).start));
    journal.push(Entry::Denied { client: client.clone(), path: "somewhere".to_owned() });
    let (client, event, data) = (client.clone(), "probe:response".to_owned(), "{\"status\": 503}".to_owned());
    journal.push(Entry::Frame(Frame { client, connection: 1, id: None, event, data }));
    journal
}

fn content(ride: &str, seq: i64) -> String {
    format!("number {seq} on {ride}")
}

fn event(ride: &str, seq: i64) -> (String, String) {
    if seq == 1 {
        return ("ride:participants".to_owned(), json!({"ride": {"rideId": ride}}).to_string());
    }
    let user = participants::rides(0).into_iter().chain(participants::rides(1)).find(|(of, _)| of == ride).unwrap().1;
    let id = format!("id of {seq} on {ride}");
    let data = json!({"id": id, "rideId": ride, "seq": seq, "senderId": user,
        "clientMessageId": format!("name-{seq}"), "content": content(ride, seq)});
    ("message:new".to_owned(), data.to_string())
}

/// The journal of the first group.
type Entries = Vec<Entry>;

fn problems(corrupt: impl FnOnce(&mut Entries)) -> Vec<String> {
    let mut correct_run = correct_run();
    corrupt(&mut correct_run[0]);
    check(&correct_run).problems
}

#[track_caller]
fn detects_one(what: &str, corrupt: impl FnOnce(&mut Entries)) {
    let problems = problems(corrupt);
    assert!(problems.len() == 1 && problems[0].contains(what), "{what}: {problems:#?}");
}

#[track_caller]
fn detects(what: &str, corrupt: impl FnOnce(&mut Entries)) {
    let problems = problems(corrupt);
    assert!(problems.iter().any(|problem| problem.contains(what)), "{what}: {problems:#?}");
}

/// Returns the index of the entry in which a client recorded this event.
fn index_of(journal: &Entries, client: &str, ride: &str, seq: i64) -> usize {
    let (_, wanted) = event(ride, seq);
    let is_it = |entry: &Entry| matches!(entry, Entry::Frame(frame) if frame.client == client && frame.data == wanted);
    journal.iter().position(is_it).unwrap()
}

fn frame_of<'a>(journal: &'a mut Entries, client: &str, ride: &str, seq: i64) -> &'a mut Frame {
    let index = index_of(journal, client, ride, seq);
    let Entry::Frame(frame) = &mut journal[index] else { unreachable!() };
    frame
}

fn sent_of<'a>(journal: &'a mut Entries, ride: &str, seq: i64) -> &'a mut Acknowledged {
    let is_it = |entry: &&mut Entry| matches!(entry, Entry::Acknowledged(sent) if sent.ride == ride && sent.seq == seq);
    let Some(Entry::Acknowledged(sent)) = journal.iter_mut().find(is_it) else { unreachable!() };
    sent
}

/// A client of each transport and one of its rides.
const EACH: [(&str, &str); 4] = [
    ("ann_0-Stream", "ride.0a"),
    ("ann_0-Poll", "ride.0a"),
    ("bob_0-MergedStream", "ride.0b"),
    ("dora_0-MergedPoll", "ride.0c"),
];

#[test]
fn a_correct_run_has_no_violations() {
    let report = check(&correct_run());
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!((report.clients, report.connections, report.denied), (20, 40, 2));
    assert_eq!((report.acknowledged, report.repeated), (2 * 3 * 4, 0));
    // Each ride has six events. The merged readers also get assignments: three clients for one ride, two for three rides.
    assert_eq!(report.events, 2 * (6 * (5 + 3 + 2 * 3) + 3 + 2 * 3));
}

#[test]
fn a_lost_event_is_detected() {
    for (client, ride) in EACH {
        detects_one(&format!("{client} lost 5 of {ride}"), |journal| {
            journal.remove(index_of(journal, client, ride, 5));
        });
        detects_one(&format!("{client} lost the events after 5, up to 6 of {ride}"), |journal| {
            // The last id is the cursor of the next connection, so its entry stays in the journal.
            let frame = frame_of(journal, client, ride, 6);
            frame.event = "stream:sync".to_owned();
            frame.data = json!({"resumed": true, "gap": null}).to_string();
        });
    }
    detects_one("dora_0-MergedStream was assigned [\"ride.0a\", \"ride.0c\"]", |journal| {
        journal.retain(|entry| {
            !matches!(entry, Entry::Frame(frame) if frame.client == "dora_0-MergedStream"
                && frame.event == "ride:assigned" && frame.data.contains("ride.0b"))
        });
    });
}

#[test]
fn an_event_lost_by_every_reader_is_detected() {
    let lose = |journal: &mut Entries, seq: i64| {
        let (_, lost) = event("ride.0a", seq);
        journal.retain(|entry| !matches!(entry, Entry::Frame(frame) if frame.data == lost));
    };
    detects("name-5 was acknowledged as id of 5 on ride.0a, 5 of ride.0a, which is None", |journal| lose(journal, 5));
    detects("name-6 was acknowledged as id of 6 on ride.0a, 6 of ride.0a, which is None", |journal| lose(journal, 6));
    // A hole is a violation whether or not the message was acknowledged.
    detects("ann_0-Stream lost 4 of ride.0a", |journal| lose(journal, 4));
}

#[test]
fn a_repeated_event_is_detected() {
    for (client, ride) in EACH {
        // On the same connection and on the next one.
        for (seq, later) in [(2, 1), (2, 4)] {
            detects(&format!("{client} got {seq} a second time of {ride}"), |journal| {
                let repeated = journal[index_of(journal, client, ride, seq)].clone();
                let index = index_of(journal, client, ride, seq + later);
                journal.insert(index, repeated);
            });
        }
    }
    detects("was assigned [\"ride.0a\", \"ride.0a\"]", |journal| {
        let is_it = |entry: &Entry| matches!(entry, Entry::Frame(frame) if frame.event == "ride:assigned");
        let index = journal.iter().position(is_it).unwrap();
        journal.insert(index, journal[index].clone());
    });
}

#[test]
fn a_duplicate_message_is_detected() {
    // Acknowledged and not acknowledged.
    for seq in [5, 4] {
        detects_one(&format!("name-{seq} of ann_0 is on ride.0a a second time, as 7"), |journal| {
            let mut repeated = frame_of(journal, "ann_0-Stream", "ride.0a", seq).clone();
            (repeated.id, repeated.connection) = (Some("7".to_owned()), 2);
            repeated.data = repeated.data.replace(&format!("\"seq\":{seq}"), "\"seq\":7");
            journal.push(Entry::Frame(repeated));
        });
    }
}

#[test]
fn a_duplicate_event_is_detected() {
    detects("1 of ride.0a is repeated as 7 of ride.0a", |journal| {
        let mut repeated = frame_of(journal, "ann_0-Stream", "ride.0a", 1).clone();
        (repeated.id, repeated.connection) = (Some("7".to_owned()), 2);
        journal.push(Entry::Frame(repeated));
    });
}

#[test]
fn events_out_of_order_are_detected() {
    for (client, ride) in EACH {
        detects(&format!("{client} got 3 before 2 of {ride}"), |journal| {
            let (one, two) = (index_of(journal, client, ride, 2), index_of(journal, client, ride, 3));
            journal.swap(one, two);
        });
    }
}

#[test]
fn a_leak_is_detected_on_every_transport() {
    for client in ["ann_0-Stream", "ann_0-Poll", "sid_0-MergedStream", "dora_0-MergedPoll", "sid_0-Probe"] {
        for (kind, data) in [
            ("message:new", event("ride.1a", 2).1),
            ("presence:online", json!({"rideId": "ride.1a"}).to_string()),
            ("stream:sync", json!({"resumed": true, "gap": null, "state": {"rides": {"ride.1a": {}}}}).to_string()),
        ] {
            detects_one(&format!("{client} received data of ride.1a, which it may not see"), |journal| {
                let (client, event) = (client.to_owned(), kind.to_owned());
                journal.push(Entry::Frame(Frame { client, connection: 2, id: None, event, data }));
            });
        }
    }
    // Another ride of the same user, on a stream of one ride.
    detects_one("dora_0-Poll received data of ride.0a, which it may not see", |journal| {
        let (client, (event, data)) = ("dora_0-Poll".to_owned(), event("ride.0a", 2));
        journal.push(Entry::Frame(Frame { client, connection: 2, id: None, event, data }));
    });
}

#[test]
fn an_event_that_no_other_reader_has_is_detected_unless_the_others_had_ended() {
    let receipt = |journal: &mut Entries, index: usize| {
        let (client, event) = ("dora_0-MergedStream".to_owned(), "message:delivered".to_owned());
        let data = json!({"rideId": "ride.0b", "seq": 6}).to_string();
        journal.insert(index, Entry::Frame(Frame { client, connection: 2, id: Some("after".to_owned()), event, data }));
    };
    assert_eq!(problems(|journal| receipt(journal, journal.len())), Vec::<String>::new());
    detects_one("dora_0-MergedStream got 7 before 6 of ride.0b", |journal| {
        receipt(journal, index_of(journal, "dora_0-MergedStream", "ride.0b", 6));
    });
    detects_one("dora_0-MergedStream got an event that no other reader has: (\"ride:status\"", |journal| {
        receipt(journal, journal.len());
        let Some(Entry::Frame(frame)) = journal.last_mut() else { unreachable!() };
        frame.event = "ride:status".to_owned();
    });
    detects_one("unknown_client got an event before its start:", |journal| {
        receipt(journal, journal.len());
        let Some(Entry::Frame(frame)) = journal.last_mut() else { unreachable!() };
        frame.client = "unknown_client".to_owned();
    });
    detects("ann_0-Stream got the invalid id Some(\"x\")", |journal| {
        frame_of(journal, "ann_0-Stream", "ride.0a", 6).id = Some("x".to_owned());
    });
}

#[test]
fn wrong_content_is_detected() {
    let corrupt_content = |data: &mut String| *data = data.replace("number", "nonsense");
    detects("others (\"message:new\"", |journal| {
        corrupt_content(&mut frame_of(journal, "ann_0-Poll", "ride.0a", 3).data)
    });
    detects_one("dora_0-MergedPoll got an event that no other reader has", |journal| {
        // The last message, so that no later acknowledged message is missing.
        journal.retain(|entry| !matches!(entry, Entry::Acknowledged(sent) if sent.ride == "ride.0c" && sent.seq == 6));
        corrupt_content(&mut frame_of(journal, "dora_0-MergedPoll", "ride.0c", 6).data);
    });
    detects_one("3 of ride.0a should have the content \"number 3 on ride.0a\"", |journal| {
        let (_, wanted) = event("ride.0a", 3);
        for entry in journal {
            match entry {
                Entry::Frame(frame) if frame.data == wanted => corrupt_content(&mut frame.data),
                _ => {}
            }
        }
    });
    detects_one("4 of ride.0a was never sent", |journal| {
        let is_it =
            |entry: &Entry| matches!(entry, Entry::SendStarted(sending) if sending.content == "number 4 on ride.0a");
        journal.retain(|entry| !is_it(entry));
    });
}

#[test]
fn a_wrong_acknowledgement_is_detected() {
    detects_one("name-3 was acknowledged as id of 3 on ride.0a, 2 of ride.0a", |journal| {
        sent_of(journal, "ride.0a", 3).seq = 2;
    });
    detects_one("name-3 was acknowledged as another, 3 of ride.0a", |journal| {
        sent_of(journal, "ride.0a", 3).id = "another".to_owned();
    });
    detects_one("name-3 was acknowledged as (\"id of 3 on ride.0a\", 3) and as (\"another\", 3)", |journal| {
        let repeated = Acknowledged {
            attempt: 1,
            status: 200,
            id: "another".to_owned(),
            ..sent_of(journal, "ride.0a", 3).clone()
        };
        journal.push(Entry::Acknowledged(repeated));
    });
    detects_one("name-3 got 200 for its first attempt", |journal| {
        sent_of(journal, "ride.0a", 3).status = 200;
    });
    assert_eq!(
        problems(|journal| {
            let repeated = Acknowledged { attempt: 1, status: 200, ..sent_of(journal, "ride.0a", 3).clone() };
            journal.push(Entry::Acknowledged(repeated));
        }),
        Vec::<String>::new()
    );
}

#[test]
fn a_cursor_that_was_not_resumed_is_detected() {
    let sync_of = |journal: &mut Entries, client: &str, event: &str, change: &dyn Fn(&mut Frame)| {
        let is_it = |entry: &&mut Entry| matches!(entry, Entry::Frame(frame) if frame.client == client && frame.event == event && frame.connection == 2);
        let Some(Entry::Frame(frame)) = journal.iter_mut().find(is_it) else { unreachable!() };
        change(frame);
    };
    for (client, event) in [("ann_0-Stream", "stream:sync"), ("dora_0-MergedPoll", "poll:response")] {
        detects_one(&format!("{client} did not resume"), |journal| {
            sync_of(journal, client, event, &|frame| frame.data = frame.data.replace("true", "false"));
        });
        detects_one(&format!("{client} did not resume"), |journal| {
            let gap = "{\"from\":1,\"to\":2}";
            sync_of(journal, client, event, &|frame| frame.data = frame.data.replace("null", gap));
        });
    }
    detects_one("ann_0-Stream did not resume", |journal| {
        sync_of(journal, "ann_0-Stream", "stream:sync", &|frame| frame.event = "stream:other".to_owned());
    });
    detects_one("ann_0-Stream opens 2 from Some(\"0\") after Some(\"3\")", |journal| {
        for entry in journal {
            match entry {
                Entry::ConnectionOpened(opened) if opened.client == "ann_0-Stream" && opened.connection == 2 => {
                    opened.from = Some("0".to_owned());
                }
                _ => {}
            }
        }
    });
    detects_one("bob_0-Poll: is unhappy", |journal| {
        journal.push(Entry::Violation { client: "bob_0-Poll".to_owned(), what: "is unhappy".to_owned() });
    });
}
