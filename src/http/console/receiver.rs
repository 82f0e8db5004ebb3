//! The receiver of a demo's webhooks. It verifies each delivery as a platform does, and keeps the last ones for the page.
//!
//! Only a demo on a loopback address has one. Its webhook is created at the start, with a secret that is nowhere else; the server
//! may send to this one address although it is a loopback address ([`crate::webhooks::WebhooksConfig`]).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use salvo::http::StatusCode;
use salvo::http::header::{CACHE_CONTROL, HeaderValue};
use salvo::{Depot, FlowCtrl, Handler, Request, Response, Scribe, Writer as _, async_trait};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Console, is_own_page};
use crate::domain::{Error, Time};
use crate::http::body::{Json, read};
use crate::http::context::Api;
use crate::http::params::number;
use crate::http::refusal::Refusal;
use crate::signature::{ID, SIGNATURE, Secret, TIMESTAMP};
use crate::store::{NewWebhook, StoreError};
use crate::webhooks::{new_id, patterns};

/// How many deliveries are kept.
const KEPT: usize = 100;

/// The largest delivery: an event has about as many bytes as the request that caused it.
const MAX_BYTES: usize = 256 * 1024;

/// By which the webhooks of earlier runs are found.
const DESCRIPTION: &str = "The receiver of the demo's console";

/// Receives the webhooks of a demo.
#[derive(Debug)]
pub struct Receiver {
    url: String,
    secret: Secret,
    received: Mutex<Received>,
}

#[derive(Debug, Default)]
struct Received {
    webhook: Option<String>,
    total: u64,
    rejected: u64,
    last: VecDeque<Delivery>,
}

/// A delivery whose signature is right.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Delivery {
    /// Counts all deliveries, from 1.
    number: u64,
    id: String,
    received_at: Time,
    /// Whether the same event was received before: delivery is at least once.
    is_repeated: bool,
    body: Box<RawValue>,
}

/// What the page is given.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    webhook: Option<String>,
    url: &'a str,
    total: u64,
    rejected: u64,
    deliveries: Vec<Delivery>,
}

impl Receiver {
    /// A receiver whose server listens at this address, without TLS.
    pub(crate) fn at(address: SocketAddr) -> Self {
        let url = format!("http://{address}/console/receiver");
        Self { url, secret: Secret::new(), received: Mutex::default() }
    }

    /// Has every event from now on delivered here. The webhooks of earlier runs are deleted: nobody has their secrets any more.
    pub(crate) async fn register(&self, api: &Api) -> Result<(), StoreError> {
        for webhook in api.store.webhooks().await? {
            if webhook.description.as_deref() == Some(DESCRIPTION) {
                api.store.delete_webhook(&webhook.id).await?;
            }
        }
        let (id, types) = (new_id(), ["*".to_owned()]);
        let new = NewWebhook {
            id: &id,
            url: &self.url,
            types: &types,
            patterns: &patterns(&types).unwrap_or_default(),
            description: Some(DESCRIPTION),
            secret: self.secret.bytes(),
        };
        api.store.create_webhook(&new).await?;
        self.received().webhook = Some(id);
        api.webhooks.wake();
        Ok(())
    }

    fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a delivery, if it is one.
    fn take(&self, id: String, timestamp: &str, signatures: &str, body: &[u8]) -> Result<(), Error> {
        let received_at = Time::now();
        let is_signed = self.secret.verifies(&id, timestamp, signatures, body, received_at.as_unix_seconds());
        let mut received = self.received();
        if !is_signed {
            received.rejected += 1;
            return Err(Error::invalid(SIGNATURE, "must be the signature of this body by this webhook's secret"));
        }
        let body = serde_json::from_slice(body).map_err(|_| Error::invalid("", "must be JSON"))?;
        received.total += 1;
        let is_repeated = received.last.iter().any(|delivery| delivery.id == id);
        let delivery = Delivery { number: received.total, id, received_at, is_repeated, body };
        received.last.push_back(delivery);
        if received.last.len() > KEPT {
            received.last.pop_front();
        }
        Ok(())
    }

    /// The deliveries after the one with this number, as far as they are kept.
    fn since(&self, number: u64) -> View<'_> {
        let received = self.received();
        let deliveries = received.last.iter().filter(|delivery| delivery.number > number).cloned().collect();
        let Received { webhook, total, rejected, .. } = &*received;
        View { webhook: webhook.clone(), url: &self.url, total: *total, rejected: *rejected, deliveries }
    }
}

/// `POST /console/receiver`: a delivery.
pub(super) struct Receive(pub(super) Arc<Console>);

impl Receive {
    async fn receive(&self, req: &mut Request, depot: &Depot) -> Result<(), Refusal> {
        let receiver = self.0.receiver().ok_or(Refusal::NotFound)?;
        let [id, timestamp, signatures] = [ID, TIMESTAMP, SIGNATURE].map(|name| {
            let value = req.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        });
        let body = read(req, depot, MAX_BYTES).await?;
        Ok(receiver.take(id, &timestamp, &signatures, body)?)
    }
}

#[async_trait]
impl Handler for Receive {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, _ctrl: &mut FlowCtrl) {
        match self.receive(req, depot).await {
            Ok(()) => {
                res.status_code(StatusCode::NO_CONTENT);
            }
            Err(refusal) => refusal.write(req, depot, res).await,
        }
    }
}

/// `GET /console/deliveries`: what was received, for the demo's own page, as its tokens are.
pub(super) struct Deliveries(pub(super) Arc<Console>);

impl Deliveries {
    fn view(&self, req: &Request) -> Result<Option<Json<()>>, Refusal> {
        let Some(receiver) = self.0.receiver().filter(|_| is_own_page(req)) else { return Ok(None) };
        let after = number(req, "after", 0..=u64::MAX)?.unwrap_or_default();
        Json::ok(&receiver.since(after)).map(Some)
    }
}

#[async_trait]
impl Handler for Deliveries {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, _ctrl: &mut FlowCtrl) {
        match self.view(req) {
            Ok(Some(view)) => view.render(res),
            Ok(None) => {
                res.status_code(StatusCode::NO_CONTENT);
            }
            Err(refusal) => return refusal.write(req, depot, res).await,
        }
        res.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_taken_with_its_signature_alone_and_the_last_ones_are_kept() {
        let receiver = Receiver::at(SocketAddr::from(([127, 0, 0, 1], 8080)));
        let now = Time::now().as_unix_seconds();
        let deliver = |id: &str, secret: &Secret| {
            let body = br#"{"type":"message.new"}"#;
            receiver.take(id.to_owned(), &now.to_string(), &secret.sign(id, now, body), body)
        };
        assert!(deliver("evt_1", &Secret::new()).is_err());
        for number in 1..=KEPT + 2 {
            deliver(&format!("evt_{number}"), &receiver.secret).unwrap();
        }
        deliver("evt_50", &receiver.secret).unwrap();
        let view = receiver.since(0);
        assert_eq!((view.total, view.rejected, view.deliveries.len()), (103, 1, KEPT));
        assert_eq!((view.deliveries[0].number, view.deliveries[0].is_repeated), (4, false));
        let newest = receiver.since(102).deliveries;
        assert_eq!((newest.len(), newest[0].id.as_str(), newest[0].is_repeated), (1, "evt_50", true));
    }
}
