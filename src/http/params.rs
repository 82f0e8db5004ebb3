//! Path and query parameters, parsed into the domain's types.

use std::fmt::Display;
use std::str::FromStr;

use salvo::extract::Metadata;
use salvo::oapi::{Components, EndpointArgRegister, Operation, Parameter, ParameterIn, ToSchema};
use salvo::{Depot, Extractible, Request};

use super::api_error::ApiError;
use super::schema;
use crate::domain::{Emoji, Error, MessageId, RideId, Seq, UserId};

macro_rules! path_parameter {
    ($(#[$docs:meta])* $name:ident($inner:ty) = $text:literal, $schema:ty, $parse:expr) => {
        $(#[$docs])*
        #[derive(Debug)]
        pub(super) struct $name(pub(super) $inner);

        impl<'ex> Extractible<'ex> for $name {
            fn metadata() -> &'static Metadata {
                static METADATA: Metadata = Metadata::new(stringify!($name));
                &METADATA
            }

            #[allow(refining_impl_trait, reason = "the error is named so that it is written as a problem")]
            async fn extract(req: &'ex mut Request, _depot: &'ex mut Depot) -> Result<Self, ApiError> {
                let text = req.params().get($text).map(String::as_str).unwrap_or_default();
                let parse: fn(&str) -> Result<$inner, String> = $parse;
                parse(text).map(Self).map_err(|detail| Error::invalid($text, detail).into())
            }
        }

        impl EndpointArgRegister for $name {
            fn register(components: &mut Components, operation: &mut Operation, _arg: &str) {
                let parameter = Parameter::new($text).location(ParameterIn::Path).required(true);
                operation.parameters.insert(parameter.schema(<$schema as ToSchema>::to_schema(components)));
            }
        }
    };
}

path_parameter! {
    /// `{rideId}`
    RidePath(RideId) = "rideId", schema::RideId, |text| RideId::parse(text).map_err(|error| error.to_string())
}

path_parameter! {
    /// `{userId}`
    UserPath(UserId) = "userId", schema::UserId, |text| UserId::parse(text).map_err(|error| error.to_string())
}

path_parameter! {
    /// `{messageId}`
    MessagePath(MessageId) = "messageId", schema::Uuid,
    |text| MessageId::parse(text).ok_or_else(|| "must be a message id: a UUID".to_owned())
}

path_parameter! {
    /// `{emoji}`
    EmojiPath(Emoji) = "emoji", schema::EmojiText, |text| Emoji::parse(text).map_err(ToOwned::to_owned)
}

path_parameter! {
    /// `{webhookId}`
    WebhookPath(String) = "webhookId", String, |text| Ok(text.to_owned())
}

/// Returns a query parameter, if it was given. Of several with the same name, returns the last.
pub(super) fn query<'a>(req: &'a Request, name: &str) -> Option<&'a str> {
    req.queries().get_vec(name).and_then(|values| values.last()).map(String::as_str)
}

/// Parses a query parameter that is a whole number within `range`, if it was given.
pub(super) fn number<T: FromStr + PartialOrd + Display>(
    req: &Request,
    name: &str,
    range: std::ops::RangeInclusive<T>,
) -> Result<Option<T>, Error> {
    let Some(text) = query(req, name) else { return Ok(None) };
    let value = digits(text).filter(|value| range.contains(value));
    let (from, to) = (range.start(), range.end());
    value.map(Some).ok_or_else(|| Error::invalid(name, format!("must be a whole number from {from} to {to}")))
}

/// Parses a seq, if it was given.
pub(super) fn seq(name: &str, text: Option<&str>) -> Result<Option<Seq>, Error> {
    let Some(text) = text else { return Ok(None) };
    digits(text).map(Some).ok_or_else(|| Error::invalid(name, "must be a seq: a whole number, 0 or more"))
}

/// Parses a number that consists of digits only, without a sign.
pub(super) fn digits<T: FromStr>(text: &str) -> Option<T> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}
