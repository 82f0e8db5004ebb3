//! A socket that one owner reads and writes, while its end is watched.
//!
//! hyper notices that a client has gone when it reads. It does not read while a request is in progress and bytes of the next one lie in
//! its buffer. So the requests of a client that has sent several and gone would run on, each with the memory of its response.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// How often a socket is checked that has unread bytes. The kernel reports its end only together with them.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// A TCP socket with several owners. Only one of them reads and writes.
#[derive(Debug, Clone)]
pub(super) struct SharedSocket(Arc<TcpStream>);

impl SharedSocket {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self(Arc::new(socket))
    }

    /// Waits until the client has closed the connection, or its sending side. It does not matter whether all bytes were read. Cancel-safe.
    pub(super) async fn closed(&self) {
        while let Ok(ready) = self.0.ready(Interest::READABLE).await {
            if ready.is_read_closed() {
                return;
            }
            sleep(CHECK_INTERVAL).await;
        }
    }

    /// Discards bytes that the client has sent and nobody will read. If they stayed unread, the kernel would reset the connection when it
    /// is closed, and the client might lose the response (RFC 9112, section 9.6).
    pub(super) fn discard_received(&self) {
        let mut bytes = [0; 4 * 1024];
        // Bounded: a client that goes on sending has not read the response's `Connection: close`.
        for _ in 0..16 {
            if !matches!(self.0.try_read(&mut bytes), Ok(1..)) {
                return;
            }
        }
    }
}

/// Repeats an operation until it does not block.
fn poll_io<T>(
    mut poll_ready: impl FnMut() -> Poll<io::Result<()>>,
    mut operation: impl FnMut() -> io::Result<T>,
) -> Poll<io::Result<T>> {
    loop {
        ready!(poll_ready())?;
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return Poll::Ready(done),
        }
    }
}

impl AsyncRead for SharedSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = poll_io(|| self.0.poll_read_ready(cx), || self.0.try_read_buf(buf));
        read.map(|read| read.map(drop))
    }
}

impl AsyncWrite for SharedSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        poll_io(|| self.0.poll_write_ready(cx), || self.0.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_io(|| self.0.poll_write_ready(cx), || self.0.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.0).shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    async fn pair() -> (TcpStream, SharedSocket) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, SharedSocket::new(listener.accept().await.unwrap().0))
    }

    #[tokio::test]
    async fn bytes_are_read_and_written() {
        let (mut client, mut socket) = pair().await;
        client.write_all(b"ping").await.unwrap();
        let mut bytes = [0; 4];
        socket.read_exact(&mut bytes).await.unwrap();
        socket.write_all(b"pong").await.unwrap();
        socket.shutdown().await.unwrap();
        let mut response = Vec::new();
        client.read_to_end(&mut response).await.unwrap();
        assert_eq!((&bytes, response.as_slice()), (b"ping", b"pong".as_slice()));
    }

    #[tokio::test]
    async fn the_end_is_found_behind_unread_bytes() {
        let (mut client, socket) = pair().await;
        client.write_all(b"unread").await.unwrap();
        assert!(timeout(2 * CHECK_INTERVAL, socket.closed()).await.is_err(), "an open connection is not closed");
        drop(client);
        timeout(TIMEOUT, socket.closed()).await.expect("the end is found");
    }

    #[tokio::test]
    async fn a_reset_is_found_behind_unread_bytes() {
        let (mut client, mut socket) = pair().await;
        client.write_all(b"unread").await.unwrap();
        socket.write_all(b"never read").await.unwrap();
        client.readable().await.unwrap();
        // The client's kernel resets the connection, because it has unread bytes.
        drop(client);
        timeout(TIMEOUT, socket.closed()).await.expect("the reset is found");
    }
}
