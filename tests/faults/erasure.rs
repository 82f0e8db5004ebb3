//! Proof that erasure is complete. One user uses every feature, beside other users, on two replicas. Then the user is erased.
//!
//! The test searches for each of the user's words in every row of every table, in every response, stream, delivery, log and
//! metric, and in the memory of the servers. The user's id may remain only in the tables that `docs/explanation/security.md` names.

mod memory;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Database, Receiver, Reply, Role, Server, Stream, User, eventually, eventually_within};

/// The id of the erased user.
const ERASED_USER: &str = "zqperson";

/// Strings that occur only in data of the user: sent by, sent to, or shown to the user. None is part of another text.
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

/// How long it may take until further work overwrites the memory of a server.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(240);

/// Returns the tables that keep the id of an erased user according to the documentation.
fn documented_tables() -> BTreeSet<String> {
    let page = include_str!("../../docs/explanation/security.md");
    let (_, section) = page.split_once("## Data kept on purpose\n").expect("the section");
    let (section, _) = section.split_once("\n## ").unwrap_or((section, ""));
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(table, _)| table.to_owned()).collect()
}

#[track_caller]
fn assert_no_words(what: &str, text: &str) {
    for word in WORDS {
        if let Some(place) = text.find(word) {
            let from = text.floor_char_boundary(place.saturating_sub(200));
            let to = text.floor_char_boundary((place + 200).min(text.len()));
            panic!("{word} is in {what}: …{}…", &text[from..to]);
        }
    }
}

/// Other users, who keep sending on both replicas.
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
                        user.send_with_id(&ride, "something else", &format!("n-{sent}")).await.expect(201).json();
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

/// Opens the merged stream of a user and reads its `stream:sync`.
async fn merged_stream(user: &User, server: &Server) -> Stream {
    let mut stream = user.on(server).stream_all("", None).await.expect(200);
    stream.next_sync().await;
    stream
}

/// Reads the feed from its beginning.
async fn feed_text(service: &User) -> String {
    let (mut after, mut text) = ("0".to_owned(), String::new());
    loop {
        let page = service.get(&format!("feed/poll?after={after}&wait=0")).await.expect(200).json();
        text += &page.to_string();
        let next = page["cursor"].as_str().unwrap().to_owned();
        if next == after {
            return text;
        }
        after = next;
    }
}

/// Collects everything that a replica returns to the erased user, the other participants, support and service.
async fn responses(server: &Server) -> String {
    let (service, support) = (server.service(), server.support());
    let readers = [server.rider(ERASED_USER), server.driver("neighbour"), server.rider("passenger"), support.clone()];
    let mut text = feed_text(&service).await;
    for reader in &readers {
        for ride in ["shared", "driven", "cancelled"] {
            for path in [
                format!("messages/rides/{ride}?limit=200"),
                format!("messages/rides/{ride}/poll?after=0&wait=0"),
                format!("messages/rides/{ride}/presence"),
                format!("rides/{ride}"),
                format!("rides/{ride}/location"),
            ] {
                text += &reader.get(&path).await.text();
            }
            let mut stream = reader.stream(ride, "after=0").await;
            if stream.status == 200 {
                let sync = stream.next_sync().await;
                text += &sync.to_string();
                let (mut seq, head) = (0, sync["state"]["asOf"].as_i64().unwrap());
                while seq < head {
                    let event = stream.next_event().await;
                    text += &event.text;
                    // Latest-only events are not in the log and have no id.
                    seq = event.id.as_ref().map_or(seq, |_| event.seq());
                }
            }
        }
        text += &reader.get("poll?after=0&wait=0").await.text();
        text += &reader.get("rides").await.text();
        text += &reader.get("messages/unread-count").await.text();
    }
    for staff in [&support, &service] {
        text += &staff.get("drivers/available").await.text();
        text += &staff.get("rides?limit=200").await.text();
    }
    let hooks = service.get("webhooks").await.expect(200).json();
    for hook in hooks["webhooks"].as_array().unwrap() {
        let path = format!("webhooks/{}/deliveries?limit=200", hook["id"].as_str().unwrap());
        text += &service.get(&path).await.text();
    }
    text + &reqwest::get(format!("{}/metrics", server.base)).await.unwrap().text().await.unwrap()
}

/// Load of other users, larger than before, over every connection: to Postgres, to moderation and between the replicas.
async fn overwrite_memory(servers: [&Server; 2]) {
    let mut tasks = JoinSet::new();
    for (number, server) in (0..4).flat_map(|number| servers.map(|server| (number, server))) {
        let (user, service) =
            (server.rider(&format!("other_{number}")).with_own_connections(), server.service().with_own_connections());
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
                user.delete_message(&message).await.expect(204);
                let notice = json!({ "padding": "n".repeat(8_000) });
                service.broadcast(&["other_0", "other_1", "other_2"], notice).await.expect(202);
            }
            feed_text(&service).await;
        });
    }
    tasks.join_all().await;
}

/// Searches the memory of both servers.
fn in_memory(servers: [&Server; 2]) -> Vec<String> {
    servers.iter().flat_map(|server| memory::search(server.pid(), &WORDS)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_data_of_an_erased_user_remains_anywhere() {
    let _permit = crate::limit_heavy_tests().await;
    let database = Database::create().await;
    let hook = Receiver::start(|request| {
        Reply::Body(match request.body.contains("zqw-flagged") {
            true => json!({ "action": "flag", "labels": ["zqw-label"] }).to_string(),
            false => json!({ "action": "allow" }).to_string(),
        })
    })
    .await;
    let is_accepting = Arc::new(AtomicBool::new(false));
    let endpoint = {
        let is_accepting = Arc::clone(&is_accepting);
        Receiver::start(move |_| Reply::Status(if is_accepting.load(Ordering::Relaxed) { 204 } else { 503 })).await
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
    let (one, two) = (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
    let servers = [&one, &two];
    // Users whose requests or responses contain the words have their own connections, which are closed later.
    let service = one.service();
    for number in 0..4 {
        service.put_ride(&format!("load_{number}"), &format!("other_{number}"), Some("driver_0")).await.expect(201);
    }
    let begin = service.get("feed/poll").await.expect(200).json()["cursor"].clone();
    let url = format!("{}/hook", endpoint.base);
    let webhook = service.post("webhooks", json!({ "url": url })).await.expect(201).json();
    for (ride, rider, driver) in [
        ("shared", ERASED_USER, "neighbour"),
        ("driven", "passenger", ERASED_USER),
        ("cancelled", ERASED_USER, "neighbour"),
    ] {
        service.put_ride(ride, rider, Some(driver)).await.expect(201);
    }
    let load = Load::start(servers);

    // Every allowed reader reads on both replicas.
    let neighbour = one.driver("neighbour").with_own_connections();
    let mut readers = Vec::new();
    for server in servers {
        for ride in ["shared", "cancelled"] {
            readers.push(server.live_stream(&neighbour.clone().with_own_connections(), ride).await);
        }
        readers.push(server.live_stream(&one.rider("passenger").with_own_connections(), "driven").await);
        readers.push(merged_stream(&one.support().with_own_connections(), server).await);
        let feed = server.service().with_own_connections().request(Method::GET, "feed?types=*");
        readers.push(Stream::open(feed).await.expect(200));
    }
    let erased_user = one.rider(ERASED_USER).with_own_connections();
    let mut own = merged_stream(&erased_user.clone().with_own_connections(), &two).await;

    // Every operation of a user.
    let body = json!({ "rideId": "shared", "content": "zqw-content", "metadata": { "zqw-metadata": "zqw-metadata" }, "clientMessageId": "zqw-name-kept" });
    erased_user.post("messages", body).await.expect(201);
    let edited = erased_user.send("shared", "zqw-before-the-edit").await;
    erased_user.edit(&edited, "zqw-after-the-edit").await.expect(200);
    let deleted = erased_user.send_with_id("shared", "zqw-deleted", "zqw-name-deleted").await.expect(201).json();
    erased_user.delete_message(&deleted).await.expect(204);
    erased_user.send("shared", "zqw-flagged").await;
    let message = neighbour.send("shared", "Where are you?").await;
    let reaction = format!("messages/{}/reactions/%F0%9F%A6%A9", message["id"].as_str().unwrap());
    erased_user.put(&reaction, json!({})).await.expect(204);
    neighbour.edit(&message, "Where are you now?").await.expect(200);
    erased_user.post("messages/rides/shared/typing", json!({ "typing": true })).await.expect(202);
    erased_user.mark(&message, "read").await.expect(200);
    erased_user.post("rides/cancelled/cancel", json!({ "reason": "zqw-reason" })).await.expect(200);
    let driver = one.user(ERASED_USER, Role::Driver).with_own_connections();
    let position = json!({ "lat": -12.345678912, "lng": -98.765432198 });
    driver.post("rides/driven/location", position).await.expect(202);
    let available = json!({ "available": true, "lat": -12.345678912, "lng": -98.765432198 });
    driver.put("drivers/me/availability", available).await.expect(200);
    drop(driver.on(&one).stream("driven", "").await.expect(200));
    one.service().with_own_connections().broadcast(&[ERASED_USER], json!({ "text": "zqw-notice" })).await.expect(202);
    own.find("notice").await;
    neighbour.send("shared", "Are you still there?").await;

    // Before the erasure, the words are in the database and in memory.
    let dump = eventually("all data is in the database", async || {
        let dump = database.dump().await;
        let is_undelivered = |(table, row): &(String, String)| {
            table == "feed" && row.contains("message:undelivered") && row.contains(ERASED_USER)
        };
        let is_waiting =
            |(table, row): &(String, String)| table == "webhook_deliveries" && row.contains("user/zqperson");
        (dump.iter().any(is_undelivered) && dump.iter().any(is_waiting)).then_some(dump)
    })
    .await;
    for word in WORDS.iter().filter(|word| !["zqw-deleted", "zqw-before-the-edit"].contains(word)) {
        assert!(dump.iter().any(|(_, row)| row.contains(word)), "{word} is not in the database");
    }
    let can_search_memory = servers.iter().all(|server| memory::can_be_searched(server.pid()));
    if can_search_memory {
        for word in ["zqw-notice", "zqw-reason", "-12.345678912"] {
            eventually(word, async || (!memory::search(two.pid(), &[word]).is_empty()).then_some(())).await;
        }
    }
    drop((erased_user, driver, neighbour));

    // Other users keep sending, and the erased user still has an open stream.
    let erasing = one.service();
    erasing.delete(&format!("users/{ERASED_USER}")).await.expect(200);
    let rows = database.dump().await;
    for (table, row) in &rows {
        assert_no_words(table, row);
    }
    for server in servers {
        eventually("the user's own topic is empty", async || {
            let poll = server.rider(ERASED_USER).poll_all("after=0&wait=0&types=notice").await;
            poll["events"].as_array().unwrap().is_empty().then_some(())
        })
        .await;
    }
    // The disconnect writes presence rows of the user again. A second erasure must remove them as well.
    drop(own);
    erasing.post_empty(&format!("users/{ERASED_USER}/revoke")).await.expect(200);
    eventually("the user is offline", async || {
        let online = "select count(*) from presence_states where user_id = $1 and online";
        let online: i64 = database.client().await.query_one(online, &[&ERASED_USER]).await.unwrap().get(0);
        (online == 0).then_some(())
    })
    .await;
    two.service().delete(&format!("users/{ERASED_USER}")).await.expect(200);
    load.stop().await;

    // Every table.
    let rows = database.dump().await;
    for (table, row) in &rows {
        assert_no_words(table, row);
    }
    let with_id: BTreeSet<String> =
        rows.iter().filter(|(_, row)| row.contains(ERASED_USER)).map(|(table, _)| table.clone()).collect();
    let documented_tables = documented_tables();
    assert!(
        with_id.is_subset(&documented_tables),
        "the id is in {with_id:?}; documented_tables are {documented_tables:?}"
    );

    // New deliveries and a replay of all earlier ones.
    let before = endpoint.received("/hook").len();
    is_accepting.store(true, Ordering::Relaxed);
    let replay = format!("webhooks/{}/replay", webhook["id"].as_str().unwrap());
    service.post(&replay, json!({ "after": begin })).await.expect(202);
    let pending = format!("webhooks/{}/deliveries?state=pending", webhook["id"].as_str().unwrap());
    eventually("everything is delivered", async || {
        let pending = service.get(&pending).await.expect(200).json();
        pending["deliveries"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    let received = endpoint.received("/hook");
    assert!(received.len() > before);
    received.iter().skip(before).for_each(|request| assert_no_words("a delivery", &request.body));

    // Every response of every replica: immediately where the user was erased, and on the other one after the notification.
    for server in servers {
        let found = eventually("no response contains the words", async || {
            let found = responses(server).await;
            (!WORDS.iter().any(|word| found.contains(word))).then_some(found)
        })
        .await;
        assert!(found.len() > 10_000, "the responses are not empty");
        assert_no_words("the log", &server.log());
    }

    // The memory of every server, while all those streams are open.
    if can_search_memory {
        eventually_within(MEMORY_TIMEOUT, Duration::from_millis(10), "the memory is overwritten", async || {
            overwrite_memory(servers).await;
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
