//! The state that all handlers share: the [`Api`].

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;

use super::admission::{Admission, AdmissionError, AdmissionGuard};
use super::api_error::ApiError;
use super::interruption::Interruptions;
use super::metrics::{Metrics, Transport};
use super::rate_limit::SendRateLimiter;
use crate::audit::AuditLog;
use crate::auth::{Tickets, Verifier};
use crate::domain::{Caller, Error, RideId, RideRole, RideSnapshot, Role, Sharded, Topic};
use crate::handovers::HandoverRecorder;
use crate::jwks::Jwks;
use crate::memory::Memory;
use crate::moderation::Moderation;
use crate::push::WebPush;
use crate::realtime::{PresenceGuard, ReadContext, Revocations, RideReader, ShardLog};
use crate::shards::Shard;
use crate::traces::Traces;
use crate::webhooks::Webhooks;
use crate::writer::Broadcaster;
use crate::writer::relay::Relay;

/// The state that all handlers share.
#[derive(Debug)]
pub struct Api {
    /// The shards, each with its store and its writer.
    pub shards: Sharded<Shard>,
    /// The logs of the shards, for readers.
    pub logs: Arc<Sharded<ShardLog>>,
    /// Carries out broadcasts, one at a time.
    pub broadcaster: Arc<Broadcaster>,
    /// Verifies tokens.
    pub verifier: Arc<Verifier>,
    /// The issuer's key set, where it is configured.
    pub jwks: Option<Arc<Jwks>>,
    /// Revoked logins.
    pub revocations: Arc<Revocations>,
    /// Stream tickets.
    pub tickets: Tickets,
    /// The send limit per user.
    pub send_rate: SendRateLimiter,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The traces of requests.
    pub traces: Arc<Traces>,
    /// The audit log of support and service users.
    pub audit: Arc<AuditLog>,
    /// Records when messages are handed to connections.
    pub handovers: Arc<HandoverRecorder>,
    /// Checks content before it is stored, where moderation is on.
    pub moderation: Option<Moderation>,
    /// The platform's webhooks.
    pub webhooks: Arc<Webhooks>,
    /// Appends events to the feed, where the feed is on.
    pub relay: Option<Arc<Relay>>,
    /// Web Push, where it is on.
    pub push: Option<Arc<WebPush>>,
    /// Timeouts and intervals.
    pub limits: Limits,
    /// The prefix of the URLs of error pages, where it is configured.
    pub public_url: Option<String>,
    /// Limits open streams and polls, and drains them.
    pub admission: Arc<Admission>,
    /// Limits the memory of requests and responses.
    pub memory: Arc<Memory>,
    /// Ends open streams and polls early.
    pub interruptions: Arc<Interruptions>,
}

/// Timeouts and intervals of the API.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a user stays online after their last connection has closed.
    pub presence_grace: Duration,
    /// The silence after which a stream sends a heartbeat, unless the client chooses another interval.
    pub heartbeat: Duration,
    /// The time in which a request's body must arrive completely.
    pub body_deadline: Duration,
}

impl Api {
    /// Tracks an open connection of a ride's participant. The participant is online until the guard is dropped, and for `grace`
    /// after that.
    pub(super) fn track_presence(&self, reader: &RideReader, grace: Duration) -> Option<PresenceGuard> {
        let (access, ride, user) = (reader.access(), reader.ride(), &reader.caller().user);
        let is_on_ride = matches!(access.role, RideRole::Rider | RideRole::Driver) && access.until_seq.is_none();
        let presence = &self.shards.of_ride(ride).presence;
        is_on_ride.then(|| presence.connect(Topic::ride(ride), user.clone(), grace))
    }

    /// Tracks an open connection of a driver: a driver can be available only while online.
    pub(super) fn track_driver_presence(&self, caller: &Caller, grace: Duration) -> Option<PresenceGuard> {
        let is_driver = caller.role == Role::Driver;
        let presence = &self.shards.first().presence;
        is_driver.then(|| presence.connect(Topic::drivers(), caller.user.clone(), grace))
    }

    /// Loads a ride as it is now.
    pub(super) async fn snapshot(&self, ride: &RideId) -> Result<RideSnapshot, ApiError> {
        Ok(self.shards.of_ride(ride).store.snapshot(ride).await?.ok_or(Error::RideNotFound)?)
    }

    /// Returns an error unless there is memory for another request or a large response.
    pub(super) fn require_memory(&self) -> Result<(), Error> {
        match self.memory.has_capacity() {
            true => Ok(()),
            false => Err(Error::Unavailable).inspect_err(|_| self.metrics.rejected("memory")),
        }
    }

    /// Admits a poll of the caller.
    pub(super) fn admit_poll(&self, caller: &Caller) -> Result<ConnectionGuard, ApiError> {
        self.admit(caller, Transport::Poll).map_err(|error| match error {
            AdmissionError::ServerLimit => Error::Unavailable.into(),
            AdmissionError::UserLimit => ApiError::TooMany { what: "open streams and polls of this user", seconds: 1 },
        })
    }

    /// Admits a stream of the caller. Returns `None` where a limit is reached or the server drains.
    pub(super) fn admit_stream(&self, caller: &Caller) -> Option<ConnectionGuard> {
        let rejected = |reason| self.metrics.streams_rejected.with_label_values(&[reason]).inc();
        if self.admission.is_draining() {
            rejected("shutdown");
            return None;
        }
        match self.admit(caller, Transport::Stream) {
            Ok(guard) => return Some(guard),
            Err(AdmissionError::ServerLimit) => rejected("max_streams"),
            Err(AdmissionError::UserLimit) => rejected("streams_per_user"),
        }
        None
    }

    fn admit(&self, caller: &Caller, transport: Transport) -> Result<ConnectionGuard, AdmissionError> {
        let admission = self.admission.admit(&caller.user).inspect_err(|error| {
            self.metrics.rejected(match error {
                AdmissionError::ServerLimit => "max_streams",
                AdmissionError::UserLimit => "streams_per_user",
            });
        })?;
        let gauge = self.metrics.connections.with_label_values(&[transport.as_str()]);
        gauge.inc();
        Ok(ConnectionGuard { gauge, _admission: admission })
    }

    /// Returns the context for reading events as the caller.
    pub(super) fn read_context(&self, caller: &Caller) -> ReadContext {
        ReadContext { logs: Arc::clone(&self.logs), caller: caller.clone() }
    }
}

/// Counts an open stream or poll in the limits and metrics until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionGuard {
    gauge: IntGauge,
    _admission: AdmissionGuard,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}
