//! Which rides are followed where the reader has more than [`MOST_RIDES`]: those that have not ended first, then the newest.
//!
//! One that begins takes the place of one that has ended, else of the oldest; one that ends makes room for one that has not. So
//! the same rides are followed as by a reader who comes now. Which have ended, and which are older, the database says: it is
//! looked at when that may have changed, and only by readers with so many rides.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::turns::look_turn;
use super::{MOST_RIDES, Merged};
use crate::domain::RideId;
use crate::realtime::places::MOST_PLACES;
use crate::store::{GoingOn, RideGoingOn};

impl Merged {
    /// The rides that are left out, the first to come in first.
    pub fn omitted(&self) -> &[RideId] {
        &self.omitted
    }

    /// Whether another ride can be followed. Those have their places that are to be followed when the own topic has said so.
    pub(super) fn has_room(&self) -> bool {
        self.rides.len() + self.later.len() < MOST_RIDES
    }

    /// Leaves a ride out that has just begun, until it is known whether another gives up its place.
    pub(super) fn leave_out(&mut self, ride: RideId) {
        // What the own topic says of the past is about a ride that has closed since, or was left out from the beginning.
        if self.places.own > self.replayed_at && !self.omitted.contains(&ride) {
            self.omitted.insert(0, ride);
            self.spare_places();
        }
        self.want_look();
    }

    /// Notes that a ride may have to give up its place, or may have given it up, where any is left out.
    pub(super) fn want_look(&mut self) {
        self.wants_look |= !self.omitted.is_empty();
    }

    /// Looks which rides are the reader's now, where that is wanted.
    pub(super) fn look_for_room(&mut self) {
        if self.wants_look && !self.looks && self.has_replayed() {
            (self.wants_look, self.looks) = (false, true);
            self.turns.push(Box::pin(look_turn(Arc::clone(&self.reader))));
        }
    }

    /// Follows the best of the reader's rides, as a reader who comes now does: takes up those that were left out, in the places
    /// of those that have ended, then of the oldest. `going_on` are the rides, the best first.
    pub(super) fn make_room(&mut self, going_on: GoingOn) {
        self.looks = false;
        // The own topic has been handed out further than the database had it then: what it has told since, of a ride that began
        // above all, is not known there. So it is looked at again; what it does not know would be left out of `omitted` for good.
        if self.places.own > going_on.head {
            self.want_look();
            return;
        }
        // Those keep their places that are to be followed when the own topic has said so, and those that are closed, until they
        // have been handed out.
        let known: BTreeSet<_> = going_on.rides.iter().map(|one| &one.ride).collect();
        let closed = self.rides.keys().filter(|ride| !known.contains(ride)).count();
        let room = MOST_RIDES.saturating_sub(self.later.len() + closed);
        let rides: Vec<_> = going_on.rides.iter().filter(|one| !self.later.contains_key(&one.ride)).collect();
        let is_met = |one: &RideGoingOn| self.rides.contains_key(&one.ride) || self.omitted.contains(&one.ride);
        let met: Vec<_> = rides.iter().copied().filter(|one| is_met(one)).collect();
        for one in rides.iter().skip(room) {
            // What was read of it and not handed out is read again.
            self.rides.remove(&one.ride);
        }
        for one in rides.iter().take(room) {
            // Of one that came just now the own topic has yet to say so; its place is free then.
            if self.omitted.contains(&one.ride) && !self.rides.contains_key(&one.ride) {
                let after = self.places.of(&one.ride).unwrap_or(one.from_seq - 1);
                self.begin(one.ride.clone(), one.from_seq, after);
            }
        }
        let omitted = met.into_iter().map(|one| &one.ride).filter(|ride| !self.rides.contains_key(*ride));
        self.omitted = omitted.cloned().collect();
        self.spare_places();
    }

    /// Keeps the cursor short: of the rides that are left out those that come in last begin anew when they do.
    pub(super) fn spare_places(&mut self) {
        for ride in self.omitted.iter().rev() {
            if self.places.count() <= MOST_PLACES {
                break;
            }
            self.places.forget(ride);
        }
    }

    /// Whether other rides are left out than the reader was told; they are taken for told.
    pub(super) fn has_to_tell_omitted(&mut self) -> bool {
        // While it is looked for room, one that has just begun is not left out for good.
        let is_settled = !self.wants_look && !self.looks;
        if !is_settled || self.omitted.iter().eq(&self.omitted_told) {
            return false;
        }
        let omitted: BTreeSet<_> = self.omitted.iter().cloned().collect();
        let is_news = omitted != self.omitted_told;
        self.omitted_told = omitted;
        is_news
    }
}
