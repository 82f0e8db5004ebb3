//! Where Postgres is, and how it is reached: an address as libpq takes it, and TLS as its `sslmode` says.
//!
//! `tokio_postgres` knows `disable`, `prefer` and `require`, and leaves to its connector whom to believe. The rest of libpq's
//! settings of TLS is taken out of the address here, and means what it means to libpq, but for two things: `verify-full`
//! without `sslrootcert` believes those whom this system believes, and a certificate's common name is no name.

mod settings;
mod trust;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem;
use tokio_rustls::rustls::{self, ClientConfig};

use self::trust::{Believing, Trust};

/// How long a connection may take, where the address does not say.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// What Postgres is called in ALPN, which it wants to hear where TLS comes first (`sslnegotiation=direct`).
const PROTOCOL: &[u8] = b"postgresql";

/// The rest of a connection, which has to be driven.
type Driver = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// Why there is no such address.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It is none.
    #[error("{0}")]
    Address(String),
    /// Its `sslmode` and `sslrootcert` do not go together, or one of them is nothing known.
    #[error("{0}")]
    Setting(&'static str),
    /// There is no reading who is to be believed.
    #[error("sslrootcert={path}: {error}; it must be a file of certificates, as PEM")]
    Roots {
        /// Where.
        path: String,
        /// Why not.
        error: pem::Error,
    },
    /// They cannot be used.
    #[error("sslrootcert: {0}")]
    Unusable(#[from] rustls::server::VerifierBuilderError),
    /// TLS cannot be spoken.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// What is wrong with an address, without anything that may belong to a password: a mistyped address is taken apart in the
/// wrong places. So a setting is named only where it is one, or where no password can be in what was taken for its name.
fn described(error: &tokio_postgres::Error, address: &str) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    if source.starts_with("invalid value for option") {
        return source;
    }
    let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| address.starts_with(scheme));
    let is_free_of_passwords = match is_url {
        // A `?` within a password comes before the last `@`.
        true => address.split_once('?').is_some_and(|(_, query)| !query.contains('@')),
        false => address.contains('=') && !address.contains("password") && !address.contains('@'),
    };
    if source.starts_with("unknown option") && is_free_of_passwords {
        return source;
    }
    "it cannot be read, and is not repeated here because it may hold a password; characters such as @ : / ? # % in a \
     password are written as %40 %3A %2F %3F %23 %25"
        .to_owned()
}

/// Where Postgres is, and how it is reached.
#[derive(Clone)]
pub struct Address {
    config: Config,
    tls: MakeRustlsConnect,
}

impl Address {
    /// Where it is, without the user, the password and the database: `db.example:5432`, or the path of a socket.
    pub fn place(&self) -> String {
        let ports = self.config.get_ports();
        let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        let places = self.config.get_hosts().iter().enumerate().map(|(at, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", port(at)),
            Host::Unix(path) => format!("{}/.s.PGSQL.{}", path.display(), port(at)),
        });
        places.collect::<Vec<_>>().join(", ")
    }

    /// Connects, outside of any pool.
    pub async fn connect(&self) -> Result<(Client, Driver), tokio_postgres::Error> {
        self.config.connect(self.tls.clone()).await
    }

    /// Asks for the end of what a connection works on, over a connection of its own, with TLS where that has it. Whether it
    /// came to that is not said.
    pub(super) async fn cancel(&self, token: &CancelToken) -> Result<(), tokio_postgres::Error> {
        token.cancel_query(self.tls.clone()).await
    }

    /// What makes the connections of a pool.
    pub(super) fn manager(self, config: ManagerConfig) -> Manager {
        Manager::from_config(self.config, self.tls, config)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (rest, [mode, roots]) = settings::take(text, ["sslmode", "sslrootcert"]);
        let mut config: Config = rest.parse().map_err(|error| AddressError::Address(described(&error, text)))?;
        let (mode, trust) = modes(mode.as_deref(), roots.as_deref())?;
        // As in libpq, where a socket of this machine has no TLS, whatever is asked for.
        let is_local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let addresses = config.get_hostaddrs().to_vec();
        config.ssl_mode(if is_local && addresses.is_empty() { SslMode::Disable } else { mode });
        if config.get_hosts().is_empty() {
            // The name that a certificate must have is then the address.
            for address in addresses {
                config.host(address.to_string());
            }
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_PATIENCE);
        }
        if config.get_application_name().is_none() {
            config.application_name("ridewire");
        }
        let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Believing::new(&trust)?))
            .with_no_client_auth();
        tls.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self { config, tls: MakeRustlsConnect::new(tls) })
    }
}

/// What libpq's modes mean: whether there is TLS, and with whom.
fn modes<'a>(mode: Option<&str>, roots: Option<&'a str>) -> Result<(SslMode, Trust<'a>), AddressError> {
    Ok(match (mode, roots) {
        (None | Some("verify-full"), Some("system")) | (Some("verify-full"), None) => (SslMode::Require, Trust::System),
        (_, Some("system")) => {
            return Err(AddressError::Setting(
                "sslrootcert=system needs sslmode=verify-full: anybody can have a certificate",
            ));
        }
        (Some("disable"), _) => (SslMode::Disable, Trust::Anybody),
        // A server that has TLS is spoken to by TLS; who asks for no more than that believes anybody.
        (None | Some("allow" | "prefer"), _) => (SslMode::Prefer, Trust::Anybody),
        (Some("require"), None) => (SslMode::Require, Trust::Anybody),
        // libpq takes `require` for `verify-ca` where it is told whom to believe.
        (Some("require" | "verify-ca"), Some(roots)) => (SslMode::Require, Trust::Chain(roots)),
        (Some("verify-ca"), None) => {
            return Err(AddressError::Setting("sslmode=verify-ca needs an sslrootcert: the authority to be believed"));
        }
        (Some("verify-full"), Some(roots)) => (SslMode::Require, Trust::Name(roots)),
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
    fn the_modes_are_those_of_libpq() {
        assert_eq!(mode("postgres://u@db/d"), SslMode::Prefer);
        assert_eq!(mode("postgres://u@db/d?sslmode=disable"), SslMode::Disable);
        assert_eq!(mode("postgres://u@db/d?sslmode=require&connect_timeout=3"), SslMode::Require);
        assert_eq!(mode("host=db user=u sslmode=verify-full"), SslMode::Require);
        assert_eq!(mode("host=/run/postgresql user=u sslmode=require"), SslMode::Disable);
        for (wrong, said) in [
            ("postgres://u@db/d?sslmode=sometimes", "sslmode must be"),
            ("postgres://u@db/d?sslmode=verify-ca", "needs an sslrootcert"),
            ("postgres://u@db/d?sslmode=require&sslrootcert=system", "needs sslmode=verify-full"),
            ("postgres://u@db/d?sslmode=verify-full&sslrootcert=/nowhere.pem", "/nowhere.pem"),
            ("postgres://u@db/d?nonsense=1", "nonsense"),
        ] {
            let error = wrong.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_place_has_hosts_and_ports_and_no_password() {
        let place = |text: &str| text.parse::<Address>().unwrap().place();
        assert_eq!(place("postgres://u:hunter2@db.example/d"), "db.example:5432");
        assert_eq!(place("host=a,b port=6432 user=u password=hunter2"), "a:6432, b:6432");
        assert_eq!(place("host=a,b port=1,2 user=u"), "a:1, b:2");
        assert_eq!(place("postgres://u@%2Frun%2Fpg/d"), "/run/pg/.s.PGSQL.5432");
        assert_eq!(place("hostaddr=10.0.0.1 user=u"), "10.0.0.1:5432");
    }

    #[test]
    fn an_address_without_a_name_is_known_by_its_number() {
        let address: Address = "hostaddr=10.0.0.1 user=u".parse().unwrap();
        assert_eq!(address.config.get_hosts(), [Host::Tcp("10.0.0.1".to_owned())]);
    }
}
