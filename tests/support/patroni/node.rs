//! A machine of the cluster: etcd, Patroni and the Postgres that Patroni starts.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tokio::process::{Child, Command};

use crate::support::free_ports;
use crate::support::guard::ProcessGuard;

/// The environment of Patroni as shipped, for the first node.
const ENVIRONMENT: &str = include_str!("../../../ops/patroni/patroni.env");

/// What the nodes have in common.
#[derive(Debug)]
pub(super) struct Installation {
    pub(super) directory: PathBuf,
    pub(super) guard: Arc<ProcessGuard>,
    /// The directory of the Postgres programs.
    pub(super) programs: PathBuf,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) rest_port: u16,
    pub(super) postgres_port: u16,
    installation: Arc<Installation>,
    /// The ports of etcd for its clients and for its peers.
    etcd_ports: [u16; 2],
    /// The names and the etcd ports of all nodes.
    etcd_cluster: Vec<(String, [u16; 2])>,
    processes: Option<[Child; 2]>,
}

impl Node {
    /// Creates the directories of three nodes. Starts nothing.
    pub(super) fn create_all(installation: &Arc<Installation>) -> Vec<Self> {
        let names = [1, 2, 3].map(|number| format!("node{number}"));
        let etcd_cluster = names.map(|name| (name, free_ports()));
        let create = |(name, etcd_ports): &(String, [u16; 2])| {
            let [rest_port, postgres_port] = free_ports();
            let node = Self {
                name: name.clone(),
                rest_port,
                postgres_port,
                installation: Arc::clone(installation),
                etcd_ports: *etcd_ports,
                etcd_cluster: etcd_cluster.to_vec(),
                processes: None,
            };
            for directory in [node.directory(), node.data_directory(), node.directory().join("etcd")] {
                private_directory(&directory);
            }
            node
        };
        etcd_cluster.iter().map(create).collect()
    }

    fn directory(&self) -> PathBuf {
        self.installation.directory.join(&self.name)
    }

    /// The guard finds the Postgres of a node by the beginning of this path.
    fn data_directory(&self) -> PathBuf {
        self.installation.directory.join(format!("postgres-{}", self.name))
    }

    /// Returns the variables of `patroni.env`, with the addresses and paths of this node.
    pub(super) fn environment(&self) -> HashMap<&'static str, String> {
        let mut environment: HashMap<_, _> = variables().map(|(name, value)| (name, value.to_owned())).collect();
        let (rest, postgres) = (address(self.rest_port), address(self.postgres_port));
        let etcd: Vec<_> = self.etcd_cluster.iter().map(|(_, [client, _])| address(*client)).collect();
        for (name, value) in [
            ("PATRONI_NAME", self.name.clone()),
            ("PATRONI_ETCD_HOSTS", etcd.join(",")),
            ("PATRONI_RESTAPI_LISTEN", rest.clone()),
            ("PATRONI_RESTAPI_CONNECT_ADDRESS", rest),
            ("PATRONI_POSTGRESQL_LISTEN", postgres.clone()),
            ("PATRONI_POSTGRESQL_CONNECT_ADDRESS", postgres),
            ("PATRONI_POSTGRESQL_DATA_DIR", self.data_directory().display().to_string()),
            ("PATRONI_POSTGRESQL_BIN_DIR", self.installation.programs.display().to_string()),
            ("PATRONI_POSTGRESQL_PGPASS", self.directory().join("pgpass").display().to_string()),
        ] {
            environment.insert(name, value).unwrap_or_else(|| panic!("ops/patroni/patroni.env has no {name}"));
        }
        environment
    }

    /// Starts etcd and Patroni, which starts Postgres.
    pub(super) fn start(&mut self) {
        self.processes = Some([self.start_etcd(), self.start_patroni()]);
    }

    fn start_patroni(&self) -> Child {
        let mut patroni = self.command("/usr/bin/patroni", "patroni.log");
        patroni.arg(self.installation.directory.join("patroni.yml")).envs(self.environment());
        self.spawn(patroni)
    }

    fn start_etcd(&self) -> Child {
        let urls = self.etcd_ports.map(|port| format!("http://{}", address(port)));
        let [client_url, peer_url] = &urls;
        let peer = |(name, [_, port]): &(String, [u16; 2])| format!("{name}=http://{}", address(*port));
        let peers: Vec<_> = self.etcd_cluster.iter().map(peer).collect();
        let mut etcd = self.command("/usr/bin/etcd", "etcd.log");
        etcd.args(["--name", &self.name, "--initial-cluster", &peers.join(","), "--log-level", "error"])
            .args(["--listen-client-urls", client_url, "--advertise-client-urls", client_url])
            .args(["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url])
            // The test is about the failure of machines, and a busy disk must not expire leases.
            .args(["--unsafe-no-fsync", "--enable-v2"])
            .arg("--data-dir")
            .arg(self.directory().join("etcd"));
        self.spawn(etcd)
    }

    /// Returns a command that runs as a user that is allowed to start Postgres. The guard identifies its process by a variable.
    fn command(&self, program: &str, log: &str) -> Command {
        let log = fs::File::options().create(true).append(true).open(self.directory().join(log)).expect("a file");
        let mut command = Command::new(program);
        command
            .env("RIDEWIRE_DATA_DIR", &self.installation.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .kill_on_drop(true);
        if let Some(user) = postgres_user() {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    fn spawn(&self, mut command: Command) -> Child {
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.installation.guard.watch(child.id().expect("it runs"));
        child
    }

    fn postmaster(&self) -> Pid {
        let file = fs::read_to_string(self.data_directory().join("postmaster.pid")).expect("a running Postgres");
        Pid::from_raw(file.lines().next().and_then(|pid| pid.parse().ok()).expect("a pid"))
    }

    pub(super) fn kill_postmaster(&self) {
        kill(self.postmaster(), Signal::SIGKILL).expect("a running Postgres");
    }

    /// Sends a signal to all processes of the machine. Before `SIGKILL` they must be stopped: a running parent would start others.
    pub(super) fn signal(&self, signal: Signal) {
        let programs = self.processes.iter().flatten().map(|child| child.id().expect("it runs").cast_signed());
        let parents: Vec<_> = programs.map(Pid::from_raw).chain([self.postmaster()]).collect();
        for parent in parents {
            if signal == Signal::SIGSTOP {
                kill(parent, signal).expect("it runs");
            }
            for child in children(parent) {
                // It may have ended.
                let _ = kill(child, signal);
            }
            if signal != Signal::SIGSTOP {
                kill(parent, signal).expect("it runs");
            }
        }
    }
}

fn children(parent: Pid) -> Vec<Pid> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).expect("a running process");
    children.split_whitespace().map(|pid| Pid::from_raw(pid.parse().expect("a pid"))).collect()
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Returns the lines of `patroni.env`.
fn variables() -> impl Iterator<Item = (&'static str, &'static str)> {
    ENVIRONMENT.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='))
}

/// Returns a variable of `patroni.env`.
pub(super) fn variable(name: &str) -> String {
    let found = variables().find(|(one, _)| *one == name);
    found.unwrap_or_else(|| panic!("ops/patroni/patroni.env has no {name}")).1.to_owned()
}

/// Returns the user that runs Postgres if the current one is root.
fn postgres_user() -> Option<User> {
    let is_root = nix::unistd::geteuid().is_root();
    is_root.then(|| User::from_name("postgres").expect("the users").expect("a user `postgres`"))
}

/// Creates a directory for the user that runs Postgres.
pub(super) fn private_directory(path: &Path) {
    fs::create_dir(path).expect("a directory");
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("its owner");
    if let Some(user) = postgres_user() {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root");
    }
}
