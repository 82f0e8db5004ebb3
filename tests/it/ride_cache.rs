//! The writer's ride cache: a stale entry causes a conflict and a retry, never a wrong result, with and without notifications.

use serde_json::{Value, json};

use crate::support::{Database, Server, Stream, User};

/// Whether the two replicas receive each other's notifications.
#[derive(Clone, Copy, PartialEq)]
enum Notifications {
    Off,
    /// On, with a reader of the ride on both replicas.
    On,
}

const BOTH: [Notifications; 2] = [Notifications::Off, Notifications::On];

/// Two replicas and a ride in the cache of the first one.
struct Fixture {
    database: Database,
    one: Server,
    two: Server,
    rider: User,
    driver: User,
    _readers: Vec<Stream>,
}

impl Fixture {
    async fn new(notifications: Notifications) -> Self {
        let database = Database::create().await;
        let notify = if notifications == Notifications::Off { "off" } else { "on" };
        let settings = [("RIDEWIRE_NOTIFY", notify), ("RIDEWIRE_CHAT_GRACE", "0s")];
        let one = Server::start_with(&database, &settings).await;
        let two = Server::start_with(&database, &settings).await;
        let (rider, driver) = one.open_ride("ride").await;
        let mut readers = Vec::new();
        if notifications == Notifications::On {
            readers = vec![one.live_stream(&driver, "ride").await, two.live_stream(&rider, "ride").await];
        }
        let fixture = Self { database, one, two, rider, driver, _readers: readers };
        fixture.fill_cache().await;
        fixture
    }

    async fn fill_cache(&self) {
        self.send(&self.rider).await;
        self.send(&self.driver).await;
    }

    async fn send(&self, user: &User) {
        let head = self.database.head("ride").await;
        assert_eq!(user.send("ride", "Hello").await["seq"], head + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn participants_removed_or_added_on_another_replica_lose_or_get_write_access() {
    for notifications in BOTH {
        let fixture = Fixture::new(notifications).await;
        let another = fixture.one.driver("driver_2");
        another.send_with_id("ride", "Hello", "before joining").await.problem(404, "ride_not_found");
        fixture.fill_cache().await;
        fixture.two.service().put_ride("ride", "rider_1", Some("driver_2")).await.expect(200);
        fixture.driver.send_with_id("ride", "Hello", "after the change").await.problem(404, "ride_not_found");
        fixture.send(&another).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_closed_on_another_replica_is_closed() {
    for notifications in BOTH {
        let fixture = Fixture::new(notifications).await;
        fixture.two.service().set_status("ride", "cancelled").await.expect(200);
        fixture.rider.send_with_id("ride", "Hello", "after the change").await.problem(409, "chat_closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_on_another_replica_creates_no_second_message() {
    for notifications in BOTH {
        let fixture = Fixture::new(notifications).await;
        for number in 0..10 {
            let (id, text) = (format!("m-{number}"), format!("message {number}"));
            let sent = fixture.rider.on(&fixture.two).send_with_id("ride", &text, &id).await.expect(201).json();
            let again = fixture.rider.send_with_id("ride", &text, &id).await.expect(200).json();
            assert_eq!(again, sent);
            fixture.rider.send_with_id("ride", "Other", &id).await.problem(409, "idempotency_conflict");
            fixture.fill_cache().await;
            // The cached ride is current, and the `clientMessageId` is used.
            assert_eq!(fixture.rider.send_with_id("ride", &text, &id).await.expect(200).json()["id"], sent["id"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_without_notifications_write_one_log_without_deadlocks() {
    let fixture = Fixture::new(Notifications::Off).await;
    for number in 0..20 {
        fixture.one.service().put_ride(&format!("ride_{number}"), "rider_1", Some("driver_1")).await.expect(201);
    }
    let mut sending = tokio::task::JoinSet::new();
    for (part, user) in
        [fixture.rider.clone(), fixture.driver.on(&fixture.two)].into_iter().cycle().take(16).enumerate()
    {
        sending.spawn(async move {
            for number in 0..50 {
                // Each task uses the rides in another order; some use the same ride at the same time.
                let ride = format!("ride_{}", (part * 7 + number * (part + 1)) % 20);
                user.send(&ride, "Hello").await;
            }
        });
    }
    sending.join_all().await;
    let client = fixture.database.client().await;
    let row = client
        .query_one(
            "select count(*), count(*) filter (where seq <> expected) from (select seq, row_number() over (partition by topic \
             order by seq) as expected from events where topic ~ '^ride/ride_') as numbered",
            &[],
        )
        .await
        .unwrap();
    let (events, misplaced): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!((events, misplaced), (16 * 50 + 20, 0));
    // Postgres flushes its statistics with a delay.
    client.batch_execute("select pg_stat_force_next_flush()").await.unwrap();
    let query = "select deadlocks from pg_stat_database where datname = current_database()";
    let deadlocks: i64 = client.query_one(query, &[]).await.unwrap().get(0);
    assert_eq!(deadlocks, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_grow_with_seq_on_any_replica() {
    for notifications in BOTH {
        let fixture = Fixture::new(notifications).await;
        for number in 0..30 {
            let user = if number % 3 == 0 { fixture.rider.on(&fixture.two) } else { fixture.rider.clone() };
            user.post("messages", json!({"rideId": "ride", "content": "Hello"})).await.expect(201);
        }
        let history = fixture.rider.history("ride", "?limit=100").await;
        let mut messages: Vec<(i64, String)> =
            history["messages"].as_array().unwrap().iter().map(seq_and_time).collect();
        messages.sort_unstable();
        let times: Vec<_> = messages.iter().map(|(_, time)| time).collect();
        assert!(times.is_sorted(), "{times:?}");
        assert!(times.len() > 30);
    }
}

fn seq_and_time(message: &Value) -> (i64, String) {
    (message["seq"].as_i64().unwrap(), message["createdAt"].as_str().unwrap().to_owned())
}

/// A database loses its last commits, and its log grows to the previous head with other events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_log_with_the_same_head_invalidates_the_cached_ride() {
    const TABLES: [&str; 6] = ["topics", "events", "rides", "participants", "receipts", "messages"];
    let fixture = Fixture::new(Notifications::Off).await;
    let client = fixture.database.client().await;
    for table in TABLES {
        client.batch_execute(&format!("create table kept_{table} as table {table}")).await.unwrap();
    }
    fixture.one.service().put_ride("ride", "rider_1", Some("driver_2")).await.expect(200);
    let removed = fixture.one.driver("driver_2");
    for _ in 0..3 {
        fixture.send(&removed).await;
    }
    let head = fixture.database.head("ride").await;
    let restored = TABLES.map(|table| format!("truncate {table}; insert into {table} table kept_{table};")).concat();
    client.batch_execute(&format!("begin; {restored} commit")).await.unwrap();
    let kept = fixture.driver.on(&fixture.two);
    while fixture.database.head("ride").await < head {
        fixture.send(&kept).await;
    }
    removed.send_with_id("ride", "Hello", "not on the ride").await.problem(404, "ride_not_found");
    fixture.fill_cache().await;
}
