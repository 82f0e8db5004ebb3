//! What is measured: a private Postgres with fsync on, and servers on it.

use std::fs::{File, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ridewire::auth::Signer;
use ridewire::domain::{Role, UserId};
use ridewire::embedded::{EmbeddedPostgres, Options, StopMode};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::NoTls;

use crate::client::{Client, request};

const SECRET: &str = "the secret of a benchmark, of no use anywhere else";

/// Clients that make rides at the same time.
const MAKERS: usize = 64;

/// The database of a run.
#[derive(Debug)]
pub(crate) struct Platform {
    postgres: EmbeddedPostgres,
    directory: TempDir,
    signer: Signer,
}

/// A ride with its people's tokens.
#[derive(Debug, Clone)]
pub(crate) struct Ride {
    pub(crate) id: String,
    pub(crate) rider: String,
    pub(crate) driver: String,
}

impl Platform {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("rw-bench-").tempdir()?;
        // Postgres may run as another user, who has to get in.
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
        let postgres = EmbeddedPostgres::start(&directory.path().join("data"), Options::default()).await?;
        Ok(Self { postgres, directory, signer: Signer::new(SECRET.as_bytes())? })
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.postgres.stop(StopMode::Fast).await?;
        Ok(self.directory.close()?)
    }

    pub(crate) fn url(&self) -> String {
        self.postgres.url()
    }

    pub(crate) fn postgres_pid(&self) -> anyhow::Result<u32> {
        self.postgres.pid().context("Postgres has ended")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// One of PostgreSQL's programs, of the version that runs.
    pub(crate) fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let server = std::fs::read_link(format!("/proc/{}/exe", self.postgres_pid()?))?;
        let program = server.with_file_name(name);
        ensure!(program.is_file(), "there is no {}", program.display());
        Ok(program)
    }

    /// A connection of our own.
    pub(crate) async fn connect(&self) -> anyhow::Result<tokio_postgres::Client> {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    pub(crate) fn token(&self, user: &str, role: Role) -> anyhow::Result<String> {
        Ok(self.signer.sign(&UserId::parse(user)?, role, Duration::from_secs(3_600))?)
    }

    /// A server process, ready to answer.
    pub(crate) async fn server(&self, name: &str) -> anyhow::Result<Server> {
        self.server_with(name, &[]).await
    }

    /// The same with further settings.
    pub(crate) async fn server_with(&self, name: &str, settings: &[(&str, &str)]) -> anyhow::Result<Server> {
        let log = File::create(self.file(&format!("{name}.log")))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_ridewire"));
        command.env("DATABASE_URL", self.url()).env("RIDEWIRE_JWT_SECRET", SECRET);
        command.env("RIDEWIRE_LISTEN", "127.0.0.1:0").env_remove("RIDEWIRE_JWT_PUBLIC_KEY");
        command.envs(settings.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().context("the server's program")?;
        let output = child.stdout.take().context("its output")?;
        let mut lines = BufReader::new(output).lines();
        let line = timeout(Duration::from_secs(30), lines.next_line()).await.context("the server says nothing")??;
        let address = line.as_deref().and_then(|line| line.strip_prefix("listening on http://")?.parse().ok());
        let address = address.with_context(|| format!("the server did not start: {line:?}"))?;
        let pid = child.id().context("the server has ended")?;
        Ok(Server { child, pid, address })
    }

    /// Makes rides known, each with a rider and a driver.
    pub(crate) async fn rides(&self, server: &Server, prefix: &str, count: usize) -> anyhow::Result<Vec<Ride>> {
        let service = self.token("platform", Role::Service)?;
        let mut rides = Vec::new();
        let mut requests: Vec<Vec<Vec<u8>>> = vec![Vec::new(); MAKERS];
        for (number, maker) in (0..count).zip((0..MAKERS).cycle()) {
            let id = format!("{prefix}_{number:06}");
            let (rider, driver) = (format!("rider_{number:06}"), format!("driver_{number:06}"));
            let body = format!(r#"{{"riderId":"{rider}","driverId":"{driver}"}}"#);
            let request = request("PUT", &format!("/api/v1/rides/{id}"), &service, &body);
            requests.get_mut(maker).context("a maker")?.push(request);
            let (rider, driver) = (self.token(&rider, Role::Rider)?, self.token(&driver, Role::Driver)?);
            rides.push(Ride { id, rider, driver });
        }
        let mut makers = JoinSet::new();
        for requests in requests {
            let mut client = Client::connect(server.address).await?;
            makers.spawn(async move {
                for request in &requests {
                    let status = client.exchange(request).await?;
                    ensure!(status == 201, "a ride was answered {status}");
                }
                Ok(())
            });
        }
        while let Some(made) = makers.join_next().await {
            made??;
        }
        Ok(rides)
    }
}

/// A server process. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Asks it to stop and waits for that.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.pid)?), Signal::SIGTERM)?;
        match timeout(Duration::from_secs(20), self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(ended) => bail!("the server ended badly: {ended:?}"),
            Err(_) => bail!("the server does not stop"),
        }
    }
}
