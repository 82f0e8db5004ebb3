//! Thousands at once: drivers who say where they are, and people who come, move and go.

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

use crate::subscribers::{Frame, find_blank_line};
use crate::support::{Database, PATIENCE, Role, Server, eventually_within};
use crate::world::{make_rides, replicas, token};

/// What a watcher was last told, by the member of the data that says it.
type Last = Arc<Mutex<HashMap<String, Value>>>;

/// Follows a ride with a socket and a task; `keep` is given the type and data of each event.
async fn follow(
    server: std::net::SocketAddr,
    ride: &str,
    token: &str,
    types: &str,
    mut keep: impl FnMut(&str, Value) + Send + 'static,
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
            // The head goes with the first block, which is a comment.
            while let Some(end) = find_blank_line(&buffer, true) {
                let block: Vec<u8> = buffer.drain(..end).collect();
                let block = String::from_utf8(block).unwrap();
                let Some(frame) = Frame::parse(&block) else { continue };
                if frame.event == "stream:sync" {
                    synced.take().map(|synced| synced.send(()));
                }
                keep(frame.event, serde_json::from_str(frame.data).unwrap());
            }
        }
    });
    timeout(PATIENCE * 3, is_synced).await.expect("a stream opens").expect("a stream begins");
    task.abort_handle()
}

/// Resident memory of a process in bytes.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

async fn number(database: &Database, statement: &str) -> i64 {
    database.client().await.query_one(statement, &[]).await.unwrap().get(0)
}

/// Waits for what takes its time; asking is work for the server, too.
async fn in_time(what: &str, mut check: impl AsyncFnMut() -> bool) {
    eventually_within(PATIENCE * 2, Duration::from_millis(250), what, async || check().await.then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_drivers_are_seen_where_they_are_and_cost_nothing_that_lasts() {
    const DRIVERS: usize = 1_000;
    const ROUNDS: usize = 30;
    let _turn = crate::two_at_a_time().await;
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let replicas = replicas(&one, &two);
    let rides: Vec<String> = (0..DRIVERS).map(|n| format!("ride_{n}")).collect();
    make_rides(&replicas, &rides).await;
    let last = Last::default();
    let mut watchers = Vec::new();
    for ride in &rides {
        for (place, user) in [format!("rider_of_{ride}"), format!("driver_of_{ride}")].iter().enumerate() {
            let (last, name) = (Arc::clone(&last), format!("{ride} {place}"));
            let keep = move |kind: &str, data: Value| {
                if kind == "ride:location" {
                    let mut last = last.lock().unwrap();
                    let before = last.insert(name.clone(), data["lng"].clone());
                    assert!(before.is_none_or(|before| before.as_f64() < data["lng"].as_f64()), "never back");
                }
            };
            let token = token(user, Role::Rider);
            watchers.push(follow(replicas.get(place), ride, &token, "ride:location", keep).await);
        }
    }
    let http = reqwest::Client::new();
    let tokens: Vec<String> = rides.iter().map(|ride| token(&format!("driver_of_{ride}"), Role::Driver)).collect();
    let say = async |round: usize| {
        let posts = rides.iter().zip(&tokens).enumerate().map(|(n, (ride, token))| {
            let url = format!("http://{}/api/v1/rides/{ride}/location", replicas.get(n));
            let body = json!({ "lat": 52.5, "lng": round });
            let request = http.post(url).bearer_auth(token).body(body.to_string());
            async move { assert_eq!(request.send().await.unwrap().status(), 202) }
        });
        iter(posts).buffer_unordered(256).collect::<Vec<_>>().await;
    };
    // The first round grows what is kept of each driver.
    say(1).await;
    let (memory, events) = ([resident(&one), resident(&two)], number(&database, "select count(*) from events").await);
    // Every transaction that writes or notifies takes a number; those that read take none.
    let numbered = "select pg_current_xact_id()::text::bigint";
    let writes = number(&database, numbered).await;
    for round in 2..=ROUNDS {
        say(round).await;
    }
    in_time("the last position of each, at both watchers", async || {
        let last = last.lock().unwrap();
        last.len() == 2 * DRIVERS && last.values().all(|lng| lng.as_f64() == Some(ROUNDS as f64))
    })
    .await;
    let grown = [(&one, memory[0]), (&two, memory[1])].map(|(server, before)| resident(server).saturating_sub(before));
    assert!(grown.iter().all(|bytes| *bytes < 20 * 1024 * 1024), "{grown:?}");
    assert_eq!(number(&database, "select count(*) from events").await, events, "positions are not logged");
    let positions = (DRIVERS * (ROUNDS - 1)) as i64;
    let writes = number(&database, numbered).await - writes;
    assert!(writes < positions / 2, "{writes} transactions for {positions} positions and their hints");
    watchers.iter().for_each(AbortHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_come_move_and_go_and_who_is_there_stays_true() {
    const RIDES: usize = 1_000;
    let _turn = crate::two_at_a_time().await;
    let database = Database::create().await;
    let settings = [("RIDEWIRE_PRESENCE_GRACE", "5s")];
    let (one, two) = (Server::with(&database, &settings).await, Server::with(&database, &settings).await);
    let replicas = Arc::new(replicas(&one, &two));
    let rides: Vec<String> = (0..RIDES).map(|n| format!("ride_{n}")).collect();
    make_rides(&replicas, &rides).await;
    // Support watches some rides on the replica that will stay: all that is told of anybody there.
    let told: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let mut observers = Vec::new();
    for ride in rides.iter().step_by(20) {
        let told = Arc::clone(&told);
        let keep = move |kind: &str, data: Value| {
            if kind.starts_with("presence:") {
                told.lock().unwrap().push((data["userId"].as_str().unwrap().to_owned(), kind.to_owned()));
            }
        };
        let token = token("support_1", Role::Support);
        observers.push(follow(replicas.get(0), ride, &token, "presence:*", keep).await);
    }
    let users: Vec<(String, String)> = rides
        .iter()
        .flat_map(|ride| [(ride.clone(), format!("rider_of_{ride}")), (ride.clone(), format!("driver_of_{ride}"))])
        .collect();
    let open = async |number: usize, replica: usize| {
        let (ride, user) = &users[number];
        follow(replicas.get(replica), ride, &token(user, Role::Rider), "presence:none", |_, _| {}).await
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
        let answers: Vec<Value> = iter(asked).buffer_unordered(32).collect().await;
        let people = answers.iter().flat_map(|answer| answer["participants"].as_array().unwrap());
        let there = people.filter(|person| person["online"] == true);
        there.map(|person| person["userId"].as_str().unwrap().to_owned()).collect::<HashSet<_>>()
    };
    let names = |numbers: &mut dyn Iterator<Item = usize>| -> HashSet<String> {
        numbers.map(|number| users[number].1.clone()).collect()
    };
    let all = names(&mut (0..users.len()));
    // As the database has it first: a thousand rides are much to ask for.
    let are_there = "select count(*) from presence_states where online and topic like 'ride/%'";
    in_time("everybody is registered", async || number(&database, are_there).await == all.len() as i64).await;
    in_time("everybody is there", async || online().await == all).await;

    // As long as nobody comes or goes nothing is written of anybody, however often the leases are renewed.
    // Whoever writes a row leaves the number of their transaction in it.
    let written = "select sum(row.number)::bigint
                   from (select xmin::text::bigint as number from presence
                         union all
                         select xmin::text::bigint from presence_states) as row";
    let beat = "select sum(extract(epoch from expires_at) * 1000)::bigint from replicas";
    let (before, mut last_beat, mut beats) = (number(&database, written).await, number(&database, beat).await, 0);
    in_time("the leases are renewed a few times", async || {
        let now = number(&database, beat).await;
        beats += usize::from(now != last_beat);
        last_beat = now;
        beats >= 4
    })
    .await;
    assert_eq!(number(&database, written).await, before, "a write for a beat");

    // Some change the replica, some leave, and then one replica is gone.
    let moving: Vec<usize> = (0..users.len()).filter(|number| number % 8 == 1).collect();
    for number in &moving {
        streams.remove(number).unwrap().abort();
        streams.insert(*number, open(*number, 0).await);
    }
    for number in (0..users.len()).filter(|number| number % 8 == 2) {
        streams.remove(&number).unwrap().abort();
    }
    let stay = |number: &usize| matches!(number % 8, 0 | 1 | 4 | 6);
    // Who has moved is known to be there before the replica that they were on is gone.
    let moved: Vec<_> = moving.iter().map(|number| users[*number].1.clone()).collect();
    let client = database.client().await;
    let here = "select count(*) from presence where user_id = any ($1)
                and replica in (select replica from presence where user_id = $2)";
    in_time("who has moved is registered", async || {
        client.query_one(here, &[&moved, &users[0].1]).await.unwrap().get::<_, i64>(0) == moved.len() as i64
    })
    .await;
    two.kill().await;
    // Its lease runs out by the database's clock.
    database.expire_lease_of(&users[3].1).await;
    let truth = names(&mut (0..users.len()).filter(stay));
    in_time("who was on the killed replica is taken out", async || {
        number(&database, are_there).await == truth.len() as i64
    })
    .await;
    in_time("who was on the killed replica is gone", async || online().await == truth).await;

    // What was told agrees, and who moved never showed offline.
    in_time("the events agree", async || {
        let told = told.lock().unwrap();
        let last: HashMap<&String, &String> = told.iter().map(|(user, kind)| (user, kind)).collect();
        last.len() == 100 && last.iter().all(|(user, kind)| truth.contains(*user) == (*kind == "presence:online"))
    })
    .await;
    let moved = names(&mut moving.into_iter());
    let flickered: Vec<_> = told
        .lock()
        .unwrap()
        .iter()
        .filter(|(user, kind)| moved.contains(user) && kind == "presence:offline")
        .cloned()
        .collect();
    assert_eq!(flickered, [], "they were there all the time");
    streams.values().chain(&observers).for_each(AbortHandle::abort);
}
