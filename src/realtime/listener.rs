//! Hints from the other replicas through LISTEN, and the fallback poll that needs none.
//!
//! LISTEN has a connection of its own, because a pooled connection drops notifications. A hint only states where a log ends. So a hint that
//! is lost, late, duplicated or wrong costs one read of the log and nothing else.
//!
//! [`Listener::run_fallback`] finds what no hint has announced: every few seconds it compares all topics that have readers with their logs.
//! The listener does the same after each reconnect, once LISTEN is committed. So no event can be missed between the two.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{AsyncMessage, Client, SimpleQueryMessage};

use super::{Hub, RemoteObserver, RemoteUpdate, Revocations};
use crate::domain::Topic;
use crate::store::hints::{self, Origin};
use crate::store::{Address, Store, StoreError, sql};

/// The delay before a reconnect, first and longest: doubled each time, jittered, and reset after a success.
const BACKOFF_MS: (u64, u64) = (100, 10_000);

/// How long LISTEN may take, in case the network drops packets.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// After how much silence the listener probes itself, and how long it waits for the probe.
const SILENCE: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// The state of the LISTEN connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerState {
    /// LISTEN is not used (`RIDEWIRE_NOTIFY=off`).
    Off,
    /// The listener has no connection at the moment.
    Connecting,
    /// Hints arrive.
    Listening,
    /// The listener is connected, but no notification arrives. A proxy that pools transactions has this effect.
    Deaf,
}

impl ListenerState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Off, Self::Connecting, Self::Listening, Self::Deaf];

    /// Returns the less healthy one of two states.
    pub fn worse(self, other: Self) -> Self {
        let severity = |state: &Self| match state {
            Self::Off => 0,
            Self::Listening => 1,
            Self::Connecting => 2,
            Self::Deaf => 3,
        };
        std::cmp::max_by_key(self, other, severity)
    }

    /// Returns the state's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Connecting => "connecting",
            Self::Listening => "listening",
            Self::Deaf => "deaf",
        }
    }
}

/// The notifications that a listener has received.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReceivedNotifications {
    /// Their number.
    pub count: u64,
    /// The bytes of their payloads.
    pub bytes: u64,
}

/// The LISTEN connection and the fallback poll.
#[derive(Debug)]
pub struct Listener {
    hub: Arc<Hub>,
    store: Arc<Store>,
    /// In the first shard, which has them.
    revocations: Option<Arc<Revocations>>,
    state: watch::Sender<ListenerState>,
    /// Notified when there are new revocations.
    revoked: Notify,
    /// Notified when a user was erased.
    erased: Notify,
    /// The duration of the last probe, in microseconds.
    lag: AtomicU64,
    /// Counts received notifications, also to detect silence.
    received: watch::Sender<ReceivedNotifications>,
    /// Receives all hints.
    observer: Arc<RemoteObserver>,
}

impl Listener {
    /// Creates a listener that does not run yet. The one of the first shard also keeps `revocations` current.
    pub fn new(
        hub: Arc<Hub>,
        store: Arc<Store>,
        revocations: Option<Arc<Revocations>>,
        observer: Arc<RemoteObserver>,
    ) -> Self {
        Self {
            observer,
            hub,
            store,
            revocations,
            revoked: Notify::new(),
            erased: Notify::new(),
            lag: AtomicU64::new(0),
            state: watch::Sender::new(ListenerState::Off),
            received: watch::Sender::default(),
        }
    }

    /// Returns the state of the LISTEN connection.
    pub fn state(&self) -> ListenerState {
        *self.state.borrow()
    }

    /// Returns the time from NOTIFY to notification that the last probe measured.
    pub fn lag(&self) -> Duration {
        Duration::from_micros(self.lag.load(Ordering::Relaxed))
    }

    /// Returns the number of the received notifications, including those of probes, and their bytes.
    pub fn received(&self) -> ReceivedNotifications {
        *self.received.borrow()
    }

    /// Compares the topics that have readers with their logs, about every `period`, forever.
    pub async fn run_fallback(&self, period: Duration) {
        loop {
            // Jittered, so that replicas that started together do not poll together.
            let next_poll = sleep(period.mul_f64(0.8 + 0.4 * fastrand::f64()));
            tokio::select! {
                () = next_poll => self.check().await,
                () = self.revoked.notified() => {}
                () = self.erased.notified() => self.check().await,
            }
            self.check_revocations().await;
        }
    }

    async fn check(&self) {
        if let Err(error) = self.hub.check(&self.store).await {
            tracing::debug!(%error, "log heads could not be read");
        }
    }

    async fn check_revocations(&self) {
        let Some(revocations) = &self.revocations else { return };
        if let Err(error) = revocations.refresh(&self.store).await {
            tracing::debug!(%error, "revocations could not be read");
        }
    }

    /// Keeps a LISTEN connection open, forever.
    pub async fn run_listener(&self, address: Address) {
        let (first, longest) = BACKOFF_MS;
        let mut pause = first;
        loop {
            self.state.send_replace(ListenerState::Connecting);
            match self.listen(&address, || pause = first).await {
                Ok(()) => tracing::info!("LISTEN connection closed; it is opened again"),
                Err(error) => {
                    tracing::warn!(%error, "LISTEN connection failed; the fallback poll finds the events of other replicas meanwhile");
                }
            }
            sleep(Duration::from_millis(fastrand::u64(pause / 2..=pause))).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Listens on one connection until it ends.
    async fn listen(&self, address: &Address, on_connected: impl FnOnce()) -> Result<(), StoreError> {
        let (client, mut connection) = address.connect().await?;
        let mut messages = poll_fn(move |context| connection.poll_message(context));
        let receiving = async {
            while let Some(message) = messages.next().await {
                if let AsyncMessage::Notification(notification) = message? {
                    self.on_notification(notification.payload());
                }
            }
            Ok(())
        };
        let listening = async {
            let listens = timeout(LISTEN_TIMEOUT, listen(&client, &self.store.origin)).await;
            listens.map_err(|_| StoreError::Timeout)??;
            on_connected();
            // LISTEN is committed. A notification arrives for each commit after this check.
            self.check().await;
            self.check_revocations().await;
            self.keep_probing().await;
            Ok(())
        };
        tokio::select! {
            received = receiving => received,
            ended = listening => ended,
        }
    }

    fn on_notification(&self, payload: &str) {
        self.received.send_modify(|received| {
            received.count += 1;
            received.bytes += payload.len() as u64;
        });
        // This replica has published its own commits already.
        if self.store.origin.is_own(payload) {
            return;
        }
        match hints::decode(payload) {
            Some(hints) => {
                self.observer.on_update(RemoteUpdate::Heads(&hints.heads));
                if hints.heads.keys().any(Topic::is_users) {
                    self.erased.notify_one();
                }
                self.hub.hint(hints.heads);
                hints.values.iter().for_each(|update| self.hub.publish_update(update));
                if hints.revoked {
                    self.revoked.notify_one();
                }
            }
            None => tracing::debug!("unknown hint ignored"),
        }
    }

    /// Probes the connection after each silence. Returns when notifications stop arriving on a connection on which they have arrived
    /// before.
    async fn keep_probing(&self) {
        let mut has_received = false;
        loop {
            // If the probe could not be sent, nothing is known.
            if let Some(is_receiving) = self.probe().await {
                if has_received && !is_receiving {
                    return;
                }
                if !is_receiving && self.state() != ListenerState::Deaf {
                    tracing::warn!(
                        "LISTEN receives no notifications; if DATABASE_URL leads through a proxy that pools transactions, set \
                         RIDEWIRE_LISTEN_DATABASE_URL to a direct connection; until then only the fallback poll finds events"
                    );
                }
                has_received |= is_receiving;
                self.state.send_replace(if is_receiving { ListenerState::Listening } else { ListenerState::Deaf });
            }
            let mut before = self.received().count;
            loop {
                sleep(SILENCE).await;
                let now = self.received().count;
                if now == std::mem::replace(&mut before, now) {
                    break;
                }
            }
        }
    }

    /// Sends an empty hint and waits for a notification. The hint goes through the pool, as all hints do: a pooler may let a connection
    /// receive its own notifications.
    async fn probe(&self) -> Option<bool> {
        let mut received = self.received.subscribe();
        let sent_at = Instant::now();
        if let Err(error) = self.store.notify(&[hints::PROBE], &[]).await {
            tracing::debug!(%error, "listener probe could not be sent");
            return None;
        }
        let has_arrived = timeout(PROBE_TIMEOUT, received.changed()).await.is_ok();
        if has_arrived {
            self.lag.store(u64::try_from(sent_at.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        Some(has_arrived)
    }
}

/// Listens on the channel of all replicas of this connection's schema, and on this replica's own channel.
async fn listen(client: &Client, origin: &Origin) -> Result<(), StoreError> {
    // Not prepared, because the connection may belong to a pooler.
    let messages = client.simple_query(sql::TOPICS_CHANNEL).await?;
    let channel = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get("channel"),
        _ => None,
    });
    let channel = channel.ok_or(StoreError::Corrupt("no channel"))?;
    listen_to(client, &[channel, &origin.own_channel(channel)]).await
}

/// Listens on channels. Their names are SQL identifiers.
pub(crate) async fn listen_to(client: &Client, channels: &[&str]) -> Result<(), StoreError> {
    // No session setting: through a pooler it would affect other clients.
    let timeout_ms = LISTEN_TIMEOUT.as_millis() * 3 / 4;
    let listens: String = channels.iter().map(|channel| format!("listen {channel}; ")).collect();
    let listen = format!(
        "begin; set local statement_timeout = {timeout_ms}; set local lock_timeout = {timeout_ms}; {listens}commit"
    );
    Ok(client.batch_execute(&listen).await?)
}
