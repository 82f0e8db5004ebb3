//! Between a server and its Postgres: forwards, and breaks things on cue.
//!
//! What is cut is cut between whole messages of the protocol, so that a test says exactly what Postgres got and
//! what the server was told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::unix::{OwnedReadHalf as UnixRead, OwnedWriteHalf as UnixWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// Where a connection is cut, once, by the writer's next commit on any of them: its COMMIT, or the end of a statement that
/// is a transaction of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Postgres gets all that precedes COMMIT, but not COMMIT.
    Before,
    /// Postgres commits, and nobody is told.
    After,
    /// COMMIT is handed to Postgres and both sides are cut at once: it may or may not happen.
    During,
    /// The client's side is cut. Postgres gets the whole statement, with all that was held back, when [`Proxy::release`]
    /// says so: as when a network, or a Postgres that stands still, has kept it.
    Late,
}

/// What becomes of bytes and of new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Everything passes.
    Open,
    /// New connections are closed at once, old ones were cut.
    Closed,
    /// Nothing passes on connections from before; new ones are served. As when a network forgets them.
    Stalled { before: usize },
}

#[derive(Debug)]
struct Trap {
    cut: Cut,
    /// Whether nobody is let in from then on.
    closes: bool,
    struck: oneshot::Sender<()>,
}

/// The text by which the writer's statement is known that is a transaction of its own.
const APPENDING: &[u8] = b"-- Appends events";

#[derive(Debug)]
struct Shared {
    socket: PathBuf,
    way: watch::Sender<Way>,
    /// Raised to cut all connections.
    cuts: watch::Sender<usize>,
    /// The connection that the trap has struck, if it has cut all others.
    struck: watch::Sender<Option<usize>>,
    trap: Mutex<Option<Trap>>,
    /// Lets those go on that are late.
    released: Notify,
    /// How many of them Postgres has had, and answered.
    late: watch::Sender<usize>,
    accepted: AtomicUsize,
    commits: AtomicUsize,
}

/// The proxy. It ends with its value.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    config: Config,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to the Postgres (on a Unix socket) that `url` names.
    pub(crate) async fn start(url: &str) -> Self {
        let config: Config = url.parse().unwrap();
        let [Host::Unix(directory)] = config.get_hosts() else { panic!("a Unix socket is expected: {url}") };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            socket: directory.join(format!(".s.PGSQL.{port}")),
            way: watch::Sender::new(Way::Open),
            cuts: watch::Sender::new(0),
            struck: watch::Sender::new(None),
            trap: Mutex::default(),
            released: Notify::new(),
            late: watch::Sender::new(0),
            accepted: AtomicUsize::new(0),
            commits: AtomicUsize::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, config, shared, accepting }
    }

    /// The `DATABASE_URL` that leads through here.
    pub(crate) fn url(&self) -> String {
        let user = self.config.get_user().unwrap_or("postgres");
        let database = self.config.get_dbname().unwrap_or(user);
        format!("postgresql://{user}@{}/{database}?application_name=through-the-proxy&sslmode=disable", self.address)
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Cuts all connections, and lets nobody in until [`Proxy::open`].
    pub(crate) fn close(&self) {
        self.shared.way.send_replace(Way::Closed);
        self.cut();
    }

    /// Lets nothing more pass on the connections that are there, and tells nobody.
    pub(crate) fn stall(&self) {
        let before = self.shared.accepted.load(Ordering::SeqCst);
        self.shared.way.send_replace(Way::Stalled { before });
    }

    /// Lets everything pass again.
    pub(crate) fn open(&self) {
        self.shared.struck.send_replace(None);
        self.shared.way.send_replace(Way::Open);
    }

    /// Has the writer's next COMMIT cut its connection. The answer comes when that has happened.
    pub(crate) fn cut_at_commit(&self, cut: Cut) -> oneshot::Receiver<()> {
        self.trap(cut, false)
    }

    /// The same, and all other connections are cut then, and nobody is let in from then on until [`Proxy::open`].
    pub(crate) fn close_at_commit(&self, cut: Cut) -> oneshot::Receiver<()> {
        self.trap(cut, true)
    }

    fn trap(&self, cut: Cut, closes: bool) -> oneshot::Receiver<()> {
        let (struck, answer) = oneshot::channel();
        *self.shared.trap.lock().unwrap() = Some(Trap { cut, closes, struck });
        answer
    }

    /// Hands Postgres what was held back for [`Cut::Late`], and waits until it has dealt with that.
    pub(crate) async fn release(&self) {
        let mut late = self.shared.late.subscribe();
        late.mark_unchanged();
        self.shared.released.notify_one();
        late.changed().await.unwrap();
    }

    /// How many of the writer's commits have come by.
    pub(crate) fn commits(&self) -> usize {
        self.shared.commits.load(Ordering::SeqCst)
    }

    /// How many connections have come.
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
        // Before the way is looked at: a connection is either turned away or cut, whenever it is closed.
        let (mut cuts, mut struck) = (shared.cuts.subscribe(), shared.struck.subscribe());
        let another_is_struck = async move { drop(struck.wait_for(|one| one.is_some_and(|one| one != number)).await) };
        if *shared.way.borrow() == Way::Closed {
            continue;
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            tokio::select! {
                _ = cuts.changed() => {}
                () = another_is_struck => {}
                () = serve(client, number, &shared) => {}
            }
        });
    }
}

async fn serve(client: TcpStream, number: usize, shared: &Shared) {
    let _ = client.set_nodelay(true);
    // Postgres may be away.
    let Ok(postgres) = UnixStream::connect(&shared.socket).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_postgres, to_postgres) = postgres.into_split();
    // Set once the trap has struck here.
    let (silence, silenced) = watch::channel(None);
    let struck: Mutex<Option<oneshot::Sender<()>>> = Mutex::default();
    tokio::select! {
        () = upstream(from_client, to_postgres, number, shared, &silence, &struck) => {}
        () = downstream(from_postgres, to_client, number, shared, silenced) => {}
    }
    // Both sides were dropped above.
    if let Some(cue) = struck.into_inner().unwrap() {
        let _ = cue.send(());
    }
}

/// Waits while this connection is one through which nothing passes.
async fn pass(number: usize, shared: &Shared) {
    let mut way = shared.way.subscribe();
    let _ = way.wait_for(|way| !matches!(way, Way::Stalled { before } if number <= *before)).await;
}

async fn upstream(
    mut from: OwnedReadHalf,
    mut to: UnixWrite,
    number: usize,
    shared: &Shared,
    silence: &watch::Sender<Option<Silence>>,
    struck: &Mutex<Option<oneshot::Sender<()>>>,
) {
    let mut frames = Frames { buffer: Vec::new(), is_started: false };
    let mut follower = Follower::default();
    while frames.read(&mut from).await {
        pass(number, shared).await;
        let mut ready = Vec::new();
        while let Some(frame) = frames.next() {
            if follower.commits(&frame) {
                shared.commits.fetch_add(1, Ordering::SeqCst);
                let trap = shared.trap.lock().unwrap().take();
                if let Some(Trap { cut, closes, struck: cue }) = trap {
                    if closes {
                        shared.way.send_replace(Way::Closed);
                        shared.struck.send_replace(Some(number));
                    }
                    silence.send_replace(Some(Silence { asked: follower.asked, is_cut: cut == Cut::Late }));
                    if cut == Cut::Late {
                        // What was ready has not been sent either.
                        ready.extend(frame);
                        drop(from);
                        let _ = cue.send(());
                        shared.released.notified().await;
                        let _ = to.write_all(&ready).await;
                        return std::future::pending().await;
                    }
                    *struck.lock().unwrap() = Some(cue);
                    if cut == Cut::Before {
                        let _ = to.write_all(&ready).await;
                        return;
                    }
                    ready.extend(frame);
                    let _ = to.write_all(&ready).await;
                    if cut == Cut::After {
                        // The other direction ends both when it has seen that it is committed.
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

/// From when on nothing more is told to the client.
#[derive(Debug, Clone, Copy)]
struct Silence {
    /// When Postgres has given so many answers it has committed.
    asked: usize,
    /// Whether the client is to notice.
    is_cut: bool,
}

/// What a client has asked for, by its frames.
#[derive(Debug, Default)]
struct Follower {
    /// The name of the statement that is a transaction of its own.
    appending: Option<Vec<u8>>,
    is_in_transaction: bool,
    /// Whether that transaction is the writer's.
    is_writing: bool,
    /// Whether that statement has been given its parameters, so that the end of the message commits it.
    is_bound: bool,
    /// How many answers Postgres owes, the one to the connection's begin included.
    asked: usize,
}

impl Follower {
    /// Whether a frame commits what the writer has written.
    fn commits(&mut self, frame: &[u8]) -> bool {
        let body = frame.get(5..).unwrap_or_default();
        match frame.first() {
            Some(b'Q') => {
                self.asked += 1;
                let commits = body == b"commit\0" && self.is_writing;
                if body.starts_with(b"begin") {
                    self.is_in_transaction = true;
                    // Others have transactions, too.
                    self.is_writing = body.starts_with(b"begin isolation level read committed;");
                } else if body == b"commit\0" || body == b"rollback\0" {
                    self.is_in_transaction = false;
                }
                commits
            }
            Some(b'P') => {
                let mut parts = body.splitn(2, |byte| *byte == 0);
                let (name, text) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                if text.starts_with(APPENDING) {
                    self.appending = Some(name.to_vec());
                }
                false
            }
            Some(b'B') => {
                // The portal's name, then the statement's.
                let name = body.split(|byte| *byte == 0).nth(1);
                self.is_bound = name.is_some() && name == self.appending.as_deref() && !self.is_in_transaction;
                false
            }
            Some(b'S') => {
                self.asked += 1;
                std::mem::take(&mut self.is_bound)
            }
            // The connection's begin, whose frame has no type.
            Some(0) => {
                self.asked += 1;
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
    mut silenced: watch::Receiver<Option<Silence>>,
) {
    let mut frames = Frames { buffer: Vec::new(), is_started: true };
    let mut to = Some(to);
    let mut answered = 0;
    loop {
        tokio::select! {
            is_more = frames.read(&mut from) => if !is_more { return },
            Ok(()) = silenced.changed() => {}
        }
        pass(number, shared).await;
        let silence = *silenced.borrow();
        if silence.is_some_and(|silence| silence.is_cut) {
            to = None;
        }
        let mut ready = Vec::new();
        while let Some(frame) = frames.next() {
            answered += usize::from(frame.first() == Some(&b'Z'));
            match silence {
                Some(silence) if answered >= silence.asked => {
                    shared.late.send_modify(|late| *late += usize::from(silence.is_cut));
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

/// Messages of the protocol: a type, a length that counts itself, and the rest. A client's first has no type.
struct Frames {
    buffer: Vec<u8>,
    is_started: bool,
}

impl Frames {
    async fn read(&mut self, from: &mut (impl AsyncReadExt + Unpin)) -> bool {
        matches!(from.read_buf(&mut self.buffer).await, Ok(read) if read > 0)
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let kind = usize::from(self.is_started);
        let length = self.buffer.get(kind..kind + 4)?;
        let length = kind + u32::from_be_bytes(length.try_into().unwrap()) as usize;
        if self.buffer.len() < length {
            return None;
        }
        self.is_started = true;
        let rest = self.buffer.split_off(length);
        Some(std::mem::replace(&mut self.buffer, rest))
    }
}
