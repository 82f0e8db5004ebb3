//! Helpers of the fault tests beside the shared harness.

use std::time::Duration;

use ridewire::auth::Signer;
use ridewire::domain::UserId;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::checker::{self, Contents};
use crate::subscribers::Replicas;
use crate::support::{Database, Role, SECRET, Server};

/// The head of a ride's log after [`Server::open_ride`].
pub(crate) const START: i64 = 1;

/// Returns a token that is valid for the whole test.
pub(crate) fn token(user: &str, role: Role) -> String {
    let signer = Signer::new(SECRET.as_bytes()).unwrap();
    signer.sign(&UserId::parse(user).unwrap(), role, Duration::from_secs(3_600)).unwrap()
}

/// Returns the addresses of two servers.
pub(crate) fn replicas(one: &Server, two: &Server) -> Replicas {
    Replicas::new([one.address().parse().unwrap(), two.address().parse().unwrap()])
}

/// Creates rides with a driver, so their chats are open.
pub(crate) async fn create_rides(replicas: &Replicas, rides: &[String]) {
    let http = reqwest::Client::new();
    let token = token("platform", Role::Service);
    let mut creating = JoinSet::new();
    for (number, ride) in rides.iter().enumerate() {
        let url = format!("http://{}/api/v1/rides/{ride}", replicas.get(number));
        let body = json!({"riderId": format!("rider_of_{ride}"), "driverId": format!("driver_of_{ride}")});
        let request = http.put(url).bearer_auth(&token).body(body.to_string());
        creating.spawn(async move {
            // With a short database timeout, a busy server returns 503. The ride may exist then, so the retry gets 200.
            let created = loop {
                let response = request.try_clone().unwrap().send().await.unwrap();
                if response.status() != 503 {
                    break response;
                }
            };
            let status = created.status();
            assert!(status == 201 || status == 200, "{status} {}", created.text().await.unwrap());
        });
        if creating.len() >= 64 {
            creating.join_next().await.unwrap().unwrap();
        }
    }
    creating.join_all().await;
}

/// A ride's log in the database: seq, type and data of each event.
#[derive(Debug)]
pub(crate) struct Log(pub(crate) Vec<(i64, String, Value)>);

/// Reads a ride's log. It must have no holes and end at its topic's head. `message:new` events and rows must match one to
/// one.
pub(crate) async fn ride_log(database: &Database, ride: &str) -> Log {
    let client = database.client().await;
    let contents = Contents::read(&client).await;
    let mut problems = checker::check(&[], &contents, &[]);
    problems.retain(|problem| !problem.starts_with("never sent: "));
    assert!(problems.is_empty(), "{problems:#?}");
    let events = contents.events.get(ride).into_iter().flatten();
    Log(events.map(|event| (event.seq, event.kind.clone(), serde_json::from_str(&event.data).unwrap())).collect())
}

impl Log {
    pub(crate) fn head(&self) -> i64 {
        self.0.last().map_or(0, |(seq, ..)| *seq)
    }

    pub(crate) fn kinds(&self) -> Vec<&str> {
        self.0.iter().map(|(_, kind, _)| kind.as_str()).collect()
    }

    pub(crate) fn count(&self, kind: &str) -> usize {
        self.seqs_of(kind).len()
    }

    pub(crate) fn seqs_of(&self, kind: &str) -> Vec<i64> {
        self.0.iter().filter(|(_, of, _)| of == kind).map(|(seq, ..)| *seq).collect()
    }

    pub(crate) fn messages(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(|(_, kind, _)| kind == "message:new").map(|(.., data)| data)
    }

    pub(crate) fn between(&self, from: i64, to: i64) -> Vec<(i64, String)> {
        let selected = self.0.iter().filter(|(seq, ..)| (from..=to).contains(seq));
        selected.map(|(seq, kind, _)| (*seq, kind.clone())).collect()
    }
}
