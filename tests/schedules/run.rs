//! One run of a schedule.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Method;
use ridewire::auth::Signer;
use ridewire::domain::{Role, UserId};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::gate::{Gate, Verdict};
use crate::lane::Lane;
use crate::reader::Reader;
use crate::step::{OLD_RIDE, Replica, Schedule, Step, What, Who};
use crate::support::SECRET;

/// For how long everything has to stand still until nothing more is expected to happen: longer than the pauses that a
/// replica makes before it tries again.
const STANDSTILL: Duration = Duration::from_millis(80);

/// Between two looks.
const FIRST: Duration = Duration::from_millis(1);

/// How long anything may take that has to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// The operations that end each run: their numbers begin here.
const LAST_OPS: usize = 9_000;

/// What a replica has answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// `None`: the connection was lost.
    pub(crate) status: Option<u16>,
    pub(crate) body: Value,
    /// When it came.
    pub(crate) at: u64,
}

/// An operation.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) what: What,
    pub(crate) ride: usize,
    /// Whether a failover has lost what it did.
    pub(crate) is_lost: bool,
    /// What it says, where it says something.
    pub(crate) content: String,
    /// The message that it is about.
    pub(crate) message: Option<String>,
    /// When it began.
    pub(crate) began: u64,
    /// Where the ride's log ended before, and ends after it, where that matters.
    pub(crate) head_before: i64,
    pub(crate) head_after: Option<i64>,
    answer: Arc<Mutex<Option<Answer>>>,
}

impl Operation {
    pub(crate) fn answer(&self) -> Option<Answer> {
        self.answer.lock().unwrap().clone()
    }

    pub(crate) fn status(&self) -> Option<u16> {
        self.answer()?.status
    }

    pub(crate) fn is_done(&self) -> bool {
        self.answer.lock().unwrap().is_some()
    }

    /// Whether it was acknowledged.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.status().is_some_and(|status| status < 300)
    }
}

/// What has happened, for the checker.
pub(crate) struct Run<'a> {
    pub(crate) lane: &'a mut Lane,
    /// Before the ids of this run.
    pub(crate) prefix: String,
    pub(crate) operations: BTreeMap<usize, Operation>,
    pub(crate) readers: BTreeMap<usize, Reader>,
    pub(crate) rides: BTreeSet<usize>,
    pub(crate) has_killed: bool,
    pub(crate) has_failed_over: bool,
    gates: HashMap<usize, (Replica, Arc<Gate>)>,
    /// Topics as a standby has them.
    lags: HashMap<usize, String>,
    clock: Arc<AtomicU64>,
    tokens: HashMap<Who, String>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(lane: &'a mut Lane, prefix: String) -> Self {
        Self {
            lane,
            prefix,
            operations: BTreeMap::new(),
            readers: BTreeMap::new(),
            rides: BTreeSet::new(),
            has_killed: false,
            has_failed_over: false,
            gates: HashMap::new(),
            lags: HashMap::new(),
            clock: Arc::default(),
            tokens: HashMap::new(),
        }
    }

    pub(crate) fn user(&self, who: Who) -> String {
        format!("{}{}", self.prefix, who.name())
    }

    pub(crate) fn ride(&self, ride: usize) -> String {
        format!("{}ride{ride}", self.prefix)
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// A request below `/api/v1`, if the replica runs.
    pub(crate) fn request(&mut self, who: Who, at: Replica, method: Method, path: &str) -> Option<reqwest::RequestBuilder> {
        let base = self.lane.base(at)?;
        let request = self.lane.http.request(method, format!("{base}/api/v1/{path}"));
        let name = self.user(who);
        let token = self.tokens.entry(who).or_insert_with(|| {
            let role = match who {
                Who::Rider => Role::Rider,
                Who::Old | Who::New => Role::Driver,
                Who::Support => Role::Support,
                Who::Service => Role::Service,
            };
            let signer = Signer::new(SECRET.as_bytes()).unwrap();
            signer.sign(&UserId::parse(&name).unwrap(), role, Duration::from_secs(3_600)).unwrap()
        });
        Some(request.bearer_auth(token))
    }

    /// Makes the rides that a schedule is about.
    pub(crate) async fn prepare(&mut self, schedule: &Schedule) {
        let rides = schedule.0.iter().filter_map(|step| match step {
            Step::Start { ride, .. } => Some(*ride),
            Step::Read { ride, .. } => *ride,
            _ => None,
        });
        self.rides = rides.collect();
        for ride in self.rides.clone() {
            let (body, path) = (self.put(Who::Old), format!("rides/{}", self.ride(ride)));
            let request = self.request(Who::Service, Replica::A, Method::PUT, &path).unwrap().json(&body);
            assert_eq!(request.send().await.unwrap().status(), 201);
            if ride == OLD_RIDE {
                self.age(ride).await;
            }
        }
        self.settle().await;
    }

    fn put(&self, driver: Who) -> Value {
        json!({"riderId": self.user(Who::Rider), "driverId": self.user(driver)})
    }

    /// Makes a ride one that ended long ago, and whose log and messages were taken away.
    async fn age(&self, ride: usize) {
        let name = self.ride(ride);
        self.lane
            .client
            .batch_execute(&format!(
                "update rides set status = 'completed', ended_at = now() - interval '2d', closed_at = now() - interval '1d',
                     log_is_trimmed = true where ride_id = '{name}';
                 update participants set is_over = true where ride_id = '{name}';
                 delete from events where topic = 'ride/{name}';"
            ))
            .await
            .unwrap();
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

    /// Notes where a ride's log ends.
    async fn lag(&mut self, ride: usize) {
        let topic = format!("ride/{}", self.ride(ride));
        let query = "select to_jsonb(topics)::text from topics where name = $1";
        if let Some(row) = self.lane.client.query_opt(query, &[&topic]).await.unwrap() {
            self.lags.insert(ride, row.get(0));
        }
    }

    /// Takes out of the database what was written to a ride since a standby lags, and cuts all connections. Nothing, where
    /// that is more than messages, or where somebody is about to write more.
    async fn fail_over(&mut self, ride: usize) {
        let Some(standby) = self.lags.remove(&ride) else { return };
        let topic = format!("ride/{}", self.ride(ride));
        let client = &mut self.lane.client;
        let transaction = client.transaction().await.unwrap();
        transaction.batch_execute("set local lock_timeout = '50ms'").await.unwrap();
        let locked = transaction.execute("select from topics where name = $1 for update", &[&topic]).await;
        let last = "select coalesce(($1::text::jsonb ->> 'last_seq')::bigint, 0)";
        let Ok(1) = locked else { return };
        let last: i64 = transaction.query_one(last, &[&standby]).await.unwrap().get(0);
        let others = "select count(*) from (
                          select from events where topic = $1 and seq > $2 and type <> 'message:new'
                          union all
                          select from receipts where 'ride/' || ride_id = $1 and greatest(delivered_seq, read_seq) > $2) others";
        let others: i64 = transaction.query_one(others, &[&topic, &last]).await.unwrap().get(0);
        let lose = "delete from messages where 'ride/' || ride_id = $1 and seq > $2 returning content";
        let lost = transaction.query(lose, &[&topic, &last]).await.unwrap();
        if others > 0 || lost.is_empty() {
            return;
        }
        transaction.execute("delete from events where topic = $1 and seq > $2", &[&topic, &last]).await.unwrap();
        transaction.execute("delete from topics where name = $1", &[&topic]).await.unwrap();
        let restore = "insert into topics select (jsonb_populate_record(null::topics, $1::text::jsonb)).*";
        transaction.execute(restore, &[&standby]).await.unwrap();
        transaction.commit().await.unwrap();
        self.has_failed_over = true;
        let lost: Vec<Option<String>> = lost.iter().map(|row| row.get(0)).collect();
        for operation in self.operations.values_mut() {
            operation.is_lost |= lost.contains(&Some(operation.content.clone()));
        }
        Replica::BOTH.iter().for_each(|at| self.lane.proxy(*at).cut());
        self.settle().await;
        // The listeners come back after a moment.
        sleep(STANDSTILL).await;
        self.settle().await;
    }

    async fn read(&mut self, number: usize, who: Who, ride: Option<usize>, at: Replica, before: Option<Reader>) {
        let path = match ride {
            Some(ride) => format!("messages/rides/{}/events", self.ride(ride)),
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
        let content = format!("{}says {op}.", self.prefix);
        let mut operation = Operation {
            what,
            ride,
            is_lost: false,
            message: None,
            began: self.tick(),
            head_before: 0,
            head_after: None,
            answer: Arc::default(),
            content,
        };
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
            self.operations.insert(op, operation);
        }
        sleep(Duration::from_millis(1)).await;
    }

    /// What an operation asks for; `None` where there is nothing that it could be about.
    async fn operation(&mut self, op: usize, operation: &mut Operation, at: Replica) -> Option<reqwest::RequestBuilder> {
        let ride = self.ride(operation.ride);
        let send = |content: &str, name: Option<String>| match name {
            Some(name) => json!({"rideId": ride, "content": content, "clientMessageId": name}),
            None => json!({"rideId": ride, "content": content}),
        };
        Some(match operation.what {
            What::Send { who, named } => {
                let body = send(&operation.content, named.then(|| op.to_string()));
                self.request(who, at, Method::POST, "messages")?.json(&body)
            }
            What::Retry { of } => {
                let What::Send { who, named: true } = self.operations.get(&of)?.what else { return None };
                let body = send(&self.operations.get(&of)?.content, Some(of.to_string()));
                self.request(who, at, Method::POST, "messages")?.json(&body)
            }
            What::Edit { of } => {
                let path = self.message(of, operation).await?;
                let sender = self.sender(of)?;
                self.request(sender, at, Method::PATCH, &path)?.json(&json!({"content": operation.content}))
            }
            What::Delete { of, by_support } => {
                let path = self.message(of, operation).await?;
                let who = if by_support { Who::Support } else { self.sender(of)? };
                self.request(who, at, Method::DELETE, &path)?
            }
            What::Mark { who, read } => {
                let last = "select id::text from messages where ride_id = $1 and sender_id <> $2 order by seq desc limit 1";
                let message: String = self.lane.client.query_opt(last, &[&ride, &self.user(who)]).await.unwrap()?.get(0);
                let path = format!("messages/{message}/{}", if read { "read" } else { "delivered" });
                operation.message = Some(message);
                self.request(who, at, Method::POST, &path)?
            }
            What::Assign { driver } => {
                let body = self.put(driver);
                self.request(Who::Service, at, Method::PUT, &format!("rides/{ride}"))?.json(&body)
            }
            What::Complete => {
                let body = json!({"riderId": self.user(Who::Rider), "status": "completed"});
                self.request(Who::Service, at, Method::PUT, &format!("rides/{ride}"))?.json(&body)
            }
            What::Cancel => {
                self.request(Who::Service, at, Method::POST, &format!("rides/{ride}/cancel"))?.json(&json!({}))
            }
            What::Locate { who } => {
                let body = json!({"lat": latitude(op), "lng": 13.0});
                self.request(who, at, Method::POST, &format!("rides/{ride}/location"))?.json(&body)
            }
            What::Type { who } => {
                let body = json!({"typing": true});
                self.request(who, at, Method::POST, &format!("messages/rides/{ride}/typing"))?.json(&body)
            }
            What::Poll { who } => {
                self.request(who, at, Method::GET, &format!("messages/rides/{ride}/poll?after=0&wait=0"))?
            }
            What::History { who } => {
                self.request(who, at, Method::GET, &format!("messages/rides/{ride}?limit=200"))?
            }
        })
    }

    fn sender(&self, op: usize) -> Option<Who> {
        match self.operations.get(&op)?.what {
            What::Send { who, .. } => Some(who),
            _ => None,
        }
    }

    /// The path of the message of another operation: as that was told, or as the database has it.
    async fn message(&self, of: usize, operation: &mut Operation) -> Option<String> {
        let other = self.operations.get(&of)?;
        let told = other.answer().and_then(|answer| answer.body["id"].as_str().map(str::to_owned));
        let id = match told {
            Some(id) => id,
            None => {
                let found = "select id::text from messages where content = $1 limit 1";
                self.lane.client.query_opt(found, &[&other.content]).await.unwrap()?.get(0)
            }
        };
        operation.message = Some(id.clone());
        Some(format!("messages/{id}"))
    }

    async fn head(&self, ride: usize) -> i64 {
        let head = "select last_seq from topics where name = 'ride/' || $1";
        let row = self.lane.client.query_opt(head, &[&self.ride(ride)]).await.unwrap();
        row.map_or(0, |row| row.get(0))
    }

    async fn wait(&mut self, op: usize) {
        self.until(STANDSTILL, |run| run.operations.get(&op).is_none_or(Operation::is_done)).await;
        let is_about_values = |what| matches!(what, What::Locate { .. } | What::Type { .. });
        if let Some(operation) = self.operations.get(&op).filter(|one| one.is_done() && is_about_values(one.what)) {
            let head = self.head(operation.ride).await;
            if let Some(operation) = self.operations.get_mut(&op) {
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
        let busy = self.operations.values().any(|operation| !operation.is_done());
        self.until(if busy { STANDSTILL } else { STANDSTILL / 10 }, |_| gate.holds()).await;
    }

    async fn decide(&mut self, gate: usize, verdict: Verdict) {
        let Some((_, gate)) = self.gates.get(&gate) else { return };
        gate.decide(verdict);
        self.settle().await;
    }

    /// Waits until something is so, or nothing has moved for a while.
    async fn until(&self, standstill: Duration, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
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
        let deadline = Instant::now() + PATIENCE;
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

    /// Lets everything go on to its end, and ends each log with something that everybody is sent.
    pub(crate) async fn finish(&mut self) -> Result<(), String> {
        Replica::BOTH.iter().for_each(|at| self.lane.proxy(*at).release_all());
        self.gates.clear();
        let operations: Vec<_> = self.operations.keys().copied().collect();
        for op in operations {
            let deadline = Instant::now() + PATIENCE;
            while !self.operations[&op].is_done() {
                if Instant::now() > deadline {
                    return Err(format!("operation {op} does not end"));
                }
                sleep(Duration::from_millis(1)).await;
            }
        }
        for at in Replica::BOTH {
            self.lane.start(at).await;
        }
        self.settle().await;
        for ride in self.rides.clone().into_iter().filter(|ride| *ride != OLD_RIDE) {
            let (op, at) = (LAST_OPS + ride, Replica::BOTH[ride % 2]);
            self.start(op, What::Send { who: Who::Support, named: true }, ride, at).await;
            self.wait(op).await;
            if self.operations[&op].status() != Some(201) {
                return Err(format!("the last message is answered {:?}", self.operations[&op].answer()));
            }
        }
        let users: Vec<_> = Who::READERS.iter().map(|who| self.user(*who)).collect();
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

/// Where a location operation is, by which it is known again.
pub(crate) fn latitude(op: usize) -> f64 {
    10.0 + f64::from(u32::try_from(op).unwrap()) / 100.0
}
