//! The memory limit under hostile load of every kind, beside well-behaved streams. The server's resident memory stays below
//! the limit, every rejection is counted, and the well-behaved clients are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::wire::{Target, frames, get, header_block, http2, post};
use crate::support::{Certificate, Database, Server, TIMEOUT, eventually};
use crate::{is_soak, limit_heavy_tests, size};

/// The value of `RIDEWIRE_MEMORY`, as text and in bytes.
const LIMIT: (&str, usize) = ("256MiB", 256 << 20);

/// The ride of the hostile clients.
const RIDE: &str = "hostile";

/// The results of requests.
#[derive(Debug, Default)]
struct Outcomes {
    rejected: AtomicUsize,
    cut: AtomicUsize,
    done: AtomicUsize,
}

impl Outcomes {
    fn record(&self, status: std::io::Result<u16>) {
        let count = match status {
            Ok(429 | 503) => &self.rejected,
            Ok(_) => &self.done,
            Err(_) => &self.cut,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns the highest resident memory of a process until `stop`.
async fn watch(pid: u32, stop: CancellationToken) -> usize {
    let (mut peak, mut pace) = (0, interval(Duration::from_millis(50)));
    while stop.run_until_cancelled(pace.tick()).await.is_some() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let kilobytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        peak = peak.max(kilobytes * 1024);
    }
    peak
}

/// Returns the 99th percentile in milliseconds.
fn p99(mut latencies: Vec<Duration>) -> f64 {
    latencies.sort_unstable();
    latencies[latencies.len() * 99 / 100].as_secs_f64() * 1e3
}

/// Well-behaved streams, one on each ride.
struct Streams {
    count: usize,
    reading: JoinSet<()>,
    latencies: Arc<std::sync::Mutex<Vec<Duration>>>,
}

impl Streams {
    /// Opens the streams and reads each up to its `stream:sync`.
    #[allow(clippy::async_yields_async, reason = "the streams are read only once all of them are open")]
    async fn open(target: &Target, server: &Server, count: usize) -> Self {
        let latencies: Arc<std::sync::Mutex<Vec<Duration>>> = Arc::default();
        let mut opening = JoinSet::new();
        for number in 0..count {
            let (target, latencies) = (target.clone(), Arc::clone(&latencies));
            let driver = server.driver(&format!("driver_{number}")).token;
            opening.spawn(async move {
                let mut stream = target.connect(None).await.unwrap();
                let path = format!("messages/rides/good_{number}/events");
                target.write(&mut stream, &get(&path, &driver)).await.unwrap();
                let mut rest = Vec::new();
                frames(&mut stream, &mut rest, |frame| !frame.contains("event: stream:sync")).await;
                async move {
                    frames(&mut stream, &mut rest, |frame| {
                        // The content is the time at which the message was due.
                        if let Some((_, sent)) = frame.split_once("\"content\":\"at ")
                            && let Some((sent, _)) = sent.split_once('"')
                        {
                            let sent = Duration::from_micros(sent.parse().unwrap());
                            latencies.lock().unwrap().push(target.began.elapsed().saturating_sub(sent));
                        }
                        true
                    })
                    .await;
                }
            });
        }
        let mut reading = JoinSet::new();
        for stream in opening.join_all().await {
            reading.spawn(stream);
        }
        Self { count, reading, latencies }
    }

    /// Sends this many messages at a constant rate and waits until all have arrived. Returns their latencies.
    async fn load(&self, target: &Target, server: &Server, messages: usize, outcomes: &Arc<Outcomes>) -> Vec<Duration> {
        self.latencies.lock().unwrap().clear();
        let (senders, rate) = (size(8, 40), size(50, 1_000));
        let mut sending = JoinSet::new();
        for sender in 0..senders {
            let (target, outcomes, rides) = (target.clone(), Arc::clone(outcomes), self.count);
            let tokens: Vec<_> = (0..rides).map(|ride| server.rider(&format!("rider_{ride}")).token).collect();
            sending.spawn(async move {
                let every = Duration::from_secs(1) * u32::try_from(senders).unwrap() / u32::try_from(rate).unwrap();
                let mut due = interval(every);
                due.set_missed_tick_behavior(MissedTickBehavior::Burst);
                let mut connection = target.connect(None).await.unwrap();
                for number in 0..messages / senders {
                    let at = due.tick().await.into_std().saturating_duration_since(target.began);
                    let ride = (number * senders + sender) % rides;
                    let name = format!("m-{sender}-{}-{number}", at.as_micros());
                    let body = json!({
                        "rideId": format!("good_{ride}"),
                        "content": format!("at {}", at.as_micros()),
                        "clientMessageId": name,
                    });
                    // Like an app, retry until the message is stored.
                    loop {
                        let request = post("messages", &tokens[ride], &body.to_string());
                        let status = target.exchange(&mut connection, &request).await;
                        match status {
                            Ok(200 | 201) => break,
                            Ok(429 | 503) => sleep(Duration::from_millis(50)).await,
                            Ok(other) => panic!("{other}"),
                            Err(_) => connection = target.connect(None).await.unwrap(),
                        }
                        outcomes.record(status);
                    }
                }
            });
        }
        sending.join_all().await;
        let all = messages / senders * senders;
        eventually("all messages have arrived", async || (self.latencies.lock().unwrap().len() >= all).then_some(()))
            .await;
        self.latencies.lock().unwrap().clone()
    }
}

/// Requests large responses again and again without reading them.
async fn read_nothing(target: Target, path: &'static str, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Ok(mut connection) = target.connect(None).await {
            let requests = get(path, &target.driver).repeat(40);
            // Blocks once the server stops reading.
            let _ = timeout(Duration::from_secs(3), target.write(&mut connection, &requests)).await;
            let _ = timeout(Duration::from_secs(4), stop.cancelled()).await;
        }
    }
}

/// The same over HTTP/2, with many requests at once and a window of 0.
async fn close_windows(target: Target, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Ok(mut connection) = target.connect(Some("h2")).await {
            let block = header_block(&format!("/api/v1/messages/rides/{RIDE}?limit=200"), &target.driver);
            let _ = timeout(Duration::from_secs(3), target.write(&mut connection, &http2(&block, 40))).await;
            let _ = timeout(Duration::from_secs(4), stop.cancelled()).await;
        }
    }
}

/// Sends a body that never completes.
async fn send_slowly(target: Target, outcomes: Arc<Outcomes>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let Ok(mut connection) = target.connect(None).await else { continue };
        let token = &target.rider;
        let head = format!(
            "POST /api/v1/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: 60000\r\n\r\n"
        );
        let begun = target.write(&mut connection, &(head + &"x".repeat(30_000))).await;
        let mut pace = interval(Duration::from_millis(200));
        let mut writing = begun.is_ok();
        while writing && stop.run_until_cancelled(pace.tick()).await.is_some() {
            writing = target.write(&mut connection, " ").await.is_ok();
        }
        if !writing {
            outcomes.cut.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Repeats a request on one connection as fast as it is answered.
async fn flood(target: Target, request: impl Fn(usize) -> String, outcomes: Arc<Outcomes>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let Ok(mut connection) = target.connect(None).await else { continue };
        for number in 0.. {
            if stop.is_cancelled() {
                return;
            }
            let message = request(number);
            let Ok(status) = timeout(TIMEOUT, target.exchange(&mut connection, &message)).await else { return };
            let is_closed = status.is_err();
            outcomes.record(status);
            if is_closed {
                break;
            }
        }
    }
}

/// Starts every kind of hostile client until `stop`.
fn attack(target: &Target, message: &str, outcomes: &Arc<Outcomes>, stop: &CancellationToken) -> JoinSet<()> {
    let mut attackers = JoinSet::new();
    let many = size(8, 30);
    for _ in 0..many {
        for path in [
            "messages/rides/hostile/poll?after=0&wait=0",
            "poll?after=0&wait=0",
            "messages/rides/hostile?limit=200",
            "rides?limit=200",
            "messages/rides/hostile/events?after=0",
            "events?after=0",
        ] {
            attackers.spawn(read_nothing(target.clone(), path, stop.clone()));
        }
        attackers.spawn(close_windows(target.clone(), stop.clone()));
        for _ in 0..4 {
            attackers.spawn(send_slowly(target.clone(), Arc::clone(outcomes), stop.clone()));
        }
    }
    // A newline is escaped in JSON, so the body is twice as large.
    let large = |end: char| "\\n".repeat(16 * 1024 - 1) + &end.to_string();
    for client in 0..4 {
        let (token, path) = (target.rider.clone(), format!("messages/{message}"));
        let contents = ['a', 'b'].map(|end| format!("{{\"content\":\"{}\"}}", large(end)));
        let edit = move |number: usize| post(&path, &token, &contents[number % 2]).replacen("POST", "PATCH", 1);
        attackers.spawn(flood(target.clone(), edit, Arc::clone(outcomes), stop.clone()));
        let (token, content) = (target.driver.clone(), large('c'));
        let send =
            move |_: usize| post("messages", &token, &format!("{{\"rideId\":\"{RIDE}\",\"content\":\"{content}\"}}"));
        attackers.spawn(flood(target.clone(), send, Arc::clone(outcomes), stop.clone()));
        let users: Vec<_> = (0..1_000).map(|user| format!("user_{client}_{user}")).collect();
        let body = json!({ "userIds": users, "data": { "text": "x".repeat(8_000) } }).to_string();
        let token = target.service.clone();
        for _ in 0..3 {
            let (token, body) = (token.clone(), body.clone());
            let broadcast = move |_: usize| post("broadcasts", &token, &body);
            attackers.spawn(flood(target.clone(), broadcast, Arc::clone(outcomes), stop.clone()));
        }
    }
    attackers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resident_memory_stays_below_the_limit_under_hostile_load_and_other_clients_are_served() {
    let _permit = limit_heavy_tests().await;
    let database = Database::create().await;
    let certificate = Certificate::new();
    let settings = [
        &certificate.settings()[..],
        &[("RIDEWIRE_MEMORY", LIMIT.0), ("RIDEWIRE_SENDS_PER_SECOND", "200"), ("RIDEWIRE_STREAMS_PER_USER", "100000")],
    ]
    .concat();
    let server = Server::start_with(&database, &settings).await;
    let target = Target::new(&server, &certificate.path("ca.pem"));
    let service = server.service().token;
    let make = async |ride: &str, rider: &str, driver: &str| {
        let body = json!({ "riderId": rider, "driverId": driver }).to_string();
        let request = post(&format!("rides/{ride}"), &service, &body).replacen("POST", "PUT", 1);
        assert_eq!(target.execute(&request).await.0, 201);
    };
    make(RIDE, "hostile_rider", "hostile_driver").await;
    for number in 0..60 {
        make(&format!("other_{number}"), "hostile_rider", "hostile_driver").await;
    }
    let content = "\\n".repeat(16 * 1024 - 1) + "x";
    let mut message = String::new();
    for _ in 0..12 {
        let body = format!("{{\"rideId\":\"{RIDE}\",\"content\":\"{content}\"}}");
        let (status, text) = target.execute(&post("messages", &target.rider, &body)).await;
        assert_eq!(status, 201);
        let sent: serde_json::Value = serde_json::from_str(&text).unwrap();
        message = sent["id"].as_str().unwrap().to_owned();
    }
    let streams = size(40, 500);
    for number in 0..streams {
        make(&format!("good_{number}"), &format!("rider_{number}"), &format!("driver_{number}")).await;
    }
    let mut good = Streams::open(&target, &server, streams).await;

    let (alone, beside) = (size(200, 60_000), size(200, 300_000));
    let outcomes = Arc::new(Outcomes::default());
    let p99_alone = p99(good.load(&target, &server, alone, &outcomes).await);
    assert_eq!(outcomes.rejected.load(Ordering::Relaxed), 0, "no request is rejected without hostile load");

    let before = target.metrics().await;
    let stop = CancellationToken::new();
    let watching = tokio::spawn(watch(server.pid(), stop.clone()));
    let attackers = attack(&target, &message, &outcomes, &stop);
    let p99_beside = p99(good.load(&target, &server, beside, &outcomes).await);
    // The limit was reached, so the limit is what holds.
    let rejections = |metrics: &std::collections::BTreeMap<String, f64>| -> f64 {
        metrics
            .iter()
            .filter(|(name, _)| name.starts_with("ridewire_limit_rejections_total"))
            .map(|(_, value)| value)
            .sum()
    };
    eventually("clients that read nothing are cut off", async || {
        let metrics = target.metrics().await;
        (metrics[r#"ridewire_limit_rejections_total{limit="memory_eviction"}"#] > 0.0).then_some(())
    })
    .await;
    stop.cancel();
    let peak = watching.await.unwrap();
    attackers.join_all().await;
    let after = target.metrics().await;
    let (counted, rejected) = (rejections(&after) - rejections(&before), outcomes.rejected.load(Ordering::Relaxed));
    eprintln!(
        "resident memory: {} of {} MiB at peak; p99 alone {p99_alone:.1} ms, beside hostile clients {p99_beside:.1} ms; \
         {rejected} rejected and {} cut of {} requests that were read to their end, {counted} rejections counted",
        peak >> 20,
        LIMIT.1 >> 20,
        outcomes.cut.load(Ordering::Relaxed),
        rejected + outcomes.cut.load(Ordering::Relaxed) + outcomes.done.load(Ordering::Relaxed),
    );
    assert!(peak < LIMIT.1, "{} MiB of {} MiB", peak >> 20, LIMIT.1 >> 20);
    #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
    let rejected = rejected as f64;
    assert!(counted >= rejected, "{rejected} clients were rejected, {counted} rejections are counted");
    if is_soak() {
        assert!(
            p99_beside <= 2.0 * p99_alone,
            "p99 alone {p99_alone:.1} ms, beside hostile clients {p99_beside:.1} ms"
        );
    }
    eventually("no response is buffered", async || {
        (target.metrics().await["ridewire_http_buffered_bytes"] < 1e6).then_some(())
    })
    .await;
    assert_eq!(good.reading.try_join_next().map(|ended| ended.is_ok()), None, "no well-behaved stream was cut off");
}
