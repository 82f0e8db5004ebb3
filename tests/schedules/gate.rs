//! Gates: each holds one message, until it is told what becomes of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::label::Point;

/// Which of a message's two ways: to Postgres, or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Request,
    Response,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It waits.
    Hold,
    /// It goes on.
    Release,
    /// The connection is cut, and the message is lost.
    Cut,
    /// The connection is cut for the replica. The message waits, and reaches Postgres when it is released.
    Late,
}

/// Holds the nth message of a kind.
#[derive(Debug)]
pub(crate) struct Gate {
    point: Point,
    side: Side,
    left: Mutex<usize>,
    holds: AtomicBool,
    verdict: watch::Sender<Verdict>,
}

impl Gate {
    pub(crate) fn new(point: Point, side: Side, nth: usize) -> Self {
        Self {
            point,
            side,
            left: Mutex::new(nth),
            holds: AtomicBool::new(false),
            verdict: watch::Sender::new(Verdict::Hold),
        }
    }

    /// Whether this message is the one to be held.
    pub(crate) fn catches(&self, point: Point, side: Side) -> bool {
        let mut left = self.left.lock().unwrap();
        if self.point != point || self.side != side || *left == 0 || *self.verdict.borrow() != Verdict::Hold {
            return false;
        }
        *left -= 1;
        let catches = *left == 0;
        self.holds.store(catches, Ordering::SeqCst);
        catches
    }

    /// Whether it holds a message now.
    pub(crate) fn holds(&self) -> bool {
        self.holds.load(Ordering::SeqCst)
    }

    /// Says what becomes of the message; of one that has not come, it goes on.
    pub(crate) fn decide(&self, verdict: Verdict) {
        let verdict = if self.holds() { verdict } else { Verdict::Release };
        self.verdict.send_replace(verdict);
    }

    /// Waits for a decision.
    pub(crate) async fn verdict(&self) -> Verdict {
        let decided = *self.verdict.subscribe().wait_for(|verdict| *verdict != Verdict::Hold).await.unwrap();
        if decided != Verdict::Late {
            self.holds.store(false, Ordering::SeqCst);
        }
        decided
    }

    /// Waits until a message that was late may go on. `false`: it is lost after all.
    pub(crate) async fn arrives(&self) -> bool {
        let decided = self.verdict.subscribe().wait_for(|verdict| *verdict != Verdict::Late).await.map(|v| *v).unwrap();
        self.holds.store(false, Ordering::SeqCst);
        decided == Verdict::Release
    }
}
