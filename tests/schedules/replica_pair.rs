//! Two replicas on one database, each behind a proxy. Schedules run on them one after the other.
//!
//! A replica is the real server in a thread and a runtime of its own. To kill it, the test drops that runtime. Then none of its tasks runs
//! and all its connections are closed, as after a kill of its process.

use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use ridewire::app;
use ridewire::config::Settings;
use ridewire::realtime::ShardLog;
use ridewire::store::Retention;
use ridewire::writer::outbox::OutboxSender;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use crate::feed_reader::{FeedTranscript, read_feed};
use crate::proxy::Proxy;
use crate::step::Replica;
use crate::support::{Database, SECRET};

/// How long the replicas keep the data of ended rides.
const KEEP: Duration = Duration::from_secs(3_600);

/// The pool size of each replica. A few connections are in use while others are held at gates.
const CONNECTIONS: &str = "5";

/// The server's settings, parsed as by the server.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

/// A running replica.
struct Running {
    base: String,
    runtime: tokio::runtime::Handle,
    log: ShardLog,
    outbox: Arc<OutboxSender>,
    /// What its reader of the feed has received.
    feed: Arc<Mutex<FeedTranscript>>,
    kill: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
    /// The `/proc` file with the state of its thread.
    stat: Option<PathBuf>,
    /// The id of its lease.
    lease: Option<String>,
}

/// Two replicas and their proxies.
pub(crate) struct ReplicaPair {
    // Dropped first, and with it the replicas' connections.
    running: [Option<Running>; 2],
    proxies: [Proxy; 2],
    /// A connection to the database, past the proxies.
    pub(crate) client: Client,
    pub(crate) http: reqwest::Client,
    database: Database,
}

impl ReplicaPair {
    /// Opens replicas of a deployment with one shard, or with two (`is_sharded`).
    pub(crate) async fn open(is_sharded: bool) -> Self {
        let database = if is_sharded { Database::with_shards(2).await } else { Database::create().await };
        let sent = Arc::new(AtomicUsize::new(0));
        let proxies = [Proxy::start(&database.url, Arc::clone(&sent)).await, Proxy::start(&database.url, sent).await];
        let client = database.client().await;
        let mut replicas = Self { running: [None, None], proxies, client, http: reqwest::Client::new(), database };
        for replica in Replica::BOTH {
            replicas.start(replica).await;
            while replicas.running[replica.index()].as_ref().is_some_and(|running| running.lease.is_none()) {
                sleep(Duration::from_millis(2)).await;
                replicas.find_leases().await;
            }
        }
        replicas
    }

    /// Returns whether the users are in another shard than the rides.
    pub(crate) fn is_sharded(&self) -> bool {
        !self.database.has_feed
    }

    /// Waits until all updates for users have reached their shard. Returns whether they have.
    pub(crate) async fn until_outbox_is_sent(&self, deadline: Instant) -> bool {
        while self.client.query_one("select count(*) from outbox", &[]).await.unwrap().get::<_, i64>(0) > 0 {
            if Instant::now() > deadline {
                return false;
            }
            sleep(Duration::from_millis(2)).await;
        }
        true
    }

    pub(crate) fn proxy(&self, replica: Replica) -> &Proxy {
        &self.proxies[replica.index()]
    }

    /// Returns the base URL of a replica, if it runs.
    pub(crate) fn base(&self, replica: Replica) -> Option<&str> {
        self.running[replica.index()].as_ref().map(|running| running.base.as_str())
    }

    /// Returns what the readers of the feed on the running replicas have received after a position; nothing without a feed.
    pub(crate) fn feed_transcripts(&self, after: i64) -> Vec<FeedTranscript> {
        if self.is_sharded() {
            return Vec::new();
        }
        self.running.iter().flatten().map(|running| running.feed.lock().unwrap().after(after)).collect()
    }

    /// Returns the end of the feed.
    pub(crate) async fn feed_end(&self) -> i64 {
        self.client.query_one("select last_seq from topics where name = 'feed'", &[]).await.unwrap().get(0)
    }

    /// Starts a replica unless it runs.
    pub(crate) async fn start(&mut self, replica: Replica) {
        if self.running[replica.index()].is_some() {
            return;
        }
        let settings = settings(&self.proxy(replica).url(), self.is_sharded());
        let (ready, started) = oneshot::channel();
        let (kill, killed) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        std::thread::spawn(move || {
            let stat = std::fs::read_link("/proc/thread-self").ok().map(|own| PathBuf::from("/proc").join(own));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let handle = runtime.handle().clone();
            let serving = app::serve(settings, false, async |address, api| {
                let outbox = Arc::clone(&api.shards.first().outbox);
                let parts = (address.to_string(), handle, api.logs.first().clone(), outbox, stat);
                drop(ready.send(parts));
            });
            runtime.block_on(async {
                tokio::select! {
                    served = serving => served.unwrap(),
                    _ = killed => {}
                }
            });
            drop(runtime);
            let _ = end.send(());
        });
        let (base, runtime, log, outbox, stat) = started.await.expect("the replica starts");
        let stat = stat.map(|own| own.join("stat"));
        // While the feed is read, batches assign its positions themselves.
        let feed = Arc::<Mutex<FeedTranscript>>::default();
        if !self.is_sharded() {
            runtime.spawn(read_feed(log.clone(), Arc::clone(&feed)));
        }
        self.running[replica.index()] =
            Some(Running { base, runtime, log, outbox, feed, kill, ended, stat, lease: None });
    }

    /// Finds the leases. The lease of a replica that has just started is the one that does not belong to the other replica.
    async fn find_leases(&mut self) {
        let rows = self.client.query("select replica::text from replicas where expires_at > now() order by 1", &[]);
        let found: Vec<String> = rows.await.unwrap().iter().map(|row| row.get(0)).collect();
        for index in 0..2 {
            let other = self.running[1 - index].as_ref().and_then(|other| other.lease.clone());
            if let Some(running) = self.running[index].as_mut()
                && running.lease.as_ref().is_none_or(|lease| !found.contains(lease))
            {
                running.lease = found.iter().rev().find(|lease| Some(*lease) != other.as_ref()).cloned();
            }
        }
    }

    /// Kills a replica if it runs, and lets its lease expire.
    pub(crate) async fn kill(&mut self, replica: Replica) {
        self.find_leases().await;
        let Some(running) = self.running[replica.index()].take() else { return };
        let _ = running.kill.send(());
        // The replica's own handles on the database were dropped with its runtime. These are the last ones.
        drop(running.log);
        running.ended.await.expect("the replica exits");
        let expire = "update replicas set expires_at = clock_timestamp() - interval '1s' where replica::text = $1";
        self.client.execute(expire, &[&running.lease.unwrap_or_default()]).await.unwrap();
    }

    /// Runs the fallback poll of a replica.
    pub(crate) async fn poll_now(&self, replica: Replica) -> bool {
        let Some(running) = &self.running[replica.index()] else { return true };
        running.outbox.wake();
        let ShardLog { hub, store } = running.log.clone();
        running.runtime.spawn(async move { hub.check(&store).await.is_ok() }).await.unwrap_or(false)
    }

    /// Starts retention on a replica.
    pub(crate) fn retain(&self, replica: Replica) -> Option<tokio::task::JoinHandle<()>> {
        let running = self.running[replica.index()].as_ref()?;
        let store = Arc::clone(&running.log.store);
        let work = async move {
            while store
                .trim(Retention { logs: KEEP, messages: KEEP, feed: KEEP, handovers: KEEP, audit: KEEP })
                .await
                .is_ok_and(|n| n > 0)
            {}
        };
        Some(running.runtime.spawn(work))
    }

    /// Whether no replica's thread is running, according to `/proc`.
    pub(crate) fn is_asleep(&self) -> bool {
        let states = self.running.iter().flatten().filter_map(|running| running.stat.as_ref());
        states.filter_map(|stat| std::fs::read_to_string(stat).ok()).all(|stat| {
            // The state follows the name, which is in parentheses.
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('S'))
        })
    }

    /// Returns the number of connections that wait for locks.
    pub(crate) async fn waiting_for_locks(&self) -> usize {
        let query =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        let count: i64 = self.client.query_one(query, &[]).await.unwrap().get(0);
        usize::try_from(count).unwrap()
    }
}

impl Drop for ReplicaPair {
    fn drop(&mut self) {
        for running in self.running.iter_mut().filter_map(Option::take) {
            let _ = running.kill.send(());
        }
    }
}

/// Returns settings under which nothing runs periodically within a run, and nothing times out.
fn settings(database: &str, is_sharded: bool) -> Settings {
    let arguments = [
        ("--database-url", database),
        ("--listen", "127.0.0.1:0"),
        ("--jwt-secret", SECRET),
        ("--database-connections", CONNECTIONS),
        ("--database-timeout", "60s"),
        ("--fallback-poll", "1d"),
        ("--retention-period", "1d"),
        ("--presence-grace", "30s"),
        ("--heartbeat", "60s"),
        ("--feed", if is_sharded { "off" } else { "on" }),
    ];
    let arguments = arguments.iter().flat_map(|(name, value)| [*name, *value]);
    Arguments::parse_from(std::iter::once("ridewire").chain(arguments)).settings
}
