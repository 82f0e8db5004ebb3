//! The ids of events, `webhook-id`.

use sha2::{Digest, Sha256};

use crate::domain::{Seq, Time};

/// The bytes of an id that tell the database apart.
const TAG: usize = 8;

/// Makes ids, the same on all replicas.
///
/// An id is made from the event's position, and from a hash of the event's place and time with a secret of the database. So a restored
/// database, which may give the same position to another event, gives it another id.
pub(super) struct EventIds(Vec<u8>);

impl EventIds {
    /// Ids that belong to a database with this secret.
    pub(super) fn new(secret: Vec<u8>) -> Self {
        Self(secret)
    }

    /// The id of the event at this position.
    pub(super) fn of(&self, position: Seq, topic: &str, seq: Seq, at: Time) -> String {
        let hash =
            Sha256::new().chain_update(&self.0).chain_update(format!("{position} {topic} {seq} {at}")).finalize();
        let tag: String = hash.iter().take(TAG).map(|byte| format!("{byte:02x}")).collect();
        format!("evt_{position:016x}{tag}")
    }

    /// The id of a test, which has no position.
    pub(super) fn of_test(&self) -> String {
        format!("evt_test{}", uuid::Uuid::now_v7().simple())
    }

    /// The position in an id.
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
    fn an_id_is_stable_and_has_the_position() {
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
