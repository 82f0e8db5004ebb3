//! The content and the metadata of a message, and their limits.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The text of a message, byte for byte as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content(String);

impl Content {
    /// The maximum number of Unicode scalar values, after trimming.
    pub const MAX_CHARS: usize = 4_000;
    /// The maximum number of bytes, before trimming.
    pub const MAX_BYTES: usize = 16 * 1024;

    /// Accepts 1 to [`Self::MAX_CHARS`] Unicode scalar values after trimming and at most [`Self::MAX_BYTES`] in total, without
    /// U+0000, which Postgres cannot store. The stored text is not trimmed.
    pub fn parse(text: String) -> Result<Self, &'static str> {
        if text.contains('\0') {
            return Err("must not contain U+0000");
        }
        if text.len() > Self::MAX_BYTES {
            return Err("must be at most 16 KiB, white space included");
        }
        match text.trim().chars().take(Self::MAX_CHARS + 1).count() {
            0 => Err("must not be empty"),
            length if length > Self::MAX_CHARS => Err("must be at most 4000 characters long"),
            _ => Ok(Self(text)),
        }
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The metadata of a message, or the data of a notice: a JSON object, stored as one line of compact JSON.
#[derive(Debug, Clone)]
pub struct Metadata(Box<RawValue>);

impl Metadata {
    /// The maximum number of bytes of compact JSON.
    pub const MAX_BYTES: usize = 8 * 1024;
    /// The maximum depth. The object itself is the first level.
    pub const MAX_DEPTH: usize = 32;

    /// Accepts an object of at most 8 KiB and 32 levels, without U+0000 in any key or string. An integer beyond 64 bits is
    /// rejected, because it would be returned as another number. Numbers are compared as written: `13` differs from `13.0`.
    pub fn parse(json: &RawValue) -> Result<Self, &'static str> {
        let object: Map<String, Value> = serde_json::from_str(json.get()).map_err(|_| "must be a JSON object")?;
        if !integers(json.get()).all(|digits| digits.parse::<i64>().is_ok() || digits.parse::<u64>().is_ok()) {
            return Err("must not have integers beyond 64 bits; send them as strings");
        }
        let value = Value::Object(object);
        if deeper_than(&value, Self::MAX_DEPTH) {
            return Err("must be nested at most 32 levels deep");
        }
        if has_nul(&value) {
            return Err("must not contain U+0000");
        }
        let raw = serde_json::value::to_raw_value(&value).map_err(|_| "must be a JSON object")?;
        if raw.get().len() > Self::MAX_BYTES { Err("must be at most 8 KiB of JSON") } else { Ok(Self(raw)) }
    }

    /// Reads stored metadata. Returns `None` where it is not JSON, which happens only after a manual change of the database.
    pub fn from_stored(json: String) -> Option<Self> {
        RawValue::from_string(json).ok().map(Self)
    }

    /// Returns the object as raw JSON.
    pub fn as_raw(&self) -> &RawValue {
        &self.0
    }

    /// Returns compact JSON with sorted keys.
    pub fn as_json(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.as_json() == other.as_json()
    }
}

impl Eq for Metadata {}

/// Returns the integers in a JSON text as written: numbers outside of strings, without a fraction and without an exponent.
fn integers(json: &str) -> impl Iterator<Item = &str> {
    let mut in_string = false;
    let mut escaped = false;
    let mut is_outside = move |c: char| {
        let was_outside = !in_string;
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
        was_outside
    };
    let tokens = json.split(move |c: char| {
        let is_number = matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E');
        !(is_outside(c) && is_number)
    });
    tokens.filter(|token| {
        let digits = token.strip_prefix('-').unwrap_or(token);
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn deeper_than(value: &Value, levels: usize) -> bool {
    let Some(inner) = levels.checked_sub(1) else { return value.is_object() || value.is_array() };
    match value {
        Value::Object(members) => members.values().any(|member| deeper_than(member, inner)),
        Value::Array(items) => items.iter().any(|item| deeper_than(item, inner)),
        _ => false,
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => members.iter().any(|(key, member)| key.contains('\0') || has_nul(member)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(&value).unwrap()
    }

    #[test]
    fn content_is_counted_in_scalars_after_trimming_and_kept_as_sent() {
        let text = "  \r\n e\u{301}🚕 ";
        assert_eq!(Content::parse(text.into()).unwrap().as_str(), text);
        assert!(Content::parse("🚕".repeat(4_000)).is_ok());
        assert!(Content::parse("🚕".repeat(4_001)).is_err());
        assert!(Content::parse("\n".repeat(16 * 1024 - 1) + "x").is_ok());
        assert!(Content::parse("\n".repeat(16 * 1024) + "x").is_err(), "white space has its size");
        assert!(Content::parse(format!("{}{}", " ".repeat(5_000), "x")).is_ok());
        for bad in ["", " \u{2003}\n", "a\0b"] {
            assert!(Content::parse(bad.into()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn metadata_is_bounded_in_size_depth_and_has_no_nul() {
        let nested = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
        assert!(Metadata::parse(&object(nested(32))).is_ok());
        assert!(Metadata::parse(&object(nested(33))).is_err());
        assert!(Metadata::parse(&object(json!({ "k": "x".repeat(8_192 - 8) }))).is_ok());
        assert!(Metadata::parse(&object(json!({ "k": "x".repeat(8_192 - 7) }))).is_err());
        assert!(Metadata::parse(&object(json!({ "a": ["b\0"] }))).is_err());
        assert!(Metadata::parse(&object(json!({ "a\0": 1 }))).is_err());
        assert!(Metadata::parse(&object(json!([1]))).is_err());
    }

    #[test]
    fn a_number_is_stored_as_sent_or_rejected() {
        let parse = |text: &str| Metadata::parse(&RawValue::from_string(text.to_owned()).unwrap());
        for kept in [
            r#"{"a":18446744073709551615}"#,
            r#"{"a":-9223372036854775808}"#,
            r#"{"a":[13.0,13,1e+30]}"#,
            r#"{"a":"18446744073709551616"}"#,
            r#"{"a\"b":"c\\","d":1}"#,
        ] {
            assert_eq!(parse(kept).unwrap().as_json(), kept);
        }
        for lost in
            [r#"{"a":18446744073709551616}"#, r#"{"a":[-9223372036854775809]}"#, r#"{"\"":99999999999999999999}"#]
        {
            assert!(parse(lost).is_err(), "{lost}");
        }
    }
}
