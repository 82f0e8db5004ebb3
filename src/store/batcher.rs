//! Batches concurrent requests into one call of the database.
//!
//! A request that arrives alone is executed immediately. Requests that arrive while a call runs form the next batch. No
//! request is delayed to make a batch larger, and the cost of each request falls as the load grows. The writer
//! (`src/writer.rs`) batches its commands in the same way.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::StoreError;

/// The responses of a batch: one for each request, in their order.
///
/// An outer `Err` fails the whole batch. A row that cannot be parsed fails only the requests that need it.
pub(super) type Responses<Response> = Result<Vec<Result<Response, StoreError>>, StoreError>;

type Queued<Request, Response> = (Request, oneshot::Sender<Result<Response, StoreError>>);

/// A queue of requests that are executed in batches.
#[derive(Debug)]
pub struct Batcher<Request, Response> {
    queue: mpsc::Sender<Queued<Request, Response>>,
    timeout: Duration,
}

impl<Request: Send + 'static, Response: Send + 'static> Batcher<Request, Response> {
    /// Starts a batcher. `execute` runs a batch of at most `max_requests` and returns its responses. The
    /// batcher's task ends when the `Batcher` is dropped. A request waits at most `timeout` for its response.
    pub fn start<F, Fut>(max_requests: usize, timeout: Duration, execute: F) -> Self
    where
        F: Fn(Vec<Request>) -> Fut + Send + 'static,
        Fut: Future<Output = Responses<Response>> + Send,
    {
        Self::start_weighted(max_requests, (|_| 0, usize::MAX), timeout, execute)
    }

    /// Like [`Self::start`], for requests of different weights. A batch whose weight has reached `max_weight` is full.
    pub fn start_weighted<F, Fut>(
        max_requests: usize,
        (weight, max_weight): (fn(&Request) -> usize, usize),
        timeout: Duration,
        execute: F,
    ) -> Self
    where
        F: Fn(Vec<Request>) -> Fut + Send + 'static,
        Fut: Future<Output = Responses<Response>> + Send,
    {
        let (queue, mut queued) = mpsc::channel::<Queued<Request, Response>>(max_requests);
        tokio::spawn(async move {
            while let Some(first) = queued.recv().await {
                let mut total_weight = weight(&first.0);
                let mut batch = vec![first];
                while batch.len() < max_requests
                    && total_weight < max_weight
                    && let Ok(next) = queued.try_recv()
                {
                    total_weight = weight(&next.0).saturating_add(total_weight);
                    batch.push(next);
                }
                // A request whose caller was cancelled needs no response.
                let (requests, responders): (Vec<_>, Vec<_>) =
                    batch.into_iter().filter(|(_, responder)| !responder.is_closed()).unzip();
                if requests.is_empty() {
                    continue;
                }
                match execute(requests).await {
                    Ok(responses) => responders.into_iter().zip(responses).for_each(|(responder, response)| {
                        let _ = responder.send(response);
                    }),
                    Err(error) => {
                        tracing::debug!(%error, requests = responders.len(), "batch of requests failed");
                        for responder in responders {
                            let _ = responder.send(Err(error.for_caller()));
                        }
                    }
                }
            }
        });
        Self { queue, timeout }
    }

    /// Submits a request and waits for its response.
    pub async fn submit(&self, request: Request) -> Result<Response, StoreError> {
        let (responder, response) = oneshot::channel();
        let submitted = async {
            self.queue.send((request, responder)).await.map_err(|_| StoreError::Stopping)?;
            response.await.map_err(|_| StoreError::Stopping)?
        };
        timeout(self.timeout, submitted).await.map_err(|_| StoreError::Timeout)?
    }
}

/// Copies a response for one of several callers.
pub(super) fn copy_response<Response: Clone>(response: &Result<Response, StoreError>) -> Result<Response, StoreError> {
    match response {
        Ok(value) => Ok(value.clone()),
        Err(error) => Err(error.for_caller()),
    }
}
