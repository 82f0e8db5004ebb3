//! Hints from the other replicas, by LISTEN; and the look that needs none.
//!
//! LISTEN has a connection of its own: a pool would drop what it hears. Every hint only says where a log ends; so
//! one that is lost, late, doubled or made up costs a look at the log and nothing else. What no hint has told is
//! found by [`Listener::run_fallback`], which compares all topics that are being read with their logs every few
//! seconds, and by the same comparison after each time that the listener was away, made after LISTEN has been
//! committed, so that nothing falls between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{AsyncMessage, Client, SimpleQueryMessage};

use super::{Heard, Heeding, Hub, Revocations};
use crate::domain::Topic;
use crate::store::{Address, Store, StoreError, hints, sql};

/// How long to wait before connecting again: doubled each time, jittered, back to the first after success.
const BACKOFF_MS: (u64, u64) = (100, 10_000);

/// How long a connection and LISTEN may take: a network that is silent is not waited for.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// After how much silence the listener asks itself whether it can still hear, and how long it waits to.
const SILENCE: Duration = Duration::from_secs(10);
const PROBE_PATIENCE: Duration = Duration::from_secs(3);

/// How well this replica hears the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerState {
    /// LISTEN is not used (`RIDEWIRE_NOTIFY=off`).
    Off,
    /// There is no connection at the moment.
    Connecting,
    /// Hints arrive.
    Listening,
    /// The connection stands but hints do not arrive, as through a proxy that pools transactions.
    Deaf,
}

impl ListenerState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Off, Self::Connecting, Self::Listening, Self::Deaf];

    /// The state in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Connecting => "connecting",
            Self::Listening => "listening",
            Self::Deaf => "deaf",
        }
    }
}

/// The listener and the fallback.
#[derive(Debug)]
pub struct Listener {
    hub: Arc<Hub>,
    store: Arc<Store>,
    revocations: Arc<Revocations>,
    state: watch::Sender<ListenerState>,
    /// There are revocations to be read.
    revoked: Notify,
    /// A user was erased.
    erased: Notify,
    /// How long the last probe took to be heard, in microseconds.
    lag: AtomicU64,
    /// Counts what was heard, to tell silence.
    heard: watch::Sender<u64>,
    /// Who else is told of hints.
    heeding: Arc<Heeding>,
}

impl Listener {
    /// A feed that is not running yet.
    pub fn new(hub: Arc<Hub>, store: Arc<Store>, revocations: Arc<Revocations>, heeding: Arc<Heeding>) -> Self {
        Self {
            heeding,
            hub,
            store,
            revocations,
            revoked: Notify::new(),
            erased: Notify::new(),
            lag: AtomicU64::new(0),
            state: watch::Sender::new(ListenerState::Off),
            heard: watch::Sender::new(0),
        }
    }

    /// How well it hears.
    pub fn state(&self) -> ListenerState {
        *self.state.borrow()
    }

    /// How long the last NOTIFY to ourselves took to be heard.
    pub fn lag(&self) -> Duration {
        Duration::from_micros(self.lag.load(Ordering::Relaxed))
    }

    /// Compares what is being read with the log every `period` or so, for ever.
    pub async fn run_fallback(&self, period: Duration) {
        loop {
            // Jittered, so that replicas that started together do not look together.
            let look = sleep(period.mul_f64(0.8 + 0.4 * fastrand::f64()));
            tokio::select! {
                () = look => self.check().await,
                () = self.revoked.notified() => {}
                () = self.erased.notified() => self.check().await,
            }
            self.check_revocations().await;
        }
    }

    async fn check(&self) {
        if let Err(error) = self.hub.check(&self.store).await {
            tracing::debug!(%error, "the logs' heads cannot be read now");
        }
    }

    async fn check_revocations(&self) {
        if let Err(error) = self.revocations.refresh(&self.store).await {
            tracing::debug!(%error, "revocations cannot be read now");
        }
    }

    /// Listens, for ever.
    pub async fn run_listener(&self, address: Address) {
        let (first, longest) = BACKOFF_MS;
        let mut pause = first;
        loop {
            self.state.send_replace(ListenerState::Connecting);
            match self.listen(&address, || pause = first).await {
                Ok(()) => tracing::info!("the listener's connection was closed"),
                Err(error) => tracing::warn!(%error, "the listener's connection failed"),
            }
            sleep(Duration::from_millis(fastrand::u64(pause / 2..=pause))).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Listens on one connection, to its end.
    async fn listen(&self, address: &Address, connected: impl FnOnce()) -> Result<(), StoreError> {
        let connected_in_time = timeout(CONNECT_PATIENCE, address.connect()).await;
        let (client, mut connection) = connected_in_time.map_err(|_| StoreError::Timeout)??;
        let mut messages = poll_fn(move |context| connection.poll_message(context));
        let receiving = async {
            while let Some(message) = messages.next().await {
                if let AsyncMessage::Notification(notification) = message? {
                    self.hear(notification.payload());
                }
            }
            Ok(())
        };
        let listening = async {
            let listens = timeout(CONNECT_PATIENCE, listen(&client)).await;
            listens.map_err(|_| StoreError::Timeout)??;
            connected();
            // LISTEN is committed: what is committed after this look will be heard.
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

    fn hear(&self, payload: &str) {
        self.heard.send_modify(|count| *count += 1);
        // What was committed here is published here.
        if self.store.origin.has_told(payload) {
            return;
        }
        match hints::decode(payload) {
            Some(hints) => {
                self.heeding.heed(Heard::Heads(&hints.heads));
                if hints.heads.keys().any(Topic::is_users) {
                    self.erased.notify_one();
                }
                self.hub.hint(hints.heads);
                hints.values.iter().for_each(|value| self.hub.offer(value));
                if hints.revoked {
                    self.revoked.notify_one();
                }
            }
            None => tracing::debug!("a hint that is none of ours"),
        }
    }

    /// Asks itself after every silence whether it can hear. Returns when it no longer can, having once been able.
    async fn keep_probing(&self) {
        let mut has_heard = false;
        loop {
            // Where nothing could be sent, nothing is known.
            if let Some(can_hear) = self.probe().await {
                if has_heard && !can_hear {
                    return;
                }
                if !can_hear && self.state() != ListenerState::Deaf {
                    tracing::warn!(
                        "LISTEN hears nothing: does DATABASE_URL lead through a proxy that pools transactions? Set \
                         RIDEWIRE_LISTEN_DATABASE_URL to a direct connection; until then the fallback poll serves"
                    );
                }
                has_heard |= can_hear;
                self.state.send_replace(if can_hear { ListenerState::Listening } else { ListenerState::Deaf });
            }
            let mut before = *self.heard.borrow();
            loop {
                sleep(SILENCE).await;
                let now = *self.heard.borrow();
                if now == std::mem::replace(&mut before, now) {
                    break;
                }
            }
        }
    }

    /// Sends itself an empty hint, and waits to hear something. The way that hints take, from a connection of the pool: a
    /// pooler may well let a connection hear what it says itself.
    async fn probe(&self) -> Option<bool> {
        let mut heard_since = self.heard.subscribe();
        let asked = Instant::now();
        if let Err(error) = self.store.notify(&[hints::PROBE]).await {
            tracing::debug!(%error, "the listener cannot be tried now");
            return None;
        }
        let heard = timeout(PROBE_PATIENCE, heard_since.changed()).await.is_ok();
        if heard {
            self.lag.store(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        Some(heard)
    }
}

/// Listens on the channel of the schema that this connection is in.
async fn listen(client: &Client) -> Result<(), StoreError> {
    // Not prepared: the connection may be one of a pooler.
    let messages = client.simple_query(sql::TOPICS_CHANNEL).await?;
    let channel = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get("channel"),
        _ => None,
    });
    listen_to(client, channel.ok_or(StoreError::Corrupt("no channel"))?).await
}

/// Listens on a channel, whose name is an identifier of SQL.
pub(crate) async fn listen_to(client: &Client, channel: &str) -> Result<(), StoreError> {
    // No setting of the session: through a pooler it would be another's.
    let timeout_ms = CONNECT_PATIENCE.as_millis() * 3 / 4;
    let listen = format!(
        "begin; set local statement_timeout = {timeout_ms}; set local lock_timeout = {timeout_ms}; listen {channel}; commit"
    );
    Ok(client.batch_execute(&listen).await?)
}
