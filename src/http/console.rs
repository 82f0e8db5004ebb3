//! The console, a page with a phone for each participant of a ride; and the API reference, a page that shows each operation and can
//! send requests. Both are off by default.
//!
//! The pages are embedded in the program. They contain no secret: their permissions are those of the tokens that the user pastes. In
//! demo mode, the server gives tokens to its own page, on the same machine only.

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

pub use self::receiver::WebhookReceiver;
use self::receiver::{ListDeliveries, ReceiveWebhook};
use super::api_error::ApiError;
use super::body::Json;
use crate::auth::{SignError, Signer};
use crate::domain::{Error, RideId, Role, UserId};

/// The lifetime of a demo's tokens. The page requests new ones when they expire.
const TOKEN_TTL: Duration = Duration::from_secs(60 * 60);

/// How long a request waits for the demo's first ride.
const FIRST_RIDE_TIMEOUT: Duration = Duration::from_secs(5);

/// The content security policy of the pages. They load only their own files. They may also send requests to other
/// replicas, which can be selected in the page: with TLS, or in a demo without TLS on this machine.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'; connect-src 'self'";
const REPLICAS: &str = "https:";
const DEMO_REPLICAS: &str = "http://127.0.0.1:* http://localhost:*";

/// The users of a demo, and their ride.
#[derive(Debug)]
pub struct DemoUsers {
    /// The users, one per role.
    pub users: Vec<(Role, UserId)>,
    /// Signs the tokens of the users.
    pub signer: Signer,
    /// The current ride. `None` before the first one.
    pub ride: watch::Receiver<Option<RideId>>,
    /// Receives webhooks, which the page shows.
    pub receiver: Option<Arc<WebhookReceiver>>,
}

/// The console's files, and the demo's users.
#[derive(Debug)]
pub struct Console {
    files: HashMap<&'static str, File>,
    policy: HeaderValue,
    demo: Option<DemoUsers>,
}

#[derive(Debug)]
struct File {
    content_type: &'static str,
    text: &'static str,
    etag: HeaderValue,
}

impl Console {
    /// Returns the receiver of a demo's webhooks.
    fn receiver(&self) -> Option<&WebhookReceiver> {
        self.demo.as_ref()?.receiver.as_deref()
    }

    /// Creates the console, with the demo's users in demo mode.
    #[allow(clippy::expect_used, reason = "at start-up, with constant text")]
    pub fn new(demo: Option<DemoUsers>) -> Self {
        let files = assets::ALL.iter().map(|(path, text)| {
            let digest = Sha256::digest(text).iter().take(12).map(|byte| format!("{byte:02x}")).collect::<String>();
            let etag = HeaderValue::try_from(format!("\"{digest}\"")).expect("hexadecimal is a valid header value");
            (*path, File { content_type: assets::content_type(path), text, etag })
        });
        let replicas = if demo.is_some() { DEMO_REPLICAS } else { REPLICAS };
        let policy = HeaderValue::try_from(format!("{POLICY} {replicas}")).expect("ASCII text is a valid header value");
        Self { files: files.collect(), policy, demo }
    }

    /// Returns the console's routes. They are not part of the API, so openapi.yaml does not have them.
    pub(super) fn router(self: &Arc<Self>) -> Router {
        let files = || Files(Arc::clone(self));
        Router::new()
            .get(files())
            .push(Router::with_path("console/session").get(GetSession(Arc::clone(self))))
            .push(Router::with_path("console/receiver").post(ReceiveWebhook(Arc::clone(self))))
            .push(Router::with_path("console/deliveries").get(ListDeliveries(Arc::clone(self))))
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
        // `/docs/` and `/docs` are the same page.
        let path = path.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(path);
        let Some(file) = self.0.files.get(path) else {
            return ApiError::NotFound.write(req, depot, res).await;
        };
        let is_unchanged = req.headers().get(IF_NONE_MATCH) == Some(&file.etag);
        let headers = res.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, self.0.policy.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(ETAG, file.etag.clone());
        if is_unchanged {
            res.status_code(StatusCode::NOT_MODIFIED);
            return;
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.content_type));
        res.body(file.text);
    }
}

/// The demo's ride and tokens.
#[derive(Serialize)]
struct DemoSession<'a> {
    ride: &'a RideId,
    tokens: HashMap<&'static str, String>,
}

/// `GET /console/session`: the demo's tokens, for its own page. Other pages get 204, because a browser would log an error status in
/// its console.
struct GetSession(Arc<Console>);

impl GetSession {
    async fn session(&self, req: &Request) -> Result<Option<Json<()>>, ApiError> {
        let Some(demo) = self.0.demo.as_ref().filter(|_| is_own_page(req)) else { return Ok(None) };
        // The page may be loaded before the first ride exists.
        let mut rides = demo.ride.clone();
        let ride = timeout(FIRST_RIDE_TIMEOUT, rides.wait_for(Option::is_some)).await.ok().and_then(Result::ok);
        let ride = ride.and_then(|ride| ride.clone()).ok_or(Error::Unavailable)?;
        let tokens =
            demo.users.iter().map(|(role, user)| Ok((role.as_str(), demo.signer.sign(user, *role, TOKEN_TTL)?)));
        let tokens = tokens.collect::<Result<_, SignError>>().map_err(|_| Error::Internal)?;
        Json::ok(&DemoSession { ride: &ride, tokens }).map(Some)
    }
}

#[async_trait]
impl Handler for GetSession {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, _ctrl: &mut FlowCtrl) {
        match self.session(req).await {
            Ok(Some(session)) => session.render(res),
            Ok(None) => {
                res.status_code(StatusCode::NO_CONTENT);
            }
            Err(error) => return error.write(req, depot, res).await,
        }
        res.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// Returns whether a request is from a page of this server on this machine. `Sec-Fetch-Site` and `Origin` reveal a page of another
/// site. The check of the host name prevents DNS rebinding.
fn is_own_page(req: &Request) -> bool {
    let header = |name: HeaderName| req.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    // HTTP/2 has the host in the target.
    let host = header(HOST).or_else(|| req.uri().authority().map(|host| host.as_str())).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_here = matches!(name, "127.0.0.1" | "localhost" | "[::1]");
    let site = header(HeaderName::from_static("sec-fetch-site"));
    // `null` is the origin of a sandboxed frame or of a local file, and is rejected.
    let is_own = |origin: &str| origin.split_once("://").is_some_and(|(_, from)| from == host);
    is_here && site.is_none_or(|site| site == "same-origin") && header(ORIGIN).is_none_or(is_own)
}
