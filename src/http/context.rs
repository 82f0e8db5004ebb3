//! What the handlers need, and who is asking.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use salvo::extract::Metadata;
use salvo::http::Method;
use salvo::http::header::AUTHORIZATION;
use salvo::oapi::{Components, EndpointArgRegister, Operation, SecurityRequirement};
use salvo::{Depot, Extractible, Request};
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, Admitted, NotAdmitted};
use super::audit;
use super::body::{MAX_BYTES, reject_body};
use super::metrics::{Metrics, Transport};
use super::params::{QueryParameters, query};
use super::rate::SendRate;
use super::refusal::Refusal;
use crate::audit::AuditLog;
use crate::auth::{Ticket, Tickets, TokenError, Verifier};
use crate::domain::{Caller, Error, RideId, RideRole, Role, Signal, Time, Topic};
use crate::handovers::Handovers;
use crate::jwks::Jwks;
use crate::memory::Memory;
use crate::moderation::Moderation;
use crate::push::WebPush;
use crate::realtime::{Attendance, Attending, Follow, Hub, Listener, Reader, Revocations};
use crate::store::Store;
use crate::traces::{Traced, Traces};
use crate::webhooks::Webhooks;
use crate::writer::relay::Relay;
use crate::writer::{Acknowledger, Broadcaster, Notifier, Writer};

/// The route of `POST /messages`.
const MESSAGES: &str = "api/v1/messages";

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

/// An authenticated request: who is asking, and what answers it.
pub(super) struct Session {
    /// Who.
    pub(super) caller: Caller,
    /// What answers.
    pub(super) api: Arc<Api>,
    /// What commits the request's commands.
    pub(super) writer: Writer,
}

impl Session {
    fn new(caller: Caller, api: Arc<Api>, req: &Request, depot: &mut Depot) -> Self {
        audit::begin(req, depot, &api, &caller);
        let trace = depot.get_typed::<Arc<Traced>>().ok().map(|traced| traced.context());
        let writer = api.writer.traced(trace);
        Self { caller, api, writer }
    }
}

/// The same for a stream or poll, which a ticket opens as well as a token.
pub(super) struct LiveSession {
    /// `None` where nobody can say who is asking: the keys cannot be had.
    session: Option<Session>,
    /// The one ride that the ticket is for.
    bound_to: Option<RideId>,
}

impl LiveSession {
    /// The session, for following `ride`. To a ticket for another ride there is no such ride.
    pub(super) fn for_ride(self, ride: &RideId) -> Result<Session, Error> {
        match self.bound_to {
            Some(bound) if bound != *ride => Err(Error::RideNotFound),
            _ => self.session.ok_or(Error::Unavailable),
        }
    }

    /// The session, for following everything of the caller's.
    pub(super) fn for_all(self) -> Result<Session, Error> {
        match self.bound_to {
            Some(_) => Err(Error::Forbidden("this ticket opens the streams and polls of one ride alone")),
            None => self.session.ok_or(Error::Unavailable),
        }
    }
}

/// What a request shows of who is asking.
enum Credentials {
    Token(Caller),
    Ticket(Ticket),
}

impl Credentials {
    /// A token in the header (RFC 6750, section 2.1), or a ticket in the address. A ticket in the header is still
    /// a ticket.
    async fn of(req: &Request, api: &Api) -> Result<Self, Refusal> {
        let credentials = match (Self::signed(req, api), &api.jwks) {
            (Err(Refusal::Unauthorized(Some(TokenError::UnknownKey))), Some(jwks)) => {
                if !jwks.look_for_unknown().await {
                    return Err(Error::Unavailable.into());
                }
                Self::signed(req, api)?
            }
            (signed, _) => signed?,
        };
        let (Self::Token(caller) | Self::Ticket(Ticket { caller, .. })) = &credentials;
        if api.revocations.is_revoked(caller, api.verifier.ahead()) {
            return Err(Refusal::Unauthorized(Some(TokenError::Revoked)));
        }
        // What cannot be recorded is not done.
        if caller.role.is_staff() && !api.audit.has_room() {
            return Err(Error::Unavailable.into());
        }
        Ok(credentials)
    }

    fn signed(req: &Request, api: &Api) -> Result<Self, Refusal> {
        let refused = |error| Refusal::Unauthorized(Some(error));
        let mut values = req.headers().get_all(AUTHORIZATION).iter();
        let bearer = values.next().and_then(|value| {
            // RFC 9110, section 11.1: the scheme's case does not matter.
            let (scheme, token) = value.as_bytes().split_at_checked("bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
        });
        // Not a list (RFC 9110, section 5.3): two may mean that somebody on the way has added theirs.
        if values.next().is_some() {
            return Err(Error::invalid("Authorization", "must be given once").into());
        }
        // Another scheme beside a ticket, such as a proxy's Basic, is not meant for us.
        let Some(token) = bearer else {
            let ticket = query(req, "ticket").ok_or(Refusal::Unauthorized(None))?;
            return Self::ticket(ticket, api).map_err(refused);
        };
        let token = str::from_utf8(token).map_err(|_| refused(TokenError::Malformed))?.trim();
        match api.verifier.verify(token) {
            Ok(caller) => Ok(Self::Token(caller)),
            Err(error) => Self::ticket(token, api).map_err(|of_ticket| match of_ticket {
                // It is one of ours, so what is said of it as a ticket holds.
                TokenError::Expired | TokenError::UnknownKey => refused(of_ticket),
                _ => refused(error),
            }),
        }
    }

    /// A ticket stands for a login, and so counts as long as its key does.
    fn ticket(text: &str, api: &Api) -> Result<Self, TokenError> {
        let ticket = api.tickets.verify(text)?;
        if api.verifier.has_key_of(&ticket.caller) { Ok(Self::Ticket(ticket)) } else { Err(TokenError::UnknownKey) }
    }
}

/// Rejects unknown query parameters: only of callers who may be here at all.
fn check_query(req: &Request, depot: &Depot) -> Result<(), Refusal> {
    let parameters = depot.get_typed::<Arc<QueryParameters>>().map_err(|_| Error::Internal)?;
    Ok(parameters.check(req)?)
}

/// Counts a write against the send limit of its user.
async fn limit_writes(req: &mut Request, depot: &mut Depot, api: &Api, caller: &Caller) -> Result<(), Refusal> {
    let is_counted = match caller.role {
        Role::Service => req.matched_path() == MESSAGES && *req.method() == Method::POST,
        _ => !matches!(*req.method(), Method::GET | Method::HEAD),
    };
    if !is_counted {
        return Ok(());
    }
    let Some(taken) = api.send_rate.take(&caller.user) else { return Ok(()) };
    let checked = taken.check();
    if checked.is_err() {
        api.metrics.rejected("send_limit");
        // Read nevertheless: the client comes back, mostly on this connection.
        drop(req.payload_with_max_size(MAX_BYTES).await);
    }
    depot.insert_typed(taken);
    checked
}

fn api(depot: &Depot) -> Result<Arc<Api>, Refusal> {
    depot.get_typed::<Arc<Api>>().cloned().map_err(|_| Error::Internal.into())
}

impl<'ex> Extractible<'ex> for Session {
    fn metadata() -> &'static Metadata {
        static METADATA: Metadata = Metadata::new("Session");
        &METADATA
    }

    #[allow(refining_impl_trait, reason = "the error is named so that it is written as a problem")]
    async fn extract(req: &'ex mut Request, depot: &'ex mut Depot) -> Result<Self, Refusal> {
        let api = api(depot)?;
        api.require_room()?;
        match Credentials::of(req, &api).await? {
            Credentials::Token(caller) => {
                super::trace::RequestId::note_role(depot, caller.role);
                limit_writes(req, depot, &api, &caller).await?;
                check_query(req, depot)?;
                reject_body(req, depot).await?;
                Ok(Self::new(caller, api, req, depot))
            }
            Credentials::Ticket(_) => Err(Error::Forbidden("a ticket opens streams and polls, nothing else").into()),
        }
    }
}

impl<'ex> Extractible<'ex> for LiveSession {
    fn metadata() -> &'static Metadata {
        static METADATA: Metadata = Metadata::new("LiveSession");
        &METADATA
    }

    #[allow(refining_impl_trait, reason = "the error is named so that it is written as a problem")]
    async fn extract(req: &'ex mut Request, depot: &'ex mut Depot) -> Result<Self, Refusal> {
        let api = api(depot)?;
        if api.require_room().is_err() {
            // As below.
            return Ok(Self { session: None, bound_to: None });
        }
        let (caller, bound_to) = match Credentials::of(req, &api).await {
            Ok(Credentials::Token(caller)) => (caller, None),
            Ok(Credentials::Ticket(ticket)) => (ticket.caller, ticket.ride),
            // Each transport has its own way to say so.
            Err(Refusal::Domain(Error::Unavailable)) => return Ok(Self { session: None, bound_to: None }),
            Err(refusal) => return Err(refusal),
        };
        super::trace::RequestId::note_role(depot, caller.role);
        // The leeway for clocks that differ is for single requests: what ends with its token cannot begin after it.
        if caller.expires_at <= Time::now() {
            return Err(Refusal::Unauthorized(Some(TokenError::Expired)));
        }
        check_query(req, depot)?;
        Ok(Self { session: Some(Session::new(caller, api, req, depot)), bound_to })
    }
}

impl EndpointArgRegister for Session {
    fn register(_components: &mut Components, operation: &mut Operation, _arg: &str) {
        operation.securities = Some(vec![SecurityRequirement::new("bearer", Vec::<String>::new())]);
    }
}

impl EndpointArgRegister for LiveSession {
    fn register(_components: &mut Components, operation: &mut Operation, _arg: &str) {
        let either = ["bearer", "ticket"].map(|scheme| SecurityRequirement::new(scheme, Vec::<String>::new()));
        operation.securities = Some(either.into());
    }
}
