//! C. Memory: what an idle stream costs a server.

use std::time::Duration;

use tokio::time::sleep;

use crate::platform::Platform;
use crate::streams::Streams;
use crate::table::Table;
use crate::{Plan, process, say};

/// Two streams on each.
const RIDES: usize = 4_500;

/// Files that are open besides the streams.
const SPARE: usize = 500;

/// So many streams cost so much.
#[derive(Debug, Clone, Copy)]
struct Idle {
    streams: usize,
    /// Resident kB, of each.
    each: f64,
    /// Resident MB, of the server in all.
    all: f64,
}

pub(crate) async fn run(plan: &Plan, platform: &Platform) -> anyhow::Result<Vec<Table>> {
    // A server that has done nothing else, so the rides are made by another.
    let maker = platform.server("maker").await?;
    let rides = platform.rides(&maker, "memory", RIDES).await?;
    maker.stop().await?;
    let server = platform.server("memory").await?;
    sleep(Duration::from_secs(1)).await;
    let before = process::resident(server.pid)?;
    let mut open = Vec::new();
    let mut count = 0;
    let mut figures = Vec::new();
    for wanted in &plan.idle {
        let wanted = (*wanted).min(plan.files.saturating_sub(SPARE));
        let people = rides.iter().flat_map(|ride| [(&*ride.id, &*ride.rider), (&*ride.id, &*ride.driver)]);
        let more = people.skip(count).take(wanted - count);
        open.push(Streams::open(server.address, more, |_| {}).await?);
        count = wanted;
        sleep(Duration::from_secs(2)).await;
        let all = process::resident(server.pid)?;
        let idle = Idle { streams: count, each: (all - before) / count as f64, all: all / 1024.0 };
        say(&format!("memory: {:.1} kB for each of {} idle streams", idle.each, idle.streams));
        figures.push(idle);
    }
    drop(open);
    server.stop().await?;
    let mut table = Table::new("Memory of an idle stream", &["resident", "each", "the server in all"]);
    for idle in figures {
        table.row([format!("{} streams", idle.streams), format!("{:.1} kB", idle.each), format!("{:.0} MB", idle.all)]);
    }
    Ok(vec![table])
}
