//! The ids of events in webhooks: the header `webhook-id`.

use sha2::{Digest, Sha256};

use crate::domain::{Seq, Time};

/// The bytes of the hash in an id.
const TAG: usize = 8;

/// Generates ids, the same on all replicas.
///
/// An id consists of the event's feed position and a hash. The hash covers the position, the event's topic, seq and time, and a
/// secret of the database. A restored database may give the same position to another event; the id is then another one.
pub(super) struct EventIds(Vec<u8>);

impl EventIds {
    /// Creates a generator with the secret of the database.
    pub(super) fn new(secret: Vec<u8>) -> Self {
        Self(secret)
    }

    /// Returns the id of the event at this feed position.
    pub(super) fn of(&self, position: Seq, topic: &str, seq: Seq, at: Time) -> String {
        let hash =
            Sha256::new().chain_update(&self.0).chain_update(format!("{position} {topic} {seq} {at}")).finalize();
        let tag: String = hash.iter().take(TAG).map(|byte| format!("{byte:02x}")).collect();
        format!("evt_{position:016x}{tag}")
    }

    /// Generates the id of a test delivery, which has no position.
    pub(super) fn of_test(&self) -> String {
        format!("evt_test{}", uuid::Uuid::now_v7().simple())
    }

    /// Parses the feed position in an id; `None` if the id is malformed, or that of a test.
    pub(super) fn position(id: &str) -> Option<Seq> {
        let hex = id.strip_prefix("evt_")?;
        let is_hex = hex.len() == 16 + 2 * TAG && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        Seq::from_str_radix(hex.get(..16).filter(|_| is_hex)?, 16).ok()
    }
}

impl std::fmt::Debug for EventIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventIds").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_stable_and_contains_the_position() {
        let at = Time::from_unix_seconds(1_769_121_900).unwrap();
        let ids = EventIds::new(b"one".to_vec());
        let id = ids.of(4_711, "ride/1", 3, at);
        assert_eq!(id, ids.of(4_711, "ride/1", 3, at));
        assert_eq!(EventIds::position(&id), Some(4_711));
        assert_ne!(id, EventIds::new(b"two".to_vec()).of(4_711, "ride/1", 3, at));
        for wrong in ["", "evt_", "evt_1", &id[4..], &id.replace('e', "x"), &ids.of_test()] {
            assert_eq!(EventIds::position(wrong), None, "{wrong}");
        }
    }
}
