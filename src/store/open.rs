//! Creates the store: the pool, and a batcher for each batched statement.

use super::batched::PageRequest;
use super::hints::Origin;
use super::pool::{Pool, Store, StoreConfig};
use super::{Batcher, StoreError, deliveries, drivers, followers, locations, reads};

impl Store {
    /// Creates a store. It connects at the first request.
    pub fn new(config: StoreConfig) -> Result<Self, StoreError> {
        let timeout = config.timeout;
        let pool = Pool::new(config)?;
        let snapshots = Batcher::start(500, timeout, {
            let pool = pool.clone();
            move |rides| reads::snapshots(pool.clone(), rides)
        });
        // A batch has many short pages or a few full ones, because all its rows are in memory at once.
        let weight = |request: &PageRequest| usize::try_from(request.limit).unwrap_or(usize::MAX);
        let pages = Batcher::start_weighted(500, (weight, 5_000), timeout, {
            let pool = pool.clone();
            move |requests| reads::pages(pool.clone(), requests)
        });
        let locations = Batcher::start(1_000, timeout, {
            let pool = pool.clone();
            move |news| locations::put(pool.clone(), news)
        });
        let drivers = Batcher::start(1_000, timeout, {
            let pool = pool.clone();
            move |news| drivers::put(pool.clone(), news)
        });
        let followed = Batcher::start(1_000, timeout, {
            let pool = pool.clone();
            move |topics| followers::follow(pool.clone(), topics)
        });
        let next_deliveries = Batcher::start(200, timeout, {
            let pool = pool.clone();
            move |leases| deliveries::next_deliveries(pool.clone(), leases)
        });
        let attempt_outcomes = Batcher::start(200, timeout, {
            let pool = pool.clone();
            move |attempts| deliveries::record_attempts(pool.clone(), attempts)
        });
        Ok(Self {
            pool,
            origin: Origin::new(),
            snapshots,
            pages,
            locations,
            drivers,
            followed,
            next_deliveries,
            attempt_outcomes,
        })
    }
}
