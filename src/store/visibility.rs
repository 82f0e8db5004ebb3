//! What a reader with access to only part of a ride's log sees of the ride: its state when the reader left it, and
//! watermarks in terms of visible messages.

use std::collections::HashMap;

use serde::Deserialize;

use super::pool::{Params, Store};
use super::{StoreError, sql};
use crate::domain::{Caller, ChatPolicy, RideAtLeave, RideId, RideSnapshot, Seq, Status, Time, UserId};

/// The data of `ride:participants`, as far as it is needed here.
#[derive(Deserialize)]
struct ParticipantsEvent {
    ride: EventRide,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventRide {
    chat_policy: Option<ChatPolicy>,
}

impl Store {
    /// Returns the state of a ride when a user left it at the seq `left_at_seq`; `None` if the user left before this state was stored.
    pub async fn ride_at_leave(
        &self,
        ride: &RideId,
        user: &UserId,
        left_at_seq: Seq,
    ) -> Result<Option<RideAtLeave>, StoreError> {
        let rows = self.read(sql::PARTICIPANTS_RIDE_AT_LEAVE, &[&ride.as_str(), &user.as_str(), &left_at_seq]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let status = row.try_get::<_, Option<&str>>("left_status")?.and_then(Status::from_stored);
        let updated_at = row.try_get::<_, Option<jiff::Timestamp>>("left_updated_at")?.map(Time::from);
        let event = row.try_get::<_, Option<&str>>("removal_event")?;
        let event = event.and_then(|event| serde_json::from_str::<ParticipantsEvent>(event).ok());
        let chat_policy = event.and_then(|event| event.ride.chat_policy);
        Ok(status.zip(updated_at).map(|(status, updated_at)| RideAtLeave { status, updated_at, chat_policy }))
    }

    /// Returns the snapshot with its watermarks as `reader` may see them.
    ///
    /// A watermark on a message outside the reader's access becomes the last visible message before it, or 0 if there
    /// is none. Each visible message stays delivered or read as before.
    ///
    /// Such watermarks exist only for a driver who replaced another driver, so only then is anything read. (A user who has
    /// left gets [`RideSnapshot::as_of_leave`], without receipts.) The statement is later than the snapshot. That is safe:
    /// messages sent in between are after all watermarks of the snapshot, and the reader gets no new access in between.
    pub async fn with_visible_watermarks(
        &self,
        mut snapshot: RideSnapshot,
        reader: &Caller,
    ) -> Result<RideSnapshot, StoreError> {
        let access = snapshot.access_intervals(reader);
        if access.covers_whole_log() {
            return Ok(snapshot);
        }
        let is_hidden = |seq: Seq| seq > 0 && !access.contains(seq);
        let watermarks = snapshot
            .receipts
            .0
            .iter()
            .flat_map(|receipt| [(&receipt.user, receipt.delivered_seq), (&receipt.user, receipt.read_seq)]);
        let hidden: Vec<_> = watermarks.filter(|(_, seq)| is_hidden(*seq)).collect();
        if hidden.is_empty() {
            return Ok(snapshot);
        }
        let owners: Vec<_> = hidden.iter().map(|(owner, _)| owner.as_str()).collect();
        let seqs: Vec<_> = hidden.iter().map(|(_, seq)| *seq).collect();
        let (ride, user) = (snapshot.ride.id.as_str(), reader.user.as_str());
        let params: Params<'_> = &[&ride, &user, &owners, &seqs];
        let mut visible = HashMap::new();
        for row in self.read(sql::MESSAGES_LAST_VISIBLE, params).await? {
            let key = (row.try_get::<_, String>("user_id")?, row.try_get::<_, Seq>("up_to")?);
            visible.insert(key, row.try_get::<_, Seq>("seq")?);
        }
        for receipt in &mut snapshot.receipts.0 {
            let owner = receipt.user.as_str();
            for seq in [&mut receipt.delivered_seq, &mut receipt.read_seq] {
                if is_hidden(*seq) {
                    *seq = visible.get(&(owner.to_owned(), *seq)).copied().unwrap_or(0);
                }
            }
        }
        Ok(snapshot)
    }
}
