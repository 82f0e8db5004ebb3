//! The test bed: a private Postgres with fsync on, and servers on it.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use ridewire::auth::Signer;
use ridewire::domain::{Role, UserId};
use ridewire::embedded::{EmbeddedPostgres, Options, StopMode};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use crate::client::{Client, request};
use crate::server::{SECRET, Server, ServerKind};

/// The number of clients that create rides concurrently.
const CREATORS: usize = 64;

/// The database of a run and the key of its tokens.
#[derive(Debug)]
pub(crate) struct Testbed {
    pub(crate) postgres: EmbeddedPostgres,
    directory: TempDir,
    signer: Signer,
}

/// A ride with the tokens of its participants.
#[derive(Debug, Clone)]
pub(crate) struct Ride {
    pub(crate) id: String,
    pub(crate) rider_id: String,
    pub(crate) driver_id: String,
    /// The rider's token.
    pub(crate) rider: String,
    /// The driver's token.
    pub(crate) driver: String,
}

/// Returns each ride with the token of its rider, and with that of its driver: two streams for each ride.
pub(crate) fn participants(rides: &[Ride]) -> impl Iterator<Item = (&str, &str)> {
    rides.iter().flat_map(|ride| [(&*ride.id, &*ride.rider), (&*ride.id, &*ride.driver)])
}

impl Testbed {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::start_with(Options::default()).await
    }

    pub(crate) async fn start_with(options: Options) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("rw-bench-").tempdir()?;
        // Postgres may run as another user, which needs access.
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
        let postgres = EmbeddedPostgres::start(&directory.path().join("data"), options).await?;
        Ok(Self { postgres, directory, signer: Signer::new(SECRET.as_bytes())? })
    }

    /// Restarts Postgres on the same files with other options.
    pub(crate) async fn restart_with(self, options: Options) -> anyhow::Result<Self> {
        let Self { postgres, directory, signer } = self;
        postgres.stop(StopMode::Fast).await?;
        let postgres = EmbeddedPostgres::start(&directory.path().join("data"), options).await?;
        Ok(Self { postgres, directory, signer })
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

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the path of a PostgreSQL program of the running version.
    pub(crate) fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let server = std::fs::read_link(format!("/proc/{}/exe", self.postgres_pid()?))?;
        let program = server.with_file_name(name);
        ensure!(program.is_file(), "there is no {}", program.display());
        Ok(program)
    }

    /// Opens a database connection.
    pub(crate) async fn connect(&self) -> anyhow::Result<tokio_postgres::Client> {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    pub(crate) fn token(&self, user: &str, role: Role) -> anyhow::Result<String> {
        Ok(self.signer.sign(&UserId::parse(user)?, role, Duration::from_secs(3_600))?)
    }

    /// Starts a server process and waits until it listens.
    pub(crate) async fn server(&self, name: &str) -> anyhow::Result<Server> {
        self.server_with(name, &[]).await
    }

    /// The same with additional settings.
    pub(crate) async fn server_with(&self, name: &str, settings: &[(&str, &str)]) -> anyhow::Result<Server> {
        let log = File::create(self.file(&format!("{name}.log")))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_ridewire"));
        command.env("DATABASE_URL", self.url()).env("RIDEWIRE_JWT_SECRET", SECRET);
        command.env("RIDEWIRE_LISTEN", "127.0.0.1:0").env_remove("RIDEWIRE_JWT_PUBLIC_KEY");
        command.envs(settings.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        Server::start(ServerKind::Ridewire, command).await
    }

    /// Returns a value of a server's metrics. `name` ends with a space.
    pub(crate) async fn metric(&self, server: &Server, name: &str) -> anyhow::Result<f64> {
        let mut client = Client::connect(server.address).await?;
        let status = client.exchange(&request("GET", "/metrics", &self.token("platform", Role::Service)?, "")).await?;
        ensure!(status == 200, "/metrics got {status}");
        let text = String::from_utf8_lossy(client.body()).into_owned();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.with_context(|| format!("no {name}in /metrics"))
    }

    /// Returns rides with a rider and a driver and their tokens. Does not create them.
    pub(crate) fn ride_list(&self, prefix: &str, count: usize) -> anyhow::Result<Vec<Ride>> {
        let rides = (0..count).map(|number| {
            let (rider_id, driver_id) = (format!("rider_{number:06}"), format!("driver_{number:06}"));
            let (rider, driver) = (self.token(&rider_id, Role::Rider)?, self.token(&driver_id, Role::Driver)?);
            Ok(Ride { id: format!("{prefix}_{number:06}"), rider_id, driver_id, rider, driver })
        });
        rides.collect()
    }

    /// Creates rides with a rider and a driver each.
    pub(crate) async fn rides(&self, server: &Server, prefix: &str, count: usize) -> anyhow::Result<Vec<Ride>> {
        let rides = self.ride_list(prefix, count)?;
        if server.kind != ServerKind::Ridewire {
            self.create_rides_on_peer(server, &rides).await?;
            return Ok(rides);
        }
        let service = self.token("platform", Role::Service)?;
        let mut requests: Vec<Vec<Vec<u8>>> = vec![Vec::new(); CREATORS];
        for (ride, maker) in rides.iter().zip((0..CREATORS).cycle()) {
            let body = format!(r#"{{"riderId":"{}","driverId":"{}"}}"#, ride.rider_id, ride.driver_id);
            let request = request("PUT", &format!("/api/v1/rides/{}", ride.id), &service, &body);
            requests.get_mut(maker).context("a maker")?.push(request);
        }
        let mut creators = JoinSet::new();
        for requests in requests {
            let mut client = Client::connect(server.address).await?;
            creators.spawn(async move {
                for request in &requests {
                    let status = client.exchange(request).await?;
                    ensure!(status == 201, "a ride got {status}");
                }
                Ok(())
            });
        }
        while let Some(made) = creators.join_next().await {
            made??;
        }
        Ok(rides)
    }
}
