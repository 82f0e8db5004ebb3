//! The cursor of a reader of many topics: where they are on their own topic, and on each ride's.
//!
//! Opaque to clients, and short: rides are told by eight bytes of their id's hash, since 64 rides with the longest
//! ids would make a cursor longer than 4 KiB. Which ride is meant is known from the reader's rides, and from what
//! their own topic says of rides that came and went since.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::domain::{RideId, Seq, UserId};

/// The first byte of a cursor: what the rest means.
const VERSION: u8 = 1;

/// The longest cursor, in characters.
const LONGEST: usize = 4_096;

/// The most rides that a cursor has room for, however long their logs are: 17 bytes each, after 14 of the rest, of the 3072
/// that 4096 characters stand for.
pub(super) const MOST_PLACES: usize = 179;

/// A ride, in a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key([u8; 8]);

impl Key {
    fn of(ride: &RideId) -> Self {
        Self(first(&Sha256::digest(ride.as_str())))
    }
}

fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

/// Where a reader of everything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Whose cursor it is: four bytes of their id's hash.
    owner: [u8; 4],
    /// On the reader's own topic.
    pub(super) own: Seq,
    rides: BTreeMap<Key, Seq>,
}

impl Places {
    /// Before everything that the log has.
    pub fn beginning(user: &UserId) -> Self {
        Self { owner: first(&Sha256::digest(user.as_str())), own: 0, rides: BTreeMap::new() }
    }

    /// Reads a cursor of this user's. `0` is the beginning, as on a ride.
    pub fn parse(text: &str, user: &UserId) -> Result<Self, &'static str> {
        const UNKNOWN: &str = "must be a cursor as this stream gives them, or 0";
        let mut places = Self::beginning(user);
        if text == "0" {
            return Ok(places);
        }
        if text.len() > LONGEST {
            return Err(UNKNOWN);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| UNKNOWN)?;
        let rest = bytes.strip_prefix(&[VERSION]).ok_or(UNKNOWN)?;
        let (owner, mut rest) = rest.split_first_chunk::<4>().ok_or(UNKNOWN)?;
        if *owner != places.owner {
            return Err("must be a cursor of the caller's own");
        }
        places.own = take_seq(&mut rest).ok_or(UNKNOWN)?;
        while let Some((key, after)) = rest.split_first_chunk::<8>() {
            rest = after;
            places.rides.insert(Key(*key), take_seq(&mut rest).ok_or(UNKNOWN)?);
        }
        if rest.is_empty() { Ok(places) } else { Err(UNKNOWN) }
    }

    /// The place on a ride, where there is one.
    pub(super) fn of(&self, ride: &RideId) -> Option<Seq> {
        self.rides.get(&Key::of(ride)).copied()
    }

    /// Moves on along a ride.
    pub(super) fn advance(&mut self, ride: &RideId, seq: Seq) {
        let place = self.rides.entry(Key::of(ride)).or_insert(seq);
        *place = seq.max(*place);
    }

    /// Forgets a ride.
    pub(super) fn forget(&mut self, ride: &RideId) {
        self.rides.remove(&Key::of(ride));
    }

    /// The rides that are none of these.
    pub(super) fn others<'a>(&self, rides: impl Iterator<Item = &'a RideId>) -> Vec<Key> {
        let these: BTreeSet<_> = rides.map(Key::of).collect();
        self.rides.keys().filter(|key| !these.contains(key)).copied().collect()
    }

    /// Forgets those of `rides` that are none of these.
    pub(super) fn forget_others<'a>(&mut self, rides: &[Key], these: impl Iterator<Item = &'a RideId>) {
        let these: BTreeSet<_> = these.map(Key::of).collect();
        self.rides.retain(|key, _| these.contains(key) || !rides.contains(key));
    }

    /// How many rides there are places on.
    pub(super) fn count(&self) -> usize {
        self.rides.len()
    }

    /// As clients get it. On a ride for which there is no room the reader begins anew: it is handed some of it again, and
    /// loses nothing.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(16 + self.rides.len() * 12);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.owner);
        put_seq(&mut bytes, self.own);
        for (key, seq) in self.rides.iter().take(MOST_PLACES) {
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
    fn a_cursor_says_where_its_reader_is_and_is_short() {
        let mut places = Places::beginning(&user("rider_1"));
        assert_eq!(Places::parse("0", &user("rider_1")), Ok(places.clone()));
        places.own = 300;
        (0..64).for_each(|n| places.advance(&ride(n), Seq::MAX >> n.min(60)));
        places.advance(&ride(3), 1);
        let text = places.encode();
        assert!(text.len() < 2_000, "{}", text.len());
        let read = Places::parse(&text, &user("rider_1")).unwrap();
        assert_eq!(read, places);
        assert_eq!(
            (read.of(&ride(3)), read.of(&ride(0)), read.of(&ride(64))),
            (Some(Seq::MAX >> 3), Some(Seq::MAX), None)
        );
        assert!(Places::parse(&text, &user("rider_2")).is_err(), "somebody else's");
        // However many and long they are.
        places.own = Seq::MAX;
        (0..1_000).for_each(|n| places.advance(&ride(n), Seq::MAX));
        let text = places.encode();
        assert!(text.len() <= LONGEST, "{}", text.len());
        assert_eq!(Places::parse(&text, &user("rider_1")).map(|read| read.count()), Ok(MOST_PLACES));
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let whole = {
            let mut places = Places::beginning(&user("u"));
            places.advance(&ride(1), 1_000);
            places.encode()
        };
        let cut = (1..whole.len()).map(|length| whole[..length].to_owned());
        let cut = cut.filter(|text| Places::parse(text, &user("u")).is_ok());
        // Only what ends behind the reader's own place is a cursor again: one with fewer rides.
        assert!(cut.count() <= 1);
        for text in ["", "1", "AA", "-1", "ÿ", "AQ==", &whole.to_lowercase(), &"A".repeat(5_000)] {
            assert!(Places::parse(text, &user("u")).is_err(), "{text}");
        }
        // A number of more than 63 bits.
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&Places::beginning(&user("u")).owner);
        bytes.extend_from_slice(&[0xff; 10]);
        assert!(Places::parse(&BASE64_URL_SAFE_NO_PAD.encode(bytes), &user("u")).is_err());
    }
}
