//! What the handlers need, and who is asking.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use salvo::extract::Metadata;
use salvo::http::header::AUTHORIZATION;
use salvo::oapi::{Components, EndpointArgRegister, Operation};
use salvo::{Depot, Extractible, FlowCtrl, Handler, Request, Response, async_trait};
use tokio_util::sync::CancellationToken;

use super::refusal::Refusal;
use crate::auth::Verifier;
use crate::domain::Caller;
use crate::realtime::{Feed, Hub};
use crate::store::Store;
use crate::writer::{Acknowledger, Writer};

/// Everything that a request is answered with.
#[derive(Debug)]
pub struct Api {
    /// Reads.
    pub store: Arc<Store>,
    /// Writes.
    pub writer: Writer,
    /// Deliveries that cursors acknowledge.
    pub acknowledger: Acknowledger,
    /// Live events.
    pub hub: Arc<Hub>,
    /// Hints from the other replicas, for `/readyz`.
    pub feed: Arc<Feed>,
    /// Tokens.
    pub verifier: Verifier,
    /// Times and sizes.
    pub limits: Limits,
    /// Streams and polls end when this is cancelled.
    pub stopping: CancellationToken,
}

/// Times and sizes of the interface.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a chat stays open after its ride's end.
    pub chat_grace: Duration,
    /// After how much silence a stream sends a comment, where its reader does not choose.
    pub heartbeat: Duration,
}

/// Puts the [`Api`] where handlers find it.
pub(super) struct Provide(pub(super) Arc<Api>);

#[async_trait]
impl Handler for Provide {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
        depot.insert_typed(Arc::clone(&self.0));
        ctrl.call_next(req, depot, res).await;
    }
}

/// An authenticated request: who is asking, and what answers it.
pub(super) struct Session {
    /// Who.
    pub(super) caller: Caller,
    /// What answers.
    pub(super) api: Arc<Api>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl<'ex> Extractible<'ex> for Session {
    fn metadata() -> &'static Metadata {
        static METADATA: Metadata = Metadata::new("Session");
        &METADATA
    }

    #[allow(refining_impl_trait, reason = "the error is named so that it is written as a problem")]
    async fn extract(req: &'ex mut Request, depot: &'ex mut Depot) -> Result<Self, Refusal> {
        let api = depot.get_typed::<Arc<Api>>().map_err(|_| crate::domain::Error::Internal)?;
        let token = req.headers().get(AUTHORIZATION).ok_or(Refusal::Unauthorized(None))?;
        // RFC 9110, section 11.1: the scheme's case does not matter.
        let token = token.to_str().ok().and_then(|value| value.split_once(' '));
        let (_, token) =
            token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).ok_or(Refusal::Unauthorized(None))?;
        let caller = api.verifier.verify(token.trim()).map_err(|error| Refusal::Unauthorized(Some(error)))?;
        Ok(Self { caller, api: Arc::clone(api) })
    }
}

impl EndpointArgRegister for Session {
    fn register(_components: &mut Components, operation: &mut Operation, _arg: &str) {
        operation.securities = Some(vec![salvo::oapi::SecurityRequirement::new("bearer", Vec::<String>::new())]);
    }
}
