//! Gates: each holds one message until a step decides what happens to it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::classify::MessageKind;

/// The direction of a message: to Postgres, or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    Request,
    Response,
}

/// What happens to a held message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is still held.
    Pending,
    /// It is forwarded.
    Release,
    /// The connection is cut, and the message is lost.
    Cut,
    /// The replica's side of the connection is cut. The message reaches Postgres when it is released.
    DeliverLate,
}

/// Holds the nth message of a kind.
#[derive(Debug)]
pub(crate) struct Gate {
    kind: MessageKind,
    direction: Direction,
    remaining: Mutex<usize>,
    holding: AtomicBool,
    decision: watch::Sender<Decision>,
}

impl Gate {
    pub(crate) fn new(kind: MessageKind, direction: Direction, nth: usize) -> Self {
        Self {
            kind,
            direction,
            remaining: Mutex::new(nth),
            holding: AtomicBool::new(false),
            decision: watch::Sender::new(Decision::Pending),
        }
    }

    /// Counts a message, and returns whether the gate holds it.
    pub(crate) fn catches(&self, kind: MessageKind, direction: Direction) -> bool {
        let mut remaining = self.remaining.lock().unwrap();
        if self.kind != kind
            || self.direction != direction
            || *remaining == 0
            || *self.decision.borrow() != Decision::Pending
        {
            return false;
        }
        *remaining -= 1;
        let catches = *remaining == 0;
        self.holding.store(catches, Ordering::SeqCst);
        catches
    }

    /// Whether the gate holds a message now.
    pub(crate) fn is_holding(&self) -> bool {
        self.holding.load(Ordering::SeqCst)
    }

    /// Decides what happens to the message. If it has not arrived, it will be forwarded.
    pub(crate) fn decide(&self, decision: Decision) {
        let decision = if self.is_holding() { decision } else { Decision::Release };
        self.decision.send_replace(decision);
    }

    /// Waits for the decision.
    pub(crate) async fn decision(&self) -> Decision {
        let decided = *self.decision.subscribe().wait_for(|decision| *decision != Decision::Pending).await.unwrap();
        if decided != Decision::DeliverLate {
            self.holding.store(false, Ordering::SeqCst);
        }
        decided
    }

    /// Waits until a late message is released. Returns false if it is lost after all.
    pub(crate) async fn is_delivered_late(&self) -> bool {
        let decided = self
            .decision
            .subscribe()
            .wait_for(|decision| *decision != Decision::DeliverLate)
            .await
            .map(|v| *v)
            .unwrap();
        self.holding.store(false, Ordering::SeqCst);
        decided == Decision::Release
    }
}
