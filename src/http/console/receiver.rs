//! The receiver of a demo's webhooks. It verifies each delivery as a platform does, and keeps the latest ones for the page.
//!
//! Only a demo on a loopback address has a receiver. Its webhook is created at the start, with a secret that is not stored elsewhere.
//! The server may send to this one address although it is a loopback address ([`crate::webhooks::WebhooksConfig`]).

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
use crate::http::api_error::ApiError;
use crate::http::body::{Json, read};
use crate::http::context::Api;
use crate::http::params::number;
use crate::signature::{ID, SIGNATURE, Secret, TIMESTAMP};
use crate::store::{NewWebhook, StoreError};
use crate::webhooks::{like_patterns, new_id};

/// The maximum number of deliveries that are kept.
const MAX_DELIVERIES: usize = 100;

/// The maximum size of a delivery: an event has about as many bytes as the request that caused it.
const MAX_BYTES: usize = 256 * 1024;

/// The description that identifies the webhooks of earlier runs.
const DESCRIPTION: &str = "The receiver of the demo's console";

/// Receives the webhooks of a demo.
#[derive(Debug)]
pub struct WebhookReceiver {
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

/// A delivery with a valid signature.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Delivery {
    /// The number of the delivery, from 1.
    number: u64,
    id: String,
    received_at: Time,
    /// Whether the same event was received before, because delivery is at least once.
    is_repeated: bool,
    body: Box<RawValue>,
}

/// The response of `GET /console/deliveries`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    webhook: Option<String>,
    url: &'a str,
    total: u64,
    rejected: u64,
    deliveries: Vec<Delivery>,
}

impl WebhookReceiver {
    /// Creates a receiver of a server that listens at this address, without TLS.
    pub(crate) fn at(address: SocketAddr) -> Self {
        let url = format!("http://{address}/console/receiver");
        Self { url, secret: Secret::new(), received: Mutex::default() }
    }

    /// Creates the webhook that delivers all later events to this receiver. Deletes the webhooks of earlier runs, whose secrets are
    /// lost.
    pub(crate) async fn register(&self, api: &Api) -> Result<(), StoreError> {
        for webhook in api.shards.first().store.webhooks().await? {
            if webhook.description.as_deref() == Some(DESCRIPTION) {
                api.shards.first().store.delete_webhook(&webhook.id).await?;
            }
        }
        let (id, types) = (new_id(), ["*".to_owned()]);
        let new = NewWebhook {
            id: &id,
            url: &self.url,
            types: &types,
            patterns: &like_patterns(&types).unwrap_or_default(),
            description: Some(DESCRIPTION),
            secret: self.secret.bytes(),
        };
        api.shards.first().store.create_webhook(&new).await?;
        self.received().webhook = Some(id);
        api.webhooks.wake();
        Ok(())
    }

    fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Verifies and keeps a delivery.
    fn accept(&self, id: String, timestamp: &str, signatures: &str, body: &[u8]) -> Result<(), Error> {
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
        if received.last.len() > MAX_DELIVERIES {
            received.last.pop_front();
        }
        Ok(())
    }

    /// Returns the kept deliveries after the one with this number.
    fn since(&self, number: u64) -> View<'_> {
        let received = self.received();
        let deliveries = received.last.iter().filter(|delivery| delivery.number > number).cloned().collect();
        let Received { webhook, total, rejected, .. } = &*received;
        View { webhook: webhook.clone(), url: &self.url, total: *total, rejected: *rejected, deliveries }
    }
}

/// `POST /console/receiver`: a delivery.
pub(super) struct ReceiveWebhook(pub(super) Arc<Console>);

impl ReceiveWebhook {
    async fn receive(&self, req: &mut Request, depot: &Depot) -> Result<(), ApiError> {
        let receiver = self.0.receiver().ok_or(ApiError::NotFound)?;
        let [id, timestamp, signatures] = [ID, TIMESTAMP, SIGNATURE].map(|name| {
            let value = req.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        });
        let body = read(req, depot, MAX_BYTES).await?;
        Ok(receiver.accept(id, &timestamp, &signatures, body)?)
    }
}

#[async_trait]
impl Handler for ReceiveWebhook {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, _ctrl: &mut FlowCtrl) {
        match self.receive(req, depot).await {
            Ok(()) => {
                res.status_code(StatusCode::NO_CONTENT);
            }
            Err(error) => error.write(req, depot, res).await,
        }
    }
}

/// `GET /console/deliveries`: the received deliveries, for the demo's own page only.
pub(super) struct ListDeliveries(pub(super) Arc<Console>);

impl ListDeliveries {
    fn view(&self, req: &Request) -> Result<Option<Json<()>>, ApiError> {
        let Some(receiver) = self.0.receiver().filter(|_| is_own_page(req)) else { return Ok(None) };
        let after = number(req, "after", 0..=u64::MAX)?.unwrap_or_default();
        Json::ok(&receiver.since(after)).map(Some)
    }
}

#[async_trait]
impl Handler for ListDeliveries {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, _ctrl: &mut FlowCtrl) {
        match self.view(req) {
            Ok(Some(view)) => view.render(res),
            Ok(None) => {
                res.status_code(StatusCode::NO_CONTENT);
            }
            Err(error) => return error.write(req, depot, res).await,
        }
        res.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signed_deliveries_are_accepted_and_the_latest_ones_are_kept() {
        let receiver = WebhookReceiver::at(SocketAddr::from(([127, 0, 0, 1], 8080)));
        let now = Time::now().as_unix_seconds();
        let deliver = |id: &str, secret: &Secret| {
            let body = br#"{"type":"message.new"}"#;
            receiver.accept(id.to_owned(), &now.to_string(), &secret.sign(id, now, body), body)
        };
        assert!(deliver("evt_1", &Secret::new()).is_err());
        for number in 1..=MAX_DELIVERIES + 2 {
            deliver(&format!("evt_{number}"), &receiver.secret).unwrap();
        }
        deliver("evt_50", &receiver.secret).unwrap();
        let view = receiver.since(0);
        assert_eq!((view.total, view.rejected, view.deliveries.len()), (103, 1, MAX_DELIVERIES));
        assert_eq!((view.deliveries[0].number, view.deliveries[0].is_repeated), (4, false));
        let newest = receiver.since(102).deliveries;
        assert_eq!((newest.len(), newest[0].id.as_str(), newest[0].is_repeated), (1, "evt_50", true));
    }
}
