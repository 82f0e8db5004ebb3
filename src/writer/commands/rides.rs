//! Creating and updating rides: their participants and status, as far as messaging needs them.

use serde::Serialize;

use super::closing::{append_assigned, append_removed};
use crate::domain::{
    Caller, ChatPolicy, Error, EventType, Result, Ride, RideId, RideRole, RideSnapshot, RideView, Role, Status, UserId,
};
use crate::writer::{BatchState, Command, ReadSet};

/// Creates or updates a ride.
#[derive(Debug)]
pub struct PutRide {
    /// The service.
    pub caller: Caller,
    /// The ride.
    pub ride: RideId,
    /// The rider. `None` keeps the current one.
    pub rider: Option<UserId>,
    /// The driver. `None` keeps the current one, `Some(None)` removes the driver.
    pub driver: Option<Option<UserId>>,
    /// The status. `None` keeps the current one, but a first driver makes the ride accepted.
    pub status: Option<Status>,
    /// When the chat opens and closes. `None` keeps the current policy, `Some(None)` restores the default.
    pub chat_policy: Option<Option<ChatPolicy>>,
}

/// The data of `ride:accept`, `ride:cancel` and `ride:status`.
#[derive(Serialize)]
struct Changed<'a> {
    ride: RideView<'a>,
    by: &'a UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// The data of `ride:participants`.
#[derive(Serialize)]
struct ParticipantsChanged<'a> {
    ride: RideView<'a>,
    joined: Vec<ParticipantEntry<'a>>,
    left: Vec<ParticipantEntry<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ParticipantEntry<'a> {
    user_id: &'a UserId,
    role: RideRole,
}

type ParticipantList = Vec<(UserId, RideRole)>;

impl Command for PutRide {
    /// The ride, and whether it is new.
    type Output = (RideSnapshot, bool);

    fn read_set(&self, read_set: &mut ReadSet) {
        read_set.add_ride(&self.ride);
        read_set.new_rides.insert(self.ride.clone());
    }

    fn apply(&self, state: &mut BatchState) -> Result<(RideSnapshot, bool)> {
        if self.caller.role != Role::Service {
            return Err(Error::Forbidden("only the `service` role can create or update rides"));
        }
        let before = state.find_ride(&self.ride).map(|snapshot| snapshot.ride.clone());
        let is_new = before.is_none();
        match before {
            None => self.create(state)?,
            Some(ride) => self.update(state, ride)?,
        }
        Ok((state.ride_snapshot(&self.ride)?, is_new))
    }
}

impl PutRide {
    /// Rejects a driver who is the rider.
    fn check_driver(&self, rider: &UserId) -> Result<()> {
        match &self.driver {
            Some(Some(driver)) if driver == rider => Err(Error::invalid("/driverId", "must not be the rider")),
            _ => Ok(()),
        }
    }

    fn create(&self, state: &mut BatchState) -> Result<()> {
        let now = state.now();
        let rider = self.rider.clone().ok_or_else(|| Error::invalid("/riderId", "is required for a new ride"))?;
        let driver = self.driver.clone().flatten();
        self.check_driver(&rider)?;
        let by_driver = if driver.is_some() { Status::Accepted } else { Status::Requested };
        let mut ride = Ride {
            id: self.ride.clone(),
            status: Status::Requested,
            rider,
            driver,
            chat_policy: self.chat_policy.flatten(),
            has_opened: false,
            ended_at: None,
            closing_times: None,
            closed_at: None,
            closed_seq: None,
            created_at: now,
            updated_at: now,
        };
        // If the chat policy opens the chat from the beginning, the ride counts as requested first, whatever its status is now.
        ride.enter(Status::Requested, now, state.chat_grace());
        ride.enter(self.status.unwrap_or(by_driver), now, state.chat_grace());
        let mut joined = vec![(ride.rider.clone(), RideRole::Rider)];
        joined.extend(ride.driver.clone().map(|driver| (driver, RideRole::Driver)));
        state.create_ride(ride.clone());
        change_participants(state, &ride, &joined, &Vec::new())
    }

    /// Changes the ride first, so that each event contains its new state. Then come the events: of a driver who leaves or joins, and of
    /// any other change.
    fn update(&self, state: &mut BatchState, before: Ride) -> Result<()> {
        self.check_driver(&before.rider)?;
        if self.rider.as_ref().is_some_and(|rider| before.rider != *rider) {
            return Err(Error::RideConflict("the rider of a ride cannot be changed"));
        }
        let (now, grace) = (state.now(), state.chat_grace());
        let mut ride = before.clone();
        let driver = self.driver.clone().filter(|driver| before.driver != *driver);
        let policy = self.chat_policy.filter(|policy| before.chat_policy != *policy);
        if let Some(policy) = policy {
            ride.set_chat_policy(policy, now);
        }
        match &driver {
            Some(Some(_)) if before.status.is_ended() => {
                return Err(Error::RideConflict("the driver of an ended ride cannot be changed"));
            }
            Some(Some(driver)) => {
                ride.driver = Some(driver.clone());
                ride.updated_at = now;
            }
            Some(None) => ride.remove_driver(now, grace),
            None => {}
        }
        let is_first_driver = before.driver.is_none() && ride.driver.is_some();
        let accepts = is_first_driver && before.status == Status::Requested;
        let status = match driver {
            // Without a driver, the ride is requested again, unless it ends.
            Some(None) if !before.status.is_ended() => {
                self.status.filter(|status| ![before.status, Status::Requested].contains(status))
            }
            _ => self.status,
        };
        if let Some(to) = status.filter(|to| driver == Some(None) && !to.is_ended() && !before.status.is_ended()) {
            return Err(Error::InvalidTransition { from: Status::Requested, to });
        }
        if let Some(next) = status.or(accepts.then_some(Status::Accepted)) {
            ride.skip_to(next, now, grace)?;
        }
        state.change_ride(ride.clone())?;
        if driver.is_some() {
            let of = |ride: &Ride| ride.driver.clone().map(|driver| (driver, RideRole::Driver)).into_iter().collect();
            change_participants(state, &ride, &of(&ride), &of(&before))?;
        }
        if ride.status != before.status || policy.is_some() {
            let event = match ride.status {
                Status::Accepted if accepts => EventType::RideAccept,
                // Only the chat policy has changed.
                status if status == before.status => EventType::RideStatus,
                status => status_event(status),
            };
            append_change(state, &ride, event, &self.caller, None)?;
        }
        Ok(())
    }
}

/// Accepts a ride as its driver.
#[derive(Debug)]
pub struct AcceptRide {
    /// The driver.
    pub caller: Caller,
    /// The ride.
    pub ride: RideId,
}

impl Command for AcceptRide {
    type Output = RideSnapshot;

    fn read_set(&self, read_set: &mut ReadSet) {
        read_set.add_ride(&self.ride);
    }

    fn apply(&self, state: &mut BatchState) -> Result<RideSnapshot> {
        if self.caller.role != Role::Driver {
            return Err(Error::Forbidden("only a driver can accept a ride"));
        }
        let before = state.ride(&self.ride)?.ride.clone();
        if before.rider == self.caller.user {
            return Err(Error::Forbidden("the rider of a ride cannot accept it"));
        }
        let is_own = before.driver.as_ref() == Some(&self.caller.user);
        match before.status {
            Status::Requested if is_own || before.driver.is_none() => {}
            status if is_own && !status.is_ended() => return state.ride_snapshot(&self.ride),
            status if status.is_ended() => return Err(Error::RideConflict("the ride has ended")),
            _ => return Err(Error::RideConflict("another driver has the ride")),
        }
        let now = state.now();
        let mut ride = before.clone();
        ride.advance(Status::Accepted, now, state.chat_grace())?;
        ride.driver = Some(self.caller.user.clone());
        state.change_ride(ride.clone())?;
        if !is_own {
            change_participants(state, &ride, &vec![(self.caller.user.clone(), RideRole::Driver)], &Vec::new())?;
        }
        append_change(state, &ride, EventType::RideAccept, &self.caller, None)?;
        state.ride_snapshot(&self.ride)
    }
}

/// Cancels a ride.
#[derive(Debug)]
pub struct CancelRide {
    /// A participant of the ride, support or the service.
    pub caller: Caller,
    /// The ride.
    pub ride: RideId,
    /// The reason, for the participants.
    pub reason: Option<String>,
}

impl Command for CancelRide {
    type Output = RideSnapshot;

    fn read_set(&self, read_set: &mut ReadSet) {
        read_set.add_ride(&self.ride);
    }

    fn apply(&self, state: &mut BatchState) -> Result<RideSnapshot> {
        let snapshot = state.ride(&self.ride)?;
        snapshot.require_access(&self.caller)?;
        set_status(state, snapshot.ride.clone(), Status::Cancelled, &self.caller, self.reason.as_deref())
    }
}

/// Sets a ride's status.
#[derive(Debug)]
pub struct SetStatus {
    /// The ride's driver, or the service.
    pub caller: Caller,
    /// The ride.
    pub ride: RideId,
    /// The new status.
    pub status: Status,
}

impl Command for SetStatus {
    type Output = RideSnapshot;

    fn read_set(&self, read_set: &mut ReadSet) {
        read_set.add_ride(&self.ride);
    }

    fn apply(&self, state: &mut BatchState) -> Result<RideSnapshot> {
        let snapshot = state.ride(&self.ride)?;
        let role = snapshot.require_access(&self.caller)?.role;
        if !matches!(role, RideRole::Driver | RideRole::System) {
            return Err(Error::Forbidden("only the ride's driver or the service can set its status"));
        }
        set_status(state, snapshot.ride.clone(), self.status, &self.caller, None)
    }
}

fn set_status(
    state: &mut BatchState,
    mut ride: Ride,
    to: Status,
    by: &Caller,
    reason: Option<&str>,
) -> Result<RideSnapshot> {
    if ride.advance(to, state.now(), state.chat_grace())? {
        state.change_ride(ride.clone())?;
        append_change(state, &ride, status_event(to), by, reason)?;
    }
    state.ride_snapshot(&ride.id)
}

fn status_event(status: Status) -> EventType {
    if status == Status::Cancelled { EventType::RideCancel } else { EventType::RideStatus }
}

fn append_change(
    state: &mut BatchState,
    ride: &Ride,
    event: EventType,
    by: &Caller,
    reason: Option<&str>,
) -> Result<()> {
    let ride_view = ride.view(ride.chat(state.now()));
    let data = Changed { ride: ride_view, by: &by.user, reason };
    state.append_ride_event(&ride.id, event, None, |_| data).map(drop)
}

/// Appends the event at which access begins and ends, and changes the participants.
fn change_participants(
    state: &mut BatchState,
    ride: &Ride,
    joined: &ParticipantList,
    left: &ParticipantList,
) -> Result<()> {
    let ride_view = ride.view(ride.chat(state.now()));
    let data = ParticipantsChanged { ride: ride_view, joined: entries(joined), left: entries(left) };
    let seq = state.append_ride_event(&ride.id, EventType::RideParticipants, None, |_| data)?;
    let left: Vec<UserId> = left.iter().map(|(user, _)| user.clone()).collect();
    left.iter().try_for_each(|user| append_removed(state, user, &ride.id, seq))?;
    joined.iter().try_for_each(|(user, _)| append_assigned(state, user, ride, seq))?;
    state.change_participants(&ride.id, seq, joined, &left);
    Ok(())
}

fn entries(list: &ParticipantList) -> Vec<ParticipantEntry<'_>> {
    list.iter().map(|(user_id, role)| ParticipantEntry { user_id, role: *role }).collect()
}
