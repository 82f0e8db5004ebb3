//! Load with thousands of users: drivers that send locations, and users that connect, move and disconnect.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::fixtures::{create_rides, replicas, token};
use crate::subscribers::{Frame, find_blank_line};
use crate::support::{Database, Role, Server, TIMEOUT, eventually_within};

/// The last value that each watcher received, by ride and watcher.
type LatestValues = Arc<Mutex<HashMap<String, Value>>>;

/// Reads a ride's stream. `on_event` gets the type and data of each event.
async fn read_stream(
    server: std::net::SocketAddr,
    ride: &str,
    token: &str,
    types: &str,
    mut on_event: impl FnMut(&str, Value) + Send + 'static,
) -> AbortHandle {
    let mut socket = TcpStream::connect(server).await.unwrap();
    let request = format!(
        "GET /api/v1/messages/rides/{ride}/events?types={types} HTTP/1.0\r\nHost: ridewire\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let (synced, is_synced) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let (mut buffer, mut synced) = (Vec::new(), Some(synced));
        while matches!(socket.read_buf(&mut buffer).await, Ok(read) if read > 0) {
            // The head of the response ends with the first block.
            while let Some(end) = find_blank_line(&buffer, true) {
                let block: Vec<u8> = buffer.drain(..end).collect();
                let block = String::from_utf8(block).unwrap();
                let Some(frame) = Frame::parse(&block) else { continue };
                if frame.event == "stream:sync" {
                    synced.take().map(|synced| synced.send(()));
                }
                on_event(frame.event, serde_json::from_str(frame.data).unwrap());
            }
        }
    });
    timeout(TIMEOUT * 3, is_synced).await.expect("a stream opens in time").expect("the stream is synced");
    task.abort_handle()
}

/// Returns the resident memory of a server in bytes.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

async fn number(database: &Database, statement: &str) -> i64 {
    database.client().await.query_one(statement, &[]).await.unwrap().get(0)
}

/// Waits for a condition with a long timeout. The interval is long because each check is load for the server.
async fn in_time(what: &str, mut check: impl AsyncFnMut() -> bool) {
    eventually_within(TIMEOUT * 2, Duration::from_millis(250), what, async || check().await.then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locations_of_a_thousand_drivers_arrive_and_use_no_lasting_resources() {
    const DRIVERS: usize = 1_000;
    const ROUNDS: usize = 30;
    let _permit = crate::limit_heavy_tests().await;
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let replicas = replicas(&one, &two);
    let rides: Vec<String> = (0..DRIVERS).map(|n| format!("ride_{n}")).collect();
    create_rides(&replicas, &rides).await;
    let last = LatestValues::default();
    let mut watchers = Vec::new();
    for ride in &rides {
        for (watcher, user) in [format!("rider_of_{ride}"), format!("driver_of_{ride}")].iter().enumerate() {
            let (last, name) = (Arc::clone(&last), format!("{ride} {watcher}"));
            let on_event = move |kind: &str, data: Value| {
                if kind == "ride:location" {
                    let mut last = last.lock().unwrap();
                    let before = last.insert(name.clone(), data["lng"].clone());
                    assert!(
                        before.is_none_or(|before| before.as_f64() < data["lng"].as_f64()),
                        "never an older location"
                    );
                }
            };
            let token = token(user, Role::Rider);
            watchers.push(read_stream(replicas.get(watcher), ride, &token, "ride:location", on_event).await);
        }
    }
    let http = reqwest::Client::new();
    let tokens: Vec<String> = rides.iter().map(|ride| token(&format!("driver_of_{ride}"), Role::Driver)).collect();
    let send_locations = async |round: usize| {
        let posts = rides.iter().zip(&tokens).enumerate().map(|(n, (ride, token))| {
            let url = format!("http://{}/api/v1/rides/{ride}/location", replicas.get(n));
            let body = json!({ "lat": 52.5, "lng": round });
            let request = http.post(url).bearer_auth(token).body(body.to_string());
            async move { assert_eq!(request.send().await.unwrap().status(), 202) }
        });
        iter(posts).buffer_unordered(256).collect::<Vec<_>>().await;
    };
    // Warm-up: the first round allocates the state of each driver.
    send_locations(1).await;
    let (memory, events) = ([resident(&one), resident(&two)], number(&database, "select count(*) from events").await);
    // Each transaction that writes or notifies takes a transaction id; a read-only one takes none.
    let numbered = "select pg_current_xact_id()::text::bigint";
    let writes = number(&database, numbered).await;
    for round in 2..=ROUNDS {
        send_locations(round).await;
    }
    in_time("the last location of each driver, at both watchers", async || {
        let last = last.lock().unwrap();
        last.len() == 2 * DRIVERS && last.values().all(|lng| lng.as_f64() == Some(ROUNDS as f64))
    })
    .await;
    let grown = [(&one, memory[0]), (&two, memory[1])].map(|(server, before)| resident(server).saturating_sub(before));
    assert!(grown.iter().all(|bytes| *bytes < 20 * 1024 * 1024), "{grown:?}");
    assert_eq!(number(&database, "select count(*) from events").await, events, "locations are not logged");
    let locations = (DRIVERS * (ROUNDS - 1)) as i64;
    let writes = number(&database, numbered).await - writes;
    assert!(writes < locations / 2, "{writes} transactions for {locations} locations and their notifications");
    watchers.iter().for_each(AbortHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_stays_correct_while_thousands_connect_move_and_disconnect() {
    const RIDES: usize = 1_000;
    let _permit = crate::limit_heavy_tests().await;
    let database = Database::create().await;
    let settings = [("RIDEWIRE_PRESENCE_GRACE", "5s")];
    let (one, two) = (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
    let replicas = Arc::new(replicas(&one, &two));
    let rides: Vec<String> = (0..RIDES).map(|n| format!("ride_{n}")).collect();
    create_rides(&replicas, &rides).await;
    // Support reads the presence of some rides on the replica that stays.
    let events_seen: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let mut observers = Vec::new();
    for ride in rides.iter().step_by(20) {
        let events_seen = Arc::clone(&events_seen);
        let on_event = move |kind: &str, data: Value| {
            if kind.starts_with("presence:") {
                events_seen.lock().unwrap().push((data["userId"].as_str().unwrap().to_owned(), kind.to_owned()));
            }
        };
        let token = token("support_1", Role::Support);
        observers.push(read_stream(replicas.get(0), ride, &token, "presence:*", on_event).await);
    }
    let users: Vec<(String, String)> = rides
        .iter()
        .flat_map(|ride| [(ride.clone(), format!("rider_of_{ride}")), (ride.clone(), format!("driver_of_{ride}"))])
        .collect();
    let open = async |number: usize, replica: usize| {
        let (ride, user) = &users[number];
        read_stream(replicas.get(replica), ride, &token(user, Role::Rider), "presence:none", |_, _| {}).await
    };
    let mut streams = HashMap::new();
    for number in 0..users.len() {
        streams.insert(number, open(number, number % 2).await);
    }
    let http = reqwest::Client::new();
    let support = token("support_1", Role::Support);
    let online = async || {
        let asked = rides.iter().map(|ride| {
            let url = format!("http://{}/api/v1/messages/rides/{ride}/presence", replicas.get(0));
            let request = http.get(url).bearer_auth(&support);
            async move { request.send().await.unwrap().json::<Value>().await.unwrap() }
        });
        let responses: Vec<Value> = iter(asked).buffer_unordered(32).collect().await;
        let participants = responses.iter().flat_map(|response| response["participants"].as_array().unwrap());
        let online = participants.filter(|participant| participant["online"] == true);
        online.map(|participant| participant["userId"].as_str().unwrap().to_owned()).collect::<HashSet<_>>()
    };
    let names = |numbers: &mut dyn Iterator<Item = usize>| -> HashSet<String> {
        numbers.map(|number| users[number].1.clone()).collect()
    };
    let all = names(&mut (0..users.len()));
    // The database first, because a request for each of a thousand rides is much load.
    let online_rows = "select count(*) from presence_states where online and topic like 'ride/%'";
    in_time("all users are registered", async || number(&database, online_rows).await == all.len() as i64).await;
    in_time("all users are online", async || online().await == all).await;

    // While nobody connects or disconnects, no presence row is written, however often the leases are renewed. `xmin` is the
    // transaction that wrote a row.
    let written = "select sum(row.number)::bigint
                   from (select xmin::text::bigint as number from presence
                         union all
                         select xmin::text::bigint from presence_states) as row";
    let lease_expiry = "select sum(extract(epoch from expires_at) * 1000)::bigint from replicas";
    let (before, mut last_lease_expiry, mut heartbeats) =
        (number(&database, written).await, number(&database, lease_expiry).await, 0);
    in_time("the leases are renewed a few times", async || {
        let now = number(&database, lease_expiry).await;
        heartbeats += usize::from(now != last_lease_expiry);
        last_lease_expiry = now;
        heartbeats >= 4
    })
    .await;
    assert_eq!(number(&database, written).await, before, "a heartbeat writes no presence");

    // Some users move to the other replica, some disconnect, and then one replica is killed.
    let moving: Vec<usize> = (0..users.len()).filter(|number| number % 8 == 1).collect();
    for number in &moving {
        streams.remove(number).unwrap().abort();
        streams.insert(*number, open(*number, 0).await);
    }
    for number in (0..users.len()).filter(|number| number % 8 == 2) {
        streams.remove(&number).unwrap().abort();
    }
    let stay = |number: &usize| matches!(number % 8, 0 | 1 | 4 | 6);
    // The moves must be registered before the old replica is killed.
    let moved: Vec<_> = moving.iter().map(|number| users[*number].1.clone()).collect();
    let client = database.client().await;
    let registered_with = "select count(*) from presence where user_id = any ($1)
                and replica in (select replica from presence where user_id = $2)";
    in_time("the moved users are registered", async || {
        client.query_one(registered_with, &[&moved, &users[0].1]).await.unwrap().get::<_, i64>(0) == moved.len() as i64
    })
    .await;
    two.kill().await;
    // Its lease expires by the database's clock.
    database.expire_lease_of(&users[3].1).await;
    let expected = names(&mut (0..users.len()).filter(stay));
    in_time("the users of the killed replica are offline in the database", async || {
        number(&database, online_rows).await == expected.len() as i64
    })
    .await;
    in_time("the users of the killed replica are offline", async || online().await == expected).await;

    // The events agree with the final state, and a move never caused an offline event.
    in_time("the events agree", async || {
        let events_seen = events_seen.lock().unwrap();
        let last: HashMap<&String, &String> = events_seen.iter().map(|(user, kind)| (user, kind)).collect();
        last.len() == 100 && last.iter().all(|(user, kind)| expected.contains(*user) == (*kind == "presence:online"))
    })
    .await;
    let moved = names(&mut moving.into_iter());
    let false_offline: Vec<_> = events_seen
        .lock()
        .unwrap()
        .iter()
        .filter(|(user, kind)| moved.contains(user) && kind == "presence:offline")
        .cloned()
        .collect();
    assert_eq!(false_offline, [], "they were online all the time");
    streams.values().chain(&observers).for_each(AbortHandle::abort);
}
