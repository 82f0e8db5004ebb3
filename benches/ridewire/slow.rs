//! D. Readers that do not read: what 500 of them cost 500 others, at a steady 1,000 messages a second.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use crate::client::{Post, find, number_in, request};
use crate::latency::{Clock, EVERY, Latency, Senders, compare};
use crate::platform::{Platform, Ride};
use crate::server::Server;
use crate::streams::Streams;
use crate::table::Table;
use crate::{Plan, process, say};

/// Five live streams on each, and five that are stuck.
const RIDES: usize = 100;
const EACH: usize = 5;

/// Long, so that sockets fill soon.
const WORDS: usize = 3_500;

/// Of a network, in bytes.
const SEGMENT: u32 = 1_400;

/// How long that takes: the kernel holds some 100 kB for each, at 35 kB a second.
const FILLING: Duration = Duration::from_secs(9);

/// One round: alone, and with the stuck ones beside.
#[derive(Debug, Clone, Copy)]
struct Round {
    alone: Side,
    beside: Side,
}

#[derive(Debug, Clone, Copy)]
struct Side {
    latency: Latency,
    /// Resident MB of the server when it was measured.
    memory: f64,
}

pub(crate) async fn run(plan: &Plan, platform: &Platform) -> anyhow::Result<Vec<Table>> {
    // Cut off after all of it is measured, not before.
    let server = platform.server_with("slow", &[("RIDEWIRE_WRITE_TIMEOUT", "10m")]).await?;
    let rides = platform.rides(&server, "slow", RIDES).await?;
    let mut rounds = Vec::new();
    let mut base = 0;
    for number in 1..=plan.rounds {
        let alone = measure(plan, plan.warm, &server, &rides, &mut base).await?;
        let stuck = stuck(server.address, &rides).await?;
        // As long as it takes until their sockets are full: until then they are readers like others.
        let beside = measure(plan, FILLING, &server, &rides, &mut base).await?;
        drop(stuck);
        say(&format!(
            "slow {number}: p99 of a second {:.2} ms alone, {:.2} ms beside 500 that do not read; {:.0} and {:.0} MB",
            alone.latency.p99_of_a_second, beside.latency.p99_of_a_second, alone.memory, beside.memory
        ));
        rounds.push(Round { alone, beside });
        // The server notices, and lets go of them.
        sleep(Duration::from_secs(1)).await;
    }
    server.stop().await?;
    Ok(vec![table(&rounds)])
}

fn table(rounds: &[Round]) -> Table {
    let header =
        ["500 streams at 1,000 messages/s of 3.5 kB", "beside 500 that do not read", "alone", "ratio", "wanted"];
    let mut table = Table::new("Readers that do not read", &header);
    let megabytes = |figure: f64| format!("{figure:.2} MB");
    let memory = (|round: &Round| round.beside.memory, |round: &Round| round.alone.memory);
    let wanted = ["", "≤ 1.2 ×"];
    compare(&mut table, "POST to frame", rounds, (|round| &round.beside.latency, |round| &round.alone.latency), wanted);
    table.beside("memory of the server in all", rounds, (memory.0, memory.1), megabytes, "");
    table
}

/// Opens streams with small windows, and reads no further than to their beginning.
async fn stuck(address: SocketAddr, rides: &[Ride]) -> anyhow::Result<Vec<TcpStream>> {
    let mut stuck = Vec::new();
    for ride in rides.iter().flat_map(|ride| std::iter::repeat_n(ride, EACH)) {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4 * 1024)?;
        // As on a network: by the loopback's segments of 64 kB the server's kernel would size its buffers.
        SockRef::from(&socket).set_tcp_mss(SEGMENT)?;
        let mut socket = socket.connect(address).await?;
        let path = format!("/api/v1/messages/rides/{}/events?types=message:new", ride.id);
        socket.write_all(&request("GET", &path, &ride.rider, "")).await?;
        let mut read = Vec::new();
        while find(&read, b"event: stream:sync").is_none() {
            if socket.read_buf(&mut read).await? == 0 {
                bail!("a stream ended before it began");
            }
        }
        stuck.push(socket);
    }
    Ok(stuck)
}

async fn measure(plan: &Plan, warm: Duration, server: &Server, rides: &[Ride], base: &mut u64) -> anyhow::Result<Side> {
    let span = warm + plan.span;
    let messages = u64::try_from(span.as_millis())?;
    let clock: Arc<Mutex<Option<Clock>>> = Arc::default();
    let from = *base;
    let on_event = {
        let clock = Arc::clone(&clock);
        move |_: usize, frame: &[u8]| {
            let clock = clock.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Some(clock), Some(number)) = (&*clock, number_in(frame)) {
                clock.read(number - from);
            }
        }
    };
    // One reader of each ride holds the watch; the others are there.
    let _watched = Streams::open(server, rides.iter().map(|ride| (&*ride.id, &*ride.driver)), on_event).await?;
    let others = rides.iter().flat_map(|ride| std::iter::repeat_n((&*ride.id, &*ride.driver), EACH - 1));
    let _others = Streams::open(server, others, |_, _| {}).await?;
    let words = "all the way round. ".repeat(WORDS / 19);
    let senders = Senders::ready(server, rides, |ride| Post::saying(&words, &ride.id, &ride.rider), from).await?;
    let begun = Clock::new(warm, EVERY)?;
    clock.lock().unwrap_or_else(PoisonError::into_inner).replace(begun.clone());
    senders.send(&begun, messages).await?;
    *base += messages;
    let latency = begun.result(messages, 1).await.context("the live streams")?;
    Ok(Side { latency, memory: process::resident(server.pid)? / 1024.0 })
}
