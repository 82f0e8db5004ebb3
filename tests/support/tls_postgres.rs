//! A Postgres that accepts connections over TCP with TLS only.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ridewire::embedded::{EmbeddedPostgres, Options, StopMode};
use tokio::process::{Child, Command};

use super::cluster::Database;
use super::guard::ProcessGuard;
use super::{eventually, free_ports, standby};

/// A running Postgres with a certificate for `localhost` from a private certificate authority.
#[derive(Debug)]
pub struct TlsPostgres {
    directory: PathBuf,
    guard: Arc<ProcessGuard>,
    port: u16,
    _child: Child,
}

impl TlsPostgres {
    /// Starts Postgres and waits until it accepts connections.
    pub async fn start() -> Self {
        let (directory, guard) = ProcessGuard::with_directory();
        let postgres = EmbeddedPostgres::start(&directory, Options { durable: false }).await.expect("Postgres starts");
        let program =
            standby::postgres_programs(&Database::at(postgres.url(), &directory, &guard)).await.join("postgres");
        postgres.stop(StopMode::Fast).await.expect("Postgres stops");

        let cluster = directory.join("postgres");
        fs::write(cluster.join("pg_hba.conf"), "hostssl all all all trust\nhostnossl all all all reject\n")
            .expect("a file");
        let owner = fs::metadata(&cluster).expect("the cluster");
        certify(&directory, &cluster);
        for file in ["server.crt", "server.key"].map(|name| cluster.join(name)) {
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("permissions");
            chown(&file, Some(owner.uid()), Some(owner.gid())).expect("an owner");
        }
        let [port] = free_ports();
        let mut command = Command::new(program);
        command.arg("-D").arg(&cluster).args(["-c", "listen_addresses=127.0.0.1", "-c", &format!("port={port}")]);
        command.args(["-c", "unix_socket_directories=", "-c", "ssl=on", "-c", "fsync=off"]);
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        if nix::unistd::geteuid().is_root() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        let child = command.spawn().expect("Postgres starts");
        guard.watch(child.id().expect("it runs"));
        let secure = Self { directory, guard, port, _child: child };
        eventually("Postgres accepts connections", async || secure.connect("localhost", "sslmode=require").await.ok())
            .await;
        secure
    }

    /// Returns the database under this host name, with further connection parameters.
    pub fn database(&self, host: &str, settings: &str) -> Database {
        let url = format!("postgres://ridewire@{host}:{}/ridewire?{settings}", self.port);
        Database::at(url, &self.directory, &self.guard)
    }

    /// Connects as the server does.
    pub async fn connect(&self, host: &str, settings: &str) -> Result<tokio_postgres::Client, String> {
        let address: ridewire::store::Address = self.database(host, settings).url.parse().expect("an address");
        let (client, connection) = address.connect().await.map_err(|error| format!("{error:?}"))?;
        tokio::spawn(connection);
        client.simple_query("select 1").await.map_err(|error| format!("{error:?}"))?;
        Ok(client)
    }

    /// Returns the path of a file: `ca.pem` is the certificate of its authority, `other.pem` that of another authority.
    pub fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

/// Creates the authority, another authority, and the server's certificate and key.
fn certify(directory: &Path, cluster: &Path) {
    let authority = |file: &str| {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        fs::write(directory.join(file), authority.pem()).expect("a file");
        authority
    };
    let (key, issuer) = (KeyPair::generate().expect("a key"), authority("ca.pem"));
    authority("other.pem");
    let params = CertificateParams::new(["localhost".to_owned()]).expect("parameters");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    fs::write(cluster.join("server.crt"), certificate.pem()).expect("a file");
    fs::write(cluster.join("server.key"), key.serialize_pem()).expect("a file");
}
