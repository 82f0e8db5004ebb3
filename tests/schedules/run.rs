//! One run of a schedule.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::gate::{Gate, Verdict};
use crate::lane::Lane;
use crate::reader::Reader;
use crate::step::{OLD_RIDE, Replica, Schedule, Step, What, Who};
use crate::told::{Answer, Operation, Told};

/// For how long everything has to stand still until nothing more is expected to happen: longer than the pauses that a
/// replica makes before it tries again.
pub(crate) const STANDSTILL: Duration = Duration::from_millis(80);

/// Between two looks.
const FIRST: Duration = Duration::from_millis(1);

/// How long anything may take that has to happen: longer than a replica waits for its database.
const PATIENCE: Duration = Duration::from_secs(90);

/// For how long a replica is watched that does not stand still while a message is held: it may try again and again.
const RESTLESS: Duration = Duration::from_secs(1);

/// How often the message that ends a ride's log is sent again, where the database could not be reached at first.
const TRIES: usize = 5;

/// The operations that end each run: their numbers begin here.
const LAST_OPS: usize = 9_000;

/// A run, and what has happened in it.
pub(crate) struct Run<'a> {
    pub(crate) lane: &'a mut Lane,
    pub(crate) told: Told,
    pub(crate) readers: BTreeMap<usize, Reader>,
    pub(crate) has_killed: bool,
    pub(crate) has_failed_over: bool,
    gates: HashMap<usize, (Replica, Arc<Gate>)>,
    /// Topics as a standby has them.
    pub(crate) lags: HashMap<usize, String>,
    clock: Arc<AtomicU64>,
    pub(crate) tokens: HashMap<Who, String>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(lane: &'a mut Lane, prefix: String) -> Self {
        Self {
            lane,
            told: Told { prefix, ..Told::default() },
            readers: BTreeMap::new(),
            has_killed: false,
            has_failed_over: false,
            gates: HashMap::new(),
            lags: HashMap::new(),
            clock: Arc::default(),
            tokens: HashMap::new(),
        }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Makes the rides that a schedule is about.
    pub(crate) async fn prepare(&mut self, schedule: &Schedule) {
        let rides = schedule.0.iter().filter_map(|step| match step {
            Step::Start { ride, .. } => Some(*ride),
            Step::Read { ride, .. } => *ride,
            _ => None,
        });
        self.told.rides = rides.collect();
        for ride in self.told.rides.clone() {
            let (body, path) = (self.put(Who::Old), format!("rides/{}", self.told.ride(ride)));
            let request = self.request(Who::Service, Replica::A, Method::PUT, &path).unwrap().json(&body);
            assert_eq!(request.send().await.unwrap().status(), 201);
            if ride == OLD_RIDE {
                self.age(ride).await;
            }
        }
        self.settle().await;
    }

    pub(crate) async fn step(&mut self, step: &Step) {
        match *step {
            Step::Read { reader, who, ride, at } => self.read(reader, who, ride, at, None).await,
            Step::Resume { reader, at } => {
                if let Some(before) = self.readers.remove(&reader) {
                    if self.lane.base(at).is_some() {
                        self.read(reader, before.who, before.ride, at, Some(before)).await;
                    } else {
                        self.readers.insert(reader, before);
                    }
                }
            }
            Step::Start { op, what, ride, at } => self.start(op, what, ride, at).await,
            Step::Wait { op } => self.wait(op).await,
            Step::Hold { gate, at, point, side, nth } => {
                self.gates.insert(gate, (at, self.lane.proxy(at).hold(point, side, nth)));
            }
            Step::Reach { gate } => self.reach(gate).await,
            Step::Release { gate } => self.decide(gate, Verdict::Release).await,
            Step::Cut { gate } => self.decide(gate, Verdict::Cut).await,
            Step::Late { gate } => self.decide(gate, Verdict::Late).await,
            Step::Look { at } => {
                let looked = self.lane.look(at);
                drop(tokio::time::timeout(STANDSTILL * 2, looked).await);
                self.settle().await;
            }
            Step::Kill { at } => {
                self.has_killed = true;
                self.lane.kill(at).await;
                self.settle().await;
            }
            Step::Restart { at } => {
                self.lane.start(at).await;
                self.settle().await;
            }
            Step::Lag { ride } => self.lag(ride).await,
            Step::FailOver { ride } => self.fail_over(ride).await,
            Step::Retain { at } => {
                let work = self.lane.retain(at);
                if let Some(work) = work {
                    self.until(STANDSTILL, |_| work.is_finished()).await;
                }
            }
        }
    }

    async fn read(&mut self, number: usize, who: Who, ride: Option<usize>, at: Replica, before: Option<Reader>) {
        let path = match ride {
            Some(ride) => format!("messages/rides/{}/events", self.told.ride(ride)),
            None => "events".to_owned(),
        };
        if self.lane.base(at).is_none() {
            return;
        }
        let request = |after: Option<&str>| {
            let after = after.map(|after| format!("?after={after}")).unwrap_or_default();
            self.request(who, at, Method::GET, &format!("{path}{after}")).unwrap()
        };
        let reader = Reader::open((who, ride), request, before);
        self.readers.insert(number, reader);
        self.until(STANDSTILL, |run| run.readers.get(&number).is_none_or(Reader::is_open)).await;
        self.settle().await;
    }

    async fn start(&mut self, op: usize, what: What, ride: usize, at: Replica) {
        let content = format!("{}says {op}.", self.told.prefix);
        let mut operation = Operation::new(what, ride, content, self.tick());
        if matches!(what, What::Locate { .. } | What::Type { .. }) {
            operation.head_before = self.head(ride).await;
        }
        if let Some(request) = self.operation(op, &mut operation, at).await {
            let (answer, clock) = (Arc::clone(&operation.answer), Arc::clone(&self.clock));
            tokio::spawn(async move {
                let (status, body) = match request.send().await {
                    Ok(response) => {
                        let status = response.status().as_u16();
                        let body = response.bytes().await.ok();
                        let body = body.map(|body| serde_json::from_slice(&body).unwrap_or_default());
                        // One that was cut off says nothing.
                        (body.as_ref().map(|_| status), body.unwrap_or_default())
                    }
                    Err(_) => (None, Value::Null),
                };
                let at = clock.fetch_add(1, Ordering::SeqCst);
                *answer.lock().unwrap() = Some(Answer { status, body, at });
            });
            self.told.operations.insert(op, operation);
        }
        sleep(Duration::from_millis(1)).await;
    }

    async fn head(&self, ride: usize) -> i64 {
        let head = "select last_seq from topics where name = 'ride/' || $1";
        let row = self.lane.client.query_opt(head, &[&self.told.ride(ride)]).await.unwrap();
        row.map_or(0, |row| row.get(0))
    }

    async fn wait(&mut self, op: usize) {
        self.until(STANDSTILL, |run| run.told.operations.get(&op).is_none_or(Operation::is_done)).await;
        let is_about_values = |what| matches!(what, What::Locate { .. } | What::Type { .. });
        if let Some(operation) = self.told.operations.get(&op).filter(|one| one.is_done() && is_about_values(one.what))
        {
            let head = self.head(operation.ride).await;
            if let Some(operation) = self.told.operations.get_mut(&op) {
                operation.head_after = Some(head);
            }
            // Values gather for a moment before they are sent.
            sleep(Duration::from_millis(6)).await;
        }
        self.settle().await;
    }

    async fn reach(&mut self, gate: usize) {
        let Some((_, gate)) = self.gates.get(&gate).map(|(at, gate)| (*at, Arc::clone(gate))) else { return };
        // Where all has been answered, what is still under way is no more than what the other replica reads.
        let busy = self.told.operations.values().any(|operation| !operation.is_done());
        self.until(if busy { STANDSTILL } else { STANDSTILL / 10 }, |_| gate.holds()).await;
    }

    async fn decide(&mut self, gate: usize, verdict: Verdict) {
        let Some((_, gate)) = self.gates.get(&gate) else { return };
        gate.decide(verdict);
        self.settle().await;
    }

    fn deadline(&self) -> Instant {
        let is_holding = self.gates.values().any(|(_, gate)| gate.holds());
        Instant::now() + if is_holding { RESTLESS } else { PATIENCE }
    }

    /// Waits until something is so, or nothing has moved for a while.
    async fn until(&self, standstill: Duration, is_so: impl Fn(&Self) -> bool) {
        let deadline = self.deadline();
        let mut still_since = None;
        let mut before = None;
        while !is_so(self) && Instant::now() < deadline {
            // It is not asked more often than it takes, the longer it lasts.
            sleep(still_since.map_or(FIRST, |since: Instant| (since.elapsed() / 3).max(FIRST))).await;
            let now = self.moves();
            if before != Some(now) || !self.is_still().await {
                still_since = None;
            } else if still_since.get_or_insert_with(Instant::now).elapsed() >= standstill {
                return;
            }
            before = Some(now);
        }
    }

    /// Waits until nothing moves.
    pub(crate) async fn settle(&self) {
        let deadline = self.deadline();
        let (mut before, mut times) = (None, 0);
        let mut misses_hints = 0;
        while times < 2 && Instant::now() < deadline {
            sleep(FIRST).await;
            let now = self.moves();
            let still = before == Some(now) && self.is_still().await;
            let has_hints = Replica::BOTH.iter().any(|at| self.lane.proxy(*at).traffic().has_hints);
            misses_hints = if still && has_hints { misses_hints + 1 } else { 0 };
            if misses_hints > 50 {
                Replica::BOTH.iter().for_each(|at| self.lane.proxy(*at).forgive_hints());
            }
            times = if still && !has_hints { times + 1 } else { 0 };
            before = Some(now);
        }
    }

    /// Counts everything that moves.
    fn moves(&self) -> (usize, usize, u64) {
        let moves = Replica::BOTH.map(|at| self.lane.proxy(at).traffic().moves);
        let items = self.readers.values().map(Reader::count).sum();
        (moves[0] + moves[1], items, self.clock.load(Ordering::SeqCst))
    }

    /// Whether nothing happens now: the replicas sleep, and Postgres has answered all but those who wait for locks.
    async fn is_still(&self) -> bool {
        if !self.lane.sleeps() {
            return false;
        }
        let asked: usize = Replica::BOTH.iter().map(|at| self.lane.proxy(*at).traffic().asked).sum();
        asked == 0 || self.lane.waiting_for_locks().await == asked
    }

    async fn until_done(&self, op: usize) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while !self.told.operations[&op].is_done() {
            if Instant::now() > deadline {
                return Err(format!("operation {op} does not end"));
            }
            sleep(FIRST).await;
        }
        Ok(())
    }

    /// Opens the chat of a ride whose driver was removed: gives it another driver, or reopens it where it has ended.
    async fn open(&mut self, ride: usize, at: Replica) -> Result<(), String> {
        let query = "select accepted, ended_at is not null from rides where ride_id = $1";
        let op = LAST_OPS + 100 + ride;
        for _ in 0..TRIES {
            let row = self.lane.client.query_opt(query, &[&self.told.ride(ride)]).await.unwrap();
            let Some((false, has_ended)) = row.map(|row| (row.get(0), row.get::<_, bool>(1))) else { return Ok(()) };
            let what = if has_ended { What::Reopen } else { What::Assign { driver: Who::New } };
            self.start(op, what, ride, at).await;
            self.until_done(op).await?;
            self.settle().await;
        }
        Err(format!("the chat of ride {ride} does not open: {:?}", self.told.operations[&op].answer()))
    }

    /// Lets everything go on to its end, and ends each log with something that everybody is sent.
    pub(crate) async fn finish(&mut self) -> Result<(), String> {
        Replica::BOTH.iter().for_each(|at| self.lane.proxy(*at).release_all());
        self.gates.clear();
        let operations: Vec<_> = self.told.operations.keys().copied().collect();
        for op in operations {
            self.until_done(op).await?;
        }
        for at in Replica::BOTH {
            self.lane.start(at).await;
        }
        self.settle().await;
        for ride in self.told.rides.clone().into_iter().filter(|ride| *ride != OLD_RIDE) {
            let (op, at) = (LAST_OPS + ride, Replica::BOTH[ride % 2]);
            self.open(ride, at).await?;
            for _ in 0..TRIES {
                self.start(op, What::Send { who: Who::Support, named: true }, ride, at).await;
                self.until_done(op).await?;
                if self.told.operations[&op].is_acknowledged() {
                    break;
                }
                self.settle().await;
            }
            if !self.told.operations[&op].is_acknowledged() {
                return Err(format!("the last message is answered {:?}", self.told.operations[&op].answer()));
            }
        }
        let users: Vec<_> = Who::READERS.iter().map(|who| self.told.user(*who)).collect();
        let body = json!({"userIds": users, "type": "end", "data": {}});
        let request = self.request(Who::Service, Replica::A, Method::POST, "broadcasts").unwrap().json(&body);
        let status = request.send().await.map(|answer| answer.status().as_u16());
        if status.as_ref().ok() != Some(&202) {
            return Err(format!("a broadcast is answered {status:?}"));
        }
        for at in Replica::BOTH {
            if !self.lane.look(at).await {
                return Err("the fallback poll fails".to_owned());
            }
        }
        self.settle().await;
        Ok(())
    }
}
