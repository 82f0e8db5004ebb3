//! Through PgBouncer, which gives one connection to many: nobody gets the answer to another's question.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{Bouncer, Database, PATIENCE, Server};
use crate::two_at_a_time;

const RIDES: usize = 20;

/// A batch that fails closes its connection, at any moment; what was under way on it must not reach anybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_anothers_answer_while_batches_fail() {
    let _turn = two_at_a_time().await;
    let database = Database::create().await;
    let Some(bouncer) = Bouncer::start(&database).await else { return };
    let settings = [
        ("DATABASE_URL", bouncer.url.as_str()),
        ("RIDEWIRE_PREPARED_STATEMENTS", "off"),
        ("RIDEWIRE_LISTEN_DATABASE_URL", database.url.as_str()),
    ];
    let server = Server::with(&database, &settings).await;
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
    let mut people = JoinSet::new();
    for number in 0..2 * RIDES {
        let ride = format!("ride_{}", number % RIDES);
        let (rider, driver) = (server.rider("rider_1"), server.driver("driver_1"));
        let (sent, failed, read) = (Arc::clone(&sent), Arc::clone(&failed), Arc::clone(&read));
        let is_enough = Arc::clone(&is_enough);
        people.spawn(async move {
            for count in 0.. {
                if is_enough() {
                    return;
                }
                if number < RIDES {
                    let answer = rider.send_named(&ride, "to this ride", &count.to_string()).await;
                    let counter = if answer.status == 201 { &sent } else { &failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                    assert!(matches!(answer.status.as_u16(), 201 | 503), "{}: {}", answer.asked, answer.text());
                } else {
                    let history = driver.get(&format!("messages/rides/{ride}")).await.expect(200).json();
                    let is_mine = |message: &Value| message["rideId"] == ride.as_str();
                    assert!(history["messages"].as_array().unwrap().iter().all(is_mine), "{ride}: {history}");
                    read.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    while let Some(ended) = timeout(PATIENCE * 5, people.join_next()).await.expect("it is enough at some time") {
        ended.unwrap();
    }
    let [sent, failed, read] = [sent, failed, read].map(|count| count.load(Ordering::Relaxed));
    eprintln!("{sent} sent, {failed} failed, {read} histories read");
}
