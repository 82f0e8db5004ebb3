//! Driver locations: the cost of an update, of its notification to another replica, and on a replica that has no reader of
//! the ride. Most requests of a busy fleet are location updates.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::ensure;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client::{Client, request};
use crate::replicas::CpuUsage;
use crate::stats::median;
use crate::table::Table;
use crate::testbed::{Ride, Testbed};
use crate::{Parameters, print};

const CLIENTS: usize = 64;
const RIDES: usize = 1_000;

/// The results of one round.
#[derive(Debug, Clone)]
struct LocationResult {
    per_second: f64,
    /// The first server receives the updates, the second one is notified.
    busy: CpuUsage,
}

pub(crate) async fn run(parameters: &Parameters, testbed: &Testbed) -> anyhow::Result<Vec<Table>> {
    let (receiver, notified) = (testbed.server("receiving").await?, testbed.server("notified").await?);
    let address = receiver.address;
    let rides = testbed.rides(&receiver, "positions", RIDES).await?;
    let servers = [receiver, notified];
    let mut rounds = Vec::new();
    for number in 1..=parameters.rounds.min(3) {
        let (accepted, stopped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let mut connection = Client::connect(address).await?;
            let (accepted, stopped) = (Arc::clone(&accepted), Arc::clone(&stopped));
            let requests: Vec<_> = rides.iter().skip(client).step_by(CLIENTS).map(location_request).collect();
            clients.spawn(async move {
                for request in requests.iter().cycle() {
                    if stopped.load(Ordering::Relaxed) {
                        break;
                    }
                    let status = connection.exchange(request).await?;
                    ensure!(status == 202, "a location got {status}");
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        sleep(parameters.warmup).await;
        let (from, before, first) =
            (Instant::now(), CpuUsage::now(testbed, &servers)?, accepted.load(Ordering::Relaxed));
        sleep(parameters.duration).await;
        let seconds = from.elapsed().as_secs_f64();
        let busy = CpuUsage::now(testbed, &servers)?.since(&before, seconds);
        let per_second = (accepted.load(Ordering::Relaxed) - first) as f64 / seconds;
        stopped.store(true, Ordering::Relaxed);
        while let Some(client) = clients.join_next().await {
            client??;
        }
        print(&format!("positions {number}: {per_second:.0}/s"));
        rounds.push(LocationResult { per_second, busy });
    }
    for server in servers {
        server.stop().await?;
    }
    Ok(vec![table(&rounds)])
}

/// Returns the request that sends the location of a ride's driver.
pub(crate) fn location_request(ride: &Ride) -> Vec<u8> {
    let body = r#"{"lat":52.520008,"lng":13.404954,"heading":90,"speed":8.3,"accuracy":5}"#;
    request("POST", &format!("/api/v1/rides/{}/location", ride.id), &ride.driver, body)
}

fn table(rounds: &[LocationResult]) -> Table {
    let mut table = Table::new("Driver locations", &["64 clients, two replicas", "Ridewire"]);
    let median_of = |figure: &dyn Fn(&LocationResult) -> f64| median(rounds.iter().map(figure));
    let server = |number: usize| {
        move |accepted: &LocationResult| {
            1e6 * accepted.busy.servers.get(number).copied().unwrap_or(0.0) / accepted.per_second
        }
    };
    table.row(["updates a second".to_owned(), format!("{:.0}", median_of(&|accepted| accepted.per_second))]);
    table.row([
        "CPU per update, of the replica that receives it".to_owned(),
        format!("{:.0} µs", median_of(&server(0))),
    ]);
    table.row([
        "CPU per update, of another replica without readers".to_owned(),
        format!("{:.1} µs", median_of(&server(1))),
    ]);
    let postgres = |accepted: &LocationResult| 1e6 * accepted.busy.postgres / accepted.per_second;
    table.row(["CPU per update, of Postgres".to_owned(), format!("{:.0} µs", median_of(&postgres))]);
    table
}
