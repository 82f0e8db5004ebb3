//! A ride that is driven for the console: it moves while somebody looks, and rests while nobody does.
//!
//! All that happens on it is done as requests do it, by people whose tokens the console may have. Those who use them
//! take part; where they are ahead of the script, or end the ride, the next one begins.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::time::sleep;

use super::route::{Leg, Route};
use super::script::{self, Line, Who};
use super::{caller, signer};
use crate::config::Settings;
use crate::domain::{Caller, Content, Review, RideId, Role, Status, UserId};
use crate::http::{Api, DemoPeople, Fix, Receiver, locate, say_typing};
use crate::writer::{AcceptRide, CancelRide, PutRide, SendMessage, SetStatus};

/// Between two positions.
const TICK: Duration = Duration::from_secs(1);

/// How often it is looked whether somebody looks.
const GLANCE: Duration = Duration::from_millis(250);

/// After a ride that could not go on.
const PAUSE: Duration = Duration::from_secs(5);

/// Metres a second: fifty kilometres an hour.
const SPEED: f64 = 13.9;

/// For how many seconds somebody types.
const TYPES: u32 = 3;

/// For how many seconds a ride is on offer, the driver waits, and what was last said can be read.
const OFFERED: u32 = 3;
const WAITS: u32 = 11;
const LINGERS: u32 = 14;

const RIDER: &str = "lena";
const DRIVER: &str = "amir";
const SUPPORT: &str = "sam";
const PLATFORM: &str = "demo";

/// Drives, and says which ride.
#[derive(Debug)]
pub(crate) struct Demo {
    ride: watch::Sender<Option<RideId>>,
    receiver: Option<Arc<Receiver>>,
}

impl Demo {
    /// A demo whose console receives webhooks at this address, if at all.
    pub(crate) fn new(receiver: Option<SocketAddr>) -> Self {
        let receiver = receiver.map(|address| Arc::new(Receiver::at(address)));
        Self { ride: watch::Sender::default(), receiver }
    }

    /// Its people as the console may speak for them; nobody, where there is no secret to sign with.
    pub(crate) fn people(&self, settings: &Settings) -> Option<DemoPeople> {
        let people =
            [(Role::Rider, RIDER), (Role::Driver, DRIVER), (Role::Support, SUPPORT), (Role::Service, PLATFORM)];
        let people = people.into_iter().map(|(role, user)| Some((role, UserId::parse(user).ok()?)));
        let (people, signer) = (people.collect::<Option<_>>()?, signer(settings).ok()?);
        Some(DemoPeople { people, signer, ride: self.ride.subscribe(), receiver: self.receiver.clone() })
    }

    /// Drives one ride after the other, for ever.
    pub(crate) async fn run(self, api: Arc<Api>) {
        let mut number = 1;
        let mut has_ended_others = false;
        loop {
            let driven = async {
                if !has_ended_others {
                    if let Some(receiver) = &self.receiver {
                        receiver.register(&api).await?;
                    }
                    end_left_over(&api, &mut number).await?;
                    has_ended_others = true;
                }
                self.next(&api, &mut number).await?.drive().await
            };
            if let Err(error) = driven.await {
                tracing::debug!(%error, "the demo's ride did not go on");
                sleep(PAUSE).await;
            }
        }
    }

    /// Makes a ride that nobody else has made, nor an earlier run.
    async fn next(&self, api: &Arc<Api>, number: &mut u32) -> anyhow::Result<Ride> {
        let person = |user: &str, role| anyhow::Ok(caller(UserId::parse(user)?, role));
        let (rider, driver) = (person(RIDER, Role::Rider)?, person(DRIVER, Role::Driver)?);
        loop {
            let id = RideId::parse(&format!("demo_{number}"))?;
            if api.store.snapshot(&id).await?.is_none() {
                let (service, ride, user) = (person(PLATFORM, Role::Service)?, id.clone(), rider.user.clone());
                let put =
                    PutRide { caller: service, ride, rider: Some(user), driver: None, status: None, chat_policy: None };
                let (_, is_new) = api.writer.submit(put).await?;
                if is_new {
                    self.ride.send_replace(Some(id.clone()));
                    let route = Route::of_the_map().context("web/route.json")?;
                    return Ok(Ride { api: Arc::clone(api), id, rider, driver, route });
                }
            }
            *number += 1;
        }
    }
}

/// Cancels the ride that an earlier run was stopped in: nobody drives it any more. Done once, at the start, since another
/// replica's demo goes on to its next ride then, and the two would cancel each other's for ever.
async fn end_left_over(api: &Api, number: &mut u32) -> anyhow::Result<()> {
    loop {
        let id = RideId::parse(&format!("demo_{number}"))?;
        let Some(known) = api.store.snapshot(&id).await? else { return Ok(()) };
        if known.ride.rider.as_str() == RIDER && !known.ride.status.is_ended() {
            let platform = caller(UserId::parse(PLATFORM)?, Role::Service);
            let reason = Some("The demo was stopped".to_owned());
            api.writer.submit(CancelRide { caller: platform, ride: id, reason }).await?;
        }
        *number += 1;
    }
}

/// One ride that is driven.
struct Ride {
    api: Arc<Api>,
    id: RideId,
    rider: Caller,
    driver: Caller,
    route: Route,
}

impl Ride {
    async fn drive(&self) -> anyhow::Result<()> {
        let Route { approach, trip } = &self.route;
        self.pass(OFFERED, None, &[]).await?;
        self.api.writer.submit(AcceptRide { caller: self.driver.clone(), ride: self.id.clone() }).await?;
        self.pass(seconds(approach), Some(approach), script::APPROACH).await?;
        self.enter(Status::Arrived).await?;
        self.pass(WAITS, None, script::PICKUP).await?;
        self.enter(Status::InProgress).await?;
        self.pass(seconds(trip), Some(trip), script::TRIP).await?;
        self.enter(Status::Completed).await?;
        self.pass(LINGERS, None, script::AFTERWARDS).await
    }

    async fn enter(&self, status: Status) -> anyhow::Result<()> {
        let caller = self.driver.clone();
        self.api.writer.submit(SetStatus { caller, ride: self.id.clone(), status }).await?;
        Ok(())
    }

    /// Has time pass, as long as somebody looks: the driver moves along, and what is due is said.
    async fn pass(&self, seconds: u32, leg: Option<&Leg>, lines: &[Line]) -> anyhow::Result<()> {
        for second in 0..=seconds {
            while self.api.admission.open() == 0 {
                sleep(GLANCE).await;
            }
            if let Some((position, heading)) = leg.and_then(|leg| leg.at(f64::from(second) * SPEED)) {
                let (heading, speed, accuracy) = (Some(heading), Some(SPEED), Some(5.0));
                let fix = Fix { position, heading, speed, accuracy, at: None };
                locate(&self.api, &self.driver, self.id.clone(), fix).await?;
            }
            for line in lines {
                if line.second == second + TYPES {
                    say_typing(&self.api, self.who(line), &self.id, true).await?;
                }
                if line.second == second {
                    self.say(line).await?;
                }
            }
            sleep(TICK).await;
        }
        Ok(())
    }

    async fn say(&self, line: &Line) -> anyhow::Result<()> {
        let content = Content::parse(line.text.to_owned()).map_err(anyhow::Error::msg)?;
        let (caller, ride) = (self.who(line).clone(), self.id.clone());
        let review = Review::NotNeeded;
        let content_hash = self.api.writer.content_hash(&content, None);
        let message =
            SendMessage { caller, ride, content, metadata: None, client_message_id: None, content_hash, review };
        self.api.writer.submit(message).await?;
        say_typing(&self.api, self.who(line), &self.id, false).await?;
        Ok(())
    }

    fn who(&self, line: &Line) -> &Caller {
        match line.who {
            Who::Rider => &self.rider,
            Who::Driver => &self.driver,
        }
    }
}

/// How long a leg takes.
fn seconds(leg: &Leg) -> u32 {
    (leg.length() / SPEED).ceil() as u32
}
