//! The choice of rides for a user with more than [`MAX_RIDES`]: rides that have not ended first, then the newest.
//!
//! A new ride displaces a ride that has ended, otherwise the oldest. A ride that ends makes room for one that has not. So the same rides
//! are read as by a reader that opens now. The database decides which rides have ended and which are older. It is asked when that may have
//! changed, and only for users with that many rides.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::sources::load_open_rides;
use super::{MAX_RIDES, MergedReader};
use crate::domain::RideId;
use crate::realtime::merged_cursor::MAX_CURSOR_RIDES;
use crate::store::{OpenRide, OpenRides};

impl MergedReader {
    /// Returns the omitted rides, in the order in which they will be read.
    pub fn omitted(&self) -> &[RideId] {
        &self.omitted
    }

    /// Returns whether another ride can be read. Deferred rides keep their places.
    pub(super) fn has_room(&self) -> bool {
        self.rides.len() + self.deferred.len() < MAX_RIDES
    }

    /// Omits a new ride until it is known whether it displaces another one.
    pub(super) fn omit(&mut self, ride: RideId) {
        // During the replay, the user topic reports rides that have closed since, or that were omitted from the beginning.
        if self.cursor.user_seq > self.replay_end && !self.omitted.contains(&ride) {
            self.omitted.insert(0, ride);
            self.limit_cursor();
        }
        self.request_refresh();
    }

    /// Requests a refresh of the rides to read, if any ride is omitted.
    pub(super) fn request_refresh(&mut self) {
        self.needs_refresh |= !self.omitted.is_empty();
    }

    /// Starts to load the user's current rides, if a refresh was requested.
    pub(super) fn start_refresh(&mut self) {
        if self.needs_refresh && !self.is_refreshing && self.has_replayed() {
            (self.needs_refresh, self.is_refreshing) = (false, true);
            self.sources.push(Box::pin(load_open_rides(Arc::clone(&self.context))));
        }
    }

    /// Chooses the rides to read, as a reader that opens now would. Omitted rides take the places of rides that have ended, then of the
    /// oldest ones. `open_rides` has the user's rides in order of preference.
    pub(super) fn apply_refresh(&mut self, open_rides: OpenRides) {
        self.is_refreshing = false;
        // The user topic was delivered further than the loaded rides reflect. They lack what it has reported since, above all a new
        // ride. So they are loaded again; otherwise that ride would be missing from `omitted` for good.
        if self.cursor.user_seq > open_rides.head {
            self.request_refresh();
            return;
        }
        // Two groups of rides keep their places: deferred rides, and closed rides until they are delivered.
        let open: BTreeSet<_> = open_rides.rides.iter().map(|one| &one.ride).collect();
        let closed = self.rides.keys().filter(|ride| !open.contains(ride)).count();
        let room = MAX_RIDES.saturating_sub(self.deferred.len() + closed);
        let rides: Vec<_> = open_rides.rides.iter().filter(|one| !self.deferred.contains_key(&one.ride)).collect();
        let is_seen = |one: &OpenRide| self.rides.contains_key(&one.ride) || self.omitted.contains(&one.ride);
        let seen: Vec<_> = rides.iter().copied().filter(|one| is_seen(one)).collect();
        for one in rides.iter().skip(room) {
            // Events that were read and not delivered are read again.
            self.rides.remove(&one.ride);
        }
        for one in rides.iter().take(room) {
            // The user topic has yet to report a ride that was assigned just now. Its place is free then.
            if self.omitted.contains(&one.ride) && !self.rides.contains_key(&one.ride) {
                let after = self.cursor.of(&one.ride).unwrap_or(one.from_seq - 1);
                self.start_ride(one.ride.clone(), one.from_seq, after);
            }
        }
        let omitted = seen.into_iter().map(|one| &one.ride).filter(|ride| !self.rides.contains_key(*ride));
        self.omitted = omitted.cloned().collect();
        self.limit_cursor();
    }

    /// Limits the size of the cursor. The omitted rides that will be read last lose their positions first, and later start again.
    pub(super) fn limit_cursor(&mut self) {
        for ride in self.omitted.iter().rev() {
            if self.cursor.count() <= MAX_CURSOR_RIDES {
                break;
            }
            self.cursor.remove(ride);
        }
    }

    /// Returns whether the omitted rides have changed since the last report, and notes them as reported.
    pub(super) fn report_omitted(&mut self) -> bool {
        // During a refresh, a new ride may be omitted only temporarily.
        let is_final = !self.needs_refresh && !self.is_refreshing;
        if !is_final || self.omitted.iter().eq(&self.reported_omitted) {
            return false;
        }
        let omitted: BTreeSet<_> = self.omitted.iter().cloned().collect();
        let has_changed = omitted != self.reported_omitted;
        self.reported_omitted = omitted;
        has_changed
    }
}
