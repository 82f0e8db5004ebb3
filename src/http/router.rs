//! Which path is whose.

use std::sync::Arc;

use salvo::catcher::Catcher;
use salvo::http::header::{ALLOW, HeaderValue};
use salvo::http::{Method, StatusCode};
use salvo::{Depot, FlowCtrl, Handler, Request, Response, Router, Service, Writer, async_trait};

use super::console::Console;
use super::context::{Api, Provide};
use super::guard::{Origin, cors};
use super::live::{poll, sse};
use super::refusal::Refusal;
use super::trace::Trace;
use super::{
    broadcasts, drivers, health, location, messages, metrics, openapi, presence, reactions, receipts, rides, tickets,
    typing, users,
};

/// What is served at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// Everything.
    All,
    /// What everybody may reach, where operators have an address of their own.
    Public,
    /// What operators need: whether it lives and works, and `/metrics`.
    Operations,
}

/// What answers at an address; with the console, where it is served there.
pub fn service(api: Arc<Api>, origins: &[Origin], served: Served, console: Option<&Arc<Console>>) -> Service {
    let mut root = router(served);
    if let Some(console) = console {
        root = root.push(console.router());
    }
    let service = Service::new(root).catcher(Catcher::default().hoop(Nothing)).hoop(Provide(api)).hoop(Trace);
    match cors(origins) {
        Some(cors) => service.hoop(cors),
        None => service,
    }
}

/// The paths of what is served.
pub(super) fn router(served: Served) -> Router {
    let mut root = Router::new()
        .push(Router::with_path("healthz").get(health::get_health))
        .push(Router::with_path("readyz").get(health::get_readiness));
    if served != Served::Operations {
        root = root
            .push(interface())
            .push(Router::with_path("openapi.yaml").get(openapi::Yaml))
            .push(Router::with_path("openapi.json").get(openapi::Json::default()));
    }
    if served != Served::Public {
        root = root.push(Router::with_path("metrics").get(metrics::get_metrics));
    }
    root
}

/// The interface itself.
fn interface() -> Router {
    let of_ride = Router::with_path("rides/{rideId}")
        .get(messages::get_history)
        .push(Router::with_path("unread-count").get(receipts::get_unread_count))
        .push(Router::with_path("presence").get(presence::get_presence))
        .push(Router::with_path("typing").post(typing::set_typing))
        .push(Router::with_path("events").get(sse::stream_ride))
        .push(Router::with_path("poll").get(poll::poll_ride));
    let of_message = Router::with_path("{messageId}")
        .get(messages::get_message)
        .patch(messages::edit_message)
        .delete(messages::delete_message)
        .push(Router::with_path("reactions/{emoji}").put(reactions::put_reaction).delete(reactions::delete_reaction))
        .push(Router::with_path("read").post(receipts::mark_read))
        .push(Router::with_path("delivered").post(receipts::mark_delivered));
    let messages = Router::with_path("messages")
        .post(messages::send_message)
        .push(only_get("unread-count").get(receipts::get_unread_counts))
        .push(of_ride)
        .push(of_message);
    let rides = Router::with_path("rides").get(rides::list_rides).push(
        Router::with_path("{rideId}")
            .put(rides::put_ride)
            .get(rides::get_ride)
            .push(Router::with_path("location").post(location::put_location).get(location::get_location))
            .push(Router::with_path("accept").post(rides::accept_ride))
            .push(Router::with_path("cancel").post(rides::cancel_ride))
            .push(Router::with_path("status").post(rides::set_ride_status)),
    );
    let tickets = Router::with_path("stream-tickets").post(tickets::create_stream_ticket);
    let broadcasts = Router::with_path("broadcasts").post(broadcasts::broadcast);
    let users = Router::with_path("users/{userId}")
        .delete(users::erase_user)
        .push(Router::with_path("revoke").post(users::revoke_user));
    let drivers = Router::with_path("drivers")
        .push(Router::with_path("me/availability").put(drivers::put_availability))
        .push(Router::with_path("available").get(drivers::list_available));
    let events = Router::with_path("events").get(sse::stream_all);
    let poll = Router::with_path("poll").get(poll::poll_all);
    Router::with_path("api/v1")
        .push(messages)
        .push(rides)
        .push(tickets)
        .push(broadcasts)
        .push(events)
        .push(poll)
        .push(drivers)
        .push(users)
}

/// A path beside `{…}`, which other methods would fall through to.
fn only_get(path: &str) -> Router {
    let others = Router::new().filter_fn(|req, _| req.method() != Method::GET).goal(OnlyGet);
    Router::with_path(path).push(others)
}

/// Refuses all methods but GET.
struct OnlyGet;

#[async_trait]
impl Handler for OnlyGet {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, _ctrl: &mut FlowCtrl) {
        res.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        Refusal::MethodNotAllowed.write(req, depot, res).await;
    }
}

/// What is answered where no handler is.
struct Nothing;

#[async_trait]
impl Handler for Nothing {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
        let refusal = match res.status_code {
            Some(StatusCode::NOT_FOUND) => Refusal::NotFound,
            Some(StatusCode::METHOD_NOT_ALLOWED) => Refusal::MethodNotAllowed,
            _ => return,
        };
        refusal.write(req, depot, res).await;
        ctrl.skip_rest();
    }
}
