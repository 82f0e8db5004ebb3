//! Checks a run: the acknowledgements, the database and the events of each subscriber must agree.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};

use serde_json::Value;
use tokio_postgres::Client;

/// A message and the acknowledgement that its sender received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SendRecord {
    pub(crate) ride: String,
    pub(crate) sender: String,
    /// The `clientMessageId`.
    pub(crate) name: String,
    pub(crate) content: String,
    /// The id and seq of the 201 or 200; `None` if the sender got neither.
    pub(crate) acknowledged: Option<(String, i64)>,
}

/// An event as a subscriber received it, or as the log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeenEvent {
    pub(crate) seq: i64,
    /// A hash of the type and the data.
    pub(crate) hash_value: u64,
}

impl SeenEvent {
    pub(crate) fn new(seq: i64, kind: &str, data: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (kind, data).hash(&mut hasher);
        Self { seq, hash_value: hasher.finish() }
    }
}

/// All events that one subscriber received over all its connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct SubscriberView {
    pub(crate) ride: String,
    pub(crate) seen: Vec<SeenEvent>,
    /// How often a stream was opened and began with `stream:sync`.
    pub(crate) connections: usize,
    /// Protocol violations that the subscriber noticed itself.
    pub(crate) problems: Vec<String>,
}

/// An event in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogEvent {
    pub(crate) seq: i64,
    pub(crate) kind: String,
    pub(crate) data: String,
}

/// A row of `messages`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MessageRow {
    pub(crate) id: String,
    pub(crate) ride: String,
    pub(crate) seq: i64,
    pub(crate) sender: String,
    pub(crate) name: Option<String>,
    pub(crate) content: Option<String>,
}

/// The contents of the database.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents {
    /// `last_seq` by ride.
    pub(crate) heads: BTreeMap<String, i64>,
    /// By ride, in the order of their seq.
    pub(crate) events: BTreeMap<String, Vec<LogEvent>>,
    pub(crate) messages: Vec<MessageRow>,
}

impl Contents {
    /// Reads all contents in one snapshot.
    pub(crate) async fn read(client: &Client) -> Self {
        client.batch_execute("begin isolation level repeatable read read only").await.unwrap();
        let mut database = Self::default();
        let ride = |topic: &str| topic.strip_prefix("ride/").map(str::to_owned);
        for row in client.query("select name, last_seq from topics", &[]).await.unwrap() {
            if let Some(ride) = ride(row.get("name")) {
                database.heads.insert(ride, row.get("last_seq"));
            }
        }
        for row in client.query("select topic, seq, type, data from events order by seq", &[]).await.unwrap() {
            if let Some(ride) = ride(row.get("topic")) {
                let event = LogEvent { seq: row.get("seq"), kind: row.get("type"), data: row.get("data") };
                database.events.entry(ride).or_default().push(event);
            }
        }
        let messages = "select id::text, ride_id, seq, sender_id, client_message_id, content from messages";
        for row in client.query(messages, &[]).await.unwrap() {
            database.messages.push(MessageRow {
                id: row.get("id"),
                ride: row.get("ride_id"),
                seq: row.get("seq"),
                sender: row.get("sender_id"),
                name: row.get("client_message_id"),
                content: row.get("content"),
            });
        }
        client.batch_execute("commit").await.unwrap();
        database
    }
}

/// Returns all violations of a run.
pub(crate) fn check(journal: &[SendRecord], database: &Contents, views: &[SubscriberView]) -> Vec<String> {
    let mut problems = Vec::new();
    let messages = check_log(database, &mut problems);
    check_journal(journal, &messages, &mut problems);
    let logs: HashMap<&str, Vec<SeenEvent>> = database
        .events
        .iter()
        .map(|(ride, log)| {
            (ride.as_str(), log.iter().map(|event| SeenEvent::new(event.seq, &event.kind, &event.data)).collect())
        })
        .collect();
    for (number, view) in views.iter().enumerate() {
        let name = format!("subscriber {number} of {}", view.ride);
        problems.extend(view.problems.iter().map(|problem| format!("{name}: {problem}")));
        let log = logs.get(view.ride.as_str()).map_or(&[][..], Vec::as_slice);
        check_view(&name, log, &view.seen, &mut problems);
    }
    problems
}

/// The key of a message in the log: `(ride, sender, name)`.
type Key<'a> = (&'a str, String, String);

#[derive(Debug, PartialEq, Eq)]
struct Found {
    id: String,
    seq: i64,
    content: String,
}

/// Checks that logs have no holes and end at their heads, and that `message:new` events and rows match one to one.
fn check_log<'a>(database: &'a Contents, problems: &mut Vec<String>) -> HashMap<Key<'a>, Vec<Found>> {
    let mut messages: HashMap<Key<'a>, Vec<Found>> = HashMap::new();
    let mut rows: HashMap<(&str, i64), &MessageRow> = HashMap::new();
    for row in &database.messages {
        if rows.insert((&row.ride, row.seq), row).is_some() {
            problems.push(format!("two messages have the seq {} of {}", row.seq, row.ride));
        }
    }
    for (ride, head) in &database.heads {
        let log = database.events.get(ride).map_or(&[][..], Vec::as_slice);
        if !log.iter().map(|event| event.seq).eq(1..=*head) {
            let seqs: Vec<_> = log.iter().map(|event| event.seq).collect();
            problems.push(format!("the log of {ride}, whose last_seq is {head}, has {seqs:?}"));
        }
        for event in log.iter().filter(|event| event.kind == "message:new") {
            let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
            let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
            let found = Found { id: text("id"), seq: event.seq, content: text("content") };
            if data["seq"] != event.seq || text("rideId") != *ride {
                problems.push(format!("the event {} of {ride} has the data {}", event.seq, event.data));
            }
            let row = rows.remove(&(ride.as_str(), event.seq));
            let agrees = row.is_some_and(|row| {
                row.id == found.id
                    && row.sender == text("senderId")
                    && row.name.as_deref() == data["clientMessageId"].as_str()
                    && row.content.as_deref() == Some(&found.content)
            });
            if !agrees {
                problems.push(format!("the event {} of {ride} is not the message {row:?}", event.seq));
            }
            messages.entry((ride, text("senderId"), text("clientMessageId"))).or_default().push(found);
        }
    }
    for ride in database.events.keys().filter(|ride| !database.heads.contains_key(*ride)) {
        problems.push(format!("{ride} has events and no topic"));
    }
    problems.extend(rows.values().map(|row| format!("the message {} of {} is not in the log", row.seq, row.ride)));
    messages
}

/// Checks that each acknowledged message is in the log once, any other at most once, and that all of them were sent.
fn check_journal(journal: &[SendRecord], messages: &HashMap<Key<'_>, Vec<Found>>, problems: &mut Vec<String>) {
    let mut unsent: HashMap<_, _> = messages.iter().collect();
    for entry in journal {
        let key = (entry.ride.as_str(), entry.sender.clone(), entry.name.clone());
        let found = unsent.remove(&key).map_or(&[][..], Vec::as_slice);
        let what = format!("{} of {} on {}", entry.name, entry.sender, entry.ride);
        match (&entry.acknowledged, found) {
            (None, []) => {}
            (Some((id, seq)), [one]) if one.id != *id || one.seq != *seq => {
                problems.push(format!("{what} was acknowledged as {id}, {seq} and is {}, {}", one.id, one.seq));
            }
            (_, [one]) if one.content != entry.content => {
                problems.push(format!("{what} has the content {:?} instead of {:?}", one.content, entry.content));
            }
            (_, [_]) => {}
            (Some(_), []) => problems.push(format!("{what} was acknowledged and is not in the log")),
            (_, many) => problems.push(format!("{what} is in the log {} times", many.len())),
        }
    }
    problems.extend(unsent.keys().map(|key| format!("never sent: {key:?}")));
}

/// Checks that a subscriber received the log of its ride: every event once, in order, and no other event.
fn check_view(name: &str, log: &[SeenEvent], seen: &[SeenEvent], problems: &mut Vec<String>) {
    if log == seen {
        return;
    }
    let index = log.iter().zip(seen).position(|(logged, seen)| logged != seen).unwrap_or(log.len().min(seen.len()));
    let problem = match (log.get(index), seen.get(index)) {
        (Some(logged), None) => format!("lost {} and all later events", logged.seq),
        (_, Some(got)) if seen[..index].contains(got) => format!("got {} a second time", got.seq),
        (_, Some(got)) if !log.contains(got) => format!("got {}, which is not of this ride's log", got.seq),
        (Some(logged), Some(got)) => format!("got {} where {} was next", got.seq, logged.seq),
        (None, _) => "got more events than the log has".to_owned(),
    };
    problems.push(format!("{name} {problem}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIDES: [&str; 3] = ["one", "two", "three"];

    struct Run {
        journal: Vec<SendRecord>,
        database: Contents,
        views: Vec<SubscriberView>,
    }

    /// Returns a run without violations: each ride has its first event and five messages, and two subscribers.
    fn run() -> Run {
        let mut run = Run { journal: Vec::new(), database: Contents::default(), views: Vec::new() };
        for ride in RIDES {
            let mut log = vec![LogEvent { seq: 1, kind: "ride:participants".into(), data: format!("\"{ride}\"") }];
            for seq in 2..=6 {
                let (id, name) = (format!("{ride}-{seq}"), format!("name {seq}"));
                let content = format!("content {seq}");
                let acknowledged = (seq != 4).then(|| (id.clone(), seq));
                let data = serde_json::json!({"id": id, "rideId": ride, "seq": seq, "senderId": "rider",
                    "clientMessageId": name, "content": content});
                log.push(LogEvent { seq, kind: "message:new".into(), data: data.to_string() });
                run.database.messages.push(MessageRow {
                    id,
                    ride: ride.into(),
                    seq,
                    sender: "rider".into(),
                    name: Some(name.clone()),
                    content: Some(content.clone()),
                });
                run.journal.push(SendRecord { ride: ride.into(), sender: "rider".into(), name, content, acknowledged });
            }
            let seen: Vec<_> = log.iter().map(|event| SeenEvent::new(event.seq, &event.kind, &event.data)).collect();
            let view = SubscriberView { ride: ride.into(), seen, connections: 1, problems: Vec::new() };
            run.views.extend([view.clone(), view]);
            run.database.heads.insert(ride.into(), 6);
            run.database.events.insert(ride.into(), log);
        }
        // Never acknowledged and never stored.
        let (name, content) = ("name 7".to_owned(), "lost before it was stored".to_owned());
        let (ride, sender) = ("one".to_owned(), "rider".to_owned());
        run.journal.push(SendRecord { ride, sender, name, content, acknowledged: None });
        run
    }

    fn problems(corrupt: impl FnOnce(&mut Run)) -> Vec<String> {
        let mut run = run();
        corrupt(&mut run);
        check(&run.journal, &run.database, &run.views)
    }

    fn detects_one(what: &str, corrupt: impl FnOnce(&mut Run)) {
        let problems = problems(corrupt);
        assert!(problems.len() == 1 && problems[0].contains(what), "{what}: {problems:?}");
    }

    #[test]
    fn the_checker_reports_nothing_for_a_correct_run() {
        assert_eq!(problems(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn the_checker_detects_lost_repeated_reordered_and_foreign_events() {
        detects_one("subscriber 3 of two got 4 where 3 was next", |run| {
            run.views[3].seen.remove(2);
        });
        detects_one("lost 6 and all later events", |run| {
            run.views[0].seen.pop();
        });
        detects_one("lost 1 and all later events", |run| run.views[0].seen.clear());
        detects_one("got 3 a second time", |run| {
            let again = run.views[1].seen[2];
            run.views[1].seen.insert(3, again);
        });
        detects_one("got 6 a second time", |run| {
            let again = run.views[1].seen[5];
            run.views[1].seen.push(again);
        });
        detects_one("got 4 where 3 was next", |run| run.views[5].seen.swap(2, 3));
        detects_one("got 4, which is not of this ride's log", |run| {
            let leak = run.views[0].seen[3];
            run.views[5].seen[3] = leak;
        });
        detects_one("got 6, which is not of this ride's log", |run| {
            let leak = run.views[0].seen[5];
            run.views[5].seen.push(leak);
        });
        detects_one("subscriber 2 of two: reports a problem", |run| {
            run.views[2].problems.push("reports a problem".into())
        });
    }

    #[test]
    fn the_checker_detects_acknowledged_messages_that_are_missing_or_differ() {
        let lose = |run: &mut Run, seq: i64| {
            // As if the message had never been stored: the log and the subscribers' events are shorter.
            run.database.messages.retain(|row| row.ride != "one" || row.seq != seq);
            run.database.events.get_mut("one").unwrap().retain(|event| event.seq != seq);
            for view in run.views.iter_mut().filter(|view| view.ride == "one") {
                view.seen.retain(|seen| seen.seq != seq);
            }
        };
        detects_one("name 6 of rider on one was acknowledged and is not in the log", |run| {
            lose(run, 6);
            run.database.heads.insert("one".into(), 5);
        });
        detects_one("the log of one, whose last_seq is 6, has [1, 2, 3, 5, 6]", |run| lose(run, 4));
        detects_one("was acknowledged as one-2, 3 and is one-2, 2", |run| {
            run.journal[0].acknowledged = Some(("one-2".into(), 3));
        });
        detects_one("has the content \"content 2\" instead of \"another\"", |run| {
            run.journal[0].content = "another".into()
        });
        detects_one("never sent: ", |run| drop(run.journal.remove(2)));
    }

    #[test]
    fn the_checker_detects_duplicate_messages() {
        for seq in [2, 4] {
            detects_one("is in the log 2 times", |run| {
                let data = |text: &str| text.replace(&format!("\"seq\":{seq}"), "\"seq\":7");
                let log = run.database.events.get_mut("one").unwrap();
                let mut event = log.iter().find(|event| event.seq == seq).unwrap().clone();
                event = LogEvent { seq: 7, data: data(&event.data), ..event };
                let seen = SeenEvent::new(7, &event.kind, &event.data);
                log.push(event);
                let row = run.database.messages.iter().find(|row| row.ride == "one" && row.seq == seq).unwrap();
                let row = MessageRow { seq: 7, ..row.clone() };
                run.database.messages.push(row);
                run.database.heads.insert("one".into(), 7);
                run.views[..2].iter_mut().for_each(|view| view.seen.push(seen));
            });
        }
    }

    #[test]
    fn the_checker_detects_a_log_that_disagrees_with_its_messages_or_its_head() {
        detects_one("the event 2 of one is not the message None", |run| drop(run.database.messages.remove(0)));
        detects_one("is not the message Some", |run| run.database.messages[0].content = None);
        detects_one("is not in the log", |run| {
            let row = MessageRow { seq: 9, ..run.database.messages[0].clone() };
            run.database.messages.push(row);
        });
        detects_one("whose last_seq is 7", |run| {
            run.database.heads.insert("one".into(), 7);
        });
        detects_one("whose last_seq is 5", |run| {
            run.database.heads.insert("one".into(), 5);
        });
    }
}
