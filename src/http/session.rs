//! Authentication: the extractors of all handlers that need a caller.

use std::sync::Arc;

use salvo::extract::Metadata;
use salvo::http::Method;
use salvo::http::header::AUTHORIZATION;
use salvo::oapi::{Components, EndpointArgRegister, Operation, SecurityRequirement};
use salvo::{Depot, Extractible, Request};

use super::api_error::ApiError;
use super::audit_entry;
use super::body::{MAX_BYTES, has_small_body, reject_body};
use super::context::Api;
use super::operations::{ApiOperation, Operations};
use super::params::query;
use super::request_id::RequestId;
use crate::auth::{Ticket, TokenError};
use crate::domain::{Caller, Error, RideId, Role, Sharded, Time, TraceContext};
use crate::traces::RequestSpan;
use crate::writer::Writer;

/// The route of `POST /messages`.
const MESSAGES: &str = "api/v1/messages";

/// An authenticated request.
pub(super) struct Session {
    /// The caller.
    pub(super) caller: Caller,
    /// The shared state.
    pub(super) api: Arc<Api>,
    /// The trace context of this request.
    trace: Option<TraceContext>,
}

impl Session {
    fn new(caller: Caller, api: Arc<Api>, req: &Request, depot: &mut Depot, operation: Option<&ApiOperation>) -> Self {
        audit_entry::begin(req, depot, &api, &caller, operation);
        let trace = depot.get_typed::<Arc<RequestSpan>>().ok().map(|span| span.context());
        Self { caller, api, trace }
    }

    /// Returns the writer of a ride's shard. Its commands belong to this request's trace.
    pub(super) fn writer_of(&self, ride: &RideId) -> Writer {
        self.api.shards.of_ride(ride).writer.traced(self.trace)
    }

    /// Returns the writer of each shard. Their commands belong to this request's trace.
    pub(super) fn writers(&self) -> Sharded<Writer> {
        let shards = &self.api.shards;
        Sharded::new(shards.map(), |shard| shards.get(shard).writer.traced(self.trace))
    }
}

/// An authenticated stream or poll, which accepts a ticket as well as a token.
pub(super) struct LiveSession {
    /// `None` where the server cannot serve the caller at the moment: the issuer's keys, memory or the audit log are unavailable.
    session: Option<Session>,
    /// The only ride for which the ticket is valid.
    bound_to: Option<RideId>,
}

impl LiveSession {
    /// Returns the session for reading `ride`. With a ticket for another ride, the ride does not exist.
    pub(super) fn for_ride(self, ride: &RideId) -> Result<Session, Error> {
        match self.bound_to {
            Some(bound) if bound != *ride => Err(Error::RideNotFound),
            _ => self.session.ok_or(Error::Unavailable),
        }
    }

    /// Returns the session for reading all the caller's events.
    pub(super) fn for_all(self) -> Result<Session, Error> {
        match self.bound_to {
            Some(_) => Err(Error::Forbidden("this ticket is valid only for the streams and polls of one ride")),
            None => self.session.ok_or(Error::Unavailable),
        }
    }
}

/// The verified credentials of a request.
enum Credentials {
    Token(Caller),
    Ticket(Ticket),
}

impl Credentials {
    /// Verifies a token in the header (RFC 6750, section 2.1), or a ticket in the query. A ticket is also accepted in the header.
    ///
    /// # Errors
    ///
    /// 401 where the token is missing or invalid; 503 where the issuer's keys or the audit log are unavailable.
    async fn of(req: &Request, api: &Api) -> Result<Self, ApiError> {
        let credentials = match (Self::signed(req, api), &api.jwks) {
            (Err(ApiError::Unauthorized(Some(TokenError::UnknownKey))), Some(jwks)) => {
                if !jwks.refresh_for_unknown_key().await {
                    return Err(Error::Unavailable.into());
                }
                Self::signed(req, api)?
            }
            (signed, _) => signed?,
        };
        let (Self::Token(caller) | Self::Ticket(Ticket { caller, .. })) = &credentials;
        if api.revocations.is_revoked(caller, api.verifier.clock_skew()) {
            return Err(ApiError::Unauthorized(Some(TokenError::Revoked)));
        }
        // A request that cannot be recorded in the audit log is rejected.
        if caller.role.is_staff() && !api.audit.has_capacity() {
            return Err(Error::Unavailable.into());
        }
        Ok(credentials)
    }

    fn signed(req: &Request, api: &Api) -> Result<Self, ApiError> {
        let unauthorized = |error| ApiError::Unauthorized(Some(error));
        let mut values = req.headers().get_all(AUTHORIZATION).iter();
        let bearer = values.next().and_then(|value| {
            // The scheme is case-insensitive (RFC 9110, section 11.1).
            let (scheme, token) = value.as_bytes().split_at_checked("bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
        });
        // The header is not a list (RFC 9110, section 5.3). A second value may come from a proxy.
        if values.next().is_some() {
            return Err(Error::invalid("Authorization", "must be given once").into());
        }
        // With a ticket, another scheme in the header (such as a proxy's Basic) is ignored.
        let Some(token) = bearer else {
            let ticket = query(req, "ticket").ok_or(ApiError::Unauthorized(None))?;
            return Self::ticket(ticket, api).map_err(unauthorized);
        };
        let token = str::from_utf8(token).map_err(|_| unauthorized(TokenError::Malformed))?.trim();
        match api.verifier.verify(token) {
            Ok(caller) => Ok(Self::Token(caller)),
            Err(error) => Self::ticket(token, api).map_err(|of_ticket| match of_ticket {
                // The token is a ticket of this deployment, so the ticket's error applies.
                TokenError::Expired | TokenError::UnknownKey => unauthorized(of_ticket),
                _ => unauthorized(error),
            }),
        }
    }

    /// Verifies a ticket. It is valid only while the key of the login that created it is valid.
    fn ticket(text: &str, api: &Api) -> Result<Self, TokenError> {
        let ticket = api.tickets.verify(text)?;
        if api.verifier.has_key_of(&ticket.caller) { Ok(Self::Ticket(ticket)) } else { Err(TokenError::UnknownKey) }
    }
}

/// Counts a write against the send limit of its user.
async fn limit_writes(req: &mut Request, depot: &mut Depot, api: &Api, caller: &Caller) -> Result<(), ApiError> {
    let is_counted = match caller.role {
        Role::Service => req.matched_path() == MESSAGES && *req.method() == Method::POST,
        _ => !matches!(*req.method(), Method::GET | Method::HEAD),
    };
    if !is_counted {
        return Ok(());
    }
    let Some(status) = api.send_rate.take(&caller.user) else { return Ok(()) };
    let checked = status.check();
    if checked.is_err() {
        api.metrics.rejected("sends_per_second");
        // The body is read nevertheless, so that the client can retry on this connection.
        drop(req.payload_with_max_size(MAX_BYTES).await);
    }
    depot.insert_typed(status);
    checked
}

/// Returns whether a request and its response need little memory. Such requests are accepted even where memory is short.
fn is_small_write(req: &Request) -> bool {
    has_small_body(req) && !matches!(*req.method(), Method::GET | Method::HEAD)
}

fn provided<T: Clone + Send + Sync + 'static>(depot: &Depot) -> Result<T, ApiError> {
    depot.get_typed::<T>().cloned().map_err(|_| Error::Internal.into())
}

impl<'ex> Extractible<'ex> for Session {
    fn metadata() -> &'static Metadata {
        static METADATA: Metadata = Metadata::new("Session");
        &METADATA
    }

    #[allow(refining_impl_trait, reason = "the error is named so that it is written as a problem")]
    async fn extract(req: &'ex mut Request, depot: &'ex mut Depot) -> Result<Self, ApiError> {
        let api: Arc<Api> = provided(depot)?;
        if !is_small_write(req) {
            api.require_memory()?;
        }
        match Credentials::of(req, &api).await? {
            Credentials::Token(caller) => {
                RequestId::set_role(depot, caller.role);
                limit_writes(req, depot, &api, &caller).await?;
                let operations: Arc<Operations> = provided(depot)?;
                let operation = operations.find(req);
                operation.map_or(Ok(()), |operation| operation.check_query(req))?;
                reject_body(req, depot, operation).await?;
                Ok(Self::new(caller, api, req, depot, operation))
            }
            Credentials::Ticket(_) => Err(Error::Forbidden("a ticket is valid for streams and polls only").into()),
        }
    }
}

impl<'ex> Extractible<'ex> for LiveSession {
    fn metadata() -> &'static Metadata {
        static METADATA: Metadata = Metadata::new("LiveSession");
        &METADATA
    }

    #[allow(refining_impl_trait, reason = "the error is named so that it is written as a problem")]
    async fn extract(req: &'ex mut Request, depot: &'ex mut Depot) -> Result<Self, ApiError> {
        let api: Arc<Api> = provided(depot)?;
        if api.require_memory().is_err() {
            // Handled by each transport, as below.
            return Ok(Self { session: None, bound_to: None });
        }
        let (caller, bound_to) = match Credentials::of(req, &api).await {
            Ok(Credentials::Token(caller)) => (caller, None),
            Ok(Credentials::Ticket(ticket)) => (ticket.caller, ticket.ride),
            // Each transport handles unavailability in its own way.
            Err(ApiError::Domain(Error::Unavailable)) => return Ok(Self { session: None, bound_to: None }),
            Err(error) => return Err(error),
        };
        RequestId::set_role(depot, caller.role);
        // The tolerance for clock skew applies to single requests only: a stream ends with its token, so it cannot begin later.
        if caller.expires_at <= Time::now() {
            return Err(ApiError::Unauthorized(Some(TokenError::Expired)));
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
