//! A socket that coalesces small pieces into one write.
//!
//! A response consists of its head and its body; a frame of a chunk size, the data and a line end. They are short. The kernel processes
//! one piece much faster than several, because `send` goes straight to the socket, while `writev` goes through the file layer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The largest number of bytes that are coalesced. A usual response or frame is shorter.
const MAX_COALESCED: usize = 2 * 1024;

/// A socket that coalesces small vectored writes.
#[derive(Debug)]
pub(super) struct CoalescingSocket<S>(S);

impl<S> CoalescingSocket<S> {
    pub(super) fn new(socket: S) -> Self {
        Self(socket)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CoalescingSocket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CoalescingSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = [0; MAX_COALESCED];
        let mut rest = buffer.as_mut_slice();
        for piece in bufs {
            let Some((target, after)) = rest.split_at_mut_checked(piece.len()) else {
                return Pin::new(&mut self.0).poll_write_vectored(cx, bufs);
            };
            target.copy_from_slice(piece);
            rest = after;
        }
        let unused = rest.len();
        Pin::new(&mut self.0).poll_write(cx, buffer.get(..MAX_COALESCED - unused).unwrap_or_default())
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// A sink that accepts at most `max` bytes at once and counts the writes.
    struct CountingSink {
        max: usize,
        written: Vec<u8>,
        vectored_writes: usize,
        plain_writes: usize,
    }

    impl AsyncWrite for CountingSink {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.plain_writes += 1;
            let written = buf.len().min(self.max);
            self.written.extend_from_slice(&buf[..written]);
            Poll::Ready(Ok(written))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.vectored_writes += 1;
            let all: Vec<u8> = bufs.iter().flat_map(|piece| piece.iter().copied()).collect();
            let written = all.len().min(self.max);
            self.written.extend_from_slice(&all[..written]);
            Poll::Ready(Ok(written))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Writes pieces. Returns the number of plain writes, the number of vectored writes, and the bytes.
    async fn write(max: usize, pieces: [&'static [u8]; 3]) -> (usize, usize, Vec<u8>) {
        let sink = CountingSink { max, written: Vec::new(), vectored_writes: 0, plain_writes: 0 };
        let mut socket = CoalescingSocket::new(sink);
        let [first, second, third] = pieces;
        let mut bytes = first.chain(second).chain(third);
        while bytes.has_remaining() {
            assert_ne!(socket.write_buf(&mut bytes).await.unwrap(), 0);
        }
        (socket.0.plain_writes, socket.0.vectored_writes, socket.0.written)
    }

    #[tokio::test]
    async fn small_pieces_are_coalesced() {
        let (plain_writes, vectored_writes, written) = write(usize::MAX, [b"5\r\n", b"hello", b"\r\n"]).await;
        assert_eq!((plain_writes, vectored_writes, written.as_slice()), (1, 0, b"5\r\nhello\r\n".as_slice()));
    }

    #[tokio::test]
    async fn a_large_piece_is_not_copied() {
        let large = [b'.'; MAX_COALESCED];
        let large: &'static [u8] = Box::leak(Box::new(large));
        let (plain_writes, vectored_writes, written) = write(usize::MAX, [b"800\r\n", large, b"\r\n"]).await;
        assert_eq!((plain_writes, vectored_writes, written.len()), (0, 1, MAX_COALESCED + 7));
    }

    #[tokio::test]
    async fn a_partial_write_continues_after_the_written_part() {
        let (.., written) = write(4, [b"5\r\n", b"hello", b"\r\n"]).await;
        assert_eq!(written, b"5\r\nhello\r\n");
    }
}
