//! A row that cannot be parsed fails only the requests that need it.

use std::time::Duration;

use ridewire::domain::{RideId, Topic};
use ridewire::store::{PLAN_TTL, PageRequest, Prepared, Store, StoreConfig, StoreError, pool_wait_histogram};

use crate::support::{Database, Server};

/// An event type that is too long to be valid.
const INVALID_TYPE: &str = "ride:a_type_that_is_longer_than_31_bytes";

/// Appends an event to a ride's log, as another program would.
async fn append(database: &Database, ride: &str, kind: &str) {
    let append = "with head as (update topics set last_seq = last_seq + 1 where name = $1 returning last_seq)
        insert into events (topic, seq, type, data, created_at)
        select $1, last_seq, $2, '{}', now() from head";
    let appended = database.client().await.execute(append, &[&format!("ride/{ride}"), &kind]).await.unwrap();
    assert_eq!(appended, 1);
}

// On one thread, all requests of a `join!` are queued before the batch begins.
#[tokio::test]
async fn a_corrupt_row_fails_no_other_request_of_its_batch() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    for ride in ["corrupt", "other"] {
        server.open_ride(ride).await;
    }
    let update = "update rides set status = 'no status' where ride_id = 'corrupt'";
    assert_eq!(database.client().await.execute(update, &[]).await.unwrap(), 1);
    append(&database, "corrupt", INVALID_TYPE).await;
    let (postgres, timeout) = (database.url.parse().unwrap(), Duration::from_secs(10));
    let config = StoreConfig {
        postgres,
        connections: 1,
        timeout,
        prepared: Prepared::On,
        plan_ttl: PLAN_TTL,
        pool_wait: pool_wait_histogram().unwrap(),
    };
    let store = Store::new(config).unwrap();
    let [corrupt, other] = ["corrupt", "other"].map(|ride| RideId::parse(ride).unwrap());

    let (first, loaded, again) =
        tokio::join!(store.snapshot(&corrupt), store.snapshot(&other), store.snapshot(&corrupt));
    for failed in [first, again] {
        assert!(matches!(failed, Err(StoreError::Corrupt("status"))), "{failed:?}");
    }
    assert_eq!(loaded.unwrap().unwrap().ride.id, other);

    let page = |ride: &RideId| store.page(PageRequest { topic: Topic::ride(ride), after: 0, limit: 10 });
    let (failed, loaded) = tokio::join!(page(&corrupt), page(&other));
    assert!(matches!(failed, Err(StoreError::Corrupt("type"))), "{failed:?}");
    assert_eq!(loaded.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_event_does_not_delay_the_streams_of_other_rides() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_FALLBACK_POLL", "200ms")]).await;
    server.open_ride("corrupt").await;
    let (_, driver) = server.open_ride("other").await;
    let _corrupt = server.live_stream(&driver, "corrupt").await;
    let mut other = server.live_stream(&driver, "other").await;
    append(&database, "corrupt", INVALID_TYPE).await;
    append(&database, "other", "ride:shared").await;
    other.find("ride:shared").await;
}
