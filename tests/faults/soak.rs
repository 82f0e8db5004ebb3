//! A soak test: messages at a constant rate, while streams and polls connect and disconnect. The resources of a server must
//! not grow with the work it has done.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ridewire::auth::Signer;
use ridewire::domain::UserId;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::fixtures::{create_rides, replicas};
use crate::support::{Database, Role, SECRET, Server, eventually_within};
use crate::{limit_heavy_tests, size};

const RIDES: usize = 500;
const SENDERS: usize = 20;
const READERS: usize = 300;

/// Messages a second of all senders together, if the machine sustains it.
const RATE: usize = 1_000;

/// How long a reader stays connected at most, in milliseconds.
const LONGEST_STAY: u64 = 4_000;

/// The resources of a server, from its metrics.
#[derive(Debug, Clone, Copy)]
struct ResourceUsage {
    memory: f64,
    files: f64,
    tasks: f64,
}

impl ResourceUsage {
    async fn by(server: &Server) -> Self {
        let text = reqwest::get(format!("{}/metrics", server.base)).await.unwrap().text().await.unwrap();
        let of = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        };
        Self {
            memory: of("process_resident_memory_bytes"),
            files: of("process_open_fds"),
            tasks: of("ridewire_tokio_tasks"),
        }
    }

    /// Waits until the server has released the resources of closed connections. Returns the usage then.
    async fn settled(server: &Server) -> Self {
        let (limit, pause) = (Duration::from_secs(60), Duration::from_secs(1));
        let mut before = Self::by(server).await;
        eventually_within(limit, pause, "all resources are released", async || {
            let now = Self::by(server).await;
            let is_still = now.files >= before.files && now.tasks >= before.tasks && now.memory >= before.memory * 0.99;
            before = now;
            is_still.then_some(())
        })
        .await;
        before
    }
}

/// Returns a token that is valid for the whole test.
fn token(user: &str) -> String {
    let signer = Signer::new(SECRET.as_bytes()).unwrap();
    signer.sign(&UserId::parse(user).unwrap(), Role::Rider, Duration::from_secs(4 * 3_600)).unwrap()
}

/// Sends one sender's share of the messages. Each is sent when it is due, or as soon as possible.
async fn send(addresses: [SocketAddr; 2], tokens: Arc<Vec<String>>, messages: usize, senders: Arc<AtomicUsize>) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut due = interval(Duration::from_secs(1) * u32::try_from(SENDERS).unwrap() / u32::try_from(RATE).unwrap());
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..messages / SENDERS {
        due.tick().await;
        let (ride, address) = (fastrand::usize(..RIDES), addresses[fastrand::usize(..2)]);
        let body = json!({ "rideId": format!("ride_{ride}"), "content": "a message of the soak test" });
        let request = http.post(format!("http://{address}/api/v1/messages")).bearer_auth(&tokens[ride]);
        let response = request.body(body.to_string()).send().await.unwrap();
        assert_eq!(response.status(), 201);
        response.bytes().await.unwrap();
    }
    senders.fetch_sub(1, Ordering::Relaxed);
}

/// Opens a stream or a poll, of one ride or of all, stays for up to some seconds, disconnects, and repeats this while
/// messages are sent.
async fn read(addresses: [SocketAddr; 2], tokens: Arc<Vec<String>>, senders: Arc<AtomicUsize>, read: Arc<AtomicUsize>) {
    let mut buffer = vec![0; 16 * 1024];
    while senders.load(Ordering::Relaxed) > 0 {
        let ride = fastrand::usize(..RIDES);
        let path = match fastrand::u8(..4) {
            0 | 1 => format!("messages/rides/ride_{ride}/events"),
            2 => "events".to_owned(),
            _ => format!("messages/rides/ride_{ride}/poll?after=1&wait=5"),
        };
        let token = &tokens[ride];
        let mut socket = TcpStream::connect(addresses[fastrand::usize(..2)]).await.unwrap();
        let request = format!("GET /api/v1/{path} HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let deadline = Instant::now() + Duration::from_millis(fastrand::u64(100..LONGEST_STAY));
        while let Ok(Ok(bytes @ 1..)) = timeout_at(deadline, socket.read(&mut buffer)).await {
            read.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// Sends this many messages. Returns how many bytes the readers received meanwhile.
async fn work(addresses: [SocketAddr; 2], tokens: &Arc<Vec<String>>, messages: usize) -> usize {
    let (senders, taken) = (Arc::new(AtomicUsize::new(SENDERS)), Arc::new(AtomicUsize::new(0)));
    let mut working = JoinSet::new();
    for _ in 0..SENDERS {
        working.spawn(send(addresses, Arc::clone(tokens), messages, Arc::clone(&senders)));
    }
    for _ in 0..READERS {
        working.spawn(read(addresses, Arc::clone(tokens), Arc::clone(&senders), Arc::clone(&taken)));
    }
    working.join_all().await;
    taken.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_of_a_server_do_not_grow_with_its_work() {
    let _permit = limit_heavy_tests().await;
    let messages = size(12_000, 3_600 * RATE);
    let database = Database::create().await;
    let servers = [Server::start(&database).await, Server::start(&database).await];
    let rides: Vec<_> = (0..RIDES).map(|number| format!("ride_{number}")).collect();
    create_rides(&replicas(&servers[0], &servers[1]), &rides).await;
    let tokens = Arc::new(rides.iter().map(|ride| token(&format!("rider_of_{ride}"))).collect::<Vec<_>>());
    let addresses = [servers[0].address().parse().unwrap(), servers[1].address().parse().unwrap()];

    // Warm-up: database connections, allocator arenas and caches.
    work(addresses, &tokens, messages / 10).await;
    let began = [ResourceUsage::settled(&servers[0]).await, ResourceUsage::settled(&servers[1]).await];
    let working = Instant::now();
    let read = work(addresses, &tokens, messages).await;
    eprintln!("{messages} messages sent and {read} bytes read in {:.0?}", working.elapsed());
    assert!(read > 100 * messages, "too little was read: {read}");
    for (server, began) in servers.iter().zip(began) {
        let ended = ResourceUsage::settled(server).await;
        eprintln!("began with {began:?}, ended with {ended:?}");
        assert!(ended.files <= began.files + 4.0, "{began:?} {ended:?}");
        assert!(ended.tasks <= began.tasks + 8.0, "{began:?} {ended:?}");
        assert!(ended.memory <= began.memory * 1.1 + 8e6, "{began:?} {ended:?}");
    }
}
