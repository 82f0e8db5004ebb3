//! M. Moderation: the latency of sends that a hook checks for 50 ms, compared to sends without a hook.
//!
//! The load is open-loop at 1,000 messages a second, so about 50 requests to the hook are open at any time. The hook is part of this
//! process and allows every message.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::latency::{compare_latencies, prepare};
use crate::open_loop::Latency;
use crate::server::Server;
use crate::table::Table;
use crate::testbed::{Ride, Testbed};
use crate::{Parameters, print};

const RIDES: usize = 100;

/// Signs the requests to the hook.
const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// How long the hook takes.
const HOOK_TIME: Duration = Duration::from_millis(50);

/// Each sender waits for its response, which takes longer than [`HOOK_TIME`].
const SENDERS: usize = 100;

/// The latencies of one round.
#[derive(Debug, Clone, Copy)]
struct Round {
    checked: Latency,
    unchecked: Latency,
}

pub(crate) async fn run(parameters: &Parameters, testbed: &Testbed) -> anyhow::Result<Vec<Table>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let _hook = AbortOnDropHandle::new(tokio::spawn(serve_hook(listener)));
    let settings = [("RIDEWIRE_MODERATION_URL", url.as_str()), ("RIDEWIRE_MODERATION_SECRET", SECRET)];
    let (moderated, plain) = (testbed.server_with("moderated", &settings).await?, testbed.server("plain").await?);
    let rides = testbed.rides(&plain, "moderation", RIDES).await?;
    let messages = parameters.messages()?;
    let mut rounds = Vec::new();
    for number in 1..=parameters.rounds {
        let base = u64::try_from(number)? * 2_000_000;
        let unchecked = latency(parameters, &plain, &rides, base, messages).await?;
        let checked = latency(parameters, &moderated, &rides, base + 1_000_000, messages).await?;
        print(&format!(
            "moderation {number}, p50 / p99 ms: {:.2} / {:.2} through the hook, {:.2} / {:.2} without",
            checked.p50, checked.p99_of_a_second, unchecked.p50, unchecked.p99_of_a_second
        ));
        rounds.push(Round { checked, unchecked });
    }
    moderated.stop().await?;
    plain.stop().await?;
    let mut table = Table::new(
        "Moderation: a hook of 50 ms at 1,000 messages a second",
        &["POST to frame", "with the hook", "without", "ratio", "target"],
    );
    compare_latencies(
        &mut table,
        "same replica",
        &rounds,
        (|round| &round.checked, |round| &round.unchecked),
        ["", ""],
    );
    Ok(vec![table])
}

async fn serve_hook(listener: TcpListener) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(allow)));
    }
}

async fn allow(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    // The body must be read before the connection can be used again.
    let _ = request.into_body().collect().await;
    sleep(HOOK_TIME).await;
    Ok(Response::new(Full::from(r#"{"action":"allow"}"#)))
}

/// Returns the latencies from POST to the frame on the ride's stream.
async fn latency(
    parameters: &Parameters,
    server: &Server,
    rides: &[Ride],
    base: u64,
    messages: u64,
) -> anyhow::Result<Latency> {
    let (_streams, senders, latencies) = prepare(parameters, server, rides, SENDERS, base).await?;
    senders.send(&latencies, messages).await?;
    latencies.result(messages, 1).await
}
