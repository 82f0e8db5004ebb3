//! Checks whether LISTEN receives what NOTIFY sends, and whether a transaction pooler is between.

use std::future::poll_fn;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client};

use super::database::{Database, connection, row};
use super::{Level, Report};
use crate::config::{Notify, PreparedStatements, Settings};
use crate::realtime::listen_to;
use crate::store::{Address, StoreError, sql};

/// The timeout of LISTEN, and of the notification.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The usage of the notification queue from which a warning is reported.
const WARNING_USAGE: f64 = 0.25;

/// Runs the checks. NOTIFY needs a database that accepts writes.
pub(super) async fn check(database: &Database, settings: &Settings, is_writable: bool, report: &mut Report) {
    match is_pooled(database).await {
        Ok(true) if settings.prepared_statements == PreparedStatements::On => report.error(
            "pooler",
            "DATABASE_URL leads through a transaction pooler, where prepared statements fail; set \
             RIDEWIRE_PREPARED_STATEMENTS=off, and RIDEWIRE_LISTEN_DATABASE_URL to the database itself",
        ),
        Ok(true) => report.ok("pooler", "DATABASE_URL leads through a transaction pooler; prepared statements are off"),
        Ok(false) => report.ok("pooler", "none"),
        Err(error) => report.error("pooler", format!("{error}; {}", error.advice())),
    }
    if settings.notify == Notify::Off {
        return report.ok("notifications", "not used: RIDEWIRE_NOTIFY=off");
    }
    if !is_writable {
        return report.add(Level::Skipped, "notifications", "needs a database that accepts writes");
    }
    match receives_notifications(&database.direct, &database.client).await {
        Ok(true) => report.ok("notifications", "LISTEN receives what NOTIFY sends"),
        Ok(false) => report.error(
            "notifications",
            "LISTEN does not receive what NOTIFY sends: its connection leads through a transaction pooler, or to another database \
             than DATABASE_URL; set RIDEWIRE_LISTEN_DATABASE_URL to the database itself",
        ),
        Err(error) => report.error("notifications", format!("{error}; {}", error.advice())),
    }
    let usage = row(&database.direct_client, sql::TOPICS_QUEUE_USAGE).await;
    match usage.and_then(|row| Ok(row.try_get::<_, f64>("usage")?)) {
        Ok(usage) => {
            let (level, text) = queue_finding(usage);
            report.add(level, "notify queue", text);
        }
        Err(error) => report.error("notify queue", format!("{error}; {}", error.advice())),
    }
}

/// Whether two connections that are open at the same time use the same backend process of Postgres.
async fn is_pooled(database: &Database) -> Result<bool, StoreError> {
    let other = connection(&database.address).await?;
    let mut processes = Vec::new();
    for client in [&database.client, &other, &database.client, &other] {
        processes.push(row(client, sql::CHECK_BACKEND).await?.try_get::<_, i64>("process")?);
    }
    processes.dedup();
    // Without a pooler the queries alternate between the two backends of the two connections.
    Ok(processes.len() != 4 || processes.first() != processes.get(2) || processes.get(1) != processes.get(3))
}

/// Sends a notification from one connection to another, as replicas do, on a channel with a random name.
async fn receives_notifications(direct: &Address, sender: &Client) -> Result<bool, StoreError> {
    let channel = format!("ridewire_check_{:016x}", fastrand::u64(..));
    let (listener, mut received) = connect_listener(direct).await?;
    let listened = timeout(TIMEOUT, listen_to(&listener, &[&channel])).await;
    listened.map_err(|_| StoreError::Timeout)??;
    sender.simple_query(&format!("select pg_notify('{channel}', '')")).await?;
    let arrival = async { while received.recv().await.is_some_and(|on| on != channel) {} };
    let has_arrived = timeout(TIMEOUT, arrival).await.is_ok() && !listener.is_closed();
    // A pooler keeps its connection to the database, so the subscription must be removed.
    drop(listener.simple_query(&format!("unlisten {channel}")).await);
    Ok(has_arrived)
}

/// Opens a connection, and returns it with the channels of the notifications that it receives.
async fn connect_listener(address: &Address) -> Result<(Client, UnboundedReceiver<String>), StoreError> {
    let (client, mut connection) = address.connect().await?;
    let (sender, receiver) = unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(notification) = message {
                // Fails if the receiver was dropped: the check has ended.
                drop(sender.send(notification.channel().to_owned()));
            }
        }
    });
    Ok((client, receiver))
}

fn queue_finding(usage: f64) -> (Level, String) {
    let percent = usage * 100.0;
    match usage {
        high if high >= WARNING_USAGE => (
            Level::Warning,
            format!(
                "{percent:.0} % full; when it is full, every NOTIFY fails; end the session that listens in a transaction \
                 which does not end (pg_stat_activity, `idle in transaction`)"
            ),
        ),
        _ => (Level::Ok, format!("{percent:.0} % full")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filling_queue_is_reported() {
        assert_eq!(queue_finding(0.0), (Level::Ok, "0 % full".to_owned()));
        assert_eq!(queue_finding(0.3).0, Level::Warning);
    }
}
