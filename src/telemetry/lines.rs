//! Writes log lines to standard error.
//!
//! The access log has many lines. Writing each line directly would cost a system call per request, and requests would wait for
//! a slow reader of standard error. So these lines go to a bounded buffer, which a thread writes: immediately after a pause,
//! otherwise [`WRITE_INTERVAL`] after the previous write. A killed process loses the lines of that interval. If the buffer is
//! full, lines are dropped, and a warning contains their number. The thread that logs any other line writes it directly.
//!
//! Lines are never interleaved: both kinds write whole lines while they hold the lock of standard error.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

use super::ACCESS;

/// The least time between two writes of the access log.
const WRITE_INTERVAL: Duration = Duration::from_millis(10);

/// The most bytes in the buffer: the lines of some thousand requests.
const BUFFER_BYTES: usize = 1024 * 1024;

/// The output of the log. Without a buffer, the lines of the access log are written directly as well.
#[derive(Debug, Clone)]
pub(super) struct Lines(Option<Arc<Queue>>);

impl Lines {
    /// Starts the thread that writes the access log. If the thread cannot be started, there is no buffer.
    pub(super) fn start() -> Self {
        let queue = Arc::<Queue>::default();
        let of_thread = Arc::clone(&queue);
        let thread = thread::Builder::new().name("access-log".to_owned()).spawn(move || of_thread.run());
        Self(thread.is_ok().then_some(queue))
    }

    /// Waits until all lines are written, at most for `timeout`.
    pub(super) fn flush(&self, timeout: Duration) {
        if let Some(queue) = &self.0 {
            queue.flush(timeout);
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter::Direct(io::stderr())
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> LineWriter<'a> {
        match &self.0 {
            Some(queue) if line.target() == ACCESS => LineWriter::Queued(queue),
            _ => self.make_writer(),
        }
    }
}

/// Writes one line.
#[derive(Debug)]
pub(super) enum LineWriter<'a> {
    Direct(io::Stderr),
    Queued(&'a Queue),
}

impl Write for LineWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Direct(stderr) => stderr.write_all(bytes),
            Self::Queued(queue) => {
                queue.push(bytes);
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The buffer of the access log.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Wakes the thread: a line was added.
    filled: Condvar,
    /// Wakes a flush: all lines are written.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    dropped: u64,
    /// Whether the thread has written all lines, and waits for the next one.
    is_waiting: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        // A std mutex: it is locked to copy a line, never during a write.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.state();
        if state.lines.len() + line.len() > BUFFER_BYTES {
            state.dropped += 1;
            return;
        }
        state.lines.extend_from_slice(line);
        // Waking a thread is a system call, so wake it only if it waits, and only once.
        let is_waiting = std::mem::take(&mut state.is_waiting);
        drop(state);
        if is_waiting {
            self.filled.notify_one();
        }
    }

    /// Waits for lines, and moves all of them to `batch`. Returns the number of lines dropped since the last call.
    fn take(&self, batch: &mut Vec<u8>) -> u64 {
        let mut state = self.state();
        while state.lines.is_empty() {
            state.is_waiting = true;
            self.emptied.notify_all();
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_waiting = false;
        std::mem::swap(&mut state.lines, batch);
        std::mem::take(&mut state.dropped)
    }

    fn run(&self) {
        let mut batch = Vec::new();
        loop {
            let dropped = self.take(&mut batch);
            drop(io::stderr().write_all(&batch));
            batch.clear();
            if dropped > 0 {
                tracing::warn!(lines = dropped, "access log lines dropped: standard error is not read fast enough");
            }
            thread::sleep(WRITE_INTERVAL);
        }
    }

    fn flush(&self, timeout: Duration) {
        let is_busy = |state: &mut State| !(state.is_waiting && state.lines.is_empty());
        drop(self.emptied.wait_timeout_while(self.state(), timeout, is_busy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_order_and_dropped_lines_are_counted() {
        let queue = Queue::default();
        queue.push(b"one\n");
        queue.push(b"two\n");
        let large = vec![b'x'; BUFFER_BYTES];
        queue.push(&large);
        queue.push(b"three\n");
        let mut batch = Vec::new();
        assert_eq!((queue.take(&mut batch), batch.as_slice()), (1, b"one\ntwo\nthree\n".as_slice()));
        batch.clear();
        queue.push(&large);
        assert_eq!((queue.take(&mut batch), batch.len()), (0, BUFFER_BYTES));
    }

    #[test]
    fn a_flush_waits_for_the_thread_until_its_timeout() {
        let queue = Arc::<Queue>::default();
        queue.push(b"line\n");
        // No thread runs, so the timeout ends the flush.
        queue.flush(Duration::from_millis(1));
        let taking = Arc::clone(&queue);
        let thread = thread::spawn(move || {
            let mut batch = Vec::new();
            taking.take(&mut batch);
            taking.take(&mut batch);
        });
        // Far longer than the thread takes.
        queue.flush(Duration::from_secs(600));
        assert!(queue.state().lines.is_empty());
        queue.push(b"the last\n");
        thread.join().unwrap();
    }
}
