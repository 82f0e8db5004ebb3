//! A reader of one ride, or of all rides of a user, on either replica. Each connection resumes after the last cursor in the
//! journal. The reader ends when it has received the last message of every sender on its rides.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, timeout};

use super::client::{Context, LAST_MESSAGE};
use super::journal::{ConnectionOpened, Entry, Frame, Transport};
use super::participants::{self, Client};
use crate::fixtures;
use crate::support::{Item, Parser};

/// A stream without any bytes for this long is dead: heartbeats come every five seconds.
const SILENCE: Duration = Duration::from_secs(10);

/// The `wait` of a poll, in seconds.
const WAIT: u64 = 10;

/// A poll response. The event data is kept as received.
#[derive(Deserialize)]
struct Polled {
    events: Vec<PolledEvent>,
    cursor: String,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

#[derive(Deserialize)]
struct PolledEvent {
    id: String,
    r#type: String,
    data: Box<RawValue>,
}

pub(super) struct Reader {
    context: Context,
    client: Client,
    token: String,
    connection: usize,
    cursor: Option<String>,
    /// By ride: the number of senders whose last message has not arrived.
    missing: HashMap<String, usize>,
    last_messages: HashSet<String>,
}

impl Reader {
    pub(super) fn new(context: &Context, client: &Client, group: usize) -> Self {
        let all_clients = participants::clients(group);
        let senders = |ride: &String| all_clients.iter().filter(|client| client.start.rides.contains(ride)).count();
        Self {
            context: context.clone(),
            client: client.clone(),
            token: fixtures::token(&client.start.user, client.role),
            connection: 0,
            cursor: None,
            missing: client.start.rides.iter().map(|ride| (ride.clone(), senders(ride))).collect(),
            last_messages: HashSet::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let context = self.context.clone();
        let following = async {
            while !self.has_all_last_messages() {
                self.connection += 1;
                let why = match self.client.start.transport {
                    Transport::Stream | Transport::MergedStream => self.stream().await,
                    _ => self.poll().await,
                };
                let client = self.client.start.client.clone();
                // A successful poll is followed by the next one immediately, as in apps.
                if let Err(why) = why {
                    self.context.journal.write(&Entry::Closed { client, connection: self.connection, why });
                    sleep(Duration::from_millis(fastrand::u64(20..300))).await;
                }
            }
        };
        tokio::select! {
            () = following => {}
            // The checker reports the events that are missing.
            () = context.deadline() => {}
        }
    }

    fn has_all_last_messages(&self) -> bool {
        self.missing.values().all(|missing| *missing == 0)
    }

    /// Requests the events after the cursor. Returns the response if it is a 200, otherwise the reason.
    async fn open(&self, what: &str, query: &str, limit: Duration) -> Result<reqwest::Response, String> {
        let start = &self.client.start;
        let path = if start.transport.is_merged() {
            what.to_owned()
        } else {
            format!("messages/rides/{}/{what}", start.rides[0])
        };
        let replica = self.context.replica();
        let mut request = self.context.http.get(format!("http://{replica}/api/v1/{path}?{query}"));
        if let Some(cursor) = self.cursor.as_ref().filter(|_| what == "events") {
            request = request.header("last-event-id", cursor);
        }
        self.context.journal.write(&Entry::ConnectionOpened(ConnectionOpened {
            client: start.client.clone(),
            connection: self.connection,
            from: self.cursor.clone(),
            replica: replica.to_string(),
        }));
        let response = timeout(limit, request.bearer_auth(&self.token).send()).await;
        let response = response.map_err(|_| "no response".to_owned())?.map_err(|error| format!("{error:?}"))?;
        match response.status().as_u16() {
            200 => Ok(response),
            503 => Err("503".to_owned()),
            status => {
                self.context.violation(&start.client, format!("{path} got {status} {:?}", response.text().await));
                Err(status.to_string())
            }
        }
    }

    /// Reads one stream until it ends.
    async fn stream(&mut self) -> Result<(), String> {
        let query = if self.cursor.is_none() { "heartbeat=5&after=0" } else { "heartbeat=5" };
        let mut response = self.open("events", query, Duration::from_secs(5)).await?;
        let mut parser = Parser::default();
        // Clients change networks, so the reader disconnects after a while.
        let until = Instant::now() + Duration::from_secs(fastrand::u64(3..30));
        while !self.has_all_last_messages() {
            if Instant::now() > until {
                return Err("disconnected".to_owned());
            }
            let chunk = timeout(SILENCE, response.chunk()).await.map_err(|_| "no bytes in time".to_owned())?;
            let chunk = chunk.map_err(|error| format!("{error:?}"))?.ok_or_else(|| "end of stream".to_owned())?;
            for item in parser.push(&chunk) {
                if let Item::Event { kind, data, id, .. } = item {
                    self.record(id, kind, data);
                }
            }
        }
        Ok(())
    }

    /// Sends one poll request.
    async fn poll(&mut self) -> Result<(), String> {
        let after = self.cursor.as_deref().unwrap_or("0");
        let limit = Duration::from_secs(WAIT + 5);
        let query = format!("wait={WAIT}&after={after}");
        let response = self.open("poll", &query, limit).await?;
        let body = timeout(limit, response.bytes()).await.map_err(|_| "a truncated response".to_owned())?;
        let body = body.map_err(|error| format!("{error:?}"))?;
        let polled: Polled = match serde_json::from_slice(&body) {
            Ok(polled) => polled,
            Err(error) => {
                let what = format!("{error}: {}", String::from_utf8_lossy(&body));
                self.context.violation(&self.client.start.client, what.clone());
                return Err(what);
            }
        };
        for event in polled.events {
            self.record(Some(event.id), event.r#type, event.data.get().to_owned());
        }
        let rest = serde_json::to_string(&polled.rest).unwrap();
        self.record(Some(polled.cursor), "poll:response".to_owned(), rest);
        Ok(())
    }

    /// Writes an event to the journal first, and then updates the state of the reader.
    fn record(&mut self, id: Option<String>, event: String, data: String) {
        let message = (event == "message:new").then(|| serde_json::from_str::<Value>(&data).unwrap());
        let (client, connection) = (self.client.start.client.clone(), self.connection);
        self.context.journal.write(&Entry::Frame(Frame { client, connection, id: id.clone(), event, data }));
        if id.is_some() {
            self.cursor = id;
        }
        let text = |name: &str| message.as_ref().and_then(|message| message[name].as_str()).unwrap_or_default();
        if text("content").starts_with(LAST_MESSAGE)
            && let Some(missing) = self.missing.get_mut(text("rideId"))
            && self.last_messages.insert(text("id").to_owned())
        {
            *missing -= 1;
        }
    }
}
