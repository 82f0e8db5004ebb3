//! Follows a ride, or everything of a user, over any replica: each connection continues after the last cursor that was
//! written down. It ends when it has seen the last message of everybody on its rides.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, timeout};

use super::client::{Context, LAST};
use super::journal::{Entry, Frame, Opened, Transport};
use super::people::{self, Client};
use crate::support::{Item, Parser};
use crate::world;

/// A stream that has been silent for so long is dead: comments come every five seconds.
const SILENCE: Duration = Duration::from_secs(10);

/// How long a poll waits, in seconds.
const WAIT: u64 = 10;

/// An answer to a poll, its data as it came.
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

pub(super) struct Follower {
    context: Context,
    client: Client,
    token: String,
    connection: usize,
    cursor: Option<String>,
    /// By ride: who has yet to say their last.
    missing: HashMap<String, usize>,
    lasts: HashSet<String>,
}

impl Follower {
    pub(super) fn new(context: &Context, client: &Client, group: usize) -> Self {
        let everybody = people::clients(group);
        let senders = |ride: &String| everybody.iter().filter(|client| client.begun.rides.contains(ride)).count();
        Self {
            context: context.clone(),
            client: client.clone(),
            token: world::token(&client.begun.user, client.role),
            connection: 0,
            cursor: None,
            missing: client.begun.rides.iter().map(|ride| (ride.clone(), senders(ride))).collect(),
            lasts: HashSet::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let context = self.context.clone();
        let following = async {
            while !self.has_all() {
                self.connection += 1;
                let why = match self.client.begun.transport {
                    Transport::Stream | Transport::MergedStream => self.stream().await,
                    _ => self.poll().await,
                };
                let client = self.client.begun.client.clone();
                // A poll that was answered is continued at once, as apps do.
                if let Err(why) = why {
                    self.context.journal.write(&Entry::Closed { client, connection: self.connection, why });
                    sleep(Duration::from_millis(fastrand::u64(20..300))).await;
                }
            }
        };
        tokio::select! {
            () = following => {}
            // What it has not seen the checker will miss.
            () = context.deadline() => {}
        }
    }

    fn has_all(&self) -> bool {
        self.missing.values().all(|missing| *missing == 0)
    }

    /// Asks for what follows the cursor; the body of a 200, or why there is none.
    async fn open(&self, what: &str, query: &str, patience: Duration) -> Result<reqwest::Response, String> {
        let begun = &self.client.begun;
        let path = if begun.transport.is_merged() {
            what.to_owned()
        } else {
            format!("messages/rides/{}/{what}", begun.rides[0])
        };
        let replica = self.context.replica();
        let mut request = self.context.http.get(format!("http://{replica}/api/v1/{path}?{query}"));
        if let Some(cursor) = self.cursor.as_ref().filter(|_| what == "events") {
            request = request.header("last-event-id", cursor);
        }
        self.context.journal.write(&Entry::Opened(Opened {
            client: begun.client.clone(),
            connection: self.connection,
            from: self.cursor.clone(),
            replica: replica.to_string(),
        }));
        let answer = timeout(patience, request.bearer_auth(&self.token).send()).await;
        let answer = answer.map_err(|_| "no answer".to_owned())?.map_err(|error| format!("{error:?}"))?;
        match answer.status().as_u16() {
            200 => Ok(answer),
            503 => Err("503".to_owned()),
            status => {
                self.context.wrong(&begun.client, format!("{path} was answered {status} {:?}", answer.text().await));
                Err(status.to_string())
            }
        }
    }

    /// One stream, to its end.
    async fn stream(&mut self) -> Result<(), String> {
        let query = if self.cursor.is_none() { "heartbeat=5&after=0" } else { "heartbeat=5" };
        let mut answer = self.open("events", query, Duration::from_secs(5)).await?;
        let mut parser = Parser::default();
        // People move between networks.
        let until = Instant::now() + Duration::from_secs(fastrand::u64(3..30));
        while !self.has_all() {
            if Instant::now() > until {
                return Err("left".to_owned());
            }
            let chunk = timeout(SILENCE, answer.chunk()).await.map_err(|_| "silence".to_owned())?;
            let chunk = chunk.map_err(|error| format!("{error:?}"))?.ok_or_else(|| "its end".to_owned())?;
            for item in parser.push(&chunk) {
                if let Item::Event { kind, data, id, .. } = item {
                    self.take(id, kind, data);
                }
            }
        }
        Ok(())
    }

    /// One poll.
    async fn poll(&mut self) -> Result<(), String> {
        let after = self.cursor.as_deref().unwrap_or("0");
        let patience = Duration::from_secs(WAIT + 5);
        let query = format!("wait={WAIT}&after={after}");
        let answer = self.open("poll", &query, patience).await?;
        let body = timeout(patience, answer.bytes()).await.map_err(|_| "half an answer".to_owned())?;
        let body = body.map_err(|error| format!("{error:?}"))?;
        let polled: Polled = match serde_json::from_slice(&body) {
            Ok(polled) => polled,
            Err(error) => {
                let what = format!("{error}: {}", String::from_utf8_lossy(&body));
                self.context.wrong(&self.client.begun.client, what.clone());
                return Err(what);
            }
        };
        for event in polled.events {
            self.take(Some(event.id), event.r#type, event.data.get().to_owned());
        }
        let rest = serde_json::to_string(&polled.rest).unwrap();
        self.take(Some(polled.cursor), "poll:answer".to_owned(), rest);
        Ok(())
    }

    /// Writes an event down, and only then goes by it.
    fn take(&mut self, id: Option<String>, event: String, data: String) {
        let message = (event == "message:new").then(|| serde_json::from_str::<Value>(&data).unwrap());
        let (client, connection) = (self.client.begun.client.clone(), self.connection);
        self.context.journal.write(&Entry::Frame(Frame { client, connection, id: id.clone(), event, data }));
        if id.is_some() {
            self.cursor = id;
        }
        let text = |name: &str| message.as_ref().and_then(|message| message[name].as_str()).unwrap_or_default();
        if text("content").starts_with(LAST)
            && let Some(missing) = self.missing.get_mut(text("rideId"))
            && self.lasts.insert(text("id").to_owned())
        {
            *missing -= 1;
        }
    }
}
