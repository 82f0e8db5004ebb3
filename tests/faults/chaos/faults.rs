//! Random faults of the replicas and, independently, of the infrastructure below them.
//!
//! Each fault lasts seconds. It is repaired before the next fault of the same group (replicas or infrastructure). So at most
//! one replica is down at a time, while the other one may have no database.

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
use crate::support::{Cluster, Database, PgBouncer, Server, eventually_within};

/// How long recovery from a fault may take. Postgres may have to replay its WAL.
const TIMEOUT: Duration = Duration::from_secs(120);

/// When the fault injection ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum StopCondition {
    /// After this many faults of this many kinds.
    Faults(usize, usize),
    /// After this time.
    Time(Duration),
}

/// The faults that were injected so far.
#[derive(Debug)]
struct FaultLog {
    began: Instant,
    stop_condition: StopCondition,
    faults: std::sync::Mutex<Vec<Fault>>,
}

impl FaultLog {
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

    fn is_reached(&self) -> bool {
        match self.stop_condition {
            StopCondition::Faults(faults, kinds) => {
                let counts = self.counts();
                counts.values().sum::<usize>() >= faults && counts.len() >= kinds
            }
            StopCondition::Time(time) => self.began.elapsed() > time,
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

/// The faults of replicas.
pub(super) const REPLICA_KINDS: [Fault; 2] = [Fault::ReplicaKilled, Fault::ReplicaStopped];

/// Picks faults in random order. Each kind is picked once before any kind repeats.
#[derive(Debug)]
struct FaultPicker {
    kinds: Vec<Fault>,
    remaining: Vec<Fault>,
    rng: Rng,
}

impl FaultPicker {
    fn new(kinds: Vec<Fault>, rng: Rng) -> Self {
        Self { kinds, remaining: Vec::new(), rng }
    }

    fn pick(&mut self) -> Fault {
        if self.remaining.is_empty() {
            self.remaining.clone_from(&self.kinds);
            self.rng.shuffle(&mut self.remaining);
        }
        self.remaining.pop().expect("there is at least one kind")
    }

    fn replica_index(&mut self) -> usize {
        self.rng.usize(..2)
    }

    fn milliseconds(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.rng.u64(range))
    }
}

/// The infrastructure of the replicas.
#[derive(Debug)]
pub(super) struct Infrastructure {
    cluster: Cluster,
    has_small_disk: bool,
    database: Database,
    /// One between each replica and Postgres: for LISTEN, and behind the replica's pooler.
    proxies: [Proxy; 2],
    /// All statements go through a pooler: one for each replica, or one for both.
    bouncers: Vec<PgBouncer>,
}

impl Infrastructure {
    /// Starts Postgres on a disk of `disk` megabytes, with one or two poolers.
    pub(super) async fn start(disk: usize, poolers: usize) -> Self {
        let small = Cluster::on_small_disk(disk).await;
        let has_small_disk = small.is_some();
        let cluster = match small {
            Some(cluster) => cluster,
            None => Cluster::dedicated().await,
        };
        let database = cluster.database();
        let client = database.client().await;
        for setting in ["max_wal_size = '64MB'", "min_wal_size = '32MB'"] {
            client.batch_execute(&format!("alter system set {setting}")).await.unwrap();
        }
        client.batch_execute("select pg_reload_conf()").await.unwrap();
        // A transaction pooler does not support the session lock of the migration.
        ridewire::store::migrate(&database.url.parse().unwrap()).await.unwrap();
        let proxies = [Proxy::start(&database.url).await, Proxy::start(&database.url).await];
        let mut bouncers = Vec::new();
        for proxy in &proxies[..poolers] {
            let mut behind = cluster.database();
            behind.url = proxy.url();
            bouncers.extend(PgBouncer::start(&behind).await);
        }
        Self { cluster, has_small_disk, database, proxies, bouncers }
    }

    /// Returns the configuration of a replica.
    pub(super) fn replica(&self, number: usize) -> ReplicaConfig {
        let direct = self.proxies[number].url();
        let mut settings = vec![("RIDEWIRE_LISTEN_DATABASE_URL", direct.clone())];
        if let Some(bouncer) = self.bouncers.iter().cycle().nth(number) {
            settings.push(("DATABASE_URL", bouncer.url.clone()));
            settings.push(("RIDEWIRE_PREPARED_STATEMENTS", "off".to_owned()));
        } else {
            settings.push(("DATABASE_URL", direct));
        }
        ReplicaConfig { database: self.cluster.database(), settings }
    }

    /// Returns the faults that this infrastructure supports.
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

    /// Injects faults until the stop condition is reached.
    async fn inject_until(&mut self, injected: &FaultLog, recovery: &Mutex<()>, rng: Rng) {
        let mut picker = FaultPicker::new(self.kinds(), rng);
        loop {
            sleep(picker.milliseconds(500..3_000)).await;
            if injected.is_reached() {
                return;
            }
            let fault = picker.pick();
            let _recovery = recovery.lock().await;
            self.inject(fault, picker.replica_index(), picker.milliseconds(500..4_000)).await;
            self.recover().await;
            injected.add(fault);
        }
    }

    async fn inject(&mut self, fault: Fault, number: usize, duration: Duration) {
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
                sleep(duration).await;
                self.proxies[number].open();
            }
            Fault::NetworkStalled => {
                self.proxies[number].stall();
                sleep(duration).await;
                self.proxies[number].open();
            }
            Fault::PoolerRestarted => {
                let number = number % self.bouncers.len();
                self.bouncers[number].restart().await;
            }
            Fault::DiskFull => {
                let _ballast = self.cluster.fill_disk().await;
                sleep(duration).await;
            }
            Fault::ReplicaKilled | Fault::ReplicaStopped => unreachable!("not an infrastructure fault"),
        }
    }

    /// Waits until Postgres and every connection path to it work again.
    async fn recover(&mut self) {
        let mut urls: Vec<_> = self.proxies.iter().map(Proxy::url).collect();
        urls.extend(self.bouncers.iter().map(|bouncer| bouncer.url.clone()));
        eventually_within(TIMEOUT, Duration::from_millis(50), "Postgres is back", async || {
            // Postgres may have exited because it could not write its WAL to the full disk.
            self.cluster.start_if_exited().await;
            for url in &urls {
                let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
                let connection = tokio::spawn(connection);
                let response = client.simple_query("select 1").await;
                connection.abort();
                response.ok()?;
            }
            Some(())
        })
        .await;
    }
}

/// The configuration of a replica.
#[derive(Debug)]
pub(super) struct ReplicaConfig {
    database: Database,
    settings: Vec<(&'static str, String)>,
}

impl ReplicaConfig {
    pub(super) async fn start(&self) -> Server {
        let settings: Vec<_> = self.settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Server::start_with(&self.database, &settings).await
    }
}

/// Kills and suspends replicas until the stop condition is reached.
async fn inject_replica_faults_until(
    injected: &FaultLog,
    configurations: &[ReplicaConfig; 2],
    servers: &mut [Server; 2],
    clients: &Clients,
    recovery: &Mutex<()>,
    rng: Rng,
) {
    let mut picker = FaultPicker::new(REPLICA_KINDS.to_vec(), rng);
    loop {
        sleep(picker.milliseconds(1_000..4_000)).await;
        for server in &mut *servers {
            assert!(server.is_running(), "a replica has exited by itself");
        }
        if injected.is_reached() {
            return;
        }
        let (fault, number) = (picker.pick(), picker.replica_index());
        if fault == Fault::ReplicaKilled {
            servers[number].signal(Signal::SIGKILL);
            sleep(picker.milliseconds(0..2_000)).await;
            // A replica that starts without Postgres exits, and would have to be started again.
            let _recovery = recovery.lock().await;
            servers[number] = configurations[number].start().await;
            clients.set_address(number, &servers[number]).await;
        } else {
            servers[number].signal(Signal::SIGSTOP);
            sleep(picker.milliseconds(1_000..5_000)).await;
            servers[number].signal(Signal::SIGCONT);
        }
        injected.add(fault);
    }
}

/// Injects faults until the stop condition is reached, and repairs all of them. Returns how often each was injected.
pub(super) async fn inject(
    stop_condition: StopCondition,
    infrastructure: &mut Infrastructure,
    configurations: &[ReplicaConfig; 2],
    servers: &mut [Server; 2],
    clients: &Clients,
    seed: u64,
) -> BTreeMap<Fault, usize> {
    let (mut rng, recovery) = (Rng::with_seed(seed), Mutex::new(()));
    let other = rng.fork();
    let injected = FaultLog { began: Instant::now(), stop_condition, faults: std::sync::Mutex::default() };
    tokio::join!(
        inject_replica_faults_until(&injected, configurations, servers, clients, &recovery, rng),
        infrastructure.inject_until(&injected, &recovery, other)
    );
    injected.counts()
}
