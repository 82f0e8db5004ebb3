//! PgBouncer shares each database connection among many clients. No request may get the response of another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::limit_heavy_tests;
use crate::support::{Database, PgBouncer, Server, TIMEOUT};

const RIDES: usize = 20;

/// A failed batch closes its connection at any moment. Responses in flight on it must not reach another request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_gets_the_response_of_another_while_batches_fail() {
    let _permit = limit_heavy_tests().await;
    let database = Database::create().await;
    let Some(bouncer) = PgBouncer::start(&database).await else { return };
    let settings = [
        ("DATABASE_URL", bouncer.url.as_str()),
        ("RIDEWIRE_PREPARED_STATEMENTS", "off"),
        ("RIDEWIRE_LISTEN_DATABASE_URL", database.url.as_str()),
    ];
    let server = Server::start_with(&database, &settings).await;
    for number in 0..RIDES {
        server.open_ride(&format!("ride_{number}")).await;
    }
    let failing = "create function fail() returns trigger language plpgsql as $$ begin
                     if random() < 0.3 then raise exception 'no room' using errcode = '53100'; end if;
                     return new;
                   end $$;
                   create trigger fail before insert on messages for each row execute function fail()";
    database.client().await.batch_execute(failing).await.unwrap();

    let [sent, failed, read] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let is_enough = {
        let (sent, failed, read) = (Arc::clone(&sent), Arc::clone(&failed), Arc::clone(&read));
        let least = [(sent, 60), (failed, 60), (read, 150)];
        Arc::new(move || least.iter().all(|(count, least)| count.load(Ordering::Relaxed) >= *least))
    };
    let mut clients = JoinSet::new();
    for number in 0..2 * RIDES {
        let ride = format!("ride_{}", number % RIDES);
        let (rider, driver) = (server.rider("rider_1"), server.driver("driver_1"));
        let (sent, failed, read) = (Arc::clone(&sent), Arc::clone(&failed), Arc::clone(&read));
        let is_enough = Arc::clone(&is_enough);
        clients.spawn(async move {
            for count in 0.. {
                if is_enough() {
                    return;
                }
                if number < RIDES {
                    let response = rider.send_with_id(&ride, "to this ride", &count.to_string()).await;
                    let counter = if response.status == 201 { &sent } else { &failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                    assert!(matches!(response.status.as_u16(), 201 | 503), "{}: {}", response.request, response.text());
                } else {
                    let history = driver.get(&format!("messages/rides/{ride}")).await.expect(200).json();
                    let is_mine = |message: &Value| message["rideId"] == ride.as_str();
                    assert!(history["messages"].as_array().unwrap().iter().all(is_mine), "{ride}: {history}");
                    read.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    while let Some(ended) = timeout(TIMEOUT * 5, clients.join_next()).await.expect("the clients finish") {
        ended.unwrap();
    }
    let [sent, failed, read] = [sent, failed, read].map(|count| count.load(Ordering::Relaxed));
    eprintln!("{sent} sent, {failed} failed, {read} histories read");
}
