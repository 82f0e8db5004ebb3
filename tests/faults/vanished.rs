//! Readers whose machine has gone without a word: in a network of their own, whose cable is cut.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::support::{Database, PATIENCE, Server, eventually_within};

/// A network with a machine on the other end of a cable. Gone when dropped.
struct Network {
    name: String,
    /// Ours, as the other end sees it.
    here: String,
}

impl Network {
    /// `None`, and a word about it, where none can be made.
    async fn lay() -> Option<Self> {
        let number = std::process::id() % 50_000;
        let name = format!("rw{number}");
        let [high, low] = [number / 250, number % 250];
        let (here, there) = (format!("10.{high}.{low}.1"), format!("10.{high}.{low}.2"));
        let network = Self { name, here };
        let [ours, theirs] = [network.cable(), format!("{}b", network.name)];
        for arguments in [
            format!("netns add {}", network.name),
            format!("link add {ours} type veth peer name {theirs} netns {}", network.name),
            format!("addr add {}/30 dev {ours}", network.here),
            format!("link set {ours} up"),
            format!("-n {} addr add {there}/30 dev {theirs}", network.name),
            format!("-n {} link set {theirs} up", network.name),
        ] {
            if !ip(&arguments).await {
                eprintln!("skipped: there is no network to cut; to make one takes root and iproute2 (ip {arguments})");
                return None;
            }
        }
        Some(network)
    }

    fn cable(&self) -> String {
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

    /// Nothing passes any more, and nobody is told.
    async fn cut(&self) {
        assert!(ip(&format!("link set {} down", self.cable())).await);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The cable goes with it.
        let _ = std::process::Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

async fn ip(arguments: &str) -> bool {
    let output = Command::new("ip").args(arguments.split(' ')).output().await;
    output.is_ok_and(|output| output.status.success())
}

/// How many streams are open, by the server's own account.
async fn open(base: &str) -> f64 {
    let text = reqwest::get(format!("{base}/metrics")).await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("ridewire_open{transport=\"sse\"} "));
    line.map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_whose_other_end_has_gone_go_with_the_heartbeat() {
    let Some(network) = Network::lay().await else { return };
    let database = Database::create().await;
    let heartbeat = ("RIDEWIRE_HEARTBEAT", "500ms");
    let settings = [("RIDEWIRE_LISTEN", "0.0.0.0:0"), ("RIDEWIRE_WRITE_TIMEOUT", "2s"), heartbeat];
    let mut server = Server::with(&database, &settings).await;
    let port = server.base.rsplit_once(':').unwrap().1.to_owned();
    server.base = format!("http://127.0.0.1:{port}");
    let (_, driver) = server.open_ride("ride").await;
    let url = format!("http://{}:{port}/api/v1/messages/rides/ride/events", network.here);
    let readers: Vec<_> = (0..20).map(|_| network.curl(&url, &driver.token)).collect();
    let (patience, pause) = (PATIENCE * 2, Duration::from_millis(250));
    eventually_within(patience, pause, "they are there", async || (open(&server.base).await == 20.0).then_some(()))
        .await;
    network.cut().await;
    // Without being asked to, the kernel gives up after a quarter of an hour.
    eventually_within(patience, pause, "they are gone", async || (open(&server.base).await == 0.0).then_some(())).await;
    drop(readers);
}
