//! Lists of rides: the rides of a page, and the data of each entry.

use super::pool::Store;
use super::rows::{ride_id, snapshot_from_row};
use super::{StoreError, message_from_row, sql};
use crate::domain::{Caller, Message, RideId, RideListCursor, RideSnapshot, Role, Seq, Status, UserId};

/// A ride in a list.
#[derive(Debug)]
pub struct StoredRide {
    /// The ride.
    pub snapshot: RideSnapshot,
    /// The newest message that the reader may see.
    pub last_message: Option<Message>,
    /// The number of unread messages that the reader may see.
    pub unread: i64,
}

/// The filters of a list.
#[derive(Debug, Clone, Copy)]
pub struct RideList<'a> {
    /// Only rides that this user is a participant of; `None` for all rides.
    pub user: Option<&'a UserId>,
    /// Only rides with this status.
    pub status: Option<Status>,
}

impl Store {
    /// Returns the positions of the rides of a list after `after`, newest first.
    pub async fn page_of_rides(
        &self,
        list: RideList<'_>,
        after: Option<&RideListCursor>,
        limit: i64,
    ) -> Result<Vec<RideListCursor>, StoreError> {
        let status = list.status.as_ref().map(Status::as_str);
        // The list is descending, so without a position it begins before the maximum timestamp.
        let at = after.and_then(|cursor| jiff::Timestamp::from_microsecond(cursor.at).ok());
        let at = at.unwrap_or(jiff::Timestamp::MAX);
        let ride = after.map_or("", |cursor| cursor.ride.as_str());
        let rows = match (list.user, status) {
            (Some(user), status) => {
                self.read(sql::RIDES_PAGE_OF_USER, &[&user.as_str(), &status, &at, &ride, &limit]).await?
            }
            (None, Some(status)) => self.read(sql::RIDES_PAGE_OF_STATUS, &[&status, &at, &ride, &limit]).await?,
            (None, None) => self.read(sql::RIDES_PAGE, &[&at, &ride, &limit]).await?,
        };
        let cursor = |row: &tokio_postgres::Row| {
            let at = row.try_get::<_, jiff::Timestamp>("listed_at")?.as_microsecond();
            Ok(RideListCursor { at, ride: ride_id(row.try_get("ride_id")?)? })
        };
        rows.iter().map(cursor).collect()
    }

    /// Returns the position of a ride in a list; `None` if it was never there.
    pub async fn cursor_of_ride(
        &self,
        list: RideList<'_>,
        ride: &RideId,
    ) -> Result<Option<RideListCursor>, StoreError> {
        let user = list.user.map(UserId::as_str);
        let rows = self.read(sql::RIDES_LIST_POSITION, &[&ride.as_str(), &user]).await?;
        let column = if user.is_some() { "of_user" } else { "of_all" };
        let at = rows.first().map_or(Ok(None), |row| row.try_get::<_, Option<jiff::Timestamp>>(column))?;
        Ok(at.map(|at| RideListCursor { at: at.as_microsecond(), ride: ride.clone() }))
    }

    /// Returns the rides of other shards in which a user may have unread messages.
    pub async fn remote_unread_rides(&self, user: &UserId) -> Result<Vec<RideId>, StoreError> {
        let rows = self.read(sql::REMOTE_RIDES_UNREAD, &[&user.as_str()]).await?;
        rows.iter().map(|row| ride_id(row.try_get("ride_id")?)).collect()
    }

    /// Returns these rides as `reader` sees them, in no order, without rides that no longer exist.
    pub async fn inbox(&self, reader: &Caller, rides: &[RideListCursor]) -> Result<Vec<StoredRide>, StoreError> {
        let rides: Vec<_> = rides.iter().map(|cursor| cursor.ride.as_str()).collect();
        let (sees_all, reads_nothing) = (reader.role.is_staff(), reader.role == Role::Service);
        let params: super::pool::Params<'_> = &[&rides, &reader.user.as_str(), &sees_all, &reads_nothing];
        let rows = self.read(sql::RIDES_INBOX, params).await?;
        let stored = |row: &tokio_postgres::Row| {
            let seq = row.try_get::<_, Option<Seq>>("seq")?;
            Ok(StoredRide {
                snapshot: snapshot_from_row(row)?,
                last_message: seq.map(|_| message_from_row(row)).transpose()?,
                unread: row.try_get("unread")?,
            })
        };
        rows.iter().map(stored).collect()
    }
}
