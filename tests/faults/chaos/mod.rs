//! The chaos test: two replicas and many clients that read and send, while a fault is injected every few seconds.
//!
//! The replicas share a pooler or have one each. At the end all faults are repaired and each client sends one last
//! message. When all clients have received the last messages, the checker reads the journals. No acknowledged message may
//! be lost. No client may receive an event twice, out of order, or of a ride of others.
//!
//! | module | contents |
//! |---|---|
//! | `participants` | the users: groups of ten clients, each group in a process of its own |
//! | `client`, `reader` | the work of a client process |
//! | `journal` | the file that a client process writes |
//! | `faults` | the faults |
//! | `checker` | checks a run from its journals alone |
//!
//! `RIDEWIRE_CHAOS_SEED` determines the faults, their order and the number of poolers. Their timing depends on the machine.

mod checker;
#[cfg(test)]
mod checker_tests;
mod client;
mod faults;
mod journal;
mod participants;
mod reader;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use self::client::Control;
use self::faults::{Infrastructure, StopCondition};
use crate::support::Server;
use crate::{is_soak, limit_heavy_tests, size};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_repeated_reordered_or_leaked_whatever_breaks() {
    let _permit = limit_heavy_tests().await;
    let seed = std::env::var("RIDEWIRE_CHAOS_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    // The directory is kept if the run fails.
    let journals = tempfile::Builder::new().prefix("rw-journals-").tempdir().unwrap().keep();
    eprintln!("RIDEWIRE_CHAOS_SEED={seed}, journals in {}", journals.display());
    let groups = size(5, 20);
    let poolers = if seed.is_multiple_of(2) { 1 } else { 2 };
    let mut infrastructure = Infrastructure::start(size(256, 512), poolers).await;
    let configurations = [infrastructure.replica(0), infrastructure.replica(1)];
    let mut servers = [configurations[0].start().await, configurations[1].start().await];
    let platform = servers[0].service();
    for group in 0..groups {
        for (ride, rider) in participants::rides(group) {
            platform.put_ride(&ride, &rider, Some(&participants::driver(group))).await.expect(201);
        }
    }

    let began = Instant::now();
    let clients = Clients::start(groups, &journals, &servers).await;
    let injected =
        faults::inject(stop_condition(), &mut infrastructure, &configurations, &mut servers, &clients, seed).await;
    eprintln!("{injected:?} in {:.1?}", began.elapsed());
    let paths = clients.end().await;

    let entries: Vec<_> = paths.iter().map(|path| journal::read(path)).collect();
    let report = checker::check(&entries);
    eprintln!(
        "{} clients over {} connections saw {} events; {} messages acknowledged, {} times more than once; probes were \
         denied {} times; {:.1?} in all",
        report.clients,
        report.connections,
        report.events,
        report.acknowledged,
        report.repeated,
        report.denied,
        began.elapsed()
    );
    let shown = report.problems.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(report.problems.is_empty(), "{} problems, of which the first are:\n{shown}", report.problems.len());
    // A run without enough work proves nothing.
    let clients = groups * participants::CLIENTS;
    assert_eq!(report.clients, clients);
    assert!(injected.values().sum::<usize>() >= size(8, 150), "too few faults were injected");
    assert!(
        injected.len() >= size(4, infrastructure.kinds().len() + faults::REPLICA_KINDS.len()),
        "some kinds of faults were not injected"
    );
    assert!(report.acknowledged >= clients * size(5, 100), "too few messages were sent");
    assert!(report.connections >= clients * size(3, 30), "too few reconnects");
    assert!(report.repeated > 0 && report.denied >= groups, "no retry or no probe");
    std::fs::remove_dir_all(journals).unwrap();
}

/// Returns the condition that ends the fault injection.
fn stop_condition() -> StopCondition {
    if is_soak() { StopCondition::Time(Duration::from_secs(600)) } else { StopCondition::Faults(12, 5) }
}

/// The client processes of a run.
#[derive(Debug)]
pub(crate) struct Clients {
    processes: Vec<Process>,
    control: Mutex<(Control, Vec<ChildStdin>)>,
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
        let clients = Self { processes, control: Mutex::new((Control { replicas, is_ending: false }, inputs)) };
        clients.update_control(|_| {}).await;
        clients
    }

    async fn update_control(&self, change: impl FnOnce(&mut Control)) {
        let mut control = self.control.lock().await;
        let (control, inputs) = &mut *control;
        change(control);
        let line = serde_json::to_string(control).unwrap() + "\n";
        for input in inputs {
            input.write_all(line.as_bytes()).await.expect("the client process is running");
        }
    }

    /// Sends the new address of a replica to all client processes.
    pub(crate) async fn set_address(&self, number: usize, server: &Server) {
        self.update_control(|control| control.replicas[number] = server.address().parse().unwrap()).await;
    }

    /// Requests all clients to send their last message and to wait for those of the others. Returns the journals.
    async fn end(mut self) -> Vec<PathBuf> {
        self.update_control(|control| control.is_ending = true).await;
        let mut journals = Vec::new();
        for Process { child, journal } in &mut self.processes {
            let status = timeout(client::TIMEOUT * 2, child.wait()).await.expect("the clients end").unwrap();
            assert!(status.success(), "the client process of {} failed", journal.display());
            journals.push(journal.clone());
        }
        journals
    }
}
