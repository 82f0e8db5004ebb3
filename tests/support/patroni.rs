//! A Postgres cluster of three nodes that Patroni manages, with the configuration in `ops/patroni`, and etcd with one node.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio_postgres::NoTls;

use super::cluster::Database;
use super::guard::ProcessGuard;
use super::standby::postgres_programs;
use super::{eventually_within, free_ports};

/// The configuration as shipped, and its line before which the tests add parameters.
const CONFIG: &str = include_str!("../../ops/patroni/patroni.yml");
const PARAMETERS: &str = "    # Dead connections";

const GUIDE: &str = include_str!("../../docs/how-to/high-availability.md");

const SUPERUSER_PASSWORD: &str = "of-the-superuser";

/// The login of Patroni's REST API, in the variables of `ops/patroni/patroni.env`.
const REST_LOGIN: [(&str, &str); 2] =
    [("PATRONI_RESTAPI_USERNAME", "patroni"), ("PATRONI_RESTAPI_PASSWORD", "of-the-api")];

/// How long a failover may take: the primary's lease, and the start of a standby on a busy machine.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(240);

/// A cluster of three nodes. Each Patroni and its Postgres is one "machine".
#[derive(Debug)]
pub struct PatroniCluster {
    directory: PathBuf,
    guard: Arc<ProcessGuard>,
    nodes: Vec<Node>,
    /// The directory of the Postgres programs.
    programs: PathBuf,
    etcd_port: u16,
    _etcd: Child,
}

#[derive(Debug)]
struct Node {
    name: String,
    rest_port: u16,
    postgres_port: u16,
    patroni: Child,
}

/// A fault of the primary's machine.
#[derive(Debug, Clone, Copy)]
pub enum PrimaryFault {
    /// The postmaster is killed (`kill -9`). Patroni runs on.
    PostgresKilled,
    /// Patroni and all processes of Postgres are killed at the same moment.
    MachineCrashed,
}

impl PatroniCluster {
    /// Starts the cluster as the guide describes it, with a database for Ridewire. Prints a message and returns `None` where a
    /// program is not installed.
    pub async fn start() -> Option<Self> {
        for program in ["/usr/bin/patroni", "/usr/bin/etcd"] {
            if !Path::new(program).exists() {
                eprintln!("skipped: {program} is not installed; scripts/test-programs.sh installs it");
                return None;
            }
        }
        let (directory, guard) = ProcessGuard::with_directory();
        let programs = postgres_programs(&Database::create().await).await;
        let [etcd_port, etcd_peer_port] = free_ports();
        let etcd = start_etcd(&directory, &guard, etcd_port, etcd_peer_port);
        let added = format!("    unix_socket_directories: '{}'\n", directory.join("sockets").display());
        private_directory(&directory.join("sockets"));
        let config = CONFIG.replacen(PARAMETERS, &format!("{added}{PARAMETERS}"), 1);
        assert!(config.contains(&added), "ops/patroni/patroni.yml has no line {PARAMETERS:?}");
        fs::write(directory.join("patroni.yml"), config).expect("a file");
        let mut cluster = Self { directory, guard, nodes: Vec::new(), programs, etcd_port, _etcd: etcd };
        for number in 1..=3 {
            let (name, [rest_port, postgres_port]) = (format!("node{number}"), free_ports());
            private_directory(&data_directory(&cluster.directory, &name));
            private_directory(&cluster.directory.join(&name));
            let patroni = cluster.start_patroni(&name, rest_port, postgres_port);
            cluster.nodes.push(Node { name, rest_port, postgres_port, patroni });
        }
        cluster.until_healthy().await;
        cluster.create_database().await;
        Some(cluster)
    }

    fn start_patroni(&self, name: &str, rest_port: u16, postgres_port: u16) -> Child {
        let (rest, postgres) = (format!("127.0.0.1:{rest_port}"), format!("127.0.0.1:{postgres_port}"));
        let log = log_file(&self.directory, &format!("{name}.log"));
        let patroni = command("/usr/bin/patroni", &self.directory)
            .arg(self.directory.join("patroni.yml"))
            .env("PATRONI_NAME", name)
            .env("PATRONI_ETCD3_HOSTS", self.etcd())
            .envs([("PATRONI_RESTAPI_LISTEN", &rest), ("PATRONI_RESTAPI_CONNECT_ADDRESS", &rest)])
            .envs(REST_LOGIN)
            .envs([("PATRONI_POSTGRESQL_LISTEN", &postgres), ("PATRONI_POSTGRESQL_CONNECT_ADDRESS", &postgres)])
            .env("PATRONI_POSTGRESQL_DATA_DIR", data_directory(&self.directory, name))
            .env("PATRONI_POSTGRESQL_BIN_DIR", &self.programs)
            .env("PATRONI_POSTGRESQL_PGPASS", self.directory.join(name).join("pgpass"))
            .env("PATRONI_SUPERUSER_PASSWORD", SUPERUSER_PASSWORD)
            .env("PATRONI_REPLICATION_PASSWORD", "of-the-replicator")
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("patroni starts");
        self.guard.watch(patroni.id().expect("it runs"));
        patroni
    }

    fn etcd(&self) -> String {
        format!("127.0.0.1:{}", self.etcd_port)
    }

    /// Creates the role and the database with the statements of the guide.
    async fn create_database(&self) {
        let url = self.url("postgres", SUPERUSER_PASSWORD, "postgres");
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.expect("a connection to the primary");
        tokio::spawn(connection);
        // One by one, because `create database` cannot run in a transaction.
        for statement in blocks("sql").lines() {
            client.batch_execute(statement).await.expect("the guide's statement");
        }
    }

    fn url(&self, user: &str, password: &str, name: &str) -> String {
        let ports: Vec<_> = self.nodes.iter().map(|node| node.postgres_port.to_string()).collect();
        format!(
            "host=127.0.0.1,127.0.0.1,127.0.0.1 port={} user={user} password={password} dbname={name} \
             target_session_attrs=read-write",
            ports.join(",")
        )
    }

    /// Returns the database of Ridewire. Its URL has all nodes.
    pub fn database(&self) -> Database {
        Database::at(self.url("ridewire", "change-me-3", "ridewire"), &self.directory, &self.guard)
    }

    /// Returns the members of the cluster as a running Patroni reports them.
    async fn members(&self) -> Vec<Value> {
        for node in &self.nodes {
            let Ok(response) = reqwest::get(format!("http://127.0.0.1:{}/cluster", node.rest_port)).await else {
                continue;
            };
            let Ok(text) = response.text().await else { continue };
            let Ok(cluster) = serde_json::from_str::<Value>(&text) else { continue };
            return cluster["members"].as_array().cloned().unwrap_or_default();
        }
        Vec::new()
    }

    /// Waits until all nodes run and one of them is a synchronous standby. Returns the primary's name.
    pub async fn until_healthy(&self) -> String {
        eventually_within(FAILOVER_TIMEOUT, Duration::from_millis(250), "all nodes of the cluster run", async || {
            let members = self.members().await;
            let is_running = |member: &Value| matches!(member["state"].as_str(), Some("running" | "streaming"));
            let are_running = members.len() == 3 && members.iter().all(is_running);
            let has_standby = members.iter().any(|member| member["role"] == "sync_standby");
            primary_of(&members).filter(|_| are_running && has_standby)
        })
        .await
    }

    /// Waits until a node other than `previous` is the primary.
    pub async fn until_failed_over(&self, previous: &str) {
        eventually_within(FAILOVER_TIMEOUT, Duration::from_millis(50), "another node is the primary", async || {
            primary_of(&self.members().await).filter(|primary| primary != previous)
        })
        .await;
    }

    /// Injects a fault on the primary's machine.
    pub fn inject(&mut self, fault: PrimaryFault, primary: &str) {
        let node = self.nodes.iter_mut().find(|node| node.name == primary).expect("a node");
        let pid_file = data_directory(&self.directory, primary).join("postmaster.pid");
        let postmaster = fs::read_to_string(pid_file).expect("a running Postgres");
        let postmaster: i32 = postmaster.lines().next().and_then(|pid| pid.parse().ok()).expect("a pid");
        if let PrimaryFault::MachineCrashed = fault {
            node.patroni.start_kill().expect("a running Patroni");
            // A stopped postmaster starts no further processes.
            kill(Pid::from_raw(postmaster), Signal::SIGSTOP).expect("a running Postgres");
            let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
            for child in children.expect("its processes").split_whitespace() {
                let child = child.parse().expect("a pid");
                // It may have ended.
                let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
            }
        }
        kill(Pid::from_raw(postmaster), Signal::SIGKILL).expect("a running Postgres");
    }

    /// Starts the Patroni of a crashed machine again, which starts Postgres.
    pub fn start_again(&mut self, name: &str) {
        let number = self.nodes.iter().position(|node| node.name == name).expect("a node");
        let (rest_port, postgres_port) = (self.nodes[number].rest_port, self.nodes[number].postgres_port);
        self.nodes[number].patroni = self.start_patroni(name, rest_port, postgres_port);
    }

    /// Promotes a standby with the command of the guide, while the primary runs.
    pub async fn switch_over(&self) {
        let commands = blocks("bash");
        let command = commands.lines().find(|line| line.contains(" switchover ")).expect("a command");
        let config = self.directory.join("patroni.yml");
        let command = command.replace("/etc/patroni/config.yml", &config.display().to_string());
        let output = Command::new("sh")
            .args(["-c", &command])
            .env("PATRONI_ETCD3_HOSTS", self.etcd())
            .envs(REST_LOGIN)
            .output()
            .await
            .expect("patronictl");
        assert!(output.status.success(), "{command}: {output:?}");
    }
}

/// Returns the name of the primary among the members, if it runs.
fn primary_of(members: &[Value]) -> Option<String> {
    let primary = members.iter().find(|member| member["role"] == "leader" && member["state"] == "running")?;
    Some(primary["name"].as_str()?.to_owned())
}

/// Returns the code blocks of a language in the guide.
fn blocks(language: &str) -> String {
    let fence = format!("```{language}\n");
    let blocks = GUIDE.split(&fence).skip(1);
    blocks.filter_map(|block| Some(block.split_once("```")?.0)).collect()
}

fn data_directory(directory: &Path, node: &str) -> PathBuf {
    // The guard finds the Postgres of a node by the beginning of this path.
    directory.join(format!("postgres-{node}"))
}

/// Returns a command that runs as a user that is allowed to start Postgres. The guard identifies its process by a variable.
fn command(program: &str, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("RIDEWIRE_DATA_DIR", directory).stdin(Stdio::null()).kill_on_drop(true);
    if let Some(user) = postgres_user() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

/// Returns the user that runs Postgres if the current one is root.
fn postgres_user() -> Option<User> {
    let is_root = nix::unistd::geteuid().is_root();
    is_root.then(|| User::from_name("postgres").expect("the users").expect("a user `postgres`"))
}

/// Creates a directory for the user that runs Postgres.
fn private_directory(path: &Path) {
    fs::create_dir(path).expect("a directory");
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("its owner");
    if let Some(user) = postgres_user() {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root");
    }
}

fn log_file(directory: &Path, name: &str) -> fs::File {
    fs::File::options().create(true).append(true).open(directory.join(name)).expect("a file")
}

fn start_etcd(directory: &Path, guard: &ProcessGuard, port: u16, peer_port: u16) -> Child {
    let data = directory.join("etcd");
    private_directory(&data);
    let (client_url, peer_url) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    let log = log_file(directory, "etcd.log");
    let etcd = command("/usr/bin/etcd", directory)
        .args(["--name", "etcd", "--initial-cluster", &format!("etcd={peer_url}"), "--log-level", "error"])
        .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
        .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
        // The test is about the failure of Postgres, and a busy disk must not expire leases.
        .arg("--unsafe-no-fsync")
        .arg("--data-dir")
        .arg(data)
        .stdout(log.try_clone().expect("a file"))
        .stderr(log)
        .spawn()
        .expect("etcd starts");
    guard.watch(etcd.id().expect("it runs"));
    etcd
}
