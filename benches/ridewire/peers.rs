//! The peers that are servers: nchan and one on Express, as benches/peers has them. Where one is not installed
//! (scripts/bench-programs.sh), there is none, and the report says so.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::sleep;

use crate::platform::{Platform, Ride, SECRET};
use crate::server::{Kind, Server};

/// Where nginx's modules are, on the systems that have nchan in a package.
const MODULES: [&str; 3] = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/lib/nginx/modules"];

impl Platform {
    /// Starts a server, ours or a peer's; `None` where the peer is not installed.
    pub(crate) async fn serve(&self, kind: Kind, name: &str) -> anyhow::Result<Option<Server>> {
        match kind {
            // Two people stand for a thousand, and may say as much.
            Kind::Ridewire => Ok(Some(self.server_with(name, &[("RIDEWIRE_SENDS_PER_SECOND", "0")]).await?)),
            Kind::Nchan => self.nchan().await.context("nchan"),
            Kind::Express => self.express().await.context("Express"),
        }
    }

    async fn nchan(&self) -> anyhow::Result<Option<Server>> {
        let modules = MODULES.iter().map(|directory| Path::new(directory).join("ngx_nchan_module.so"));
        let (Some(nginx), Some(module)) = (program("nginx"), { modules }.find(|module| module.is_file())) else {
            return Ok(None);
        };
        let directory = tempfile::Builder::new().prefix("nchan-").tempdir_in(self.directory())?.keep();
        // Nothing else takes it in the moment between.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let files = crate::process::file_limit().0.to_string();
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid())?.context("a user")?.name;
        let mut text = std::fs::read_to_string(peer("nchan/nginx.conf"))?;
        for (name, value) in [
            ("module", module.display().to_string()),
            ("user", user),
            ("files", files),
            ("directory", directory.display().to_string()),
            ("address", address.to_string()),
        ] {
            text = text.replace(&format!("{{{{{name}}}}}"), &value);
        }
        let configuration = directory.join("nginx.conf");
        std::fs::write(&configuration, text)?;
        let mut command = Command::new(nginx);
        command.arg("-p").arg(&directory).arg("-c").arg(configuration).arg("-e").arg(directory.join("error.log"));
        // Not killed when dropped: its worker would be left behind. It is asked to stop.
        command.stdin(Stdio::null()).stderr(File::create(directory.join("output.log"))?);
        let child = command.spawn()?;
        accepts(address).await?;
        Ok(Some(Server::running(Kind::Nchan, child, address)?))
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
        Ok(Some(Server::start(Kind::Express, command).await?))
    }

    /// Makes rides known to a peer: to Express by its table; nchan has none, whoever names a channel has it.
    pub(crate) async fn rides_of_peer(&self, server: &Server, rides: &[Ride]) -> anyhow::Result<()> {
        if server.kind == Kind::Express {
            let (ids, people): (Vec<&str>, Vec<(&str, &str)>) =
                rides.iter().map(|ride| (&*ride.id, (&*ride.rider_id, &*ride.driver_id))).unzip();
            let (riders, drivers): (Vec<&str>, Vec<&str>) = people.into_iter().unzip();
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

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    { places }.map(|place| place.join(name)).find(|program| program.is_file())
}

/// Waits until somebody listens there.
async fn accepts(address: SocketAddr) -> anyhow::Result<()> {
    for _ in 0..500 {
        if TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        sleep(Duration::from_millis(10)).await;
    }
    bail!("nobody listens on {address}")
}
