//! Where drivers are: what it costs to take a position, to tell it to another replica, and to hear of one that nobody
//! there follows. Most of what a busy fleet says is this.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::ensure;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client::{Client, request};
use crate::platform::Platform;
use crate::replicas::Busy;
use crate::stats::median;
use crate::table::Table;
use crate::{Plan, say};

const CLIENTS: usize = 64;
const RIDES: usize = 1_000;

/// One round.
#[derive(Debug, Clone)]
struct Taken {
    per_second: f64,
    /// The first server takes them, the second hears of them.
    busy: Busy,
}

pub(crate) async fn run(plan: &Plan, platform: &Platform) -> anyhow::Result<Vec<Table>> {
    let (taking, hearing) = (platform.server("taking").await?, platform.server("hearing").await?);
    let address = taking.address;
    let rides = platform.rides(&taking, "positions", RIDES).await?;
    let servers = [taking, hearing];
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds.min(3) {
        let (taken, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let mut connection = Client::connect(address).await?;
            let (taken, ends) = (Arc::clone(&taken), Arc::clone(&ends));
            let mine = rides.iter().skip(client).step_by(CLIENTS).map(|ride| {
                let body = r#"{"lat":52.520008,"lng":13.404954,"heading":90,"speed":8.3,"accuracy":5}"#;
                request("POST", &format!("/api/v1/rides/{}/location", ride.id), &ride.driver, body)
            });
            let mine: Vec<_> = mine.collect();
            clients.spawn(async move {
                for request in mine.iter().cycle() {
                    if ends.load(Ordering::Relaxed) {
                        break;
                    }
                    let status = connection.exchange(request).await?;
                    ensure!(status == 202, "a position was answered {status}");
                    taken.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        sleep(plan.warm).await;
        let (from, before, first) = (Instant::now(), Busy::now(platform, &servers)?, taken.load(Ordering::Relaxed));
        sleep(plan.span).await;
        let seconds = from.elapsed().as_secs_f64();
        let busy = Busy::now(platform, &servers)?.since(&before, seconds);
        let per_second = (taken.load(Ordering::Relaxed) - first) as f64 / seconds;
        ends.store(true, Ordering::Relaxed);
        while let Some(client) = clients.join_next().await {
            client??;
        }
        say(&format!("positions {number}: {per_second:.0}/s"));
        rounds.push(Taken { per_second, busy });
    }
    for server in servers {
        server.stop().await?;
    }
    Ok(vec![table(&rounds)])
}

fn table(rounds: &[Taken]) -> Table {
    let mut table = Table::new("Positions of drivers", &["64 clients, two replicas", "Ridewire"]);
    let middle = |figure: &dyn Fn(&Taken) -> f64| median(rounds.iter().map(figure));
    let server = |number: usize| {
        move |taken: &Taken| 1e6 * taken.busy.servers.get(number).copied().unwrap_or(0.0) / taken.per_second
    };
    table.row(["taken a second".to_owned(), format!("{:.0}", middle(&|taken| taken.per_second))]);
    table.row(["CPU of one, of the replica that takes it".to_owned(), format!("{:.0} µs", middle(&server(0)))]);
    table.row([
        "CPU of one, of a replica that hears of it and has nobody to tell".to_owned(),
        format!("{:.1} µs", middle(&server(1))),
    ]);
    let postgres = |taken: &Taken| 1e6 * taken.busy.postgres / taken.per_second;
    table.row(["CPU of one, of Postgres".to_owned(), format!("{:.0} µs", middle(&postgres))]);
    table
}
