//! A private Postgres, and databases in it.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use ridewire::embedded::{EmbeddedPostgres, Options, StopMode};
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

use super::guard::Guard;

const TEMPLATE: &str = "ridewire_template";

/// A private Postgres that forgets what a crash of the machine would take, and nothing else.
#[derive(Debug)]
pub struct Cluster {
    directory: PathBuf,
    guard: Arc<Guard>,
    url: String,
    /// Of a test's own cluster; the shared one is run elsewhere.
    postgres: Option<EmbeddedPostgres>,
    work: Option<mpsc::Sender<Work>>,
}

#[derive(Debug)]
enum Work {
    /// Named so, made so.
    Create(String, String, oneshot::Sender<String>),
    Drop(String),
}

fn directory() -> PathBuf {
    let directory = tempfile::Builder::new()
        .prefix("rw-")
        // The user that Postgres runs as must be able to pass.
        .permissions(std::fs::Permissions::from_mode(0o711))
        .tempdir_in("/tmp")
        .expect("a directory below /tmp");
    directory.keep()
}

async fn start(directory: &Path, guard: &Guard) -> EmbeddedPostgres {
    start_with(directory, guard, Options { durable: false }).await
}

async fn start_with(directory: &Path, guard: &Guard, options: Options) -> EmbeddedPostgres {
    let postgres = EmbeddedPostgres::start(directory, options).await.expect("Postgres starts");
    guard.watch(postgres.pid().expect("Postgres runs"));
    postgres
}

impl Cluster {
    /// The one that all tests of this process share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| {
            let directory = directory();
            let guard = Arc::new(Guard::of(&directory));
            let (ready, started) = mpsc::channel();
            let (work, orders) = mpsc::channel();
            let (path, watched) = (directory.clone(), Arc::clone(&guard));
            // A thread and a runtime of its own: each test's runtime ends with the test.
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
                runtime.expect("a runtime").block_on(async {
                    let postgres = start(&path, &watched).await;
                    let admin = connect(&postgres.url_for("postgres")).await;
                    admin.batch_execute(&format!("create database {TEMPLATE}")).await.expect("a template");
                    let template = postgres.url_for(TEMPLATE).parse().expect("a URL");
                    ridewire::store::migrate(&template).await.expect("migrations");
                    ready.send(postgres.url()).expect("somebody waits");
                    for order in orders {
                        carry_out(&admin, &postgres, order).await;
                    }
                });
            });
            let url = started.recv().expect("Postgres starts");
            Self { directory, guard, url, postgres: None, work: Some(work) }
        })
    }

    /// One for a test alone, to break.
    pub async fn own() -> Self {
        Self::own_with(Options { durable: false }).await
    }

    /// The same with the settings of a private Postgres in production.
    pub async fn durable() -> Self {
        Self::own_with(Options::default()).await
    }

    async fn own_with(options: Options) -> Self {
        let directory = directory();
        let guard = Arc::new(Guard::of(&directory));
        let postgres = start_with(&directory, &guard, options).await;
        Self { directory, guard, url: postgres.url(), postgres: Some(postgres), work: None }
    }

    /// The same on a disk of its own, which a test may fill. `None`, and a word about it, where none can be mounted.
    pub async fn on_a_disk_of(megabytes: usize) -> Option<Self> {
        let directory = directory();
        // It unmounts what it removes.
        let guard = Arc::new(Guard::of(&directory));
        let options = format!("size={megabytes}m,mode=711");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "ridewire"]).arg(&directory).output();
        if !mount.await.is_ok_and(|mount| mount.status.success()) {
            eprintln!("skipped: there is no disk to fill; to mount one takes root");
            return None;
        }
        let postgres = start(&directory, &guard).await;
        Some(Self { directory, guard, url: postgres.url(), postgres: Some(postgres), work: None })
    }

    /// Leaves not a byte on that disk to Postgres, its log, and the servers' logs, until what is returned is dropped.
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

    /// Where it is, and the logs of its servers.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The database of a test's own cluster, which the first server migrates.
    pub fn database(&self) -> Database {
        Database {
            url: self.url.clone(),
            directory: self.directory.clone(),
            guard: Arc::clone(&self.guard),
            dropped: None,
        }
    }

    /// Ends a test's own Postgres as a crash would.
    pub async fn stop_immediate(&mut self) {
        let postgres = self.postgres.take().expect("a cluster of one's own that runs");
        postgres.stop(StopMode::Immediate).await.expect("Postgres stops");
    }

    /// Starts it again, at the same address.
    pub async fn start_again(&mut self) {
        let postgres = start(&self.directory, &self.guard).await;
        assert_eq!(postgres.url(), self.url);
        self.postgres = Some(postgres);
    }

    /// Starts a Postgres again that has ended by itself.
    pub async fn start_if_ended(&mut self) {
        let postgres = self.postgres.as_mut().expect("a cluster of one's own");
        if timeout(Duration::from_millis(10), postgres.exited()).await.is_ok() {
            self.postgres = None;
            self.start_again().await;
        }
    }

    /// Both.
    pub async fn restart_immediate(&mut self) {
        self.stop_immediate().await;
        self.start_again().await;
    }
}

/// What fills a disk.
#[derive(Debug)]
pub struct Ballast(PathBuf);

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn carry_out(admin: &Client, postgres: &EmbeddedPostgres, order: Work) {
    match order {
        Work::Create(name, how, done) => {
            admin.batch_execute(&format!("create database {name} {how}")).await.expect("a database");
            let _ = done.send(postgres.url_for(&name));
        }
        // One that stays is removed with the cluster.
        Work::Drop(name) => drop(admin.batch_execute(&format!("drop database {name} with (force)")).await),
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection to Postgres");
    tokio::spawn(connection);
    client
}

/// A database.
#[derive(Debug)]
pub struct Database {
    pub url: String,
    pub(super) directory: PathBuf,
    pub(super) guard: Arc<Guard>,
    dropped: Option<(String, mpsc::Sender<Work>)>,
}

impl Database {
    /// A migrated, empty one in the shared cluster, dropped when this is.
    pub async fn create() -> Self {
        Self::created(format!("template {TEMPLATE}")).await
    }

    /// A wholly empty one that sorts as people do, not by bytes. (`PostgreSQL` 15 or newer.)
    pub async fn sorted_for_people() -> Self {
        Self::created("template template0 locale_provider icu icu_locale 'en'".to_owned()).await
    }

    async fn created(how: String) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let cluster = Cluster::shared();
        let name = format!("test_{}", COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let (done, url) = oneshot::channel();
        let work = cluster.work.clone().expect("the shared cluster takes orders");
        work.send(Work::Create(name.clone(), how, done)).expect("the shared cluster runs");
        let url = url.await.expect("a database");
        let (directory, guard) = (cluster.directory.clone(), Arc::clone(&cluster.guard));
        Self { url, directory, guard, dropped: Some((name, work)) }
    }

    /// A copy as a backup would have it: restored beside this one, which nobody may be using.
    pub async fn restored(&self) -> Self {
        let (name, _) = self.dropped.as_ref().expect("a database in the shared cluster");
        Self::created(format!("template {name}")).await
    }

    /// The name, in SQL.
    pub fn name(&self) -> &str {
        self.dropped.as_ref().map(|(name, _)| name.as_str()).expect("a database in the shared cluster")
    }

    /// What Postgres has logged.
    pub fn postgres_log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.directory.join("postgres.log")).expect("its log")).into_owned()
    }

    /// Every row of every table, with the table's name, as text.
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

    /// One that is there already.
    pub(super) fn at(url: String, directory: &Path, guard: &Arc<Guard>) -> Self {
        Self { url, directory: directory.to_owned(), guard: Arc::clone(guard), dropped: None }
    }

    /// A look into it.
    pub async fn client(&self) -> Client {
        connect(&self.url).await
    }

    /// The last seq of a ride's log.
    pub async fn head(&self, ride: &str) -> i64 {
        let topic = format!("ride/{ride}");
        let row = self.client().await.query_one("select last_seq from topics where name = $1", &[&topic]).await;
        row.expect("the ride's topic").get(0)
    }

    /// How many replicas have registered that `user` follows a ride.
    pub async fn replicas_with(&self, user: &str, ride: &str) -> i64 {
        let query = "select count(*) from presence where topic = 'ride/' || $1 and user_id = $2";
        self.client().await.query_one(query, &[&ride, &user]).await.expect("presence").get(0)
    }

    /// Lets the time pass that the lease of the replica holds on which `user` is, as if it had been gone for that long: the
    /// next replica that looks finds it expired.
    pub async fn expire_lease_of(&self, user: &str) {
        let query = "update replicas set expires_at = clock_timestamp()
                     where replica in (select replica from presence where user_id = $1)";
        let expired = self.client().await.execute(query, &[&user]).await.expect("replicas");
        assert_eq!(expired, 1, "{user} is on one replica");
    }

    /// All that is in it, to compare: nothing has changed where this is the same. The feed's head follows later, as the relay gets to it.
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
        if let Some((name, work)) = self.dropped.take() {
            let _ = work.send(Work::Drop(name));
        }
    }
}
