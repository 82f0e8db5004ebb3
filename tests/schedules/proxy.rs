//! Between a replica and its Postgres: each message can be held, and let go of or lost, one by one.
//!
//! A connection's requests keep their order, as do its responses: what follows a message that is held waits as well. Each
//! connection is one of a replica's pool, or its listener's.

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

use crate::gate::{Gate, Side, Verdict};
use crate::label::{Labeller, Point, Request};
use crate::support::Frames;

/// Counts the notifications of a database that its proxies have seen being sent.
pub(crate) type Sent = Arc<AtomicUsize>;

#[derive(Debug)]
struct Shared {
    socket: PathBuf,
    sent: Sent,
    state: Mutex<State>,
    /// Raised to cut all connections.
    cuts: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    gates: Vec<Arc<Gate>>,
    connections: HashMap<usize, Connection>,
    accepted: usize,
    /// Counts everything that moves.
    moves: usize,
}

#[derive(Debug, Default)]
struct Connection {
    /// Requests that Postgres has and has not answered.
    asked: VecDeque<Request>,
    /// Of a listener: how many notifications had been sent when it began, and how many it was sent since.
    hears: Option<(usize, usize)>,
    /// Whether its responses are held.
    is_held: bool,
    /// Whether the replica has gone, and Postgres still is at what it was asked.
    is_leaving: bool,
}

/// What moves through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Counts everything that has moved.
    pub(crate) moves: usize,
    /// How many connections Postgres owes an answer, or an end.
    pub(crate) asked: usize,
    /// Whether a notification was sent that has not come by.
    pub(crate) has_hints: bool,
}

/// The proxy of one replica. It ends with its value.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    config: Config,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to the Postgres (on a Unix socket) that `url` names.
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

    /// The `DATABASE_URL` that leads through here.
    pub(crate) fn url(&self) -> String {
        let user = self.config.get_user().unwrap_or("postgres");
        let database = self.config.get_dbname().unwrap_or(user);
        format!("postgresql://{user}@{}/{database}?sslmode=disable", self.address)
    }

    /// Puts up a gate.
    pub(crate) fn hold(&self, point: Point, side: Side, nth: usize) -> Arc<Gate> {
        let gate = Arc::new(Gate::new(point, side, nth));
        self.shared.state().gates.push(Arc::clone(&gate));
        gate
    }

    /// Takes down all gates: what they hold goes on.
    pub(crate) fn release_all(&self) {
        self.shared.state().gates.drain(..).for_each(|gate| gate.decide(Verdict::Release));
    }

    /// Cuts all connections, with all that they hold.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// What moves.
    pub(crate) fn traffic(&self) -> Traffic {
        let sent = self.shared.sent.load(Ordering::SeqCst);
        let state = self.shared.state();
        let asked = |one: &&Connection| (one.is_leaving || !one.asked.is_empty()) && !one.is_held;
        let misses = |one: &Connection| one.hears.is_some_and(|(base, heard)| base + heard < sent) && !one.is_held;
        Traffic {
            moves: state.moves,
            asked: state.connections.values().filter(asked).count(),
            has_hints: state.connections.values().any(misses),
        }
    }

    /// Takes what was sent until now for heard: Postgres joins equal notifications of one transaction.
    pub(crate) fn forgive_hints(&self) {
        let sent = self.shared.sent.load(Ordering::SeqCst);
        let mut state = self.shared.state();
        for (base, heard) in state.connections.values_mut().filter_map(|one| one.hears.as_mut()) {
            *base = sent.saturating_sub(*heard);
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

    /// The gate that catches a message, if one does.
    fn caught(&self, point: Option<Point>, side: Side) -> Option<Arc<Gate>> {
        let mut state = self.state();
        state.moves += 1;
        let point = point?;
        let caught = state.gates.iter().position(|gate| gate.catches(point, side))?;
        Some(state.gates[caught].clone())
    }

    fn update(&self, number: usize, update: impl FnOnce(&mut Connection)) {
        let mut state = self.state();
        state.moves += 1;
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
            state.moves += 1;
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

    /// Postgres gets all that was let through, and then the end.
    async fn upstream(&self, mut from: OwnedReadHalf, mut to: UnixWrite) {
        self.forward(&mut from, &mut to).await;
        self.shared.update(self.number, |one| one.is_leaving = true);
        drop(from);
        let _ = to.shutdown().await;
    }

    async fn forward(&self, from: &mut OwnedReadHalf, to: &mut UnixWrite) {
        let mut cut = self.cut.subscribe();
        let mut frames = Frames::of_client();
        let mut labeller = Labeller::default();
        let (mut request, mut ready) = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                is_more = frames.read(from) => if !is_more { return },
                _ = cut.wait_for(|cut| *cut) => return,
            }
            while let Some(frame) = frames.next() {
                request.extend(&frame);
                let Some(done) = labeller.take(&frame) else { continue };
                if let Some(gate) = self.shared.caught(done.point, Side::Request) {
                    if to.write_all(&std::mem::take(&mut ready)).await.is_err() {
                        return;
                    }
                    match gate.verdict().await {
                        Verdict::Release | Verdict::Hold => {}
                        Verdict::Cut => {
                            self.cut.send_replace(true);
                            return;
                        }
                        Verdict::Late => {
                            self.cut.send_replace(true);
                            if gate.arrives().await {
                                self.shared.update(self.number, |one| one.asked.push_back(done));
                                let _ = to.write_all(&request).await;
                            }
                            return;
                        }
                    }
                }
                self.shared.update(self.number, |one| one.asked.push_back(done));
                ready.append(&mut request);
            }
            // What is no request yet (a Flush, or the end of the connection) goes as it comes.
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
                let kind = frame.first().copied();
                response.extend(frame);
                let is_response = kind == Some(b'Z');
                rows += usize::from(kind == Some(b'D'));
                // Notifications come between responses.
                let is_hint = kind == Some(b'A') && response.len() < 8_192 && rows == 0;
                if !is_response && !is_hint {
                    continue;
                }
                let point = if is_response { self.answered(std::mem::take(&mut rows)) } else { self.heard() };
                if !self.is_let_through(point, to.is_some()).await {
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
        // The last words of a session that was ended.
        self.write(&mut to, &response).await;
        self.cut.send_replace(true);
    }

    async fn is_let_through(&self, point: Option<Point>, has_client: bool) -> bool {
        let Some(gate) = self.shared.caught(point, Side::Response) else { return true };
        self.shared.update(self.number, |one| one.is_held = true);
        let verdict = if has_client { gate.verdict().await } else { Verdict::Release };
        self.shared.update(self.number, |one| one.is_held = false);
        verdict == Verdict::Release
    }

    /// The replica may be gone; then Postgres is listened to all the same.
    async fn write(&self, to: &mut Option<OwnedWriteHalf>, bytes: &[u8]) {
        if let Some(client) = to.as_mut()
            && !bytes.is_empty()
            && client.write_all(bytes).await.is_err()
        {
            *to = None;
        }
    }

    /// Notes that a request was answered, and says which.
    fn answered(&self, rows: usize) -> Option<Point> {
        let mut point = None;
        self.shared.update(self.number, |one| {
            let Some(request) = one.asked.pop_front() else { return };
            point = request.point;
            if request.point == Some(Point::Notify) {
                self.shared.sent.fetch_add(rows, Ordering::SeqCst);
            }
            if request.listens {
                one.hears.get_or_insert((self.shared.sent.load(Ordering::SeqCst), 0));
            }
        });
        point
    }

    fn heard(&self) -> Option<Point> {
        self.shared.update(self.number, |one| one.hears.iter_mut().for_each(|(_, heard)| *heard += 1));
        Some(Point::Hint)
    }

    /// Loses the notifications that have come while one was held, with it.
    fn lose_hints(&self, frames: &mut Frames, from: &mut UnixRead) {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(read) = from.try_read(&mut bytes)
            && read > 0
        {
            frames.push(&bytes[..read]);
        }
        while frames.next().is_some() {
            self.heard();
        }
    }
}
