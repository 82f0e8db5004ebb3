//! Judges a run: what was acknowledged, what the database holds, and what each subscriber saw must agree.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};

use serde_json::Value;
use tokio_postgres::Client;

/// What a sender knows of a message that it wanted to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) ride: String,
    pub(crate) sender: String,
    /// The `clientMessageId`.
    pub(crate) name: String,
    pub(crate) content: String,
    /// The id and seq of the 201 or 200; `None` where no answer told.
    pub(crate) acknowledged: Option<(String, i64)>,
}

/// An event as a subscriber got it, or as the log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) seq: i64,
    /// A hash of type and data.
    pub(crate) print: u64,
}

impl Seen {
    pub(crate) fn new(seq: i64, kind: &str, data: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (kind, data).hash(&mut hasher);
        Self { seq, print: hasher.finish() }
    }
}

/// All that one subscriber got, over all its connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) ride: String,
    pub(crate) seen: Vec<Seen>,
    /// How often a stream was opened and synced.
    pub(crate) connections: usize,
    /// What else was wrong.
    pub(crate) problems: Vec<String>,
}

/// An event in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) seq: i64,
    pub(crate) kind: String,
    pub(crate) data: String,
}

/// A row of `messages`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) ride: String,
    pub(crate) seq: i64,
    pub(crate) sender: String,
    pub(crate) name: Option<String>,
    pub(crate) content: Option<String>,
}

/// What the database holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents {
    /// `last_seq` by ride.
    pub(crate) heads: BTreeMap<String, i64>,
    /// In the order of their seq, by ride.
    pub(crate) events: BTreeMap<String, Vec<Logged>>,
    pub(crate) messages: Vec<Stored>,
}

impl Contents {
    /// Reads everything, at one moment.
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
                let event = Logged { seq: row.get("seq"), kind: row.get("type"), data: row.get("data") };
                database.events.entry(ride).or_default().push(event);
            }
        }
        let messages = "select id::text, ride_id, seq, sender_id, client_message_id, content from messages";
        for row in client.query(messages, &[]).await.unwrap() {
            database.messages.push(Stored {
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

/// Everything that is wrong with a run.
pub(crate) fn check(journal: &[Entry], database: &Contents, views: &[View]) -> Vec<String> {
    let mut problems = Vec::new();
    let messages = check_log(database, &mut problems);
    check_journal(journal, &messages, &mut problems);
    let logs: HashMap<&str, Vec<Seen>> = database
        .events
        .iter()
        .map(|(ride, log)| {
            (ride.as_str(), log.iter().map(|event| Seen::new(event.seq, &event.kind, &event.data)).collect())
        })
        .collect();
    for (number, view) in views.iter().enumerate() {
        let who = format!("subscriber {number} of {}", view.ride);
        problems.extend(view.problems.iter().map(|problem| format!("{who}: {problem}")));
        let log = logs.get(view.ride.as_str()).map_or(&[][..], Vec::as_slice);
        check_view(&who, log, &view.seen, &mut problems);
    }
    problems
}

/// A message in the log: `(ride, sender, name)`.
type Key<'a> = (&'a str, String, String);

#[derive(Debug, PartialEq, Eq)]
struct Found {
    id: String,
    seq: i64,
    content: String,
}

/// The log for itself: no holes, heads at its end, each `message:new` with its row and the other way round.
fn check_log<'a>(database: &'a Contents, problems: &mut Vec<String>) -> HashMap<Key<'a>, Vec<Found>> {
    let mut messages: HashMap<Key<'a>, Vec<Found>> = HashMap::new();
    let mut rows: HashMap<(&str, i64), &Stored> = HashMap::new();
    for row in &database.messages {
        if rows.insert((&row.ride, row.seq), row).is_some() {
            problems.push(format!("two messages are {} of {}", row.seq, row.ride));
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
                problems.push(format!("the event {} of {ride} says of itself {}", event.seq, event.data));
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

/// What senders know: acknowledged once, otherwise at most once, and nothing that nobody has sent.
fn check_journal(journal: &[Entry], messages: &HashMap<Key<'_>, Vec<Found>>, problems: &mut Vec<String>) {
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
                problems.push(format!("{what} says {:?} and not {:?}", one.content, entry.content));
            }
            (_, [_]) => {}
            (Some(_), []) => problems.push(format!("{what} was acknowledged and is not in the log")),
            (_, many) => problems.push(format!("{what} is in the log {} times", many.len())),
        }
    }
    problems.extend(unsent.keys().map(|key| format!("nobody has sent {key:?}")));
}

/// A subscriber has seen its ride's log: all of it, once, in order, and nothing else.
fn check_view(who: &str, log: &[Seen], seen: &[Seen], problems: &mut Vec<String>) {
    if log == seen {
        return;
    }
    let place = log.iter().zip(seen).position(|(logged, seen)| logged != seen).unwrap_or(log.len().min(seen.len()));
    let problem = match (log.get(place), seen.get(place)) {
        (Some(logged), None) => format!("lost {} and what follows", logged.seq),
        (_, Some(got)) if seen[..place].contains(got) => format!("got {} again", got.seq),
        (_, Some(got)) if !log.contains(got) => format!("got {}, which is not of this ride's log", got.seq),
        (Some(logged), Some(got)) => format!("got {} where {} was next", got.seq, logged.seq),
        (None, _) => "got more than there is".to_owned(),
    };
    problems.push(format!("{who} {problem}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIDES: [&str; 3] = ["one", "two", "three"];

    struct World {
        journal: Vec<Entry>,
        database: Contents,
        views: Vec<View>,
    }

    /// A run in which everything went well: on each ride its beginning and five messages, seen by two.
    fn world() -> World {
        let mut world = World { journal: Vec::new(), database: Contents::default(), views: Vec::new() };
        for ride in RIDES {
            let mut log = vec![Logged { seq: 1, kind: "ride:participants".into(), data: format!("\"{ride}\"") }];
            for seq in 2..=6 {
                let (id, name) = (format!("{ride}-{seq}"), format!("name {seq}"));
                let content = format!("content {seq}");
                let acknowledged = (seq != 4).then(|| (id.clone(), seq));
                let data = serde_json::json!({"id": id, "rideId": ride, "seq": seq, "senderId": "rider",
                    "clientMessageId": name, "content": content});
                log.push(Logged { seq, kind: "message:new".into(), data: data.to_string() });
                world.database.messages.push(Stored {
                    id,
                    ride: ride.into(),
                    seq,
                    sender: "rider".into(),
                    name: Some(name.clone()),
                    content: Some(content.clone()),
                });
                world.journal.push(Entry { ride: ride.into(), sender: "rider".into(), name, content, acknowledged });
            }
            let seen: Vec<_> = log.iter().map(|event| Seen::new(event.seq, &event.kind, &event.data)).collect();
            let view = View { ride: ride.into(), seen, connections: 1, problems: Vec::new() };
            world.views.extend([view.clone(), view]);
            world.database.heads.insert(ride.into(), 6);
            world.database.events.insert(ride.into(), log);
        }
        // Never acknowledged, and never there.
        let (name, content) = ("name 7".to_owned(), "lost on its way".to_owned());
        let (ride, sender) = ("one".to_owned(), "rider".to_owned());
        world.journal.push(Entry { ride, sender, name, content, acknowledged: None });
        world
    }

    fn problems(spoil: impl FnOnce(&mut World)) -> Vec<String> {
        let mut world = world();
        spoil(&mut world);
        check(&world.journal, &world.database, &world.views)
    }

    fn found_one(what: &str, spoil: impl FnOnce(&mut World)) {
        let problems = problems(spoil);
        assert!(problems.len() == 1 && problems[0].contains(what), "{what}: {problems:?}");
    }

    #[test]
    fn the_checker_finds_nothing_wrong_with_a_good_run() {
        assert_eq!(problems(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn the_checker_finds_what_a_subscriber_lost_got_twice_out_of_order_or_from_elsewhere() {
        found_one("subscriber 3 of two got 4 where 3 was next", |world| {
            world.views[3].seen.remove(2);
        });
        found_one("lost 6 and what follows", |world| {
            world.views[0].seen.pop();
        });
        found_one("lost 1 and what follows", |world| world.views[0].seen.clear());
        found_one("got 3 again", |world| {
            let again = world.views[1].seen[2];
            world.views[1].seen.insert(3, again);
        });
        found_one("got 6 again", |world| {
            let again = world.views[1].seen[5];
            world.views[1].seen.push(again);
        });
        found_one("got 4 where 3 was next", |world| world.views[5].seen.swap(2, 3));
        found_one("got 4, which is not of this ride's log", |world| {
            let leak = world.views[0].seen[3];
            world.views[5].seen[3] = leak;
        });
        found_one("got 6, which is not of this ride's log", |world| {
            let leak = world.views[0].seen[5];
            world.views[5].seen.push(leak);
        });
        found_one("subscriber 2 of two: is unhappy", |world| world.views[2].problems.push("is unhappy".into()));
    }

    #[test]
    fn the_checker_finds_what_was_acknowledged_and_is_not_there_or_is_another() {
        let lose = |world: &mut World, seq: i64| {
            // As if it had never been: the log is shorter, and who sees it sees that.
            world.database.messages.retain(|row| row.ride != "one" || row.seq != seq);
            world.database.events.get_mut("one").unwrap().retain(|event| event.seq != seq);
            for view in world.views.iter_mut().filter(|view| view.ride == "one") {
                view.seen.retain(|seen| seen.seq != seq);
            }
        };
        found_one("name 6 of rider on one was acknowledged and is not in the log", |world| {
            lose(world, 6);
            world.database.heads.insert("one".into(), 5);
        });
        found_one("the log of one, whose last_seq is 6, has [1, 2, 3, 5, 6]", |world| lose(world, 4));
        found_one("was acknowledged as one-2, 3 and is one-2, 2", |world| {
            world.journal[0].acknowledged = Some(("one-2".into(), 3));
        });
        found_one("says \"content 2\" and not \"another\"", |world| world.journal[0].content = "another".into());
        found_one("nobody has sent", |world| drop(world.journal.remove(2)));
    }

    #[test]
    fn the_checker_finds_a_message_that_is_there_twice_acknowledged_or_not() {
        for seq in [2, 4] {
            found_one("is in the log 2 times", |world| {
                let data = |text: &str| text.replace(&format!("\"seq\":{seq}"), "\"seq\":7");
                let log = world.database.events.get_mut("one").unwrap();
                let mut event = log.iter().find(|event| event.seq == seq).unwrap().clone();
                event = Logged { seq: 7, data: data(&event.data), ..event };
                let seen = Seen::new(7, &event.kind, &event.data);
                log.push(event);
                let row = world.database.messages.iter().find(|row| row.ride == "one" && row.seq == seq).unwrap();
                let row = Stored { seq: 7, ..row.clone() };
                world.database.messages.push(row);
                world.database.heads.insert("one".into(), 7);
                world.views[..2].iter_mut().for_each(|view| view.seen.push(seen));
            });
        }
    }

    #[test]
    fn the_checker_finds_a_log_that_disagrees_with_its_messages_or_its_head() {
        found_one("the event 2 of one is not the message None", |world| drop(world.database.messages.remove(0)));
        found_one("is not the message Some", |world| world.database.messages[0].content = None);
        found_one("is not in the log", |world| {
            let row = Stored { seq: 9, ..world.database.messages[0].clone() };
            world.database.messages.push(row);
        });
        found_one("whose last_seq is 7", |world| {
            world.database.heads.insert("one".into(), 7);
        });
        found_one("whose last_seq is 5", |world| {
            world.database.heads.insert("one".into(), 5);
        });
    }
}
