//! The trace context of a request, as defined by W3C Trace Context (<https://www.w3.org/TR/trace-context/>).

use std::fmt;
use std::str::FromStr;

/// A span of a sampled trace. Contexts of traces that are not sampled are not propagated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace id.
    pub trace: [u8; 16],
    /// The id of the parent span.
    pub span: [u8; 8],
}

/// The header is invalid, or its trace is not sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotSampled;

impl FromStr for TraceContext {
    type Err = NotSampled;

    /// Parses a `traceparent` (section 3.2): `00-<32 hex>-<16 hex>-<2 hex>`. The last bit is the sampled flag. Later versions may
    /// append more fields.
    fn from_str(text: &str) -> Result<Self, NotSampled> {
        let mut parts = text.split('-');
        let mut part = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits).ok_or(NotSampled)?;
            let is_hex = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            if is_hex { u128::from_str_radix(part, 16).map_err(|_| NotSampled) } else { Err(NotSampled) }
        };
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let has_more = parts.next().is_some();
        let is_valid = version != 0xff && !(version == 0 && has_more) && trace != 0 && span != 0;
        match u64::try_from(span) {
            Ok(span) if is_valid && flags & 1 == 1 => Ok(Self { trace: trace.to_be_bytes(), span: span.to_be_bytes() }),
            _ => Err(NotSampled),
        }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-01", u128::from_be_bytes(self.trace), u64::from_be_bytes(self.span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_parsed_as_it_is_formatted() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(text.parse::<TraceContext>().unwrap().to_string(), text);
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-is-to-come";
        assert_eq!(later.parse::<TraceContext>().unwrap().to_string(), text);
        for none in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(none.parse::<TraceContext>(), Err(NotSampled), "{none}");
        }
    }
}
