//! The payload of a NOTIFY: where some topics' logs end now.
//!
//! `{"v":1,"heads":{"ride/ride_123":42}}`. A replica ignores what it cannot read: hints are only hints, and a
//! newer version may say more.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::domain::{Seq, Topic};

/// The channel.
pub const CHANNEL: &str = "ridewire";

/// A hint that says nothing, by which a listener hears whether it can hear.
pub const PROBE: &str = r#"{"v":1,"heads":{}}"#;

/// Postgres takes payloads of less than 8000 bytes.
const LARGEST: usize = 7_900;

const BEGIN: &str = r#"{"v":1,"heads":{"#;
const END: &str = "}}";

/// As many payloads as it takes.
pub fn encode(heads: &BTreeMap<Topic, Seq>) -> Vec<String> {
    let mut payloads = Vec::new();
    let mut payload = String::from(BEGIN);
    for (topic, seq) in heads {
        // No escaping: the characters of an id are all plain.
        let head = format!(r#""{topic}":{seq}"#);
        if payload.len() + 1 + head.len() + END.len() > LARGEST {
            payloads.push(std::mem::replace(&mut payload, String::from(BEGIN)) + END);
        }
        if payload.len() > BEGIN.len() {
            payload.push(',');
        }
        payload.push_str(&head);
    }
    if payload.len() > BEGIN.len() {
        payloads.push(payload + END);
    }
    payloads
}

/// Reads a payload; `None` where it is not one of ours.
pub fn decode(payload: &str) -> Option<Vec<(Topic, Seq)>> {
    #[derive(Deserialize)]
    struct Payload {
        v: u32,
        heads: BTreeMap<String, Seq>,
    }
    let Payload { v, heads } = serde_json::from_str(payload).ok()?;
    (v == 1).then(|| heads.into_iter().map(|(topic, seq)| (Topic::from_stored(&topic), seq)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::RideId;

    #[test]
    fn hints_survive_the_way_in_payloads_that_postgres_takes() {
        let heads: BTreeMap<_, _> =
            (0..2_000).map(|n| (Topic::ride(&RideId::parse(&format!("ride_{n:060}")[..64]).unwrap()), n)).collect();
        let payloads = encode(&heads);
        assert!(payloads.len() > 1 && payloads.iter().all(|payload| payload.len() < 8_000));
        let decoded: BTreeMap<_, _> = payloads.iter().flat_map(|payload| decode(payload).unwrap()).collect();
        assert_eq!(decoded, heads);
        assert!(encode(&BTreeMap::new()).is_empty());
    }

    #[test]
    fn what_is_not_a_hint_is_ignored() {
        for other in ["", "{}", "nonsense", r#"{"v":2,"heads":{}}"#, r#"{"v":1,"heads":[1]}"#] {
            assert_eq!(decode(other), None, "{other}");
        }
        assert_eq!(decode(r#"{"v":1,"heads":{"a":1},"more":true}"#).unwrap().len(), 1);
    }
}
