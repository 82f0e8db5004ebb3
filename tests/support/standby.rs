//! A synchronous standby of a dedicated Postgres, which a test can promote.

use std::path::PathBuf;
use std::sync::Arc;

use ridewire::embedded::{EmbeddedPostgres, Options};
use tokio::process::Command;
use tokio_postgres::NoTls;
use tokio_postgres::config::Host;

use super::cluster::{Cluster, Database};
use super::eventually;
use super::guard::ProcessGuard;

/// A synchronous standby: the primary's commits wait for it.
#[derive(Debug)]
pub struct Standby {
    postgres: EmbeddedPostgres,
    directory: PathBuf,
    guard: Arc<ProcessGuard>,
}

impl Standby {
    /// Copies the cluster of `database` and starts the copy as its synchronous standby.
    pub async fn of(database: &Database) -> Self {
        let (directory, guard) = ProcessGuard::with_directory();
        let copy = Command::new(postgres_programs(database).await.join("pg_basebackup"))
            .args(["-d", &database.url, "-R", "-X", "stream", "-c", "fast", "-D"])
            .arg(directory.join("postgres"))
            .output()
            .await
            .expect("pg_basebackup");
        assert!(copy.status.success(), "{copy:?}");
        let postgres =
            EmbeddedPostgres::start(&directory, Options { durable: false }).await.expect("the standby starts");
        guard.watch(postgres.pid().expect("it runs"));
        let primary = database.client().await;
        primary.batch_execute("alter system set synchronous_standby_names = '*'").await.expect("a superuser");
        primary.batch_execute("select pg_reload_conf()").await.expect("a superuser");
        eventually("commits wait for the standby", async || {
            let state =
                primary.query_opt("select sync_state from pg_stat_replication", &[]).await.expect("a result")?;
            (state.get::<_, Option<&str>>(0) == Some("sync")).then_some(())
        })
        .await;
        Self { postgres, directory, guard }
    }

    /// Returns the database with a URL that lists both hosts; a connection goes to the one that accepts writes.
    pub fn with_primary(&self, primary: &Database) -> Database {
        let (mut hosts, mut database) = (Vec::new(), String::new());
        for url in [&primary.url, &self.postgres.url()] {
            let config: tokio_postgres::Config = url.parse().expect("a URL");
            let Some(Host::Unix(path)) = config.get_hosts().first() else { panic!("{url}: no socket") };
            hosts.push(path.display().to_string());
            let (user, name) = (config.get_user().expect("a user"), config.get_dbname().expect("a name"));
            database = format!("user={user} dbname={name}");
        }
        let url = format!("host={} {database} target_session_attrs=read-write", hosts.join(","));
        Database::at(url, &self.directory, &self.guard)
    }

    /// Promotes the standby to primary.
    pub async fn promote(&self) {
        let (client, connection) = tokio_postgres::connect(&self.postgres.url(), NoTls).await.expect("a connection");
        let connection = tokio::spawn(connection);
        // No standby is left to confirm its commits.
        client.batch_execute("alter system reset synchronous_standby_names").await.expect("a superuser");
        client.batch_execute("select pg_reload_conf()").await.expect("a superuser");
        let promoted = client.query_one("select pg_promote(true, 30)", &[]).await.expect("a result");
        assert!(promoted.get::<_, bool>(0), "it is promoted");
        connection.abort();
    }
}

/// Returns the directory of the PostgreSQL programs of a running server.
pub async fn postgres_programs(database: &Database) -> PathBuf {
    let row = database.client().await.query_one("select setting from pg_config where name = 'BINDIR'", &[]).await;
    PathBuf::from(row.expect("a superuser").get::<_, &str>(0))
}
