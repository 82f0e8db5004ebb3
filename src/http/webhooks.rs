//! `/webhooks`: the platform's endpoints, to which events are delivered.

mod bodies;

use std::sync::Arc;
use std::time::Duration;

use salvo::http::StatusCode;
use salvo::oapi::endpoint;
use salvo::{Request, Response, Scribe, Writer as _};
use serde_json::Value;

use self::bodies::{
    Deliveries, DeliveryView, List, NewBody, ReplayBody, SecretView, TestedView, UpdateBody, WebhookView,
};
use super::api_error::ApiError;
use super::body::{Body, Json, REQUIRED};
use super::context::Api;
use super::params::{WebhookPath, number, query};
use super::schema;
use super::session::Session;
use crate::domain::{Error, FieldErrors, Role, Seq};
use crate::signature::Secret;
use crate::store::{Delivery, DeliveryState, NewWebhook, Replayed, WebhookState, WebhookUpdate};
use crate::webhooks::{Webhooks, like_patterns, new_id, parse_settable_state};

/// How long a replaced secret is still used to sign.
const SECRET_OVERLAP: Duration = Duration::from_secs(24 * 3_600);

/// The maximum number of types of an endpoint.
const MAX_TYPES: usize = 50;

/// The maximum length of a description, in characters.
const MAX_DESCRIPTION: usize = 500;

/// The maximum and the default number of deliveries of a page.
const PAGE: (usize, usize) = (200, 50);

/// The error for a state that cannot be set.
const INVALID_STATE: &str = "must be active, or paused to stop deliveries; only the server disables a webhook";

/// Returns the API for the `service` role; 404 where the feed is off.
fn authorized(session: Session) -> Result<Arc<Api>, ApiError> {
    if session.api.relay.is_none() {
        return Err(ApiError::NotFound);
    }
    match session.caller.role {
        Role::Service => Ok(session.api),
        _ => Err(Error::Forbidden("only the `service` role can manage webhooks").into()),
    }
}

/// Create a webhook
///
/// Sends every later event of the feed to the URL, in order within each ride. The secret, which verifies the signatures, is
/// returned only here and on rotation.
#[endpoint(tags("platform"), operation_id = "createWebhook", responses(
    (status_code = 201, description = "Created", body = schema::CreatedWebhook),
    (status_code = 403, description = "`forbidden`: only the `service` role can manage webhooks"),
    (status_code = 404, description = "`not_found`: the feed is off")))]
pub(super) async fn create_webhook(session: Session, body: Body<NewBody>, res: &mut Response) -> Result<(), ApiError> {
    let api = authorized(session)?;
    let Body(body) = body;
    let mut errors = FieldErrors::default();
    let url = errors.check("/url", body.url.ok_or(REQUIRED).and_then(|url| check_url(&api, url)));
    let types = check_types(&mut errors, body.types.unwrap_or_else(|| vec!["*".to_owned()]));
    let description = errors.check("/description", body.description.map(check_description).transpose());
    let (Some(url), Some((types, patterns)), Some(description)) = (url, types, description) else {
        return Err(errors.into_error().into());
    };
    let (id, secret) = (new_id(), Secret::new());
    let new = NewWebhook {
        id: &id,
        url: &url,
        types: &types,
        patterns: &patterns,
        description: description.as_deref(),
        secret: secret.bytes(),
    };
    let webhook = api.shards.first().store.create_webhook(&new).await?;
    api.webhooks.wake();
    let view = WebhookView { secret: Some(secret.text()), ..WebhookView::of(&webhook) };
    let text = serde_json::to_string(&view).map_err(|_| Error::Internal)?;
    Json::<schema::CreatedWebhook>::text(StatusCode::CREATED, text).render(res);
    Ok(())
}

/// List webhooks
#[endpoint(tags("platform"), operation_id = "listWebhooks", responses(
    (status_code = 200, description = "All webhooks, oldest first", body = schema::Webhooks),
    (status_code = 403, description = "`forbidden`: only the `service` role can manage webhooks"),
    (status_code = 404, description = "`not_found`: the feed is off")))]
pub(super) async fn list_webhooks(session: Session, res: &mut Response) -> Result<(), ApiError> {
    let webhooks = authorized(session)?.shards.first().store.webhooks().await?;
    let webhooks = webhooks.iter().map(WebhookView::of).collect();
    Json::<schema::Webhooks>::ok(&List { webhooks })?.render(res);
    Ok(())
}

/// Get a webhook
#[endpoint(tags("platform"), operation_id = "getWebhook", responses(
    (status_code = 200, description = "The webhook", body = schema::Webhook),
    (status_code = 403, description = "`forbidden`: only the `service` role can manage webhooks"),
    (status_code = 404, description = "`webhook_not_found`")))]
pub(super) async fn get_webhook(session: Session, id: WebhookPath, res: &mut Response) -> Result<(), ApiError> {
    let found = authorized(session)?.shards.first().store.webhook(&id.0).await?;
    let (webhook, _) = found.ok_or(Error::WebhookNotFound)?;
    Json::<schema::Webhook>::ok(&WebhookView::of(&webhook))?.render(res);
    Ok(())
}

/// Update a webhook
///
/// Omitted fields do not change. `paused` stops deliveries. `active` continues from where they stopped, also after `disabled`.
#[endpoint(tags("platform"), operation_id = "updateWebhook", responses(
    (status_code = 200, description = "The webhook", body = schema::Webhook),
    (status_code = 403, description = "`forbidden`: only the `service` role can manage webhooks"),
    (status_code = 404, description = "`webhook_not_found`")))]
pub(super) async fn update_webhook(
    session: Session,
    id: WebhookPath,
    body: Body<UpdateBody>,
    res: &mut Response,
) -> Result<(), ApiError> {
    let api = authorized(session)?;
    let Body(body) = body;
    let mut errors = FieldErrors::default();
    let url = errors.check("/url", body.url.map(|url| check_url(&api, url)).transpose());
    let types = body.types.and_then(|types| check_types(&mut errors, types));
    let description = body.description.map(|text| text.map(check_description).transpose()).transpose();
    let description = errors.check("/description", description);
    let state = body.state.map(|text| parse_settable_state(&text).ok_or(INVALID_STATE)).transpose();
    let state = errors.check("/state", state);
    if !errors.0.is_empty() {
        return Err(errors.into_error().into());
    }
    let update =
        WebhookUpdate { url: url.flatten(), types, description: description.flatten(), state: state.flatten() };
    let webhook = api.shards.first().store.update_webhook(&id.0, &update).await?.ok_or(Error::WebhookNotFound)?;
    if update.state == Some(WebhookState::Active) {
        api.webhooks.resume(&id.0).await?;
    }
    api.webhooks.wake();
    Json::<schema::Webhook>::ok(&WebhookView::of(&webhook))?.render(res);
    Ok(())
}

/// Delete a webhook
///
/// No further events are sent. A request that is in progress may still arrive.
#[endpoint(tags("platform"), operation_id = "deleteWebhook", responses(
    (status_code = 204, description = "Deleted"),
    (status_code = 403, description = "`forbidden`: only the `service` role can manage webhooks"),
    (status_code = 404, description = "`webhook_not_found`")))]
pub(super) async fn delete_webhook(session: Session, id: WebhookPath, res: &mut Response) -> Result<(), ApiError> {
    let api = authorized(session)?;
    if !api.shards.first().store.delete_webhook(&id.0).await? {
        return Err(Error::WebhookNotFound.into());
    }
    api.webhooks.wake();
    res.status_code(StatusCode::NO_CONTENT);
    Ok(())
}

/// Rotate a webhook's secret
///
/// The previous secret also signs for 24 hours: `webhook-signature` then has two signatures.
#[endpoint(tags("platform"), operation_id = "rotateWebhookSecret", responses(
    (status_code = 200, description = "The new secret", body = schema::WebhookSecret),
    (status_code = 403, description = "`forbidden`: only the `service` role can manage webhooks"),
    (status_code = 404, description = "`webhook_not_found`")))]
pub(super) async fn rotate_secret(session: Session, id: WebhookPath, res: &mut Response) -> Result<(), ApiError> {
    let api = authorized(session)?;
    let secret = Secret::new();
    if !api.shards.first().store.rotate_webhook_secret(&id.0, secret.bytes(), SECRET_OVERLAP).await? {
        return Err(Error::WebhookNotFound.into());
    }
    Json::<schema::WebhookSecret>::ok(&SecretView { secret: secret.text() })?.render(res);
    Ok(())
}

/// Test a webhook
///
/// Sends one `webhook.test`, whatever the webhook's state, and returns the result. A test is not retried. If the endpoint returns
/// 410, the webhook is disabled, as after any event.
#[endpoint(tags("platform"), operation_id = "testWebhook", responses(
    (status_code = 200, description = "The result", body = schema::TestedWebhook),
    (status_code = 403, description = "`forbidden`: only the `service` role can manage webhooks"),
    (status_code = 404, description = "`webhook_not_found`")))]
pub(super) async fn test_webhook(session: Session, id: WebhookPath, res: &mut Response) -> Result<(), ApiError> {
    let tested = authorized(session)?.webhooks.test(&id.0).await?.ok_or(Error::WebhookNotFound)?;
    let view = TestedView { status: tested.status, duration_ms: tested.duration.as_millis(), error: tested.error };
    Json::<schema::TestedWebhook>::ok(&view)?.render(res);
    Ok(())
}

/// Replay a webhook
///
/// Delivers all events after a cursor of the feed again, with the same ids, and continues after them.
#[endpoint(tags("platform"), operation_id = "replayWebhook", responses(
    (status_code = 202, description = "Accepted"),
    (status_code = 403, description = "`forbidden`: only the `service` role can manage webhooks"),
    (status_code = 404, description = "`webhook_not_found`"),
    (status_code = 409, description = "`feed_gap`: the feed no longer has all events after the cursor")))]
pub(super) async fn replay_webhook(
    session: Session,
    id: WebhookPath,
    body: Body<ReplayBody>,
    res: &mut Response,
) -> Result<(), ApiError> {
    let api = authorized(session)?;
    let after =
        body.0.after.ok_or(REQUIRED).and_then(|after| cursor(&after).ok_or("must be a cursor of the feed, or 0"));
    let after = after.map_err(|detail| Error::invalid("/after", detail))?;
    match api.shards.first().store.replay_webhook(&id.0, after).await?.ok_or(Error::WebhookNotFound)? {
        Replayed::Done => {}
        Replayed::Gap { first, last } => return Err(Error::FeedGap { first, last }.into()),
    }
    api.webhooks.wake();
    res.status_code(StatusCode::ACCEPTED);
    Ok(())
}

/// List a webhook's deliveries
///
/// Newest first. Successful deliveries are listed as long as the feed keeps events, failed ones for 30 days.
#[endpoint(tags("platform"), operation_id = "listWebhookDeliveries",
    parameters(
        ("state" = Option<String>, Query, example = json!("failed"), description = "Only deliveries with this state: `pending`, `failed` or `delivered`."),
        ("before" = Option<String>, Query, max_length = 40, description = "Only deliveries of events before this one: the last `eventId` of the previous page."),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "Maximum number of deliveries: 1 to 200 (default 50).")),
    responses(
        (status_code = 200, description = "Deliveries", body = schema::WebhookDeliveries),
        (status_code = 403, description = "`forbidden`: only the `service` role can manage webhooks"),
        (status_code = 404, description = "`webhook_not_found`")))]
pub(super) async fn list_deliveries(
    session: Session,
    id: WebhookPath,
    req: &mut Request,
    res: &mut Response,
) -> Result<(), ApiError> {
    let api = authorized(session)?;
    let state = |text| {
        DeliveryState::parse(text).ok_or_else(|| Error::invalid("state", "must be pending, failed or delivered"))
    };
    let state = query(req, "state").map(state).transpose()?;
    let before = |text| Webhooks::position(text).ok_or_else(|| Error::invalid("before", "must be an eventId"));
    let before = query(req, "before").map(before).transpose()?.unwrap_or(Seq::MAX);
    let limit = number(req, "limit", 1..=PAGE.0)?.unwrap_or(PAGE.1);
    api.shards.first().store.webhook(&id.0).await?.ok_or(Error::WebhookNotFound)?;
    // One more than the limit, to determine `hasMore`.
    let fetch_limit = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let mut found = api.shards.first().store.deliveries(&id.0, state, before, fetch_limit).await?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let view = |delivery: Delivery| DeliveryView {
        event_id: api.webhooks.event_id(&delivery),
        r#type: delivery.kind.replace(':', "."),
        at: delivery.at,
        attempts: delivery.attempts,
        status: delivery.status,
        duration_ms: delivery.duration_ms,
        error: delivery.error,
        next_attempt_at: delivery.next_attempt_at,
        replay_after: (delivery.position - 1).to_string(),
    };
    let page = Deliveries { deliveries: found.into_iter().map(view).collect(), has_more };
    Json::<schema::WebhookDeliveries>::ok(&page)?.render(res);
    Ok(())
}

fn check_url(api: &Api, url: String) -> Result<String, &'static str> {
    api.webhooks.check_url(&url).map(|()| url)
}

/// Parses types: returns them as given, and as LIKE patterns for the database.
fn check_types(errors: &mut FieldErrors, types: Vec<String>) -> Option<(Vec<String>, Vec<String>)> {
    if !(1..=MAX_TYPES).contains(&types.len()) {
        return errors.check("/types", Err(format!("must be 1 to {MAX_TYPES} types")));
    }
    match like_patterns(&types) {
        Ok(patterns) => Some((types, patterns)),
        Err((index, detail)) => errors.check(&format!("/types/{index}"), Err(detail)),
    }
}

fn check_description(text: String) -> Result<String, String> {
    let is_fine = text.chars().take(MAX_DESCRIPTION + 1).count() <= MAX_DESCRIPTION && !text.contains('\0');
    if is_fine { Ok(text) } else { Err(format!("must have at most {MAX_DESCRIPTION} characters, and no U+0000")) }
}

/// Parses a position in the feed. Cursors are opaque text; a number is accepted, too.
fn cursor(value: &Value) -> Option<Seq> {
    match value {
        Value::String(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Value::Number(number) => number.as_i64().filter(|position| *position >= 0),
        _ => None,
    }
}
