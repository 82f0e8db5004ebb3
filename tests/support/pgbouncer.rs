//! A PgBouncer in transaction pooling mode, as a separate process.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio_postgres::config::Host;

use super::cluster::Database;
use super::{eventually, free_ports};

/// A running PgBouncer in front of a database.
#[derive(Debug)]
pub struct PgBouncer {
    /// The URL through PgBouncer. It replaces the database's own URL.
    pub url: String,
    child: Child,
    command: Vec<String>,
    directory: String,
}

impl PgBouncer {
    /// Starts PgBouncer with few connections to the database: each transaction may get another connection. Prints a message
    /// and returns `None` where PgBouncer is not installed.
    pub async fn start(database: &Database) -> Option<Self> {
        if !Path::new("/usr/sbin/pgbouncer").exists() && Command::new("pgbouncer").arg("-V").output().await.is_err() {
            eprintln!("skipped: PgBouncer is not installed; scripts/test-programs.sh installs it");
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let config: tokio_postgres::Config = database.url.parse().expect("a URL");
        let host = match config.get_hosts() {
            [Host::Unix(path), ..] => path.display().to_string(),
            [Host::Tcp(name), ..] => name.clone(),
            [] => panic!("no host"),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let (name, user) = (config.get_dbname().expect("a name"), config.get_user().expect("a user"));
        let [listen] = free_ports();
        let file = database.directory.join(format!("bouncer-{}.ini", COUNT.fetch_add(1, Ordering::Relaxed)));
        let settings = format!(
            "[databases]\npooled = host={host} port={port} dbname={name} user={user}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {listen}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = 4\nmax_client_conn = 500\n\
             server_login_retry = 0.2\nserver_tls_sslmode = disable\n"
        );
        fs::write(&file, settings).expect("a file");
        let mut command = vec!["pgbouncer".to_owned(), "-q".to_owned()];
        if nix::unistd::geteuid().is_root() {
            // PgBouncer does not run as root.
            command.extend(["-u".to_owned(), "postgres".to_owned()]);
        }
        command.push(file.display().to_string());
        let url = format!("postgres://{user}@127.0.0.1:{listen}/pooled");
        let directory = database.directory.display().to_string();
        let child = spawn(&command, &directory);
        database.guard.watch(child.id().expect("it runs"));
        let bouncer = Self { url, child, command, directory };
        bouncer.ready().await;
        Some(bouncer)
    }

    async fn ready(&self) {
        eventually("PgBouncer accepts connections", async || {
            let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await.ok()?;
            let connection = tokio::spawn(connection);
            let result = client.simple_query("select 1").await.ok();
            connection.abort();
            result
        })
        .await;
    }

    /// Stops PgBouncer, which closes all its connections, and starts it again.
    pub async fn restart(&mut self) {
        let pid = i32::try_from(self.child.id().expect("it runs")).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("a signal");
        self.child.wait().await.expect("it ends");
        self.child = spawn(&self.command, &self.directory);
        self.ready().await;
    }
}

fn spawn(command: &[String], directory: &str) -> Child {
    let (program, arguments) = command.split_first().expect("a program");
    let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
    Command::new(program)
        .args(arguments)
        .env("PATH", path)
        // The guard identifies the process by this variable.
        .env("RIDEWIRE_DATA_DIR", directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("pgbouncer starts")
}
