//! The demo: a ride to try requests on with commands to paste, and a simulated ride that the console shows.

mod route;
mod script;
mod simulation;

use std::fmt::Write;
use std::time::Duration;

use anyhow::Context;

pub(crate) use self::simulation::Demo;
use crate::auth::Signer;
use crate::config::{Console, Settings};
use crate::domain::{Caller, Chat, RideId, Role, Time, UserId};
use crate::http::Api;
use crate::keys;
use crate::writer::PutRide;

/// How long the printed tokens are valid.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Creates a ride with an open chat, and returns the commands to try on it.
pub(crate) async fn lines(settings: &Settings, address: &str, api: &Api) -> anyhow::Result<String> {
    let ride = open_ride(api).await?;
    let signer = signer(settings)?;
    let token = |user: &str, role| anyhow::Ok(signer.sign(&UserId::parse(user)?, role, TTL)?);
    let (rider, driver) = (token("rider_1", Role::Rider)?, token("driver_1", Role::Driver)?);
    let base = format!("{address}/api/v1");
    let mut lines = String::from("\n");
    if settings.console != Some(Console::Off) {
        // The console is on the admin listener, if there is one.
        let console = settings
            .addresses
            .admin_listen
            .as_ref()
            .map_or_else(|| address.to_owned(), |admin| format!("http://{admin}"));
        writeln!(lines, "Console with a simulated ride: {console}/")?;
        writeln!(lines, "API reference, to try every call: {console}/docs\n")?;
    }
    writeln!(lines, "With curl: stream a ride as its driver, in another terminal:\n")?;
    writeln!(lines, "  curl -N {base}/messages/rides/{ride}/events -H 'Authorization: Bearer {driver}'\n")?;
    writeln!(lines, "Send a message as its rider, in a third terminal:\n")?;
    writeln!(
        lines,
        "  curl -X POST {base}/messages -H 'Authorization: Bearer {rider}' \\\n    \
         -d '{{\"rideId\": \"{ride}\", \"content\": \"Hello\"}}'\n"
    )?;
    writeln!(lines, "List the ride's messages:\n")?;
    writeln!(lines, "  curl {base}/messages/rides/{ride} -H 'Authorization: Bearer {rider}'\n")?;
    writeln!(lines, "OpenAPI description: {address}/openapi.yaml. Ctrl-C stops the server.")?;
    Ok(lines)
}

fn signer(settings: &Settings) -> anyhow::Result<Signer> {
    Ok(keys::signer(&settings.keys, &settings.database)?.0)
}

fn caller(user: UserId, role: Role) -> Caller {
    Caller { user, role, issued_at: None, key: None, expires_at: Time::now().plus(TTL) }
}

/// Returns `ride_123`, or the first ride after it with an open chat. Creates the ride if it does not exist.
async fn open_ride(api: &Api) -> anyhow::Result<RideId> {
    let service = caller(UserId::parse("demo")?, Role::Service);
    for number in 123..1_000 {
        let ride = RideId::parse(&format!("ride_{number}"))?;
        let put = PutRide {
            caller: service.clone(),
            ride: ride.clone(),
            rider: Some(UserId::parse("rider_1")?),
            driver: None,
            status: None,
            chat_policy: None,
        };
        let (snapshot, is_new) = api.shards.of_ride(&put.ride).writer.submit(put).await?;
        if is_new {
            let driver = Some(Some(UserId::parse("driver_1")?));
            let (caller, rider) = (service.clone(), snapshot.ride.rider);
            let put =
                PutRide { caller, ride: ride.clone(), rider: Some(rider), driver, status: None, chat_policy: None };
            api.shards.of_ride(&put.ride).writer.submit(put).await?;
            return Ok(ride);
        }
        let has_driver = snapshot.ride.driver.as_ref().is_some_and(|driver| driver.as_str() == "driver_1");
        if has_driver && snapshot.ride.chat(snapshot.read_at) == Chat::Open {
            return Ok(ride);
        }
    }
    None.context("the chats of all rides from ride_123 to ride_999 are closed")
}
