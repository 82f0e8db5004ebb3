//! The proxy between a replica and its Postgres. It can hold, forward or lose each message.
//!
//! The requests of a connection keep their order, and so do its responses: the messages after a held message wait too. Each connection
//! belongs to a replica's pool or to its listener.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::unix::{OwnedReadHalf as UnixRead, OwnedWriteHalf as UnixWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::classify::{MessageKind, Request, RequestClassifier};
use crate::gate::{Decision, Direction, Gate};
use crate::support::Frames;

/// Counts the notifications that the proxies of a database have seen being sent.
pub(crate) type Sent = Arc<AtomicUsize>;

#[derive(Debug)]
struct Shared {
    socket: PathBuf,
    sent: Sent,
    state: Mutex<State>,
    /// Incremented to cut all connections.
    cuts: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    gates: Vec<Arc<Gate>>,
    connections: HashMap<usize, Connection>,
    accepted: usize,
    /// Counts every message and change.
    activity: usize,
}

#[derive(Debug, Default)]
struct Connection {
    /// The requests to which Postgres has not responded.
    pending: VecDeque<Request>,
    /// For a listener: how many notifications had been sent when it began, and how many it has received since.
    notifications: Option<(usize, usize)>,
    /// Whether its responses are held.
    is_held: bool,
    /// Whether the replica has disconnected while Postgres still processes its requests.
    is_closing: bool,
}

/// The state of a proxy's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Counts every message and change.
    pub(crate) activity: usize,
    /// The number of connections on which a response or the end is pending.
    pub(crate) pending: usize,
    /// Whether a notification was sent that a listener has not received.
    pub(crate) has_hints: bool,
}

/// The proxy of one replica. It stops when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    config: Config,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy to the Postgres (on a Unix socket) of `url`.
    pub(crate) async fn start(url: &str, sent: Sent) -> Self {
        let config: Config = url.parse().unwrap();
        let [Host::Unix(directory)] = config.get_hosts() else { panic!("a Unix socket is expected: {url}") };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            socket: directory.join(format!(".s.PGSQL.{port}")),
            sent,
            state: Mutex::default(),
            cuts: watch::Sender::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, config, shared, accepting }
    }

    /// Returns the `DATABASE_URL` through this proxy.
    pub(crate) fn url(&self) -> String {
        let user = self.config.get_user().unwrap_or("postgres");
        let database = self.config.get_dbname().unwrap_or(user);
        format!("postgresql://{user}@{}/{database}?sslmode=disable", self.address)
    }

    /// Adds a gate.
    pub(crate) fn add_gate(&self, kind: MessageKind, direction: Direction, nth: usize) -> Arc<Gate> {
        let gate = Arc::new(Gate::new(kind, direction, nth));
        self.shared.state().gates.push(Arc::clone(&gate));
        gate
    }

    /// Removes all gates, and forwards the messages that they hold.
    pub(crate) fn release_all(&self) {
        self.shared.state().gates.drain(..).for_each(|gate| gate.decide(Decision::Release));
    }

    /// Cuts all connections, with all held messages.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Returns the state of the connections.
    pub(crate) fn traffic(&self) -> Traffic {
        let sent = self.shared.sent.load(Ordering::SeqCst);
        let state = self.shared.state();
        let pending =
            |connection: &&Connection| (connection.is_closing || !connection.pending.is_empty()) && !connection.is_held;
        let misses = |connection: &Connection| {
            connection.notifications.is_some_and(|(base, received)| base + received < sent) && !connection.is_held
        };
        Traffic {
            activity: state.activity,
            pending: state.connections.values().filter(pending).count(),
            has_hints: state.connections.values().any(misses),
        }
    }

    /// Counts all notifications that were sent so far as received, because Postgres merges equal notifications of one transaction.
    pub(crate) fn ignore_missing_hints(&self) {
        let sent = self.shared.sent.load(Ordering::SeqCst);
        let mut state = self.shared.state();
        for (base, received) in
            state.connections.values_mut().filter_map(|connection| connection.notifications.as_mut())
        {
            *base = sent.saturating_sub(*received);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.release_all();
        self.cut();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Returns the gate that holds a message, if any.
    fn catch(&self, kind: Option<MessageKind>, direction: Direction) -> Option<Arc<Gate>> {
        let mut state = self.state();
        state.activity += 1;
        let kind = kind?;
        let caught = state.gates.iter().position(|gate| gate.catches(kind, direction))?;
        Some(state.gates[caught].clone())
    }

    fn update(&self, number: usize, update: impl FnOnce(&mut Connection)) {
        let mut state = self.state();
        state.activity += 1;
        update(state.connections.entry(number).or_default());
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let mut cuts = shared.cuts.subscribe();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let number = {
                let mut state = shared.state();
                state.accepted += 1;
                state.accepted
            };
            shared.update(number, |_| {});
            let link = Link { number, shared: &shared, cut: watch::Sender::new(false) };
            tokio::select! {
                _ = cuts.changed() => {}
                () = link.serve(client) => {}
            }
            let mut state = shared.state();
            state.activity += 1;
            state.connections.remove(&number);
        });
    }
}

/// One connection.
struct Link<'a> {
    number: usize,
    shared: &'a Shared,
    /// Whether the replica's side is cut.
    cut: watch::Sender<bool>,
}

impl Link<'_> {
    async fn serve(&self, client: TcpStream) {
        let _ = client.set_nodelay(true);
        let Ok(postgres) = UnixStream::connect(&self.shared.socket).await else { return };
        let (from_client, to_client) = client.into_split();
        let (from_postgres, to_postgres) = postgres.into_split();
        tokio::join!(self.upstream(from_client, to_postgres), self.downstream(from_postgres, to_client));
    }

    /// Forwards requests to Postgres, and then the end of the connection.
    async fn upstream(&self, mut from: OwnedReadHalf, mut to: UnixWrite) {
        self.forward(&mut from, &mut to).await;
        self.shared.update(self.number, |connection| connection.is_closing = true);
        drop(from);
        let _ = to.shutdown().await;
    }

    async fn forward(&self, from: &mut OwnedReadHalf, to: &mut UnixWrite) {
        let mut cut = self.cut.subscribe();
        let mut frames = Frames::of_client();
        let mut classifier = RequestClassifier::default();
        let (mut request, mut ready) = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                is_more = frames.read(from) => if !is_more { return },
                _ = cut.wait_for(|cut| *cut) => return,
            }
            while let Some(frame) = frames.next() {
                request.extend(&frame);
                let Some(done) = classifier.push(&frame) else { continue };
                if let Some(gate) = self.shared.catch(done.kind, Direction::Request) {
                    if to.write_all(&std::mem::take(&mut ready)).await.is_err() {
                        return;
                    }
                    match gate.decision().await {
                        Decision::Release | Decision::Pending => {}
                        Decision::Cut => {
                            self.cut.send_replace(true);
                            return;
                        }
                        Decision::DeliverLate => {
                            self.cut.send_replace(true);
                            if gate.is_delivered_late().await {
                                self.shared.update(self.number, |connection| connection.pending.push_back(done));
                                let _ = to.write_all(&request).await;
                            }
                            return;
                        }
                    }
                }
                self.shared.update(self.number, |connection| connection.pending.push_back(done));
                ready.append(&mut request);
            }
            // Frames that do not complete a request (a Flush, or the end of the connection) are forwarded immediately.
            if to.write_all(&std::mem::take(&mut ready)).await.is_err() {
                return;
            }
        }
    }

    async fn downstream(&self, mut from: UnixRead, to: OwnedWriteHalf) {
        let mut to = Some(to);
        let mut cut = self.cut.subscribe();
        let mut frames = Frames::of_postgres();
        let (mut response, mut rows) = (Vec::new(), 0);
        loop {
            let is_cut = *cut.borrow();
            if is_cut {
                to = None;
            }
            tokio::select! {
                is_more = frames.read(&mut from) => if !is_more { break },
                _ = cut.changed(), if !is_cut => continue,
            }
            while let Some(frame) = frames.next() {
                let tag = frame.first().copied();
                response.extend(frame);
                let is_response = tag == Some(b'Z');
                rows += usize::from(tag == Some(b'D'));
                // Notifications arrive between responses.
                let is_hint = tag == Some(b'A') && response.len() < 8_192 && rows == 0;
                if !is_response && !is_hint {
                    continue;
                }
                let kind =
                    if is_response { self.response_received(std::mem::take(&mut rows)) } else { self.hint_received() };
                if !self.may_pass(kind, to.is_some()).await {
                    response.clear();
                    if is_hint {
                        self.lose_hints(&mut frames, &mut from);
                        continue;
                    }
                    self.cut.send_replace(true);
                    to = None;
                }
                self.write(&mut to, &std::mem::take(&mut response)).await;
            }
        }
        // The last message of a terminated session.
        self.write(&mut to, &response).await;
        self.cut.send_replace(true);
    }

    async fn may_pass(&self, kind: Option<MessageKind>, has_client: bool) -> bool {
        let Some(gate) = self.shared.catch(kind, Direction::Response) else { return true };
        self.shared.update(self.number, |connection| connection.is_held = true);
        let decision = if has_client { gate.decision().await } else { Decision::Release };
        self.shared.update(self.number, |connection| connection.is_held = false);
        decision == Decision::Release
    }

    /// Writes to the replica. If the replica has gone, the responses of Postgres are still read.
    async fn write(&self, to: &mut Option<OwnedWriteHalf>, bytes: &[u8]) {
        if let Some(client) = to.as_mut()
            && !bytes.is_empty()
            && client.write_all(bytes).await.is_err()
        {
            *to = None;
        }
    }

    /// Records that a request has its response, and returns the request's kind.
    fn response_received(&self, rows: usize) -> Option<MessageKind> {
        let mut kind = None;
        self.shared.update(self.number, |connection| {
            let Some(request) = connection.pending.pop_front() else { return };
            kind = request.kind;
            if request.kind == Some(MessageKind::Notify) {
                self.shared.sent.fetch_add(rows, Ordering::SeqCst);
            }
            if request.listens {
                connection.notifications.get_or_insert((self.shared.sent.load(Ordering::SeqCst), 0));
            }
        });
        kind
    }

    fn hint_received(&self) -> Option<MessageKind> {
        self.shared.update(self.number, |connection| {
            connection.notifications.iter_mut().for_each(|(_, received)| *received += 1)
        });
        Some(MessageKind::Hint)
    }

    /// Loses the notifications that arrived while a lost notification was held.
    fn lose_hints(&self, frames: &mut Frames, from: &mut UnixRead) {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(read) = from.try_read(&mut bytes)
            && read > 0
        {
            frames.push(&bytes[..read]);
        }
        while frames.next().is_some() {
            self.hint_received();
        }
    }
}
