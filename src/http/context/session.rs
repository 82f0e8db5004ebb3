//! Who is asking: the extractors of all handlers that need a caller.

use std::sync::Arc;

use salvo::extract::Metadata;
use salvo::http::Method;
use salvo::http::header::AUTHORIZATION;
use salvo::oapi::{Components, EndpointArgRegister, Operation, SecurityRequirement};
use salvo::{Depot, Extractible, Request};

use super::Api;
use crate::auth::{Ticket, TokenError};
use crate::domain::{Caller, Error, RideId, Role, Time};
use crate::http::audit;
use crate::http::body::{MAX_BYTES, has_small_body, reject_body};
use crate::http::operations::{ApiOperation, Operations};
use crate::http::params::query;
use crate::http::refusal::Refusal;
use crate::http::trace::RequestId;
use crate::traces::Traced;
use crate::writer::Writer;

/// The route of `POST /messages`.
const MESSAGES: &str = "api/v1/messages";

/// An authenticated request: who is asking, and what answers it.
pub(in crate::http) struct Session {
    /// Who.
    pub(in crate::http) caller: Caller,
    /// What answers.
    pub(in crate::http) api: Arc<Api>,
    /// What commits the request's commands.
    pub(in crate::http) writer: Writer,
}

impl Session {
    fn new(caller: Caller, api: Arc<Api>, req: &Request, depot: &mut Depot, operation: Option<&ApiOperation>) -> Self {
        audit::begin(req, depot, &api, &caller, operation);
        let trace = depot.get_typed::<Arc<Traced>>().ok().map(|traced| traced.context());
        let writer = api.writer.traced(trace);
        Self { caller, api, writer }
    }
}

/// The same for a stream or poll, which a ticket opens as well as a token.
pub(in crate::http) struct LiveSession {
    /// `None` where nobody can say who is asking: the keys cannot be had.
    session: Option<Session>,
    /// The one ride that the ticket is for.
    bound_to: Option<RideId>,
}

impl LiveSession {
    /// The session, for following `ride`. To a ticket for another ride there is no such ride.
    pub(in crate::http) fn for_ride(self, ride: &RideId) -> Result<Session, Error> {
        match self.bound_to {
            Some(bound) if bound != *ride => Err(Error::RideNotFound),
            _ => self.session.ok_or(Error::Unavailable),
        }
    }

    /// The session, for following everything of the caller's.
    pub(in crate::http) fn for_all(self) -> Result<Session, Error> {
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

/// Whether a request and its response take next to no memory: these are carried out however much others hold.
fn is_small_write(req: &Request) -> bool {
    has_small_body(req) && !matches!(*req.method(), Method::GET | Method::HEAD)
}

fn provided<T: Clone + Send + Sync + 'static>(depot: &Depot) -> Result<T, Refusal> {
    depot.get_typed::<T>().cloned().map_err(|_| Error::Internal.into())
}

impl<'ex> Extractible<'ex> for Session {
    fn metadata() -> &'static Metadata {
        static METADATA: Metadata = Metadata::new("Session");
        &METADATA
    }

    #[allow(refining_impl_trait, reason = "the error is named so that it is written as a problem")]
    async fn extract(req: &'ex mut Request, depot: &'ex mut Depot) -> Result<Self, Refusal> {
        let api: Arc<Api> = provided(depot)?;
        if !is_small_write(req) {
            api.require_room()?;
        }
        match Credentials::of(req, &api).await? {
            Credentials::Token(caller) => {
                RequestId::note_role(depot, caller.role);
                limit_writes(req, depot, &api, &caller).await?;
                let operations: Arc<Operations> = provided(depot)?;
                let operation = operations.find(req);
                operation.map_or(Ok(()), |operation| operation.check_query(req))?;
                reject_body(req, depot, operation).await?;
                Ok(Self::new(caller, api, req, depot, operation))
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
        let api: Arc<Api> = provided(depot)?;
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
        RequestId::note_role(depot, caller.role);
        // The leeway for clocks that differ is for single requests: what ends with its token cannot begin after it.
        if caller.expires_at <= Time::now() {
            return Err(Refusal::Unauthorized(Some(TokenError::Expired)));
        }
        let operations: Arc<Operations> = provided(depot)?;
        let operation = operations.find(req);
        operation.map_or(Ok(()), |operation| operation.check_query(req))?;
        Ok(Self { session: Some(Session::new(caller, api, req, depot, operation)), bound_to })
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
