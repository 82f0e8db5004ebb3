//! The addresses that the server listens on.
//!
//! They are bound before anything else starts, so that an address in use is reported at once. They listen once the server can
//! handle requests. Until then the operating system refuses connections, so no client or load balancer waits in a backlog.

use std::io::{Error, ErrorKind};

use tokio::net::TcpListener;

use super::AppError;
use crate::config::AddressSettings;
use crate::serving::{self, BoundSocket};

/// The bound addresses.
pub(crate) struct Addresses {
    public: (BoundSocket, String),
    admin: Option<(BoundSocket, String)>,
}

impl Addresses {
    /// Binds the addresses.
    pub(crate) async fn bind(settings: &AddressSettings) -> Result<Self, AppError> {
        let public = bind("RIDEWIRE_LISTEN", &settings.listen).await?;
        let admin = match &settings.admin_listen {
            Some(address) => {
                let admin = bind("RIDEWIRE_ADMIN_LISTEN", address).await?;
                // Two sockets that do not listen can be bound to the same address.
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

    /// Starts to listen. Returns the public listener and the admin listener.
    pub(super) fn listen(self) -> Result<(TcpListener, Option<TcpListener>), AppError> {
        let listen = |setting, (bound, address): (BoundSocket, String)| {
            bound.listen().map_err(|error| AppError::Listen { setting, address, error })
        };
        let admin = self.admin.map(|admin| listen("RIDEWIRE_ADMIN_LISTEN", admin)).transpose()?;
        Ok((listen("RIDEWIRE_LISTEN", self.public)?, admin))
    }
}

async fn bind(setting: &'static str, address: &str) -> Result<BoundSocket, AppError> {
    serving::bind(address).await.map_err(|error| AppError::Listen { setting, address: address.to_owned(), error })
}
