//! A COMMIT in doubt, and another change before the writer has determined its outcome.
//!
//! The message is deleted on another replica, the COMMIT arrives late, the log is trimmed, or the database is replaced.

use ridewire::store::sql;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::commits::Setup;
use crate::fixtures::{Log, ride_log};
use crate::proxy::{Cut, Step};
use crate::support::{Database, Response, User, block_message_insert, eventually, until_waiting_for_locks};

/// Sends a message without a `clientMessageId`. Only the outcome of its commit determines whether the writer may retry.
fn send(rider: &User, ride: &str, content: &str) -> JoinHandle<Response> {
    let (rider, body) = (rider.clone(), json!({"rideId": ride, "content": content}));
    tokio::spawn(async move { rider.post("messages", body).await })
}

/// Returns the message with this content.
fn find<'a>(log: &'a Log, content: &str) -> &'a Value {
    log.messages().find(|message| message["content"] == content).expect("it is committed")
}

/// Reads a ride's log in which messages may have been deleted.
async fn ride_log_with_deletions(database: &Database, ride: &str) -> Log {
    let query = "select seq, type, data from events where topic = 'ride/' || $1 order by seq";
    let rows = database.client().await.query(query, &[&ride]).await.unwrap();
    let data = |data: &str| serde_json::from_str(data).unwrap();
    let log = Log(rows.iter().map(|row| (row.get(0), row.get(1), data(row.get(2)))).collect());
    assert!(log.0.iter().map(|(seq, ..)| *seq).eq(1..=database.head(ride).await), "the log has no holes");
    log
}

async fn wait_for_pause(paused: oneshot::Receiver<()>) {
    paused.await.expect("the writer reaches the step");
}

/// Loses the response to a message's COMMIT, and deletes the message on another replica before the writer determines
/// the outcome.
async fn delete_in_doubt(setup: &Setup, database: &Database, ride: &str, content: &str) -> (Value, Response) {
    let (injected, paused) = setup.proxy.cut_at_commit_and_pause(Cut::After, Step::Begin(0));
    let sending = send(&setup.rider, ride, content);
    injected.await.unwrap();
    wait_for_pause(paused).await;
    let log = ride_log_with_deletions(database, ride).await;
    let message = find(&log, content);
    setup.rider.on(&setup.other).delete_message(message).await.expect(204);
    setup.proxy.resume();
    (message.clone(), sending.await.unwrap())
}

/// Checks that the response acknowledges the deleted message and that its content is stored nowhere.
async fn assert_erased(database: &Database, ride: &str, (message, response): (Value, Response)) {
    assert_eq!(response.expect(201).json()["id"], message["id"]);
    let log = ride_log_with_deletions(database, ride).await;
    assert_eq!(log.messages().filter(|logged| logged["id"] == message["id"]).count(), 1);
    assert_eq!(log.seqs_of("message:deleted").last(), Some(&log.head()), "nothing is stored after its deletion");
    assert!(!database.contents().await.contains(message["content"].as_str().unwrap()), "the content was stored again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_deleted_on_another_replica_while_its_commit_is_in_doubt_stays_deleted() {
    let database = Database::create().await;
    let setup = Setup::new(&database).await;
    for round in 0..3 {
        setup.rider.send("ride", "load the ride into the cache").await;
        let outcome = delete_in_doubt(&setup, &database, "ride", &format!("to be erased, round {round}")).await;
        assert_erased(&database, "ride", outcome).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_the_locking_path_deleted_while_in_doubt_stays_deleted() {
    let database = Database::create().await;
    let setup = Setup::new(&database).await;
    for round in 0..3 {
        // A new ride is not in the cache, so the send takes the locking path.
        let ride = format!("new_{round}");
        setup.server.open_ride(&ride).await;
        let outcome = delete_in_doubt(&setup, &database, &ride, &format!("to be erased, round {round}")).await;
        assert_erased(&database, &ride, outcome).await;
    }
}

/// A transaction is committed as a whole, so one of its events proves the commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_event_of_a_batch_of_the_locking_path_proves_its_commit() {
    let database = Database::create().await;
    let setup = Setup::new(&database).await;
    for ride in ["one", "two", "a", "b"] {
        setup.server.open_ride(ride).await;
    }
    // While two batches of cached rides are blocked, two messages on uncached rides queue for a third batch.
    for ride in ["one", "two"] {
        setup.rider.send(ride, "load the ride into the cache").await;
    }
    let observer = database.client().await;
    let mut elsewhere = [database.client().await, database.client().await];
    let [one, two] = &mut elsewhere;
    let blockers = [block_message_insert(one, "one", "a name").await, block_message_insert(two, "two", "a name").await];
    let send_with_id = |ride: &'static str| {
        let rider = setup.rider.clone();
        tokio::spawn(async move { rider.send_with_id(ride, "Hello", "a name").await })
    };
    let first = send_with_id("one");
    until_waiting_for_locks(&observer, 1).await;
    let second = send_with_id("two");
    until_waiting_for_locks(&observer, 2).await;
    let (injected, paused) = setup.proxy.cut_at_commit_and_pause(Cut::After, Step::Begin(0));
    let sent = [send(&setup.rider, "a", "to be erased"), send(&setup.rider, "b", "to stay")];
    for ride in ["a", "b"] {
        // The response to a later request shows that the server has read the sends.
        setup.rider.history(ride, "").await;
    }
    for blocker in blockers {
        blocker.rollback().await.unwrap();
    }
    injected.await.unwrap();
    wait_for_pause(paused).await;
    let log = ride_log(&database, "a").await;
    let erased = find(&log, "to be erased");
    setup.rider.on(&setup.other).delete_message(erased).await.expect(204);
    setup.proxy.resume();
    for sent in [first, second] {
        sent.await.unwrap().expect(201);
    }
    let [on_a, on_b] = sent;
    assert_erased(&database, "a", (erased.clone(), on_a.await.unwrap())).await;
    let log = ride_log_with_deletions(&database, "b").await;
    assert_eq!(on_b.await.unwrap().expect(201).json()["id"], find(&log, "to stay")["id"]);
    assert_eq!(log.count("message:new"), 1);
}

/// The COMMIT arrives before the writer queries the outcome, after that query (if it is a transaction of its own), or
/// during the retry. The retry holds the lock of the topic, so the late COMMIT conflicts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_commit_is_stored_once_whenever_it_arrives() {
    let database = Database::create().await;
    let mut setup = Setup::new(&database).await;
    let mut responses = Vec::new();
    for step in [Step::Begin(0), Step::Begin(1), Step::Commit] {
        setup.rider.send("ride", "load the ride into the cache").await;
        let content = format!("late, by {step:?}");
        let (injected, paused) = setup.proxy.cut_at_commit_and_pause(Cut::Late, step);
        let mut sending = send(&setup.rider, "ride", &content);
        injected.await.unwrap();
        let response = tokio::select! {
            _ = paused => {
                setup.proxy.release().await;
                setup.proxy.resume();
                sending.await
            }
            response = &mut sending => {
                setup.proxy.release().await;
                response
            }
        };
        responses.push((content, response.unwrap()));
    }
    let (created, _) = setup.check(&database, &responses).await;
    assert_eq!(created, 3);
}

/// The commit of the retry is in doubt as well. There is only one retry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retried_commit_that_is_in_doubt_again_is_stored_once() {
    let database = Database::create().await;
    let mut setup = Setup::new(&database).await;
    let mut responses = Vec::new();
    for (round, second) in [Cut::After, Cut::Before].into_iter().enumerate() {
        setup.rider.send("ride", "load the ride into the cache").await;
        let content = format!("twice in doubt, round {round}");
        let (injected, paused) = setup.proxy.cut_at_commit_and_pause(Cut::Before, Step::Begin(0));
        let sending = send(&setup.rider, "ride", &content);
        injected.await.unwrap();
        wait_for_pause(paused).await;
        let injected = setup.proxy.cut_at_commit(second);
        setup.proxy.resume();
        injected.await.unwrap();
        responses.push((content, sending.await.unwrap()));
    }
    let statuses: Vec<_> = responses.iter().map(|(_, response)| response.status.as_u16()).collect();
    assert_eq!(statuses, [201, 503], "the retry that was stored is acknowledged");
    setup.check(&database, &responses).await;
}

/// The event stays as it was first sent, not as the retry would have stored it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_commit_is_stored_once_when_the_retry_is_lost() {
    let database = Database::create().await;
    let mut setup = Setup::new(&database).await;
    setup.rider.send("ride", "load the ride into the cache").await;
    let (injected, paused) = setup.proxy.cut_at_commit_and_pause(Cut::Late, Step::Begin(0));
    let sending = send(&setup.rider, "ride", "late");
    injected.await.unwrap();
    wait_for_pause(paused).await;
    let (injected, paused) = setup.proxy.cut_at_commit_and_pause(Cut::Before, Step::Begin(0));
    setup.proxy.resume();
    injected.await.unwrap();
    wait_for_pause(paused).await;
    setup.proxy.release().await;
    setup.proxy.resume();
    let response = sending.await.unwrap();
    assert_eq!(response.status, 503, "the result of the retry is not returned");
    let log = ride_log(&database, "ride").await;
    find(&log, "late");
    setup.check(&database, &[("late".to_owned(), response)]).await;
}

/// A batch without ride events. The user topics show whether it was committed, also those that the batch has created.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_whose_commit_is_late_is_stored_once() {
    let database = Database::create().await;
    let setup = Setup::new(&database).await;
    let observer = database.client().await;
    let injected = setup.proxy.cut_at_commit(Cut::Late);
    let service = setup.server.service();
    let broadcasting = tokio::spawn(async move { service.broadcast(&["existing", "new"], json!({})).await });
    injected.await.unwrap();
    until_waiting_for_locks(&observer, 1).await;
    setup.proxy.release().await;
    let response = broadcasting.await.unwrap();
    assert!([202, 503].contains(&response.status.as_u16()), "{} {}", response.status, response.text());
    for user in ["existing", "new"] {
        let notices = observer.query("select from events where topic = 'user/' || $1", &[&user]).await.unwrap();
        assert_eq!(notices.len(), 1, "{user}");
    }
}

/// Without proof of the outcome, the sender gets a 503.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_in_doubt_whose_events_are_trimmed_returns_503_and_is_not_retried() {
    let database = Database::create().await;
    let setup = Setup::new(&database).await;
    let client = database.client().await;
    for is_cached in [false, true] {
        let ride = format!("cached_{is_cached}");
        setup.server.open_ride(&ride).await;
        if is_cached {
            setup.rider.send(&ride, "load the ride into the cache").await;
        }
        let (injected, paused) = setup.proxy.cut_at_commit_and_pause(Cut::After, Step::Begin(0));
        let sending = send(&setup.rider, &ride, "trimmed");
        injected.await.unwrap();
        wait_for_pause(paused).await;
        // Another message is stored, and the log before it is deleted.
        setup.rider.on(&setup.other).send(&ride, "later").await;
        let head = database.head(&ride).await;
        client.execute("delete from events where topic = 'ride/' || $1 and seq < $2", &[&ride, &head]).await.unwrap();
        setup.proxy.resume();
        sending.await.unwrap().problem(503, "unavailable");
        assert_eq!(database.head(&ride).await, head, "it was not stored again");
    }
}

const TABLES: [&str; 6] = ["topics", "events", "rides", "participants", "receipts", "messages"];

/// The cache may describe a database that was replaced, even if a commit in doubt is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_state_of_commits_lost_in_a_failover_is_not_used() {
    let database = Database::create().await;
    let setup = Setup::new(&database).await;
    let client = database.client().await;
    setup.server.open_ride("changed").await;
    for ride in ["changed", "ride"] {
        setup.rider.send(ride, "load the ride into the cache").await;
    }
    let (injected, paused) = setup.proxy.cut_at_commit_and_pause(Cut::After, Step::Begin(0));
    let in_doubt = send(&setup.rider, "ride", "in doubt");
    injected.await.unwrap();
    wait_for_pause(paused).await;
    // The standby has everything until here. Later commits are lost with the primary.
    for table in TABLES {
        client.batch_execute(&format!("create table standby_{table} as table {table}")).await.unwrap();
    }
    setup.server.service().put_ride("changed", "rider_1", Some("driver_2")).await.expect(200);
    let lost = setup.server.driver("driver_2");
    for _ in 0..3 {
        lost.send("changed", "lost").await;
    }
    let head = database.head("changed").await;
    let fail_over: Vec<_> =
        TABLES.map(|table| format!("truncate {table}; insert into {table} table standby_{table}")).into();
    client.batch_execute(&format!("begin; {}; commit", fail_over.join("; "))).await.unwrap();
    let kept = setup.other.driver("driver_1");
    while database.head("changed").await < head {
        kept.send("changed", "after the failover").await;
    }
    setup.proxy.resume();
    in_doubt.await.unwrap().expect(201);
    lost.send_with_id("changed", "not theirs", "a name").await.problem(404, "ride_not_found");
    assert_eq!(database.head("changed").await, head);
}

/// A batch of the locking path is stored completely or not at all, also if a topic cannot be locked. Here, retention
/// deletes the ride between the creation of its topic and the lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ride_deleted_by_retention_during_a_put_is_created_again_completely() {
    let database = Database::create().await;
    let setup = Setup::new(&database).await;
    let client = database.client().await;
    setup.server.open_ride("old").await;
    let age = "update rides set status = 'completed', ended_at = 'epoch', closed_at = 'epoch', log_is_trimmed = true
               where ride_id = 'old';
               delete from events where topic = 'ride/old'";
    client.batch_execute(age).await.unwrap();
    let paused = setup.proxy.pause_at(Step::Lock);
    let service = setup.server.service();
    let putting = tokio::spawn(async move { service.put_ride("old", "rider_1", Some("driver_2")).await });
    wait_for_pause(paused).await;
    let created_topic = "select from pg_stat_activity
                where datname = current_database() and state = 'idle in transaction' and query like '-- Creates topics that%'";
    eventually("its topic is created", async || client.query_opt(created_topic, &[]).await.unwrap()).await;
    let deleted = client.execute(sql::RIDES_DELETE, &[&0_f64]).await.unwrap();
    assert_eq!(deleted, 1, "retention deletes it");
    setup.proxy.resume();
    let response = putting.await.unwrap();
    let log = ride_log(&database, "old").await;
    assert_eq!(log.kinds(), ["ride:participants"]);
    assert_eq!(response.expect(201).json()["driverId"], "driver_2");
    let assigned = "select from events where topic = 'user/driver_2'";
    assert_eq!(client.query(assigned, &[]).await.unwrap().len(), 1, "each user gets one event");
}
