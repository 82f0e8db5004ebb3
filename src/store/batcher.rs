//! Joins what many tasks ask at the same time into one statement.
//!
//! Whoever comes alone is served at once. While one statement runs, what comes meanwhile gathers, and is the
//! next one: no timer, and the more there is to do the less it costs each. The writer works alike.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::StoreError;

type Question<Q, A> = (Q, oneshot::Sender<Result<A, StoreError>>);

/// A queue of questions, answered many at a time.
#[derive(Debug)]
pub struct Batcher<Q, A> {
    queue: mpsc::Sender<Question<Q, A>>,
    patience: Duration,
}

impl<Q: Send + 'static, A: Send + 'static> Batcher<Q, A> {
    /// A batcher whose batches, of at most `largest` questions, `answer` answers: one for each question, in
    /// their order. It ends with its last handle. A question waits `patience` for its answer.
    pub fn start<F, Fut>(largest: usize, patience: Duration, answer: F) -> Self
    where
        F: Fn(Vec<Q>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Vec<A>, StoreError>> + Send,
    {
        Self::weighing(largest, (|_| 0, usize::MAX), patience, answer)
    }

    /// The same, where questions weigh differently: none is added to a batch that weighs so much already.
    pub fn weighing<F, Fut>(
        largest: usize,
        (weight, heaviest): (fn(&Q) -> usize, usize),
        patience: Duration,
        answer: F,
    ) -> Self
    where
        F: Fn(Vec<Q>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Vec<A>, StoreError>> + Send,
    {
        let (queue, mut waiting) = mpsc::channel::<Question<Q, A>>(largest);
        tokio::spawn(async move {
            while let Some(first) = waiting.recv().await {
                let mut weighs = weight(&first.0);
                let mut batch = vec![first];
                while batch.len() < largest
                    && weighs < heaviest
                    && let Ok(next) = waiting.try_recv()
                {
                    weighs = weight(&next.0).saturating_add(weighs);
                    batch.push(next);
                }
                // Those whose askers have gone need no answer.
                let (questions, askers): (Vec<_>, Vec<_>) =
                    batch.into_iter().filter(|(_, asker)| !asker.is_closed()).unzip();
                if questions.is_empty() {
                    continue;
                }
                match answer(questions).await {
                    Ok(answers) => askers.into_iter().zip(answers).for_each(|(asker, answer)| {
                        let _ = asker.send(Ok(answer));
                    }),
                    Err(error) => {
                        tracing::debug!(%error, waiting = askers.len(), "a batch of reads failed");
                        for asker in askers {
                            let _ = asker.send(Err(error.for_another()));
                        }
                    }
                }
            }
        });
        Self { queue, patience }
    }

    /// Asks, and waits for the answer.
    pub async fn ask(&self, question: Q) -> Result<A, StoreError> {
        let (asker, answer) = oneshot::channel();
        let asked = async {
            self.queue.send((question, asker)).await.map_err(|_| StoreError::Stopping)?;
            answer.await.map_err(|_| StoreError::Stopping)?
        };
        timeout(self.patience, asked).await.map_err(|_| StoreError::Timeout)?
    }
}
