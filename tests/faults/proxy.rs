//! A proxy between a server and its Postgres that forwards traffic and injects faults on demand.
//!
//! Connections are cut between whole protocol messages, so a test determines exactly what Postgres and the server receive.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::unix::{OwnedReadHalf as UnixRead, OwnedWriteHalf as UnixWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::support::Frames;

/// Where the writer's next commit cuts its connection, once. A commit is a COMMIT, or the end of a statement that is a
/// transaction of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Postgres receives everything before COMMIT, but not COMMIT.
    Before,
    /// Postgres commits, but its response is lost.
    After,
    /// COMMIT is sent to Postgres and both sides are closed immediately. It may or may not succeed.
    During,
    /// The client's side is closed. Postgres receives the delayed bytes and COMMIT only after [`Proxy::release`], as after a
    /// delay in the network or a stall of Postgres.
    Late,
}

/// A step of the writer's transactions before which the proxy can pause a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The `begin` of a transaction, after this many others.
    Begin(usize),
    /// The statement that locks topics. The writer does not wait for the responses to the statements before it.
    Lock,
    /// COMMIT.
    Commit,
}

#[derive(Debug)]
struct PausePoint {
    step: Step,
    reached: oneshot::Sender<()>,
}

/// How the proxy handles traffic and new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// All traffic passes.
    Open,
    /// New connections are closed immediately. Open ones were cut.
    Closed,
    /// Connections up to number `before` are stalled, as if a firewall had dropped their state. Newer ones work.
    Stalled { before: usize },
}

#[derive(Debug)]
struct CommitFault {
    cut: Cut,
    /// Whether the proxy also closes new connections from then on.
    closes_proxy: bool,
    /// The step before which the writer is paused next.
    pause: Option<PausePoint>,
    injected: oneshot::Sender<()>,
}

/// The first comment of the append statement, which is a transaction of its own, and of the statement that locks topics.
const APPEND_STATEMENT: &[u8] = b"-- Appends events";
const LOCK_STATEMENT: &[u8] = b"-- Locks topics";

/// The statement that begins each transaction of the writer.
const BEGIN: &[u8] = b"begin isolation level read committed;";

#[derive(Debug)]
struct Shared {
    socket: PathBuf,
    mode: watch::Sender<Mode>,
    /// A change cuts all connections except the one with this number.
    cuts: watch::Sender<Option<usize>>,
    fault: Mutex<Option<CommitFault>>,
    pause: Mutex<Option<PausePoint>>,
    /// Resumes the paused connection.
    resumed: Notify,
    /// Releases the bytes that [`Cut::Late`] has delayed.
    released: Notify,
    /// How many delayed commits Postgres has completed.
    late: watch::Sender<usize>,
    accepted: AtomicUsize,
    commits: AtomicUsize,
}

/// The proxy. It stops when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    config: Config,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy to the Postgres at `url`, which must name a Unix socket.
    pub(crate) async fn start(url: &str) -> Self {
        let config: Config = url.parse().unwrap();
        let [Host::Unix(directory)] = config.get_hosts() else { panic!("a Unix socket is expected: {url}") };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            socket: directory.join(format!(".s.PGSQL.{port}")),
            mode: watch::Sender::new(Mode::Open),
            cuts: watch::Sender::new(None),
            fault: Mutex::default(),
            pause: Mutex::default(),
            resumed: Notify::new(),
            released: Notify::new(),
            late: watch::Sender::new(0),
            accepted: AtomicUsize::new(0),
            commits: AtomicUsize::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, config, shared, accepting }
    }

    /// Returns the `DATABASE_URL` of the proxy.
    pub(crate) fn url(&self) -> String {
        let user = self.config.get_user().unwrap_or("postgres");
        let database = self.config.get_dbname().unwrap_or(user);
        format!("postgresql://{user}@{}/{database}?application_name=through-the-proxy&sslmode=disable", self.address)
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_replace(None);
    }

    /// Cuts all connections and closes new ones until [`Proxy::open`].
    pub(crate) fn close(&self) {
        self.shared.mode.send_replace(Mode::Closed);
        self.cut();
    }

    /// Stalls all open connections without closing them.
    pub(crate) fn stall(&self) {
        let before = self.shared.accepted.load(Ordering::SeqCst);
        self.shared.mode.send_replace(Mode::Stalled { before });
    }

    /// Forwards all traffic again.
    pub(crate) fn open(&self) {
        self.shared.mode.send_replace(Mode::Open);
    }

    /// Cuts the connection of the writer's next commit. The receiver resolves when that has happened.
    pub(crate) fn cut_at_commit(&self, cut: Cut) -> oneshot::Receiver<()> {
        self.arm(cut, false, None)
    }

    /// The same, and then [pauses](Self::pause_at) the writer before its next `step`.
    pub(crate) fn cut_at_commit_and_pause(
        &self,
        cut: Cut,
        step: Step,
    ) -> (oneshot::Receiver<()>, oneshot::Receiver<()>) {
        let (reached, paused) = oneshot::channel();
        (self.arm(cut, false, Some(PausePoint { step, reached })), paused)
    }

    /// Pauses the connection on which the writer next reaches `step`, until [`Proxy::resume`]. Everything before that step is
    /// sent first. The receiver resolves when the connection is paused.
    pub(crate) fn pause_at(&self, step: Step) -> oneshot::Receiver<()> {
        let (reached, paused) = oneshot::channel();
        *self.shared.pause.lock().unwrap() = Some(PausePoint { step, reached });
        paused
    }

    /// Resumes the paused connection.
    pub(crate) fn resume(&self) {
        self.shared.resumed.notify_one();
    }

    /// Like [`Proxy::cut_at_commit`], and closes new connections until [`Proxy::open`].
    pub(crate) fn close_at_commit(&self, cut: Cut) -> oneshot::Receiver<()> {
        self.arm(cut, true, None)
    }

    fn arm(&self, cut: Cut, closes_proxy: bool, pause: Option<PausePoint>) -> oneshot::Receiver<()> {
        let (injected, response) = oneshot::channel();
        *self.shared.fault.lock().unwrap() = Some(CommitFault { cut, closes_proxy, pause, injected });
        response
    }

    /// Sends the bytes delayed by [`Cut::Late`] to Postgres, and waits until Postgres has processed them.
    pub(crate) async fn release(&self) {
        let mut late = self.shared.late.subscribe();
        late.mark_unchanged();
        self.shared.released.notify_one();
        late.changed().await.unwrap();
    }

    /// Returns the number of the writer's commits so far.
    pub(crate) fn commits(&self) -> usize {
        self.shared.commits.load(Ordering::SeqCst)
    }

    /// Returns the number of connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst) + 1;
        // Subscribe before reading the mode. Then `close` either rejects the connection or cuts it.
        let mut cuts = shared.cuts.subscribe();
        if *shared.mode.borrow() == Mode::Closed {
            continue;
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            tokio::select! {
                () = wait_for_cut(&mut cuts, number) => {}
                () = serve(client, number, &shared) => {}
            }
        });
    }
}

/// Waits until this connection is cut.
async fn wait_for_cut(cuts: &mut watch::Receiver<Option<usize>>, number: usize) {
    while cuts.changed().await.is_ok() && *cuts.borrow() == Some(number) {}
}

async fn serve(client: TcpStream, number: usize, shared: &Shared) {
    let _ = client.set_nodelay(true);
    // Postgres may be unavailable.
    let Ok(postgres) = UnixStream::connect(&shared.socket).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_postgres, to_postgres) = postgres.into_split();
    // Set when a fault is injected on this connection.
    let (cutoff, cutoff_changes) = watch::channel(None);
    let injected: Mutex<Option<oneshot::Sender<()>>> = Mutex::default();
    tokio::select! {
        () = upstream(from_client, to_postgres, number, shared, &cutoff, &injected) => {}
        () = downstream(from_postgres, to_client, number, shared, cutoff_changes) => {}
    }
    // Both sides were dropped above.
    if let Some(sender) = injected.into_inner().unwrap() {
        let _ = sender.send(());
    }
}

impl Shared {
    /// Returns whether the writer must be paused before this frame.
    fn pauses_before(&self, state: &ProtocolState, frame: &[u8], commits: bool) -> Option<oneshot::Sender<()>> {
        let mut pause = self.pause.lock().unwrap();
        let is_reached = match &mut pause.as_mut()?.step {
            Step::Begin(after) if begins(frame) => {
                let is_reached = *after == 0;
                *after = after.saturating_sub(1);
                is_reached
            }
            Step::Begin(_) => false,
            Step::Lock => {
                frame.first() == Some(&b'B') && state.lock_statement.is_some() && state.lock_statement == bound(frame)
            }
            Step::Commit => commits,
        };
        pause.take_if(|_| is_reached).map(|pause| pause.reached)
    }
}

/// Returns whether a frame begins a transaction of the writer.
fn begins(frame: &[u8]) -> bool {
    frame.first() == Some(&b'Q') && frame.get(5..).is_some_and(|body| body.starts_with(BEGIN))
}

/// Returns the name of the prepared statement that a Bind message names.
fn bound(frame: &[u8]) -> Option<Vec<u8>> {
    // The name of the portal, then the name of the statement.
    frame.get(5..)?.split(|byte| *byte == 0).nth(1).map(<[u8]>::to_vec)
}

/// Waits while this connection is stalled.
async fn wait_while_stalled(number: usize, shared: &Shared) {
    let mut mode = shared.mode.subscribe();
    let _ = mode.wait_for(|mode| !matches!(mode, Mode::Stalled { before } if number <= *before)).await;
}

async fn upstream(
    mut from: OwnedReadHalf,
    mut to: UnixWrite,
    number: usize,
    shared: &Shared,
    cutoff: &watch::Sender<Option<ReplyCutoff>>,
    injected: &Mutex<Option<oneshot::Sender<()>>>,
) {
    let mut frames = Frames::of_client();
    let mut state = ProtocolState::default();
    while frames.read(&mut from).await {
        wait_while_stalled(number, shared).await;
        let mut ready = Vec::new();
        while let Some(frame) = frames.next() {
            let commits = state.commits(&frame);
            if let Some(reached) = shared.pauses_before(&state, &frame, commits) {
                if to.write_all(&std::mem::take(&mut ready)).await.is_err() {
                    return;
                }
                let _ = reached.send(());
                shared.resumed.notified().await;
            }
            if commits {
                shared.commits.fetch_add(1, Ordering::SeqCst);
                let fault = shared.fault.lock().unwrap().take();
                if let Some(CommitFault { cut, closes_proxy, pause, injected: sender }) = fault {
                    if pause.is_some() {
                        *shared.pause.lock().unwrap() = pause;
                    }
                    if closes_proxy {
                        shared.mode.send_replace(Mode::Closed);
                        // An open connection could replace a new one, so all others are cut too.
                        shared.cuts.send_replace(Some(number));
                    }
                    cutoff
                        .send_replace(Some(ReplyCutoff { requests: state.requests, closes_client: cut == Cut::Late }));
                    if cut == Cut::Late {
                        // The bytes that were ready are delayed too.
                        ready.extend(frame);
                        drop(from);
                        let _ = sender.send(());
                        shared.released.notified().await;
                        let _ = to.write_all(&ready).await;
                        return std::future::pending().await;
                    }
                    *injected.lock().unwrap() = Some(sender);
                    if cut == Cut::Before {
                        let _ = to.write_all(&ready).await;
                        return;
                    }
                    ready.extend(frame);
                    let _ = to.write_all(&ready).await;
                    if cut == Cut::After {
                        // `downstream` closes both sides when Postgres has committed.
                        return std::future::pending().await;
                    }
                    return;
                }
            }
            ready.extend(frame);
        }
        if to.write_all(&ready).await.is_err() {
            return;
        }
    }
}

/// The point from which responses are not forwarded to the client.
#[derive(Debug, Clone, Copy)]
struct ReplyCutoff {
    /// Postgres has committed after this many responses.
    requests: usize,
    /// Whether the client's side is closed.
    closes_client: bool,
}

/// The protocol state of a connection, from the frames of its client.
#[derive(Debug, Default)]
struct ProtocolState {
    /// The name of the append statement, which is a transaction of its own.
    append_statement: Option<Vec<u8>>,
    /// The name of the statement that locks topics.
    lock_statement: Option<Vec<u8>>,
    is_in_transaction: bool,
    /// Whether the current transaction is one of the writer.
    is_writer_transaction: bool,
    /// Whether the append statement is bound outside a transaction. Then the next Sync commits it.
    is_bound: bool,
    /// The number of responses that Postgres has to send, including the one to the startup message.
    requests: usize,
}

impl ProtocolState {
    /// Returns whether a frame commits a transaction of the writer.
    fn commits(&mut self, frame: &[u8]) -> bool {
        let body = frame.get(5..).unwrap_or_default();
        match frame.first() {
            Some(b'Q') => {
                self.requests += 1;
                let commits = body == b"commit\0" && self.is_writer_transaction;
                if body.starts_with(b"begin") {
                    self.is_in_transaction = true;
                    // Other components have transactions too.
                    self.is_writer_transaction = begins(frame);
                } else if body == b"commit\0" || body == b"rollback\0" {
                    self.is_in_transaction = false;
                }
                commits
            }
            Some(b'P') => {
                let mut parts = body.splitn(2, |byte| *byte == 0);
                let (name, text) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                if text.starts_with(APPEND_STATEMENT) {
                    self.append_statement = Some(name.to_vec());
                } else if text.starts_with(LOCK_STATEMENT) {
                    self.lock_statement = Some(name.to_vec());
                }
                false
            }
            Some(b'B') => {
                let name = bound(frame);
                self.is_bound = name.is_some() && name == self.append_statement && !self.is_in_transaction;
                false
            }
            Some(b'S') => {
                self.requests += 1;
                std::mem::take(&mut self.is_bound)
            }
            // The startup message, which has no type byte.
            Some(0) => {
                self.requests += 1;
                false
            }
            _ => false,
        }
    }
}

async fn downstream(
    mut from: UnixRead,
    to: OwnedWriteHalf,
    number: usize,
    shared: &Shared,
    mut cutoff_changes: watch::Receiver<Option<ReplyCutoff>>,
) {
    let mut frames = Frames::of_postgres();
    let mut to = Some(to);
    let mut responses = 0;
    loop {
        tokio::select! {
            is_more = frames.read(&mut from) => if !is_more { return },
            Ok(()) = cutoff_changes.changed() => {}
        }
        wait_while_stalled(number, shared).await;
        let cutoff = *cutoff_changes.borrow();
        if cutoff.is_some_and(|cutoff| cutoff.closes_client) {
            to = None;
        }
        let mut ready = Vec::new();
        while let Some(frame) = frames.next() {
            responses += usize::from(frame.first() == Some(&b'Z'));
            match cutoff {
                Some(cutoff) if responses >= cutoff.requests => {
                    shared.late.send_modify(|late| *late += usize::from(cutoff.closes_client));
                    return;
                }
                Some(_) => {}
                None => ready.extend(frame),
            }
        }
        if let Some(to) = to.as_mut()
            && !ready.is_empty()
            && to.write_all(&ready).await.is_err()
        {
            return;
        }
    }
}
