//! The simulated ride of the console. It advances while at least one stream or poll is open, and pauses otherwise.
//!
//! The simulation calls the same code as requests do, as users whose tokens the console may have. The console's user can act as
//! these users as well. If such an action conflicts with the script, for example by ending the ride, the next ride begins.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::time::sleep;

use super::route::{Leg, Route};
use super::script::{self, Line, Sender};
use super::{caller, signer};
use crate::config::Settings;
use crate::domain::{Caller, Content, Review, RideId, Role, Status, UserId};
use crate::http::{Api, DemoUsers, LocationUpdate, WebhookReceiver, update_location, update_typing};
use crate::writer::{AcceptRide, CancelRide, PutRide, SendMessage, SetStatus};

/// The time between two locations.
const TICK: Duration = Duration::from_secs(1);

/// How often a paused ride checks for open streams and polls.
const IDLE_POLL: Duration = Duration::from_millis(250);

/// The time from a ride that failed to the next ride.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// The driver's speed in metres per second: 50 km/h.
const SPEED: f64 = 13.9;

/// The seconds of typing before each message.
const TYPING_SECONDS: u32 = 3;

/// The seconds until the driver accepts the ride.
const REQUESTED_SECONDS: u32 = 3;

/// The seconds that the driver waits at the pickup.
const ARRIVED_SECONDS: u32 = 11;

/// The seconds from the end of a ride to the next one.
const COMPLETED_SECONDS: u32 = 14;

const RIDER: &str = "lena";
const DRIVER: &str = "amir";
const SUPPORT: &str = "sam";
const PLATFORM: &str = "demo";

/// Runs the simulated rides, and publishes the id of the current one.
#[derive(Debug)]
pub(crate) struct Demo {
    ride: watch::Sender<Option<RideId>>,
    receiver: Option<Arc<WebhookReceiver>>,
}

impl Demo {
    /// Creates a demo. Its console receives webhooks at the address `receiver`, if there is one.
    pub(crate) fn new(receiver: Option<SocketAddr>) -> Self {
        let receiver = receiver.map(|address| Arc::new(WebhookReceiver::at(address)));
        Self { ride: watch::Sender::default(), receiver }
    }

    /// Returns the demo's users, for whom the console can get tokens; `None` if there is no secret to sign tokens with.
    pub(crate) fn users(&self, settings: &Settings) -> Option<DemoUsers> {
        let users = [(Role::Rider, RIDER), (Role::Driver, DRIVER), (Role::Support, SUPPORT), (Role::Service, PLATFORM)];
        let users = users.into_iter().map(|(role, user)| Some((role, UserId::parse(user).ok()?)));
        let (users, signer) = (users.collect::<Option<_>>()?, signer(settings).ok()?);
        Some(DemoUsers { users, signer, ride: self.ride.subscribe(), receiver: self.receiver.clone() })
    }

    /// Simulates one ride after another. Never returns.
    pub(crate) async fn run(self, api: Arc<Api>) {
        let mut number = 1;
        let mut is_prepared = false;
        loop {
            let outcome = async {
                if !is_prepared {
                    if let Some(receiver) = &self.receiver {
                        receiver.register(&api).await?;
                    }
                    cancel_leftover_rides(&api, &mut number).await?;
                    is_prepared = true;
                }
                self.create_ride(&api, &mut number).await?.run().await
            };
            if let Err(error) = outcome.await {
                tracing::debug!(%error, "demo ride failed");
                sleep(RETRY_DELAY).await;
            }
        }
    }

    /// Creates a ride with the first id that does not exist yet. Other replicas and earlier runs may have created some.
    async fn create_ride(&self, api: &Arc<Api>, number: &mut u32) -> anyhow::Result<Ride> {
        let demo_user = |user: &str, role| anyhow::Ok(caller(UserId::parse(user)?, role));
        let (rider, driver) = (demo_user(RIDER, Role::Rider)?, demo_user(DRIVER, Role::Driver)?);
        loop {
            let id = RideId::parse(&format!("demo_{number}"))?;
            if api.shards.of_ride(&id).store.snapshot(&id).await?.is_none() {
                let (service, ride, user) = (demo_user(PLATFORM, Role::Service)?, id.clone(), rider.user.clone());
                let put =
                    PutRide { caller: service, ride, rider: Some(user), driver: None, status: None, chat_policy: None };
                let (_, is_new) = api.shards.of_ride(&put.ride).writer.submit(put).await?;
                if is_new {
                    self.ride.send_replace(Some(id.clone()));
                    let route = Route::load().context("web/route.json")?;
                    return Ok(Ride { api: Arc::clone(api), id, rider, driver, route });
                }
            }
            *number += 1;
        }
    }
}

/// Cancels the rides that an earlier run left unfinished, since no simulation advances them any more.
///
/// Called once, at the start. It also cancels the ride of another replica's demo, which then begins its next ride. If it ran
/// repeatedly, two replicas would cancel each other's rides forever.
async fn cancel_leftover_rides(api: &Api, number: &mut u32) -> anyhow::Result<()> {
    loop {
        let id = RideId::parse(&format!("demo_{number}"))?;
        let Some(snapshot) = api.shards.of_ride(&id).store.snapshot(&id).await? else { return Ok(()) };
        if snapshot.ride.rider.as_str() == RIDER && !snapshot.ride.status.is_ended() {
            let platform = caller(UserId::parse(PLATFORM)?, Role::Service);
            let reason = Some("The demo was stopped".to_owned());
            api.shards.of_ride(&id).writer.submit(CancelRide { caller: platform, ride: id, reason }).await?;
        }
        *number += 1;
    }
}

/// One simulated ride.
struct Ride {
    api: Arc<Api>,
    id: RideId,
    rider: Caller,
    driver: Caller,
    route: Route,
}

impl Ride {
    async fn run(&self) -> anyhow::Result<()> {
        let Route { approach, trip } = &self.route;
        self.play(REQUESTED_SECONDS, None, &[]).await?;
        self.api
            .shards
            .of_ride(&self.id)
            .writer
            .submit(AcceptRide { caller: self.driver.clone(), ride: self.id.clone() })
            .await?;
        self.play(seconds(approach), Some(approach), script::APPROACH).await?;
        self.set_status(Status::Arrived).await?;
        self.play(ARRIVED_SECONDS, None, script::PICKUP).await?;
        self.set_status(Status::InProgress).await?;
        self.play(seconds(trip), Some(trip), script::TRIP).await?;
        self.set_status(Status::Completed).await?;
        self.play(COMPLETED_SECONDS, None, script::AFTERWARDS).await
    }

    async fn set_status(&self, status: Status) -> anyhow::Result<()> {
        let caller = self.driver.clone();
        self.api.shards.of_ride(&self.id).writer.submit(SetStatus { caller, ride: self.id.clone(), status }).await?;
        Ok(())
    }

    /// Plays a phase of the ride: the driver moves along `leg`, and each line is sent at its second. Pauses while no stream or
    /// poll is open.
    async fn play(&self, seconds: u32, leg: Option<&Leg>, lines: &[Line]) -> anyhow::Result<()> {
        for second in 0..=seconds {
            while self.api.admission.open() == 0 {
                sleep(IDLE_POLL).await;
            }
            if let Some((coordinates, heading)) = leg.and_then(|leg| leg.at(f64::from(second) * SPEED)) {
                let (heading, speed, accuracy) = (Some(heading), Some(SPEED), Some(5.0));
                let update = LocationUpdate { coordinates, heading, speed, accuracy, at: None };
                update_location(&self.api, &self.driver, self.id.clone(), update).await?;
            }
            for line in lines {
                if line.second == second + TYPING_SECONDS {
                    update_typing(&self.api, self.sender(line), &self.id, true).await?;
                }
                if line.second == second {
                    self.send(line).await?;
                }
            }
            sleep(TICK).await;
        }
        Ok(())
    }

    async fn send(&self, line: &Line) -> anyhow::Result<()> {
        let content = Content::parse(line.text.to_owned()).map_err(anyhow::Error::msg)?;
        let (caller, ride) = (self.sender(line).clone(), self.id.clone());
        let review = Review::NotNeeded;
        let content_hash = self.api.shards.of_ride(&self.id).writer.content_hash(&content, None);
        let message =
            SendMessage { caller, ride, content, metadata: None, client_message_id: None, content_hash, review };
        self.api.shards.of_ride(&self.id).writer.submit(message).await?;
        update_typing(&self.api, self.sender(line), &self.id, false).await?;
        Ok(())
    }

    fn sender(&self, line: &Line) -> &Caller {
        match line.sender {
            Sender::Rider => &self.rider,
            Sender::Driver => &self.driver,
        }
    }
}

/// Returns the duration of a leg in seconds.
fn seconds(leg: &Leg) -> u32 {
    (leg.length() / SPEED).ceil() as u32
}
