//! Faults at COMMIT: the response or the COMMIT itself is lost. The sender gets the actual outcome, or a 503.

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::fixtures::{START, ride_log};
use crate::proxy::{Cut, Proxy};
use crate::support::{
    Cluster, Database, Response, Server, Stream, TIMEOUT, User, block_message_insert, eventually,
    until_waiting_for_locks,
};

/// Requests have a long timeout, so the outcome of a commit is determined wherever that is possible.
const LONG_TIMEOUT: Settings = [("RIDEWIRE_FALLBACK_POLL", "500ms"), ("RIDEWIRE_DATABASE_TIMEOUT", "60s")];

/// Requests have a short timeout, for tests in which the outcome cannot be determined.
const SHORT_TIMEOUT: Settings = [("RIDEWIRE_FALLBACK_POLL", "500ms"), ("RIDEWIRE_DATABASE_TIMEOUT", "4s")];

type Settings = [(&'static str, &'static str); 2];

/// A replica behind a proxy, a replica without one, and a reader on each.
pub(crate) struct Setup {
    pub(crate) proxy: Proxy,
    pub(crate) server: Server,
    pub(crate) other: Server,
    pub(crate) rider: User,
    pub(crate) streams: [Stream; 2],
}

impl Setup {
    pub(crate) async fn new(database: &Database) -> Self {
        Self::with_settings(database, &LONG_TIMEOUT).await
    }

    pub(crate) async fn with_settings(database: &Database, settings: &[(&str, &str)]) -> Self {
        let proxy = Proxy::start(&database.url).await;
        let through = [("DATABASE_URL", proxy.url()), ("RIDEWIRE_LISTEN_DATABASE_URL", database.url.clone())];
        let mut through: Vec<_> = through.iter().map(|(name, value)| (*name, value.as_str())).collect();
        // The relay of the feed commits as well. Without this, its commit could be cut in place of that of a batch.
        through.push(("RIDEWIRE_FEED", "off"));
        through.extend(settings);
        let server = Server::start_with(database, &through).await;
        let other = Server::start_with(database, settings).await;
        let (rider, driver) = server.open_ride("ride").await;
        assert_eq!(database.head("ride").await, START);
        let mut streams =
            [driver.stream("ride", "types=message:*").await, driver.on(&other).stream("ride", "types=message:*").await];
        for stream in &mut streams {
            stream.next_sync().await;
        }
        // Presence is committed as well: the driver has a row on the ride and a row among the drivers, on each replica.
        let client = database.client().await;
        eventually("the readers are registered", async || {
            let row = client.query_one("select count(*) from presence", &[]).await.unwrap();
            (row.get::<_, i64>(0) == 4).then_some(())
        })
        .await;
        Self { proxy, server, other, rider, streams }
    }

    /// Sends ten messages concurrently and cuts the first commit among them. Without a `clientMessageId`, only the outcome
    /// of the commit determines whether the writer may retry.
    async fn send_while_cut(&mut self, round: usize, cut: Cut) -> Vec<(String, Response)> {
        let injected = self.proxy.cut_at_commit(cut);
        let mut sends = JoinSet::new();
        for number in 0..10 {
            let (rider, content) = (self.rider.clone(), format!("round {round}, message {number}"));
            sends.spawn(async move {
                let body = serde_json::json!({"rideId": "ride", "content": content});
                (content, rider.post("messages", body).await)
            });
        }
        let responses = sends.join_all().await;
        timeout(TIMEOUT, injected).await.expect("a commit passes the proxy").expect("its connection is cut");
        responses
    }

    /// Checks that a 201 is stored once, a 503 at most once, and that each reader received exactly the log.
    pub(crate) async fn check(&mut self, database: &Database, responses: &[(String, Response)]) -> (usize, usize) {
        // This send completes after all pending commits, and its delivery includes all earlier events.
        self.rider.on(&self.other).send("ride", "the last one").await;
        let (mut created, mut unknown) = (0, 0);
        let head = database.head("ride").await;
        let log = ride_log(database, "ride").await;
        for (content, response) in responses {
            let stored = log.messages().filter(|message| message["content"] == **content).count();
            match response.status.as_u16() {
                201 => {
                    created += 1;
                    assert_eq!(stored, 1, "{content}: acknowledged once");
                    let message = response.json();
                    assert!(
                        log.messages().any(|logged| logged["id"] == message["id"] && logged["seq"] == message["seq"])
                    );
                }
                503 => {
                    unknown += 1;
                    assert!(!response.header("retry-after").is_empty());
                    assert!(stored <= 1, "{content}: {stored} times");
                }
                _ => panic!("{content}: {} {}", response.status, response.text()),
            }
        }
        for stream in &mut self.streams {
            let mut seqs = Vec::new();
            while seqs.last().is_none_or(|last| *last < head) {
                seqs.push(stream.next_event().await.seq());
            }
            assert_eq!(seqs, (START + 1..=head).collect::<Vec<_>>());
        }
        // A repeated event would arrive before this one.
        let next = self.rider.on(&self.other).send("ride", "one more").await;
        for stream in &mut self.streams {
            assert_eq!(stream.next_event().await.data["id"], next["id"]);
        }
        (created, unknown)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_response_is_lost_is_acknowledged_and_stored_once() {
    let database = Database::create().await;
    let mut setup = Setup::new(&database).await;
    let mut responses = Vec::new();
    for round in 0..5 {
        responses.extend(setup.send_while_cut(round, Cut::After).await);
    }
    let (created, unknown) = setup.check(&database, &responses).await;
    assert_eq!((created, unknown), (50, 0), "each outcome can be determined");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_does_not_arrive_is_retried() {
    let database = Database::create().await;
    let mut setup = Setup::new(&database).await;
    let mut responses = Vec::new();
    for round in 0..5 {
        responses.extend(setup.send_while_cut(round, Cut::Before).await);
    }
    let (created, unknown) = setup.check(&database, &responses).await;
    assert_eq!((created, unknown), (50, 0), "each outcome can be determined");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_may_have_arrived_is_stored_at_most_once() {
    let database = Database::create().await;
    let mut setup = Setup::new(&database).await;
    let mut responses = Vec::new();
    for round in 0..10 {
        responses.extend(setup.send_while_cut(round, Cut::During).await);
    }
    let (created, _) = setup.check(&database, &responses).await;
    assert!(created > 50, "too few outcomes were determined: {created}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_outcome_stays_unknown_returns_503_and_is_delivered_if_it_happened() {
    let database = Database::create().await;
    let mut setup = Setup::with_settings(&database, &SHORT_TIMEOUT).await;
    let rider = setup.rider.clone();
    // The outcome cannot be queried either.
    let injected = setup.proxy.close_at_commit(Cut::After);
    let sending = tokio::spawn(async move { rider.send_with_id("ride", "unknown outcome", "a name").await });
    injected.await.unwrap();
    setup.proxy.cut();
    let response = sending.await.unwrap();
    assert!(!response.header("retry-after").is_empty());
    response.problem(503, "unavailable");
    setup.proxy.open();
    for stream in &mut setup.streams {
        let event = stream.next_of_type("message:new").await;
        assert_eq!((event.seq(), &event.data["content"]), (START + 1, &"unknown outcome".into()));
    }
    let again = eventually("the server is back", async || {
        let again = setup.rider.send_with_id("ride", "unknown outcome", "a name").await;
        (again.status != 503).then_some(again)
    })
    .await;
    let again = again.expect(200).json();
    assert_eq!(again["seq"], START + 1);
    assert_eq!(ride_log(&database, "ride").await.count("message:new"), 1);
    assert!(setup.server.log().contains("commit outcome unknown"));
}

/// A batch of the optimistic path whose COMMIT arrives long after its sender has retried it elsewhere and sent more.
///
/// The late COMMIT conflicts and stores nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_commit_after_a_retry_conflicts_and_stores_nothing() {
    let database = Database::create().await;
    let mut setup = Setup::new(&database).await;
    let mut responses = Vec::new();
    for round in 0..5 {
        // The first send loads the ride into the cache, so the next ones take the optimistic path.
        setup.rider.send("ride", &format!("round {round} begins")).await;
        let before = database.head("ride").await;
        responses.extend(setup.send_while_cut(round, Cut::Late).await);
        let after = database.head("ride").await;
        assert_eq!(after - before, 10, "each is stored");
        setup.proxy.release().await;
        assert_eq!(database.head("ride").await, after, "nothing else is stored");
    }
    let (created, unknown) = setup.check(&database, &responses).await;
    assert_eq!((created, unknown), (50, 0), "each outcome can be determined");
}

/// The same without a retry. The late COMMIT may then succeed, and its sender has got a 503.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_commit_after_a_503_is_stored_once() {
    let database = Database::create().await;
    let mut setup = Setup::with_settings(&database, &SHORT_TIMEOUT).await;
    setup.rider.send("ride", "load the ride into the cache").await;
    let rider = setup.rider.clone();
    let injected = setup.proxy.close_at_commit(Cut::Late);
    let sending = tokio::spawn(async move { rider.send_with_id("ride", "unknown outcome", "a name").await });
    injected.await.unwrap();
    sending.await.unwrap().problem(503, "unavailable");
    setup.proxy.release().await;
    setup.proxy.open();
    let again = eventually("the server is back", async || {
        let again = setup.rider.send_with_id("ride", "unknown outcome", "a name").await;
        (again.status != 503).then_some(again)
    })
    .await;
    assert_eq!(again.expect(200).json()["seq"], START + 2);
    assert_eq!(ride_log(&database, "ride").await.count("message:new"), 2);
    let responses = [];
    setup.check(&database, &responses).await;
}

/// Sends messages on two rides in one batch whose COMMIT is cut. Before that, `hidden_change` changes the second ride
/// without a notification to the replica.
async fn send_on_both(setup: &Setup, database: &Database, cut: Cut, hidden_change: &str) -> [Response; 2] {
    for ride in ["other", "one", "two"] {
        setup.server.open_ride(ride).await;
    }
    // The first sends load the rides into the cache, so the next ones take the optimistic path.
    for ride in ["ride", "other", "one", "two"] {
        setup.rider.send(ride, "load the ride into the cache").await;
    }
    let send = |ride: &'static str| {
        let rider = setup.rider.clone();
        tokio::spawn(async move { rider.send_with_id(ride, "Hello", "a name").await })
    };
    // While two batches are in flight and blocked, two messages queue for a third one.
    let observer = database.client().await;
    let mut elsewhere = [database.client().await, database.client().await];
    let [one, two] = &mut elsewhere;
    let blockers = [block_message_insert(one, "one", "a name").await, block_message_insert(two, "two", "a name").await];
    let first = send("one");
    until_waiting_for_locks(&observer, 1).await;
    let second = send("two");
    until_waiting_for_locks(&observer, 2).await;
    let injected = setup.proxy.cut_at_commit(cut);
    let sent = [send("ride"), send("other")];
    for ride in ["ride", "other"] {
        // The response to a later request shows that the server has read the sends.
        setup.rider.history(ride, "").await;
    }
    observer.batch_execute(hidden_change).await.unwrap();
    for blocker in blockers {
        blocker.rollback().await.unwrap();
    }
    injected.await.unwrap();
    for sent in [first, second] {
        sent.await.unwrap().expect(201);
    }
    let [on_ride, on_other] = sent;
    [on_ride.await.unwrap(), on_other.await.unwrap()]
}

/// The retry writes to one ride and is rejected on the other one. There, the first COMMIT may still succeed, so its
/// sender gets a 503.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_commit_conflicts_only_if_part_of_the_batch_was_retried() {
    let database = Database::create().await;
    let setup = Setup::new(&database).await;
    // The ride is closed, but the log has no new event. No replica writes this state, and none changes it. (A ride that is only due
    // to close would be closed during the test.)
    let close = "update rides set status = 'cancelled', ended_at = 'epoch', rider_closes_at = 'epoch',
                 driver_closes_at = 'epoch', closed_at = 'epoch', closed_seq = 0 where ride_id = 'other'";
    let [on_ride, on_other] = send_on_both(&setup, &database, Cut::Late, close).await;
    assert_eq!(on_ride.expect(201).json()["seq"], START + 2);
    on_other.problem(503, "unavailable");
    setup.proxy.release().await;
    let again = setup.rider.send_with_id("other", "Hello", "a name").await.expect(200).json();
    assert_eq!(again["seq"], START + 2, "the late commit succeeded");
    is_stored_once(&database).await;
}

/// The rest of the batch is not stored twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_conflicting_part_of_a_batch_is_retried_after_a_lost_response() {
    let database = Database::create().await;
    let setup = Setup::new(&database).await;
    let write = "update topics set last_seq = last_seq + 1 where name = 'ride/other';
        insert into events (topic, seq, type, data, created_at)
        select name, last_seq, 'message:read', '{}', now() from topics where name = 'ride/other'";
    let [on_ride, on_other] = send_on_both(&setup, &database, Cut::After, write).await;
    assert_eq!(on_ride.expect(201).json()["seq"], START + 2);
    assert_eq!(on_other.expect(201).json()["seq"], START + 3);
    is_stored_once(&database).await;
}

async fn is_stored_once(database: &Database) {
    for ride in ["ride", "other"] {
        let log = ride_log(database, ride).await;
        assert_eq!(log.messages().filter(|message| message["content"] == "Hello").count(), 1, "on {ride}");
    }
}

/// After a crash, Postgres reuses transaction ids that had not reached the disk. If another transaction gets the id of
/// the lost one and commits, the lost one must not count as committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_lost_in_a_crash_is_not_confused_with_a_later_one_with_the_same_xid() {
    let mut cluster = Cluster::dedicated().await;
    let database = cluster.database();
    let setup = Setup::with_settings(&database, &SHORT_TIMEOUT).await;
    // Only commits write the WAL to disk, and there are few of them.
    let client = database.client().await;
    for setting in
        ["wal_writer_delay = '10s'", "wal_writer_flush_after = '1GB'", "autovacuum = off", "bgwriter_delay = '10s'"]
    {
        client.batch_execute(&format!("alter system set {setting}")).await.unwrap();
    }
    client.query("select pg_reload_conf()", &[]).await.unwrap();
    let next = "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    let mut reused = 0;
    for round in 0..3 {
        let client = database.client().await;
        let before: i64 = client.query_one(next, &[]).await.unwrap().get(0);
        let content = format!("round {round}");
        let injected = setup.proxy.close_at_commit(Cut::Before);
        let sending = tokio::spawn({
            let (rider, body) = (setup.rider.clone(), serde_json::json!({"rideId": "ride", "content": content}));
            async move { rider.post("messages", body).await }
        });
        injected.await.unwrap();
        cluster.restart_immediate().await;
        let client = database.client().await;
        let after: i64 = client.query_one(next, &[]).await.unwrap().get(0);
        // Other transactions take the ids that were used before the crash.
        for _ in 0..8 {
            client.query("select pg_current_xact_id()", &[]).await.unwrap();
        }
        setup.proxy.open();
        let response = sending.await.unwrap();
        eprintln!("the next transaction was {before}, and {after} after the crash; got {}", response.status);
        reused += usize::from(after <= before);
        let log = ride_log(&database, "ride").await;
        let stored = log.messages().filter(|message| message["content"] == *content).count();
        match response.status.as_u16() {
            201 => assert_eq!(stored, 1, "acknowledged but not stored"),
            503 => assert!(stored <= 1),
            _ => panic!("{} {}", response.status, response.text()),
        }
        eventually("the server is back", async || {
            let response = setup.rider.send_with_id("ride", "again", &format!("again {round}")).await;
            (response.status != 503).then_some(())
        })
        .await;
    }
    assert!(reused > 0, "no crash lost a transaction id");
}
