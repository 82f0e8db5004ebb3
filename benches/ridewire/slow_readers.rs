//! D. Stalled readers: the effect of 500 of them on 500 others, at a constant 1,000 messages a second.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use crate::client::{MessageRequest, find, request};
use crate::latency::compare_latencies;
use crate::open_loop::{FrameRecorder, INTERVAL, Latency, LatencyRecorder, OpenLoopSenders};
use crate::server::Server;
use crate::streams::Streams;
use crate::table::Table;
use crate::testbed::{Ride, Testbed};
use crate::{Parameters, print, process};

/// Five live and five stalled streams on each ride.
const RIDES: usize = 100;
const STREAMS_PER_RIDE: usize = 5;

/// Long messages fill the sockets soon.
const CONTENT_LENGTH: usize = 3_500;

/// The TCP segment size of a network, in bytes.
const SEGMENT: u32 = 1_400;

/// The time until the sockets are full: the kernel buffers about 100 kB per socket, at 35 kB a second.
const FILL_TIME: Duration = Duration::from_secs(9);

/// The results of one round: without and with stalled readers.
#[derive(Debug, Clone, Copy)]
struct Round {
    alone: Measurement,
    with_stalled: Measurement,
}

#[derive(Debug, Clone, Copy)]
struct Measurement {
    latency: Latency,
    /// Resident MB of the server after the measurement.
    memory: f64,
}

pub(crate) async fn run(parameters: &Parameters, testbed: &Testbed) -> anyhow::Result<Vec<Table>> {
    // The write timeout must not close the stalled streams during the measurement.
    let server = testbed.server_with("slow", &[("RIDEWIRE_WRITE_TIMEOUT", "10m")]).await?;
    let rides = testbed.rides(&server, "slow", RIDES).await?;
    let mut rounds = Vec::new();
    let mut base = 0;
    for number in 1..=parameters.rounds {
        let alone = measure(parameters, parameters.warmup, &server, &rides, &mut base).await?;
        let open_stalled = open_stalled(server.address, &rides).await?;
        // Until their sockets are full, the stalled readers cost as much as others.
        let with_stalled = measure(parameters, FILL_TIME, &server, &rides, &mut base).await?;
        drop(open_stalled);
        print(&format!(
            "slow {number}: p99 of a second {:.2} ms alone, {:.2} ms with 500 stalled readers; {:.0} and {:.0} MB",
            alone.latency.p99_of_a_second, with_stalled.latency.p99_of_a_second, alone.memory, with_stalled.memory
        ));
        rounds.push(Round { alone, with_stalled });
        // The server notices the closed connections and releases their resources.
        sleep(Duration::from_secs(1)).await;
    }
    server.stop().await?;
    Ok(vec![table(&rounds)])
}

fn table(rounds: &[Round]) -> Table {
    let header = ["500 streams at 1,000 messages/s of 3.5 kB", "with 500 stalled readers", "alone", "ratio", "target"];
    let mut table = Table::new("Stalled readers", &header);
    let megabytes = |figure: f64| format!("{figure:.2} MB");
    let memory = (|round: &Round| round.with_stalled.memory, |round: &Round| round.alone.memory);
    let target = ["", "≤ 1.2 ×"];
    compare_latencies(
        &mut table,
        "POST to frame",
        rounds,
        (|round| &round.with_stalled.latency, |round| &round.alone.latency),
        target,
    );
    table.ratio_row("memory of the server", rounds, (memory.0, memory.1), megabytes, "");
    table
}

/// Opens streams with small receive windows and reads only up to their `stream:sync`.
async fn open_stalled(address: SocketAddr, rides: &[Ride]) -> anyhow::Result<Vec<TcpStream>> {
    let mut open_stalled = Vec::new();
    for ride in rides.iter().flat_map(|ride| std::iter::repeat_n(ride, STREAMS_PER_RIDE)) {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4 * 1024)?;
        // As on a network. With the loopback's segments of 64 kB, the kernel would choose larger send buffers.
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
        open_stalled.push(socket);
    }
    Ok(open_stalled)
}

async fn measure(
    parameters: &Parameters,
    warmup: Duration,
    server: &Server,
    rides: &[Ride],
    base: &mut u64,
) -> anyhow::Result<Measurement> {
    let duration = warmup + parameters.duration;
    let messages = u64::try_from(duration.as_millis())?;
    let from = *base;
    let frames = FrameRecorder::new(from);
    // The latency is recorded by one reader of each ride.
    let _watched =
        Streams::open(server, rides.iter().map(|ride| (&*ride.id, &*ride.driver)), frames.on_frame()).await?;
    let others = rides.iter().flat_map(|ride| std::iter::repeat_n((&*ride.id, &*ride.driver), STREAMS_PER_RIDE - 1));
    let _others = Streams::open(server, others, |_, _| {}).await?;
    let content = "all the way round. ".repeat(CONTENT_LENGTH / 19);
    let senders = OpenLoopSenders::connect(
        server,
        rides,
        |ride| MessageRequest::with_content(&content, &ride.id, &ride.rider),
        from,
    )
    .await?;
    let schedule = LatencyRecorder::new(warmup, INTERVAL)?;
    frames.begin(&schedule);
    senders.send(&schedule, messages).await?;
    *base += messages;
    let latency = schedule.result(messages, 1).await.context("the live readers")?;
    Ok(Measurement { latency, memory: process::resident_memory(server.pid)? / 1024.0 })
}
