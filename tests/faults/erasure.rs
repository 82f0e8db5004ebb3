//! Erasure proven, not listed: one user does everything that a user can do, beside others, on two replicas. Then the user is erased,
//! and each of their words is searched for wherever there is data: in every row of every table, in every response, stream, delivery,
//! log and metric, and in the memory of the servers. Their id is left in the tables alone that `docs/security.md` names.

mod memory;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Database, Receiver, Reply, Role, Server, Stream, User, eventually, eventually_within};

/// The id of the user who is erased.
const PERSON: &str = "zqperson";

/// All that only the user has said, been told, or shown. None is a part of anything else.
const WORDS: [&str; 14] = [
    "zqw-content",
    "zqw-before-the-edit",
    "zqw-after-the-edit",
    "zqw-metadata",
    "zqw-name-kept",
    "zqw-name-deleted",
    "zqw-deleted",
    "zqw-flagged",
    "zqw-label",
    "zqw-reason",
    "zqw-notice",
    "-12.345678912",
    "-98.765432198",
    "🦩",
];

/// How long it may take until the memory of a server is overwritten by what it does next.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(240);

/// The tables that keep the id of an erased user, as the documentation says.
fn documented() -> BTreeSet<String> {
    let page = include_str!("../../docs/security.md");
    let (_, section) = page.split_once("## Data kept on purpose\n").expect("the section");
    let (section, _) = section.split_once("\n## ").unwrap_or((section, ""));
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(table, _)| table.to_owned()).collect()
}

#[track_caller]
fn has_none(what: &str, text: &str) {
    for word in WORDS {
        if let Some(place) = text.find(word) {
            let from = text.floor_char_boundary(place.saturating_sub(200));
            let to = text.floor_char_boundary((place + 200).min(text.len()));
            panic!("{word} is in {what}: …{}…", &text[from..to]);
        }
    }
}

/// Other users, who go on on both replicas.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<usize>,
}

impl Load {
    fn start(servers: [&Server; 2]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for number in 0..4 {
            let name = format!("other_{number}");
            let users = servers.map(|server| server.rider(&name));
            let (stop, ride) = (Arc::clone(&stop), format!("load_{number}"));
            tasks.spawn(async move {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    let user = &users[sent % 2];
                    let message =
                        user.send_named(&ride, "something else", &format!("n-{sent}")).await.expect(201).json();
                    if sent % 7 == 0 {
                        user.edit(&message, "something new").await.expect(200);
                    }
                    sent += 1;
                }
                sent
            });
        }
        Self { stop, tasks }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.tasks.join_all().await;
        assert!(sent.iter().all(|sent| *sent > 0), "{sent:?}");
    }
}

/// A stream of everything of the user's, past its `stream:sync`.
async fn all(user: &User, server: &Server) -> Stream {
    let mut stream = user.on(server).stream_all("", None).await.expect(200);
    stream.next_sync().await;
    stream
}

/// All that the feed returns from its beginning.
async fn whole_feed(service: &User) -> String {
    let (mut after, mut whole) = ("0".to_owned(), String::new());
    loop {
        let page = service.get(&format!("feed/poll?after={after}&wait=0")).await.expect(200).json();
        whole += &page.to_string();
        let next = page["cursor"].as_str().unwrap().to_owned();
        if next == after {
            return whole;
        }
        after = next;
    }
}

/// All that a replica tells anybody: the person's own user, the other people of the rides, support and service.
async fn responses(server: &Server) -> String {
    let (service, support) = (server.service(), server.support());
    let readers = [server.rider(PERSON), server.driver("neighbour"), server.rider("passenger"), support.clone()];
    let mut whole = whole_feed(&service).await;
    for reader in &readers {
        for ride in ["shared", "driven", "cancelled"] {
            for path in [
                format!("messages/rides/{ride}?limit=200"),
                format!("messages/rides/{ride}/poll?after=0&wait=0"),
                format!("messages/rides/{ride}/presence"),
                format!("rides/{ride}"),
                format!("rides/{ride}/location"),
            ] {
                whole += &reader.get(&path).await.text();
            }
            let mut stream = reader.stream(ride, "after=0").await;
            if stream.status == 200 {
                let sync = stream.next_sync().await;
                whole += &sync.to_string();
                let (mut seq, head) = (0, sync["state"]["asOf"].as_i64().unwrap());
                while seq < head {
                    let event = stream.next_event().await;
                    whole += &event.text;
                    // Values have no place in the log.
                    seq = event.id.as_ref().map_or(seq, |_| event.seq());
                }
            }
        }
        whole += &reader.get("poll?after=0&wait=0").await.text();
        whole += &reader.get("rides").await.text();
        whole += &reader.get("messages/unread-count").await.text();
    }
    for staff in [&support, &service] {
        whole += &staff.get("drivers/available").await.text();
        whole += &staff.get("rides?limit=200").await.text();
    }
    let hooks = service.get("webhooks").await.expect(200).json();
    for hook in hooks["webhooks"].as_array().unwrap() {
        let path = format!("webhooks/{}/deliveries?limit=200", hook["id"].as_str().unwrap());
        whole += &service.get(&path).await.text();
    }
    whole + &reqwest::get(format!("{}/metrics", server.base)).await.unwrap().text().await.unwrap()
}

/// Others' work, through every connection to Postgres, to moderation and between the replicas, with more bytes than before it.
async fn churn(servers: [&Server; 2]) {
    let mut tasks = JoinSet::new();
    for (number, server) in (0..4).flat_map(|number| servers.map(|server| (number, server))) {
        let (user, service) = (server.rider(&format!("other_{number}")).apart(), server.service().apart());
        let ride = format!("load_{number}");
        tasks.spawn(async move {
            for _ in 0..6 {
                let metadata = json!({ "padding": "y".repeat(7_000) });
                let body = json!({ "rideId": ride, "content": "x".repeat(3_900), "metadata": metadata });
                let message = user.post("messages", body).await.expect(201).json();
                user.edit(&message, &"z".repeat(3_900)).await.expect(200);
                user.history(&ride, "?limit=200").await;
                user.poll(&ride, "after=0&wait=0").await;
                user.post(&format!("messages/rides/{ride}/typing"), json!({ "typing": true })).await.expect(202);
                user.erase(&message).await.expect(204);
                let notice = json!({ "padding": "n".repeat(8_000) });
                service.broadcast(&["other_0", "other_1", "other_2"], notice).await.expect(202);
            }
            whole_feed(&service).await;
        });
    }
    tasks.join_all().await;
}

/// What is in the memory of both servers.
fn in_memory(servers: [&Server; 2]) -> Vec<String> {
    servers.iter().flat_map(|server| memory::search(server.pid(), &WORDS)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_an_erased_user_is_left_anywhere() {
    let _turn = crate::two_at_a_time().await;
    let database = Database::create().await;
    let hook = Receiver::start(|request| {
        Reply::Body(match request.body.contains("zqw-flagged") {
            true => json!({ "action": "flag", "labels": ["zqw-label"] }).to_string(),
            false => json!({ "action": "allow" }).to_string(),
        })
    })
    .await;
    let takes = Arc::new(AtomicBool::new(false));
    let endpoint = {
        let takes = Arc::clone(&takes);
        Receiver::start(move |_| Reply::Status(if takes.load(Ordering::Relaxed) { 204 } else { 503 })).await
    };
    let moderation = format!("{}/moderate", hook.base);
    let settings = [
        ("RIDEWIRE_LOG", "trace,tokio_postgres=trace,hyper=trace,h2=trace,salvo_core=trace"),
        ("RIDEWIRE_MODERATION_URL", &*moderation),
        ("RIDEWIRE_MODERATION_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("RIDEWIRE_MODERATION_TIMEOUT", "60s"),
        ("RIDEWIRE_WEBHOOK_ALLOW_HOSTS", "127.0.0.1"),
        ("RIDEWIRE_WEBHOOK_RETRIES", "1h"),
        ("RIDEWIRE_PUSH_AFTER", "200ms"),
        ("RIDEWIRE_PRESENCE_GRACE", "200ms"),
        ("RIDEWIRE_DATABASE_CONNECTIONS", "4"),
        ("RIDEWIRE_SENDS_PER_SECOND", "0"),
        memory::OVERWRITE_FREED,
    ];
    let (one, two) = (Server::with(&database, &settings).await, Server::with(&database, &settings).await);
    let servers = [&one, &two];
    // Whoever has the words in a request or a response has connections of their own, which end.
    let service = one.service();
    for number in 0..4 {
        service.put_ride(&format!("load_{number}"), &format!("other_{number}"), Some("driver_0")).await.expect(201);
    }
    let begin = service.get("feed/poll").await.expect(200).json()["cursor"].clone();
    let url = format!("{}/hook", endpoint.base);
    let webhook = service.post("webhooks", json!({ "url": url })).await.expect(201).json();
    for (ride, rider, driver) in
        [("shared", PERSON, "neighbour"), ("driven", "passenger", PERSON), ("cancelled", PERSON, "neighbour")]
    {
        service.put_ride(ride, rider, Some(driver)).await.expect(201);
    }
    let load = Load::start(servers);

    // Whoever may read it reads it, on both replicas.
    let neighbour = one.driver("neighbour").apart();
    let mut readers = Vec::new();
    for server in servers {
        for ride in ["shared", "cancelled"] {
            readers.push(server.live(&neighbour.clone().apart(), ride).await);
        }
        readers.push(server.live(&one.rider("passenger").apart(), "driven").await);
        readers.push(all(&one.support().apart(), server).await);
        let feed = server.service().apart().request(Method::GET, "feed?types=*");
        readers.push(Stream::open(feed).await.expect(200));
    }
    let person = one.rider(PERSON).apart();
    let mut own = all(&person.clone().apart(), &two).await;

    // All that a user can do.
    let body = json!({ "rideId": "shared", "content": "zqw-content", "metadata": { "zqw-metadata": "zqw-metadata" }, "clientMessageId": "zqw-name-kept" });
    person.post("messages", body).await.expect(201);
    let edited = person.send("shared", "zqw-before-the-edit").await;
    person.edit(&edited, "zqw-after-the-edit").await.expect(200);
    let deleted = person.send_named("shared", "zqw-deleted", "zqw-name-deleted").await.expect(201).json();
    person.erase(&deleted).await.expect(204);
    person.send("shared", "zqw-flagged").await;
    let message = neighbour.send("shared", "Where are you?").await;
    let reaction = format!("messages/{}/reactions/%F0%9F%A6%A9", message["id"].as_str().unwrap());
    person.put(&reaction, json!({})).await.expect(204);
    neighbour.edit(&message, "Where are you now?").await.expect(200);
    person.post("messages/rides/shared/typing", json!({ "typing": true })).await.expect(202);
    person.mark(&message, "read").await.expect(200);
    person.post("rides/cancelled/cancel", json!({ "reason": "zqw-reason" })).await.expect(200);
    let driver = one.user(PERSON, Role::Driver).apart();
    let position = json!({ "lat": -12.345678912, "lng": -98.765432198 });
    driver.post("rides/driven/location", position).await.expect(202);
    let available = json!({ "available": true, "lat": -12.345678912, "lng": -98.765432198 });
    driver.put("drivers/me/availability", available).await.expect(200);
    drop(driver.on(&one).stream("driven", "").await.expect(200));
    one.service().apart().broadcast(&[PERSON], json!({ "text": "zqw-notice" })).await.expect(202);
    own.find("notice").await;
    neighbour.send("shared", "Are you still there?").await;

    // It is everywhere.
    let dump = eventually("it is all in the database", async || {
        let dump = database.dump().await;
        let is_undelivered = |(table, row): &(String, String)| {
            table == "feed" && row.contains("message:undelivered") && row.contains(PERSON)
        };
        let is_waiting =
            |(table, row): &(String, String)| table == "webhook_deliveries" && row.contains("user/zqperson");
        (dump.iter().any(is_undelivered) && dump.iter().any(is_waiting)).then_some(dump)
    })
    .await;
    for word in WORDS.iter().filter(|word| !["zqw-deleted", "zqw-before-the-edit"].contains(word)) {
        assert!(dump.iter().any(|(_, row)| row.contains(word)), "{word} is not in the database");
    }
    let is_searched = servers.iter().all(|server| memory::can_be_searched(server.pid()));
    if is_searched {
        for word in ["zqw-notice", "zqw-reason", "-12.345678912"] {
            eventually(word, async || (!memory::search(two.pid(), &[word]).is_empty()).then_some(())).await;
        }
    }
    drop((person, driver, neighbour));

    // While others go on, and the user still has a stream open.
    let erasing = one.service();
    erasing.delete(&format!("users/{PERSON}")).await.expect(200);
    let rows = database.dump().await;
    for (table, row) in &rows {
        has_none(table, row);
    }
    for server in servers {
        eventually("the user's own topic is empty", async || {
            let poll = server.rider(PERSON).poll_all("after=0&wait=0&types=notice").await;
            poll["events"].as_array().unwrap().is_empty().then_some(())
        })
        .await;
    }
    // Who was connected is no longer, and is erased once more: of that, nothing is left either.
    drop(own);
    erasing.post_nothing(&format!("users/{PERSON}/revoke")).await.expect(200);
    eventually("the user is offline", async || {
        let online = "select count(*) from presence_states where user_id = $1 and online";
        let online: i64 = database.client().await.query_one(online, &[&PERSON]).await.unwrap().get(0);
        (online == 0).then_some(())
    })
    .await;
    two.service().delete(&format!("users/{PERSON}")).await.expect(200);
    load.stop().await;

    // Every table.
    let rows = database.dump().await;
    for (table, row) in &rows {
        has_none(table, row);
    }
    let with_id: BTreeSet<String> =
        rows.iter().filter(|(_, row)| row.contains(PERSON)).map(|(table, _)| table.clone()).collect();
    let documented = documented();
    assert!(with_id.is_subset(&documented), "the id is in {with_id:?}; documented is {documented:?}");

    // Every delivery from now on, and once more all of those before.
    let before = endpoint.received("/hook").len();
    takes.store(true, Ordering::Relaxed);
    let replay = format!("webhooks/{}/replay", webhook["id"].as_str().unwrap());
    service.post(&replay, json!({ "after": begin })).await.expect(202);
    let pending = format!("webhooks/{}/deliveries?state=pending", webhook["id"].as_str().unwrap());
    eventually("all is delivered", async || {
        let pending = service.get(&pending).await.expect(200).json();
        pending["deliveries"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    let received = endpoint.received("/hook");
    assert!(received.len() > before);
    received.iter().skip(before).for_each(|request| has_none("a delivery", &request.body));

    // Every response of every replica: at once where the user was erased, and where that was noticed.
    for server in servers {
        let found = eventually("nothing is told any more", async || {
            let found = responses(server).await;
            (!WORDS.iter().any(|word| found.contains(word))).then_some(found)
        })
        .await;
        assert!(found.len() > 10_000, "something is told");
        has_none("the log", &server.whole_log());
    }

    // The memory of every server, with all those streams still open.
    if is_searched {
        eventually_within(MEMORY_TIMEOUT, Duration::from_millis(10), "the memory is overwritten", async || {
            churn(servers).await;
            let found = in_memory(servers);
            if found.is_empty() {
                return Some(());
            }
            eprintln!("still in memory: {:#?}", &found[..found.len().min(8)]);
            None
        })
        .await;
    }
    drop(readers);
}
