//! The schemas of Web Push.

use salvo::oapi::ToSchema;

/// The key for push subscriptions.
#[derive(ToSchema)]
#[salvo(schema(name = "PushKey", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct PushKey {
    /// The value of `applicationServerKey`: an uncompressed point of P-256 in base64url.
    #[salvo(schema(
        example = "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8"
    ))]
    public_key: String,
}
