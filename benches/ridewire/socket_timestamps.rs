//! Arrival times of bytes from the kernel (`SO_TIMESTAMPNS`, socket(7)).
//!
//! The load generator shares the machine with the server. While the server uses every core, the generator reads late, but
//! real readers would be on other machines. The kernel's timestamp is when the bytes were ready for the reader.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The most bytes of one read.
const MAX_READ: usize = 8 * 1024;

/// A socket whose reads return when the last of their bytes arrived.
#[derive(Debug)]
pub(crate) struct TimestampedSocket(TcpStream);

impl TimestampedSocket {
    pub(crate) fn new(socket: TcpStream) -> anyhow::Result<Self> {
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("SO_TIMESTAMPNS")?;
        Ok(Self(socket))
    }

    /// Appends the available bytes to the buffer. Returns their number and arrival time; 0 is the end of the stream.
    pub(crate) async fn read(&mut self, buffer: &mut Vec<u8>) -> anyhow::Result<(usize, Instant)> {
        let mut bytes = [0; MAX_READ];
        let (read, stamp) = loop {
            self.0.readable().await?;
            match self.0.try_io(Interest::READABLE, || receive(&self.0, &mut bytes)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => break received?,
            }
        };
        buffer.extend_from_slice(bytes.get(..read).unwrap_or_default());
        match stamp {
            Some(stamp) => Ok((read, instant_of(stamp))),
            None if read == 0 => Ok((0, Instant::now())),
            None => anyhow::bail!("the kernel returned no timestamp"),
        }
    }
}

fn receive(socket: &TcpStream, bytes: &mut [u8]) -> io::Result<(usize, Option<TimeSpec>)> {
    let mut pieces = [IoSliceMut::new(bytes)];
    let mut control = nix::cmsg_space!(TimeSpec);
    let flags = MsgFlags::empty();
    let received = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut pieces, Some(&mut control), flags)?;
    let stamp = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(stamp),
        _ => None,
    });
    Ok((received.bytes, stamp))
}

/// Converts a time of the system clock to an [`Instant`].
fn instant_of(stamp: TimeSpec) -> Instant {
    let arrived = UNIX_EPOCH + Duration::from(stamp);
    let age = SystemTime::now().duration_since(arrived).unwrap_or_default();
    Instant::now().checked_sub(age).unwrap_or_else(Instant::now)
}
