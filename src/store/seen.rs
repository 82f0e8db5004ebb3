//! What is shown of a ride to somebody whose part of its log is not the whole: how it was when they left it, and of watermarks
//! what the messages say that they may see.

use std::collections::HashMap;

use serde::Deserialize;

use super::pool::{Params, Store};
use super::{StoreError, sql};
use crate::domain::{Caller, ChatPolicy, LeftAs, RideId, RideSnapshot, Seq, Status, Time, UserId};

/// What `ride:participants` says of the ride.
#[derive(Deserialize)]
struct LeftEvent {
    ride: LeftRide,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeftRide {
    chat_policy: Option<ChatPolicy>,
}

impl Store {
    /// How a ride was when somebody left it at `until`, where that is known.
    pub async fn left_as(&self, ride: &RideId, user: &UserId, until: Seq) -> Result<Option<LeftAs>, StoreError> {
        let rows = self.read(sql::PARTICIPANTS_LEFT_AS, &[&ride.as_str(), &user.as_str(), &until]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let status = row.try_get::<_, Option<&str>>("left_status")?.and_then(Status::parse);
        let updated_at = row.try_get::<_, Option<jiff::Timestamp>>("left_updated_at")?.map(Time::from);
        let event = row.try_get::<_, Option<&str>>("event")?;
        let event = event.and_then(|event| serde_json::from_str::<LeftEvent>(event).ok());
        let chat_policy = event.and_then(|event| event.ride.chat_policy);
        Ok(status.zip(updated_at).map(|(status, updated_at)| LeftAs { status, updated_at, chat_policy }))
    }

    /// The snapshot with its watermarks as `reader` may see them. One that names a message outside the reader's part of the log
    /// becomes that of the last message before it that is theirs, 0 where there is none. Whether a message that they see is
    /// delivered or read stays the same.
    ///
    /// Only a driver after another has such marks, so only for them is anything read. It is read after the snapshot: messages
    /// that have come since lie past its marks, and the reader's part only ends.
    pub async fn with_seen_marks(
        &self,
        mut snapshot: RideSnapshot,
        reader: &Caller,
    ) -> Result<RideSnapshot, StoreError> {
        let parts = snapshot.parts(reader);
        if parts.is_whole() {
            return Ok(snapshot);
        }
        let is_hidden = |seq: Seq| seq > 0 && !parts.contains(seq);
        let marks = snapshot.receipts.0.iter().flat_map(|of| [(&of.user, of.delivered_seq), (&of.user, of.read_seq)]);
        let hidden: Vec<_> = marks.filter(|(_, seq)| is_hidden(*seq)).collect();
        if hidden.is_empty() {
            return Ok(snapshot);
        }
        let owners: Vec<_> = hidden.iter().map(|(owner, _)| owner.as_str()).collect();
        let seqs: Vec<_> = hidden.iter().map(|(_, seq)| *seq).collect();
        let (ride, user) = (snapshot.ride.id.as_str(), reader.user.as_str());
        let params: Params<'_> = &[&ride, &user, &owners, &seqs];
        let mut shown = HashMap::new();
        for row in self.read(sql::MESSAGES_LAST_SEEN, params).await? {
            let key = (row.try_get::<_, String>("user_id")?, row.try_get::<_, Seq>("up_to")?);
            shown.insert(key, row.try_get::<_, Seq>("seq")?);
        }
        for receipt in &mut snapshot.receipts.0 {
            let owner = receipt.user.as_str();
            for seq in [&mut receipt.delivered_seq, &mut receipt.read_seq] {
                if is_hidden(*seq) {
                    *seq = shown.get(&(owner.to_owned(), *seq)).copied().unwrap_or(0);
                }
            }
        }
        Ok(snapshot)
    }
}
