//! The arguments with which the plan of each statement is taken: those of the server, on existing rides.

use tokio_postgres::Client;

use super::fill::COHORT_RIDES;

/// The rides of a batch, by their number in the cohort. Their logs still exist.
const BATCH: std::ops::Range<usize> = 100..164;

/// A ride with 87 messages.
const LONG: usize = 490;

/// A seq that no event has yet.
const NEXT: &str = "1000000";

/// Rides, users and messages of a database of this many cohorts.
#[derive(Debug)]
pub(super) struct Sample {
    /// The first ride of the last cohort, which is in progress.
    first: usize,
    /// The first message of each of a batch of rides.
    ids: Vec<String>,
}

/// A call of a statement.
#[derive(Debug)]
pub(super) struct Call {
    /// A description.
    pub(super) what: &'static str,
    /// SQL expressions.
    pub(super) arguments: Vec<String>,
    /// Runs before the statement in the same transaction.
    pub(super) before: Option<String>,
}

impl Sample {
    pub(super) async fn of(client: &Client, cohorts: usize) -> anyhow::Result<Self> {
        let first = (cohorts - 1) * COHORT_RIDES;
        let mut sample = Self { first, ids: Vec::new() };
        let rides: Vec<String> = BATCH.map(|number| sample.ride(number)).collect();
        let ids = "select id::text from messages where ride_id = any ($1::text[]) and seq = 2 order by ride_id";
        for row in client.query(ids, &[&rides]).await? {
            sample.ids.push(row.try_get(0)?);
        }
        Ok(sample)
    }

    fn ride(&self, number: usize) -> String {
        format!("ride_{:07}", self.first + number)
    }

    /// Returns an array with an element for each ride of a batch.
    fn batch(&self, kind: &str, one: impl Fn(&Self, usize) -> String) -> String {
        let all: Vec<String> = BATCH.map(|number| one(self, number)).collect();
        format!("array[{}]::{kind}[]", all.join(", "))
    }

    fn all(&self, kind: &str, value: &str) -> String {
        self.batch(kind, |_, _| value.to_owned())
    }

    fn rides(&self) -> String {
        self.batch("text", |sample, number| text(&sample.ride(number)))
    }

    fn topics(&self) -> String {
        self.batch("text", |sample, number| text(&format!("ride/{}", sample.ride(number))))
    }

    fn drivers(&self) -> String {
        self.batch("text", |_, number| text(&format!("driver_{number}")))
    }

    fn ids(&self) -> String {
        let ids: Vec<String> = self.ids.iter().map(|id| text(id)).collect();
        format!("array[{}]::uuid[]", ids.join(", "))
    }

    /// Returns ids that no message has.
    fn new_ids(&self) -> String {
        self.batch("uuid", |_, number| text(&format!("ffffffff-ffff-7fff-8fff-{number:012}")))
    }

    /// Returns the call of `sql/<name>`, or `None` if it reads neither rides nor logs.
    pub(super) fn call(&self, name: &str) -> Option<Call> {
        let (driver, long) = (text(&format!("driver_{LONG}")), self.ride(LONG));
        let (ride, topic) = (text(&long), text(&format!("ride/{long}")));
        let (log, year) = ("259200".to_owned(), "15552000".to_owned());
        let page = "1000".to_owned();
        let (what, arguments) = match name {
            "audit/put.sql" => (
                "64 entries",
                vec![
                    self.new_ids(),
                    self.all("timestamptz", "now()"),
                    self.drivers(),
                    self.all("text", "'support'"),
                    self.all("text", "'getMessage'"),
                    self.all("text", "null"),
                    self.ids(),
                    self.all("text", "null"),
                    self.all("text", "null"),
                    self.all("bigint", "200"),
                    self.all("text", "'request'"),
                ],
            ),
            "events/append.sql" => (
                "64 sends",
                vec![
                    self.topics(),
                    self.all("bigint", NEXT),
                    self.all("text", "'message:new'"),
                    self.all("text", "'{}'"),
                    self.all("uuid", "null"),
                    self.all("text", "null"),
                    "now()".to_owned(),
                    self.topics(),
                    self.all("bigint", &format!("{NEXT} - 1")),
                    self.all("bigint", "0"),
                    self.all("bigint", NEXT),
                    self.new_ids(),
                    self.rides(),
                    self.all("bigint", NEXT),
                    self.drivers(),
                    self.all("text", "'driver'"),
                    self.all("text", "'Hello'"),
                    self.all("text", "null"),
                    self.all("text", "'a name of its own'"),
                    self.all("bytea", r"'\x000102030405060708090a0b0c0d0e0f'"),
                    "1".to_owned(),
                    "false".to_owned(),
                    "true".to_owned(),
                ],
            ),
            "events/outcome.sql" => {
                ("a lost COMMIT", vec![self.topics(), self.all("bigint", "2"), self.all("bigint", "1")])
            }
            "events/erase.sql" => {
                ("64 deletions", vec![self.topics(), self.all("bigint", "2"), self.ids(), self.all("text", "'{}'")])
            }
            "events/erase_reactions.sql" => ("64 messages with reactions of a user", vec![self.ids(), self.drivers()]),
            "events/pages.sql" => (
                "64 readers, 10 events behind",
                vec![self.topics(), self.all("bigint", "3"), self.all("bigint", "10"), "65536".to_owned()],
            ),
            "events/trim.sql" => ("retention, 1,000 rows", vec![log, page]),
            "events/trim_users.sql" => ("retention, users", vec![log, page]),
            "feed/lag.sql" => ("a scrape", Vec::new()),
            "feed/page.sql" => ("a page of the feed", vec!["0".to_owned(), "100".to_owned(), "65536".to_owned()]),
            "feed/relay.sql" => ("a step of the relay", vec!["500".to_owned(), "true".to_owned()]),
            "feed/undelivered.sql" => ("a step of the search", vec!["5".to_owned(), "500".to_owned()]),
            "flags/put.sql" => (
                "64 flagged messages",
                vec![
                    self.new_ids(),
                    self.ids(),
                    self.topics(),
                    self.all("bigint", "2"),
                    self.all("text", "'[]'"),
                    "1".to_owned(),
                    "now()".to_owned(),
                ],
            ),
            "feed/position.sql" => ("a message's trace", vec![topic, "40".to_owned(), "now()".to_owned()]),
            "messages/by_client_id.sql" => ("64 sends", vec![self.rides(), self.drivers(), self.all("text", "'m-1'")]),
            "messages/by_id.sql" => ("64 messages", vec![self.ids()]),
            "messages/last_of_others.sql" => {
                ("64 receipts", vec![self.rides(), self.drivers(), self.all("bigint", "20")])
            }
            "messages/of_reactor.sql" => ("a user erased, 200 messages", vec![driver, "200".to_owned()]),
            "messages/of_sender.sql" => {
                let page = vec![text("rider_7"), text(""), "0".to_owned(), "100".to_owned()];
                ("a user erased, 100 messages", page)
            }
            "messages/last_visible.sql" => (
                "watermarks of a ride",
                vec![ride, driver, "array['rider_7']::text[]".to_owned(), "array[200]::bigint[]".to_owned()],
            ),
            "messages/page_after.sql" => (
                "page of 50",
                vec![ride, driver, "50".to_owned(), "51".to_owned(), "false".to_owned(), "262144".to_owned()],
            ),
            "messages/page_before.sql" => (
                "page of 50",
                vec![ride, driver, i64::MAX.to_string(), "51".to_owned(), "false".to_owned(), "262144".to_owned()],
            ),
            "messages/trim.sql" => ("retention, 1,000 rows", vec![year, page]),
            "messages/unread_of_ride.sql" => {
                ("20 messages behind", vec![ride, "200".to_owned(), driver, "false".to_owned()])
            }
            "messages/unread_of_user.sql" => ("a rider's ten rides", vec![text("rider_7")]),
            "messages/update.sql" => (
                "64 edits",
                vec![
                    self.ids(),
                    self.all("text", "'Hello'"),
                    self.all("text", "null"),
                    self.all("timestamptz", "now()"),
                    self.all("timestamptz", "null"),
                    self.all("text", "'[]'"),
                    self.all("text", "null"),
                    self.all("text", "null"),
                ],
            ),
            "participants/open_rides.sql" => ("a driver's open rides", vec![driver, "64".to_owned()]),
            "participants/of_message.sql" => ("a message's trace", vec![ride, "40".to_owned(), driver]),
            "participants/put.sql" => (
                "64 joined",
                vec![
                    self.rides(),
                    self.all("text", "'another_user'"),
                    self.all("text", "'driver'"),
                    self.all("bigint", "5"),
                    self.all("bigint", "null"),
                    self.all("timestamptz", "now()"),
                    self.all("boolean", "false"),
                    self.all("text", "null"),
                    self.all("timestamptz", "null"),
                ],
            ),
            "participants/set_read.sql" => ("64 rides closed", vec![self.rides()]),
            "receipts/put.sql" => (
                "64 receipts",
                vec![
                    self.rides(),
                    self.drivers(),
                    self.all("text", "'driver'"),
                    self.all("bigint", "20"),
                    self.all("bigint", "20"),
                ],
            ),
            "rides/by_id.sql" => ("64 rides", vec![self.rides()]),
            "rides/delete.sql" => ("retention, 50 rides", vec![year]),
            "rides/inbox.sql" => {
                ("64 rides, to staff", vec![self.rides(), text("rider_7"), "true".to_owned(), "false".to_owned()])
            }
            "rides/page.sql" => ("page of 50", vec!["now()".to_owned(), text(""), "50".to_owned()]),
            "rides/page_of_status.sql" => {
                ("page of 50", vec![text("completed"), "now()".to_owned(), text(""), "50".to_owned()])
            }
            "rides/page_of_user.sql" => (
                "a rider's ten rides",
                vec![text("rider_7"), "null".to_owned(), "now()".to_owned(), text(""), "50".to_owned()],
            ),
            "rides/list_position.sql" => ("a ride's list position", vec![text("ride_0000007"), text("rider_7")]),
            "rides/participants.sql" => ("64 rides", vec![self.rides()]),
            "rides/put.sql" => (
                "64 rides",
                vec![
                    self.rides(),
                    self.all("text", "'arrived'"),
                    self.all("text", "'rider_1'"),
                    self.drivers(),
                    self.all("boolean", "true"),
                    self.all("timestamptz", "null"),
                    self.all("timestamptz", "null"),
                    self.all("timestamptz", "now()"),
                    self.all("timestamptz", "now()"),
                    self.all("text", "null"),
                    self.all("bigint", "null"),
                    self.all("bigint", "null"),
                    self.all("timestamptz", "null"),
                    self.all("timestamptz", "null"),
                    self.all("bigint", "null"),
                ],
            ),
            "rides/to_close.sql" => ("rides to be closed", vec!["100".to_owned()]),
            "rides/set_closing_times.sql" => {
                ("rides ended by an older version", vec!["86400".to_owned(), "100".to_owned()])
            }
            "rides/mark_trimmed.sql" => ("retention, 50 rides", vec![log]),
            "users/erase.sql" | "users/erase_from_feed.sql" => ("a user erased", vec![driver]),
            "users/erase_event_text.sql" => ("a user erased, 200 events", vec![driver, "200".to_owned()]),
            "snapshots/load.sql" => ("64 rides", vec![self.rides()]),
            "topics/create.sql" | "topics/create_blocking.sql" => {
                ("64 rides", vec![self.batch("text", |_, number| text(&format!("ride/new_{number}")))])
            }
            "topics/heads.sql" => ("64 rides", vec![self.topics()]),
            "topics/lock.sql" | "topics/try_lock.sql" => ("64 rides", vec![self.topics()]),
            "topics/notify_committed.sql" => {
                ("notification of a batch", vec!["array['{}']".to_owned(), topic, "2".to_owned(), "now()".to_owned()])
            }
            "participants/ride_at_leave.sql" => ("a removed driver", vec![ride, driver, "100".to_owned()]),
            "pushes/next.sql" => ("a push", vec!["gen_random_uuid()".to_owned(), ride, "1".to_owned(), "5".to_owned()]),
            "retention/lag.sql" => ("a scrape", vec![year.clone(), year.clone(), year]),
            "users/erase_queued_reports.sql" => ("a user erased", vec![text("rider_7")]),
            "webhooks/active.sql" => ("a look for work", Vec::new()),
            "webhooks/create.sql" => (
                "a new endpoint",
                vec![
                    text("webhook"),
                    text("https://example.com"),
                    "array['*']::text[]".to_owned(),
                    "array['%']::text[]".to_owned(),
                    text(""),
                    r"'\x00'".to_owned(),
                ],
            ),
            "webhooks/fan_out.sql" => ("a fan-out", vec!["array['webhook']::text[]".to_owned(), "500".to_owned()]),
            "webhooks/next.sql" => {
                ("64 deliveries", vec![self.all("text", "'webhook'"), self.topics(), self.all("bigint", "1")])
            }
            "webhooks/replay.sql" => ("a replay", vec![text("webhook"), "0".to_owned()]),
            _ => return None,
        };
        // Appended events must follow the heads of the logs.
        let before = (name == "events/append.sql")
            .then(|| format!("update topics set last_seq = {NEXT} - 1 where name = any ({})", self.topics()));
        Some(Call { what, arguments, before })
    }
}

fn text(value: &str) -> String {
    format!("'{value}'")
}
