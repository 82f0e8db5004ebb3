//! `/push-subscriptions` and `/push-key`: browsers that Web Push notifies of undelivered messages.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use salvo::http::StatusCode;
use salvo::oapi::{ToSchema, endpoint};
use salvo::{Response, Scribe, Writer as _};
use serde::{Deserialize, Serialize};

use super::body::{Body, Json, REQUIRED};
use super::context::Session;
use super::refusal::Refusal;
use super::schema;
use crate::domain::{Caller, Error, FieldErrors};
use crate::push::{WebPush, check_auth, check_p256dh};
use crate::store::{NewSubscription, Store};

/// The last moment of JavaScript, in milliseconds after 1970.
const LAST: f64 = 8.64e15;

/// A browser's `PushSubscription`, as its `toJSON` returns it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[salvo(schema(name = "PushSubscription"))]
pub(super) struct SubscriptionBody {
    /// Where pushes are sent: an `https` URL, whose host has a public address.
    #[salvo(schema(
        required = true,
        nullable = false,
        max_length = 2048,
        example = "https://push.example/send/dGhlIGVuZHBvaW50"
    ))]
    endpoint: Option<String>,
    /// When the subscription expires, in milliseconds after 1970. Most browsers give null.
    #[salvo(schema(minimum = 0))]
    expiration_time: Option<f64>,
    /// What pushes are encrypted with.
    #[salvo(schema(required = true, nullable = false, value_type = Keys))]
    keys: Option<Keys>,
}

/// What pushes are encrypted with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[salvo(schema(name = "PushSubscriptionKeys"))]
pub(super) struct Keys {
    /// The browser's public key: an uncompressed point of P-256, in base64url.
    #[salvo(schema(
        required = true,
        nullable = false,
        example = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
    ))]
    p256dh: Option<String>,
    /// The secret that the browser shares: 16 bytes, in base64url.
    #[salvo(schema(required = true, nullable = false, example = "BTBZMqHH6r4Tts7J_aSIgg"))]
    auth: Option<String>,
}

/// The subscription to be removed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[salvo(schema(name = "PushEndpoint"))]
pub(super) struct EndpointBody {
    /// The endpoint that it was registered with.
    #[salvo(schema(required = true, nullable = false, example = "https://push.example/send/dGhlIGVuZHBvaW50"))]
    endpoint: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyView<'a> {
    public_key: &'a str,
}

/// Web Push and the caller, where it is on.
fn web_push(session: Session) -> Result<(Arc<WebPush>, Arc<Store>, Caller), Refusal> {
    let Session { caller, api, .. } = session;
    let push = api.push.clone().ok_or(Refusal::NotFound)?;
    Ok((push, Arc::clone(&api.store), caller))
}

/// Register a push subscription
///
/// From now on Web Push notifies this browser of messages that were not delivered to the caller, also while its page is closed. The
/// body is a `PushSubscription` as JSON, made with the key of `GET /push-key`. A subscription that another user has registered is the
/// caller's from now on. Of more than 20 of a user, the longest ago registered ones are removed; one that is not registered again for a
/// year is, too.
#[endpoint(tags("push"), operation_id = "putPushSubscription", responses(
    (status_code = 204, description = "Registered"),
    (status_code = 404, description = "`not_found`: Web Push is off")))]
pub(super) async fn put_subscription(
    session: Session,
    body: Body<SubscriptionBody>,
    res: &mut Response,
) -> Result<(), Refusal> {
    let (push, _, caller) = web_push(session)?;
    let Body(body) = body;
    let mut errors = FieldErrors::default();
    let endpoint = body.endpoint.ok_or(REQUIRED);
    let endpoint = endpoint.and_then(|endpoint| Ok((push.check_endpoint(&endpoint)?, endpoint)));
    let endpoint = errors.take("/endpoint", endpoint);
    let expires_at = errors.take("/expirationTime", body.expiration_time.map(check_time).transpose());
    let (p256dh, auth) = match body.keys {
        Some(keys) => (
            errors.take("/keys/p256dh", decoded(keys.p256dh, check_p256dh)),
            errors.take("/keys/auth", decoded(keys.auth, check_auth)),
        ),
        None => (errors.take("/keys", Err(REQUIRED)), None),
    };
    let (Some((host, endpoint)), Some(expires_at), Some(p256dh), Some(auth)) = (endpoint, expires_at, p256dh, auth)
    else {
        return Err(errors.into_error().into());
    };
    let new = NewSubscription { endpoint: &endpoint, host: &host, p256dh: &p256dh, auth: &auth, expires_at };
    push.register(&caller.user, &new).await?;
    res.status_code(StatusCode::NO_CONTENT);
    Ok(())
}

/// Remove a push subscription
///
/// Also where there is none. A subscription of another user stays.
#[endpoint(tags("push"), operation_id = "deletePushSubscription", responses(
    (status_code = 204, description = "Removed"),
    (status_code = 404, description = "`not_found`: Web Push is off")))]
pub(super) async fn delete_subscription(
    session: Session,
    body: Body<EndpointBody>,
    res: &mut Response,
) -> Result<(), Refusal> {
    let (_, store, caller) = web_push(session)?;
    let endpoint = body.0.endpoint.ok_or_else(|| Error::invalid("/endpoint", REQUIRED))?;
    if endpoint.contains('\0') {
        return Err(Error::invalid("/endpoint", "must not have U+0000").into());
    }
    store.delete_subscription(&caller.user, &endpoint).await?;
    res.status_code(StatusCode::NO_CONTENT);
    Ok(())
}

/// Get the key for push subscriptions
///
/// What `PushManager.subscribe` takes as `applicationServerKey`: the VAPID public key. It stays the same.
#[endpoint(tags("push"), operation_id = "getPushKey", responses(
    (status_code = 200, description = "The key", body = schema::PushKey),
    (status_code = 404, description = "`not_found`: Web Push is off")))]
pub(super) async fn get_key(session: Session, res: &mut Response) -> Result<(), Refusal> {
    let (push, ..) = web_push(session)?;
    Json::<schema::PushKey>::ok(&KeyView { public_key: push.public_key() })?.render(res);
    Ok(())
}

/// A moment in seconds after 1970.
fn check_time(milliseconds: f64) -> Result<f64, &'static str> {
    let is_moment = (0.0..=LAST).contains(&milliseconds);
    if is_moment { Ok(milliseconds / 1_000.0) } else { Err("must be null, or a time in milliseconds after 1970") }
}

/// The bytes of base64url, with or without padding.
fn decoded(text: Option<String>, check: impl Fn(&[u8]) -> Result<(), &'static str>) -> Result<Vec<u8>, &'static str> {
    let bytes = URL_SAFE_NO_PAD.decode(text.ok_or(REQUIRED)?.trim_end_matches('=')).unwrap_or_default();
    check(&bytes).map(|()| bytes)
}
