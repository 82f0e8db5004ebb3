//! Numbers of a location that may be unknown: −1, as phones with iOS report it, or null.

use salvo::oapi::schema::{AnyOf, BasicType, Object};
use salvo::oapi::{Components, RefOr, Schema, ToSchema};
use serde_json::json;

/// From 0 on, and −1.
fn or_unknown(most: Option<f64>) -> RefOr<Schema> {
    let number = || Object::new().schema_type(BasicType::Number);
    let known = match most {
        Some(most) => number().minimum(0.0).maximum(most),
        None => number().minimum(0.0),
    };
    AnyOf::new().item(known).item(number().enum_values([json!(-1)])).into()
}

/// Degrees clockwise from north.
pub(in crate::http) struct NewHeading;

impl ToSchema for NewHeading {
    fn to_schema(_components: &mut Components) -> RefOr<Schema> {
        or_unknown(Some(360.0))
    }
}

/// Metres a second.
pub(in crate::http) struct NewSpeed;

impl ToSchema for NewSpeed {
    fn to_schema(_components: &mut Components) -> RefOr<Schema> {
        or_unknown(None)
    }
}

/// Metres.
pub(in crate::http) struct NewAccuracy;

impl ToSchema for NewAccuracy {
    fn to_schema(_components: &mut Components) -> RefOr<Schema> {
        or_unknown(None)
    }
}
