//! The files of the console, each by the path that it is served at. A test holds this against the directories.

macro_rules! of_the_page {
    ($name:literal) => {
        (concat!("/console/", $name), include_str!(concat!("../../../web/", $name)))
    };
}

macro_rules! of_the_reference {
    ($name:literal) => {
        (concat!("/docs/", $name), include_str!(concat!("../../../web/reference/", $name)))
    };
}

macro_rules! of_the_client {
    ($name:literal) => {
        (concat!("/client/", $name), include_str!(concat!("../../../clients/js/src/", $name)))
    };
}

/// All of them.
pub(super) const ALL: &[(&str, &str)] = &[
    ("/", include_str!("../../../web/index.html")),
    of_the_page!("style.css"),
    of_the_page!("phone.css"),
    of_the_page!("chat.css"),
    of_the_page!("wire.css"),
    of_the_page!("platform.css"),
    of_the_page!("icon.svg"),
    of_the_page!("route.json"),
    of_the_page!("service-worker.js"),
    of_the_page!("js/bubble.js"),
    of_the_page!("js/cancel.js"),
    of_the_page!("js/chat.js"),
    of_the_page!("js/composer.js"),
    of_the_page!("js/controls.js"),
    of_the_page!("js/deliveries.js"),
    of_the_page!("js/dom.js"),
    of_the_page!("js/feed.js"),
    of_the_page!("js/icons.js"),
    of_the_page!("js/line.js"),
    of_the_page!("js/main.js"),
    of_the_page!("js/map.js"),
    of_the_page!("js/menu.js"),
    of_the_page!("js/outage.js"),
    of_the_page!("js/phone.js"),
    of_the_page!("js/platform.js"),
    of_the_page!("js/push.js"),
    of_the_page!("js/reading.js"),
    of_the_page!("js/rows.js"),
    of_the_page!("js/session.js"),
    of_the_page!("js/steps.js"),
    of_the_page!("js/support.js"),
    of_the_page!("js/tabs.js"),
    of_the_page!("js/tap.js"),
    of_the_page!("js/wire.js"),
    of_the_page!("js/wire-view.js"),
    ("/docs", include_str!("../../../web/reference/index.html")),
    of_the_reference!("page.css"),
    of_the_reference!("operation.css"),
    of_the_reference!("try.css"),
    of_the_reference!("js/answer.js"),
    of_the_reference!("js/exchange.js"),
    of_the_reference!("js/fields.js"),
    of_the_reference!("js/known.js"),
    of_the_reference!("js/main.js"),
    of_the_reference!("js/nav.js"),
    of_the_reference!("js/operation.js"),
    of_the_reference!("js/prose.js"),
    of_the_reference!("js/request.js"),
    of_the_reference!("js/spec.js"),
    of_the_reference!("js/try.js"),
    of_the_reference!("js/who.js"),
    of_the_client!("backoff.js"),
    of_the_client!("bind.js"),
    of_the_client!("client.js"),
    of_the_client!("conversation.js"),
    of_the_client!("cursor.js"),
    of_the_client!("emitter.js"),
    of_the_client!("environment.js"),
    of_the_client!("error.js"),
    of_the_client!("event-source.js"),
    of_the_client!("events.js"),
    of_the_client!("fetch-stream.js"),
    of_the_client!("http.js"),
    of_the_client!("id.js"),
    of_the_client!("index.js"),
    of_the_client!("log.js"),
    of_the_client!("options.js"),
    of_the_client!("places.js"),
    of_the_client!("sse.js"),
    of_the_client!("stream.js"),
    of_the_client!("subscription.js"),
    of_the_client!("tickets.js"),
    of_the_client!("timing.js"),
];

/// What a file is, by the end of its name.
pub(super) fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.') {
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        Some((_, "json")) => "application/json",
        _ => "text/html; charset=utf-8",
    }
}
