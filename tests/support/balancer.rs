//! An nginx before two servers, with the configuration that `compose.yaml` gives it.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::process::{Child, Command};

use super::cluster::Database;
use super::eventually;
use super::server::Server;

/// A running one.
#[derive(Debug)]
pub struct Nginx {
    /// `http://127.0.0.1:…`
    pub base: String,
    _child: Child,
}

impl Nginx {
    /// Starts one before these. `None`, and a word about it, where there is no nginx.
    pub async fn before(database: &Database, servers: [&Server; 2]) -> Option<Self> {
        if !Path::new("/usr/sbin/nginx").exists() {
            eprintln!("skipped: there is no nginx; scripts/test-programs.sh installs it");
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let directory = database.directory.join(format!("nginx-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&directory).expect("a directory");
        // Free now; nobody else takes ports so fast.
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let ours = include_str!("../../ops/nginx/ridewire.conf");
        let replaced = ours
            .replace("one:8080", servers[0].address())
            .replace("two:8080", servers[1].address())
            .replace("listen 80;", &format!("listen 127.0.0.1:{port};"));
        assert_eq!(replaced.matches("127.0.0.1:").count(), 3, "the configuration has other names now:\n{ours}");
        let path = directory.display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary: String = temporary.iter().map(|name| format!("{name}_temp_path {path}/{name};\n")).collect();
        let user = if nix::unistd::geteuid().is_root() { "user root;\n" } else { "" };
        let whole = format!(
            "{user}daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log {path}/error.log;\n\
             events {{ worker_connections 1024; }}\nhttp {{\naccess_log off;\n{temporary}{replaced}\n}}\n"
        );
        fs::write(directory.join("nginx.conf"), whole).expect("a file");
        let child = Command::new("/usr/sbin/nginx")
            .arg("-c")
            .arg(directory.join("nginx.conf"))
            .args(["-e", &format!("{path}/error.log")])
            // The guard knows the process by it.
            .env("RIDEWIRE_DATA_DIR", &database.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .expect("nginx starts");
        database.guard.watch(child.id().expect("it runs"));
        let base = format!("http://127.0.0.1:{port}");
        eventually("nginx answers", async || {
            reqwest::get(format!("{base}/readyz")).await.ok().filter(|answer| answer.status() == 200)
        })
        .await;
        Some(Self { base, _child: child })
    }
}
