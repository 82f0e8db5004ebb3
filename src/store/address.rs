//! The address of Postgres: a libpq connection string, and TLS according to its `sslmode`.
//!
//! `tokio_postgres` supports `disable`, `prefer` and `require`, and leaves certificate verification to its connector.
//! This module parses libpq's other TLS settings out of the address and gives them their libpq meaning, with two
//! differences:
//!
//! - `verify-full` without `sslrootcert` uses the trust store of the operating system.
//! - The common name of a certificate is not compared with the host name.
//!
//! Several hosts are not tried one after the other: each next one is tried beside those that have not responded yet.

mod hosts;
mod settings;
mod verifier;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Connect, Manager, ManagerConfig};
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem;
use tokio_rustls::rustls::{self, ClientConfig};

use self::verifier::{PgServerCertVerifier, TrustAnchors};
use super::StoreError;
use crate::happy_eyeballs::first_success;

/// The timeout of a TCP connection to one IP address, unless the address sets one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The timeout of [`Address::connect`]: all hosts, TLS and the login.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The ALPN protocol id of Postgres. Postgres requires it with direct TLS (`sslnegotiation=direct`).
const ALPN_PROTOCOL: &[u8] = b"postgresql";

/// The part of a connection that performs its I/O. A task must poll it.
type Driver = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It cannot be parsed.
    #[error("{0}")]
    Address(String),
    /// `sslmode` and `sslrootcert` contradict each other, or one of them has an unknown value.
    #[error("{0}")]
    Setting(&'static str),
    /// The certificates of `sslrootcert` cannot be read.
    #[error("sslrootcert={path}: {error}; it must be a file of certificates, as PEM")]
    Roots {
        /// The file.
        path: String,
        /// The error.
        error: pem::Error,
    },
    /// The certificates of `sslrootcert` cannot be used.
    #[error("sslrootcert: {0}")]
    Unusable(#[from] rustls::server::VerifierBuilderError),
    /// The TLS configuration is invalid.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Describes the error of an address without anything that may belong to a password.
///
/// A mistyped address is split in the wrong places. So the description names a setting only if it is one, or if the
/// text that was parsed as its name cannot contain a password.
fn describe(error: &tokio_postgres::Error, address: &str) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    if source.starts_with("invalid value for option") {
        return source;
    }
    let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| address.starts_with(scheme));
    let has_no_password = match is_url {
        // A `?` inside a password comes before the last `@`.
        true => address.split_once('?').is_some_and(|(_, query)| !query.contains('@')),
        false => address.contains('=') && !address.contains("password") && !address.contains('@'),
    };
    if source.starts_with("unknown option") && has_no_password {
        return source;
    }
    "it cannot be parsed, and is not repeated here because it may hold a password; characters such as @ : / ? # % in a \
     password are written as %40 %3A %2F %3F %23 %25"
        .to_owned()
}

/// The address of a Postgres server, with its TLS configuration.
#[derive(Clone)]
pub struct Address {
    /// All hosts. It opens no connection.
    config: Config,
    /// One configuration for each host.
    hosts: Vec<Config>,
    tls: MakeRustlsConnect,
}

impl Address {
    /// Returns the hosts and ports without the user, the password and the database: `db.example:5432`, or a socket
    /// path.
    pub fn endpoint(&self) -> String {
        let endpoints = self.hosts.iter().map(|host| {
            let port = host.get_ports().first().copied().unwrap_or(hosts::DEFAULT_PORT);
            match host.get_hosts() {
                [Host::Tcp(name), ..] => format!("{name}:{port}"),
                [Host::Unix(path), ..] => format!("{}/.s.PGSQL.{port}", path.display()),
                [] => String::new(),
            }
        });
        endpoints.collect::<Vec<_>>().join(", ")
    }

    /// Returns this address with a schema, which is quoted where necessary.
    pub(super) fn with_schema(&self, schema: &str) -> Self {
        let mut address = self.clone();
        for config in std::iter::once(&mut address.config).chain(&mut address.hosts) {
            // A space in a value is written as `\ `. The last option with a name counts.
            let schema = schema.replace('\\', "\\\\").replace(' ', "\\ ");
            let before = config.get_options().map(|options| [options, " "].concat()).unwrap_or_default();
            config.options(format!("{before}-c search_path={schema}"));
        }
        address
    }

    /// Opens a connection outside of any pool, within 5 seconds.
    pub async fn connect(&self) -> Result<(Client, Driver), StoreError> {
        let opened = timeout(LOGIN_TIMEOUT, self.open()).await;
        Ok(opened.map_err(|_| StoreError::Timeout)??)
    }

    /// Opens a connection to the first host that responds and has the `target_session_attrs` of the address. The caller
    /// limits the time.
    async fn open(&self) -> Result<(Client, Driver), tokio_postgres::Error> {
        let mut hosts: Vec<_> = self.hosts.iter().map(|host| self.open_host(host)).collect();
        if self.config.get_load_balance_hosts() == LoadBalanceHosts::Random {
            fastrand::shuffle(&mut hosts);
        }
        match first_success(hosts).await {
            Some(opened) => opened,
            // An address has a host, so this is not reached; it would report that there is none.
            None => self.config.connect(self.tls.clone()).await,
        }
    }

    /// Opens a connection to the first IP address of a host that responds.
    async fn open_host(&self, host: &Config) -> Result<(Client, Driver), tokio_postgres::Error> {
        let addresses = hosts::resolve(host).await;
        let attempts: Vec<_> = addresses.iter().map(|address| address.connect(self.tls.clone())).collect();
        match first_success(attempts).await {
            Some(opened) => opened,
            // The name has no address, which this reports.
            None => host.connect(self.tls.clone()).await,
        }
    }

    /// Asks Postgres to cancel the statement of a connection. The request uses a connection of its own, with TLS if the
    /// cancelled one has it. Postgres does not report whether it cancelled anything.
    pub(super) async fn cancel(&self, token: &CancelToken) -> Result<(), tokio_postgres::Error> {
        token.cancel_query(self.tls.clone()).await
    }

    /// Creates the manager that opens a pool's connections.
    pub(super) fn manager(self, config: ManagerConfig) -> Manager {
        Manager::from_connect(self.config.clone(), self, config)
    }
}

impl Connect for Address {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        Box::pin(async {
            let (client, connection) = self.open().await?;
            let driver = tokio::spawn(async {
                // An error of the connection also fails the client's statements.
                let _ = connection.await;
            });
            Ok((client, driver))
        })
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (rest, [mode, roots]) = settings::extract(text, ["sslmode", "sslrootcert"]);
        let mut config: Config = rest.parse().map_err(|error| AddressError::Address(describe(&error, text)))?;
        let (mode, anchors) = tls_settings(mode.as_deref(), roots.as_deref())?;
        // As in libpq, a local socket has no TLS, whatever `sslmode` is.
        let is_local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let addresses = config.get_hostaddrs().to_vec();
        config.ssl_mode(if is_local && addresses.is_empty() { SslMode::Disable } else { mode });
        if config.get_hosts().is_empty() {
            // The address is then the name that the certificate must have.
            for address in addresses {
                config.host(address.to_string());
            }
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("ridewire");
        }
        let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PgServerCertVerifier::new(&anchors)?))
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN_PROTOCOL.to_vec()];
        Ok(Self { hosts: hosts::split(&config)?, config, tls: MakeRustlsConnect::new(tls) })
    }
}

/// Converts libpq's `sslmode` and `sslrootcert` into the TLS mode and the certificates to trust.
fn tls_settings<'a>(mode: Option<&str>, roots: Option<&'a str>) -> Result<(SslMode, TrustAnchors<'a>), AddressError> {
    Ok(match (mode, roots) {
        (None | Some("verify-full"), Some("system")) | (Some("verify-full"), None) => {
            (SslMode::Require, TrustAnchors::System)
        }
        (_, Some("system")) => {
            return Err(AddressError::Setting(
                "sslrootcert=system needs sslmode=verify-full: anyone can get a certificate from a public authority",
            ));
        }
        (Some("disable"), _) => (SslMode::Disable, TrustAnchors::Unverified),
        // TLS is used if the server supports it. These modes ask for no more, so the certificate is not verified.
        (None | Some("allow" | "prefer"), _) => (SslMode::Prefer, TrustAnchors::Unverified),
        (Some("require"), None) => (SslMode::Require, TrustAnchors::Unverified),
        // In libpq, `require` with an `sslrootcert` means `verify-ca`.
        (Some("require" | "verify-ca"), Some(roots)) => (SslMode::Require, TrustAnchors::VerifyCa(roots)),
        (Some("verify-ca"), None) => {
            return Err(AddressError::Setting("sslmode=verify-ca needs an sslrootcert: the authority to trust"));
        }
        (Some("verify-full"), Some(roots)) => (SslMode::Require, TrustAnchors::VerifyFull(roots)),
        (Some(_), _) => {
            return Err(AddressError::Setting(
                "sslmode must be disable, allow, prefer, require, verify-ca or verify-full",
            ));
        }
    })
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(text: &str) -> SslMode {
        text.parse::<Address>().unwrap().config.get_ssl_mode()
    }

    #[test]
    fn sslmode_has_its_libpq_meaning() {
        assert_eq!(mode("postgres://u@db/d"), SslMode::Prefer);
        assert_eq!(mode("postgres://u@db/d?sslmode=disable"), SslMode::Disable);
        assert_eq!(mode("postgres://u@db/d?sslmode=require&connect_timeout=3"), SslMode::Require);
        assert_eq!(mode("host=db user=u sslmode=verify-full"), SslMode::Require);
        assert_eq!(mode("host=/run/postgresql user=u sslmode=require"), SslMode::Disable);
        for (wrong, expected) in [
            ("postgres://u@db/d?sslmode=sometimes", "sslmode must be"),
            ("postgres://u@db/d?sslmode=verify-ca", "needs an sslrootcert"),
            ("postgres://u@db/d?sslmode=require&sslrootcert=system", "needs sslmode=verify-full"),
            ("postgres://u@db/d?sslmode=verify-full&sslrootcert=/nowhere.pem", "/nowhere.pem"),
            ("postgres://u@db/d?nonsense=1", "nonsense"),
            ("postgres://u@a,b/d?port=1,2,3", "port must be"),
        ] {
            let error = wrong.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(expected), "{wrong}: {error}");
        }
    }

    #[test]
    fn an_endpoint_has_hosts_and_ports_and_no_password() {
        let endpoint = |text: &str| text.parse::<Address>().unwrap().endpoint();
        assert_eq!(endpoint("postgres://u:hunter2@db.example/d"), "db.example:5432");
        assert_eq!(endpoint("host=a,b port=6432 user=u password=hunter2"), "a:6432, b:6432");
        assert_eq!(endpoint("host=a,b port=1,2 user=u"), "a:1, b:2");
        assert_eq!(endpoint("postgres://u@%2Frun%2Fpg/d"), "/run/pg/.s.PGSQL.5432");
        assert_eq!(endpoint("hostaddr=10.0.0.1 user=u"), "10.0.0.1:5432");
    }

    #[test]
    fn an_address_without_a_host_name_uses_its_ip_address() {
        let address: Address = "hostaddr=10.0.0.1 user=u".parse().unwrap();
        assert_eq!(address.config.get_hosts(), [Host::Tcp("10.0.0.1".to_owned())]);
    }
}
