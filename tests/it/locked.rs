//! What somebody else holds delays what is about it, and nothing else.

use reqwest::StatusCode;
use ridewire::store::sql;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::flights::{gather, send};
use crate::support::{Answer, Database, PATIENCE, Server, User, eventually, hold, lock, lock_topic, until_waiting};

const OTHERS: [&str; 4] = ["b", "c", "d", "e"];

/// A server that waits longer than any test.
async fn patient(database: &Database) -> Server {
    Server::with(database, &[("RIDEWIRE_DATABASE_TIMEOUT", "60s")]).await
}

/// Awaits what must not have to wait for what is held.
async fn unhindered<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("it waits for what is not its own")
}

/// The requests of one batch with all that gathers while two others are held.
struct Scene {
    database: Database,
    server: Server,
    rider: User,
}

impl Scene {
    async fn set() -> Self {
        let database = Database::create().await;
        let server = patient(&database).await;
        let mut rider = None;
        for ride in ["one", "two", "a"].into_iter().chain(OTHERS) {
            rider = Some(server.open_ride(ride).await.0);
        }
        Self { database, server, rider: rider.unwrap() }
    }

    /// Has `request`, which waits for what is locked, carried out in one batch with sends to other rides, which are
    /// answered; and says what becomes of it.
    async fn in_one_batch<F>(&self, name: &str, request: F) -> JoinHandle<Answer>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let observer = self.database.client().await;
        let mut elsewhere = [self.database.client().await, self.database.client().await];
        let [one, two] = &mut elsewhere;
        let (one, two) = (hold(one, "one", name).await, hold(two, "two", name).await);
        let mut sent = gather(&self.rider, &observer, name, []).await;
        let waits = tokio::spawn(request);
        // What is asked after it is answered after it has come.
        self.rider.history("a", "").await;
        sent.extend(OTHERS.map(|ride| send(&self.rider, ride, name)));
        for ride in OTHERS {
            self.rider.history(ride, "").await;
        }
        one.rollback().await.unwrap();
        two.rollback().await.unwrap();
        for sent in sent {
            unhindered(sent).await.unwrap();
        }
        assert!(!waits.is_finished(), "what it needs is locked");
        waits
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_sends_wait_for_a_locked_ride_another_ride_has_no_delay() {
    let database = Database::create().await;
    let server = patient(&database).await;
    let (rider, _) = server.open_ride("locked").await;
    server.open_ride("other").await;
    let mut elsewhere = database.client().await;
    let lock = lock(&mut elsewhere, "locked").await;
    let waiting: Vec<_> = (0..400)
        .map(|number| {
            let rider = rider.clone();
            tokio::spawn(async move { rider.send_named("locked", "Hello", &number.to_string()).await })
        })
        .collect();
    for _ in 0..100 {
        unhindered(rider.send("other", "Hello")).await;
    }
    assert!(waiting.iter().all(|waits| !waits.is_finished()));
    lock.rollback().await.unwrap();
    let mut seqs = Vec::new();
    for waits in waiting {
        seqs.push(waits.await.unwrap().expect(201).json()["seq"].as_i64().unwrap());
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (2..402).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_sends_than_may_wait_for_a_locked_ride_are_told_to_come_back() {
    let database = Database::create().await;
    let server = patient(&database).await;
    let (rider, _) = server.open_ride("locked").await;
    server.open_ride("other").await;
    let mut elsewhere = database.client().await;
    let lock = lock(&mut elsewhere, "locked").await;
    let first = tokio::spawn({
        let rider = rider.clone();
        async move { rider.send_named("locked", "Hello", "first").await }
    });
    until_waiting(&database.client().await, 1).await;
    let mut waiting: Vec<_> = (0..1_500)
        .map(|number| {
            let rider = rider.clone();
            tokio::spawn(async move { rider.send_named("locked", "Hello", &number.to_string()).await })
        })
        .collect();
    eventually("some are refused", async || waiting.iter().any(JoinHandle::is_finished).then_some(())).await;
    unhindered(rider.send("other", "Hello")).await;
    lock.rollback().await.unwrap();
    let mut created = 0;
    first.await.unwrap().expect(201);
    for waits in waiting.drain(..) {
        let answer = waits.await.unwrap();
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
            answer.problem(429, "too_many_requests");
        } else {
            answer.expect(201);
            created += 1;
        }
    }
    assert!((512..1_500).contains(&created), "{created} were let in");
    assert_eq!(database.head("locked").await, 2 + created, "nothing of the others is kept");
}

/// Once judged by what is known of the rides, once under their locks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_does_not_wait_for_a_locked_ride() {
    let scene = Scene::set().await;
    let mut elsewhere = scene.database.client().await;
    for name in ["loaded", "known"] {
        if name == "known" {
            for ride in ["a"].into_iter().chain(OTHERS) {
                scene.rider.send(ride, "so that the ride is known").await;
            }
        }
        let lock = lock(&mut elsewhere, "a").await;
        let rider = scene.rider.clone();
        let waits = scene.in_one_batch(name, async move { rider.send_named("a", "Hello", name).await }).await;
        lock.rollback().await.unwrap();
        waits.await.unwrap().expect(201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_does_not_wait_for_the_topic_of_a_user_who_is_told_something() {
    let scene = Scene::set().await;
    let service = scene.server.service();
    service.broadcast(&["driver_9"], json!({})).await.expect(202);
    let mut elsewhere = scene.database.client().await;
    for told in ["assigned", "notice"] {
        let lock = lock_topic(&mut elsewhere, "user/driver_9").await;
        let service = service.clone();
        let request = async move {
            match told {
                "assigned" => service.put_ride("a", "rider_1", Some("driver_9")).await,
                _ => service.broadcast(&["driver_9"], json!({})).await,
            }
        };
        let waits = scene.in_one_batch(told, request).await;
        lock.rollback().await.unwrap();
        assert!(waits.await.unwrap().status.is_success());
    }
    let polled = scene.server.driver("driver_9").poll_all("after=0&types=notice,ride:assigned").await;
    let types: Vec<_> = polled["events"].as_array().unwrap().iter().map(|event| event["type"].clone()).collect();
    assert_eq!(types, ["notice", "ride:assigned", "notice"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_does_not_wait_for_a_ride_that_is_being_created_elsewhere() {
    let scene = Scene::set().await;
    let mut elsewhere = scene.database.client().await;
    let creation = elsewhere.transaction().await.unwrap();
    creation.execute(sql::TOPICS_CREATE, &[&vec!["ride/new"]]).await.unwrap();
    let service = scene.server.service();
    let waits =
        scene.in_one_batch("new", async move { service.put_ride("new", "rider_1", Some("driver_1")).await }).await;
    creation.rollback().await.unwrap();
    waits.await.unwrap().expect(201);
    scene.rider.send("new", "Hello").await;
}

/// A ride that is locked for longer than requests wait: they are told so, and nothing of them comes later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_locked_ride_for_too_long_is_given_up() {
    let database = Database::create().await;
    let server = Server::with(&database, &[("RIDEWIRE_DATABASE_TIMEOUT", "4s")]).await;
    let (rider, _) = server.open_ride("locked").await;
    let mut elsewhere = database.client().await;
    let lock = lock(&mut elsewhere, "locked").await;
    rider.send_named("locked", "Hello", "a name").await.problem(503, "unavailable");
    let log = "what had waited for too long was given up";
    eventually("it is given up", async || server.log().contains(log).then_some(())).await;
    lock.rollback().await.unwrap();
    assert_eq!(rider.send("locked", "Hello").await["seq"], 2);
}
