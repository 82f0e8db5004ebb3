//! A socket to which small pieces go as one.
//!
//! An answer is its head and its body, and a frame has its chunk's size before it and a line's end behind it. They are short,
//! and the kernel takes one piece for much less than it takes several: `send` knows that it has a socket, `writev` has a file.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Up to how many bytes are put together: more than a usual answer or frame has.
const SMALL: usize = 2 * 1024;

/// The socket.
#[derive(Debug)]
pub(super) struct Joined<S>(S);

impl<S> Joined<S> {
    pub(super) fn new(socket: S) -> Self {
        Self(socket)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Joined<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Joined<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut joined = [0; SMALL];
        let mut rest = joined.as_mut_slice();
        for piece in bufs {
            let Some((place, after)) = rest.split_at_mut_checked(piece.len()) else {
                return Pin::new(&mut self.0).poll_write_vectored(cx, bufs);
            };
            place.copy_from_slice(piece);
            rest = after;
        }
        let unused = rest.len();
        Pin::new(&mut self.0).poll_write(cx, joined.get(..SMALL - unused).unwrap_or_default())
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

    /// Takes at most so many bytes at once, and notes how they came.
    struct Taker {
        most: usize,
        taken: Vec<u8>,
        in_pieces: usize,
        in_one: usize,
    }

    impl AsyncWrite for Taker {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.in_one += 1;
            let taken = buf.len().min(self.most);
            self.taken.extend_from_slice(&buf[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.in_pieces += 1;
            let all: Vec<u8> = bufs.iter().flat_map(|piece| piece.iter().copied()).collect();
            let taken = all.len().min(self.most);
            self.taken.extend_from_slice(&all[..taken]);
            Poll::Ready(Ok(taken))
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

    /// Writes pieces; how often they were taken in one and in several, and what came of them.
    async fn write(most: usize, pieces: [&'static [u8]; 3]) -> (usize, usize, Vec<u8>) {
        let taker = Taker { most, taken: Vec::new(), in_pieces: 0, in_one: 0 };
        let mut socket = Joined::new(taker);
        let [first, second, third] = pieces;
        let mut bytes = first.chain(second).chain(third);
        while bytes.has_remaining() {
            assert_ne!(socket.write_buf(&mut bytes).await.unwrap(), 0);
        }
        (socket.0.in_one, socket.0.in_pieces, socket.0.taken)
    }

    #[tokio::test]
    async fn small_pieces_go_as_one() {
        let (in_one, in_pieces, taken) = write(usize::MAX, [b"5\r\n", b"hello", b"\r\n"]).await;
        assert_eq!((in_one, in_pieces, taken.as_slice()), (1, 0, b"5\r\nhello\r\n".as_slice()));
    }

    #[tokio::test]
    async fn what_is_large_is_not_copied() {
        let large = [b'.'; SMALL];
        let large: &'static [u8] = Box::leak(Box::new(large));
        let (in_one, in_pieces, taken) = write(usize::MAX, [b"800\r\n", large, b"\r\n"]).await;
        assert_eq!((in_one, in_pieces, taken.len()), (0, 1, SMALL + 7));
    }

    #[tokio::test]
    async fn what_was_taken_in_part_goes_on_behind_that_part() {
        let (.., taken) = write(4, [b"5\r\n", b"hello", b"\r\n"]).await;
        assert_eq!(taken, b"5\r\nhello\r\n");
    }
}
