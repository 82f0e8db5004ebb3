//! Lists of rides: which are on a page, and what is shown of each.

use super::pool::Store;
use super::rows::{ride_id, snapshot_from_row};
use super::{StoreError, message_from_row, sql};
use crate::domain::{Caller, Message, RideId, RidePlace, RideSnapshot, Role, Seq, Status, UserId};

/// A ride as a list shows it.
#[derive(Debug)]
pub struct StoredRide {
    /// The ride.
    pub snapshot: RideSnapshot,
    /// Its newest message, of those that are the reader's to see.
    pub last_message: Option<Message>,
    /// How many of them are unread.
    pub unread: i64,
}

/// Which rides a list has.
#[derive(Debug, Clone, Copy)]
pub struct RideList<'a> {
    /// Those that this user is on; all of them where nobody is named.
    pub user: Option<&'a UserId>,
    /// Those with this status.
    pub status: Option<Status>,
}

impl Store {
    /// The rides of a list after a place in it, newest first, and the place of each.
    pub async fn page_of_rides(
        &self,
        list: RideList<'_>,
        after: Option<&RidePlace>,
        limit: i64,
    ) -> Result<Vec<RidePlace>, StoreError> {
        let status = list.status.map(Status::as_str);
        // Everything comes after the end of the calendar.
        let at = after.and_then(|place| jiff::Timestamp::from_microsecond(place.at).ok());
        let at = at.unwrap_or(jiff::Timestamp::MAX);
        let ride = after.map_or("", |place| place.ride.as_str());
        let rows = match (list.user, status) {
            (Some(user), status) => {
                self.read(sql::RIDES_PAGE_OF_USER, &[&user.as_str(), &status, &at, &ride, &limit]).await?
            }
            (None, Some(status)) => self.read(sql::RIDES_PAGE_OF_STATUS, &[&status, &at, &ride, &limit]).await?,
            (None, None) => self.read(sql::RIDES_PAGE, &[&at, &ride, &limit]).await?,
        };
        let place = |row: &tokio_postgres::Row| {
            let at = row.try_get::<_, jiff::Timestamp>("place")?.as_microsecond();
            Ok(RidePlace { at, ride: ride_id(row.try_get("ride_id")?)? })
        };
        rows.iter().map(place).collect()
    }

    /// Where a ride is in a list, if it is or was there.
    pub async fn place_of_ride(&self, list: RideList<'_>, ride: &RideId) -> Result<Option<RidePlace>, StoreError> {
        let user = list.user.map(UserId::as_str);
        let rows = self.read(sql::RIDES_PLACE, &[&ride.as_str(), &user]).await?;
        let column = if user.is_some() { "of_user" } else { "of_all" };
        let at = rows.first().map_or(Ok(None), |row| row.try_get::<_, Option<jiff::Timestamp>>(column))?;
        Ok(at.map(|at| RidePlace { at: at.as_microsecond(), ride: ride.clone() }))
    }

    /// These rides as `reader` sees them, in no order, without those that are gone.
    pub async fn inbox(&self, reader: &Caller, rides: &[RidePlace]) -> Result<Vec<StoredRide>, StoreError> {
        let rides: Vec<_> = rides.iter().map(|place| place.ride.as_str()).collect();
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
