//! The addresses that the server listens on.
//!
//! They are taken before anything else is started, so that one that is in use is reported at once. They listen when requests can be
//! answered: until then a client, or a load balancer, is refused instead of kept waiting.

use std::io::{Error, ErrorKind};

use tokio::net::TcpListener;

use super::AppError;
use crate::config::AddressSettings;
use crate::serving::{self, Bound};

/// The addresses, taken.
pub(crate) struct Addresses {
    public: (Bound, String),
    admin: Option<(Bound, String)>,
}

impl Addresses {
    /// Takes them.
    pub(crate) async fn bind(settings: &AddressSettings) -> Result<Self, AppError> {
        let public = bind("RIDEWIRE_LISTEN", &settings.listen).await?;
        let admin = match &settings.admin_listen {
            Some(address) => {
                let admin = bind("RIDEWIRE_ADMIN_LISTEN", address).await?;
                // Two sockets that do not listen may have one address.
                if admin.local_addr().ok() == public.local_addr().ok() {
                    let error = Error::new(ErrorKind::AddrInUse, "RIDEWIRE_LISTEN is the same address");
                    return Err(AppError::Listen { setting: "RIDEWIRE_ADMIN_LISTEN", address: address.clone(), error });
                }
                Some((admin, address.clone()))
            }
            None => None,
        };
        Ok(Self { public: (public, settings.listen.clone()), admin })
    }

    /// Listens: the public one, and the operators'.
    pub(super) fn listen(self) -> Result<(TcpListener, Option<TcpListener>), AppError> {
        let listen = |setting, (bound, address): (Bound, String)| {
            bound.listen().map_err(|error| AppError::Listen { setting, address, error })
        };
        let admin = self.admin.map(|admin| listen("RIDEWIRE_ADMIN_LISTEN", admin)).transpose()?;
        Ok((listen("RIDEWIRE_LISTEN", self.public)?, admin))
    }
}

async fn bind(setting: &'static str, address: &str) -> Result<Bound, AppError> {
    serving::bind(address).await.map_err(|error| AppError::Listen { setting, address: address.to_owned(), error })
}

/// What whoever runs the server can do where an address cannot be had.
pub(super) fn advice(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse => "stop the program that listens there, or choose another port",
        ErrorKind::AddrNotAvailable => "choose an address of this machine; 0.0.0.0 stands for all of them",
        ErrorKind::PermissionDenied => "choose a port from 1024 on, or give the server CAP_NET_BIND_SERVICE",
        _ => "write an address and a port, as 127.0.0.1:8080",
    }
}
