//! A ride's beginning, its people and its steps, as far as messaging has to know them.

use serde::Serialize;

use super::closing::{tell_assigned, tell_removed};
use crate::domain::{
    Caller, ChatPolicy, Error, EventType, Result, Ride, RideId, RideRole, RideSnapshot, RideView, Role, Status, UserId,
};
use crate::writer::{Command, Ledger, Needs};

/// What the platform says of a ride: makes it known, or brings it up to date.
#[derive(Debug)]
pub struct PutRide {
    /// Who: service.
    pub caller: Caller,
    /// Which.
    pub ride: RideId,
    /// Who booked it; `None` leaves that as it is.
    pub rider: Option<UserId>,
    /// Who drives it; `None` leaves that as it is, `Some(None)` removes the driver.
    pub driver: Option<Option<UserId>>,
    /// How far it is; `None` leaves that as it is, but a first driver means accepted.
    pub status: Option<Status>,
    /// When its chat opens and closes; `None` leaves that as it is, `Some(None)` is the default.
    pub chat_policy: Option<Option<ChatPolicy>>,
}

/// `ride:accept`, `ride:cancel`, `ride:status`.
#[derive(Serialize)]
struct Changed<'a> {
    ride: RideView<'a>,
    by: &'a UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// `ride:participants`.
#[derive(Serialize)]
struct ParticipantsChanged<'a> {
    ride: RideView<'a>,
    joined: Vec<Person<'a>>,
    left: Vec<Person<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Person<'a> {
    user_id: &'a UserId,
    role: RideRole,
}

type People = Vec<(UserId, RideRole)>;

impl Command for PutRide {
    /// The ride, and whether it is new.
    type Output = (RideSnapshot, bool);

    fn needs(&self, needs: &mut Needs) {
        needs.ride(&self.ride);
        needs.new_rides.insert(self.ride.clone());
    }

    fn judge(&self, ledger: &mut Ledger) -> Result<(RideSnapshot, bool)> {
        if self.caller.role != Role::Service {
            return Err(Error::Forbidden("only the service may say what a ride is"));
        }
        let before = ledger.find_ride(&self.ride).map(|snapshot| snapshot.ride.clone());
        let is_new = before.is_none();
        match before {
            None => self.create(ledger)?,
            Some(ride) => self.update(ledger, ride)?,
        }
        Ok((ledger.answer(&self.ride)?, is_new))
    }
}

impl PutRide {
    /// A ride has two people.
    fn check_driver(&self, rider: &UserId) -> Result<()> {
        match &self.driver {
            Some(Some(driver)) if driver == rider => {
                Err(Error::invalid("/driverId", "must be somebody else than the rider"))
            }
            _ => Ok(()),
        }
    }

    fn create(&self, ledger: &mut Ledger) -> Result<()> {
        let now = ledger.now();
        let rider = self.rider.clone().ok_or_else(|| Error::invalid("/riderId", "is required of a new ride"))?;
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
            closes: None,
            closed_at: None,
            closed_seq: None,
            created_at: now,
            updated_at: now,
        };
        // A ride of which the chat opens from the beginning has been requested, whatever it is by now.
        ride.enter(Status::Requested, now, ledger.chat_grace());
        ride.enter(self.status.unwrap_or(by_driver), now, ledger.chat_grace());
        let mut joined = vec![(ride.rider.clone(), RideRole::Rider)];
        joined.extend(ride.driver.clone().map(|driver| (driver, RideRole::Driver)));
        ledger.open_ride(ride.clone());
        move_people(ledger, &ride, &joined, &Vec::new())
    }

    /// The changes are made to the ride first, so that each event says what has become of it; then come the events: of a
    /// driver who leaves or joins, and of what else has changed.
    fn update(&self, ledger: &mut Ledger, before: Ride) -> Result<()> {
        self.check_driver(&before.rider)?;
        if self.rider.as_ref().is_some_and(|rider| before.rider != *rider) {
            return Err(Error::RideConflict("the rider of a ride does not change"));
        }
        let (now, grace) = (ledger.now(), ledger.chat_grace());
        let mut ride = before.clone();
        let driver = self.driver.clone().filter(|driver| before.driver != *driver);
        let policy = self.chat_policy.filter(|policy| before.chat_policy != *policy);
        if let Some(policy) = policy {
            ride.set_chat_policy(policy, now);
        }
        match &driver {
            Some(Some(_)) if before.status.is_ended() => {
                return Err(Error::RideConflict("a ride that is over gets no other driver"));
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
            // Without a driver it is requested again, unless it ends.
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
        ledger.change_ride(ride.clone())?;
        if driver.is_some() {
            let of = |ride: &Ride| ride.driver.clone().map(|driver| (driver, RideRole::Driver)).into_iter().collect();
            move_people(ledger, &ride, &of(&ride), &of(&before))?;
        }
        if ride.status != before.status || policy.is_some() {
            let event = match ride.status {
                Status::Accepted if accepts => EventType::RideAccept,
                // What has changed is its policy alone.
                status if status == before.status => EventType::RideStatus,
                status => step_event(status),
            };
            announce(ledger, &ride, event, &self.caller, None)?;
        }
        Ok(())
    }
}

/// Takes a ride as its driver.
#[derive(Debug)]
pub struct AcceptRide {
    /// Who: a driver.
    pub caller: Caller,
    /// Which.
    pub ride: RideId,
}

impl Command for AcceptRide {
    type Output = RideSnapshot;

    fn needs(&self, needs: &mut Needs) {
        needs.ride(&self.ride);
    }

    fn judge(&self, ledger: &mut Ledger) -> Result<RideSnapshot> {
        if self.caller.role != Role::Driver {
            return Err(Error::Forbidden("only a driver can accept a ride"));
        }
        let before = ledger.ride(&self.ride)?.ride.clone();
        if before.rider == self.caller.user {
            return Err(Error::Forbidden("a ride's rider cannot drive it"));
        }
        let mine = before.driver.as_ref() == Some(&self.caller.user);
        match before.status {
            Status::Requested if mine || before.driver.is_none() => {}
            status if mine && !status.is_ended() => return ledger.answer(&self.ride),
            status if status.is_ended() => return Err(Error::RideConflict("the ride is over")),
            _ => return Err(Error::RideConflict("another driver has the ride")),
        }
        let now = ledger.now();
        let mut ride = before.clone();
        ride.advance(Status::Accepted, now, ledger.chat_grace())?;
        ride.driver = Some(self.caller.user.clone());
        ledger.change_ride(ride.clone())?;
        if !mine {
            move_people(ledger, &ride, &vec![(self.caller.user.clone(), RideRole::Driver)], &Vec::new())?;
        }
        announce(ledger, &ride, EventType::RideAccept, &self.caller, None)?;
        ledger.answer(&self.ride)
    }
}

/// Calls a ride off.
#[derive(Debug)]
pub struct CancelRide {
    /// Who: anybody on it, support, service.
    pub caller: Caller,
    /// Which.
    pub ride: RideId,
    /// Why, in their words.
    pub reason: Option<String>,
}

impl Command for CancelRide {
    type Output = RideSnapshot;

    fn needs(&self, needs: &mut Needs) {
        needs.ride(&self.ride);
    }

    fn judge(&self, ledger: &mut Ledger) -> Result<RideSnapshot> {
        let snapshot = ledger.ride(&self.ride)?;
        snapshot.admit(&self.caller)?;
        step(ledger, snapshot.ride.clone(), Status::Cancelled, &self.caller, self.reason.as_deref())
    }
}

/// Takes a ride a step on.
#[derive(Debug)]
pub struct SetStatus {
    /// Who: its driver, or service.
    pub caller: Caller,
    /// Which.
    pub ride: RideId,
    /// Where to.
    pub status: Status,
}

impl Command for SetStatus {
    type Output = RideSnapshot;

    fn needs(&self, needs: &mut Needs) {
        needs.ride(&self.ride);
    }

    fn judge(&self, ledger: &mut Ledger) -> Result<RideSnapshot> {
        let snapshot = ledger.ride(&self.ride)?;
        let role = snapshot.admit(&self.caller)?.role;
        if !matches!(role, RideRole::Driver | RideRole::System) {
            return Err(Error::Forbidden("only the ride's driver, or the service, may set its status"));
        }
        step(ledger, snapshot.ride.clone(), self.status, &self.caller, None)
    }
}

fn step(ledger: &mut Ledger, mut ride: Ride, to: Status, by: &Caller, reason: Option<&str>) -> Result<RideSnapshot> {
    if ride.advance(to, ledger.now(), ledger.chat_grace())? {
        ledger.change_ride(ride.clone())?;
        announce(ledger, &ride, step_event(to), by, reason)?;
    }
    ledger.answer(&ride.id)
}

fn step_event(status: Status) -> EventType {
    if status == Status::Cancelled { EventType::RideCancel } else { EventType::RideStatus }
}

fn announce(ledger: &mut Ledger, ride: &Ride, event: EventType, by: &Caller, reason: Option<&str>) -> Result<()> {
    let ride_view = ride.view(ride.chat(ledger.now()));
    let data = Changed { ride: ride_view, by: &by.user, reason };
    ledger.append(&ride.id, event, None, |_| data).map(drop)
}

/// Appends the event at which rights begin and end, and lets them.
fn move_people(ledger: &mut Ledger, ride: &Ride, joined: &People, left: &People) -> Result<()> {
    let ride_view = ride.view(ride.chat(ledger.now()));
    let data = ParticipantsChanged { ride: ride_view, joined: people(joined), left: people(left) };
    let seq = ledger.append(&ride.id, EventType::RideParticipants, None, |_| data)?;
    let left: Vec<UserId> = left.iter().map(|(user, _)| user.clone()).collect();
    left.iter().try_for_each(|user| tell_removed(ledger, user, &ride.id, seq))?;
    joined.iter().try_for_each(|(user, _)| tell_assigned(ledger, user, ride, seq))?;
    ledger.change_participants(&ride.id, seq, joined, &left);
    Ok(())
}

fn people(list: &People) -> Vec<Person<'_>> {
    list.iter().map(|(user_id, role)| Person { user_id, role: *role }).collect()
}
