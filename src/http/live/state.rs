//! The state of rides, as streams and polls send it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::{Caller, RideId, RideRole, RideSnapshot, RideView, Seq, StateUpdate, Time, Topic, UserId};
use crate::http::context::Api;
use crate::realtime::Gap;

/// `state`: the ride, read in one snapshot with the log's head `asOf`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct StateView<'a> {
    as_of: Seq,
    ride: RideView<'a>,
    participants: Vec<ParticipantView<'a>>,
    receipts: Vec<WatermarksView<'a>>,
    location: Option<&'a RawValue>,
    typing: Vec<UserId>,
}

/// A participant of the ride.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct ParticipantView<'a> {
    user_id: &'a UserId,
    role: RideRole,
    online: bool,
    since: Option<Time>,
}

/// A user's watermarks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct WatermarksView<'a> {
    user_id: &'a UserId,
    delivered_seq: Seq,
    read_seq: Seq,
}

/// Returns the current participants of a ride.
pub(in crate::http) fn participants(snapshot: &RideSnapshot) -> Vec<ParticipantView<'_>> {
    snapshot
        .current_participants()
        .map(|participant| ParticipantView {
            user_id: &participant.user,
            role: participant.role,
            online: participant.presence.is_some_and(|presence| presence.online),
            since: participant.presence.map(|presence| presence.since),
        })
        .collect()
}

/// Returns the watermarks of the current participants, zeros included, and of support users that have any. The watermarks of a participant
/// who has left are not shown.
pub(in crate::http) fn receipts(snapshot: &RideSnapshot) -> Vec<WatermarksView<'_>> {
    let of = |user: &UserId| snapshot.receipts.0.iter().find(|receipt| receipt.user == *user);
    let watermarks = |user| {
        let receipt = of(user);
        WatermarksView {
            user_id: user,
            delivered_seq: receipt.map_or(0, |receipt| receipt.delivered_seq),
            read_seq: receipt.map_or(0, |receipt| receipt.read_seq),
        }
    };
    // A support user who is now a participant is in the list already.
    let is_participant = |user: &UserId| snapshot.current_participants().any(|participant| participant.user == *user);
    let support = snapshot.receipts.0.iter().filter(|receipt| receipt.role == RideRole::Support);
    // A support user whose watermark the reader may not see is left out.
    let support = support.filter(|receipt| !is_participant(&receipt.user) && receipt.delivered_seq > 0);
    snapshot
        .current_participants()
        .map(|participant| watermarks(&participant.user))
        .chain(support.map(|receipt| watermarks(&receipt.user)))
        .collect()
}

impl<'a> StateView<'a> {
    /// Returns a ride as `caller` may see it. Latest-only values are included if they were true within the caller's access, up to `asOf`.
    pub(in crate::http) fn of(snapshot: &'a RideSnapshot, caller: &Caller, api: &Api) -> Self {
        let access = snapshot.access(caller);
        let is_visible = |seq| seq <= snapshot.head && access.is_some_and(|access| access.covers(seq));
        // A user who was removed from the ride does not type any more. A reader who was removed does not see typing at all.
        let is_on_ride = access.is_some_and(|access| access.until_seq.is_none());
        let has_left = |user: &UserId| {
            let mut times = snapshot.participants.iter().filter(|participant| participant.user == *user).peekable();
            times.peek().is_some() && times.all(|participant| participant.until_seq.is_some())
        };
        let hub = &api.shards.of_ride(&snapshot.ride.id).hub;
        let mut typing = hub.typing_users(&Topic::ride(&snapshot.ride.id), |seq| is_on_ride && is_visible(seq));
        typing.retain(|user| !has_left(user));
        Self {
            as_of: snapshot.head,
            ride: snapshot.view(caller),
            participants: participants(snapshot),
            receipts: receipts(snapshot),
            location: snapshot.location.as_ref().filter(|last| is_visible(last.seq)).map(|last| &*last.data),
            typing,
        }
    }
}

/// The state of a stream's or poll's source at one moment.
pub(super) enum State {
    /// A ride.
    Ride(Box<RideSnapshot>),
    /// All rides of the caller, the available drivers for support and service, and the omitted rides.
    All { rides: Vec<RideSnapshot>, drivers: Option<Vec<StateUpdate>>, omitted: Vec<RideId> },
    /// The feed, which has no state.
    Feed,
}

/// The state as it is sent.
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
    /// Returns the omitted rides of a merged stream.
    pub(super) fn omitted(&self) -> Option<&[RideId]> {
        match self {
            Self::Ride(_) | Self::Feed => None,
            Self::All { omitted, .. } => Some(omitted),
        }
    }

    /// Returns the state as the caller may see it.
    pub(super) fn view(&self, api: &Api, caller: &Caller) -> AnyStateView<'_> {
        match self {
            Self::Feed => AnyStateView::None,
            Self::Ride(snapshot) => AnyStateView::Ride(Box::new(StateView::of(snapshot, caller, api))),
            Self::All { rides, drivers, .. } => {
                let participant = caller.as_participant();
                let of = |ride| StateView::of(ride, &participant, api);
                AnyStateView::All {
                    rides: rides.iter().map(|ride| (&ride.ride.id, of(ride))).collect(),
                    drivers: drivers
                        .as_ref()
                        .map(|drivers| drivers.iter().filter_map(|driver| driver.as_raw().ok()).collect()),
                }
            }
        }
    }
}

impl AnyStateView<'_> {
    fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

/// Events that a log no longer has. `topic` names the log on a merged stream.
#[derive(Debug, Clone, Serialize)]
pub(super) struct GapView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) topic: Option<String>,
    pub(super) from: Seq,
    pub(super) to: Seq,
}

impl GapView {
    /// A gap in one log of a merged stream.
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
