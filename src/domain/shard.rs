//! Shards: the parts into which the data of a deployment is divided.
//!
//! A ride belongs to the shard that its id selects, with its log, its messages and everything else that names it. A user's topic and
//! list of rides belong to the shard that the user's id selects. What belongs to neither is in the first shard. The number of shards
//! of a deployment never changes, so neither does the shard of an id.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::{MessageId, RideId, UserId};

/// The number of a shard, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(u16);

impl ShardId {
    /// The first shard, which also has the data that belongs to no ride and no user.
    pub const FIRST: Self = Self(0);

    /// Returns the shard with this number; `None` if no deployment can have it.
    pub fn new(number: u16) -> Option<Self> {
        (number < ShardMap::MAX).then_some(Self(number))
    }

    /// Returns the number.
    pub fn number(self) -> u16 {
        self.0
    }
}

/// Assigns each id its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardMap {
    count: u16,
}

impl ShardMap {
    /// The largest number of shards. Message ids have [`MessageId::SHARD_BITS`] bits for theirs.
    pub const MAX: u16 = 1 << MessageId::SHARD_BITS;

    /// The map of a deployment with one shard.
    pub const ONE: Self = Self { count: 1 };

    /// Returns the map of a deployment with `count` shards; `None` if it is not between 1 and [`Self::MAX`].
    pub fn new(count: u16) -> Option<Self> {
        (1..=Self::MAX).contains(&count).then_some(Self { count })
    }

    /// Returns the number of shards.
    pub fn count(self) -> u16 {
        self.count
    }

    /// Returns all shards.
    pub fn shards(self) -> impl Iterator<Item = ShardId> {
        (0..self.count).map(ShardId)
    }

    /// Returns the shard of a ride.
    pub fn of_ride(self, ride: &RideId) -> ShardId {
        self.of_id(ride.as_str())
    }

    /// Returns the shard of a user's topic and list of rides.
    pub fn of_user(self, user: &UserId) -> ShardId {
        self.of_id(user.as_str())
    }

    /// Groups items by their shard.
    pub fn group<T>(items: impl IntoIterator<Item = T>, shard: impl Fn(&T) -> ShardId) -> BTreeMap<ShardId, Vec<T>> {
        let mut groups = BTreeMap::<_, Vec<T>>::new();
        for item in items {
            groups.entry(shard(&item)).or_default().push(item);
        }
        groups
    }

    /// Returns the shard that the id of a message names. An id that names none counts as one of the first shard, which has no such
    /// message.
    pub fn of_message(self, id: MessageId) -> ShardId {
        // In a deployment with one shard, these bits are random.
        Some(id.shard_bits()).filter(|shard| *shard < self.count).map_or(ShardId::FIRST, ShardId)
    }

    fn of_id(self, id: &str) -> ShardId {
        if self.count == 1 {
            return ShardId::FIRST;
        }
        let digest = Sha256::digest(id);
        let hash = digest.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        ShardId(u16::try_from(hash % u64::from(self.count)).unwrap_or_default())
    }
}

/// A shard, as its own writer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalShard {
    /// The number of the shard.
    pub id: ShardId,
    /// The map of the deployment.
    pub map: ShardMap,
}

impl LocalShard {
    /// The only shard of a deployment.
    pub const ONLY: Self = Self { id: ShardId::FIRST, map: ShardMap::ONE };

    /// Returns the shard of a user's topic and list of rides, if it is not this one.
    pub fn other_of_user(self, user: &UserId) -> Option<ShardId> {
        Some(self.map.of_user(user)).filter(|shard| *shard != self.id)
    }

    /// Generates the id of a message in this shard.
    pub fn new_message_id(self) -> MessageId {
        match self.map.count {
            1 => MessageId::new(),
            _ => MessageId::new_with_shard_bits(self.id.0),
        }
    }
}

/// A value for each shard.
#[derive(Debug, Clone)]
pub struct Sharded<T> {
    map: ShardMap,
    first: T,
    others: Vec<T>,
}

impl<T> Sharded<T> {
    /// Creates the value of each shard.
    pub fn new(map: ShardMap, mut value: impl FnMut(ShardId) -> T) -> Self {
        Self { map, first: value(ShardId::FIRST), others: map.shards().skip(1).map(value).collect() }
    }

    /// Like [`Self::new`], for values whose creation waits or fails.
    pub async fn try_new<E>(map: ShardMap, mut value: impl AsyncFnMut(ShardId) -> Result<T, E>) -> Result<Self, E> {
        let first = value(ShardId::FIRST).await?;
        let mut others = Vec::new();
        for shard in map.shards().skip(1) {
            others.push(value(shard).await?);
        }
        Ok(Self { map, first, others })
    }

    /// Returns what `value` returns for the value of each shard.
    pub fn map_values<U>(&self, mut value: impl FnMut(&T) -> U) -> Sharded<U> {
        Sharded::new(self.map, |shard| value(self.get(shard)))
    }

    /// Returns the map from ids to shards.
    pub fn map(&self) -> ShardMap {
        self.map
    }

    /// Returns the value of a shard. A shard that the deployment does not have counts as the first one.
    pub fn get(&self, shard: ShardId) -> &T {
        usize::from(shard.0).checked_sub(1).and_then(|index| self.others.get(index)).unwrap_or(&self.first)
    }

    /// Returns the value of the first shard.
    pub fn first(&self) -> &T {
        &self.first
    }

    /// Returns the value of a ride's shard.
    pub fn of_ride(&self, ride: &RideId) -> &T {
        self.get(self.map.of_ride(ride))
    }

    /// Returns the value of a user's shard.
    pub fn of_user(&self, user: &UserId) -> &T {
        self.get(self.map.of_user(user))
    }

    /// Returns the value of the shard that the id of a message names.
    pub fn of_message(&self, id: MessageId) -> &T {
        self.get(self.map.of_message(id))
    }

    /// Returns all values, in the order of their shards.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(count: u16) -> ShardMap {
        ShardMap::new(count).unwrap()
    }

    #[test]
    fn the_shard_of_an_id_never_changes() {
        let shards = |count: u16| {
            let rides = (0..8).map(|n| RideId::parse(&format!("ride_{n}")).unwrap());
            rides.map(|ride| map(count).of_ride(&ride).number()).collect::<Vec<_>>()
        };
        assert_eq!(shards(1), [0; 8]);
        // These values are stored in deployments: a change loses data.
        assert_eq!(shards(4), [1, 0, 3, 2, 3, 0, 3, 0]);
    }

    #[test]
    fn ids_are_spread_over_all_shards() {
        let mut rides = [0; 64];
        for n in 0..64_000 {
            let ride = RideId::parse(&format!("ride_{n}")).unwrap();
            rides[usize::from(map(64).of_ride(&ride).number())] += 1;
        }
        assert!(rides.iter().all(|count| (850..1_150).contains(count)), "{rides:?}");
    }

    #[test]
    fn a_message_id_names_its_shard() {
        for count in [2, 64, ShardMap::MAX] {
            for shard in map(count).shards() {
                let id = LocalShard { id: shard, map: map(count) }.new_message_id();
                assert_eq!(map(count).of_message(id), shard);
                assert_eq!(id.0.get_version_num(), 7);
                assert_eq!(map(1).of_message(id), ShardId::FIRST);
            }
        }
        assert_eq!(map(2).of_message(MessageId::new_with_shard_bits(2)), ShardId::FIRST);
        assert!([ShardMap::new(0), ShardMap::new(ShardMap::MAX + 1)].iter().all(Option::is_none));
    }

    #[test]
    fn a_value_is_found_by_the_id_of_a_ride_or_a_user() {
        let (map, ride, user) = (map(64), RideId::parse("a").unwrap(), UserId::parse("b").unwrap());
        let sharded = Sharded::new(map, ShardId::number);
        assert_eq!(*sharded.of_ride(&ride), map.of_ride(&ride).number());
        assert_eq!(*sharded.of_user(&user), map.of_user(&user).number());
        assert_eq!(*sharded.first(), 0);
        assert!(sharded.iter().copied().eq(0..64));
        let groups = ShardMap::group(0..4, |number| ShardId(number % 2));
        assert_eq!(groups, [(ShardId(0), vec![0, 2]), (ShardId(1), vec![1, 3])].into());
    }
}
