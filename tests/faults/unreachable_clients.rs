//! Readers that become unreachable without closing their connections: their network link is taken down.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::support::{Database, Server, TIMEOUT, eventually_within};

/// A network namespace with a link to this machine. Deleted when dropped.
struct Network {
    name: String,
    /// The address of this machine on the link.
    local: String,
}

impl Network {
    /// Returns `None` and prints the reason if no namespace can be created.
    async fn create() -> Option<Self> {
        let number = std::process::id() % 50_000;
        let name = format!("rw{number}");
        let [high, low] = [number / 250, number % 250];
        let (local, remote) = (format!("10.{high}.{low}.1"), format!("10.{high}.{low}.2"));
        let network = Self { name, local };
        let [ours, theirs] = [network.link_name(), format!("{}b", network.name)];
        for arguments in [
            format!("netns add {}", network.name),
            format!("link add {ours} type veth peer name {theirs} netns {}", network.name),
            format!("addr add {}/30 dev {ours}", network.local),
            format!("link set {ours} up"),
            format!("-n {} addr add {remote}/30 dev {theirs}", network.name),
            format!("-n {} link set {theirs} up", network.name),
        ] {
            if !ip(&arguments).await {
                eprintln!("skipped: a network namespace requires root and iproute2 (ip {arguments})");
                return None;
            }
        }
        Some(network)
    }

    fn link_name(&self) -> String {
        format!("{}a", self.name)
    }

    fn curl(&self, url: &str, token: &str) -> Child {
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            &self.name,
            "curl",
            "-sN",
            url,
            "-H",
            &format!("Authorization: Bearer {token}"),
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        command.spawn().unwrap()
    }

    /// Takes the link down. No packet passes any more, and neither side is notified.
    async fn cut(&self) {
        assert!(ip(&format!("link set {} down", self.link_name())).await);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The link is deleted with its namespace.
        let _ = std::process::Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

async fn ip(arguments: &str) -> bool {
    let output = Command::new("ip").args(arguments.split(' ')).output().await;
    output.is_ok_and(|output| output.status.success())
}

/// Returns the number of open streams from the metrics.
async fn open(base: &str) -> f64 {
    let text = reqwest::get(format!("{base}/metrics")).await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("ridewire_connections{transport=\"sse\"} "));
    line.map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_unreachable_clients_are_closed_by_the_write_timeout() {
    let Some(network) = Network::create().await else { return };
    let database = Database::create().await;
    let heartbeat = ("RIDEWIRE_HEARTBEAT", "500ms");
    let settings = [("RIDEWIRE_LISTEN", "0.0.0.0:0"), ("RIDEWIRE_WRITE_TIMEOUT", "2s"), heartbeat];
    let mut server = Server::start_with(&database, &settings).await;
    let port = server.base.rsplit_once(':').unwrap().1.to_owned();
    server.base = format!("http://127.0.0.1:{port}");
    let (_, driver) = server.open_ride("ride").await;
    let url = format!("http://{}:{port}/api/v1/messages/rides/ride/events", network.local);
    let readers: Vec<_> = (0..20).map(|_| network.curl(&url, &driver.token)).collect();
    let (limit, pause) = (TIMEOUT * 2, Duration::from_millis(250));
    eventually_within(limit, pause, "the streams are open", async || (open(&server.base).await == 20.0).then_some(()))
        .await;
    network.cut().await;
    // The kernel alone would retransmit for 15 minutes.
    eventually_within(limit, pause, "the streams are closed", async || (open(&server.base).await == 0.0).then_some(()))
        .await;
    drop(readers);
}
