//! What operations ask for.

use std::time::Duration;

use reqwest::Method;
use ridewire::auth::Signer;
use ridewire::domain::{Role, Time, UserId};
use serde_json::{Value, json};

use crate::run::Run;
use crate::step::{Replica, What, Who};
use crate::support::SECRET;
use crate::told::{Operation, latitude};

/// For how long a ride is reopened: longer than a run takes.
const REOPENED: Duration = Duration::from_secs(3_600);

impl Run<'_> {
    /// A request below `/api/v1`, if the replica runs.
    pub(crate) fn request(
        &mut self,
        who: Who,
        at: Replica,
        method: Method,
        path: &str,
    ) -> Option<reqwest::RequestBuilder> {
        let base = self.lane.base(at)?;
        let request = self.lane.http.request(method, format!("{base}/api/v1/{path}"));
        let name = self.told.user(who);
        let token = self.tokens.entry(who).or_insert_with(|| {
            let role = match who {
                Who::Rider => Role::Rider,
                Who::Old | Who::New => Role::Driver,
                Who::Support => Role::Support,
                Who::Service => Role::Service,
            };
            let signer = Signer::new(SECRET.as_bytes()).unwrap();
            signer.sign(&UserId::parse(&name).unwrap(), role, Duration::from_secs(3_600)).unwrap()
        });
        Some(request.bearer_auth(token))
    }

    pub(crate) fn put(&self, driver: Who) -> Value {
        json!({"riderId": self.told.user(Who::Rider), "driverId": self.told.user(driver)})
    }

    /// What an operation asks for; `None` where there is nothing that it could be about.
    pub(crate) async fn operation(
        &mut self,
        op: usize,
        operation: &mut Operation,
        at: Replica,
    ) -> Option<reqwest::RequestBuilder> {
        let ride = self.told.ride(operation.ride);
        let send = |content: &str, name: Option<String>| match name {
            Some(name) => json!({"rideId": ride, "content": content, "clientMessageId": name}),
            None => json!({"rideId": ride, "content": content}),
        };
        Some(match operation.what {
            What::Send { who, named } => {
                let body = send(&operation.content, named.then(|| op.to_string()));
                self.request(who, at, Method::POST, "messages")?.json(&body)
            }
            What::Retry { of } => {
                let What::Send { who, named: true } = self.told.operations.get(&of)?.what else { return None };
                let body = send(&self.told.operations.get(&of)?.content, Some(of.to_string()));
                self.request(who, at, Method::POST, "messages")?.json(&body)
            }
            What::Edit { of } => {
                let path = self.message(of, operation).await?;
                let sender = self.sender(of)?;
                self.request(sender, at, Method::PATCH, &path)?.json(&json!({"content": operation.content}))
            }
            What::Delete { of, by_support } => {
                let path = self.message(of, operation).await?;
                let who = if by_support { Who::Support } else { self.sender(of)? };
                self.request(who, at, Method::DELETE, &path)?
            }
            What::Mark { who, read } => {
                let last =
                    "select id::text from messages where ride_id = $1 and sender_id <> $2 order by seq desc limit 1";
                let message: String =
                    self.lane.client.query_opt(last, &[&ride, &self.told.user(who)]).await.unwrap()?.get(0);
                let path = format!("messages/{message}/{}", if read { "read" } else { "delivered" });
                operation.message = Some(message);
                self.request(who, at, Method::POST, &path)?
            }
            What::Assign { driver } => {
                let body = self.put(driver);
                self.request(Who::Service, at, Method::PUT, &format!("rides/{ride}"))?.json(&body)
            }
            What::Unassign => {
                let body = json!({"riderId": self.told.user(Who::Rider), "driverId": null});
                self.request(Who::Service, at, Method::PUT, &format!("rides/{ride}"))?.json(&body)
            }
            What::Reopen => {
                let body = json!({"until": Time::now().plus(REOPENED).to_string()});
                self.request(Who::Support, at, Method::POST, &format!("rides/{ride}/reopen"))?.json(&body)
            }
            What::Complete => {
                let body = json!({"riderId": self.told.user(Who::Rider), "status": "completed"});
                self.request(Who::Service, at, Method::PUT, &format!("rides/{ride}"))?.json(&body)
            }
            What::Cancel => {
                self.request(Who::Service, at, Method::POST, &format!("rides/{ride}/cancel"))?.json(&json!({}))
            }
            What::Locate { who } => {
                let body = json!({"lat": latitude(op), "lng": 13.0});
                self.request(who, at, Method::POST, &format!("rides/{ride}/location"))?.json(&body)
            }
            What::Type { who } => {
                let body = json!({"typing": true});
                self.request(who, at, Method::POST, &format!("messages/rides/{ride}/typing"))?.json(&body)
            }
            What::Poll { who } => {
                self.request(who, at, Method::GET, &format!("messages/rides/{ride}/poll?after=0&wait=0"))?
            }
            What::History { who } => self.request(who, at, Method::GET, &format!("messages/rides/{ride}?limit=200"))?,
        })
    }

    fn sender(&self, op: usize) -> Option<Who> {
        match self.told.operations.get(&op)?.what {
            What::Send { who, .. } => Some(who),
            _ => None,
        }
    }

    /// The path of the message of another operation: as that was told, or as the database has it.
    async fn message(&self, of: usize, operation: &mut Operation) -> Option<String> {
        let other = self.told.operations.get(&of)?;
        let told = other.answer().and_then(|answer| answer.body["id"].as_str().map(str::to_owned));
        let id = match told {
            Some(id) => id,
            None => {
                let found = "select id::text from messages where content = $1 limit 1";
                self.lane.client.query_opt(found, &[&other.content]).await.unwrap()?.get(0)
            }
        };
        operation.message = Some(id.clone());
        Some(format!("messages/{id}"))
    }
}
