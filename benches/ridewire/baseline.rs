//! The baseline of the latencies: Postgres alone. One row is inserted and committed, then a NOTIFY in a transaction of its
//! own reaches a listener. The rate and the latency recorder are the same.

use anyhow::Context;
use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_postgres::{AsyncMessage, NoTls};

use crate::Parameters;
use crate::open_loop::{INTERVAL, Latency, LatencyRecorder};
use crate::pgbench::INSERT;
use crate::testbed::Testbed;

/// As in the server, the commit of a notification does not wait for the disk.
const NOTIFY: &str = "select set_config('synchronous_commit', 'off', true), pg_notify('bench', $1)";

pub(crate) async fn run(
    parameters: &Parameters,
    testbed: &Testbed,
    messages: u64,
    senders: usize,
) -> anyhow::Result<Latency> {
    let mut sending = JoinSet::new();
    let mut queues = Vec::new();
    for _ in 0..senders {
        let (queue, mut due) = mpsc::unbounded_channel::<u64>();
        queues.push(queue);
        let client = testbed.connect().await?;
        let (insert, notify) = (client.prepare(INSERT).await?, client.prepare(NOTIFY).await?);
        sending.spawn(async move {
            while let Some(number) = due.recv().await {
                client.execute(&insert, &[]).await?;
                client.query(&notify, &[&number.to_string()]).await?;
            }
            anyhow::Ok(())
        });
    }
    let (listener, mut connection) = tokio_postgres::connect(&testbed.url(), NoTls).await?;
    let recorder = LatencyRecorder::new(parameters.warmup, INTERVAL)?;
    let listening = {
        let recorder = recorder.clone();
        tokio::spawn(async move {
            let mut notifications = poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = notifications.next().await {
                if let AsyncMessage::Notification(hint) = message
                    && let Ok(number) = hint.payload().parse()
                {
                    recorder.record(number);
                }
            }
        })
    };
    listener.batch_execute("listen bench").await.context("listen")?;
    // Created after the connections, because preparing them takes time.
    recorder.run(queues, messages);
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    let latency = recorder.result(messages, 1).await;
    listening.abort();
    latency
}
