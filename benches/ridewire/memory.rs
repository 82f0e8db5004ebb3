//! C. Memory: what an idle stream costs a server, ours and the peers'.

use std::time::Duration;

use tokio::time::sleep;

use crate::compared::{Compared, Comparison};
use crate::platform::Platform;
use crate::plot::{Bar, Plot};
use crate::server::Kind;
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
    // A server that has done nothing else, so our rides are made by another.
    let maker = platform.server("maker").await?;
    platform.rides(&maker, "memory", RIDES).await?;
    maker.stop().await?;
    let mut steps: Vec<Vec<(Kind, Idle)>> = vec![Vec::new(); plan.idle.len()];
    for kind in Kind::ALL {
        for (step, idle) in steps.iter_mut().zip(measure(plan, platform, kind).await?) {
            step.push((kind, idle));
        }
    }
    let mut tables = Vec::new();
    for step in steps {
        let step = [Compared::of(step)?];
        let [Compared { ours: Idle { streams, .. }, .. }] = step;
        let title = format!("Memory of {streams} idle streams");
        let mut memory = Comparison::new(&title, "resident", &step, &Kind::PEERS);
        memory.row("each", |idle| idle.each, |each| format!("{each:.1} kB"), "≤ 1 × nchan, aim ¼");
        memory.row("the server in all", |idle| idle.all, |all| format!("{all:.0} MB"), "");
        // Of the last step, which is the largest.
        if tables.len() + 1 == plan.idle.len() {
            memory.table.plot(Plot::new("memory", "Resident memory of an idle stream", "kB").with([
                Bar::ours("Ridewire", memory.middle(Kind::Ridewire, |idle| idle.each)),
                Bar::peer("nchan", memory.middle(Kind::Nchan, |idle| idle.each)),
                Bar::peer("Express + better-sse", memory.middle(Kind::Express, |idle| idle.each)),
            ]));
        }
        tables.push(memory.table);
    }
    Ok(tables)
}

/// One server, at each number of streams; nothing where it is not installed.
async fn measure(plan: &Plan, platform: &Platform, kind: Kind) -> anyhow::Result<Vec<Idle>> {
    let Some(server) = platform.serve(kind, "memory").await? else { return Ok(Vec::new()) };
    let rides = match kind {
        Kind::Ridewire => platform.people("memory", RIDES)?,
        _ => platform.rides(&server, "memory", RIDES).await?,
    };
    sleep(Duration::from_secs(1)).await;
    let before = process::resident(server.pid)?;
    let mut open = Vec::new();
    let mut count = 0;
    let mut figures = Vec::new();
    for wanted in &plan.idle {
        let wanted = (*wanted).min(plan.files.saturating_sub(SPARE));
        let people = rides.iter().flat_map(|ride| [(&*ride.id, &*ride.rider), (&*ride.id, &*ride.driver)]);
        let more = people.skip(count).take(wanted - count);
        open.push(Streams::open(&server, more, |_, _| {}).await?);
        count = wanted;
        sleep(Duration::from_secs(2)).await;
        let all = process::resident(server.pid)?;
        let idle = Idle { streams: count, each: (all - before) / count as f64, all: all / 1024.0 };
        say(&format!("memory: {}: {:.1} kB for each of {} idle streams", kind.name(), idle.each, idle.streams));
        figures.push(idle);
    }
    drop(open);
    server.stop().await?;
    Ok(figures)
}
