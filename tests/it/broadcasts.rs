//! Broadcasts: one at a time, in small batches between which other commands are committed.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{Database, Response, Server, TIMEOUT, User, data_types, eventually, until_waiting_for_locks};

/// Returns a body so large that a batch has about sixty notices.
fn large(users: &[String]) -> Value {
    json!({ "userIds": users, "data": { "text": "x".repeat(8_000) } })
}

fn users() -> Vec<String> {
    (0..250).map(|number| format!("user_{number:03}")).collect()
}

fn broadcast(service: &User, body: Value) -> tokio::task::JoinHandle<Response> {
    let service = service.clone();
    tokio::spawn(async move { service.post("broadcasts", body).await })
}

/// Returns the number of a user's notices.
async fn notices(server: &Server, user: &str) -> usize {
    data_types(&server.rider(user).poll_all("after=0&wait=0").await["events"]).len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_is_committed_in_batches_and_delays_the_next_broadcast_but_no_messages() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let (service, users) = (server.service(), users());
    service.broadcast(&["user_150"], json!({})).await.expect(202);
    let (mut holder, observer) = (database.client().await, database.client().await);
    let held = holder.transaction().await.unwrap();
    held.execute("select from topics where name = 'user/user_150' for update", &[]).await.unwrap();

    let first = broadcast(&service, large(&users));
    until_waiting_for_locks(&observer, 1).await;
    // The batches before the waiting one are committed, those after it have not begun.
    assert_eq!([notices(&server, "user_000").await, notices(&server, "user_249").await], [1, 0]);
    // Eight broadcasts queue, without waiting for a lock. Further ones are rejected.
    let mut others = JoinSet::new();
    for number in 0..12 {
        let service = service.clone();
        others.spawn(async move { service.post("broadcasts", large(&[format!("other_{number}")])).await });
    }
    for _ in 0..4 {
        let busy = timeout(TIMEOUT, others.join_next()).await.expect("a response").unwrap().unwrap();
        assert!(busy.header("retry-after").parse::<u64>().unwrap() >= 1);
        busy.problem(429, "too_many_requests");
    }
    for _ in 0..3 {
        rider.send("ride_1", "During the broadcast").await;
    }
    until_waiting_for_locks(&observer, 1).await;
    for number in 0..12 {
        assert_eq!(notices(&server, &format!("other_{number}")).await, 0);
    }

    held.commit().await.unwrap();
    assert_eq!(first.await.unwrap().expect(202).json(), json!({ "count": 250 }));
    for other in others.join_all().await {
        other.expect(202);
    }
    for (user, count) in [("user_000", 1), ("user_150", 2), ("user_249", 1)] {
        assert_eq!(notices(&server, user).await, count, "{user}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_that_a_shutdown_interrupts_reports_how_many_users_were_notified() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (service, users) = (server.service(), users());
    service.broadcast(&["user_100"], json!({})).await.expect(202);
    let (mut holder, observer) = (database.client().await, database.client().await);
    let held = holder.transaction().await.unwrap();
    held.execute("select from topics where name = 'user/user_100' for update", &[]).await.unwrap();
    let stopped = broadcast(&service, large(&users));
    until_waiting_for_locks(&observer, 1).await;
    server.signal(Signal::SIGTERM);
    // The server no longer accepts connections: it is stopping.
    let health = format!("{}/healthz", server.base);
    eventually("the server stops accepting connections", async || {
        reqwest::Client::new().get(&health).send().await.err()
    })
    .await;
    held.commit().await.unwrap();
    let problem = stopped.await.unwrap().problem(503, "unavailable");
    let detail = problem["detail"].as_str().unwrap();
    let done: i64 = detail.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    let notices = "select count(*) from events where topic like 'user/%' and length(data) > 8000 and topic <= $1";
    let count =
        async |last: &str| observer.query_one(notices, &[&format!("user/{last}")]).await.unwrap().get::<_, i64>(0);
    assert!((101..250).contains(&done), "{detail}");
    let last = &users[usize::try_from(done).unwrap() - 1];
    assert_eq!([count(last).await, count("~").await], [done, done], "{detail}: exactly the first users");
    server.terminate().await;
}
