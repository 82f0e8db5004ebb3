//! A COMMIT in doubt, while something else happens before the writer has found out what became of it: the message is deleted
//! elsewhere, the COMMIT arrives late, the log is trimmed, the database is another one.

use ridewire::store::sql;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::commits::Scene;
use crate::proxy::{Cut, Step};
use crate::support::{Answer, Database, User, eventually, hold, until_waiting};
use crate::world::{Log, log_of};

/// Sends a message without a `clientMessageId`: nothing but the outcome of its commit can tell whether to send it again.
fn send(rider: &User, ride: &str, content: &str) -> JoinHandle<Answer> {
    let (rider, body) = (rider.clone(), json!({"rideId": ride, "content": content}));
    tokio::spawn(async move { rider.post("messages", body).await })
}

/// The message with this content.
fn find<'a>(log: &'a Log, content: &str) -> &'a Value {
    log.messages().find(|message| message["content"] == content).expect("it is committed")
}

/// A ride's log, in which messages may have been deleted.
async fn erased_log_of(database: &Database, ride: &str) -> Log {
    let query = "select seq, type, data from events where topic = 'ride/' || $1 order by seq";
    let rows = database.client().await.query(query, &[&ride]).await.unwrap();
    let data = |data: &str| serde_json::from_str(data).unwrap();
    let log = Log(rows.iter().map(|row| (row.get(0), row.get(1), data(row.get(2)))).collect());
    assert!(log.0.iter().map(|(seq, ..)| *seq).eq(1..=database.head(ride).await), "it has no holes");
    log
}

async fn reach(held: oneshot::Receiver<()>) {
    held.await.expect("the writer comes there");
}

/// Has a message's COMMIT answered to nobody, and the message deleted on another replica before the writer has found that out.
async fn delete_in_doubt(scene: &Scene, database: &Database, ride: &str, content: &str) -> (Value, Answer) {
    let (struck, held) = scene.proxy.cut_at_commit_and_hold(Cut::After, Step::Begin(0));
    let sending = send(&scene.rider, ride, content);
    struck.await.unwrap();
    reach(held).await;
    let log = erased_log_of(database, ride).await;
    let message = find(&log, content);
    scene.rider.on(&scene.other).erase(message).await.expect(204);
    scene.proxy.resume();
    (message.clone(), sending.await.unwrap())
}

/// That a message is acknowledged as the one that was deleted, and that what it said is nowhere.
async fn is_erased(database: &Database, ride: &str, (message, answer): (Value, Answer)) {
    assert_eq!(answer.expect(201).json()["id"], message["id"]);
    let log = erased_log_of(database, ride).await;
    assert_eq!(log.messages().filter(|logged| logged["id"] == message["id"]).count(), 1);
    assert_eq!(log.seqs_of("message:deleted").last(), Some(&log.head()), "nothing is stored after its deletion");
    assert!(!database.contents().await.contains(message["content"].as_str().unwrap()), "it was stored again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_deleted_elsewhere_while_its_commit_is_in_doubt_does_not_come_back() {
    let database = Database::create().await;
    let scene = Scene::set(&database).await;
    for round in 0..3 {
        scene.rider.send("ride", "so that the ride is known").await;
        let outcome = delete_in_doubt(&scene, &database, "ride", &format!("to be erased, round {round}")).await;
        is_erased(&database, "ride", outcome).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_was_stored_under_locks_and_is_deleted_while_in_doubt_does_not_come_back() {
    let database = Database::create().await;
    let scene = Scene::set(&database).await;
    for round in 0..3 {
        // Nothing is known of a new ride.
        let ride = format!("new_{round}");
        scene.server.open_ride(&ride).await;
        let outcome = delete_in_doubt(&scene, &database, &ride, &format!("to be erased, round {round}")).await;
        is_erased(&database, &ride, outcome).await;
    }
}

/// A transaction is committed as a whole: one of its events is enough to tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_batch_in_doubt_that_was_stored_under_locks_any_event_proves_the_commit() {
    let database = Database::create().await;
    let scene = Scene::set(&database).await;
    for ride in ["one", "two", "a", "b"] {
        scene.server.open_ride(ride).await;
    }
    // While two batches of known rides are held, two messages to unknown ones gather to a third.
    for ride in ["one", "two"] {
        scene.rider.send(ride, "so that the ride is known").await;
    }
    let observer = database.client().await;
    let mut elsewhere = [database.client().await, database.client().await];
    let [one, two] = &mut elsewhere;
    let held_up = [hold(one, "one", "a name").await, hold(two, "two", "a name").await];
    let send_named = |ride: &'static str| {
        let rider = scene.rider.clone();
        tokio::spawn(async move { rider.send_named(ride, "Hello", "a name").await })
    };
    let first = send_named("one");
    until_waiting(&observer, 1).await;
    let second = send_named("two");
    until_waiting(&observer, 2).await;
    let (struck, held) = scene.proxy.cut_at_commit_and_hold(Cut::After, Step::Begin(0));
    let sent = [send(&scene.rider, "a", "to be erased"), send(&scene.rider, "b", "to stay")];
    for ride in ["a", "b"] {
        // What is asked after them is answered after they have come.
        scene.rider.history(ride, "").await;
    }
    for hold in held_up {
        hold.rollback().await.unwrap();
    }
    struck.await.unwrap();
    reach(held).await;
    let log = log_of(&database, "a").await;
    let erased = find(&log, "to be erased");
    scene.rider.on(&scene.other).erase(erased).await.expect(204);
    scene.proxy.resume();
    for sent in [first, second] {
        sent.await.unwrap().expect(201);
    }
    let [on_a, on_b] = sent;
    is_erased(&database, "a", (erased.clone(), on_a.await.unwrap())).await;
    let log = erased_log_of(&database, "b").await;
    assert_eq!(on_b.await.unwrap().expect(201).json()["id"], find(&log, "to stay")["id"]);
    assert_eq!(log.count("message:new"), 1);
}

/// Before the writer looks, after it has looked (if that is a transaction of its own), and when it has stored it again: the topic
/// is locked then, so what arrives stores nothing there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_arrives_late_is_there_once_whenever_it_arrives() {
    let database = Database::create().await;
    let mut scene = Scene::set(&database).await;
    let mut answers = Vec::new();
    for step in [Step::Begin(0), Step::Begin(1), Step::Commit] {
        scene.rider.send("ride", "so that the ride is known").await;
        let content = format!("late, by {step:?}");
        let (struck, held) = scene.proxy.cut_at_commit_and_hold(Cut::Late, step);
        let mut sending = send(&scene.rider, "ride", &content);
        struck.await.unwrap();
        let answer = tokio::select! {
            _ = held => {
                scene.proxy.release().await;
                scene.proxy.resume();
                sending.await
            }
            answer = &mut sending => {
                scene.proxy.release().await;
                answer
            }
        };
        answers.push((content, answer.unwrap()));
    }
    let (created, _) = scene.check(&database, &answers).await;
    assert_eq!(created, 3);
}

/// The second run is in doubt as well, which it is no more than once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_in_doubt_that_was_sent_again_and_is_in_doubt_again_is_there_once() {
    let database = Database::create().await;
    let mut scene = Scene::set(&database).await;
    let mut answers = Vec::new();
    for (round, second) in [Cut::After, Cut::Before].into_iter().enumerate() {
        scene.rider.send("ride", "so that the ride is known").await;
        let content = format!("twice in doubt, round {round}");
        let (struck, held) = scene.proxy.cut_at_commit_and_hold(Cut::Before, Step::Begin(0));
        let sending = send(&scene.rider, "ride", &content);
        struck.await.unwrap();
        reach(held).await;
        let struck = scene.proxy.cut_at_commit(second);
        scene.proxy.resume();
        struck.await.unwrap();
        answers.push((content, sending.await.unwrap()));
    }
    let statuses: Vec<_> = answers.iter().map(|(_, answer)| answer.status.as_u16()).collect();
    assert_eq!(statuses, [201, 503], "what was stored the second time is acknowledged");
    scene.check(&database, &answers).await;
}

/// Then it is there as it was sent first, and not as it would have been the second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_arrives_when_the_second_run_is_lost_is_there_once() {
    let database = Database::create().await;
    let mut scene = Scene::set(&database).await;
    scene.rider.send("ride", "so that the ride is known").await;
    let (struck, held) = scene.proxy.cut_at_commit_and_hold(Cut::Late, Step::Begin(0));
    let sending = send(&scene.rider, "ride", "late");
    struck.await.unwrap();
    reach(held).await;
    let (struck, held) = scene.proxy.cut_at_commit_and_hold(Cut::Before, Step::Begin(0));
    scene.proxy.resume();
    struck.await.unwrap();
    reach(held).await;
    scene.proxy.release().await;
    scene.proxy.resume();
    let answer = sending.await.unwrap();
    assert_eq!(answer.status, 503, "what it was to be answered is no longer so");
    let log = log_of(&database, "ride").await;
    find(&log, "late");
    scene.check(&database, &[("late".to_owned(), answer)]).await;
}

/// Where nothing is written on a ride, the topics of users tell that it has ended, even those that it has made itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_whose_commit_arrives_late_is_there_once() {
    let database = Database::create().await;
    let scene = Scene::set(&database).await;
    let observer = database.client().await;
    let struck = scene.proxy.cut_at_commit(Cut::Late);
    let service = scene.server.service();
    let telling = tokio::spawn(async move { service.broadcast(&["somebody", "new"], json!({})).await });
    struck.await.unwrap();
    until_waiting(&observer, 1).await;
    scene.proxy.release().await;
    let answer = telling.await.unwrap();
    assert!([202, 503].contains(&answer.status.as_u16()), "{} {}", answer.status, answer.text());
    for user in ["somebody", "new"] {
        let notices = observer.query("select from events where topic = 'user/' || $1", &[&user]).await.unwrap();
        assert_eq!(notices.len(), 1, "{user}");
    }
}

/// Where nothing can tell any more whether it was committed, nobody says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_in_doubt_whose_place_in_the_log_is_trimmed_is_answered_503_and_not_run_again() {
    let database = Database::create().await;
    let scene = Scene::set(&database).await;
    let client = database.client().await;
    for knows in [false, true] {
        let ride = format!("knows_{knows}");
        scene.server.open_ride(&ride).await;
        if knows {
            scene.rider.send(&ride, "so that the ride is known").await;
        }
        let (struck, held) = scene.proxy.cut_at_commit_and_hold(Cut::After, Step::Begin(0));
        let sending = send(&scene.rider, &ride, "trimmed");
        struck.await.unwrap();
        reach(held).await;
        // Somebody writes after it, and the log until then is taken away.
        scene.rider.on(&scene.other).send(&ride, "later").await;
        let head = database.head(&ride).await;
        client.execute("delete from events where topic = 'ride/' || $1 and seq < $2", &[&ride, &head]).await.unwrap();
        scene.proxy.resume();
        sending.await.unwrap().problem(503, "unavailable");
        assert_eq!(database.head(&ride).await, head, "it was not stored again");
    }
}

const TABLES: [&str; 6] = ["topics", "events", "rides", "participants", "receipts", "messages"];

/// What a replica knows of a ride may be of a database that is no more, even where a commit that was in doubt is not lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_that_lost_commits_nothing_is_judged_by_them() {
    let database = Database::create().await;
    let scene = Scene::set(&database).await;
    let client = database.client().await;
    scene.server.open_ride("changed").await;
    for ride in ["changed", "ride"] {
        scene.rider.send(ride, "so that the ride is known").await;
    }
    let (struck, held) = scene.proxy.cut_at_commit_and_hold(Cut::After, Step::Begin(0));
    let in_doubt = send(&scene.rider, "ride", "in doubt");
    struck.await.unwrap();
    reach(held).await;
    // So far the standby has it all; the rest is lost with the primary.
    for table in TABLES {
        client.batch_execute(&format!("create table standby_{table} as table {table}")).await.unwrap();
    }
    scene.server.service().put_ride("changed", "rider_1", Some("driver_2")).await.expect(200);
    let lost = scene.server.driver("driver_2");
    for _ in 0..3 {
        lost.send("changed", "lost").await;
    }
    let head = database.head("changed").await;
    let fail_over: Vec<_> =
        TABLES.map(|table| format!("truncate {table}; insert into {table} table standby_{table}")).into();
    client.batch_execute(&format!("begin; {}; commit", fail_over.join("; "))).await.unwrap();
    let kept = scene.other.driver("driver_1");
    while database.head("changed").await < head {
        kept.send("changed", "after the failover").await;
    }
    scene.proxy.resume();
    in_doubt.await.unwrap().expect(201);
    lost.send_named("changed", "not theirs", "a name").await.problem(404, "ride_not_found");
    assert_eq!(database.head("changed").await, head);
}

/// A batch under locks is stored as a whole or not at all, also where a lock could not be had: of a ride that was taken away
/// between its topic's making and its locking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ride_that_retention_takes_away_while_it_is_put_is_made_anew_as_a_whole() {
    let database = Database::create().await;
    let scene = Scene::set(&database).await;
    let client = database.client().await;
    scene.server.open_ride("old").await;
    let age = "update rides set status = 'completed', ended_at = 'epoch', closed_at = 'epoch', log_is_trimmed = true
               where ride_id = 'old';
               delete from events where topic = 'ride/old'";
    client.batch_execute(age).await.unwrap();
    let held = scene.proxy.hold_at(Step::Lock);
    let service = scene.server.service();
    let putting = tokio::spawn(async move { service.put_ride("old", "rider_1", Some("driver_2")).await });
    reach(held).await;
    let made = "select from pg_stat_activity
                where datname = current_database() and state = 'idle in transaction' and query like '-- Topics that may be%'";
    eventually("its topic is made", async || client.query_opt(made, &[]).await.unwrap()).await;
    let taken = client.execute(sql::RIDES_FORGET, &[&0_f64]).await.unwrap();
    assert_eq!(taken, 1, "retention takes it");
    scene.proxy.resume();
    let answer = putting.await.unwrap();
    let log = log_of(&database, "old").await;
    assert_eq!(log.kinds(), ["ride:participants"]);
    assert_eq!(answer.expect(201).json()["driverId"], "driver_2");
    let assigned = "select from events where topic = 'user/driver_2'";
    assert_eq!(client.query(assigned, &[]).await.unwrap().len(), 1, "nobody is told twice");
}
