//! What the handlers need: the [`Api`], and for each request a [`Session`].

mod session;

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use tokio_util::sync::CancellationToken;

pub(super) use self::session::{LiveSession, Session};
use super::admission::{Admission, Admitted, NotAdmitted};
use super::metrics::{Metrics, Transport};
use super::rate::SendRate;
use super::refusal::Refusal;
use crate::audit::AuditLog;
use crate::auth::{Tickets, TokenError, Verifier};
use crate::domain::{Caller, Error, RideRole, Role, Signal, Topic};
use crate::handovers::Handovers;
use crate::jwks::Jwks;
use crate::memory::Memory;
use crate::moderation::Moderation;
use crate::push::WebPush;
use crate::realtime::{Attendance, Attending, Follow, Hub, Listener, Reader, Revocations};
use crate::store::Store;
use crate::traces::Traces;
use crate::webhooks::Webhooks;
use crate::writer::relay::Relay;
use crate::writer::{Acknowledger, Broadcaster, Notifier, Writer};

/// Everything that a request is answered with.
#[derive(Debug)]
pub struct Api {
    /// Reads.
    pub store: Arc<Store>,
    /// Writes.
    pub writer: Writer,
    /// Deliveries that cursors acknowledge.
    pub acknowledger: Arc<Acknowledger>,
    /// Broadcasts, one at a time.
    pub broadcaster: Arc<Broadcaster>,
    /// Who follows which ride.
    pub attendance: Arc<Attendance>,
    /// Hints to the other replicas.
    pub notifier: Arc<Notifier>,
    /// Live events.
    pub hub: Arc<Hub>,
    /// Hints from the other replicas, for `/readyz`.
    pub listener: Arc<Listener>,
    /// Tokens.
    pub verifier: Arc<Verifier>,
    /// The issuer's keys, where it publishes them.
    pub jwks: Option<Arc<Jwks>>,
    /// Logins that count no longer.
    pub revocations: Arc<Revocations>,
    /// Stream tickets.
    pub tickets: Tickets,
    /// How many writes users may make.
    pub send_rate: SendRate,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is traced.
    pub traces: Arc<Traces>,
    /// What support and service users view and do.
    pub audit: Arc<AuditLog>,
    /// When messages were handed to connections.
    pub handovers: Arc<Handovers>,
    /// What is asked before a content is stored, if anything.
    pub moderation: Option<Moderation>,
    /// The platform's endpoints.
    pub webhooks: Arc<Webhooks>,
    /// Puts events on the feed, where there is one.
    pub relay: Option<Arc<Relay>>,
    /// Web Push, where it is on.
    pub push: Option<Arc<WebPush>>,
    /// Times and sizes.
    pub limits: Limits,
    /// What the URLs of errors' pages begin with, where it is configured.
    pub public_url: Option<String>,
    /// Streams and polls that are open, and how they leave.
    pub admission: Arc<Admission>,
    /// What requests and responses hold.
    pub memory: Arc<Memory>,
    /// What is still open ends when this is cancelled.
    pub stopping: CancellationToken,
}

/// Times and sizes of the interface.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long after their last connection somebody is still there.
    pub presence_grace: Duration,
    /// After how much silence a stream sends a comment, where its reader does not choose.
    pub heartbeat: Duration,
    /// How long a request's body may take in all.
    pub body_deadline: Duration,
}

impl Api {
    /// Counts an open connection of somebody who is on the ride, until it is dropped and `grace` after that.
    pub(super) fn attend(&self, follow: &Follow, grace: Duration) -> Option<Attending> {
        let (access, ride, user) = (follow.access(), follow.ride(), &follow.caller().user);
        let is_on_ride = matches!(access.role, RideRole::Rider | RideRole::Driver) && access.until_seq.is_none();
        is_on_ride.then(|| self.attendance.attend(Topic::ride(ride), user.clone(), grace))
    }

    /// Counts any open connection of a driver: while there is one, they may take rides.
    pub(super) fn attend_as_driver(&self, caller: &Caller, grace: Duration) -> Option<Attending> {
        let is_driver = caller.role == Role::Driver;
        is_driver.then(|| self.attendance.attend(Topic::drivers(), caller.user.clone(), grace))
    }

    /// Tells a value that is not logged, here and on the other replicas.
    pub(super) fn tell(&self, signal: Signal) {
        self.hub.offer(&signal);
        self.notifier.tell(signal);
    }

    /// Rejects unless there is memory for another request, or for a large response.
    pub(super) fn require_room(&self) -> Result<(), Error> {
        match self.memory.has_room() {
            true => Ok(()),
            false => Err(Error::Unavailable).inspect_err(|_| self.metrics.rejected("memory")),
        }
    }

    /// Waits until what a caller has shown counts no longer, and says why.
    pub(super) async fn rejected(&self, caller: &Caller) -> TokenError {
        tokio::select! {
            () = self.revocations.revoked(caller, || self.verifier.ahead()) => TokenError::Revoked,
            () = self.verifier.withdrawn(caller) => TokenError::UnknownKey,
        }
    }

    /// Lets somebody hold a poll open.
    pub(super) fn admit_poll(&self, caller: &Caller) -> Result<Open, Refusal> {
        self.admit(caller, Transport::Poll).map_err(|refused| match refused {
            NotAdmitted::Full => Error::Unavailable.into(),
            NotAdmitted::TooManyOfUser => Refusal::TooMany { what: "streams and polls of yours are open", seconds: 1 },
        })
    }

    /// Lets somebody hold a stream open, while the server takes new ones.
    pub(super) fn admit_stream(&self, caller: &Caller) -> Option<Open> {
        let put_off = |reason| self.metrics.put_off.with_label_values(&[reason]).inc();
        if self.admission.is_draining() {
            put_off("shutdown");
            return None;
        }
        match self.admit(caller, Transport::Stream) {
            Ok(open) => return Some(open),
            Err(NotAdmitted::Full) => put_off("full"),
            Err(NotAdmitted::TooManyOfUser) => put_off("too_many_of_user"),
        }
        None
    }

    fn admit(&self, caller: &Caller, transport: Transport) -> Result<Open, NotAdmitted> {
        let admitted = self.admission.admit(&caller.user).inspect_err(|refused| {
            self.metrics.rejected(match refused {
                NotAdmitted::Full => "streams",
                NotAdmitted::TooManyOfUser => "streams_of_user",
            });
        })?;
        let counted = self.metrics.open.with_label_values(&[transport.as_str()]);
        counted.inc();
        Ok(Open { counted, _admitted: admitted })
    }

    /// The caller as one who follows.
    pub(super) fn reader(&self, caller: &Caller) -> Reader {
        Reader { hub: Arc::clone(&self.hub), store: Arc::clone(&self.store), caller: caller.clone() }
    }
}

/// A stream or poll that is open, until it is dropped.
#[derive(Debug)]
pub(super) struct Open {
    counted: IntGauge,
    _admitted: Admitted,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counted.dec();
    }
}
