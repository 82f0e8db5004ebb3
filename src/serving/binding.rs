//! Binding the server's addresses.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, lookup_host};

/// The length of the accept queue. It is long, so that many streams can reconnect at once.
const BACKLOG: u32 = 4_096;

/// A bound address. The kernel rejects connections until it [listens](BoundSocket::listen), instead of queueing them.
#[derive(Debug)]
pub struct BoundSocket(TcpSocket);

impl BoundSocket {
    /// Returns the bound address.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Starts to listen.
    pub fn listen(self) -> std::io::Result<TcpListener> {
        self.0.listen(BACKLOG)
    }
}

/// Binds an address. `TCP_NODELAY` is set; accepted sockets inherit it on Linux.
pub async fn bind(address: &str) -> std::io::Result<BoundSocket> {
    let mut last = std::io::Error::other("the host name has no address");
    for candidate in lookup_host(address).await? {
        match bind_one(candidate) {
            Ok(bound) => return Ok(bound),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind_one(address: SocketAddr) -> std::io::Result<BoundSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    Ok(BoundSocket(socket))
}
