//! Shards on two Postgres servers, one of which fails; and replicas that are killed while they send updates between shards.

use std::collections::BTreeMap;
use std::time::Duration;

use ridewire::domain::{RideId, ShardId, ShardMap, UserId};
use ridewire::store::{Address, Shards};

use crate::limit_heavy_tests;
use crate::support::{Cluster, Database, Server, User, eventually};

const SHARDS: u16 = 4;

fn map() -> ShardMap {
    ShardMap::new(SHARDS).unwrap()
}

/// Whether a shard is on the second Postgres.
fn is_second(shard: ShardId) -> bool {
    shard.number() % 2 == 1
}

/// Returns ids of rides of a round whose shards are on the given Postgres.
fn rides_on(second: bool, round: usize, count: usize) -> Vec<String> {
    let ids = (0..100).map(|n| format!("ride_{round}_{n}"));
    let on = |id: &String| is_second(map().of_ride(&RideId::parse(id).unwrap())) == second;
    ids.filter(on).take(count).collect()
}

fn user_on(second: bool, role: &str) -> String {
    let mut ids = (0..100).map(|n| format!("{role}_{n}"));
    ids.find(|id| is_second(map().of_user(&UserId::parse(id).unwrap())) == second).unwrap()
}

/// A deployment with the shards 0 and 2 on one Postgres, 1 and 3 on another.
struct TwoServers {
    clusters: [Cluster; 2],
    database: Database,
    /// The setting that names the second Postgres.
    elsewhere: String,
}

impl TwoServers {
    async fn create() -> Self {
        let clusters = [Cluster::dedicated().await, Cluster::dedicated().await];
        let [mut database, other] = clusters.each_ref().map(Cluster::database);
        let address = |database: &Database| database.url.parse::<Address>().unwrap();
        let (first, second) = (address(&database), address(&other));
        ridewire::store::migrate(&first).await.unwrap();
        let address = |shard: ShardId| if is_second(shard) { second.clone() } else { first.clone() };
        Shards::create(map(), &first, address).await.unwrap();
        database.has_feed = false;
        let elsewhere = format!("1={url} 3={url}", url = other.url);
        Self { clusters, database, elsewhere }
    }

    async fn server(&self) -> Server {
        let settings = [("RIDEWIRE_SHARD_DATABASES", &*self.elsewhere), ("RIDEWIRE_DATABASE_TIMEOUT", "2s")];
        Server::start_with(&self.database, &settings).await
    }
}

/// Returns how often each ride was assigned to a user, according to the user's topic.
async fn assignments(user: &User) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for event in user.poll_pages("0", "types=ride:assigned").await {
        let ride = event["data"]["ride"]["rideId"].as_str().unwrap();
        *found.entry(ride.to_owned()).or_default() += 1;
    }
    found
}

async fn until_assigned_once(user: &User, rides: &[String]) {
    let expected: BTreeMap<_, _> = rides.iter().map(|ride| (ride.clone(), 1)).collect();
    eventually("each ride is assigned", async || {
        let found = assignments(user).await;
        assert!(found.values().all(|count| *count == 1), "twice: {found:?}");
        (found.len() == expected.len()).then(|| assert_eq!(found, expected))
    })
    .await;
}

/// Returns the contents of a ride's messages.
async fn contents(user: &User, ride: &str) -> Vec<String> {
    let history = user.history(ride, "?limit=200").await;
    history["messages"].as_array().unwrap().iter().map(|one| one["content"].as_str().unwrap().to_owned()).collect()
}

/// While the Postgres of some shards is down, the rides of the other shards continue, also for users whose own shard is down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rides_of_other_shards_continue_while_one_postgres_is_down() {
    let _permit = limit_heavy_tests().await;
    let mut deployment = TwoServers::create().await;
    let server = deployment.server().await;
    let service = server.service();
    for (round, down) in [true, false].into_iter().enumerate() {
        let (rider, driver) = (server.rider(&user_on(down, "rider")), server.driver(&user_on(!down, "driver")));
        let (affected, mut later) = (rides_on(down, round, 1).remove(0), rides_on(!down, round, 4));
        // The other three are created during the outage.
        let unaffected = later.remove(0);
        for ride in [&affected, &unaffected] {
            service.put_ride(ride, &rider.name, Some(&driver.name)).await.expect(201);
        }
        let mut merged = driver.stream_all("types=message:new", None).await.expect(200);
        merged.next_sync().await;
        rider.send(&unaffected, "before").await;
        assert_eq!(merged.next_of_type("message:new").await.data["content"], "before");

        deployment.clusters[usize::from(down)].stop_immediate().await;
        eventually("a send on the affected ride fails", async || {
            let response = rider.send_with_id(&affected, "during", "during").await;
            (response.status == 503).then(|| assert!(response.headers.contains_key("retry-after")))
        })
        .await;
        for n in 0..20 {
            rider.send(&unaffected, &format!("during {n}")).await;
            assert_eq!(merged.next_of_type("message:new").await.data["content"], format!("during {n}"));
        }
        assert_eq!(contents(&driver, &unaffected).await.len(), 21);
        for ride in &later {
            service.put_ride(ride, &rider.name, Some(&driver.name)).await.expect(201);
            rider.send(ride, "on a new ride").await;
        }

        deployment.clusters[usize::from(down)].start_again().await;
        eventually("the send is stored", async || {
            let response = rider.send_with_id(&affected, "during", "during").await;
            response.status.is_success().then_some(())
        })
        .await;
        assert_eq!(contents(&driver, &affected).await.iter().filter(|content| *content == "during").count(), 1);
        // The rider's shard was down: the assignments wait for it, and arrive once.
        until_assigned_once(&rider, &[later, vec![affected, unaffected]].concat()).await;
        let unread = driver.get("messages/unread-count").await.expect(200).json();
        assert!(unread["total"].as_i64().unwrap() >= 25, "{unread}");
    }
}

/// Two replicas send the rows of the same outboxes, and one of them is killed again and again. Each row is applied once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ride_is_assigned_once_to_each_user_whichever_replica_is_killed() {
    let _permit = limit_heavy_tests().await;
    let database = Database::with_shards(SHARDS).await;
    let kept = Server::start(&database).await;
    let users: Vec<_> = (0..8).map(|n| kept.rider(&format!("rider_{n}"))).collect();
    let mut rides = BTreeMap::<String, Vec<String>>::new();
    for round in 0..6 {
        let killed = Server::start(&database).await;
        let (service, other) = (killed.service(), kept.service());
        let creating: Vec<_> = (0..48)
            .map(|n| {
                let (ride, rider) = (format!("ride_{round}_{n}"), users[n % users.len()].name.clone());
                rides.entry(rider.clone()).or_default().push(ride.clone());
                let first = if n % 2 == 0 { service.clone() } else { other.clone() };
                let other = other.clone();
                tokio::spawn(async move {
                    // The replica may be killed before or after it has committed the ride.
                    let request = first.request(reqwest::Method::PUT, &format!("rides/{ride}"));
                    let body = serde_json::json!({ "riderId": rider, "driverId": "driver_1" });
                    let sent = request.json(&body).timeout(Duration::from_secs(10)).send().await;
                    if !sent.is_ok_and(|response| response.status().is_success()) {
                        let response = other.put_ride(&ride, &rider, Some("driver_1")).await;
                        assert!(response.status.is_success(), "{response:?}");
                    }
                })
            })
            .collect();
        // Killed at a different point of the work in each round.
        let row = "select count(*) from topics where name like 'ride/ride\\_' || $1 || '\\_%'";
        let client = database.client().await;
        eventually("the work has begun", async || {
            let count: i64 = client.query_one(row, &[&round.to_string()]).await.unwrap().get(0);
            (count > round).then_some(())
        })
        .await;
        killed.kill().await;
        for created in creating {
            created.await.unwrap();
        }
    }
    let driver = kept.driver("driver_1");
    until_assigned_once(&driver, &rides.values().flatten().cloned().collect::<Vec<_>>()).await;
    for user in &users {
        until_assigned_once(user, &rides[&user.name]).await;
    }
    // Nothing is left to send.
    let client = database.client().await;
    for schema in ["public", "public_shard_1", "public_shard_2", "public_shard_3"] {
        eventually("the outbox is empty", async || {
            let rows: i64 =
                client.query_one(&format!("select count(*) from {schema}.outbox"), &[]).await.unwrap().get(0);
            (rows == 0).then_some(())
        })
        .await;
    }
}
