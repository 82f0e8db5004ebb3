//! The console: a page with the phones of a ride's people, to see the interface at work; and the reference, which shows
//! every operation and tries it. Off unless asked for.
//!
//! Their files are a part of the program. They hold no secret; what they can do depends on the tokens that are pasted into
//! the pages. A demo gives them some, but only to pages of its own, on the machine that it runs on.

mod assets;
mod receiver;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use salvo::http::StatusCode;
use salvo::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HOST, HeaderName, HeaderValue, IF_NONE_MATCH, ORIGIN,
};
use salvo::{Depot, FlowCtrl, Handler, Request, Response, Router, Scribe, Writer as _, async_trait};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::timeout;

pub use self::receiver::Receiver;
use self::receiver::{Deliveries, Receive};
use super::body::Json;
use super::refusal::Refusal;
use crate::auth::{SignError, Signer};
use crate::domain::{Error, RideId, Role, UserId};

/// How long a demo's tokens are good for; the page asks for others then.
const TTL: Duration = Duration::from_secs(60 * 60);

/// How long a page waits for the demo's first ride.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the page may do: what is its own. It may ask servers that are named in it, since other replicas can be chosen
/// there: those on this machine in a demo, which has no TLS; elsewhere those with TLS.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'; connect-src 'self'";
const REPLICAS: &str = "https:";
const DEMO_REPLICAS: &str = "http://127.0.0.1:* http://localhost:*";

/// The people of a demo, and the ride that they are on.
#[derive(Debug)]
pub struct DemoPeople {
    /// Who they are, by their role.
    pub people: Vec<(Role, UserId)>,
    /// Signs what they show.
    pub signer: Signer,
    /// The ride, once there is one.
    pub ride: watch::Receiver<Option<RideId>>,
    /// Receives webhooks, for the page to show.
    pub receiver: Option<Arc<Receiver>>,
}

/// The console's files, and whom it may speak for.
#[derive(Debug)]
pub struct Console {
    files: HashMap<&'static str, File>,
    policy: HeaderValue,
    demo: Option<DemoPeople>,
}

#[derive(Debug)]
struct File {
    content_type: &'static str,
    text: &'static str,
    etag: HeaderValue,
}

impl Console {
    /// The receiver of a demo's webhooks, if there is one.
    fn receiver(&self) -> Option<&Receiver> {
        self.demo.as_ref()?.receiver.as_deref()
    }

    /// The console, of a demo where there is one.
    #[allow(clippy::expect_used, reason = "at the start, of text of our own")]
    pub fn new(demo: Option<DemoPeople>) -> Self {
        let files = assets::ALL.iter().map(|(path, text)| {
            let digest = Sha256::digest(text).iter().take(12).map(|byte| format!("{byte:02x}")).collect::<String>();
            let etag = HeaderValue::try_from(format!("\"{digest}\"")).expect("hexadecimal is fine in a header");
            (*path, File { content_type: assets::content_type(path), text, etag })
        });
        let replicas = if demo.is_some() { DEMO_REPLICAS } else { REPLICAS };
        let policy = HeaderValue::try_from(format!("{POLICY} {replicas}")).expect("plain text is fine in a header");
        Self { files: files.collect(), policy, demo }
    }

    /// Its paths. They are no part of the interface, so openapi.yaml does not have them.
    pub(super) fn router(self: &Arc<Self>) -> Router {
        let files = || Files(Arc::clone(self));
        Router::new()
            .get(files())
            .push(Router::with_path("console/session").get(Session(Arc::clone(self))))
            .push(Router::with_path("console/receiver").post(Receive(Arc::clone(self))))
            .push(Router::with_path("console/deliveries").get(Deliveries(Arc::clone(self))))
            .push(Router::with_path("console/{**file}").get(files()))
            .push(Router::with_path("client/{**file}").get(files()))
            .push(Router::with_path("docs/{**file}").get(files()))
    }
}

/// Serves a file.
struct Files(Arc<Console>);

#[async_trait]
impl Handler for Files {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, _ctrl: &mut FlowCtrl) {
        let path = req.uri().path();
        // `/docs/` is `/docs`.
        let path = path.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(path);
        let Some(file) = self.0.files.get(path) else {
            return Refusal::NotFound.write(req, depot, res).await;
        };
        let is_known = req.headers().get(IF_NONE_MATCH) == Some(&file.etag);
        let headers = res.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, self.0.policy.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(ETAG, file.etag.clone());
        if is_known {
            res.status_code(StatusCode::NOT_MODIFIED);
            return;
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.content_type));
        res.body(file.text);
    }
}

/// What the page of a demo is given to begin with.
#[derive(Serialize)]
struct Given<'a> {
    ride: &'a RideId,
    tokens: HashMap<&'static str, String>,
}

/// Gives a demo's tokens to its own page. Every other page is told that there is nothing for it: a refusal would stand in
/// its console as an error.
struct Session(Arc<Console>);

impl Session {
    async fn given(&self, req: &Request) -> Result<Option<Json<()>>, Refusal> {
        let Some(demo) = self.0.demo.as_ref().filter(|_| is_own_page(req)) else { return Ok(None) };
        // The page may be quicker than the first ride.
        let mut rides = demo.ride.clone();
        let ride = timeout(PATIENCE, rides.wait_for(Option::is_some)).await.ok().and_then(Result::ok);
        let ride = ride.and_then(|ride| ride.clone()).ok_or(Error::Unavailable)?;
        let tokens = demo.people.iter().map(|(role, user)| Ok((role.as_str(), demo.signer.sign(user, *role, TTL)?)));
        let tokens = tokens.collect::<Result<_, SignError>>().map_err(|_| Error::Internal)?;
        Json::ok(&Given { ride: &ride, tokens }).map(Some)
    }
}

#[async_trait]
impl Handler for Session {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, _ctrl: &mut FlowCtrl) {
        match self.given(req).await {
            Ok(Some(given)) => given.render(res),
            Ok(None) => {
                res.status_code(StatusCode::NO_CONTENT);
            }
            Err(refusal) => return refusal.write(req, depot, res).await,
        }
        res.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// Whether a request is from a page that this server has served under a name of this machine. Another site's page says
/// where it is from; one that has had its own name lead to this machine (DNS rebinding) is known by that name.
fn is_own_page(req: &Request) -> bool {
    let header = |name: HeaderName| req.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    // HTTP/2 has it in the address.
    let host = header(HOST).or_else(|| req.uri().authority().map(|host| host.as_str())).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_here = matches!(name, "127.0.0.1" | "localhost" | "[::1]");
    let site = header(HeaderName::from_static("sec-fetch-site"));
    // `null` is the origin of a sandboxed frame, and of a page from a file: it is nobody's own.
    let is_own = |origin: &str| origin.split_once("://").is_some_and(|(_, from)| from == host);
    is_here && site.is_none_or(|site| site == "same-origin") && header(ORIGIN).is_none_or(is_own)
}
