//! The contents of the database after one run.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio_postgres::{Client, Row};

/// An event of a log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LoggedEvent {
    pub(crate) seq: i64,
    pub(crate) kind: String,
    pub(crate) text: String,
    pub(crate) data: Value,
}

#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) ride: String,
    pub(crate) seq: i64,
    pub(crate) sender: String,
    pub(crate) content: Option<String>,
    pub(crate) is_deleted: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Receipt {
    pub(crate) ride: String,
    pub(crate) user: String,
    pub(crate) role: String,
    pub(crate) delivered: i64,
    pub(crate) read: i64,
}

/// A participant's interval of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) ride: String,
    pub(crate) user: String,
    pub(crate) role: String,
    pub(crate) from: i64,
    pub(crate) until: Option<i64>,
}

impl Interval {
    /// Whether an event at this seq is in the interval.
    pub(crate) fn has(&self, seq: i64) -> bool {
        seq >= self.from && self.until.is_none_or(|until| seq <= until)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Location {
    pub(crate) ride: String,
    pub(crate) driver: String,
    pub(crate) seq: i64,
    pub(crate) data: Value,
}

/// All rows of one run.
#[derive(Debug, Clone, Default)]
pub(crate) struct DatabaseState {
    pub(crate) heads: BTreeMap<String, i64>,
    pub(crate) logs: BTreeMap<String, Vec<LoggedEvent>>,
    pub(crate) messages: Vec<Message>,
    pub(crate) receipts: Vec<Receipt>,
    pub(crate) intervals: Vec<Interval>,
    /// The status and driver of each ride.
    pub(crate) rides: BTreeMap<String, (String, Option<String>)>,
    pub(crate) locations: Vec<Location>,
    /// The seqs of each topic, in the order of the feed.
    pub(crate) feed: BTreeMap<String, Vec<i64>>,
    /// The topic and the seq at each position of the feed.
    pub(crate) positions: BTreeMap<i64, (String, i64)>,
    /// The end of the feed before the run.
    pub(crate) feed_start: i64,
}

impl DatabaseState {
    pub(crate) async fn read(client: &Client, prefix: &str, feed_start: i64) -> Self {
        let mut state = Self { feed_start, ..Self::default() };
        let topics = "(starts_with({}, 'ride/' || $1::text) or starts_with({}, 'user/' || $1::text))";
        let of = |column: &str| topics.replace("{}", column);
        let query = format!("select name, last_seq from topics where {}", of("name"));
        state.heads =
            client.query(&query, &[&prefix]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
        let query = format!("select topic, seq, type, data from events where {} order by topic, seq", of("topic"));
        state.add_events(client.query(&query, &[&prefix]).await.unwrap());
        let query = "select id::text, ride_id, seq, sender_id, content, deleted_at is not null from messages
                     where starts_with(ride_id, $1) order by ride_id, seq";
        let message = |row: &tokio_postgres::Row| Message {
            id: row.get(0),
            ride: row.get(1),
            seq: row.get(2),
            sender: row.get(3),
            content: row.get(4),
            is_deleted: row.get(5),
        };
        state.messages = client.query(query, &[&prefix]).await.unwrap().iter().map(message).collect();
        let query =
            "select ride_id, user_id, role, delivered_seq, read_seq from receipts where starts_with(ride_id, $1)";
        let receipt = |row: &tokio_postgres::Row| Receipt {
            ride: row.get(0),
            user: row.get(1),
            role: row.get(2),
            delivered: row.get(3),
            read: row.get(4),
        };
        state.receipts = client.query(query, &[&prefix]).await.unwrap().iter().map(receipt).collect();
        let query = "select ride_id, user_id, role, from_seq, until_seq from participants
                     where starts_with(ride_id, $1) order by ride_id, from_seq";
        let interval = |row: &tokio_postgres::Row| Interval {
            ride: row.get(0),
            user: row.get(1),
            role: row.get(2),
            from: row.get(3),
            until: row.get(4),
        };
        state.intervals = client.query(query, &[&prefix]).await.unwrap().iter().map(interval).collect();
        let query = "select ride_id, status, driver_id from rides where starts_with(ride_id, $1)";
        let ride = |row: &tokio_postgres::Row| (row.get(0), (row.get(1), row.get(2)));
        state.rides = client.query(query, &[&prefix]).await.unwrap().iter().map(ride).collect();
        let query = "select ride_id, driver_id, seq, data from ride_locations where starts_with(ride_id, $1)";
        let location = |row: &tokio_postgres::Row| Location {
            ride: row.get(0),
            driver: row.get(1),
            seq: row.get(2),
            data: serde_json::from_str(row.get(3)).unwrap(),
        };
        state.locations = client.query(query, &[&prefix]).await.unwrap().iter().map(location).collect();
        state.read_feed(client, prefix).await;
        state
    }

    /// Reads the topics of users, which are in another schema.
    pub(crate) async fn read_user_topics(&mut self, client: &Client, schema: &str, prefix: &str) {
        let query = format!("select name, last_seq from {schema}.topics where starts_with(name, 'user/' || $1::text)");
        let heads = client.query(&query, &[&prefix]).await.unwrap();
        self.heads.extend(heads.iter().map(|row| (row.get::<_, String>(0), row.get::<_, i64>(1))));
        let query = format!(
            "select topic, seq, type, data from {schema}.events where starts_with(topic, 'user/' || $1::text) order by topic, seq"
        );
        self.add_events(client.query(&query, &[&prefix]).await.unwrap());
    }

    fn add_events(&mut self, rows: Vec<Row>) {
        for row in rows {
            let text: String = row.get(3);
            let data = serde_json::from_str(&text).unwrap();
            let logged = LoggedEvent { seq: row.get(1), kind: row.get(2), text, data };
            self.logs.entry(row.get(0)).or_default().push(logged);
        }
    }

    /// Reads the feed, which the relay writes shortly after the logs.
    pub(crate) async fn read_feed(&mut self, client: &Client, prefix: &str) {
        self.feed.clear();
        self.positions.clear();
        let query = "select topic, seq, position from feed_entries($2, 1000000000)
                     where type is null and (starts_with(topic, 'ride/' || $1::text) or starts_with(topic, 'user/' || $1::text))
                     order by position";
        for row in client.query(query, &[&prefix, &self.feed_start]).await.unwrap() {
            self.feed.entry(row.get(0)).or_default().push(row.get(1));
            self.positions.insert(row.get(2), (row.get(0), row.get(1)));
        }
    }

    /// Replaces the feed by one that matches the logs.
    pub(crate) fn derive_feed_from_logs(&mut self) {
        let seqs = |log: &Vec<LoggedEvent>| log.iter().map(|event| event.seq).collect();
        self.feed = self.logs.iter().map(|(topic, log)| (topic.clone(), seqs(log))).collect();
        self.positions.clear();
    }

    /// Whether the feed contains the last event of each log.
    pub(crate) fn is_feed_complete(&self) -> bool {
        self.logs.iter().all(|(topic, log)| {
            let end = log.last().map(|last| last.seq);
            self.feed.get(topic).and_then(|seqs| seqs.last()).copied() == end
        })
    }

    /// Returns a ride's log.
    pub(crate) fn log(&self, ride: &str) -> &[LoggedEvent] {
        self.logs.get(&format!("ride/{ride}")).map_or(&[], Vec::as_slice)
    }

    /// Returns a user's intervals of a ride, in order.
    pub(crate) fn intervals_of<'a>(&'a self, ride: &'a str, user: &'a str) -> impl Iterator<Item = &'a Interval> {
        self.intervals.iter().filter(move |interval| interval.ride == ride && interval.user == user)
    }
}
