//! The peer servers: nchan, a server on Express, Mercure and Centrifugo (benches/peers). If one is not installed
//! (scripts/bench-programs.sh), the report says so.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::sleep;
use tokio_postgres::config::Host;

use crate::server::{SECRET, Server, ServerKind};
use crate::testbed::{Ride, Testbed};

/// Directories of nginx modules on the systems that package nchan.
const MODULES: [&str; 3] = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/lib/nginx/modules"];

impl Testbed {
    /// Starts a server. Returns `None` if the peer is not installed.
    pub(crate) async fn serve(&self, kind: ServerKind, name: &str) -> anyhow::Result<Option<Server>> {
        match kind {
            // Two users stand for a thousand, so the send limit is off.
            ServerKind::Ridewire => Ok(Some(self.server_with(name, &[("RIDEWIRE_SENDS_PER_SECOND", "0")]).await?)),
            ServerKind::Nchan => self.nchan().await.context("nchan"),
            ServerKind::Express => self.express().await.context("Express"),
            ServerKind::Mercure | ServerKind::MercureBolt => self.mercure(kind).await.context("Mercure"),
            ServerKind::Centrifugo | ServerKind::CentrifugoPostgres => {
                self.centrifugo(kind).await.context("Centrifugo")
            }
        }
    }

    async fn mercure(&self, kind: ServerKind) -> anyhow::Result<Option<Server>> {
        let Some(program) = built("mercure") else { return Ok(None) };
        let mut command = Command::new(program);
        command.env("MERCURE_SECRET", SECRET);
        if kind == ServerKind::MercureBolt {
            let directory = tempfile::Builder::new().prefix("mercure-").tempdir_in(self.directory())?.keep();
            command.env("MERCURE_DATABASE", directory.join("updates.db"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        command.stderr(File::create(self.file("mercure.log"))?);
        Ok(Some(Server::start(kind, command).await?))
    }

    async fn centrifugo(&self, kind: ServerKind) -> anyhow::Result<Option<Server>> {
        let Some(program) = built("centrifugo") else { return Ok(None) };
        let directory = tempfile::Builder::new().prefix("centrifugo-").tempdir_in(self.directory())?.keep();
        // The port is free until the server binds it.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let text = std::fs::read_to_string(peer("centrifugo/config.json"))?
            .replace("{{port}}", &address.port().to_string())
            .replace("{{durable}}", if kind == ServerKind::CentrifugoPostgres { "true" } else { "false" })
            .replace("{{database}}", &self.url_with_host_parameter()?);
        let config = directory.join("config.json");
        std::fs::write(&config, text)?;
        let mut command = Command::new(program);
        command.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        command.stderr(File::create(directory.join("output.log"))?);
        let child = command.spawn()?;
        wait_until_listening(address).await?;
        Ok(Some(Server::running(kind, child, address)?))
    }

    async fn nchan(&self) -> anyhow::Result<Option<Server>> {
        let modules = MODULES.iter().map(|directory| Path::new(directory).join("ngx_nchan_module.so"));
        let (Some(nginx), Some(module)) = (program("nginx"), { modules }.find(|module| module.is_file())) else {
            return Ok(None);
        };
        let directory = tempfile::Builder::new().prefix("nchan-").tempdir_in(self.directory())?.keep();
        // The port is free until nginx binds it.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let file_limit = crate::process::file_limit().0.to_string();
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid())?.context("a user")?.name;
        let mut text = std::fs::read_to_string(peer("nchan/nginx.conf"))?;
        for (name, value) in [
            ("module", module.display().to_string()),
            ("user", user),
            ("files", file_limit),
            ("directory", directory.display().to_string()),
            ("address", address.to_string()),
        ] {
            text = text.replace(&format!("{{{{{name}}}}}"), &value);
        }
        let configuration = directory.join("nginx.conf");
        std::fs::write(&configuration, text)?;
        let mut command = Command::new(nginx);
        command.arg("-p").arg(&directory).arg("-c").arg(configuration).arg("-e").arg(directory.join("error.log"));
        // Not killed on drop, because its worker would keep running. It gets SIGTERM.
        command.stdin(Stdio::null()).stderr(File::create(directory.join("output.log"))?);
        let child = command.spawn()?;
        wait_until_listening(address).await?;
        Ok(Some(Server::running(ServerKind::Nchan, child, address)?))
    }

    async fn express(&self) -> anyhow::Result<Option<Server>> {
        let directory = peer("express");
        let Some(node) = program("node").filter(|_| directory.join("node_modules/better-sse").is_dir()) else {
            return Ok(None);
        };
        let schema = std::fs::read_to_string(directory.join("schema.sql"))?;
        self.connect().await?.batch_execute(&schema).await?;
        let mut command = Command::new(node);
        command.arg("server.js").current_dir(directory).env("NODE_ENV", "production");
        command.env("DATABASE_URL", self.url()).env("RIDEWIRE_JWT_SECRET", SECRET);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        command.stderr(File::create(self.file("express.log"))?);
        Ok(Some(Server::start(ServerKind::Express, command).await?))
    }

    /// Returns the database's URL with the socket's directory as a parameter. Drivers in Go do not accept it as the host.
    fn url_with_host_parameter(&self) -> anyhow::Result<String> {
        let config: tokio_postgres::Config = self.url().parse()?;
        let Some(Host::Unix(directory)) = config.get_hosts().first() else { bail!("Postgres has no socket") };
        let (user, name) = (config.get_user().context("a user")?, config.get_dbname().context("a database")?);
        Ok(format!("postgres://{user}@/{name}?host={}", directory.display()))
    }

    /// Creates rides on a peer: rows on Express. The others have no rides, and their channels need no setup.
    pub(crate) async fn create_rides_on_peer(&self, server: &Server, rides: &[Ride]) -> anyhow::Result<()> {
        if server.kind == ServerKind::Express {
            let (ids, participants): (Vec<&str>, Vec<(&str, &str)>) =
                rides.iter().map(|ride| (&*ride.id, (&*ride.rider_id, &*ride.driver_id))).unzip();
            let (riders, drivers): (Vec<&str>, Vec<&str>) = participants.into_iter().unzip();
            let client = self.connect().await?;
            let insert = "insert into express.rides (id, rider_id, driver_id) select * from unnest($1::text[], $2::text[], $3::text[])";
            client.execute(insert, &[&ids, &riders, &drivers]).await?;
            client.batch_execute("analyze express.rides").await?;
        }
        Ok(())
    }
}

fn peer(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers").join(path)
}

/// Returns the path of a peer that `scripts/bench-programs.sh` has built.
fn built(name: &str) -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers").join(name);
    program.is_file().then_some(program)
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    { places }.map(|place| place.join(name)).find(|program| program.is_file())
}

/// Waits until the address accepts connections.
async fn wait_until_listening(address: SocketAddr) -> anyhow::Result<()> {
    for _ in 0..500 {
        if TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        sleep(Duration::from_millis(10)).await;
    }
    bail!("no server listens on {address}")
}
