//! A COMMIT whose answer is lost, or that is lost itself: who sent is told the truth, or that nobody knows it.

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::proxy::{Cut, Proxy};
use crate::support::{Answer, Cluster, Database, PATIENCE, Server, Stream, User, eventually, hold, until_waiting};
use crate::world::{START, log_of};

/// Requests wait long for Postgres, and so the outcome of a commit is learnt wherever it can be.
const PATIENT: Settings = [("RIDEWIRE_FALLBACK_POLL", "500ms"), ("RIDEWIRE_DATABASE_TIMEOUT", "60s")];

/// Requests give up soon, where the outcome cannot be learnt.
const BRIEF: Settings = [("RIDEWIRE_FALLBACK_POLL", "500ms"), ("RIDEWIRE_DATABASE_TIMEOUT", "4s")];

type Settings = [(&'static str, &'static str); 2];

/// A replica behind a proxy, one that is not, and a reader on each.
pub(crate) struct Scene {
    pub(crate) proxy: Proxy,
    pub(crate) server: Server,
    pub(crate) other: Server,
    pub(crate) rider: User,
    pub(crate) streams: [Stream; 2],
}

impl Scene {
    pub(crate) async fn set(database: &Database) -> Self {
        Self::with(database, &PATIENT).await
    }

    pub(crate) async fn with(database: &Database, settings: &[(&str, &str)]) -> Self {
        let proxy = Proxy::start(&database.url).await;
        let through = [("DATABASE_URL", proxy.url()), ("RIDEWIRE_LISTEN_DATABASE_URL", database.url.clone())];
        let mut through: Vec<_> = through.iter().map(|(name, value)| (*name, value.as_str())).collect();
        // The relay of the feed commits as well, and would be cut in place of a batch.
        through.push(("RIDEWIRE_FEED", "off"));
        through.extend(settings);
        let server = Server::with(database, &through).await;
        let other = Server::with(database, settings).await;
        let (rider, driver) = server.open_ride("ride").await;
        assert_eq!(database.head("ride").await, START);
        let mut streams =
            [driver.stream("ride", "types=message:*").await, driver.on(&other).stream("ride", "types=message:*").await];
        for stream in &mut streams {
            stream.next_sync().await;
        }
        // The readers' coming is committed as well: the driver on the ride and among the drivers, on each replica.
        let client = database.client().await;
        eventually("the readers are there", async || {
            let row = client.query_one("select count(*) from presence", &[]).await.unwrap();
            (row.get::<_, i64>(0) == 4).then_some(())
        })
        .await;
        Self { proxy, server, other, rider, streams }
    }

    /// Sends a few at once, unnamed so that only the fate of the commit can tell whether to try again, with the
    /// first commit among them cut.
    async fn send_while_cut(&mut self, round: usize, cut: Cut) -> Vec<(String, Answer)> {
        let struck = self.proxy.cut_at_commit(cut);
        let mut sends = JoinSet::new();
        for number in 0..10 {
            let (rider, content) = (self.rider.clone(), format!("round {round}, message {number}"));
            sends.spawn(async move {
                let body = serde_json::json!({"rideId": "ride", "content": content});
                (content, rider.post("messages", body).await)
            });
        }
        let answers = sends.join_all().await;
        timeout(PATIENCE, struck).await.expect("a commit came by").expect("it was cut");
        answers
    }

    /// Acknowledged once, refused at most once; and each reader gets exactly the log.
    pub(crate) async fn check(&mut self, database: &Database, answers: &[(String, Answer)]) -> (usize, usize) {
        // Ends what may still be under way, and delivers what is not yet.
        self.rider.on(&self.other).send("ride", "the last one").await;
        let (mut created, mut unknown) = (0, 0);
        let head = database.head("ride").await;
        let log = log_of(database, "ride").await;
        for (content, answer) in answers {
            let there = log.messages().filter(|message| message["content"] == **content).count();
            match answer.status.as_u16() {
                201 => {
                    created += 1;
                    assert_eq!(there, 1, "{content}: acknowledged once");
                    let message = answer.json();
                    assert!(
                        log.messages().any(|logged| logged["id"] == message["id"] && logged["seq"] == message["seq"])
                    );
                }
                503 => {
                    unknown += 1;
                    assert!(!answer.header("retry-after").is_empty());
                    assert!(there <= 1, "{content}: {there} times");
                }
                _ => panic!("{content}: {} {}", answer.status, answer.text()),
            }
        }
        for stream in &mut self.streams {
            let mut seqs = Vec::new();
            while seqs.last().is_none_or(|last| *last < head) {
                seqs.push(stream.next_event().await.seq());
            }
            assert_eq!(seqs, (START + 1..=head).collect::<Vec<_>>());
        }
        // What came twice would come before this.
        let next = self.rider.on(&self.other).send("ride", "one more").await;
        for stream in &mut self.streams {
            assert_eq!(stream.next_event().await.data["id"], next["id"]);
        }
        (created, unknown)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_acknowledged_and_there_once() {
    let database = Database::create().await;
    let mut scene = Scene::set(&database).await;
    let mut answers = Vec::new();
    for round in 0..5 {
        answers.extend(scene.send_while_cut(round, Cut::After).await);
    }
    let (created, unknown) = scene.check(&database, &answers).await;
    assert_eq!((created, unknown), (50, 0), "the fate of each can be learnt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_does_not_arrive_is_made_up_for() {
    let database = Database::create().await;
    let mut scene = Scene::set(&database).await;
    let mut answers = Vec::new();
    for round in 0..5 {
        answers.extend(scene.send_while_cut(round, Cut::Before).await);
    }
    let (created, unknown) = scene.check(&database, &answers).await;
    assert_eq!((created, unknown), (50, 0), "the fate of each can be learnt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_may_have_arrived_is_there_once_or_not_at_all() {
    let database = Database::create().await;
    let mut scene = Scene::set(&database).await;
    let mut answers = Vec::new();
    for round in 0..10 {
        answers.extend(scene.send_while_cut(round, Cut::During).await);
    }
    let (created, _) = scene.check(&database, &answers).await;
    assert!(created > 50, "hardly any was settled: {created}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_fate_cannot_be_learnt_is_answered_503_and_delivered_all_the_same() {
    let database = Database::create().await;
    let mut scene = Scene::with(&database, &BRIEF).await;
    let rider = scene.rider.clone();
    // Nor can it be asked for.
    let struck = scene.proxy.close_at_commit(Cut::After);
    let sending = tokio::spawn(async move { rider.send_named("ride", "who knows", "a name").await });
    struck.await.unwrap();
    scene.proxy.cut();
    let answer = sending.await.unwrap();
    assert!(!answer.header("retry-after").is_empty());
    answer.problem(503, "unavailable");
    scene.proxy.open();
    for stream in &mut scene.streams {
        let event = stream.next_of("message:new").await;
        assert_eq!((event.seq(), &event.data["content"]), (START + 1, &"who knows".into()));
    }
    let again = eventually("the server is back", async || {
        let again = scene.rider.send_named("ride", "who knows", "a name").await;
        (again.status != 503).then_some(again)
    })
    .await;
    let again = again.expect(200).json();
    assert_eq!(again["seq"], START + 1);
    assert_eq!(log_of(&database, "ride").await.count("message:new"), 1);
    assert!(scene.server.log().contains("a commit's fate is unknown"));
}

/// A batch that was judged by what was known, kept by the network until long after its sender has given it up, sent again
/// and gone on: it comes to nothing, whatever it says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_arrives_late_comes_to_nothing() {
    let database = Database::create().await;
    let mut scene = Scene::set(&database).await;
    let mut answers = Vec::new();
    for round in 0..5 {
        // What is known is written at once.
        scene.rider.send("ride", &format!("round {round} begins")).await;
        let before = database.head("ride").await;
        answers.extend(scene.send_while_cut(round, Cut::Late).await);
        let after = database.head("ride").await;
        assert_eq!(after - before, 10, "each is there");
        scene.proxy.release().await;
        assert_eq!(database.head("ride").await, after, "and nothing more");
    }
    let (created, unknown) = scene.check(&database, &answers).await;
    assert_eq!((created, unknown), (50, 0), "the fate of each can be learnt");
}

/// The same where nobody can send it again: then it may come, and its sender was told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_given_up_may_still_come_and_is_there_once() {
    let database = Database::create().await;
    let mut scene = Scene::with(&database, &BRIEF).await;
    scene.rider.send("ride", "so that the ride is known").await;
    let rider = scene.rider.clone();
    let struck = scene.proxy.close_at_commit(Cut::Late);
    let sending = tokio::spawn(async move { rider.send_named("ride", "who knows", "a name").await });
    struck.await.unwrap();
    sending.await.unwrap().problem(503, "unavailable");
    scene.proxy.release().await;
    scene.proxy.open();
    let again = eventually("the server is back", async || {
        let again = scene.rider.send_named("ride", "who knows", "a name").await;
        (again.status != 503).then_some(again)
    })
    .await;
    assert_eq!(again.expect(200).json()["seq"], START + 2);
    assert_eq!(log_of(&database, "ride").await.count("message:new"), 2);
    let answers = [];
    scene.check(&database, &answers).await;
}

/// Sends on two rides in one batch, which is cut; after something that the replica does not hear of was done to the second.
async fn send_on_both(scene: &Scene, database: &Database, cut: Cut, unheard: &str) -> [Answer; 2] {
    for ride in ["other", "one", "two"] {
        scene.server.open_ride(ride).await;
    }
    // What is known is written at once.
    for ride in ["ride", "other", "one", "two"] {
        scene.rider.send(ride, "so that the ride is known").await;
    }
    let send = |ride: &'static str| {
        let rider = scene.rider.clone();
        tokio::spawn(async move { rider.send_named(ride, "Hello", "a name").await })
    };
    // While two batches wait, two messages gather to a third.
    let observer = database.client().await;
    let mut elsewhere = [database.client().await, database.client().await];
    let [one, two] = &mut elsewhere;
    let held = [hold(one, "one", "a name").await, hold(two, "two", "a name").await];
    let first = send("one");
    until_waiting(&observer, 1).await;
    let second = send("two");
    until_waiting(&observer, 2).await;
    let struck = scene.proxy.cut_at_commit(cut);
    let sent = [send("ride"), send("other")];
    for ride in ["ride", "other"] {
        // What is asked after them is answered after they have come.
        scene.rider.history(ride, "").await;
    }
    observer.batch_execute(unheard).await.unwrap();
    for hold in held {
        hold.rollback().await.unwrap();
    }
    struck.await.unwrap();
    for sent in [first, second] {
        sent.await.unwrap().expect(201);
    }
    let [on_ride, on_other] = sent;
    [on_ride.await.unwrap(), on_other.await.unwrap()]
}

/// Sent again, one of them is written to, and the other must not be: there the first may still come, so its sender is told
/// that nobody knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_arrives_late_comes_to_nothing_only_where_it_was_sent_again() {
    let database = Database::create().await;
    let scene = Scene::set(&database).await;
    // A chat that is closed, and a log that has not moved: nothing that a replica would do.
    let close = "update rides set status = 'cancelled', ended_at = 'epoch', rider_closes_at = 'epoch',
                 driver_closes_at = 'epoch' where ride_id = 'other'";
    let [on_ride, on_other] = send_on_both(&scene, &database, Cut::Late, close).await;
    assert_eq!(on_ride.expect(201).json()["seq"], START + 2);
    on_other.problem(503, "unavailable");
    scene.proxy.release().await;
    let again = scene.rider.send_named("other", "Hello", "a name").await.expect(200).json();
    assert_eq!(again["seq"], START + 2, "it did come");
    is_there_once(&database).await;
}

/// The rest of it is not sent twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_and_that_was_in_vain_in_part_is_made_up_for_in_that_part() {
    let database = Database::create().await;
    let scene = Scene::set(&database).await;
    let write = "update topics set last_seq = last_seq + 1 where name = 'ride/other';
        insert into events (topic, seq, type, data, created_at)
        select name, last_seq, 'message:read', '{}', now() from topics where name = 'ride/other'";
    let [on_ride, on_other] = send_on_both(&scene, &database, Cut::After, write).await;
    assert_eq!(on_ride.expect(201).json()["seq"], START + 2);
    assert_eq!(on_other.expect(201).json()["seq"], START + 3);
    is_there_once(&database).await;
}

async fn is_there_once(database: &Database) {
    for ride in ["ride", "other"] {
        let log = log_of(database, ride).await;
        assert_eq!(log.messages().filter(|message| message["content"] == "Hello").count(), 1, "on {ride}");
    }
}

/// After a crash Postgres gives out the numbers of transactions again that had not reached the disk. A stranger that
/// gets the number of ours, and commits, does not make ours committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_a_crash_took_is_not_taken_for_another_of_its_number() {
    let mut cluster = Cluster::own().await;
    let database = cluster.database();
    let scene = Scene::with(&database, &BRIEF).await;
    // Nothing is written to disk but by commits, and there are few of those.
    let client = database.client().await;
    for setting in
        ["wal_writer_delay = '10s'", "wal_writer_flush_after = '1GB'", "autovacuum = off", "bgwriter_delay = '10s'"]
    {
        client.batch_execute(&format!("alter system set {setting}")).await.unwrap();
    }
    client.query("select pg_reload_conf()", &[]).await.unwrap();
    let next = "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    let mut taken = 0;
    for round in 0..3 {
        let client = database.client().await;
        let before: i64 = client.query_one(next, &[]).await.unwrap().get(0);
        let content = format!("round {round}");
        let struck = scene.proxy.close_at_commit(Cut::Before);
        let sending = tokio::spawn({
            let (rider, body) = (scene.rider.clone(), serde_json::json!({"rideId": "ride", "content": content}));
            async move { rider.post("messages", body).await }
        });
        struck.await.unwrap();
        cluster.restart_immediate().await;
        let client = database.client().await;
        let after: i64 = client.query_one(next, &[]).await.unwrap().get(0);
        // Strangers take the numbers that were given out before the crash.
        for _ in 0..8 {
            client.query("select pg_current_xact_id()", &[]).await.unwrap();
        }
        scene.proxy.open();
        let answer = sending.await.unwrap();
        eprintln!("the next transaction was {before}, and {after} after the crash; answered {}", answer.status);
        taken += usize::from(after <= before);
        let log = log_of(&database, "ride").await;
        let there = log.messages().filter(|message| message["content"] == *content).count();
        match answer.status.as_u16() {
            201 => assert_eq!(there, 1, "acknowledged, and not there"),
            503 => assert!(there <= 1),
            _ => panic!("{} {}", answer.status, answer.text()),
        }
        eventually("the server is back", async || {
            let answer = scene.rider.send_named("ride", "again", &format!("again {round}")).await;
            (answer.status != 503).then_some(())
        })
        .await;
    }
    assert!(taken > 0, "no crash took anything");
}
