//! Path and query parameters, parsed into the domain's types.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::str::FromStr;

use salvo::extract::Metadata;
use salvo::http::Method;
use salvo::oapi::{
    Components, EndpointArgRegister, OpenApi, Operation, Parameter, ParameterIn, RefOr, SecurityRequirement, ToSchema,
};
use salvo::{Depot, Extractible, Request};

use super::refusal::Refusal;
use super::schema;
use crate::domain::{Emoji, Error, FieldErrors, MessageId, RideId, Seq, UserId};

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
            async fn extract(req: &'ex mut Request, _depot: &'ex mut Depot) -> Result<Self, Refusal> {
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
    RidePath(RideId) = "rideId", schema::Id, |text| RideId::parse(text).map_err(|error| error.to_string())
}

path_parameter! {
    /// `{userId}`
    UserPath(UserId) = "userId", schema::Person, |text| UserId::parse(text).map_err(|error| error.to_string())
}

path_parameter! {
    /// `{messageId}`
    MessagePath(MessageId) = "messageId", schema::Uuid,
    |text| MessageId::parse(text).ok_or_else(|| "must be a message's id: a UUID".to_owned())
}

path_parameter! {
    /// `{emoji}`
    EmojiPath(Emoji) = "emoji", schema::EmojiText, |text| Emoji::parse(text).map_err(ToOwned::to_owned)
}

path_parameter! {
    /// `{webhookId}`
    WebhookPath(String) = "webhookId", String, |text| Ok(text.to_owned())
}

/// The method and path of a request's operation, as the maps that are made from openapi.yaml have them.
pub(super) fn operation_key(req: &Request) -> String {
    let method = if req.method() == Method::HEAD { "get" } else { req.method().as_str() };
    format!("{method} /{}", req.matched_path().trim_start_matches('/')).to_ascii_lowercase()
}

/// What each operation takes, as openapi.yaml documents it: query parameters, and whether there is a body.
#[derive(Debug, Default)]
pub(super) struct QueryParameters {
    parameters: HashMap<String, Vec<String>>,
    without_body: HashSet<String>,
}

impl QueryParameters {
    /// Reads them from the document.
    pub(super) fn of(document: &OpenApi) -> Self {
        let mut parameters: HashMap<String, Vec<String>> = HashMap::new();
        let mut without_body = HashSet::new();
        for (path, item) in document.paths.iter() {
            for (method, operation) in item.operations.iter() {
                let documented = operation.parameters.0.iter().filter_map(|parameter| match parameter {
                    RefOr::Type(parameter) if parameter.parameter_in == ParameterIn::Query => {
                        Some(parameter.name.clone())
                    }
                    _ => None,
                });
                let mut names: Vec<_> = documented.collect();
                // Where a ticket counts, it is documented as a way to authenticate.
                let ticket = SecurityRequirement::new("ticket", Vec::<String>::new());
                if operation.securities.iter().flatten().any(|security| *security == ticket) {
                    names.push("ticket".to_owned());
                }
                let name = format!("{method:?} {path}").to_ascii_lowercase();
                if operation.request_body.is_none() {
                    without_body.insert(name.clone());
                }
                parameters.insert(name, names);
            }
        }
        Self { parameters, without_body }
    }

    /// Whether the operation of a request has no body.
    pub(super) fn is_without_body(&self, req: &Request) -> bool {
        self.without_body.contains(&operation_key(req))
    }

    /// Rejects a parameter that the operation does not have: it is more likely a misspelt one than one that does not matter.
    /// `_` is what libraries add to have no response from a cache.
    pub(super) fn check(&self, req: &Request) -> Result<(), Error> {
        // Most requests have none, sends above all.
        if req.uri().query().is_none() {
            return Ok(());
        }
        let Some(known) = self.parameters.get(&operation_key(req)) else { return Ok(()) };
        let mut unknown = FieldErrors::default();
        for name in req.queries().keys().filter(|name| *name != "_" && !known.contains(name)) {
            let detail = match known.as_slice() {
                [] => "is unknown: this operation has no query parameters".to_owned(),
                known => format!("is unknown; the query parameters of this operation are {}", known.join(", ")),
            };
            unknown.take::<(), _>(name, Err(detail));
        }
        if unknown.0.is_empty() { Ok(()) } else { Err(unknown.into_error()) }
    }
}

/// A query parameter, if it was given; of several by the same name the last.
pub(super) fn query<'a>(req: &'a Request, name: &str) -> Option<&'a str> {
    req.queries().get_vec(name).and_then(|values| values.last()).map(String::as_str)
}

/// A whole number within `range`, if it was given.
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

/// A position in a ride's log, if one was given.
pub(super) fn seq(name: &str, text: Option<&str>) -> Result<Option<Seq>, Error> {
    let Some(text) = text else { return Ok(None) };
    digits(text).map(Some).ok_or_else(|| Error::invalid(name, "must be a seq: a whole number, 0 or more"))
}

/// A number that is written in digits alone, without a sign.
pub(super) fn digits<T: FromStr>(text: &str) -> Option<T> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}
