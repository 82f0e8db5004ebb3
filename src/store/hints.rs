//! The payload of a NOTIFY: heads of topics, and latest-only and ephemeral values.
//!
//! Heads, typing indicators and revocations go to all replicas, through one channel. The other values go only to the replicas that follow
//! their topic: each replica has a channel of its own (`sql/topics/notify.sql`).
//!
//! `{"v":1,"by":"k3v9x0aq","heads":{"ride/ride_123":42}}`, or
//! `{"v":1,"values":[["ride/ride_123","typing:indicator","rider_1",1,42,"{…}"]]}`. The members of a value are its
//! topic, type, user, version, seq and data. A replica ignores a payload that it cannot parse: hints are not
//! authoritative, and a newer version of the server may add to them.
//!
//! Heads name the replica that committed them (`by`), because Postgres sends a notification to its sender too. The
//! sender may receive it before the response to COMMIT, and would then read from the database the events that it is
//! about to publish.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::domain::{EventType, Seq, StateUpdate, Topic, UserId};

/// An empty hint. The listener sends it to itself to test whether it receives notifications.
pub const PROBE: &str = r#"{"v":1,"heads":{}}"#;

/// Postgres accepts payloads of less than 8000 bytes.
const MAX_PAYLOAD_BYTES: usize = 7_900;

/// The identity of a replica in its notifications, for the lifetime of the process.
#[derive(Debug)]
pub struct Origin {
    id: String,
    /// The first characters of its payloads with heads.
    prefix: String,
}

impl Origin {
    /// Creates a random identity.
    pub fn new() -> Self {
        let id = format!("{:016x}", fastrand::u64(..));
        let prefix = format!(r#"{{"v":1,"by":"{id}","#);
        Self { id, prefix }
    }

    /// Returns the id of the replica.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the name of this replica's own channel, given the channel of all replicas.
    pub fn own_channel(&self, common: &str) -> String {
        [common, "_", &self.id].concat()
    }

    /// Returns whether this replica sent the payload.
    pub fn is_own(&self, payload: &str) -> bool {
        payload.starts_with(&self.prefix)
    }
}

impl Default for Origin {
    fn default() -> Self {
        Self::new()
    }
}

/// The head of each topic's log.
pub type Heads = BTreeMap<Topic, Seq>;

/// The content of notifications.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Hints {
    /// The head of each topic's log.
    pub heads: Heads,
    /// The last value of each kind and user.
    pub values: Vec<StateUpdate>,
    /// Whether there are new revocations to load.
    pub revoked: bool,
}

/// Encodes hints into one or more payloads.
pub fn encode(hints: &Hints, by: &Origin) -> Vec<String> {
    // Topics need no escaping in JSON.
    let heads = hints.heads.iter().map(|(topic, seq)| ["\"", topic.as_str(), "\":", &seq.to_string()].concat());
    let values = hints.values.iter().filter_map(encode_value);
    let heads = payloads(heads, &format!(r#"{}"heads":{{"#, by.prefix), "}}");
    let revoked = hints.revoked.then(|| r#"{"v":1,"revoked":true}"#.to_owned());
    heads.into_iter().chain(payloads(values, r#"{"v":1,"values":["#, "]}")).chain(revoked).collect()
}

/// Encodes a value as a member of a payload.
pub(super) fn encode_value(value: &StateUpdate) -> Option<String> {
    let StateUpdate { topic, kind, user, version, seq, data } = value;
    serde_json::to_string(&(topic.as_str(), kind.as_str(), user, version, seq, data)).ok()
}

fn payloads(members: impl Iterator<Item = String>, begin: &str, end: &str) -> Vec<String> {
    let mut payloads = Vec::new();
    let mut payload = begin.to_owned();
    for member in members {
        if payload.len() + 1 + member.len() + end.len() > MAX_PAYLOAD_BYTES && payload.len() > begin.len() {
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

/// Decodes a payload; `None` if it is not a hint of this version.
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
        // A value of an unknown kind is from a newer version and is ignored.
        let (kind, user) = (EventType::parse(&kind)?, UserId::parse(&user).ok()?);
        Some(StateUpdate { topic: Topic::from_stored(&topic), kind, user, version, seq, data })
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

    fn value(n: i64) -> StateUpdate {
        let data = format!(r#"{{"rideId":"{n}","typing":true}}"#);
        let (kind, user) = (EventType::TypingIndicator, UserId::parse("u").unwrap());
        StateUpdate { topic: topic(n), kind, user, version: n, seq: n, data }
    }

    #[test]
    fn hints_round_trip_in_payloads_that_postgres_accepts() {
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
        assert!(heads.clone().all(|payload| own.is_own(payload) && !other.is_own(payload)));
        assert!(payloads.iter().any(|payload| !own.is_own(payload)), "values have no sender");
    }

    #[test]
    fn an_invalid_payload_is_ignored() {
        for other in ["", "{}", "nonsense", r#"{"v":2,"heads":{}}"#, r#"{"v":1,"heads":[1]}"#] {
            assert_eq!(decode(other), None, "{other}");
        }
        assert_eq!(decode(r#"{"v":1,"by":"another","heads":{"a":1},"more":true}"#).unwrap().heads.len(), 1);
        assert_eq!(decode(PROBE), Some(Hints::default()));
        assert_eq!(decode(r#"{"v":1,"values":[["t","new:type","u",1,1,""]]}"#), Some(Hints::default()));
    }
}
