//! What the length of the log costs: pages of the history and unread counts on a log of ten thousand messages and on one
//! of ten million, and the plans of all statements on both.

mod calls;
mod fill;
mod plans;

use anyhow::Context;
use hdrhistogram::Histogram;
use ridewire::domain::Role;
use tokio::time::Instant;

use self::fill::{CROWD_RIDES, filled};
use crate::client::{Client, request};
use crate::platform::Platform;
use crate::server::Server;
use crate::stats::median;
use crate::table::Table;
use crate::{Plan, say};

/// Rides of a crowd from this number on have 51 messages or more.
const LONG: usize = 480;

/// A database of one size, with a server on it.
struct Log {
    crowds: usize,
    platform: Platform,
    server: Server,
}

/// What one request took, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Took {
    p50: f64,
    p99: f64,
}

/// A request that is measured: who asks what, the `turn`th time, of so many crowds.
struct Asked {
    what: &'static str,
    of: fn(crowds: usize, turn: usize) -> (String, String),
    wanted: &'static str,
}

const FLAT: &str = "≤ 1.5 ×";

const ASKED: [Asked; 7] = [
    Asked {
        what: "newest page of 50",
        of: |crowds, turn| {
            let ride = long(crowds, turn);
            (driver(ride), format!("/api/v1/messages/rides/{}?limit=50", name(ride)))
        },
        wanted: FLAT,
    },
    Asked {
        what: "page of 50 before a place",
        of: |crowds, turn| {
            let ride = long(crowds, turn);
            (driver(ride), format!("/api/v1/messages/rides/{}?limit=50&before=155", name(ride)))
        },
        wanted: FLAT,
    },
    Asked {
        what: "unread count of one ride",
        of: |crowds, turn| {
            let ride = any(crowds, turn);
            (driver(ride), format!("/api/v1/messages/rides/{}/unread-count", name(ride)))
        },
        wanted: FLAT,
    },
    Asked {
        what: "unread counts of all ten rides of a rider",
        of: |crowds, turn| (rider(crowds, turn), "/api/v1/messages/unread-count".to_owned()),
        wanted: FLAT,
    },
    Asked {
        what: "list of all ten rides of a rider",
        of: |crowds, turn| (rider(crowds, turn), "/api/v1/rides?limit=50".to_owned()),
        wanted: FLAT,
    },
    Asked {
        what: "poll, 100 events behind",
        of: |crowds, turn| {
            let ride = (crowds - 1) * CROWD_RIDES + LONG + turn % (CROWD_RIDES - LONG);
            (driver(ride), format!("/api/v1/messages/rides/{}/poll?after=50&wait=0", name(ride)))
        },
        wanted: FLAT,
    },
    Asked {
        what: "unread counts of all rides of a driver: one in each crowd",
        of: |_, turn| (driver(turn), "/api/v1/messages/unread-count".to_owned()),
        wanted: "",
    },
];

/// A number that does not follow the one before, so that no two requests in a row touch the same pages.
fn any(crowds: usize, turn: usize) -> usize {
    turn * 7_919 % (crowds * CROWD_RIDES)
}

fn long(crowds: usize, turn: usize) -> usize {
    turn * 7_919 % crowds * CROWD_RIDES + LONG + turn % (CROWD_RIDES - LONG)
}

fn name(ride: usize) -> String {
    format!("ride_{ride:07}")
}

fn driver(ride: usize) -> String {
    format!("driver_{}", ride % CROWD_RIDES)
}

fn rider(crowds: usize, turn: usize) -> String {
    format!("rider_{}", turn * 7_919 % (crowds * 50))
}

pub(crate) async fn run(plan: &Plan, _: &Platform) -> anyhow::Result<Vec<Table>> {
    let sizes = if plan.quick { [1, 10] } else { [1, 1_000] };
    let (small, large) = (Log::open(sizes[0]).await?, Log::open(sizes[1]).await?);
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds.min(3) {
        let mut round = Vec::new();
        for asked in &ASKED {
            // They take turns.
            round.push((small.ask(plan, asked).await?, large.ask(plan, asked).await?));
        }
        say(&format!(
            "history {number}: {}",
            round.iter().map(|(_, large)| format!("{:.2} ", large.p50)).collect::<String>()
        ));
        rounds.push(round);
    }
    let table = table(&small, &large, &rounds);
    let plans = plans::table(&small.platform, &large.platform, sizes).await?;
    if !plan.quick {
        plans.write()?;
    }
    small.close().await?;
    large.close().await?;
    Ok(vec![table, plans.summary()])
}

fn table(small: &Log, large: &Log, rounds: &[Vec<(Took, Took)>]) -> Table {
    let (few, many) = (small.size(), large.size());
    let header = [
        "asked one after the other, ms",
        &format!("{few}: p50 / p99"),
        &format!("{many}: p50 / p99"),
        "ratio of p50",
        "wanted",
    ];
    let mut table = Table::new("History, as the log grows", &header);
    for (number, asked) in ASKED.iter().enumerate() {
        let of =
            |figure: fn(&(Took, Took)) -> f64| median(rounds.iter().filter_map(|round| round.get(number)).map(figure));
        table.row([
            asked.what.to_owned(),
            format!("{:.2} / {:.2}", of(|(few, _)| few.p50), of(|(few, _)| few.p99)),
            format!("{:.2} / {:.2}", of(|(_, many)| many.p50), of(|(_, many)| many.p99)),
            format!("{:.2} ×", of(|(few, many)| many.p50 / few.p50)),
            asked.wanted.to_owned(),
        ]);
    }
    table
}

impl Log {
    async fn open(crowds: usize) -> anyhow::Result<Self> {
        let platform = filled(crowds).await?;
        // Nothing is to be taken away meanwhile.
        let forever = [("RIDEWIRE_LOG_RETENTION", "1000d"), ("RIDEWIRE_MESSAGE_RETENTION", "1000d")];
        let server = platform.server_with("history", &forever).await?;
        Ok(Self { crowds, platform, server })
    }

    fn size(&self) -> String {
        fill::size(self.crowds)
    }

    /// Asks for as long as is measured, one request after the other.
    async fn ask(&self, plan: &Plan, asked: &Asked) -> anyhow::Result<Took> {
        let mut client = Client::connect(self.server.address).await?;
        let mut seen = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
        let begun = Instant::now();
        let span = plan.span / 4;
        // The first half fills the caches that any server in use has.
        let counted_from = begun + span;
        for turn in 0.. {
            let (user, path) = (asked.of)(self.crowds, turn);
            let token =
                self.platform.token(&user, if user.starts_with("rider") { Role::Rider } else { Role::Driver })?;
            let request = request("GET", &path, &token, "");
            let sent = Instant::now();
            if sent > counted_from + span {
                break;
            }
            let status = client.exchange(&request).await.context(asked.what)?;
            anyhow::ensure!(status == 200, "{path} was answered {status}");
            if sent >= counted_from {
                seen.saturating_record(u64::try_from(sent.elapsed().as_micros())?);
            }
        }
        let millis = |quantile| seen.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Took { p50: millis(0.5), p99: millis(0.99) })
    }

    async fn close(self) -> anyhow::Result<()> {
        self.server.stop().await?;
        self.platform.stop().await
    }
}
