//! A day's work in small: messages at a steady rate, while streams and polls come and go. What a server holds must not grow
//! with what it has done.

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

use crate::support::{Database, Role, SECRET, Server, eventually_within};
use crate::world::{make_rides, replicas};
use crate::{size, two_at_a_time};

const RIDES: usize = 500;
const SENDERS: usize = 20;
const READERS: usize = 300;

/// In all, a second, where the machine can do that.
const RATE: usize = 1_000;

/// How long a reader stays at most, in milliseconds.
const LONGEST_STAY: u64 = 4_000;

/// What a server holds, by its own account.
#[derive(Debug, Clone, Copy)]
struct Held {
    memory: f64,
    files: f64,
    tasks: f64,
}

impl Held {
    async fn by(server: &Server) -> Self {
        let text = reqwest::get(format!("{}/metrics", server.base)).await.unwrap().text().await.unwrap();
        let of = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        };
        Self { memory: of("process_resident_memory_bytes"), files: of("process_open_fds"), tasks: of("ridewire_tasks") }
    }

    /// When all that was open has been let go.
    async fn at_rest(server: &Server) -> Self {
        let (patience, pause) = (Duration::from_secs(60), Duration::from_secs(1));
        let mut before = Self::by(server).await;
        eventually_within(patience, pause, "nothing more is let go", async || {
            let now = Self::by(server).await;
            let is_still = now.files >= before.files && now.tasks >= before.tasks && now.memory >= before.memory * 0.99;
            before = now;
            is_still.then_some(())
        })
        .await;
        before
    }
}

/// A token that outlives the soak.
fn token(user: &str) -> String {
    let signer = Signer::new(SECRET.as_bytes()).unwrap();
    signer.sign(&UserId::parse(user).unwrap(), Role::Rider, Duration::from_secs(4 * 3_600)).unwrap()
}

/// Sends its part of so many messages, each when it is due, or as soon as it can.
async fn send(addresses: [SocketAddr; 2], tokens: Arc<Vec<String>>, messages: usize, senders: Arc<AtomicUsize>) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut due = interval(Duration::from_secs(1) * u32::try_from(SENDERS).unwrap() / u32::try_from(RATE).unwrap());
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..messages / SENDERS {
        due.tick().await;
        let (ride, address) = (fastrand::usize(..RIDES), addresses[fastrand::usize(..2)]);
        let body = json!({ "rideId": format!("ride_{ride}"), "content": "so it goes, all day and all night" });
        let request = http.post(format!("http://{address}/api/v1/messages")).bearer_auth(&tokens[ride]);
        let answer = request.body(body.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        answer.bytes().await.unwrap();
    }
    senders.fetch_sub(1, Ordering::Relaxed);
}

/// Comes as a stream or a poll, of one ride or of everything, stays for some seconds, goes without a word, and comes again, as
/// long as anybody sends.
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
        let leaves = Instant::now() + Duration::from_millis(fastrand::u64(100..LONGEST_STAY));
        while let Ok(Ok(bytes @ 1..)) = timeout_at(leaves, socket.read(&mut buffer)).await {
            read.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// Sends so many messages: how many bytes were read meanwhile.
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
async fn what_a_server_holds_does_not_grow_with_what_it_has_done() {
    let _turn = two_at_a_time().await;
    let messages = size(12_000, 3_600 * RATE);
    let database = Database::create().await;
    let servers = [Server::start(&database).await, Server::start(&database).await];
    let rides: Vec<_> = (0..RIDES).map(|number| format!("ride_{number}")).collect();
    make_rides(&replicas(&servers[0], &servers[1]), &rides).await;
    let tokens = Arc::new(rides.iter().map(|ride| token(&format!("rider_of_{ride}"))).collect::<Vec<_>>());
    let addresses = [servers[0].address().parse().unwrap(), servers[1].address().parse().unwrap()];

    // What is made once is made now: connections to Postgres, the allocator's own, caches.
    work(addresses, &tokens, messages / 10).await;
    let began = [Held::at_rest(&servers[0]).await, Held::at_rest(&servers[1]).await];
    let working = Instant::now();
    let read = work(addresses, &tokens, messages).await;
    eprintln!("{messages} messages sent and {read} bytes read in {:.0?}", working.elapsed());
    assert!(read > 100 * messages, "hardly anything was read: {read}");
    for (server, began) in servers.iter().zip(began) {
        let ended = Held::at_rest(server).await;
        eprintln!("began with {began:?}, ended with {ended:?}");
        assert!(ended.files <= began.files + 4.0, "{began:?} {ended:?}");
        assert!(ended.tasks <= began.tasks + 8.0, "{began:?} {ended:?}");
        assert!(ended.memory <= began.memory * 1.1 + 8e6, "{began:?} {ended:?}");
    }
}
