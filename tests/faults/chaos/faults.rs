//! What breaks, at random: the replicas, and independently of them what they stand on.
//!
//! Each fault is over after seconds, and what it broke is well again before the next one of its kind of victims; so
//! at most one replica is gone at a time, while the other may well have lost its database.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;
use nix::sys::signal::Signal;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tokio_postgres::NoTls;

use super::Clients;
use crate::proxy::Proxy;
use crate::support::{Bouncer, Cluster, Database, Server, eventually_within};

/// How long everything may take to be well again after a fault: Postgres may have a log to replay.
const PATIENCE: Duration = Duration::from_secs(120);

/// When enough has broken.
#[derive(Debug, Clone, Copy)]
pub(super) enum Enough {
    /// After so many faults, of so many kinds.
    Faults(usize, usize),
    /// After so long.
    Time(Duration),
}

/// What has broken so far.
#[derive(Debug)]
struct Struck {
    began: Instant,
    enough: Enough,
    faults: std::sync::Mutex<Vec<Fault>>,
}

impl Struck {
    fn add(&self, fault: Fault) {
        self.faults.lock().unwrap().push(fault);
    }

    fn counts(&self) -> BTreeMap<Fault, usize> {
        let mut counts = BTreeMap::new();
        for fault in &*self.faults.lock().unwrap() {
            *counts.entry(*fault).or_default() += 1;
        }
        counts
    }

    fn is_enough(&self) -> bool {
        match self.enough {
            Enough::Faults(faults, kinds) => {
                let counts = self.counts();
                counts.values().sum::<usize>() >= faults && counts.len() >= kinds
            }
            Enough::Time(time) => self.began.elapsed() > time,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    ReplicaKilled,
    ReplicaStopped,
    PostgresRestarted,
    BackendsTerminated,
    NetworkCut,
    NetworkAway,
    NetworkStalled,
    PoolerRestarted,
    DiskFull,
}

/// What befalls replicas.
pub(super) const REPLICA_KINDS: [Fault; 2] = [Fault::ReplicaKilled, Fault::ReplicaStopped];

/// Deals faults at random, each of its kinds once before one comes again.
#[derive(Debug)]
struct Deck {
    kinds: Vec<Fault>,
    left: Vec<Fault>,
    rng: Rng,
}

impl Deck {
    fn new(kinds: Vec<Fault>, rng: Rng) -> Self {
        Self { kinds, left: Vec::new(), rng }
    }

    fn deal(&mut self) -> Fault {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
            self.rng.shuffle(&mut self.left);
        }
        self.left.pop().expect("there are kinds")
    }

    fn one_of_two(&mut self) -> usize {
        self.rng.usize(..2)
    }

    fn milliseconds(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.rng.u64(range))
    }
}

/// What the replicas stand on.
#[derive(Debug)]
pub(super) struct Ground {
    cluster: Cluster,
    has_small_disk: bool,
    database: Database,
    /// Between each replica and Postgres: for LISTEN, and behind its pooler.
    proxies: [Proxy; 2],
    /// All statements go through there: one beside each replica, or one for both, which crosses one network.
    bouncers: Vec<Bouncer>,
}

impl Ground {
    /// With a disk of so many megabytes, and so many poolers: one or two.
    pub(super) async fn lay(disk: usize, poolers: usize) -> Self {
        let small = Cluster::on_a_disk_of(disk).await;
        let has_small_disk = small.is_some();
        let cluster = match small {
            Some(cluster) => cluster,
            None => Cluster::own().await,
        };
        let database = cluster.database();
        let client = database.client().await;
        for setting in ["max_wal_size = '64MB'", "min_wal_size = '32MB'"] {
            client.batch_execute(&format!("alter system set {setting}")).await.unwrap();
        }
        client.batch_execute("select pg_reload_conf()").await.unwrap();
        // A pooler of transactions is no place for a lock of a session.
        ridewire::store::migrate(&database.url.parse().unwrap()).await.unwrap();
        let proxies = [Proxy::start(&database.url).await, Proxy::start(&database.url).await];
        let mut bouncers = Vec::new();
        for proxy in &proxies[..poolers] {
            let mut behind = cluster.database();
            behind.url = proxy.url();
            bouncers.extend(Bouncer::start(&behind).await);
        }
        Self { cluster, has_small_disk, database, proxies, bouncers }
    }

    /// Where a replica is to be started.
    pub(super) fn replica(&self, number: usize) -> Replica {
        let direct = self.proxies[number].url();
        let mut settings = vec![("RIDEWIRE_LISTEN_DATABASE_URL", direct.clone())];
        if let Some(bouncer) = self.bouncers.iter().cycle().nth(number) {
            settings.push(("DATABASE_URL", bouncer.url.clone()));
            settings.push(("RIDEWIRE_PREPARED_STATEMENTS", "off".to_owned()));
        } else {
            settings.push(("DATABASE_URL", direct));
        }
        Replica { database: self.cluster.database(), settings }
    }

    /// What can break here.
    pub(super) fn kinds(&self) -> Vec<Fault> {
        let mut kinds = vec![
            Fault::PostgresRestarted,
            Fault::BackendsTerminated,
            Fault::NetworkCut,
            Fault::NetworkAway,
            Fault::NetworkStalled,
        ];
        kinds.extend((!self.bouncers.is_empty()).then_some(Fault::PoolerRestarted));
        kinds.extend(self.has_small_disk.then_some(Fault::DiskFull));
        kinds
    }

    /// Breaks things until it is enough.
    async fn break_until(&mut self, struck: &Struck, calm: &Mutex<()>, rng: Rng) {
        let mut deck = Deck::new(self.kinds(), rng);
        loop {
            sleep(deck.milliseconds(500..3_000)).await;
            if struck.is_enough() {
                return;
            }
            let fault = deck.deal();
            let _calm = calm.lock().await;
            self.strike(fault, deck.one_of_two(), deck.milliseconds(500..4_000)).await;
            self.recover().await;
            struck.add(fault);
        }
    }

    async fn strike(&mut self, fault: Fault, number: usize, a_while: Duration) {
        match fault {
            Fault::PostgresRestarted => self.cluster.restart_immediate().await,
            Fault::BackendsTerminated => {
                let end = "select pg_terminate_backend(pid) from pg_stat_activity
                           where pid <> pg_backend_pid() and backend_type = 'client backend'";
                self.database.client().await.batch_execute(end).await.unwrap();
            }
            Fault::NetworkCut => self.proxies[number].cut(),
            Fault::NetworkAway => {
                self.proxies[number].close();
                sleep(a_while).await;
                self.proxies[number].open();
            }
            Fault::NetworkStalled => {
                self.proxies[number].stall();
                sleep(a_while).await;
                self.proxies[number].open();
            }
            Fault::PoolerRestarted => {
                let number = number % self.bouncers.len();
                self.bouncers[number].restart().await;
            }
            Fault::DiskFull => {
                let _ballast = self.cluster.fill_disk().await;
                sleep(a_while).await;
            }
            Fault::ReplicaKilled | Fault::ReplicaStopped => unreachable!("not of the ground"),
        }
    }

    /// Waits until all is well: Postgres, and the way of each replica to it.
    async fn recover(&mut self) {
        let mut urls: Vec<_> = self.proxies.iter().map(Proxy::url).collect();
        urls.extend(self.bouncers.iter().map(|bouncer| bouncer.url.clone()));
        eventually_within(PATIENCE, Duration::from_millis(50), "Postgres is back", async || {
            // A Postgres that could not write its log to a full disk may have given up.
            self.cluster.start_if_ended().await;
            for url in &urls {
                let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
                let connection = tokio::spawn(connection);
                let answer = client.simple_query("select 1").await;
                connection.abort();
                answer.ok()?;
            }
            Some(())
        })
        .await;
    }
}

/// A replica's place.
#[derive(Debug)]
pub(super) struct Replica {
    database: Database,
    settings: Vec<(&'static str, String)>,
}

impl Replica {
    pub(super) async fn start(&self) -> Server {
        let settings: Vec<_> = self.settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Server::with(&self.database, &settings).await
    }
}

/// Kills and stops replicas until it is enough.
async fn break_replicas_until(
    struck: &Struck,
    places: &[Replica; 2],
    servers: &mut [Server; 2],
    clients: &Clients,
    calm: &Mutex<()>,
    rng: Rng,
) {
    let mut deck = Deck::new(REPLICA_KINDS.to_vec(), rng);
    loop {
        sleep(deck.milliseconds(1_000..4_000)).await;
        for server in &mut *servers {
            assert!(server.is_running(), "a replica has ended by itself");
        }
        if struck.is_enough() {
            return;
        }
        let (fault, number) = (deck.deal(), deck.one_of_two());
        if fault == Fault::ReplicaKilled {
            servers[number].signal(Signal::SIGKILL);
            sleep(deck.milliseconds(0..2_000)).await;
            // One that starts while there is no Postgres ends, and is started again by whoever runs it.
            let _calm = calm.lock().await;
            servers[number] = places[number].start().await;
            clients.tell_address(number, &servers[number]).await;
        } else {
            servers[number].signal(Signal::SIGSTOP);
            sleep(deck.milliseconds(1_000..5_000)).await;
            servers[number].signal(Signal::SIGCONT);
        }
        struck.add(fault);
    }
}

/// Strikes until it is enough; in the end all is well. How often each fault has struck.
pub(super) async fn strike(
    enough: Enough,
    ground: &mut Ground,
    places: &[Replica; 2],
    servers: &mut [Server; 2],
    clients: &Clients,
    seed: u64,
) -> BTreeMap<Fault, usize> {
    let (mut rng, calm) = (Rng::with_seed(seed), Mutex::new(()));
    let other = rng.fork();
    let struck = Struck { began: Instant::now(), enough, faults: std::sync::Mutex::default() };
    tokio::join!(
        break_replicas_until(&struck, places, servers, clients, &calm, rng),
        ground.break_until(&struck, &calm, other)
    );
    struck.counts()
}
