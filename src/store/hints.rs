//! The payload of a NOTIFY: where some topics' logs end now, and values that are told and not logged.
//!
//! `{"v":1,"by":"k3v9x0aq","heads":{"ride/ride_123":42}}`, or
//! `{"v":1,"values":[["ride/ride_123","typing:indicator","rider_1",1,42,"{…}"]]}`, the members of a value being its topic,
//! type, user, version, seq and data. A replica ignores what it cannot read: hints are only hints, and a newer version may
//! say more.
//!
//! Heads say whose commit they tell of, because Postgres tells everybody, and who has committed may hear of it before the
//! COMMIT's own answer: it would read from the database what it is about to publish.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::domain::{EventType, Seq, Signal, Topic, UserId};

/// A hint that says nothing, by which a listener hears whether it can hear.
pub const PROBE: &str = r#"{"v":1,"heads":{}}"#;

/// Postgres takes payloads of less than 8000 bytes.
const LARGEST: usize = 7_900;

/// Who tells of a commit: a replica, from its start to its end.
#[derive(Debug)]
pub struct Origin {
    id: String,
    /// What its payloads begin with.
    prefix: String,
}

impl Origin {
    /// One that no other replica has.
    pub fn new() -> Self {
        let id = format!("{:016x}", fastrand::u64(..));
        let prefix = format!(r#"{{"v":1,"by":"{id}","#);
        Self { id, prefix }
    }

    /// The replica's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether a payload tells of its own commit.
    pub fn has_told(&self, payload: &str) -> bool {
        payload.starts_with(&self.prefix)
    }
}

impl Default for Origin {
    fn default() -> Self {
        Self::new()
    }
}

/// Where logs end.
pub type Heads = BTreeMap<Topic, Seq>;

/// What is told.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Hints {
    /// Where logs end.
    pub heads: Heads,
    /// The last value of each kind and user.
    pub values: Vec<Signal>,
    /// Whether there are new revocations to be read.
    pub revoked: bool,
}

/// As many payloads as it takes.
pub fn encode(hints: &Hints, by: &Origin) -> Vec<String> {
    // No escaping: the characters of an id are all plain.
    let heads = hints.heads.iter().map(|(topic, seq)| ["\"", topic.as_str(), "\":", &seq.to_string()].concat());
    let values = hints.values.iter().filter_map(|value| {
        let Signal { topic, kind, user, version, seq, data } = value;
        serde_json::to_string(&(topic.as_str(), kind.as_str(), user, version, seq, data)).ok()
    });
    let heads = payloads(heads, &format!(r#"{}"heads":{{"#, by.prefix), "}}");
    let revoked = hints.revoked.then(|| r#"{"v":1,"revoked":true}"#.to_owned());
    heads.into_iter().chain(payloads(values, r#"{"v":1,"values":["#, "]}")).chain(revoked).collect()
}

fn payloads(members: impl Iterator<Item = String>, begin: &str, end: &str) -> Vec<String> {
    let mut payloads = Vec::new();
    let mut payload = begin.to_owned();
    for member in members {
        if payload.len() + 1 + member.len() + end.len() > LARGEST && payload.len() > begin.len() {
            payloads.push(std::mem::replace(&mut payload, begin.to_owned()) + end);
        }
        if payload.len() > begin.len() {
            payload.push(',');
        }
        payload.push_str(&member);
    }
    if payload.len() > begin.len() {
        payloads.push(payload + end);
    }
    payloads
}

/// Reads a payload; `None` where it is not one of ours.
pub fn decode(payload: &str) -> Option<Hints> {
    #[derive(Deserialize)]
    struct Payload {
        v: u32,
        #[serde(default)]
        heads: BTreeMap<String, Seq>,
        #[serde(default)]
        values: Vec<(String, String, String, i64, Seq, String)>,
        #[serde(default)]
        revoked: bool,
    }
    let Payload { v, heads, values, revoked } = serde_json::from_str(payload).ok()?;
    if v != 1 {
        return None;
    }
    let values = values.into_iter().filter_map(|(topic, kind, user, version, seq, data)| {
        // Of a kind that only a newer version knows, nothing is told.
        let (kind, user) = (EventType::parse(&kind)?, UserId::parse(&user).ok()?);
        Some(Signal { topic: Topic::from_stored(&topic), kind, user, version, seq, data })
    });
    let heads = heads.into_iter().map(|(topic, seq)| (Topic::from_stored(&topic), seq));
    Some(Hints { heads: heads.collect(), values: values.collect(), revoked })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::RideId;

    fn topic(n: i64) -> Topic {
        Topic::ride(&RideId::parse(&format!("ride_{n:059}")).unwrap())
    }

    fn value(n: i64) -> Signal {
        let data = format!(r#"{{"rideId":"{n}","typing":true}}"#);
        let (kind, user) = (EventType::TypingIndicator, UserId::parse("u").unwrap());
        Signal { topic: topic(n), kind, user, version: n, seq: n, data }
    }

    #[test]
    fn hints_survive_the_way_in_payloads_that_postgres_takes() {
        let heads = (0..2_000).map(|n| (topic(n), n)).collect();
        let hints = Hints { heads, values: (0..500).map(value).collect(), revoked: true };
        let (own, other) = (Origin::new(), Origin::new());
        let payloads = encode(&hints, &own);
        assert!(payloads.len() > 2 && payloads.iter().all(|payload| payload.len() < 8_000));
        let mut decoded = Hints::default();
        for part in payloads.iter().map(|payload| decode(payload).unwrap()) {
            decoded.heads.extend(part.heads);
            decoded.values.extend(part.values);
            decoded.revoked |= part.revoked;
        }
        assert_eq!(decoded, hints);
        assert!(encode(&Hints::default(), &own).is_empty());
        let heads = payloads.iter().filter(|payload| !decode(payload).unwrap().heads.is_empty());
        assert!(heads.clone().all(|payload| own.has_told(payload) && !other.has_told(payload)));
        assert!(payloads.iter().any(|payload| !own.has_told(payload)), "values are for all");
    }

    #[test]
    fn what_is_not_a_hint_is_ignored() {
        for other in ["", "{}", "nonsense", r#"{"v":2,"heads":{}}"#, r#"{"v":1,"heads":[1]}"#] {
            assert_eq!(decode(other), None, "{other}");
        }
        assert_eq!(decode(r#"{"v":1,"by":"somebody","heads":{"a":1},"more":true}"#).unwrap().heads.len(), 1);
        assert_eq!(decode(PROBE), Some(Hints::default()));
        assert_eq!(decode(r#"{"v":1,"values":[["t","new:type","u",1,1,""]]}"#), Some(Hints::default()));
    }
}
