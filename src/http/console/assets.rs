//! The files of the console, with the paths at which they are served. A test compares this list with the directories.

macro_rules! page_file {
    ($name:literal) => {
        (concat!("/console/", $name), include_str!(concat!("../../../web/", $name)))
    };
}

macro_rules! reference_file {
    ($name:literal) => {
        (concat!("/docs/", $name), include_str!(concat!("../../../web/reference/", $name)))
    };
}

macro_rules! client_file {
    ($name:literal) => {
        (concat!("/client/", $name), include_str!(concat!("../../../clients/js/src/", $name)))
    };
}

/// All of them.
pub(super) const ALL: &[(&str, &str)] = &[
    ("/", include_str!("../../../web/index.html")),
    page_file!("style.css"),
    page_file!("phone.css"),
    page_file!("chat.css"),
    page_file!("wire.css"),
    page_file!("platform.css"),
    page_file!("icon.svg"),
    page_file!("route.json"),
    page_file!("service-worker.js"),
    page_file!("js/bubble.js"),
    page_file!("js/cancel-dialog.js"),
    page_file!("js/chat.js"),
    page_file!("js/composer.js"),
    page_file!("js/connection.js"),
    page_file!("js/controls.js"),
    page_file!("js/deliveries.js"),
    page_file!("js/dom.js"),
    page_file!("js/feed.js"),
    page_file!("js/icons.js"),
    page_file!("js/main.js"),
    page_file!("js/map.js"),
    page_file!("js/menu.js"),
    page_file!("js/network-tap.js"),
    page_file!("js/outage.js"),
    page_file!("js/phone.js"),
    page_file!("js/platform.js"),
    page_file!("js/push.js"),
    page_file!("js/receipt-tracker.js"),
    page_file!("js/ride-list.js"),
    page_file!("js/roving-tabindex.js"),
    page_file!("js/session.js"),
    page_file!("js/steps.js"),
    page_file!("js/tabs.js"),
    page_file!("js/wire-view.js"),
    page_file!("js/wire.js"),
    ("/docs", include_str!("../../../web/reference/index.html")),
    reference_file!("page.css"),
    reference_file!("operation.css"),
    reference_file!("try.css"),
    reference_file!("js/caller.js"),
    reference_file!("js/example-values.js"),
    reference_file!("js/exchange.js"),
    reference_file!("js/fields.js"),
    reference_file!("js/main.js"),
    reference_file!("js/nav.js"),
    reference_file!("js/operation.js"),
    reference_file!("js/prose.js"),
    reference_file!("js/request.js"),
    reference_file!("js/response.js"),
    reference_file!("js/spec.js"),
    reference_file!("js/try-panel.js"),
    client_file!("backoff.js"),
    client_file!("bind.js"),
    client_file!("client.js"),
    client_file!("connection-slots.js"),
    client_file!("conversation.js"),
    client_file!("cursor.js"),
    client_file!("emitter.js"),
    client_file!("environment.js"),
    client_file!("error.js"),
    client_file!("event-source.js"),
    client_file!("events.js"),
    client_file!("fetch-stream.js"),
    client_file!("http.js"),
    client_file!("id.js"),
    client_file!("index.js"),
    client_file!("options.js"),
    client_file!("reducer.js"),
    client_file!("sse.js"),
    client_file!("stream.js"),
    client_file!("subscription.js"),
    client_file!("tickets.js"),
    client_file!("timing.js"),
];

/// Returns the media type of a file, by its extension.
pub(super) fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.') {
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        Some((_, "json")) => "application/json",
        _ => "text/html; charset=utf-8",
    }
}
