//! A load balancer in front of two servers, with the configuration in `ops` that the documentation recommends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::process::{Child, Command};

use super::cluster::Database;
use super::server::Server;
use super::{eventually, free_ports};

/// The program that balances the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Caddy,
    HaProxy,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Nginx, Self::Caddy, Self::HaProxy];

    /// Returns the path of the program in Debian's package.
    fn program(self) -> &'static str {
        match self {
            Self::Nginx => "/usr/sbin/nginx",
            Self::Caddy => "/usr/bin/caddy",
            Self::HaProxy => "/usr/sbin/haproxy",
        }
    }

    /// Returns the configuration as shipped, and its text that sets the port.
    fn shipped(self) -> (&'static str, &'static str) {
        match self {
            Self::Nginx => (include_str!("../../ops/nginx/ridewire.conf"), "listen 80;"),
            Self::Caddy => (include_str!("../../ops/caddy/Caddyfile"), "\n:80 {"),
            Self::HaProxy => (include_str!("../../ops/haproxy/haproxy.cfg"), "bind :80"),
        }
    }

    /// Returns the text that sets another port.
    fn at(self, port: u16) -> String {
        match self {
            Self::Nginx => format!("listen 127.0.0.1:{port};"),
            Self::Caddy => format!("\nhttp://127.0.0.1:{port} {{"),
            Self::HaProxy => format!("bind 127.0.0.1:{port}"),
        }
    }
}

/// A running load balancer.
#[derive(Debug)]
pub struct Balancer {
    /// `http://127.0.0.1:…`
    pub base: String,
    directory: PathBuf,
    _child: Child,
}

impl Balancer {
    /// Starts a load balancer in front of `servers`. `idle` replaces the idle timeout of the configuration. Prints a message
    /// and returns `None` where the program is not installed.
    pub async fn start(kind: Kind, database: &Database, servers: [&Server; 2], idle: Option<&str>) -> Option<Self> {
        let program = kind.program();
        if !Path::new(program).exists() {
            eprintln!("skipped: {program} is not installed; scripts/test-programs.sh installs it");
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let directory = database.directory.join(format!("balancer-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&directory).expect("a directory");
        let [port] = free_ports();
        let (shipped, listens) = kind.shipped();
        let mut replaced = shipped
            .replace("one:8080", servers[0].address())
            .replace("two:8080", servers[1].address())
            .replace(listens, &kind.at(port));
        assert_eq!(replaced.matches("127.0.0.1:").count(), 3, "the configuration has other host names now:\n{shipped}");
        if let Some(idle) = idle {
            assert!(replaced.contains("75s"), "the configuration has another timeout now:\n{shipped}");
            replaced = replaced.replace("75s", idle);
        }
        let mut command = command(kind, &directory, &replaced);
        let child = command
            // The guard identifies the process by this variable.
            .env("RIDEWIRE_DATA_DIR", &database.directory)
            .stdin(Stdio::null())
            .stdout(fs::File::create(directory.join("output.log")).expect("a log file"))
            .stderr(fs::File::create(directory.join("log")).expect("a log file"))
            .kill_on_drop(true)
            .spawn()
            .expect("the load balancer starts");
        database.guard.watch(child.id().expect("the load balancer runs"));
        let base = format!("http://127.0.0.1:{port}");
        eventually("the load balancer is ready", async || {
            reqwest::get(format!("{base}/readyz")).await.ok().filter(|response| response.status() == 200)
        })
        .await;
        Some(Self { base, directory, _child: child })
    }

    /// Returns everything that the load balancer has logged.
    pub fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.directory.join(name)).unwrap_or_default();
        ["log", "output.log", "access.log", "error.log"].map(read).concat()
    }
}

/// Writes the configuration, completed where necessary, to a directory. Returns the command that runs the program in the
/// foreground as one process.
fn command(kind: Kind, directory: &Path, configuration: &str) -> Command {
    let path = directory.display();
    let write = |name: &str, text: String| -> PathBuf {
        let file = directory.join(name);
        fs::write(&file, text).expect("a file");
        file
    };
    let mut command = Command::new(kind.program());
    match kind {
        Kind::Nginx => {
            let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
            let temporary: String = temporary.iter().map(|name| format!("{name}_temp_path {path}/{name};\n")).collect();
            let user = if nix::unistd::geteuid().is_root() { "user root;\n" } else { "" };
            let whole = format!(
                "{user}daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log {path}/error.log;\n\
                 events {{ worker_connections 1024; }}\nhttp {{\naccess_log off;\n{temporary}{configuration}\n}}\n"
            );
            let whole = whole.replace("/var/log/nginx", &path.to_string());
            command.arg("-c").arg(write("nginx.conf", whole)).args(["-e", &format!("{path}/error.log")]);
        }
        Kind::Caddy => {
            let file = write("Caddyfile", format!("{{\n\tadmin off\n}}\n{configuration}"));
            command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
            // Caddy stores its state in these directories instead of the user's home.
            command.env("HOME", directory).env("XDG_DATA_HOME", directory).env("XDG_CONFIG_HOME", directory);
        }
        Kind::HaProxy => {
            let logging = "defaults\n    log stdout format raw local0";
            command.arg("-db").arg("-f").arg(write("haproxy.cfg", configuration.replacen("defaults", logging, 1)));
        }
    }
    command
}
