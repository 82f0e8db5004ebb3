//! One run of a schedule.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::gate::{Decision, Gate};
use crate::reader::Reader;
use crate::record::{Operation, Response, RunRecord};
use crate::replica_pair::ReplicaPair;
use crate::step::{Action, Actor, OLD_RIDE, Replica, Schedule, Step};

/// How long nothing must move until nothing more is expected. It is longer than the pause of a replica before a retry.
pub(crate) const IDLE_TIME: Duration = Duration::from_millis(80);

/// The shortest pause between two checks of a condition.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The maximum time for anything that must happen. It is longer than a replica's database timeout.
const TIMEOUT: Duration = Duration::from_secs(90);

/// The maximum time to wait for idle replicas while a message is held, because a replica may retry again and again.
const HELD_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the last message of a ride is sent, if the database is unavailable at first.
const MAX_ATTEMPTS: usize = 5;

/// The number of the first operation at the end of each run.
const FINAL_OPS: usize = 9_000;

/// A run and its state.
pub(crate) struct Run<'a> {
    pub(crate) replicas: &'a mut ReplicaPair,
    pub(crate) record: RunRecord,
    pub(crate) readers: BTreeMap<usize, Reader>,
    pub(crate) has_killed: bool,
    pub(crate) has_failed_over: bool,
    gates: HashMap<usize, (Replica, Arc<Gate>)>,
    /// The topic rows as a standby has them.
    pub(crate) detached_topics: HashMap<usize, String>,
    clock: Arc<AtomicU64>,
    pub(crate) tokens: HashMap<Actor, String>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(replicas: &'a mut ReplicaPair, prefix: String) -> Self {
        Self {
            replicas,
            record: RunRecord { prefix, ..RunRecord::default() },
            readers: BTreeMap::new(),
            has_killed: false,
            has_failed_over: false,
            gates: HashMap::new(),
            detached_topics: HashMap::new(),
            clock: Arc::default(),
            tokens: HashMap::new(),
        }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Creates the rides of a schedule.
    pub(crate) async fn prepare(&mut self, schedule: &Schedule) {
        let rides = schedule.0.iter().filter_map(|step| match step {
            Step::Start { ride, .. } => Some(*ride),
            Step::OpenStream { ride, .. } => *ride,
            _ => None,
        });
        self.record.rides = rides.collect();
        for ride in self.record.rides.clone() {
            let (body, path) = (self.put(Actor::FirstDriver), format!("rides/{}", self.record.ride(ride)));
            let request = self.request(Actor::Service, Replica::A, Method::PUT, &path).unwrap().json(&body);
            assert_eq!(request.send().await.unwrap().status(), 201);
            if ride == OLD_RIDE {
                self.expire(ride).await;
            }
        }
        self.settle().await;
    }

    pub(crate) async fn step(&mut self, step: &Step) {
        match *step {
            Step::OpenStream { reader, actor, ride, at } => self.read(reader, actor, ride, at, None).await,
            Step::Resume { reader, at } => {
                if let Some(before) = self.readers.remove(&reader) {
                    if self.replicas.base(at).is_some() {
                        self.read(reader, before.actor, before.ride, at, Some(before)).await;
                    } else {
                        self.readers.insert(reader, before);
                    }
                }
            }
            Step::Start { op, action, ride, at } => self.start(op, action, ride, at).await,
            Step::Wait { op } => self.wait(op).await,
            Step::AddGate { gate, at, kind, direction, nth } => {
                self.gates.insert(gate, (at, self.replicas.proxy(at).add_gate(kind, direction, nth)));
            }
            Step::Reach { gate } => self.reach(gate).await,
            Step::Release { gate } => self.decide(gate, Decision::Release).await,
            Step::Cut { gate } => self.decide(gate, Decision::Cut).await,
            Step::DeliverLate { gate } => self.decide(gate, Decision::DeliverLate).await,
            Step::FallbackPoll { at } => {
                let polled = self.replicas.poll_now(at);
                drop(tokio::time::timeout(IDLE_TIME * 2, polled).await);
                self.settle().await;
            }
            Step::Kill { at } => {
                self.has_killed = true;
                self.replicas.kill(at).await;
                self.settle().await;
            }
            Step::Restart { at } => {
                self.replicas.start(at).await;
                self.settle().await;
            }
            Step::DetachStandby { ride } => self.detach_standby(ride).await,
            Step::FailOver { ride } => self.fail_over(ride).await,
            Step::Retain { at } => {
                let work = self.replicas.retain(at);
                if let Some(work) = work {
                    self.wait_until(IDLE_TIME, |_| work.is_finished()).await;
                }
            }
        }
    }

    async fn read(&mut self, number: usize, actor: Actor, ride: Option<usize>, at: Replica, before: Option<Reader>) {
        let path = match ride {
            Some(ride) => format!("messages/rides/{}/events", self.record.ride(ride)),
            None => "events".to_owned(),
        };
        if self.replicas.base(at).is_none() {
            return;
        }
        let request = |after: Option<&str>| {
            let after = after.map(|after| format!("?after={after}")).unwrap_or_default();
            self.request(actor, at, Method::GET, &format!("{path}{after}")).unwrap()
        };
        let reader = Reader::open((actor, ride), request, before);
        self.readers.insert(number, reader);
        self.wait_until(IDLE_TIME, |run| run.readers.get(&number).is_none_or(Reader::is_open)).await;
        self.settle().await;
    }

    async fn start(&mut self, op: usize, action: Action, ride: usize, at: Replica) {
        let content = format!("{}says {op}.", self.record.prefix);
        let mut operation = Operation::new(action, ride, content, self.tick());
        if matches!(action, Action::Locate { .. } | Action::Type { .. }) {
            operation.head_before = self.head(ride).await;
        }
        if let Some(request) = self.operation(op, &mut operation, at).await {
            let (response, clock) = (Arc::clone(&operation.response), Arc::clone(&self.clock));
            tokio::spawn(async move {
                let (status, body) = match request.send().await {
                    Ok(response) => {
                        let status = response.status().as_u16();
                        let body = response.bytes().await.ok();
                        let body = body.map(|body| serde_json::from_slice(&body).unwrap_or_default());
                        // A response that was cut off counts as none.
                        (body.as_ref().map(|_| status), body.unwrap_or_default())
                    }
                    Err(_) => (None, Value::Null),
                };
                let at = clock.fetch_add(1, Ordering::SeqCst);
                *response.lock().unwrap() = Some(Response { status, body, at });
            });
            self.record.operations.insert(op, operation);
        }
        sleep(Duration::from_millis(1)).await;
    }

    async fn head(&self, ride: usize) -> i64 {
        let head = "select last_seq from topics where name = 'ride/' || $1";
        let row = self.replicas.client.query_opt(head, &[&self.record.ride(ride)]).await.unwrap();
        row.map_or(0, |row| row.get(0))
    }

    async fn wait(&mut self, op: usize) {
        self.wait_until(IDLE_TIME, |run| run.record.operations.get(&op).is_none_or(Operation::is_done)).await;
        let is_about_values = |action| matches!(action, Action::Locate { .. } | Action::Type { .. });
        if let Some(operation) =
            self.record.operations.get(&op).filter(|operation| operation.is_done() && is_about_values(operation.action))
        {
            let head = self.head(operation.ride).await;
            if let Some(operation) = self.record.operations.get_mut(&op) {
                operation.head_after = Some(head);
            }
            // The notifier combines values for a few milliseconds before it sends them.
            sleep(Duration::from_millis(6)).await;
        }
        self.settle().await;
    }

    async fn reach(&mut self, gate: usize) {
        let Some((_, gate)) = self.gates.get(&gate).map(|(at, gate)| (*at, Arc::clone(gate))) else { return };
        // After all responses have arrived, the only remaining activity is that the other replica reads.
        let is_busy = self.record.operations.values().any(|operation| !operation.is_done());
        self.wait_until(if is_busy { IDLE_TIME } else { IDLE_TIME / 10 }, |_| gate.is_holding()).await;
    }

    async fn decide(&mut self, gate: usize, decision: Decision) {
        let Some((_, gate)) = self.gates.get(&gate) else { return };
        gate.decide(decision);
        self.settle().await;
    }

    fn deadline(&self) -> Instant {
        let is_holding = self.gates.values().any(|(_, gate)| gate.is_holding());
        Instant::now() + if is_holding { HELD_TIMEOUT } else { TIMEOUT }
    }

    /// Waits until a condition is true, or nothing has moved for `idle_time`.
    async fn wait_until(&self, idle_time: Duration, condition: impl Fn(&Self) -> bool) {
        let deadline = self.deadline();
        let mut idle_since = None;
        let mut before = None;
        while !condition(self) && Instant::now() < deadline {
            // The longer the wait, the longer the pauses, so that the checks do not dominate.
            sleep(idle_since.map_or(MIN_POLL_INTERVAL, |since: Instant| (since.elapsed() / 3).max(MIN_POLL_INTERVAL)))
                .await;
            let now = self.activity();
            if before != Some(now) || !self.is_idle().await {
                idle_since = None;
            } else if idle_since.get_or_insert_with(Instant::now).elapsed() >= idle_time {
                return;
            }
            before = Some(now);
        }
    }

    /// Waits until nothing moves.
    pub(crate) async fn settle(&self) {
        let deadline = self.deadline();
        let (mut before, mut times) = (None, 0);
        let mut missing_hints = 0;
        while times < 2 && Instant::now() < deadline {
            sleep(MIN_POLL_INTERVAL).await;
            let now = self.activity();
            let is_idle = before == Some(now) && self.is_idle().await;
            let has_hints = Replica::BOTH.iter().any(|at| self.replicas.proxy(*at).traffic().has_hints);
            missing_hints = if is_idle && has_hints { missing_hints + 1 } else { 0 };
            if missing_hints > 50 {
                Replica::BOTH.iter().for_each(|at| self.replicas.proxy(*at).ignore_missing_hints());
            }
            times = if is_idle && !has_hints { times + 1 } else { 0 };
            before = Some(now);
        }
    }

    /// Returns counters that change when anything moves.
    fn activity(&self) -> (usize, usize, u64) {
        let activity = Replica::BOTH.map(|at| self.replicas.proxy(at).traffic().activity);
        let items = self.readers.values().map(Reader::count).sum();
        (activity[0] + activity[1], items, self.clock.load(Ordering::SeqCst))
    }

    /// Whether nothing happens now: the replicas are asleep, and Postgres has responded to all requests except those that wait for locks.
    async fn is_idle(&self) -> bool {
        if !self.replicas.is_asleep() {
            return false;
        }
        let pending: usize = Replica::BOTH.iter().map(|at| self.replicas.proxy(*at).traffic().pending).sum();
        pending == 0 || self.replicas.waiting_for_locks().await == pending
    }

    async fn until_done(&self, op: usize) -> Result<(), String> {
        let deadline = Instant::now() + TIMEOUT;
        while !self.record.operations[&op].is_done() {
            if Instant::now() > deadline {
                return Err(format!("operation {op} does not complete"));
            }
            sleep(MIN_POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Opens the chat of a ride without a driver: assigns a driver, or reopens the ride if it has ended.
    async fn open(&mut self, ride: usize, at: Replica) -> Result<(), String> {
        let query = "select accepted, ended_at is not null from rides where ride_id = $1";
        let op = FINAL_OPS + 100 + ride;
        for _ in 0..MAX_ATTEMPTS {
            let row = self.replicas.client.query_opt(query, &[&self.record.ride(ride)]).await.unwrap();
            let Some((false, has_ended)) = row.map(|row| (row.get(0), row.get::<_, bool>(1))) else { return Ok(()) };
            let action = if has_ended { Action::Reopen } else { Action::Assign { driver: Actor::SecondDriver } };
            self.start(op, action, ride, at).await;
            self.until_done(op).await?;
            self.settle().await;
        }
        Err(format!("the chat of ride {ride} does not open: {:?}", self.record.operations[&op].response()))
    }

    /// Releases all gates, waits for all operations, and appends a last event to each log that every reader must receive.
    pub(crate) async fn finish(&mut self) -> Result<(), String> {
        Replica::BOTH.iter().for_each(|at| self.replicas.proxy(*at).release_all());
        self.gates.clear();
        let operations: Vec<_> = self.record.operations.keys().copied().collect();
        for op in operations {
            self.until_done(op).await?;
        }
        for at in Replica::BOTH {
            self.replicas.start(at).await;
        }
        self.settle().await;
        for ride in self.record.rides.clone().into_iter().filter(|ride| *ride != OLD_RIDE) {
            let (op, at) = (FINAL_OPS + ride, Replica::BOTH[ride % 2]);
            self.open(ride, at).await?;
            for _ in 0..MAX_ATTEMPTS {
                self.start(op, Action::Send { actor: Actor::Support, named: true }, ride, at).await;
                self.until_done(op).await?;
                if self.record.operations[&op].is_acknowledged() {
                    break;
                }
                self.settle().await;
            }
            if !self.record.operations[&op].is_acknowledged() {
                return Err(format!("the last message returned {:?}", self.record.operations[&op].response()));
            }
        }
        let users: Vec<_> = Actor::READERS.iter().map(|actor| self.record.user(*actor)).collect();
        let body = json!({"userIds": users, "type": "end", "data": {}});
        let request = self.request(Actor::Service, Replica::A, Method::POST, "broadcasts").unwrap().json(&body);
        let status = request.send().await.map(|response| response.status().as_u16());
        if status.as_ref().ok() != Some(&202) {
            return Err(format!("a broadcast returned {status:?}"));
        }
        for at in Replica::BOTH {
            if !self.replicas.poll_now(at).await {
                return Err("the fallback poll fails".to_owned());
            }
        }
        self.settle().await;
        Ok(())
    }
}
