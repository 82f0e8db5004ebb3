//! The routes of the API.

use std::sync::Arc;

use salvo::catcher::Catcher;
use salvo::http::header::{ALLOW, HeaderValue};
use salvo::http::{Method, StatusCode};
use salvo::{Depot, FlowCtrl, Handler, Request, Response, Router, Service, Writer, async_trait};

use super::api_error::ApiError;
use super::audit_entry::Audited;
use super::console::Console;
use super::context::Api;
use super::error_pages::ErrorPages;
use super::live::{feed, poll, sse};
use super::operations::Operations;
use super::request_tracing::RequestTracing;
use super::security::{Origin, RequireHost, RequirePath, cors};
use super::{
    audit, broadcasts, drivers, health, inbox, location, message_trace, messages, metrics_endpoint, openapi, presence,
    push, reactions, receipts, rides, tickets, typing, users, webhooks,
};

/// The set of endpoints that a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointSet {
    /// All endpoints.
    All,
    /// The API and the probes, where there is a separate admin listener.
    Public,
    /// The endpoints of the admin listener: the probes and `/metrics`.
    Admin,
}

/// Creates the service of a listener, with the console where the listener serves it.
pub fn service(api: Arc<Api>, origins: &[Origin], endpoints: EndpointSet, console: Option<&Arc<Console>>) -> Service {
    let mut root = router(endpoints);
    if let Some(console) = console {
        root = root.push(console.router());
    }
    let operations = Arc::new(Operations::of(&openapi::document(&router(EndpointSet::All))));
    let metrics = Arc::clone(&api.metrics);
    let service = Service::new(root)
        .catcher(Catcher::default().hoop(ErrorCatcher))
        .hoop(Provide(api, operations))
        .hoop(RequestTracing(metrics))
        .hoop(RequireHost)
        .hoop(RequirePath);
    match cors(origins) {
        Some(cors) => service.hoop(cors),
        None => service,
    }
}

/// Returns the OpenAPI document of all endpoints as YAML: the content of openapi.yaml.
pub fn openapi_yaml() -> Result<String, serde_norway::Error> {
    openapi::yaml(&router(EndpointSet::All))
}

/// The middleware that provides the [`Api`] and the [`Operations`] to handlers.
struct Provide(Arc<Api>, Arc<Operations>);

#[async_trait]
impl Handler for Provide {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
        depot.insert_typed(Arc::clone(&self.0));
        depot.insert_typed(Arc::clone(&self.1));
        ctrl.call_next(req, depot, res).await;
    }
}

/// A route that handles `GET` and `HEAD` alike (RFC 9110, section 9.3.2): for `HEAD`, hyper sends only the head. Handlers of streams
/// and polls check the method themselves.
macro_rules! get {
    ($path:expr, $handler:expr) => {
        Router::with_path($path).get($handler).head($handler)
    };
}

/// Returns the routes of a set of endpoints.
fn router(endpoints: EndpointSet) -> Router {
    let mut root = Router::new()
        .push(get!("healthz", health::get_health))
        .push(get!("readyz", health::get_readiness))
        // Every listener serves the error pages, because problems link to them.
        .push(get!("docs/errors", ErrorPages).push(get!("{code}", ErrorPages)));
    if endpoints != EndpointSet::Admin {
        root = root
            .push(api_routes())
            .push(get!("openapi.yaml", openapi::Yaml))
            .push(get!("openapi.json", openapi::Json::of(|| router(EndpointSet::All))));
    }
    if endpoints != EndpointSet::Public {
        root = root.push(get!("metrics", metrics_endpoint::get_metrics));
    }
    root
}

/// Returns the routes of the API.
fn api_routes() -> Router {
    let of_ride = get!("rides/{rideId}", messages::get_history)
        .push(get!("unread-count", receipts::get_unread_count))
        .push(get!("presence", presence::get_presence))
        .push(Router::with_path("typing").post(typing::set_typing))
        .push(get!("events", sse::stream_ride))
        .push(get!("poll", poll::poll_ride));
    let of_message = get!("{messageId}", messages::get_message)
        .patch(messages::edit_message)
        .delete(messages::delete_message)
        .push(get!("trace", message_trace::trace_message))
        .push(Router::with_path("reactions/{emoji}").put(reactions::put_reaction).delete(reactions::delete_reaction))
        .push(Router::with_path("read").post(receipts::mark_read))
        .push(Router::with_path("delivered").post(receipts::mark_delivered));
    let messages = Router::with_path("messages")
        .post(messages::send_message)
        .push(only_get("unread-count").get(receipts::get_unread_counts).head(receipts::get_unread_counts))
        .push(of_ride)
        .push(of_message);
    let rides = get!("rides", inbox::list_rides).push(
        get!("{rideId}", rides::get_ride)
            .put(rides::put_ride)
            .push(get!("location", location::get_location).post(location::put_location))
            .push(Router::with_path("accept").post(rides::accept_ride))
            .push(Router::with_path("cancel").post(rides::cancel_ride))
            .push(Router::with_path("status").post(rides::set_ride_status))
            .push(Router::with_path("reopen").post(rides::reopen_ride)),
    );
    let tickets = Router::with_path("stream-tickets").post(tickets::create_stream_ticket);
    let broadcasts = Router::with_path("broadcasts").post(broadcasts::broadcast);
    let users = Router::with_path("users/{userId}")
        .delete(users::erase_user)
        .push(Router::with_path("revoke").post(users::revoke_user));
    let drivers = Router::with_path("drivers")
        .push(Router::with_path("me/availability").put(drivers::put_availability))
        .push(get!("available", drivers::list_available));
    let events = get!("events", sse::stream_all);
    let poll = get!("poll", poll::poll_all);
    let webhooks = get!("webhooks", webhooks::list_webhooks).post(webhooks::create_webhook).push(
        get!("{webhookId}", webhooks::get_webhook)
            .patch(webhooks::update_webhook)
            .delete(webhooks::delete_webhook)
            .push(Router::with_path("secret").post(webhooks::rotate_secret))
            .push(Router::with_path("test").post(webhooks::test_webhook))
            .push(Router::with_path("replay").post(webhooks::replay_webhook))
            .push(get!("deliveries", webhooks::list_deliveries)),
    );
    let subscriptions =
        Router::with_path("push-subscriptions").put(push::put_subscription).delete(push::delete_subscription);
    let feed = get!("feed", feed::stream_feed).push(get!("poll", feed::poll_feed));
    Router::with_path("api/v1")
        .hoop(Audited)
        .push(messages)
        .push(rides)
        .push(tickets)
        .push(broadcasts)
        .push(events)
        .push(poll)
        .push(feed)
        .push(webhooks)
        .push(subscriptions)
        .push(get!("push-key", push::get_key))
        .push(get!("audit", audit::list_audit))
        .push(drivers)
        .push(users)
}

/// Returns a route for `GET` and `HEAD` that also matches all other methods, which would otherwise match a sibling `{…}` route.
fn only_get(path: &str) -> Router {
    let others = Router::new().filter_fn(|req, _| !matches!(*req.method(), Method::GET | Method::HEAD)).goal(OnlyGet);
    Router::with_path(path).push(others)
}

/// Rejects all methods but GET and HEAD.
struct OnlyGet;

#[async_trait]
impl Handler for OnlyGet {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, _ctrl: &mut FlowCtrl) {
        res.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        ApiError::MethodNotAllowed.write(req, depot, res).await;
    }
}

/// Responds with a problem where no route matches.
struct ErrorCatcher;

#[async_trait]
impl Handler for ErrorCatcher {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
        let error = match res.status_code {
            Some(StatusCode::NOT_FOUND) => ApiError::NotFound,
            Some(StatusCode::METHOD_NOT_ALLOWED) => ApiError::MethodNotAllowed,
            _ => return,
        };
        error.write(req, depot, res).await;
        ctrl.skip_rest();
    }
}
