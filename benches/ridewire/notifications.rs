//! The notifications of driver locations on many replicas: their bytes and CPU. Each ride has a reader on one replica, and its driver
//! sends to another one. The CPU of the same replicas without locations is subtracted.
//!
//! Two modes alternate. In the usual one, a location goes only to the replicas that follow its ride. In the other one it goes to all
//! replicas, as long as the database has the lease of a replica of an earlier version. The benchmark adds and removes such a lease.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::client::{Client, request_with};
use crate::locations::location_request;
use crate::replicas::{CpuUsage, measure_cpu, stop};
use crate::server::Server;
use crate::stats::median;
use crate::streams::{MAX_OPENING, Streams};
use crate::table::Table;
use crate::testbed::{Ride, Testbed};
use crate::{Parameters, print};

const REPLICAS: [usize; 4] = [2, 5, 10, 20];
const RIDES: usize = 2_000;

/// Locations per second, and the clients that send them.
const RATE: usize = 500;
const CLIENTS: usize = 20;

/// Few connections for each replica: all of them share one Postgres. The fallback poll is rare, so that notifications are measured.
const SETTINGS: [(&str, &str); 2] = [("RIDEWIRE_DATABASE_CONNECTIONS", "3"), ("RIDEWIRE_FALLBACK_POLL", "1m")];

/// The lease of a replica that has no channel.
const EARLIER_REPLICA: &str = "'00000000-0000-0000-0000-000000000001'";

/// To which replicas a location goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    All,
    Followers,
}

/// The results of one measurement, per location.
#[derive(Debug, Clone, Copy)]
struct PerLocation {
    /// The notified bytes of one server.
    bytes: f64,
    /// CPU microseconds of one server, and of Postgres.
    server: f64,
    postgres: f64,
}

pub(crate) async fn run(parameters: &Parameters, testbed: &Testbed) -> anyhow::Result<Vec<Table>> {
    let rides = if parameters.quick { 100 } else { RIDES };
    let setup = testbed.server("setup").await?;
    let rides = testbed.rides(&setup, "notified", rides).await?;
    setup.stop().await?;
    let database = testbed.connect().await?;
    let mut rows = Vec::new();
    for count in REPLICAS {
        let mut servers = Vec::new();
        for number in 1..=count {
            servers.push(testbed.server_with(&format!("notified-{number}"), &SETTINGS).await?);
        }
        let mut streams = Vec::new();
        for (number, server) in servers.iter().enumerate() {
            let of_server = rides.iter().skip(number).step_by(count).map(stream_request);
            streams.push(Streams::open_requests(server, of_server, MAX_OPENING, |_, _| {}).await?);
        }
        // The presence of the readers is written.
        sleep(parameters.duration).await;
        let idle = measure_cpu(testbed, &servers, 2 * parameters.duration).await?;
        let mut rounds = Vec::new();
        for _ in 0..parameters.rounds.min(3) {
            let mut round = Vec::new();
            for mode in [Mode::All, Mode::Followers] {
                let change = match mode {
                    Mode::All => format!(
                        "insert into replicas (replica, expires_at) values ({EARLIER_REPLICA}, now() + interval '1 hour')"
                    ),
                    Mode::Followers => format!("delete from replicas where replica = {EARLIER_REPLICA}"),
                };
                ensure!(database.execute(&change, &[]).await? == 1, "one lease");
                round.push(measure(parameters, testbed, &servers, &rides, &idle).await?);
            }
            rounds.push(round);
        }
        drop(streams);
        stop(servers).await?;
        let of = |mode: Mode, figure: fn(&PerLocation) -> f64| {
            median(rounds.iter().filter_map(|round| round.get(mode as usize)).map(figure))
        };
        let both = |figure| (of(Mode::All, figure), of(Mode::Followers, figure));
        let [bytes, server, postgres] = [both(|one| one.bytes), both(|one| one.server), both(|one| one.postgres)];
        print(&format!(
            "notifications: {count} replicas, to all and to followers: {:.0} and {:.0} B, {:.1} and {:.1} µs of each server",
            bytes.0, bytes.1, server.0, server.1
        ));
        rows.push((count, bytes, server, postgres));
    }
    Ok(vec![table(&rows)])
}

/// Returns the request for a stream of locations.
fn stream_request(ride: &Ride) -> Vec<u8> {
    let path = format!("/api/v1/messages/rides/{}/events?types=ride:location", ride.id);
    request_with("GET", &path, &ride.rider, "Accept: text/event-stream\r\n", "")
}

/// Sends locations at a constant rate, each driver's to the server after the one with the ride's reader.
async fn measure(
    parameters: &Parameters,
    testbed: &Testbed,
    servers: &[Server],
    rides: &[Ride],
    idle: &CpuUsage,
) -> anyhow::Result<PerLocation> {
    let mut clients = JoinSet::new();
    let period = Duration::from_secs_f64(CLIENTS as f64 / RATE as f64);
    let end = Instant::now() + parameters.warmup + parameters.duration + Duration::from_millis(200);
    for number in 0..CLIENTS {
        let server = servers.get((number + 1) % servers.len()).context("a server")?;
        let mut connection = Client::connect(server.address).await?;
        let requests: Vec<_> = rides.iter().skip(number).step_by(CLIENTS).map(location_request).collect();
        clients.spawn(async move {
            let mut due = interval(period);
            due.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for request in requests.iter().cycle() {
                if Instant::now() > end {
                    break;
                }
                due.tick().await;
                let status = connection.exchange(request).await?;
                ensure!(status == 202, "a location got {status}");
            }
            Ok(())
        });
    }
    sleep(parameters.warmup).await;
    let (from, before, bytes) =
        (Instant::now(), CpuUsage::now(testbed, servers)?, received_bytes(testbed, servers).await?);
    sleep(parameters.duration).await;
    let seconds = from.elapsed().as_secs_f64();
    let busy = CpuUsage::now(testbed, servers)?.since(&before, seconds);
    let bytes = received_bytes(testbed, servers).await? - bytes;
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let (each, rate) = (servers.len() as f64, RATE as f64);
    let of_servers = |usage: &CpuUsage| usage.servers.iter().sum::<f64>();
    Ok(PerLocation {
        bytes: bytes / seconds / rate / each,
        server: 1e6 * (of_servers(&busy) - of_servers(idle)) / rate / each,
        postgres: 1e6 * (busy.postgres - idle.postgres) / rate,
    })
}

/// Returns the bytes of the notifications that all servers have received.
async fn received_bytes(testbed: &Testbed, servers: &[Server]) -> anyhow::Result<f64> {
    let mut bytes = 0.0;
    for server in servers {
        bytes += testbed.metric(server, "ridewire_listener_received_bytes_total ").await?;
    }
    Ok(bytes)
}

/// A number of replicas, and each figure in both modes.
type Row = (usize, (f64, f64), (f64, f64), (f64, f64));

fn table(rows: &[Row]) -> Table {
    let header = ["replicas; to all → to followers", "bytes to each server", "CPU of each server", "CPU of Postgres"];
    let mut table = Table::new("Notifications of a location", &header);
    for (count, bytes, server, postgres) in rows {
        table.row([
            count.to_string(),
            format!("{:.0} → {:.0}", bytes.0, bytes.1),
            format!("{:.1} → {:.1} µs", server.0, server.1),
            format!("{:.0} → {:.0} µs", postgres.0, postgres.1),
        ]);
    }
    table
}
