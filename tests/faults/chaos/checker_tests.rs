//! The checker finds nothing in a good run, and each thing that is put into it.

use serde_json::json;

use super::checker::check;
use super::journal::{Begun, Entry, Frame, Opened, Sending, Sent, Transport};
use super::people;

/// Two groups, as they would have written it: on each ride its beginning and five messages, the third of which nobody
/// has acknowledged; everybody was cut off once.
fn world() -> Vec<Vec<Entry>> {
    (0..2).map(group).collect()
}

fn group(group: usize) -> Vec<Entry> {
    let mut journal = Vec::new();
    let rides = people::rides(group);
    for (ride, user) in &rides {
        for seq in 2..=6 {
            let (ride, user, name) = (ride.clone(), user.clone(), format!("name-{seq}"));
            let content = content(&ride, seq);
            let (id, sent) = (format!("id of {seq} on {ride}"), (ride.clone(), user.clone(), name.clone()));
            journal.push(Entry::Sending(Sending { ride, user, name, content }));
            let (ride, user, name) = sent;
            if seq != 4 {
                journal.push(Entry::Sent(Sent { ride, user, name, attempt: 0, status: 201, id, seq }));
            }
        }
    }
    for people::Client { begun, .. } in people::clients(group) {
        journal.push(Entry::Begun(begun.clone()));
        let mut frames: Vec<_> = (1..=6).flat_map(|seq| begun.rides.iter().map(move |ride| event(ride, seq))).collect();
        if begun.transport.is_merged() {
            frames.extend(
                begun.rides.iter().map(|ride| {
                    ("ride:assigned".to_owned(), json!({"ride": {"rideId": ride}, "fromSeq": 1}).to_string())
                }),
            );
        }
        let ids = |number: usize| {
            if begun.transport.is_merged() { format!("after-{number}") } else { number.to_string() }
        };
        let (mut number, mut from) = (0, None);
        let half = frames.len() / 2;
        for (connection, part) in [(1, &frames[..half]), (2, &frames[half..])] {
            let client = begun.client.clone();
            journal.push(Entry::Opened(Opened { client, connection, from, replica: "one".to_owned() }));
            let mut write = |id: Option<String>, event: &str, data: &str| {
                let (client, event, data) = (begun.client.clone(), event.to_owned(), data.to_owned());
                journal.push(Entry::Frame(Frame { client, connection, id, event, data }));
            };
            let is_stream = matches!(begun.transport, Transport::Stream | Transport::MergedStream);
            let sync = json!({"resumed": true, "gap": null, "state": {"rideId": begun.rides[0]}}).to_string();
            if is_stream {
                write(Some(ids(number)), "stream:sync", &sync);
                let presence = json!({"rideId": begun.rides[0], "userId": "somebody"});
                write(None, "presence:online", &presence.to_string());
            }
            for (kind, data) in part {
                number += 1;
                write(Some(ids(number)), kind, data);
            }
            if !is_stream {
                write(Some(ids(number)), "poll:answer", &sync);
            }
            from = Some(ids(number));
        }
    }
    let Begun { client, .. } = &people::stranger(group).begun;
    journal.push(Entry::Begun(people::stranger(group).begun));
    journal.push(Entry::Denied { client: client.clone(), path: "somewhere".to_owned() });
    let (client, event, data) = (client.clone(), "pried".to_owned(), "{\"status\": 503}".to_owned());
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
    let user = people::rides(0).into_iter().chain(people::rides(1)).find(|(of, _)| of == ride).unwrap().1;
    let id = format!("id of {seq} on {ride}");
    let data = json!({"id": id, "rideId": ride, "seq": seq, "senderId": user,
        "clientMessageId": format!("name-{seq}"), "content": content(ride, seq)});
    ("message:new".to_owned(), data.to_string())
}

/// The first group's journal.
type Entries = Vec<Entry>;

fn problems(spoil: impl FnOnce(&mut Entries)) -> Vec<String> {
    let mut world = world();
    spoil(&mut world[0]);
    check(&world).problems
}

#[track_caller]
fn found_one(what: &str, spoil: impl FnOnce(&mut Entries)) {
    let problems = problems(spoil);
    assert!(problems.len() == 1 && problems[0].contains(what), "{what}: {problems:#?}");
}

#[track_caller]
fn found(what: &str, spoil: impl FnOnce(&mut Entries)) {
    let problems = problems(spoil);
    assert!(problems.iter().any(|problem| problem.contains(what)), "{what}: {problems:#?}");
}

/// Where a client wrote this event of this ride.
fn place_of(journal: &Entries, client: &str, ride: &str, seq: i64) -> usize {
    let (_, wanted) = event(ride, seq);
    let is_it = |entry: &Entry| matches!(entry, Entry::Frame(frame) if frame.client == client && frame.data == wanted);
    journal.iter().position(is_it).unwrap()
}

fn frame_of<'a>(journal: &'a mut Entries, client: &str, ride: &str, seq: i64) -> &'a mut Frame {
    let place = place_of(journal, client, ride, seq);
    let Entry::Frame(frame) = &mut journal[place] else { unreachable!() };
    frame
}

fn sent_of<'a>(journal: &'a mut Entries, ride: &str, seq: i64) -> &'a mut Sent {
    let is_it = |entry: &&mut Entry| matches!(entry, Entry::Sent(sent) if sent.ride == ride && sent.seq == seq);
    let Some(Entry::Sent(sent)) = journal.iter_mut().find(is_it) else { unreachable!() };
    sent
}

/// A client of each transport, and a ride of its.
const EACH: [(&str, &str); 4] = [
    ("ann_0-Stream", "ride.0a"),
    ("ann_0-Poll", "ride.0a"),
    ("bob_0-MergedStream", "ride.0b"),
    ("dora_0-MergedPoll", "ride.0c"),
];

#[test]
fn nothing_is_wrong_with_a_good_run() {
    let verdict = check(&world());
    assert_eq!(verdict.problems, Vec::<String>::new());
    assert_eq!((verdict.clients, verdict.connections, verdict.denied), (20, 40, 2));
    assert_eq!((verdict.acknowledged, verdict.again), (2 * 3 * 4, 0));
    // Six a ride; and of everything the assignments: three clients with one ride each, two with all three.
    assert_eq!(verdict.events, 2 * (6 * (5 + 3 + 2 * 3) + 3 + 2 * 3));
}

#[test]
fn a_loss_is_found() {
    for (client, ride) in EACH {
        found_one(&format!("{client} lost 5 of {ride}"), |journal| {
            journal.remove(place_of(journal, client, ride, 5));
        });
        found_one(&format!("{client} lost what follows 5, up to 6 of {ride}"), |journal| {
            // What comes last is where the next connection would continue, so the place in its journal stays.
            let frame = frame_of(journal, client, ride, 6);
            frame.event = "stream:sync".to_owned();
            frame.data = json!({"resumed": true, "gap": null}).to_string();
        });
    }
    found_one("dora_0-MergedStream was told to have [\"ride.0a\", \"ride.0c\"]", |journal| {
        journal.retain(|entry| {
            !matches!(entry, Entry::Frame(frame) if frame.client == "dora_0-MergedStream"
                && frame.event == "ride:assigned" && frame.data.contains("ride.0b"))
        });
    });
}

#[test]
fn a_loss_that_all_share_is_found() {
    let lose = |journal: &mut Entries, seq: i64| {
        let (_, lost) = event("ride.0a", seq);
        journal.retain(|entry| !matches!(entry, Entry::Frame(frame) if frame.data == lost));
    };
    found("name-5 was acknowledged as id of 5 on ride.0a, 5 of ride.0a, which is None", |journal| lose(journal, 5));
    found("name-6 was acknowledged as id of 6 on ride.0a, 6 of ride.0a, which is None", |journal| lose(journal, 6));
    // Acknowledged or not: there are no holes.
    found("ann_0-Stream lost 4 of ride.0a", |journal| lose(journal, 4));
}

#[test]
fn a_repeat_is_found() {
    for (client, ride) in EACH {
        // On the same connection, and on the next.
        for (seq, later) in [(2, 1), (2, 4)] {
            found(&format!("{client} got {seq} again of {ride}"), |journal| {
                let again = journal[place_of(journal, client, ride, seq)].clone();
                let place = place_of(journal, client, ride, seq + later);
                journal.insert(place, again);
            });
        }
    }
    found("was told to have [\"ride.0a\", \"ride.0a\"]", |journal| {
        let is_it = |entry: &Entry| matches!(entry, Entry::Frame(frame) if frame.event == "ride:assigned");
        let place = journal.iter().position(is_it).unwrap();
        journal.insert(place, journal[place].clone());
    });
}

#[test]
fn a_message_that_is_there_twice_is_found() {
    // Acknowledged, or not.
    for seq in [5, 4] {
        found_one(&format!("name-{seq} of ann_0 is on ride.0a again, as 7"), |journal| {
            let mut again = frame_of(journal, "ann_0-Stream", "ride.0a", seq).clone();
            (again.id, again.connection) = (Some("7".to_owned()), 2);
            again.data = again.data.replace(&format!("\"seq\":{seq}"), "\"seq\":7");
            journal.push(Entry::Frame(again));
        });
    }
}

#[test]
fn an_event_that_is_there_twice_is_found() {
    found("1 of ride.0a is 7 of ride.0a again", |journal| {
        let mut again = frame_of(journal, "ann_0-Stream", "ride.0a", 1).clone();
        (again.id, again.connection) = (Some("7".to_owned()), 2);
        journal.push(Entry::Frame(again));
    });
}

#[test]
fn a_swap_is_found() {
    for (client, ride) in EACH {
        found(&format!("{client} got 3 before 2 of {ride}"), |journal| {
            let (one, two) = (place_of(journal, client, ride, 2), place_of(journal, client, ride, 3));
            journal.swap(one, two);
        });
    }
}

#[test]
fn a_leak_is_found_wherever_it_is() {
    for client in ["ann_0-Stream", "ann_0-Poll", "sid_0-MergedStream", "dora_0-MergedPoll", "sid_0-Pry"] {
        for (kind, data) in [
            ("message:new", event("ride.1a", 2).1),
            ("presence:online", json!({"rideId": "ride.1a"}).to_string()),
            ("stream:sync", json!({"resumed": true, "gap": null, "state": {"rides": {"ride.1a": {}}}}).to_string()),
        ] {
            found_one(&format!("{client} was told of ride.1a, which is not theirs"), |journal| {
                let (client, event) = (client.to_owned(), kind.to_owned());
                journal.push(Entry::Frame(Frame { client, connection: 2, id: None, event, data }));
            });
        }
    }
    // A ride of the same user, on the stream of another.
    found_one("dora_0-Poll was told of ride.0a, which is not theirs", |journal| {
        let (client, (event, data)) = ("dora_0-Poll".to_owned(), event("ride.0a", 2));
        journal.push(Entry::Frame(Frame { client, connection: 2, id: None, event, data }));
    });
}

#[test]
fn what_nobody_else_has_is_found_unless_the_others_had_ended() {
    let receipt = |journal: &mut Entries, place: usize| {
        let (client, event) = ("dora_0-MergedStream".to_owned(), "message:delivered".to_owned());
        let data = json!({"rideId": "ride.0b", "seq": 6}).to_string();
        journal.insert(place, Entry::Frame(Frame { client, connection: 2, id: Some("after".to_owned()), event, data }));
    };
    assert_eq!(problems(|journal| receipt(journal, journal.len())), Vec::<String>::new());
    found_one("dora_0-MergedStream got 7 before 6 of ride.0b", |journal| {
        receipt(journal, place_of(journal, "dora_0-MergedStream", "ride.0b", 6));
    });
    found_one("dora_0-MergedStream got what nobody else has: (\"ride:status\"", |journal| {
        receipt(journal, journal.len());
        let Some(Entry::Frame(frame)) = journal.last_mut() else { unreachable!() };
        frame.event = "ride:status".to_owned();
    });
    found_one("somebody has not begun, and got", |journal| {
        receipt(journal, journal.len());
        let Some(Entry::Frame(frame)) = journal.last_mut() else { unreachable!() };
        frame.client = "somebody".to_owned();
    });
    found("ann_0-Stream got the id Some(\"x\")", |journal| {
        frame_of(journal, "ann_0-Stream", "ride.0a", 6).id = Some("x".to_owned());
    });
}

#[test]
fn another_content_is_found() {
    let garble = |data: &mut String| *data = data.replace("number", "nonsense");
    found("others (\"message:new\"", |journal| garble(&mut frame_of(journal, "ann_0-Poll", "ride.0a", 3).data));
    found_one("dora_0-MergedPoll got what nobody else has", |journal| {
        // The last, so that nothing else is missing up to what was acknowledged.
        journal.retain(|entry| !matches!(entry, Entry::Sent(sent) if sent.ride == "ride.0c" && sent.seq == 6));
        garble(&mut frame_of(journal, "dora_0-MergedPoll", "ride.0c", 6).data);
    });
    found_one("3 of ride.0a should say \"number 3 on ride.0a\"", |journal| {
        let (_, wanted) = event("ride.0a", 3);
        for entry in journal {
            match entry {
                Entry::Frame(frame) if frame.data == wanted => garble(&mut frame.data),
                _ => {}
            }
        }
    });
    found_one("nobody has sent 4 of ride.0a", |journal| {
        let is_it =
            |entry: &Entry| matches!(entry, Entry::Sending(sending) if sending.content == "number 4 on ride.0a");
        journal.retain(|entry| !is_it(entry));
    });
}

#[test]
fn an_acknowledgement_of_something_else_is_found() {
    found_one("name-3 was acknowledged as id of 3 on ride.0a, 2 of ride.0a", |journal| {
        sent_of(journal, "ride.0a", 3).seq = 2;
    });
    found_one("name-3 was acknowledged as another, 3 of ride.0a", |journal| {
        sent_of(journal, "ride.0a", 3).id = "another".to_owned();
    });
    found_one("name-3 was acknowledged as (\"id of 3 on ride.0a\", 3) and as (\"another\", 3)", |journal| {
        let again =
            Sent { attempt: 1, status: 200, id: "another".to_owned(), ..sent_of(journal, "ride.0a", 3).clone() };
        journal.push(Entry::Sent(again));
    });
    found_one("name-3 was sent for the first time and answered 200", |journal| {
        sent_of(journal, "ride.0a", 3).status = 200;
    });
    assert_eq!(
        problems(|journal| {
            let again = Sent { attempt: 1, status: 200, ..sent_of(journal, "ride.0a", 3).clone() };
            journal.push(Entry::Sent(again));
        }),
        Vec::<String>::new()
    );
}

#[test]
fn a_cursor_that_was_given_up_is_found() {
    let sync_of = |journal: &mut Entries, client: &str, event: &str, change: &dyn Fn(&mut Frame)| {
        let is_it = |entry: &&mut Entry| matches!(entry, Entry::Frame(frame) if frame.client == client && frame.event == event && frame.connection == 2);
        let Some(Entry::Frame(frame)) = journal.iter_mut().find(is_it) else { unreachable!() };
        change(frame);
    };
    for (client, event) in [("ann_0-Stream", "stream:sync"), ("dora_0-MergedPoll", "poll:answer")] {
        found_one(&format!("{client} was to continue"), |journal| {
            sync_of(journal, client, event, &|frame| frame.data = frame.data.replace("true", "false"));
        });
        found_one(&format!("{client} was to continue"), |journal| {
            let gap = "{\"from\":1,\"to\":2}";
            sync_of(journal, client, event, &|frame| frame.data = frame.data.replace("null", gap));
        });
    }
    found_one("ann_0-Stream was to continue", |journal| {
        sync_of(journal, "ann_0-Stream", "stream:sync", &|frame| frame.event = "stream:other".to_owned());
    });
    found_one("ann_0-Stream opens 2 from Some(\"0\") after Some(\"3\")", |journal| {
        for entry in journal {
            match entry {
                Entry::Opened(opened) if opened.client == "ann_0-Stream" && opened.connection == 2 => {
                    opened.from = Some("0".to_owned());
                }
                _ => {}
            }
        }
    });
    found_one("bob_0-Poll: is unhappy", |journal| {
        journal.push(Entry::Wrong { client: "bob_0-Poll".to_owned(), what: "is unhappy".to_owned() });
    });
}
