//! A Postgres cluster of three nodes that Patroni manages, with the configuration in `ops/patroni`.

mod node;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::process::Command;
use tokio_postgres::NoTls;

use self::node::{Installation, Node, private_directory};
use super::cluster::Database;
use super::eventually_within;
use super::guard::ProcessGuard;
use super::standby::postgres_programs;

/// The configuration as shipped, its line before which the tests add parameters, and its network.
const CONFIG: &str = include_str!("../../ops/patroni/patroni.yml");
const PARAMETERS: &str = "    # Dead connections";
const NETWORK: &str = " 10.0.0.0/24 ";

const GUIDE: &str = include_str!("../../docs/how-to/high-availability.md");

/// How long a failover may take: the primary's lease, and the start of a standby on a busy machine.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(240);

/// A cluster of three nodes. Each one is a "machine": etcd, Patroni and its Postgres.
#[derive(Debug)]
pub struct PatroniCluster {
    directory: PathBuf,
    guard: Arc<ProcessGuard>,
    nodes: Vec<Node>,
    http: reqwest::Client,
}

/// A fault of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeFault {
    /// The postmaster is killed (`kill -9`). Patroni and etcd run on.
    PostgresKilled,
    /// All processes are killed at the same moment.
    Crashed,
    /// All processes are stopped (`kill -STOP`): connections stay open, and nothing responds.
    Frozen,
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
        private_directory(&directory.join("sockets"));
        let added = format!("    unix_socket_directories: '{}'\n", directory.join("sockets").display());
        for expected in [PARAMETERS, NETWORK] {
            assert!(CONFIG.contains(expected), "ops/patroni/patroni.yml has no {expected:?}");
        }
        let config = CONFIG.replacen(PARAMETERS, &format!("{added}{PARAMETERS}"), 1);
        let config = config.replace(NETWORK, " 127.0.0.0/8 ");
        fs::write(directory.join("patroni.yml"), config).expect("a file");
        let installation = Installation {
            directory: directory.clone(),
            guard: Arc::clone(&guard),
            programs: postgres_programs(&Database::create().await).await,
        };
        // Requests to a frozen Patroni must end.
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build().expect("a client");
        let mut cluster = Self { directory, guard, nodes: Node::create_all(&Arc::new(installation)), http };
        for node in &mut cluster.nodes {
            node.start();
        }
        cluster.until_healthy().await;
        cluster.create_database().await;
        Some(cluster)
    }

    /// Creates the role and the database with the statements of the guide.
    async fn create_database(&self) {
        let url = self.url("postgres", &node::variable("PATRONI_SUPERUSER_PASSWORD"), "postgres");
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
            let Ok(response) = self.http.get(format!("http://127.0.0.1:{}/cluster", node.rest_port)).send().await
            else {
                continue;
            };
            let Ok(text) = response.text().await else { continue };
            let Ok(cluster) = serde_json::from_str::<Value>(&text) else { continue };
            return cluster["members"].as_array().cloned().unwrap_or_default();
        }
        Vec::new()
    }

    /// Waits until all nodes run and one of them is a synchronous standby. Returns the names of the primary and of that standby.
    pub async fn until_healthy(&self) -> (String, String) {
        eventually_within(FAILOVER_TIMEOUT, Duration::from_millis(250), "all nodes of the cluster run", async || {
            let members = self.members().await;
            let are_running = members.len() == 3 && members.iter().all(is_running);
            let both = with_role(&members, "leader").zip(with_role(&members, "sync_standby"));
            both.filter(|_| are_running)
        })
        .await
    }

    /// Waits until a node other than `previous` is the primary.
    pub async fn until_failed_over(&self, previous: &str) {
        eventually_within(FAILOVER_TIMEOUT, Duration::from_millis(50), "another node is the primary", async || {
            with_role(&self.members().await, "leader").filter(|primary| primary != previous)
        })
        .await;
    }

    fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.name == name).expect("a node")
    }

    /// Injects a fault on a machine.
    pub fn inject(&mut self, fault: NodeFault, name: &str) {
        let node = self.node(name);
        match fault {
            NodeFault::PostgresKilled => node.kill_postmaster(),
            NodeFault::Crashed => {
                node.signal(Signal::SIGSTOP);
                node.signal(Signal::SIGKILL);
            }
            NodeFault::Frozen => node.signal(Signal::SIGSTOP),
        }
    }

    /// Ends a fault: starts the programs of a crashed machine, and lets those of a frozen one continue.
    pub fn recover(&mut self, fault: NodeFault, name: &str) {
        let node = self.node(name);
        match fault {
            // Patroni starts Postgres again.
            NodeFault::PostgresKilled => {}
            NodeFault::Crashed => node.start(),
            NodeFault::Frozen => node.signal(Signal::SIGCONT),
        }
    }

    /// Promotes a standby with the command of the guide, while the primary runs.
    pub async fn switch_over(&self) {
        let commands = blocks("bash");
        let command = commands.lines().find(|line| line.contains(" switchover ")).expect("a command");
        let config = self.directory.join("patroni.yml");
        let command = command.replace("/etc/patroni/config.yml", &config.display().to_string());
        let node = self.nodes.first().expect("a node");
        let output = Command::new("sh").args(["-c", &command]).envs(node.environment()).output().await;
        let output = output.expect("patronictl");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        // It also exits with 0 if the switchover was rejected.
        assert!(printed.contains("Successfully switched over"), "{command}: {output:?}");
    }
}

fn is_running(member: &Value) -> bool {
    matches!(member["state"].as_str(), Some("running" | "streaming"))
}

/// Returns the name of the running member with a role.
fn with_role(members: &[Value], role: &str) -> Option<String> {
    let member = members.iter().find(|member| member["role"] == role && is_running(member))?;
    Some(member["name"].as_str()?.to_owned())
}

/// Returns the code blocks of a language in the guide.
fn blocks(language: &str) -> String {
    let fence = format!("```{language}\n");
    let blocks = GUIDE.split(&fence).skip(1);
    blocks.filter_map(|block| Some(block.split_once("```")?.0)).collect()
}
