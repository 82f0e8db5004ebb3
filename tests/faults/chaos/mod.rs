//! The chaos run: two replicas behind a pooler, or one each, and clients who follow and send while something breaks
//! every few seconds. In the end all is well, everybody says one last thing, and when all have heard it the journals are
//! judged: nothing that was acknowledged is lost, nobody got anything twice, out of order, or of others.
//!
//! | | |
//! |---|---|
//! | `people` | who there is: groups of ten clients, each group a process of its own |
//! | `client`, `follower` | what such a process does |
//! | `journal` | what it writes down |
//! | `faults` | what breaks |
//! | `checker` | judges, by journals alone |
//!
//! `RIDEWIRE_CHAOS_SEED` chooses the faults, their order, and how many poolers there are; when what happens is
//! up to the machine.

mod checker;
#[cfg(test)]
mod checker_tests;
mod client;
mod faults;
mod follower;
mod journal;
mod people;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use self::client::Orders;
use self::faults::{Enough, Ground};
use crate::support::Server;
use crate::{is_soak, size, two_at_a_time};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_repeated_reordered_or_leaked_whatever_breaks() {
    let _turn = two_at_a_time().await;
    let seed = std::env::var("RIDEWIRE_CHAOS_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    // They stay where the run fails.
    let journals = tempfile::Builder::new().prefix("rw-journals-").tempdir().unwrap().keep();
    eprintln!("RIDEWIRE_CHAOS_SEED={seed}, journals in {}", journals.display());
    let groups = size(5, 20);
    let poolers = if seed.is_multiple_of(2) { 1 } else { 2 };
    let mut ground = Ground::lay(size(256, 512), poolers).await;
    let places = [ground.replica(0), ground.replica(1)];
    let mut servers = [places[0].start().await, places[1].start().await];
    let platform = servers[0].service();
    for group in 0..groups {
        for (ride, rider) in people::rides(group) {
            platform.put_ride(&ride, &rider, Some(&people::driver(group))).await.expect(201);
        }
    }

    let began = Instant::now();
    let clients = Clients::start(groups, &journals, &servers).await;
    let struck = faults::strike(enough(), &mut ground, &places, &mut servers, &clients, seed).await;
    eprintln!("{struck:?} in {:.1?}", began.elapsed());
    let paths = clients.end().await;

    let entries: Vec<_> = paths.iter().map(|path| journal::read(path)).collect();
    let verdict = checker::check(&entries);
    eprintln!(
        "{} clients over {} connections saw {} events; {} messages acknowledged, {} times more than once; strangers were \
         denied {} times; {:.1?} in all",
        verdict.clients,
        verdict.connections,
        verdict.events,
        verdict.acknowledged,
        verdict.again,
        verdict.denied,
        began.elapsed()
    );
    let shown = verdict.problems.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(verdict.problems.is_empty(), "{} problems, of which the first are:\n{shown}", verdict.problems.len());
    // What has shown nothing may not have tried.
    let clients = groups * people::CLIENTS;
    assert_eq!(verdict.clients, clients);
    assert!(struck.values().sum::<usize>() >= size(8, 150), "hardly anything broke");
    assert!(struck.len() >= size(4, ground.kinds().len() + faults::REPLICA_KINDS.len()), "not everything broke");
    assert!(verdict.acknowledged >= clients * size(5, 100), "hardly anything was sent");
    assert!(verdict.connections >= clients * size(3, 30), "hardly anybody had to come back");
    assert!(verdict.again > 0 && verdict.denied >= groups, "not everything was tried");
    std::fs::remove_dir_all(journals).unwrap();
}

/// When enough has broken.
fn enough() -> Enough {
    if is_soak() { Enough::Time(Duration::from_secs(600)) } else { Enough::Faults(12, 5) }
}

/// The client processes.
#[derive(Debug)]
pub(crate) struct Clients {
    processes: Vec<Process>,
    told: Mutex<(Orders, Vec<ChildStdin>)>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    journal: PathBuf,
}

impl Clients {
    async fn start(groups: usize, journals: &Path, servers: &[Server; 2]) -> Self {
        let (mut processes, mut inputs) = (Vec::new(), Vec::new());
        for group in 0..groups {
            let journal = journals.join(format!("group-{group}"));
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "chaos::client::a_client_process", "--ignored", "--nocapture", "--quiet"])
                .env(client::GROUP, group.to_string())
                .env(client::GROUPS, groups.to_string())
                .env(client::JOURNAL, &journal)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            inputs.push(child.stdin.take().unwrap());
            processes.push(Process { child, journal });
        }
        let replicas = [0, 1].map(|number: usize| servers[number].address().parse().unwrap());
        let clients = Self { processes, told: Mutex::new((Orders { replicas, is_ending: false }, inputs)) };
        clients.tell(|_| {}).await;
        clients
    }

    async fn tell(&self, change: impl FnOnce(&mut Orders)) {
        let mut told = self.told.lock().await;
        let (orders, inputs) = &mut *told;
        change(orders);
        let line = serde_json::to_string(orders).unwrap() + "\n";
        for input in inputs {
            input.write_all(line.as_bytes()).await.expect("the client process is there");
        }
    }

    /// A replica is somewhere else now.
    pub(crate) async fn tell_address(&self, number: usize, server: &Server) {
        self.tell(|orders| orders.replicas[number] = server.address().parse().unwrap()).await;
    }

    /// Has everybody say their last and hear that of the others: their journals.
    async fn end(mut self) -> Vec<PathBuf> {
        self.tell(|orders| orders.is_ending = true).await;
        let mut journals = Vec::new();
        for Process { child, journal } in &mut self.processes {
            let status = timeout(client::PATIENCE * 2, child.wait()).await.expect("the clients end").unwrap();
            assert!(status.success(), "the client process of {} failed", journal.display());
            journals.push(journal.clone());
        }
        journals
    }
}
