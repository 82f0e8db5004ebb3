//! The record of one run: its requests and responses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::step::{Action, Actor};

/// The response of a replica.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    /// `None` if the connection was lost.
    pub(crate) status: Option<u16>,
    pub(crate) body: Value,
    /// When it arrived, on the run's logical clock.
    pub(crate) at: u64,
}

/// An operation of a schedule.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) action: Action,
    pub(crate) ride: usize,
    /// Whether a failover has lost its effect.
    pub(crate) is_lost: bool,
    /// The content of its message, if it sends or edits one.
    pub(crate) content: String,
    /// The id of the message that it is about.
    pub(crate) message: Option<String>,
    /// When it began, on the run's logical clock.
    pub(crate) began: u64,
    /// The head of the ride's log before and after it, if a check needs them.
    pub(crate) head_before: i64,
    pub(crate) head_after: Option<i64>,
    pub(crate) response: Arc<Mutex<Option<Response>>>,
}

impl Operation {
    pub(crate) fn new(action: Action, ride: usize, content: String, began: u64) -> Self {
        Self {
            action,
            ride,
            is_lost: false,
            content,
            message: None,
            began,
            head_before: 0,
            head_after: None,
            response: Arc::default(),
        }
    }

    pub(crate) fn response(&self) -> Option<Response> {
        self.response.lock().unwrap().clone()
    }

    pub(crate) fn status(&self) -> Option<u16> {
        self.response()?.status
    }

    pub(crate) fn is_done(&self) -> bool {
        self.response.lock().unwrap().is_some()
    }

    /// Whether its response was a success.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.status().is_some_and(|status| status < 300)
    }
}

/// All operations of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunRecord {
    /// The prefix of all ids of this run.
    pub(crate) prefix: String,
    pub(crate) operations: BTreeMap<usize, Operation>,
    pub(crate) rides: BTreeSet<usize>,
}

impl RunRecord {
    pub(crate) fn user(&self, actor: Actor) -> String {
        format!("{}{}", self.prefix, actor.name())
    }

    pub(crate) fn ride(&self, ride: usize) -> String {
        format!("{}ride{ride}", self.prefix)
    }
}

/// Returns the latitude that a location operation sends, which identifies it.
pub(crate) fn latitude(op: usize) -> f64 {
    10.0 + f64::from(u32::try_from(op).unwrap()) / 100.0
}
