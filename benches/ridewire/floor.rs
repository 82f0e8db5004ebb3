//! The floor of the latencies: what Postgres alone needs for the same way. One row inserted and committed, then a
//! NOTIFY in a transaction of its own, heard by a listener. At the same rate, by the same clock.

use anyhow::Context;
use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_postgres::{AsyncMessage, NoTls};

use crate::Plan;
use crate::latency::{Clock, EVERY, Latency};
use crate::pgbench::INSERT;
use crate::platform::Platform;

/// Like ours: the commit of a hint waits for no disk.
const NOTIFY: &str = "select set_config('synchronous_commit', 'off', true), pg_notify('bench', $1)";

pub(crate) async fn run(plan: &Plan, platform: &Platform, messages: u64, senders: usize) -> anyhow::Result<Latency> {
    let mut sending = JoinSet::new();
    let mut queues = Vec::new();
    for _ in 0..senders {
        let (queue, mut due) = mpsc::unbounded_channel::<u64>();
        queues.push(queue);
        let client = platform.connect().await?;
        let (insert, notify) = (client.prepare(INSERT).await?, client.prepare(NOTIFY).await?);
        sending.spawn(async move {
            while let Some(number) = due.recv().await {
                client.execute(&insert, &[]).await?;
                client.query(&notify, &[&number.to_string()]).await?;
            }
            anyhow::Ok(())
        });
    }
    let (listener, mut connection) = tokio_postgres::connect(&platform.url(), NoTls).await?;
    let clock = Clock::new(plan.warm, EVERY)?;
    let hearing = {
        let clock = clock.clone();
        tokio::spawn(async move {
            let mut said = poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = said.next().await {
                if let AsyncMessage::Notification(hint) = message
                    && let Ok(number) = hint.payload().parse()
                {
                    clock.read(number);
                }
            }
        })
    };
    listener.batch_execute("listen bench").await.context("listen")?;
    // Preparing the connections took a while.
    clock.run(queues, messages);
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    let latency = clock.result(messages, 1).await;
    hearing.abort();
    latency
}
