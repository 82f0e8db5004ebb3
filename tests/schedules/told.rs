//! What was asked and answered in one run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::step::{What, Who};

/// What a replica has answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// `None`: the connection was lost.
    pub(crate) status: Option<u16>,
    pub(crate) body: Value,
    /// When it came.
    pub(crate) at: u64,
}

/// An operation.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) what: What,
    pub(crate) ride: usize,
    /// Whether a failover has lost what it did.
    pub(crate) is_lost: bool,
    /// What it says, where it says something.
    pub(crate) content: String,
    /// The message that it is about.
    pub(crate) message: Option<String>,
    /// When it began.
    pub(crate) began: u64,
    /// Where the ride's log ended before, and ends after it, where that matters.
    pub(crate) head_before: i64,
    pub(crate) head_after: Option<i64>,
    pub(crate) answer: Arc<Mutex<Option<Answer>>>,
}

impl Operation {
    pub(crate) fn new(what: What, ride: usize, content: String, began: u64) -> Self {
        Self {
            what,
            ride,
            is_lost: false,
            content,
            message: None,
            began,
            head_before: 0,
            head_after: None,
            answer: Arc::default(),
        }
    }

    pub(crate) fn answer(&self) -> Option<Answer> {
        self.answer.lock().unwrap().clone()
    }

    pub(crate) fn status(&self) -> Option<u16> {
        self.answer()?.status
    }

    pub(crate) fn is_done(&self) -> bool {
        self.answer.lock().unwrap().is_some()
    }

    /// Whether it was acknowledged.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.status().is_some_and(|status| status < 300)
    }
}

/// All that was asked and answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// Before the ids of this run.
    pub(crate) prefix: String,
    pub(crate) operations: BTreeMap<usize, Operation>,
    pub(crate) rides: BTreeSet<usize>,
}

impl Told {
    pub(crate) fn user(&self, who: Who) -> String {
        format!("{}{}", self.prefix, who.name())
    }

    pub(crate) fn ride(&self, ride: usize) -> String {
        format!("{}ride{ride}", self.prefix)
    }
}

/// Where a location operation is, by which it is known again.
pub(crate) fn latitude(op: usize) -> f64 {
    10.0 + f64::from(u32::try_from(op).unwrap()) / 100.0
}
