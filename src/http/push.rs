//! `/push-subscriptions` and `/push-key`: subscriptions of browsers to Web Push.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use salvo::http::StatusCode;
use salvo::oapi::{ToSchema, endpoint};
use salvo::{Response, Scribe, Writer as _};
use serde::{Deserialize, Serialize};

use super::api_error::ApiError;
use super::body::{Body, Json, REQUIRED};
use super::schema;
use super::session::Session;
use crate::domain::{Caller, Error, FieldErrors};
use crate::push::{WebPush, check_auth, check_p256dh};
use crate::store::{NewSubscription, Store};

/// The maximum time value of JavaScript, in milliseconds after 1970.
const MAX_TIME: f64 = 8.64e15;

/// A browser's `PushSubscription`, as its `toJSON` returns it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[salvo(schema(name = "PushSubscription"))]
pub(super) struct SubscriptionBody {
    /// The URL to which pushes are sent: `https`, with a host that has a public address.
    #[salvo(schema(
        required = true,
        nullable = false,
        max_length = 2048,
        example = "https://push.example/send/dGhlIGVuZHBvaW50"
    ))]
    endpoint: Option<String>,
    /// When the subscription expires, in milliseconds after 1970. Most browsers send null.
    #[salvo(schema(minimum = 0))]
    expiration_time: Option<f64>,
    /// The keys for the encryption of pushes.
    #[salvo(schema(required = true, nullable = false, value_type = Keys))]
    keys: Option<Keys>,
}

/// The keys for the encryption of pushes.
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
    /// The browser's authentication secret: 16 bytes, in base64url.
    #[salvo(schema(required = true, nullable = false, example = "BTBZMqHH6r4Tts7J_aSIgg"))]
    auth: Option<String>,
}

/// The subscription to remove.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[salvo(schema(name = "PushEndpoint"))]
pub(super) struct EndpointBody {
    /// The endpoint of the subscription.
    #[salvo(schema(required = true, nullable = false, example = "https://push.example/send/dGhlIGVuZHBvaW50"))]
    endpoint: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyView<'a> {
    public_key: &'a str,
}

/// Returns Web Push, the store and the caller; 404 where Web Push is off.
fn web_push(session: Session) -> Result<(Arc<WebPush>, Arc<Store>, Caller), ApiError> {
    let Session { caller, api, .. } = session;
    let push = api.push.clone().ok_or(ApiError::NotFound)?;
    Ok((push, Arc::clone(&api.shards.first().store), caller))
}

/// Register a push subscription
///
/// Web Push then notifies this browser of undelivered messages of the caller, also while its page is closed. The body is a
/// `PushSubscription` as JSON, created with the key of `GET /push-key`. A subscription of another user with the same endpoint
/// becomes the caller's. A user has at most 20 subscriptions; the ones registered longest ago are removed. A subscription that
/// is not registered again for a year is removed, too.
#[endpoint(tags("push"), operation_id = "putPushSubscription", responses(
    (status_code = 204, description = "Registered"),
    (status_code = 404, description = "`not_found`: Web Push is off")))]
pub(super) async fn put_subscription(
    session: Session,
    body: Body<SubscriptionBody>,
    res: &mut Response,
) -> Result<(), ApiError> {
    let (push, _, caller) = web_push(session)?;
    let Body(body) = body;
    let mut errors = FieldErrors::default();
    let endpoint = body.endpoint.ok_or(REQUIRED);
    let endpoint = endpoint.and_then(|endpoint| Ok((push.check_endpoint(&endpoint)?, endpoint)));
    let endpoint = errors.check("/endpoint", endpoint);
    let expires_at = errors.check("/expirationTime", body.expiration_time.map(check_time).transpose());
    let (p256dh, auth) = match body.keys {
        Some(keys) => (
            errors.check("/keys/p256dh", decoded(keys.p256dh, check_p256dh)),
            errors.check("/keys/auth", decoded(keys.auth, check_auth)),
        ),
        None => (errors.check("/keys", Err(REQUIRED)), None),
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
/// Returns 204 also where the subscription does not exist. Subscriptions of other users are not removed.
#[endpoint(tags("push"), operation_id = "deletePushSubscription", responses(
    (status_code = 204, description = "Removed"),
    (status_code = 404, description = "`not_found`: Web Push is off")))]
pub(super) async fn delete_subscription(
    session: Session,
    body: Body<EndpointBody>,
    res: &mut Response,
) -> Result<(), ApiError> {
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
/// Returns the VAPID public key, which `PushManager.subscribe` needs as `applicationServerKey`. The key does not change.
#[endpoint(tags("push"), operation_id = "getPushKey", responses(
    (status_code = 200, description = "The key", body = schema::PushKey),
    (status_code = 404, description = "`not_found`: Web Push is off")))]
pub(super) async fn get_key(session: Session, res: &mut Response) -> Result<(), ApiError> {
    let (push, ..) = web_push(session)?;
    Json::<schema::PushKey>::ok(&KeyView { public_key: push.public_key() })?.render(res);
    Ok(())
}

/// Converts a time in milliseconds after 1970 to seconds.
fn check_time(milliseconds: f64) -> Result<f64, &'static str> {
    let is_moment = (0.0..=MAX_TIME).contains(&milliseconds);
    if is_moment { Ok(milliseconds / 1_000.0) } else { Err("must be null, or a time in milliseconds after 1970") }
}

/// Decodes base64url, with or without padding, and checks the bytes.
fn decoded(text: Option<String>, check: impl Fn(&[u8]) -> Result<(), &'static str>) -> Result<Vec<u8>, &'static str> {
    let bytes = URL_SAFE_NO_PAD.decode(text.ok_or(REQUIRED)?.trim_end_matches('=')).unwrap_or_default();
    check(&bytes).map(|()| bytes)
}
