//! The schemas of a location's numbers that may be unknown: −1, as iOS reports it, or null.

use salvo::oapi::schema::{AnyOf, BasicType, Object};
use salvo::oapi::{Components, RefOr, Schema, ToSchema};
use serde_json::json;

/// Returns the schema of a number from 0 to `maximum`, or −1.
fn or_unknown(maximum: Option<f64>) -> RefOr<Schema> {
    let number = || Object::new().schema_type(BasicType::Number);
    let known = match maximum {
        Some(maximum) => number().minimum(0.0).maximum(maximum),
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

/// Metres per second.
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
