//! A lock of another session delays only the commands that need it.

use reqwest::StatusCode;
use ridewire::store::sql;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::batches::{send, send_large_batch};
use crate::support::{
    Database, Response, Server, TIMEOUT, User, block_message_insert, eventually, lock_ride, lock_topic,
    until_waiting_for_locks,
};

const OTHERS: [&str; 4] = ["b", "c", "d", "e"];

/// Starts a server whose database timeout is longer than any test.
async fn server_with_long_timeout(database: &Database) -> Server {
    Server::start_with(database, &[("RIDEWIRE_DATABASE_TIMEOUT", "60s")]).await
}

/// Awaits work that must not wait for a lock.
async fn without_delay<T>(work: impl Future<Output = T>) -> T {
    timeout(TIMEOUT, work).await.expect("the work waits for an unrelated lock")
}

/// Rides for one batch, which is collected while two other batches are blocked.
struct Fixture {
    database: Database,
    server: Server,
    rider: User,
}

impl Fixture {
    async fn new() -> Self {
        let database = Database::create().await;
        let server = server_with_long_timeout(&database).await;
        let mut rider = None;
        for ride in ["one", "two", "a"].into_iter().chain(OTHERS) {
            rider = Some(server.open_ride(ride).await.0);
        }
        Self { database, server, rider: rider.unwrap() }
    }

    /// Runs `request`, which waits for a lock, in one batch with sends to other rides. Those sends must succeed without delay.
    /// Returns the waiting request.
    async fn in_one_batch<F>(&self, client_id: &str, request: F) -> JoinHandle<Response>
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let observer = self.database.client().await;
        let mut elsewhere = [self.database.client().await, self.database.client().await];
        let [one, two] = &mut elsewhere;
        let (one, two) =
            (block_message_insert(one, "one", client_id).await, block_message_insert(two, "two", client_id).await);
        let mut sent = send_large_batch(&self.rider, &observer, client_id, []).await;
        let waiting = tokio::spawn(request);
        // The server responds to this request after it has received the previous one.
        self.rider.history("a", "").await;
        sent.extend(OTHERS.map(|ride| send(&self.rider, ride, client_id)));
        for ride in OTHERS {
            self.rider.history(ride, "").await;
        }
        one.rollback().await.unwrap();
        two.rollback().await.unwrap();
        for sent in sent {
            without_delay(sent).await.unwrap();
        }
        assert!(!waiting.is_finished(), "the request waits for the lock");
        waiting
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_that_wait_for_a_locked_ride_do_not_delay_another_ride() {
    let database = Database::create().await;
    let server = server_with_long_timeout(&database).await;
    let (rider, _) = server.open_ride("locked").await;
    server.open_ride("other").await;
    let mut elsewhere = database.client().await;
    let lock = lock_ride(&mut elsewhere, "locked").await;
    let waiting: Vec<_> = (0..400)
        .map(|number| {
            let rider = rider.clone();
            tokio::spawn(async move { rider.send_with_id("locked", "Hello", &number.to_string()).await })
        })
        .collect();
    for _ in 0..100 {
        without_delay(rider.send("other", "Hello")).await;
    }
    assert!(waiting.iter().all(|request| !request.is_finished()));
    lock.rollback().await.unwrap();
    let mut seqs = Vec::new();
    for request in waiting {
        seqs.push(request.await.unwrap().expect(201).json()["seq"].as_i64().unwrap());
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (2..402).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_past_the_queue_limit_of_a_locked_ride_get_429() {
    let database = Database::create().await;
    let server = server_with_long_timeout(&database).await;
    let (rider, _) = server.open_ride("locked").await;
    server.open_ride("other").await;
    let mut elsewhere = database.client().await;
    let lock = lock_ride(&mut elsewhere, "locked").await;
    let first = tokio::spawn({
        let rider = rider.clone();
        async move { rider.send_with_id("locked", "Hello", "first").await }
    });
    until_waiting_for_locks(&database.client().await, 1).await;
    let mut waiting: Vec<_> = (0..1_500)
        .map(|number| {
            let rider = rider.clone();
            tokio::spawn(async move { rider.send_with_id("locked", "Hello", &number.to_string()).await })
        })
        .collect();
    eventually("some requests are rejected", async || waiting.iter().any(JoinHandle::is_finished).then_some(())).await;
    without_delay(rider.send("other", "Hello")).await;
    lock.rollback().await.unwrap();
    let mut created = 0;
    first.await.unwrap().expect(201);
    for request in waiting.drain(..) {
        let response = request.await.unwrap();
        if response.status == StatusCode::TOO_MANY_REQUESTS {
            assert!(response.header("retry-after").parse::<u64>().unwrap() >= 1);
            response.problem(429, "too_many_requests");
        } else {
            response.expect(201);
            created += 1;
        }
    }
    assert!((512..1_500).contains(&created), "{created} were accepted");
    assert_eq!(database.head("locked").await, 2 + created, "rejected sends are not stored");
}

/// Once on the optimistic path (cached rides), once on the locking path.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_does_not_wait_for_a_locked_ride() {
    let fixture = Fixture::new().await;
    let mut elsewhere = fixture.database.client().await;
    for path in ["locking", "optimistic"] {
        if path == "optimistic" {
            for ride in ["a"].into_iter().chain(OTHERS) {
                fixture.rider.send(ride, "loads the ride into the cache").await;
            }
        }
        let lock = lock_ride(&mut elsewhere, "a").await;
        let rider = fixture.rider.clone();
        let request = fixture.in_one_batch(path, async move { rider.send_with_id("a", "Hello", path).await }).await;
        lock.rollback().await.unwrap();
        request.await.unwrap().expect(201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_does_not_wait_for_a_locked_user_topic() {
    let fixture = Fixture::new().await;
    let service = fixture.server.service();
    service.broadcast(&["driver_9"], json!({})).await.expect(202);
    let mut elsewhere = fixture.database.client().await;
    for event in ["assigned", "notice"] {
        let lock = lock_topic(&mut elsewhere, "user/driver_9").await;
        let service = service.clone();
        let request = async move {
            match event {
                "assigned" => service.put_ride("a", "rider_1", Some("driver_9")).await,
                _ => service.broadcast(&["driver_9"], json!({})).await,
            }
        };
        let request = fixture.in_one_batch(event, request).await;
        lock.rollback().await.unwrap();
        assert!(request.await.unwrap().status.is_success());
    }
    let polled = fixture.server.driver("driver_9").poll_all("after=0&types=notice,ride:assigned").await;
    let types: Vec<_> = polled["events"].as_array().unwrap().iter().map(|event| event["type"].clone()).collect();
    assert_eq!(types, ["notice", "ride:assigned", "notice"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_does_not_wait_for_a_ride_that_another_session_is_creating() {
    let fixture = Fixture::new().await;
    let mut elsewhere = fixture.database.client().await;
    let creation = elsewhere.transaction().await.unwrap();
    creation.execute(sql::TOPICS_CREATE, &[&vec!["ride/new"]]).await.unwrap();
    let service = fixture.server.service();
    let request =
        fixture.in_one_batch("new", async move { service.put_ride("new", "rider_1", Some("driver_1")).await }).await;
    creation.rollback().await.unwrap();
    request.await.unwrap().expect(201);
    fixture.rider.send("new", "Hello").await;
}

/// A ride stays locked for longer than the timeout: the request gets 503 and is not stored later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_waits_too_long_for_a_locked_ride_times_out() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_DATABASE_TIMEOUT", "4s")]).await;
    let (rider, _) = server.open_ride("locked").await;
    let mut elsewhere = database.client().await;
    let lock = lock_ride(&mut elsewhere, "locked").await;
    rider.send_with_id("locked", "Hello", "m-1").await.problem(503, "unavailable");
    let log = "commands timed out: another database session locks their ride (see pg_locks)";
    eventually("the command has timed out", async || server.log().contains(log).then_some(())).await;
    lock.rollback().await.unwrap();
    assert_eq!(rider.send("locked", "Hello").await["seq"], 2);
}
