//! What a replica knows of rides is only ever in vain, never wrong: another writes to them, unheard or heard a moment later.

use serde_json::{Value, json};

use crate::support::{Database, Server, Stream, User};

/// Whether two replicas hear each other.
#[derive(Clone, Copy, PartialEq)]
enum Hearing {
    Nothing,
    /// And what they hear is read on both.
    Everything,
}

const BOTH: [Hearing; 2] = [Hearing::Nothing, Hearing::Everything];

/// Two replicas, and a ride that the first knows: it has written there.
struct Scene {
    database: Database,
    one: Server,
    two: Server,
    rider: User,
    driver: User,
    _readers: Vec<Stream>,
}

impl Scene {
    async fn set(hearing: Hearing) -> Self {
        let database = Database::create().await;
        let notify = if hearing == Hearing::Nothing { "off" } else { "on" };
        let settings = [("RIDEWIRE_NOTIFY", notify), ("RIDEWIRE_CHAT_GRACE", "0s")];
        let one = Server::with(&database, &settings).await;
        let two = Server::with(&database, &settings).await;
        let (rider, driver) = one.open_ride("ride").await;
        let mut readers = Vec::new();
        if hearing == Hearing::Everything {
            readers = vec![one.live(&driver, "ride").await, two.live(&rider, "ride").await];
        }
        let scene = Self { database, one, two, rider, driver, _readers: readers };
        scene.know().await;
        scene
    }

    async fn know(&self) {
        self.say(&self.rider).await;
        self.say(&self.driver).await;
    }

    async fn say(&self, user: &User) {
        let head = self.database.head("ride").await;
        assert_eq!(user.send("ride", "Hello").await["seq"], head + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_taken_off_the_ride_elsewhere_can_no_longer_write_and_who_joined_can() {
    for hearing in BOTH {
        let scene = Scene::set(hearing).await;
        let another = scene.one.driver("driver_2");
        another.send_named("ride", "Hello", "too early").await.problem(404, "ride_not_found");
        scene.know().await;
        scene.two.service().put_ride("ride", "rider_1", Some("driver_2")).await.expect(200);
        scene.driver.send_named("ride", "Hello", "too late").await.problem(404, "ride_not_found");
        scene.say(&another).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_that_was_closed_elsewhere_is_closed() {
    for hearing in BOTH {
        let scene = Scene::set(hearing).await;
        scene.two.service().set_status("ride", "cancelled").await.expect(200);
        scene.rider.send_named("ride", "Hello", "too late").await.problem(409, "chat_closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_elsewhere_is_not_sent_again() {
    for hearing in BOTH {
        let scene = Scene::set(hearing).await;
        for number in 0..10 {
            let (name, text) = (format!("m-{number}"), format!("message {number}"));
            let sent = scene.rider.on(&scene.two).send_named("ride", &text, &name).await.expect(201).json();
            let again = scene.rider.send_named("ride", &text, &name).await.expect(200).json();
            assert_eq!(again, sent);
            scene.rider.send_named("ride", "Other", &name).await.problem(409, "idempotency_conflict");
            scene.know().await;
            // Nothing was written there since, and the name was used all the same.
            assert_eq!(scene.rider.send_named("ride", &text, &name).await.expect(200).json()["id"], sent["id"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_do_not_hear_each_other_write_one_log_and_never_lock_each_other_out() {
    let scene = Scene::set(Hearing::Nothing).await;
    for number in 0..20 {
        scene.one.service().put_ride(&format!("ride_{number}"), "rider_1", Some("driver_1")).await.expect(201);
    }
    let mut sending = tokio::task::JoinSet::new();
    for (part, user) in [scene.rider.clone(), scene.driver.on(&scene.two)].into_iter().cycle().take(16).enumerate() {
        sending.spawn(async move {
            for number in 0..50 {
                // Each begins elsewhere, and some meet.
                let ride = format!("ride_{}", (part * 7 + number * (part + 1)) % 20);
                user.send(&ride, "Hello").await;
            }
        });
    }
    sending.join_all().await;
    let client = scene.database.client().await;
    let row = client
        .query_one(
            "select count(*), count(*) filter (where seq <> place) from (select seq, row_number() over (partition by topic \
             order by seq) as place from events where topic ~ '^ride/ride_') as numbered",
            &[],
        )
        .await
        .unwrap();
    let (events, misplaced): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!((events, misplaced), (16 * 50 + 20, 0));
    // Postgres counts what it had to break up, a moment later.
    client.batch_execute("select pg_stat_force_next_flush()").await.unwrap();
    let query = "select deadlocks from pg_stat_database where datname = current_database()";
    let deadlocks: i64 = client.query_one(query, &[]).await.unwrap().get(0);
    assert_eq!(deadlocks, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_grow_with_seq_whoever_writes() {
    for hearing in BOTH {
        let scene = Scene::set(hearing).await;
        for number in 0..30 {
            let user = if number % 3 == 0 { scene.rider.on(&scene.two) } else { scene.rider.clone() };
            user.post("messages", json!({"rideId": "ride", "content": "Hello"})).await.expect(201);
        }
        let history = scene.rider.history("ride", "?limit=100").await;
        let mut messages: Vec<(i64, String)> =
            history["messages"].as_array().unwrap().iter().map(place_and_time).collect();
        messages.sort_unstable();
        let times: Vec<_> = messages.iter().map(|(_, time)| time).collect();
        assert!(times.is_sorted(), "{times:?}");
        assert!(times.len() > 30);
    }
}

fn place_and_time(message: &Value) -> (i64, String) {
    (message["seq"].as_i64().unwrap(), message["createdAt"].as_str().unwrap().to_owned())
}

/// A database that has lost its last commits goes on to where its log ended before, with other events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_ends_where_it_did_with_another_event_is_not_taken_for_the_one_that_is_known() {
    const TABLES: [&str; 6] = ["topics", "events", "rides", "participants", "receipts", "messages"];
    let scene = Scene::set(Hearing::Nothing).await;
    let client = scene.database.client().await;
    for table in TABLES {
        client.batch_execute(&format!("create table kept_{table} as table {table}")).await.unwrap();
    }
    scene.one.service().put_ride("ride", "rider_1", Some("driver_2")).await.expect(200);
    let lost = scene.one.driver("driver_2");
    for _ in 0..3 {
        scene.say(&lost).await;
    }
    let head = scene.database.head("ride").await;
    let restored = TABLES.map(|table| format!("truncate {table}; insert into {table} table kept_{table};")).concat();
    client.batch_execute(&format!("begin; {restored} commit")).await.unwrap();
    let kept = scene.driver.on(&scene.two);
    while scene.database.head("ride").await < head {
        scene.say(&kept).await;
    }
    lost.send_named("ride", "Hello", "not on the ride").await.problem(404, "ride_not_found");
    scene.know().await;
}
