//! Private Postgres clusters and their databases.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use ridewire::domain::ShardMap;
use ridewire::embedded::{EmbeddedPostgres, Options, StopMode};
use ridewire::store::Shards;
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

use super::eventually;
use super::guard::ProcessGuard;

const TEMPLATE: &str = "ridewire_template";

/// A private Postgres without fsync: it can lose data when the machine crashes, but not when a process does.
#[derive(Debug)]
pub struct Cluster {
    directory: PathBuf,
    guard: Arc<ProcessGuard>,
    url: String,
    /// The process of a dedicated cluster. The shared cluster's process belongs to its thread.
    postgres: Option<EmbeddedPostgres>,
    jobs: Option<mpsc::Sender<DatabaseJob>>,
}

#[derive(Debug)]
enum DatabaseJob {
    /// The name, the options of `create database`, and the sender of the URL.
    Create(String, String, oneshot::Sender<String>),
    Drop(String),
}

async fn start(directory: &Path, guard: &ProcessGuard) -> EmbeddedPostgres {
    start_with(directory, guard, Options { durable: false }).await
}

async fn start_with(directory: &Path, guard: &ProcessGuard, options: Options) -> EmbeddedPostgres {
    let postgres = EmbeddedPostgres::start(directory, options).await.expect("Postgres starts");
    guard.watch(postgres.pid().expect("Postgres runs"));
    postgres
}

impl Cluster {
    /// Returns the cluster that all tests of this process share. The first call starts it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| {
            let (directory, guard) = ProcessGuard::with_directory();
            let (ready, started) = mpsc::channel();
            let (jobs, receiver) = mpsc::channel();
            let (path, watched) = (directory.clone(), Arc::clone(&guard));
            // A separate thread and runtime, because each test's runtime ends with the test.
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
                runtime.expect("a runtime").block_on(async {
                    let postgres = start(&path, &watched).await;
                    let admin = connect(&postgres.url_for("postgres")).await;
                    admin.batch_execute(&format!("create database {TEMPLATE}")).await.expect("a template");
                    let template = postgres.url_for(TEMPLATE).parse().expect("a URL");
                    ridewire::store::migrate(&template).await.expect("migrations");
                    ready.send(postgres.url()).expect("the caller waits");
                    for job in receiver {
                        run_job(&admin, &postgres, job).await;
                    }
                });
            });
            let url = started.recv().expect("Postgres starts");
            Self { directory, guard, url, postgres: None, jobs: Some(jobs) }
        })
    }

    /// Starts a cluster for one test, which may stop it or damage it.
    pub async fn dedicated() -> Self {
        Self::dedicated_with(Options { durable: false }).await
    }

    /// Starts a dedicated cluster with the settings of a private Postgres in production (with fsync).
    pub async fn durable() -> Self {
        Self::dedicated_with(Options::default()).await
    }

    async fn dedicated_with(options: Options) -> Self {
        let (directory, guard) = ProcessGuard::with_directory();
        let postgres = start_with(&directory, &guard, options).await;
        Self { directory, guard, url: postgres.url(), postgres: Some(postgres), jobs: None }
    }

    /// Starts a dedicated cluster on a small disk (tmpfs), which a test can fill. Prints a message and returns `None` where a
    /// disk cannot be mounted.
    pub async fn on_small_disk(megabytes: usize) -> Option<Self> {
        // The guard unmounts the disk when it removes the directory.
        let (directory, guard) = ProcessGuard::with_directory();
        let options = format!("size={megabytes}m,mode=711");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "ridewire"]).arg(&directory).output();
        if !mount.await.is_ok_and(|mount| mount.status.success()) {
            eprintln!("skipped: mounting a tmpfs needs root");
            return None;
        }
        let postgres = start(&directory, &guard).await;
        Some(Self { directory, guard, url: postgres.url(), postgres: Some(postgres), jobs: None })
    }

    /// Fills the disk to the last byte, until the returned value is dropped. Postgres, its log and the servers' logs are on it.
    pub async fn fill_disk(&self) -> Ballast {
        let ballast = Ballast(self.directory.join("ballast"));
        let path = ballast.0.clone();
        let filled = tokio::task::spawn_blocking(move || {
            let mut file = File::create(path).expect("a file");
            for size in [1 << 20, 1 << 12, 1] {
                let chunk = vec![0; size];
                let full = loop {
                    if let Err(error) = file.write_all(&chunk) {
                        break error;
                    }
                };
                assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
            }
        });
        filled.await.expect("the disk is full");
        ballast
    }

    /// Returns the directory of the cluster and of the logs of its servers.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the database of a dedicated cluster. The first server migrates it.
    pub fn database(&self) -> Database {
        Database {
            url: self.url.clone(),
            directory: self.directory.clone(),
            guard: Arc::clone(&self.guard),
            has_feed: true,
            dropped: None,
        }
    }

    /// Stops a dedicated Postgres like a crash (immediate mode).
    pub async fn stop_immediate(&mut self) {
        let postgres = self.postgres.take().expect("a running dedicated cluster");
        postgres.stop(StopMode::Immediate).await.expect("Postgres stops");
    }

    /// Starts a stopped Postgres again, at the same address.
    pub async fn start_again(&mut self) {
        let postgres = start(&self.directory, &self.guard).await;
        assert_eq!(postgres.url(), self.url);
        self.postgres = Some(postgres);
    }

    /// Starts Postgres again if its process has exited.
    pub async fn start_if_exited(&mut self) {
        let postgres = self.postgres.as_mut().expect("a dedicated cluster");
        if timeout(Duration::from_millis(10), postgres.exited()).await.is_ok() {
            self.postgres = None;
            self.start_again().await;
        }
    }

    /// Stops a dedicated Postgres like a crash, then starts it again.
    pub async fn restart_immediate(&mut self) {
        self.stop_immediate().await;
        self.start_again().await;
    }
}

/// A file that fills a disk. Dropping the value removes the file.
#[derive(Debug)]
pub struct Ballast(PathBuf);

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn run_job(admin: &Client, postgres: &EmbeddedPostgres, job: DatabaseJob) {
    match job {
        DatabaseJob::Create(name, options, done) => {
            admin.batch_execute(&format!("create database {name} {options}")).await.expect("a database");
            let _ = done.send(postgres.url_for(&name));
        }
        // A database that cannot be dropped is removed with the cluster.
        DatabaseJob::Drop(name) => drop(admin.batch_execute(&format!("drop database {name} with (force)")).await),
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection to Postgres");
    tokio::spawn(connection);
    client
}

/// A database of a cluster.
#[derive(Debug)]
pub struct Database {
    pub url: String,
    pub(super) directory: PathBuf,
    pub(super) guard: Arc<ProcessGuard>,
    /// Whether servers of this database can have a feed.
    pub has_feed: bool,
    /// The name and the cluster's job queue, where `Drop` drops the database.
    dropped: Option<(String, mpsc::Sender<DatabaseJob>)>,
}

impl Database {
    /// Creates a migrated, empty database in the shared cluster. Dropping the value drops the database.
    pub async fn create() -> Self {
        Self::create_with(format!("template {TEMPLATE}")).await
    }

    /// Creates a migrated, empty database with this number of shards, all of them in it.
    pub async fn with_shards(count: u16) -> Self {
        let mut database = Self::create().await;
        let (map, first) = (ShardMap::new(count).expect("a number of shards"), database.url.parse().expect("a URL"));
        Shards::create(map, &first, |_| first.clone()).await.expect("the shards");
        database.has_feed = false;
        database
    }

    /// Creates an empty database without tables, with an ICU collation instead of byte order (`PostgreSQL` 15 or newer).
    pub async fn with_icu_collation() -> Self {
        Self::create_with("template template0 locale_provider icu icu_locale 'en'".to_owned()).await
    }

    async fn create_with(options: String) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let cluster = Cluster::shared();
        let name = format!("test_{}", COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let (done, url) = oneshot::channel();
        let jobs = cluster.jobs.clone().expect("the shared cluster");
        jobs.send(DatabaseJob::Create(name.clone(), options, done)).expect("the shared cluster runs");
        let url = url.await.expect("a database");
        let (directory, guard) = (cluster.directory.clone(), Arc::clone(&cluster.guard));
        Self { url, directory, guard, has_feed: true, dropped: Some((name, jobs)) }
    }

    /// Creates a copy of this database, as a restored backup. No session may be connected to this database.
    pub async fn copy(&self) -> Self {
        let (name, _) = self.dropped.as_ref().expect("a database in the shared cluster");
        Self::create_with(format!("template {name}")).await
    }

    /// Returns the name of the database.
    pub fn name(&self) -> &str {
        self.dropped.as_ref().map(|(name, _)| name.as_str()).expect("a database in the shared cluster")
    }

    /// Returns the directory of the database's cluster and of the logs of its servers.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the log of Postgres.
    pub fn postgres_log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.directory.join("postgres.log")).expect("its log")).into_owned()
    }

    /// Waits until a ride is closed, and its participants have their `ride:closed` events.
    pub async fn until_closed(&self, ride: &str) {
        let client = self.client().await;
        eventually("the ride is closed", async || {
            let row = client.query_one("select closed_at is not null from rides where ride_id = $1", &[&ride]).await;
            row.expect("the ride").get::<_, bool>(0).then_some(())
        })
        .await;
    }

    /// Returns every row of every table as `(table, row as text)`.
    pub async fn dump(&self) -> Vec<(String, String)> {
        let client = self.client().await;
        let tables = "select relname::text from pg_class
                      where relkind in ('r', 'p') and relnamespace = current_schema()::regnamespace order by 1";
        let mut rows = Vec::new();
        for table in client.query(tables, &[]).await.expect("the tables") {
            let table: String = table.get(0);
            let found = client.query(&format!(r#"select t::text from "{table}" as t"#), &[]).await.expect("its rows");
            rows.extend(found.iter().map(|row| (table.clone(), row.get(0))));
        }
        rows
    }

    /// Wraps a database that exists already.
    pub(super) fn at(url: String, directory: &Path, guard: &Arc<ProcessGuard>) -> Self {
        Self { url, directory: directory.to_owned(), guard: Arc::clone(guard), has_feed: true, dropped: None }
    }

    /// Opens a connection to the database.
    pub async fn client(&self) -> Client {
        connect(&self.url).await
    }

    /// Returns the last seq of a ride's log.
    pub async fn head(&self, ride: &str) -> i64 {
        let topic = format!("ride/{ride}");
        let row = self.client().await.query_one("select last_seq from topics where name = $1", &[&topic]).await;
        row.expect("the ride's topic").get(0)
    }

    /// Deletes the beginning of the feed, as its retention does, up to the batch that has `position`. Returns the last deleted position.
    pub async fn expire_feed(&self, position: i64) -> i64 {
        let client = self.client().await;
        let last = "select min(last_position) from feed_ranges where last_position >= $1";
        let last: i64 = client.query_one(last, &[&position]).await.unwrap().get(0);
        for delete in ["delete from feed_ranges where last_position <= $1", "delete from feed where position <= $1"] {
            client.execute(delete, &[&last]).await.unwrap();
        }
        last
    }

    /// Returns the number of replicas that have registered the presence of `user` on a ride.
    pub async fn replicas_with_presence(&self, user: &str, ride: &str) -> i64 {
        let query = "select count(*) from presence where topic = 'ride/' || $1 and user_id = $2";
        self.client().await.query_one(query, &[&ride, &user]).await.expect("presence").get(0)
    }

    /// Expires the lease of the replica that `user` is connected to: the next replica that checks the leases finds it expired.
    pub async fn expire_lease_of(&self, user: &str) {
        let query = "update replicas set expires_at = clock_timestamp()
                     where replica in (select replica from presence where user_id = $1)";
        let expired = self.client().await.execute(query, &[&user]).await.expect("replicas");
        assert_eq!(expired, 1, "{user} is connected to one replica");
    }

    /// Returns the contents of the tables as one text: equal texts mean that nothing has changed. The feed's head is left out,
    /// because the relay moves it later.
    pub async fn contents(&self) -> String {
        let tables =
            ["topics", "events", "rides", "participants", "receipts", "messages", "ride_locations", "driver_state"];
        let rows = tables.map(|table| {
            let of = if table == "topics" { "where name <> 'feed'" } else { "" };
            format!("select coalesce(string_agg(t::text, E'\\n' order by t::text), '') as text from {table} t {of}")
        });
        let rows = self.client().await.query(&rows.join(" union all "), &[]).await.expect("the contents");
        rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n--\n")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some((name, jobs)) = self.dropped.take() {
            let _ = jobs.send(DatabaseJob::Drop(name));
        }
    }
}
