//! When bytes arrived, by the kernel's own clock.
//!
//! The generator shares the machine with what it measures. A server that uses every core for a moment leaves none to whoever
//! reads meanwhile, whose readers would be elsewhere; the kernel notes when the bytes were there for them (`SO_TIMESTAMPNS`,
//! socket(7)).

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The most bytes that are taken at once.
const MOST: usize = 8 * 1024;

/// A socket whose reads say when the last of their bytes arrived.
#[derive(Debug)]
pub(crate) struct Timed(TcpStream);

impl Timed {
    pub(crate) fn new(socket: TcpStream) -> anyhow::Result<Self> {
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("SO_TIMESTAMPNS")?;
        Ok(Self(socket))
    }

    /// Appends what is there to the buffer; how much it was, and since when it was there. 0 is the end.
    pub(crate) async fn read(&mut self, buffer: &mut Vec<u8>) -> anyhow::Result<(usize, Instant)> {
        let mut bytes = [0; MOST];
        let (read, stamp) = loop {
            self.0.readable().await?;
            match self.0.try_io(Interest::READABLE, || receive(&self.0, &mut bytes)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => break received?,
            }
        };
        buffer.extend_from_slice(bytes.get(..read).unwrap_or_default());
        match stamp {
            Some(stamp) => Ok((read, since(stamp))),
            None if read == 0 => Ok((0, Instant::now())),
            None => anyhow::bail!("the kernel does not say when bytes arrived"),
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

/// A moment of the clock of the day as one of ours.
fn since(stamp: TimeSpec) -> Instant {
    let arrived = UNIX_EPOCH + Duration::from(stamp);
    let age = SystemTime::now().duration_since(arrived).unwrap_or_default();
    Instant::now().checked_sub(age).unwrap_or_else(Instant::now)
}
