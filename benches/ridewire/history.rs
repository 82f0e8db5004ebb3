//! Query cost by log size: history pages and unread counts on logs of ten thousand and of ten million messages, and the
//! plans of all statements on both. A cohort is 500 concurrent rides with 10,000 messages (`history/fill.rs`).

mod arguments;
mod fill;
mod plans;

use anyhow::Context;
use hdrhistogram::Histogram;
use ridewire::domain::Role;
use tokio::time::Instant;

use self::fill::{COHORT_RIDES, fill_database};
use crate::client::{Client, request};
use crate::server::Server;
use crate::stats::median;
use crate::table::Table;
use crate::testbed::Testbed;
use crate::{Parameters, print};

/// The number, in its cohort, of the first ride with at least 51 messages, which are 153 events.
const FIRST_LONG_RIDE: usize = 480;

/// A database of one size with a server on it.
struct FilledDatabase {
    cohorts: usize,
    testbed: Testbed,
    server: Server,
}

/// Percentiles of the response time in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Percentiles {
    p50: f64,
    p99: f64,
}

/// A measured request. `request_for` returns the user and the path for an iteration.
struct Query {
    label: &'static str,
    request_for: fn(cohorts: usize, iteration: usize) -> (String, String),
}

/// The target of the ratio, as the table shows it.
const MAX_GROWTH_TEXT: &str = "≤ 1.5 ×";

const QUERIES: [Query; 7] = [
    Query {
        label: "newest page of 50",
        request_for: |cohorts, iteration| {
            let ride = long_ride(cohorts, iteration);
            (driver(ride), format!("/api/v1/messages/rides/{}?limit=50", name(ride)))
        },
    },
    Query {
        label: "page of 50 before a seq",
        request_for: |cohorts, iteration| {
            let ride = long_ride(cohorts, iteration);
            (driver(ride), format!("/api/v1/messages/rides/{}?limit=50&before=155", name(ride)))
        },
    },
    Query {
        label: "unread count of one ride",
        request_for: |cohorts, iteration| {
            let ride = scattered_ride(cohorts, iteration);
            (driver(ride), format!("/api/v1/messages/rides/{}/unread-count", name(ride)))
        },
    },
    Query {
        label: "unread counts of all ten rides of a rider",
        request_for: |cohorts, iteration| (rider(cohorts, iteration), "/api/v1/messages/unread-count".to_owned()),
    },
    Query {
        label: "list of all ten rides of a rider",
        request_for: |cohorts, iteration| (rider(cohorts, iteration), "/api/v1/rides?limit=50".to_owned()),
    },
    Query {
        label: "poll, 100 events behind",
        request_for: |cohorts, iteration| {
            let ride = (cohorts - 1) * COHORT_RIDES + FIRST_LONG_RIDE + iteration % (COHORT_RIDES - FIRST_LONG_RIDE);
            (driver(ride), format!("/api/v1/messages/rides/{}/poll?after=50&wait=0", name(ride)))
        },
    },
    Query {
        label: "unread counts of all rides of a driver: one in each cohort",
        request_for: |_, iteration| (driver(iteration), "/api/v1/messages/unread-count".to_owned()),
    },
];

/// Returns a ride number. Consecutive ones are far apart (7,919 is a prime), so consecutive requests use different pages of the table on
/// disk.
fn scattered_ride(cohorts: usize, iteration: usize) -> usize {
    iteration * 7_919 % (cohorts * COHORT_RIDES)
}

/// Returns the number of a ride with at least 51 messages.
fn long_ride(cohorts: usize, iteration: usize) -> usize {
    iteration * 7_919 % cohorts * COHORT_RIDES + FIRST_LONG_RIDE + iteration % (COHORT_RIDES - FIRST_LONG_RIDE)
}

fn name(ride: usize) -> String {
    format!("ride_{ride:07}")
}

fn driver(ride: usize) -> String {
    format!("driver_{}", ride % COHORT_RIDES)
}

fn rider(cohorts: usize, iteration: usize) -> String {
    format!("rider_{}", iteration * 7_919 % (cohorts * 50))
}

pub(crate) async fn run(parameters: &Parameters, _: &Testbed) -> anyhow::Result<Vec<Table>> {
    let sizes = if parameters.quick { [1, 10] } else { [1, 1_000] };
    let (small, large) = (FilledDatabase::open(sizes[0]).await?, FilledDatabase::open(sizes[1]).await?);
    let mut rounds = Vec::new();
    for number in 1..=parameters.rounds.min(3) {
        let mut round = Vec::new();
        for query in &QUERIES {
            // The two sizes alternate.
            round.push((small.measure(parameters, query).await?, large.measure(parameters, query).await?));
        }
        print(&format!(
            "history {number}: {}",
            round.iter().map(|(_, large)| format!("{:.2} ", large.p50)).collect::<String>()
        ));
        rounds.push(round);
    }
    let table = table(&small, &large, &rounds);
    let plans = plans::table(&small.testbed, &large.testbed, sizes).await?;
    if !parameters.quick {
        plans.write()?;
    }
    small.close().await?;
    large.close().await?;
    Ok(vec![table, plans.summary()])
}

fn table(small: &FilledDatabase, large: &FilledDatabase, rounds: &[Vec<(Percentiles, Percentiles)>]) -> Table {
    let (few, many) = (small.size(), large.size());
    let header = [
        "sequential requests, ms",
        &format!("{few}: p50 / p99"),
        &format!("{many}: p50 / p99"),
        "ratio of p50",
        "target",
    ];
    let mut table = Table::new("History, as the log grows", &header);
    for (number, query) in QUERIES.iter().enumerate() {
        let of = |figure: fn(&(Percentiles, Percentiles)) -> f64| {
            median(rounds.iter().filter_map(|round| round.get(number)).map(figure))
        };
        table.row([
            query.label.to_owned(),
            format!("{:.2} / {:.2}", of(|(few, _)| few.p50), of(|(few, _)| few.p99)),
            format!("{:.2} / {:.2}", of(|(_, many)| many.p50), of(|(_, many)| many.p99)),
            format!("{:.2} ×", of(|(few, many)| many.p50 / few.p50)),
            MAX_GROWTH_TEXT.to_owned(),
        ]);
    }
    table
}

impl FilledDatabase {
    async fn open(cohorts: usize) -> anyhow::Result<Self> {
        let testbed = fill_database(cohorts).await?;
        // Retention must delete nothing during the run.
        let retention = [("RIDEWIRE_LOG_RETENTION", "1000d"), ("RIDEWIRE_MESSAGE_RETENTION", "1000d")];
        let server = testbed.server_with("history", &retention).await?;
        Ok(Self { cohorts, testbed, server })
    }

    fn size(&self) -> String {
        fill::size(self.cohorts)
    }

    /// Sends requests one after the other, for half of the configured duration.
    async fn measure(&self, parameters: &Parameters, query: &Query) -> anyhow::Result<Percentiles> {
        let mut client = Client::connect(self.server.address).await?;
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
        let start = Instant::now();
        let duration = parameters.duration / 4;
        // The first half warms up the caches.
        let counted_from = start + duration;
        for iteration in 0.. {
            let (user, path) = (query.request_for)(self.cohorts, iteration);
            let token =
                self.testbed.token(&user, if user.starts_with("rider") { Role::Rider } else { Role::Driver })?;
            let request = request("GET", &path, &token, "");
            let sent = Instant::now();
            if sent > counted_from + duration {
                break;
            }
            let status = client.exchange(&request).await.context(query.label)?;
            anyhow::ensure!(status == 200, "{path} got {status}");
            if sent >= counted_from {
                histogram.saturating_record(u64::try_from(sent.elapsed().as_micros())?);
            }
        }
        let millis = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Percentiles { p50: millis(0.5), p99: millis(0.99) })
    }

    async fn close(self) -> anyhow::Result<()> {
        self.server.stop().await?;
        self.testbed.stop().await
    }
}
