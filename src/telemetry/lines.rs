//! Where log lines go: to standard error.
//!
//! Lines of the access log are many. To write each of them at once would be a system call for each request, and would have requests
//! wait for a slow reader of standard error. So they gather in a bounded buffer that a thread writes: at once after a pause,
//! otherwise [`GATHERING`] after the time before. A process that is killed loses the lines of that time. Where the buffer is full,
//! lines are dropped, and a warning says how many. All other lines are written at once by the thread that logs them.
//!
//! No line is written in pieces with another between them: both kinds write whole lines while they hold the lock of standard error.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

use super::ACCESS;

/// The time between two writes of the access log, at least.
const GATHERING: Duration = Duration::from_millis(10);

/// The most bytes that wait to be written: some thousand requests.
const MOST_BYTES: usize = 1024 * 1024;

/// Where lines go.
#[derive(Debug, Clone)]
pub(super) struct Lines(Option<Arc<Queue>>);

impl Lines {
    /// Starts the thread that writes the access log. Where there can be none, its lines are written at once as well.
    pub(super) fn start() -> Self {
        let queue = Arc::<Queue>::default();
        let written = Arc::clone(&queue);
        let thread = thread::Builder::new().name("access-log".to_owned()).spawn(move || written.write_for_ever());
        Self(thread.is_ok().then_some(queue))
    }

    /// Waits until all lines are written, for `timeout` at most.
    pub(super) fn flush(&self, timeout: Duration) {
        if let Some(queue) = &self.0 {
            queue.flush(timeout);
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter::AtOnce(io::stderr())
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
    AtOnce(io::Stderr),
    Queued(&'a Queue),
}

impl Write for LineWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::AtOnce(stderr) => stderr.write_all(bytes),
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

/// Lines that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is a line, and the thread waits for one.
    filled: Condvar,
    /// All lines are written.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    dropped: u64,
    /// Whether the thread has written all that it has taken, and waits for a line.
    is_waiting: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        // A std lock: held for a copy of a line, never while something is written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.state();
        if state.lines.len() + line.len() > MOST_BYTES {
            state.dropped += 1;
            return;
        }
        state.lines.extend_from_slice(line);
        // To wake a thread is a system call: only where it waits, and once.
        let is_waiting = std::mem::take(&mut state.is_waiting);
        drop(state);
        if is_waiting {
            self.filled.notify_one();
        }
    }

    /// Waits for lines, and takes all of them. Returns how many were dropped since the last time.
    fn take(&self, taken: &mut Vec<u8>) -> u64 {
        let mut state = self.state();
        while state.lines.is_empty() {
            state.is_waiting = true;
            self.emptied.notify_all();
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_waiting = false;
        std::mem::swap(&mut state.lines, taken);
        std::mem::take(&mut state.dropped)
    }

    fn write_for_ever(&self) {
        let mut taken = Vec::new();
        loop {
            let dropped = self.take(&mut taken);
            drop(io::stderr().write_all(&taken));
            taken.clear();
            if dropped > 0 {
                tracing::warn!(lines = dropped, "access log lines dropped: standard error is not read fast enough");
            }
            thread::sleep(GATHERING);
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
    fn lines_are_taken_in_their_order_and_those_that_do_not_fit_are_counted() {
        let queue = Queue::default();
        queue.push(b"one\n");
        queue.push(b"two\n");
        let large = vec![b'x'; MOST_BYTES];
        queue.push(&large);
        queue.push(b"three\n");
        let mut taken = Vec::new();
        assert_eq!((queue.take(&mut taken), taken.as_slice()), (1, b"one\ntwo\nthree\n".as_slice()));
        taken.clear();
        queue.push(&large);
        assert_eq!((queue.take(&mut taken), taken.len()), (0, MOST_BYTES));
    }

    #[test]
    fn a_flush_waits_for_the_thread_and_not_for_ever() {
        let queue = Arc::<Queue>::default();
        queue.push(b"line\n");
        // There is no thread: only the timeout ends it.
        queue.flush(Duration::from_millis(1));
        let taking = Arc::clone(&queue);
        let thread = thread::spawn(move || {
            let mut taken = Vec::new();
            taking.take(&mut taken);
            taking.take(&mut taken);
        });
        // Far longer than the thread takes.
        queue.flush(Duration::from_secs(600));
        assert!(queue.state().lines.is_empty());
        queue.push(b"the last\n");
        thread.join().unwrap();
    }
}
