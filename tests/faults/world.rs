//! What the fault tests need beside the shared harness.

use std::time::Duration;

use ridewire::auth::Signer;
use ridewire::domain::UserId;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::checker::{self, Contents};
use crate::subscribers::Replicas;
use crate::support::{Database, Role, SECRET, Server};

/// Where the log of a ride ends that [`Server::open_ride`] has made.
pub(crate) const START: i64 = 1;

/// A token that outlives the test.
pub(crate) fn token(user: &str, role: Role) -> String {
    let signer = Signer::new(SECRET.as_bytes()).unwrap();
    signer.sign(&UserId::parse(user).unwrap(), role, Duration::from_secs(3_600)).unwrap()
}

/// Where two servers are.
pub(crate) fn replicas(one: &Server, two: &Server) -> Replicas {
    Replicas::new([one.address().parse().unwrap(), two.address().parse().unwrap()])
}

/// Makes rides with a driver: their chats are open.
pub(crate) async fn make_rides(replicas: &Replicas, rides: &[String]) {
    let http = reqwest::Client::new();
    let token = token("platform", Role::Service);
    let mut making = JoinSet::new();
    for (number, ride) in rides.iter().enumerate() {
        let url = format!("http://{}/api/v1/rides/{ride}", replicas.get(number));
        let body = json!({"riderId": format!("rider_of_{ride}"), "driverId": format!("driver_of_{ride}")});
        let request = http.put(url).bearer_auth(&token).body(body.to_string());
        making.spawn(async move {
            // A server whose requests wait briefly for Postgres says 503 while the machine is busy. Then the ride may be there.
            let made = loop {
                let answer = request.try_clone().unwrap().send().await.unwrap();
                if answer.status() != 503 {
                    break answer;
                }
            };
            let status = made.status();
            assert!(status == 201 || status == 200, "{status} {}", made.text().await.unwrap());
        });
        if making.len() >= 64 {
            making.join_next().await.unwrap().unwrap();
        }
    }
    making.join_all().await;
}

/// A ride's log as the database has it: seq, type, data.
#[derive(Debug)]
pub(crate) struct Log(pub(crate) Vec<(i64, String, Value)>);

/// Reads a ride's log, which must have no holes and end at its topic's head; and each `message:new` of it must have
/// its row, and the other way round.
pub(crate) async fn log_of(database: &Database, ride: &str) -> Log {
    let client = database.client().await;
    let contents = Contents::read(&client).await;
    let mut problems = checker::check(&[], &contents, &[]);
    problems.retain(|problem| !problem.starts_with("nobody has sent"));
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
        let wanted = self.0.iter().filter(|(seq, ..)| (from..=to).contains(seq));
        wanted.map(|(seq, kind, _)| (*seq, kind.clone())).collect()
    }
}
