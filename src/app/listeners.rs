//! The listeners of the server, and which endpoints each of them serves.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Addresses, AppError};
use crate::config::{self, AddressSettings, Feed, Settings};
use crate::demo::Demo;
use crate::http::security::Origin;
use crate::http::{Api, Console, EndpointSet, service};
use crate::serving::{self, Certificate, Shutdown};

/// The address at which the server handles requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The socket address.
    pub socket: SocketAddr,
    /// Whether the server uses TLS at this address.
    pub is_secure: bool,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.is_secure { "https" } else { "http" }, self.socket)
    }
}

/// The public listener, and the admin listener if there is one.
pub(super) struct Listeners {
    pub(super) address: Address,
    pub(super) public: TcpListener,
    pub(super) admin: Option<TcpListener>,
}

impl Listeners {
    /// Listens on the bound addresses.
    pub(super) fn open(addresses: Addresses, settings: &AddressSettings, is_secure: bool) -> Result<Self, AppError> {
        let (public, admin) = addresses.listen()?;
        let socket = public.local_addr().map_err(|error| AppError::Listen {
            setting: "RIDEWIRE_LISTEN",
            address: settings.listen.clone(),
            error,
        })?;
        Ok(Self { address: Address { socket, is_secure }, public, admin })
    }

    /// Returns the listener that serves the console.
    fn of_console(&self) -> &TcpListener {
        self.admin.as_ref().unwrap_or(&self.public)
    }

    /// Returns the address at which a demo's console receives webhooks: the server's own, if it is a loopback address without TLS.
    /// Returns `None` for a server that is not a demo.
    pub(super) fn receiver(&self, settings: &Settings, is_demo: bool) -> Option<SocketAddr> {
        let is_on = is_demo && settings.console != Some(config::Console::Off) && settings.feed == Feed::On;
        let is_plain = self.admin.is_some() || !self.address.is_secure;
        let address = self.of_console().local_addr().ok()?;
        (is_on && is_plain && address.ip().is_loopback()).then_some(address)
    }

    /// Creates the console, if it is on.
    pub(super) fn console(&self, settings: &Settings, demo: Option<&Demo>) -> Option<Arc<Console>> {
        let is_on = settings.console.map_or(demo.is_some(), |console| console == config::Console::On);
        // The console gets tokens of the demo's users only if it is reachable from this machine alone.
        let is_private = self.of_console().local_addr().is_ok_and(|at| at.ip().is_loopback());
        let users = demo.filter(|_| is_private).and_then(|demo| demo.users(settings));
        is_on.then(|| Arc::new(Console::new(users)))
    }

    /// Spawns the task that serves requests until `shutdown`.
    pub(super) fn serve(
        self,
        api: &Arc<Api>,
        settings: &Settings,
        origins: &[Origin],
        certificate: Option<Arc<Certificate>>,
        console: Option<&Arc<Console>>,
        shutdown: &Shutdown,
    ) -> JoinHandle<()> {
        let (served, public_console, admin_console) = match self.admin {
            None => (EndpointSet::All, console, None),
            Some(_) => (EndpointSet::Public, None, console),
        };
        let public = service(Arc::clone(api), origins, served, public_console);
        // The console needs the API on the same listener.
        let served = if admin_console.is_some() { EndpointSet::All } else { EndpointSet::Admin };
        let admin = service(Arc::clone(api), &[], served, admin_console);
        let (limits, memory, shutdown) = (settings.limits.clone(), Arc::clone(&api.memory), shutdown.clone());
        tokio::spawn(async move {
            let public = serving::serve(self.public, &public, certificate, &limits, &memory, shutdown.clone());
            let admin = async {
                if let Some(listener) = self.admin {
                    serving::serve(listener, &admin, None, &limits, &memory, shutdown).await;
                }
            };
            tokio::join!(public, admin);
        })
    }
}
