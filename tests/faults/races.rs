//! What happens at the same time on two replicas, or at the worst moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::support::{Answer, Database, PATIENCE, Server, Stream, User, eventually};
use crate::world::{START, log_of};

/// Only what is in the log: whoever else comes and goes is another matter.
const LOGGED: &str = "types=message:*,ride:participants,ride:status";

/// A test must show that it has raced: this many rounds.
const ROUNDS: usize = 30;

async fn two(database: &Database, settings: &[(&str, &str)]) -> [Server; 2] {
    [Server::with(database, settings).await, Server::with(database, settings).await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_message_sent_on_two_replicas_at_once_is_one() {
    let database = Database::create().await;
    let servers = two(&database, &[]).await;
    let (rider, driver) = servers[0].open_ride("ride").await;
    let mut stream = driver.on(&servers[1]).stream("ride", LOGGED).await;
    stream.next_sync().await;
    for round in 0..ROUNDS {
        let name = format!("round {round}");
        let mut sends = JoinSet::new();
        for number in 0..6 {
            let (rider, name) = (rider.on(&servers[number % 2]), name.clone());
            sends.spawn(async move { rider.send_named("ride", "the same", &name).await });
        }
        let answers = sends.join_all().await;
        let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 200, 200, 200, 201], "{name}");
        let messages: BTreeSet<_> = answers
            .iter()
            .map(|answer| {
                let message = answer.json();
                (message["id"].as_str().unwrap().to_owned(), message["seq"].as_i64().unwrap())
            })
            .collect();
        assert_eq!(messages.len(), 1, "{name}: {messages:?}");
        let event = stream.next_of("message:new").await;
        assert_eq!((event.data["id"].as_str().unwrap().to_owned(), event.seq()), *messages.first().unwrap());
    }
    let log = log_of(&database, "ride").await;
    assert_eq!(log.count("message:new"), ROUNDS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_and_the_rides_end_at_once_agree_with_the_log() {
    let database = Database::create().await;
    let servers = two(&database, &[("RIDEWIRE_CHAT_GRACE", "0s")]).await;
    let service = servers[1].service();
    let (mut created, mut closed) = (0, 0);
    for round in 0..ROUNDS {
        let ride = format!("ride_{round}");
        let body = json!({"riderId": "rider_1", "driverId": "driver_1", "status": "in_progress"});
        service.put(&format!("rides/{ride}"), body).await.expect(201);
        let first_is_there = Arc::new(AtomicBool::new(false));
        let mut sends = JoinSet::new();
        for number in 0..8 {
            let rider = servers[number % 2].rider("rider_1");
            let (ride, first_is_there) = (ride.clone(), Arc::clone(&first_is_there));
            sends.spawn(async move {
                let mut answers = Vec::new();
                loop {
                    let name = format!("{number} {}", answers.len());
                    let answer = rider.send_named(&ride, &name, &name).await;
                    first_is_there.store(true, Ordering::SeqCst);
                    let is_closed = answer.status == 409;
                    answers.push((name, answer));
                    if is_closed {
                        return answers;
                    }
                }
            });
        }
        eventually("a message is there", async || first_is_there.load(Ordering::SeqCst).then_some(())).await;
        service.set_status(&ride, "completed").await.expect(200);
        let log = {
            let answers: BTreeMap<_, _> = sends.join_all().await.into_iter().flatten().collect();
            let log = log_of(&database, &ride).await;
            assert_eq!(log.kinds().last(), Some(&"ride:status"), "nothing is said after the end: {:?}", log.kinds());
            for (name, answer) in &answers {
                let is_there = log.messages().any(|message| message["clientMessageId"] == **name);
                match answer.status.as_u16() {
                    201 => created += 1,
                    409 => closed += 1,
                    _ => panic!("{} {}", answer.status, answer.text()),
                }
                assert_eq!(is_there, answer.status == 201, "{name}: {} {}", answer.status, answer.text());
            }
            assert_eq!(log.count("message:new"), answers.values().filter(|answer| answer.status == 201).count());
            log
        };
        // What was acknowledged is acknowledged again, although the chat is closed now.
        let message = log.messages().next().unwrap();
        let name = message["clientMessageId"].as_str().unwrap();
        let again = servers[0].rider("rider_1").send_named(&ride, name, name).await.expect(200).json();
        assert_eq!(again["id"], message["id"]);
    }
    assert!(created >= ROUNDS && closed == 8 * ROUNDS, "{created} created, {closed} refused");
}

/// Appends a message to a ride's log as another replica would, one of a later version, say.
async fn commit_elsewhere(client: &tokio_postgres::Client, ride: &str, data: &str) -> i64 {
    let topic = format!("ride/{ride}");
    client.batch_execute("begin").await.unwrap();
    client.query("select from topics where name = $1 for update", &[&topic]).await.unwrap();
    let raise = "update topics set last_seq = last_seq + 1 where name = $1 returning last_seq";
    let seq: i64 = client.query_one(raise, &[&topic]).await.unwrap().get(0);
    let append =
        "insert into events (topic, seq, type, data, created_at) values ($1, $2, 'message:new', $3, clock_timestamp())";
    client.execute(append, &[&topic, &seq, &data]).await.unwrap();
    client.batch_execute("commit").await.unwrap();
    seq
}

async fn hint(client: &tokio_postgres::Client, ride: &str, seq: i64) {
    let payload = json!({"v": 1, "heads": {format!("ride/{ride}"): seq}}).to_string();
    client.query("select pg_notify('ridewire', $1)", &[&payload]).await.unwrap();
}

async fn is_listening(server: &Server) {
    eventually("the server listens", async || {
        let ready = reqwest::get(format!("{}/readyz", server.base)).await.ok()?.text().await.ok()?;
        ready.contains(r#""listen":"listening""#).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_foreign_commit_is_delivered_by_its_hint() {
    let database = Database::create().await;
    // Nothing but the hint can tell in time.
    let server = Server::with(&database, &[("RIDEWIRE_FALLBACK_POLL", "1h")]).await;
    let (_, driver) = server.open_ride("ride").await;
    let mut stream = server.live(&driver, "ride").await;
    is_listening(&server).await;
    let client = database.client().await;
    for round in 0..10 {
        let data = format!(r#"{{"round":{round}}}"#);
        let seq = commit_elsewhere(&client, "ride", &data).await;
        hint(&client, "ride", seq).await;
        let event = stream.next_of("message:new").await;
        assert_eq!((event.seq(), event.text), (seq, data));
    }
}

#[tokio::test]
async fn a_foreign_commit_without_a_hint_is_found_by_looking() {
    let database = Database::create().await;
    let server = Server::with(&database, &[("RIDEWIRE_FALLBACK_POLL", "200ms")]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live(&driver, "ride").await;
    let client = database.client().await;
    for round in 0..5 {
        let data = format!(r#"{{"round":{round}}}"#);
        let seq = commit_elsewhere(&client, "ride", &data).await;
        let event = stream.next_of("message:new").await;
        assert_eq!((event.seq(), event.text), (seq, data));
    }
    // And by the next commit here, which lies further ahead than what is known.
    let seq = commit_elsewhere(&client, "ride", "{}").await;
    let message = rider.send("ride", "after one from elsewhere").await;
    assert_eq!(message["seq"], seq + 1);
    assert_eq!(stream.next_of("message:new").await.seq(), seq);
    assert_eq!(stream.next_of("message:new").await.seq(), seq + 1);
}

#[tokio::test]
async fn a_hint_ahead_of_the_log_costs_a_look_and_nothing_else() {
    let database = Database::create().await;
    let server = Server::with(&database, &[("RIDEWIRE_FALLBACK_POLL", "200ms")]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live(&driver, "ride").await;
    is_listening(&server).await;
    let client = database.client().await;
    for ahead in [1, 2, 1_000] {
        let head = database.head("ride").await;
        hint(&client, "ride", head + ahead).await;
        // Heard after it, on the same connection.
        let seq = commit_elsewhere(&client, "ride", "{}").await;
        hint(&client, "ride", seq).await;
        assert_eq!(stream.next_of("message:new").await.seq(), seq, "after a hint {ahead} ahead");
        let message = rider.send("ride", "go on").await;
        assert_eq!(stream.next_of("message:new").await.seq(), message["seq"]);
    }
    // Long enough for several looks at the log, which might find that it ends too early.
    hint(&client, "ride", database.head("ride").await + 1).await;
    for _ in 0..5 {
        let looks = Instant::now();
        let message = rider.send("ride", "go on").await;
        assert_eq!(stream.next_of("message:new").await.seq(), message["seq"]);
        eventually("a look at the log", async || (looks.elapsed() > Duration::from_millis(300)).then_some(())).await;
    }
}

/// A reader who comes and goes: takes what there is, leaves, and comes back with its last id.
async fn come_and_go(
    user: User,
    ride: String,
    done: Arc<AtomicBool>,
    head: Arc<AtomicI64>,
) -> (String, Vec<i64>, usize) {
    let (mut seen, mut visits) = (Vec::new(), 0);
    let mut last = head.load(Ordering::SeqCst).to_string();
    loop {
        let is_done =
            done.load(Ordering::SeqCst) && seen.last().is_some_and(|last| *last >= head.load(Ordering::SeqCst));
        if is_done {
            return (ride, seen, visits);
        }
        visits += 1;
        let mut stream = user.stream_from(&ride, "", Some(&last)).await;
        let sync = stream.next_sync().await;
        assert_eq!((&sync["resumed"], &sync["cursor"]), (&json!(true), &json!(last)));
        // Gone at once, after the first event, or after a moment.
        let stay = Duration::from_millis(fastrand::u64(0..30));
        while let Ok(Some(event)) = timeout(stay, stream.try_next()).await {
            // What is not in the log has no id.
            if event.id.is_none() {
                continue;
            }
            seen.push(event.seq());
            last = event.seq().to_string();
            if fastrand::bool() {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_dropped_and_taken_up_again_misses_and_repeats_nothing() {
    const MESSAGES: usize = 300;
    let database = Database::create().await;
    let servers = two(&database, &[("RIDEWIRE_FALLBACK_POLL", "500ms")]).await;
    let rides = ["one", "two", "three"];
    let mut work = JoinSet::new();
    let mut sending = JoinSet::new();
    for ride in rides {
        let (rider, driver) = servers[0].open_ride(ride).await;
        assert_eq!(database.head(ride).await, START);
        let (done, head) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(START)));
        // One reader on each replica: when it is away, the topic is dropped there.
        for server in &servers {
            work.spawn(come_and_go(driver.on(server), ride.to_owned(), Arc::clone(&done), Arc::clone(&head)));
        }
        let riders = [rider.on(&servers[0]), rider.on(&servers[1])];
        sending.spawn(async move {
            for number in 0..MESSAGES / rides.len() {
                let message = riders[fastrand::usize(..2)].send(ride, &number.to_string()).await;
                head.store(message["seq"].as_i64().unwrap(), Ordering::SeqCst);
            }
            done.store(true, Ordering::SeqCst);
        });
    }
    sending.join_all().await;
    let mut visited = 0;
    let readers = timeout(PATIENCE * 2, work.join_all()).await.expect("every reader gets to the end");
    for (ride, seen, visits) in readers {
        // Who comes back with an id has received what is before it, which the log says as well; so it goes on.
        let log = log_of(&database, &ride).await;
        assert_eq!(log.count("message:new"), MESSAGES / rides.len());
        let everything: Vec<_> = (START + 1..=log.head()).collect();
        assert!(seen.len() >= MESSAGES / rides.len() && everything.starts_with(&seen), "of {ride}: {seen:?}");
        visited += visits;
    }
    assert!(visited > 100, "hardly anybody came and went: {visited}");
    eprintln!("{visited} visits");
}

/// All events of a stream of somebody who is taken off the ride: `(seq, type)`.
async fn until_removed(mut stream: Stream) -> Vec<(i64, String)> {
    let mut events = stream.until_end().await;
    let closing = events.pop().expect("an end");
    assert_eq!((closing.kind.as_str(), &closing.data), ("stream:closing", &json!({"reason": "removed"})));
    events.iter().filter(|event| event.kind != "stream:sync").map(|event| (event.seq(), event.kind.clone())).collect()
}

/// The same by polls.
async fn poll_until_removed(user: User, ride: String, after: i64) -> Vec<(i64, String)> {
    let (mut events, mut cursor) = (Vec::new(), after.to_string());
    loop {
        let answer: Answer = user.get(&format!("messages/rides/{ride}/poll?after={cursor}&wait=5")).await;
        if answer.status == 404 {
            return events;
        }
        let page = answer.expect(200).json();
        for event in page["events"].as_array().unwrap() {
            events.push((event["id"].as_str().unwrap().parse().unwrap(), event["type"].as_str().unwrap().to_owned()));
        }
        if page["closed"] == true {
            return events;
        }
        cursor = page["cursor"].as_str().unwrap().to_owned();
    }
}

/// The first event of somebody who is about to be let in, who tries until then.
async fn first_of(user: User, ride: String) -> (i64, String) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let mut stream = user.stream_from(&ride, &format!("after=0&{LOGGED}"), None).await;
        if stream.status != 404 {
            stream.next_sync().await;
            let event = stream.next_event().await;
            return (event.seq(), event.kind);
        }
    }
    panic!("the new driver is not let in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_driver_sees_nothing_after_it_and_the_next_one_nothing_before() {
    let database = Database::create().await;
    let servers = two(&database, &[("RIDEWIRE_FALLBACK_POLL", "500ms")]).await;
    for round in 0..12 {
        let ride = format!("ride_{round}");
        let (rider, old) = servers[0].open_ride(&ride).await;
        let new = servers[0].driver("driver_2");
        let mut old_ones = JoinSet::new();
        let mut new_ones = JoinSet::new();
        for server in &servers {
            let mut stream = old.on(server).stream(&ride, LOGGED).await;
            stream.next_sync().await;
            old_ones.spawn(until_removed(stream));
            old_ones.spawn(poll_until_removed(old.on(server), ride.clone(), START));
            new_ones.spawn(first_of(new.on(server), ride.clone()));
        }
        // Messages flow before, while, and after.
        let stop = Arc::new(AtomicBool::new(false));
        let mut senders = JoinSet::new();
        for server in &servers {
            let (rider, ride, stop) = (rider.on(server), ride.clone(), Arc::clone(&stop));
            senders.spawn(async move {
                let mut sent = 0;
                while !stop.load(Ordering::SeqCst) {
                    rider.send(&ride, &format!("message {sent}")).await;
                    sent += 1;
                }
                sent
            });
        }
        eventually("messages flow", async || (database.head(&ride).await > 8).then_some(())).await;
        let replace = json!({"riderId": "rider_1", "driverId": "driver_2"});
        servers[round % 2].service().put(&format!("rides/{ride}"), replace).await.expect(200);
        let at = database.head(&ride).await;
        eventually("messages flow on", async || (database.head(&ride).await > at + 5).then_some(())).await;
        let seen_by_old = timeout(PATIENCE, old_ones.join_all()).await.expect("the old driver's end");
        let seen_by_new = new_ones.join_all().await;
        stop.store(true, Ordering::SeqCst);
        let sent: usize = senders.join_all().await.into_iter().sum();

        let log = log_of(&database, &ride).await;
        let replaced = log.seqs_of("ride:participants").last().copied().unwrap();
        let until: Vec<(i64, String)> = log.between(START + 1, replaced);
        assert!(sent > 10 && replaced > 5 && log.head() > replaced + 2, "nothing flowed: {replaced} of {}", log.head());
        for seen in seen_by_old {
            assert_eq!(seen, until, "the old driver's last event is the one that takes them off");
        }
        for seen in seen_by_new {
            assert_eq!(seen, (replaced, "ride:participants".to_owned()), "the new driver's first brings them in");
        }
    }
}
