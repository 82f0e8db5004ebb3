//! C. Memory per idle stream, of Ridewire and its peers.

use std::time::Duration;

use tokio::time::sleep;

use crate::comparison::{Comparison, PerServer};
use crate::plot::{Bar, Plot};
use crate::server::ServerKind;
use crate::streams::Streams;
use crate::table::Table;
use crate::testbed::{Testbed, participants};
use crate::{Parameters, print, process};

/// Two streams on each ride.
const RIDES: usize = 4_500;

/// Open files other than streams.
const RESERVED_FILES: usize = 500;

/// The memory of this many streams.
#[derive(Debug, Clone, Copy)]
struct Idle {
    streams: usize,
    /// Resident kB per stream.
    each: f64,
    /// Resident MB of the whole server.
    all: f64,
}

pub(crate) async fn run(parameters: &Parameters, testbed: &Testbed) -> anyhow::Result<Vec<Table>> {
    // The measured server has done nothing else, so another one creates the rides.
    let setup = testbed.server("setup").await?;
    testbed.rides(&setup, "memory", RIDES).await?;
    setup.stop().await?;
    let mut steps: Vec<Vec<(ServerKind, Idle)>> = vec![Vec::new(); parameters.idle.len()];
    for kind in ServerKind::ALL {
        for (step, idle) in steps.iter_mut().zip(measure(parameters, testbed, kind).await?) {
            step.push((kind, idle));
        }
    }
    let mut tables = Vec::new();
    for step in steps {
        let step = [PerServer::of(step)?];
        let [PerServer { ours: Idle { streams, .. }, .. }] = step;
        let title = format!("Memory of {streams} idle streams");
        let mut memory = Comparison::new(&title, "resident memory", &step, &ServerKind::PEERS);
        memory.row("per stream", |idle| idle.each, |each| format!("{each:.1} kB"), "≤ 1 × nchan, aim ¼");
        memory.row("whole server", |idle| idle.all, |all| format!("{all:.0} MB"), "");
        // The plot shows the last step, which is the largest.
        if tables.len() + 1 == parameters.idle.len() {
            memory.table.plot(Plot::new("memory", "Resident memory of an idle stream", "kB").with([
                Bar::ours("Ridewire", memory.median_of(ServerKind::Ridewire, |idle| idle.each)),
                Bar::peer("nchan", memory.median_of(ServerKind::Nchan, |idle| idle.each)),
                Bar::peer("Express + better-sse", memory.median_of(ServerKind::Express, |idle| idle.each)),
            ]));
        }
        tables.push(memory.table);
    }
    Ok(tables)
}

/// Measures one server at each number of streams. Returns nothing if it is not installed.
async fn measure(parameters: &Parameters, testbed: &Testbed, kind: ServerKind) -> anyhow::Result<Vec<Idle>> {
    let Some(server) = testbed.serve(kind, "memory").await? else { return Ok(Vec::new()) };
    let rides = match kind {
        ServerKind::Ridewire => testbed.ride_list("memory", RIDES)?,
        _ => testbed.rides(&server, "memory", RIDES).await?,
    };
    sleep(Duration::from_secs(1)).await;
    let before = process::resident_memory(server.pid)?;
    let mut open = Vec::new();
    let mut count = 0;
    let mut figures = Vec::new();
    for target in &parameters.idle {
        let target = (*target).min(parameters.file_limit.saturating_sub(RESERVED_FILES));
        let more = participants(&rides).skip(count).take(target - count);
        open.push(Streams::open(&server, more, |_, _| {}).await?);
        count = target;
        sleep(Duration::from_secs(2)).await;
        let all = process::resident_memory(server.pid)?;
        let idle = Idle { streams: count, each: (all - before) / count as f64, all: all / 1024.0 };
        print(&format!("memory: {}: {:.1} kB per stream of {} idle streams", kind.name(), idle.each, idle.streams));
        figures.push(idle);
    }
    drop(open);
    server.stop().await?;
    Ok(figures)
}
