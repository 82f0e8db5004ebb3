//! The requests of operations.

use std::time::Duration;

use reqwest::Method;
use ridewire::auth::Signer;
use ridewire::domain::{Role, Time, UserId};
use serde_json::{Value, json};

use crate::record::{Operation, latitude};
use crate::run::Run;
use crate::step::{Action, Actor, Replica};
use crate::support::SECRET;

/// How long a ride is reopened. It is longer than a run.
const REOPENED: Duration = Duration::from_secs(3_600);

impl Run<'_> {
    /// Builds a request below `/api/v1`, if the replica runs.
    pub(crate) fn request(
        &mut self,
        actor: Actor,
        at: Replica,
        method: Method,
        path: &str,
    ) -> Option<reqwest::RequestBuilder> {
        let base = self.replicas.base(at)?;
        let request = self.replicas.http.request(method, format!("{base}/api/v1/{path}"));
        let name = self.record.user(actor);
        let token = self.tokens.entry(actor).or_insert_with(|| {
            let role = match actor {
                Actor::Rider => Role::Rider,
                Actor::FirstDriver | Actor::SecondDriver => Role::Driver,
                Actor::Support => Role::Support,
                Actor::Service => Role::Service,
            };
            let signer = Signer::new(SECRET.as_bytes()).unwrap();
            signer.sign(&UserId::parse(&name).unwrap(), role, Duration::from_secs(3_600)).unwrap()
        });
        Some(request.bearer_auth(token))
    }

    pub(crate) fn put(&self, driver: Actor) -> Value {
        json!({"riderId": self.record.user(Actor::Rider), "driverId": self.record.user(driver)})
    }

    /// Builds the request of an operation. Returns `None` if the message or ride that it is about does not exist.
    pub(crate) async fn operation(
        &mut self,
        op: usize,
        operation: &mut Operation,
        at: Replica,
    ) -> Option<reqwest::RequestBuilder> {
        let ride = self.record.ride(operation.ride);
        let send = |content: &str, name: Option<String>| match name {
            Some(name) => json!({"rideId": ride, "content": content, "clientMessageId": name}),
            None => json!({"rideId": ride, "content": content}),
        };
        Some(match operation.action {
            Action::Send { actor, named } => {
                let body = send(&operation.content, named.then(|| op.to_string()));
                self.request(actor, at, Method::POST, "messages")?.json(&body)
            }
            Action::Retry { of } => {
                let Action::Send { actor, named: true } = self.record.operations.get(&of)?.action else { return None };
                let body = send(&self.record.operations.get(&of)?.content, Some(of.to_string()));
                self.request(actor, at, Method::POST, "messages")?.json(&body)
            }
            Action::Edit { of } => {
                let path = self.message(of, operation).await?;
                let sender = self.sender(of)?;
                self.request(sender, at, Method::PATCH, &path)?.json(&json!({"content": operation.content}))
            }
            Action::Delete { of, by_support } => {
                let path = self.message(of, operation).await?;
                let actor = if by_support { Actor::Support } else { self.sender(of)? };
                self.request(actor, at, Method::DELETE, &path)?
            }
            Action::UpdateReceipt { actor, read } => {
                let last =
                    "select id::text from messages where ride_id = $1 and sender_id <> $2 order by seq desc limit 1";
                let message: String =
                    self.replicas.client.query_opt(last, &[&ride, &self.record.user(actor)]).await.unwrap()?.get(0);
                let path = format!("messages/{message}/{}", if read { "read" } else { "delivered" });
                operation.message = Some(message);
                self.request(actor, at, Method::POST, &path)?
            }
            Action::Assign { driver } => {
                let body = self.put(driver);
                self.request(Actor::Service, at, Method::PUT, &format!("rides/{ride}"))?.json(&body)
            }
            Action::Unassign => {
                let body = json!({"riderId": self.record.user(Actor::Rider), "driverId": null});
                self.request(Actor::Service, at, Method::PUT, &format!("rides/{ride}"))?.json(&body)
            }
            Action::Reopen => {
                let body = json!({"until": Time::now().plus(REOPENED).to_string()});
                self.request(Actor::Support, at, Method::POST, &format!("rides/{ride}/reopen"))?.json(&body)
            }
            Action::Complete => {
                let body = json!({"riderId": self.record.user(Actor::Rider), "status": "completed"});
                self.request(Actor::Service, at, Method::PUT, &format!("rides/{ride}"))?.json(&body)
            }
            Action::Cancel => {
                self.request(Actor::Service, at, Method::POST, &format!("rides/{ride}/cancel"))?.json(&json!({}))
            }
            Action::Locate { actor } => {
                let body = json!({"lat": latitude(op), "lng": 13.0});
                self.request(actor, at, Method::POST, &format!("rides/{ride}/location"))?.json(&body)
            }
            Action::Type { actor } => {
                let body = json!({"typing": true});
                self.request(actor, at, Method::POST, &format!("messages/rides/{ride}/typing"))?.json(&body)
            }
            Action::Poll { actor } => {
                self.request(actor, at, Method::GET, &format!("messages/rides/{ride}/poll?after=0&wait=0"))?
            }
            Action::History { actor } => {
                self.request(actor, at, Method::GET, &format!("messages/rides/{ride}?limit=200"))?
            }
        })
    }

    fn sender(&self, op: usize) -> Option<Actor> {
        match self.record.operations.get(&op)?.action {
            Action::Send { actor, .. } => Some(actor),
            _ => None,
        }
    }

    /// Returns the path of the message of another operation, by its response or by the database.
    async fn message(&self, of: usize, operation: &mut Operation) -> Option<String> {
        let other = self.record.operations.get(&of)?;
        let returned = other.response().and_then(|response| response.body["id"].as_str().map(str::to_owned));
        let id = match returned {
            Some(id) => id,
            None => {
                let found = "select id::text from messages where content = $1 limit 1";
                self.replicas.client.query_opt(found, &[&other.content]).await.unwrap()?.get(0)
            }
        };
        operation.message = Some(id.clone());
        Some(format!("messages/{id}"))
    }
}
