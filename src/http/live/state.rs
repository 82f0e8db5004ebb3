//! Rides as streams and polls show them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::{Caller, RideId, RideRole, RideSnapshot, RideView, Seq, Signal, Time, Topic, UserId};
use crate::http::context::Api;
use crate::realtime::{Gap, Hub};

/// `state`: the ride, read in one snapshot with the head `asOf`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct StateView<'a> {
    as_of: Seq,
    ride: RideView<'a>,
    participants: Vec<ParticipantView<'a>>,
    receipts: Vec<MarkView<'a>>,
    location: Option<&'a RawValue>,
    typing: Vec<UserId>,
}

/// Somebody on the ride.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct ParticipantView<'a> {
    user_id: &'a UserId,
    role: RideRole,
    online: bool,
    since: Option<Time>,
}

/// A user's marks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct MarkView<'a> {
    user_id: &'a UserId,
    delivered_seq: Seq,
    read_seq: Seq,
}

/// Those who are on the ride.
pub(in crate::http) fn participants(snapshot: &RideSnapshot) -> Vec<ParticipantView<'_>> {
    snapshot
        .present()
        .map(|person| ParticipantView {
            user_id: &person.user,
            role: person.role,
            online: person.presence.is_some_and(|presence| presence.online),
            since: person.presence.map(|presence| presence.since),
        })
        .collect()
}

/// The marks of those who are on the ride, zeros included, and of support where it has any. Those of somebody who
/// has left say nothing to those who are there now.
pub(in crate::http) fn marks(snapshot: &RideSnapshot) -> Vec<MarkView<'_>> {
    let of = |user: &UserId| snapshot.receipts.0.iter().find(|receipt| receipt.user == *user);
    let mark = |user| {
        let known = of(user);
        MarkView {
            user_id: user,
            delivered_seq: known.map_or(0, |receipt| receipt.delivered_seq),
            read_seq: known.map_or(0, |receipt| receipt.read_seq),
        }
    };
    // One who was support and is on the ride now is there already.
    let is_present = |user: &UserId| snapshot.present().any(|person| person.user == *user);
    let support = snapshot.receipts.0.iter().filter(|receipt| receipt.role == RideRole::Support);
    // Of one who has nothing that the reader may see, there is nothing to show.
    let support = support.filter(|receipt| !is_present(&receipt.user) && receipt.delivered_seq > 0);
    snapshot.present().map(|person| mark(&person.user)).chain(support.map(|receipt| mark(&receipt.user))).collect()
}

impl<'a> StateView<'a> {
    /// A ride as `caller` sees it. Values are shown where they were true in the caller's part of the log, up to `asOf`.
    pub(in crate::http) fn of(snapshot: &'a RideSnapshot, caller: &Caller, hub: &Hub) -> Self {
        let access = snapshot.access(caller);
        let is_visible = |seq| seq <= snapshot.head && access.is_some_and(|access| access.covers(seq));
        // Whoever was taken off the ride types no more; nor does anybody, to a reader who was.
        let is_there = access.is_some_and(|access| access.until_seq.is_none());
        let has_left = |user: &UserId| {
            let mut times = snapshot.participants.iter().filter(|person| person.user == *user).peekable();
            times.peek().is_some() && times.all(|person| person.until_seq.is_some())
        };
        let mut typing = hub.typists(&Topic::ride(&snapshot.ride.id), |seq| is_there && is_visible(seq));
        typing.retain(|user| !has_left(user));
        Self {
            as_of: snapshot.head,
            ride: snapshot.view(caller),
            participants: participants(snapshot),
            receipts: marks(snapshot),
            location: snapshot.location.as_ref().filter(|last| is_visible(last.seq)).map(|last| &*last.data),
            typing,
        }
    }
}

/// What a stream or poll follows, as it was at one moment.
pub(super) enum State {
    /// A ride.
    Ride(Box<RideSnapshot>),
    /// All rides of the caller, and to those who see them the drivers who take rides; and which rides are left out.
    All { rides: Vec<RideSnapshot>, drivers: Option<Vec<Signal>>, omitted: Vec<RideId> },
    /// The feed, which has no state.
    Feed,
}

/// The same as it is sent.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum AnyStateView<'a> {
    Ride(Box<StateView<'a>>),
    All {
        rides: BTreeMap<&'a RideId, StateView<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        drivers: Option<Vec<&'a RawValue>>,
    },
    None,
}

impl State {
    /// The rides that are left out, where it is all that are followed.
    pub(super) fn omitted(&self) -> Option<&[RideId]> {
        match self {
            Self::Ride(_) | Self::Feed => None,
            Self::All { omitted, .. } => Some(omitted),
        }
    }

    /// This as the caller sees it.
    pub(super) fn view(&self, api: &Api, caller: &Caller) -> AnyStateView<'_> {
        let view = |snapshot| StateView::of(snapshot, caller, &api.hub);
        match self {
            Self::Feed => AnyStateView::None,
            Self::Ride(snapshot) => AnyStateView::Ride(Box::new(view(snapshot))),
            Self::All { rides, drivers, .. } => AnyStateView::All {
                rides: rides.iter().map(|ride| (&ride.ride.id, view(ride))).collect(),
                drivers: drivers
                    .as_ref()
                    .map(|drivers| drivers.iter().filter_map(|driver| driver.as_raw().ok()).collect()),
            },
        }
    }
}

impl AnyStateView<'_> {
    fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

/// Events that a log no longer has. Which log, is said where there are many.
#[derive(Debug, Clone, Serialize)]
pub(super) struct GapView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) topic: Option<String>,
    pub(super) from: Seq,
    pub(super) to: Seq,
}

impl GapView {
    /// A gap in one of many logs.
    pub(super) fn of(topic: &Topic, gap: Gap) -> Self {
        Self { topic: Some(topic.to_string()), from: gap.from, to: gap.to }
    }
}

/// The data of `stream:sync`.
#[derive(Debug, Serialize)]
pub(super) struct SyncView<'a> {
    pub(super) cursor: &'a str,
    pub(super) resumed: bool,
    pub(super) gap: Option<GapView>,
    #[serde(skip_serializing_if = "AnyStateView::is_none")]
    pub(super) state: AnyStateView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) omitted: Option<&'a [RideId]>,
}

/// The data of `stream:closing` and `auth:expired`.
#[derive(Debug, Serialize)]
pub(in crate::http) struct ReasonView {
    pub(in crate::http) reason: &'static str,
}
