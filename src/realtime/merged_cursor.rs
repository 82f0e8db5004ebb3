//! The cursor of a merged stream: the reader's position on the user topic, and on each of the user's rides.
//!
//! Clients treat it as opaque. It identifies a ride by the first eight bytes of the hash of its id, because 64 rides with the longest ids
//! would make a cursor longer than 4 KiB. The ride behind a hash is found among the user's rides and in the later events of the user topic.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::domain::{RideId, Seq, UserId};

/// The first byte of a cursor: the format version.
const VERSION: u8 = 1;

/// The largest length of a cursor, in characters.
const MAX_LENGTH: usize = 4_096;

/// The largest number of rides in a cursor. 4096 characters encode 3072 bytes: 14 for the rest of the cursor, and at most 17 per ride,
/// for any seq.
pub(super) const MAX_CURSOR_RIDES: usize = 179;

/// The hash prefix that identifies a ride in a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RideKey([u8; 8]);

impl RideKey {
    fn of(ride: &RideId) -> Self {
        Self(first(&Sha256::digest(ride.as_str())))
    }
}

fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

/// The positions of a merged stream's reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedCursor {
    /// The user whose cursor it is: the first four bytes of the hash of the user id.
    owner: [u8; 4],
    /// The position on the user topic.
    pub(super) user_seq: Seq,
    rides: BTreeMap<RideKey, Seq>,
}

impl MergedCursor {
    /// Returns the cursor before all events.
    pub fn beginning(user: &UserId) -> Self {
        Self { owner: first(&Sha256::digest(user.as_str())), user_seq: 0, rides: BTreeMap::new() }
    }

    /// Parses a cursor of this user. `0` means the beginning, as on a ride's stream.
    pub fn parse(text: &str, user: &UserId) -> Result<Self, &'static str> {
        const INVALID: &str = "must be a cursor from this stream, or 0";
        let mut cursor = Self::beginning(user);
        if text == "0" {
            return Ok(cursor);
        }
        if text.len() > MAX_LENGTH {
            return Err(INVALID);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| INVALID)?;
        let rest = bytes.strip_prefix(&[VERSION]).ok_or(INVALID)?;
        let (owner, mut rest) = rest.split_first_chunk::<4>().ok_or(INVALID)?;
        if *owner != cursor.owner {
            return Err("must be a cursor of the caller");
        }
        cursor.user_seq = take_seq(&mut rest).ok_or(INVALID)?;
        while let Some((key, after)) = rest.split_first_chunk::<8>() {
            rest = after;
            cursor.rides.insert(RideKey(*key), take_seq(&mut rest).ok_or(INVALID)?);
        }
        if rest.is_empty() { Ok(cursor) } else { Err(INVALID) }
    }

    /// Returns the position on a ride, if the cursor has one.
    pub(super) fn of(&self, ride: &RideId) -> Option<Seq> {
        self.rides.get(&RideKey::of(ride)).copied()
    }

    /// Moves the position on a ride forward to `seq`. It never moves back.
    pub(super) fn advance(&mut self, ride: &RideId, seq: Seq) {
        let current = self.rides.entry(RideKey::of(ride)).or_insert(seq);
        *current = seq.max(*current);
    }

    /// Removes a ride.
    pub(super) fn remove(&mut self, ride: &RideId) {
        self.rides.remove(&RideKey::of(ride));
    }

    /// Returns the keys of all rides in the cursor that are not in `rides`.
    pub(super) fn others<'a>(&self, rides: impl Iterator<Item = &'a RideId>) -> Vec<RideKey> {
        let these: BTreeSet<_> = rides.map(RideKey::of).collect();
        self.rides.keys().filter(|key| !these.contains(key)).copied().collect()
    }

    /// Removes those of `rides` that are not in `these`.
    pub(super) fn remove_others<'a>(&mut self, rides: &[RideKey], these: impl Iterator<Item = &'a RideId>) {
        let these: BTreeSet<_> = these.map(RideKey::of).collect();
        self.rides.retain(|key, _| these.contains(key) || !rides.contains(key));
    }

    /// Returns the number of rides in the cursor.
    pub(super) fn count(&self) -> usize {
        self.rides.len()
    }

    /// Encodes the cursor for clients. On a ride that has no room in the cursor, the client later starts again from the beginning: it
    /// receives some events twice and loses none.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(16 + self.rides.len() * 12);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.owner);
        put_seq(&mut bytes, self.user_seq);
        for (key, seq) in self.rides.iter().take(MAX_CURSOR_RIDES) {
            bytes.extend_from_slice(&key.0);
            put_seq(&mut bytes, *seq);
        }
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }
}

/// LEB128: seven bits a byte, the lowest first; all but the last have the highest bit set.
fn put_seq(bytes: &mut Vec<u8>, seq: Seq) {
    let mut rest = seq.unsigned_abs();
    while rest > 0x7f {
        bytes.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

fn take_seq(bytes: &mut &[u8]) -> Option<Seq> {
    let mut seq = 0_u64;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        seq |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Seq::try_from(seq).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn ride(n: i64) -> RideId {
        RideId::parse(&format!("{n:064}")).unwrap()
    }

    #[test]
    fn a_cursor_survives_encoding_and_has_a_bounded_length() {
        let mut cursor = MergedCursor::beginning(&user("rider_1"));
        assert_eq!(MergedCursor::parse("0", &user("rider_1")), Ok(cursor.clone()));
        cursor.user_seq = 300;
        (0..64).for_each(|n| cursor.advance(&ride(n), Seq::MAX >> n.min(60)));
        cursor.advance(&ride(3), 1);
        let text = cursor.encode();
        assert!(text.len() < 2_000, "{}", text.len());
        let read = MergedCursor::parse(&text, &user("rider_1")).unwrap();
        assert_eq!(read, cursor);
        assert_eq!(
            (read.of(&ride(3)), read.of(&ride(0)), read.of(&ride(64))),
            (Some(Seq::MAX >> 3), Some(Seq::MAX), None)
        );
        assert!(MergedCursor::parse(&text, &user("rider_2")).is_err(), "the cursor of another user");
        // The length is bounded for any number of rides.
        cursor.user_seq = Seq::MAX;
        (0..1_000).for_each(|n| cursor.advance(&ride(n), Seq::MAX));
        let text = cursor.encode();
        assert!(text.len() <= MAX_LENGTH, "{}", text.len());
        assert_eq!(MergedCursor::parse(&text, &user("rider_1")).map(|read| read.count()), Ok(MAX_CURSOR_RIDES));
    }

    #[test]
    fn an_invalid_cursor_is_rejected() {
        let whole = {
            let mut cursor = MergedCursor::beginning(&user("u"));
            cursor.advance(&ride(1), 1_000);
            cursor.encode()
        };
        let cut = (1..whole.len()).map(|length| whole[..length].to_owned());
        let cut = cut.filter(|text| MergedCursor::parse(text, &user("u")).is_ok());
        // A prefix is valid only if it ends after the position on the user topic: a cursor with fewer rides.
        assert!(cut.count() <= 1);
        for text in ["", "1", "AA", "-1", "ÿ", "AQ==", &whole.to_lowercase(), &"A".repeat(5_000)] {
            assert!(MergedCursor::parse(text, &user("u")).is_err(), "{text}");
        }
        // A number of more than 63 bits.
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&MergedCursor::beginning(&user("u")).owner);
        bytes.extend_from_slice(&[0xff; 10]);
        assert!(MergedCursor::parse(&BASE64_URL_SAFE_NO_PAD.encode(bytes), &user("u")).is_err());
    }
}
