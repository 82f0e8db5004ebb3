//! Checks a run from its journals alone.
//!
//! 1. The readers of a single ride record the seq of each event. They must agree on its type and data. Their union is the
//!    log of the ride.
//! 2. Each reader must have received that log from 1 on, every event once and in order, over all its connections, and at
//!    least up to the last acknowledged message.
//! 3. A merged stream has no seqs. There, an event is identified by its type and data.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::journal::{Acknowledged, ClientStart, ConnectionOpened, Entry, Frame, SendStarted, Transport};
use super::participants::ride_ids_in;

/// The result of a run.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) problems: Vec<String>,
    pub(super) clients: usize,
    pub(super) connections: usize,
    /// The number of acknowledged messages. A message counts once.
    pub(super) acknowledged: usize,
    /// Acknowledgements beyond the first one of a message.
    pub(super) repeated: usize,
    pub(super) events: usize,
    pub(super) denied: usize,
}

/// The part of a journal that belongs to one client.
struct Reader<'a> {
    start: &'a ClientStart,
    frames: Vec<&'a Frame>,
}

/// The type and the data of an event.
type Content<'a> = (&'a str, &'a str);

/// A log, by seq.
type Log<'a> = BTreeMap<i64, Content<'a>>;

/// The ride, the sender and the `clientMessageId`.
type MessageKey<'a> = (&'a str, &'a str, &'a str);

struct Run<'a> {
    readers: BTreeMap<&'a str, Reader<'a>>,
    sends: HashMap<MessageKey<'a>, &'a SendStarted>,
    /// In the order in which their process wrote them.
    acknowledgements: Vec<&'a Acknowledged>,
    report: Report,
}

/// Returns all violations of a run and its statistics.
pub(super) fn check(journals: &[Vec<Entry>]) -> Report {
    let mut run = Run {
        readers: BTreeMap::new(),
        sends: HashMap::new(),
        acknowledgements: Vec::new(),
        report: Report::default(),
    };
    for journal in journals {
        run.collect(journal);
    }
    run.check_leaks();
    let logs = run.logs();
    run.check_messages(&logs);
    let ends = run.check_acknowledgements(&logs);
    run.check_readers(&logs, &ends);
    run.report
}

impl<'a> Run<'a> {
    fn problem(&mut self, problem: String) {
        self.report.problems.push(problem);
    }

    /// Collects the entries of a journal. Checks that each connection begins at the last cursor.
    fn collect(&mut self, journal: &'a [Entry]) {
        let mut cursors: HashMap<&str, &str> = HashMap::new();
        for entry in journal {
            match entry {
                Entry::ClientStart(start) => {
                    self.report.clients += usize::from(start.transport != Transport::Probe);
                    self.readers.insert(&start.client, Reader { start, frames: Vec::new() });
                }
                Entry::ConnectionOpened(ConnectionOpened { client, connection, from, .. }) => {
                    self.report.connections += 1;
                    let last = cursors.get(client.as_str()).copied();
                    if from.as_deref() != last {
                        self.problem(format!("{client} opens {connection} from {from:?} after {last:?}"));
                    }
                }
                Entry::Frame(frame) => {
                    if let Some(id) = &frame.id {
                        cursors.insert(&frame.client, id);
                    }
                    match self.readers.get_mut(frame.client.as_str()) {
                        Some(reader) => reader.frames.push(frame),
                        None => self.problem(format!("{} got an event before its start: {frame:?}", frame.client)),
                    }
                }
                Entry::SendStarted(sending) => {
                    self.sends.insert((&sending.ride, &sending.user, &sending.name), sending);
                }
                Entry::Acknowledged(sent) => self.acknowledgements.push(sent),
                Entry::Denied { .. } => self.report.denied += 1,
                Entry::Violation { client, what } => self.problem(format!("{client}: {what}")),
                Entry::Closed { .. } => {}
            }
        }
    }

    /// Checks that no received text, also one without an id, names a ride that the client may not see.
    fn check_leaks(&mut self) {
        let mut problems = Vec::new();
        for Reader { start: ClientStart { client, rides, .. }, frames } in self.readers.values() {
            for frame in frames {
                let foreign = ride_ids_in(&frame.data).find(|ride| !rides.iter().any(|own| own == ride));
                if let Some(ride) = foreign {
                    problems.push(format!("{client} received data of {ride}, which it may not see: {}", frame.data));
                }
            }
        }
        self.report.problems.extend(problems);
    }

    /// Returns the logs of the rides, as received by the readers of single rides.
    fn logs(&mut self) -> HashMap<&'a str, Log<'a>> {
        let mut logs: HashMap<&str, Log<'_>> = HashMap::new();
        let mut problems = Vec::new();
        for Reader { start, frames } in self.readers.values() {
            if !matches!(start.transport, Transport::Stream | Transport::Poll) {
                continue;
            }
            let ride = start.rides[0].as_str();
            let log = logs.entry(ride).or_default();
            for frame in frames.iter().filter(|frame| is_logged(frame)) {
                let content = (frame.event.as_str(), frame.data.as_str());
                let Some(seq) = seq_of(frame) else {
                    problems.push(format!("{} got the invalid id {:?}", start.client, frame.id));
                    continue;
                };
                let known = log.entry(seq).or_insert(content);
                if *known != content {
                    problems.push(format!("{} got {content:?} as {seq} of {ride}, others {known:?}", start.client));
                }
            }
        }
        self.report.problems.extend(problems);
        logs
    }

    /// Checks that each message is in the log once and has the content that was sent.
    fn check_messages(&mut self, logs: &HashMap<&'a str, Log<'a>>) {
        let mut seen: HashSet<(&str, String, String)> = HashSet::new();
        for (ride, log) in logs {
            for (seq, (_, data)) in log.iter().filter(|(_, (event, _))| *event == "message:new") {
                let message: Value = serde_json::from_str(data).unwrap_or_default();
                let text = |name: &str| message[name].as_str().unwrap_or_default();
                let (user, name, content) = (text("senderId"), text("clientMessageId"), text("content"));
                match self.sends.get(&(ride, user, name)).map(|sending| sending.content.as_str()) {
                    None => self.problem(format!("{seq} of {ride} was never sent: {data}")),
                    Some(sent) if sent != content || message["seq"] != *seq => {
                        self.problem(format!("{seq} of {ride} should have the content {sent:?}: {data}"));
                    }
                    Some(_) => {}
                }
                if !seen.insert((ride, user.to_owned(), name.to_owned())) {
                    self.problem(format!("{name} of {user} is on {ride} a second time, as {seq}"));
                }
            }
        }
    }

    /// Checks that each acknowledged message is in the log with its id and seq. Returns the last acknowledged seq by ride.
    fn check_acknowledgements(&mut self, logs: &HashMap<&'a str, Log<'a>>) -> HashMap<&'a str, i64> {
        let mut first: HashMap<MessageKey<'_>, (&str, i64)> = HashMap::new();
        let mut ends: HashMap<&str, i64> = HashMap::new();
        for Acknowledged { ride, user, name, attempt, status, id, seq } in std::mem::take(&mut self.acknowledgements) {
            if (*attempt == 0) && *status != 201 {
                self.problem(format!("{name} got {status} for its first attempt"));
            }
            if let Some(known) = first.insert((ride, user, name), (id, *seq)) {
                self.report.repeated += 1;
                if known != (id, *seq) {
                    self.problem(format!("{name} was acknowledged as {known:?} and as {:?}", (id, seq)));
                }
                continue;
            }
            self.report.acknowledged += 1;
            let end = ends.entry(ride).or_default();
            *end = (*end).max(*seq);
            let logged = logs.get(ride.as_str()).and_then(|log| log.get(seq));
            let is_there = logged.is_some_and(|(event, data)| {
                let message: Value = serde_json::from_str(data).unwrap_or_default();
                *event == "message:new" && message["id"] == **id && message["clientMessageId"] == **name
            });
            if !is_there {
                self.problem(format!("{name} was acknowledged as {id}, {seq} of {ride}, which is {logged:?}"));
            }
        }
        ends
    }

    fn check_readers(&mut self, logs: &HashMap<&'a str, Log<'a>>, ends: &HashMap<&'a str, i64>) {
        let mut positions: HashMap<Content<'_>, (&str, i64)> = HashMap::new();
        for (ride, log) in logs {
            for (seq, content) in log {
                if let Some((other, at)) = positions.insert(*content, (ride, *seq)) {
                    self.problem(format!("{at} of {other} is repeated as {seq} of {ride}: {content:?}"));
                }
            }
        }
        for Reader { start, frames } in std::mem::take(&mut self.readers).into_values() {
            if start.transport == Transport::Probe {
                continue;
            }
            self.report.events += frames.iter().filter(|frame| is_logged(frame)).count();
            self.check_syncs(start, &frames);
            let seen = if start.transport.is_merged() {
                self.seqs_by_ride(start, &frames, &positions, logs)
            } else {
                let seqs = frames.iter().filter(|frame| is_logged(frame)).filter_map(|frame| seq_of(frame));
                HashMap::from([(start.rides[0].as_str(), seqs.collect())])
            };
            for ride in &start.rides {
                let seqs = seen.get(ride.as_str()).map_or(&[][..], Vec::as_slice);
                let end = ends.get(ride.as_str()).copied().unwrap_or_default();
                if let Err(problem) = check_order(seqs, end) {
                    self.problem(format!("{} {problem} of {ride}", start.client));
                }
            }
        }
    }

    /// Checks that a stream begins with its cursor and that every cursor was resumed without a gap.
    fn check_syncs(&mut self, start: &ClientStart, frames: &[&Frame]) {
        let mut connection = 0;
        for frame in frames {
            let is_first = frame.connection > connection;
            connection = frame.connection;
            let is_sync = ["stream:sync", "poll:response"].contains(&frame.event.as_str());
            let is_stream = matches!(start.transport, Transport::Stream | Transport::MergedStream);
            let data: Value = if is_sync { serde_json::from_str(&frame.data).unwrap_or_default() } else { Value::Null };
            if (is_first && is_stream && !is_sync) || (is_sync && (data["resumed"] != true || !data["gap"].is_null())) {
                self.problem(format!("{} did not resume, and got {frame:?}", start.client));
            }
        }
    }

    /// Returns the seqs that a merged reader received, by ride. Checks that each `ride:assigned` came once.
    fn seqs_by_ride(
        &mut self,
        start: &'a ClientStart,
        frames: &[&'a Frame],
        positions: &HashMap<Content<'a>, (&'a str, i64)>,
        logs: &HashMap<&'a str, Log<'a>>,
    ) -> HashMap<&'a str, Vec<i64>> {
        let mut seen: HashMap<&str, Vec<i64>> = HashMap::new();
        let mut assigned = Vec::new();
        for frame in frames.iter().filter(|frame| is_logged(frame)) {
            let content = (frame.event.as_str(), frame.data.as_str());
            let ride = ride_ids_in(&frame.data).next().unwrap_or_default();
            match positions.get(&content) {
                Some((ride, seq)) => seen.entry(ride).or_default().push(*seq),
                None if frame.event == "ride:assigned" => assigned.push(ride),
                // The readers of the single ride may have ended before this event.
                None if frame.event == "message:delivered" => {
                    let seqs = seen.entry(ride).or_default();
                    let head = logs.get(ride).and_then(|log| log.keys().next_back()).copied().unwrap_or_default();
                    seqs.push(seqs.last().copied().unwrap_or_default().max(head) + 1);
                }
                None => self.problem(format!("{} got an event that no other reader has: {content:?}", start.client)),
            }
        }
        assigned.sort_unstable();
        if !assigned.iter().eq(&start.rides) {
            self.problem(format!("{} was assigned {assigned:?}", start.client));
        }
        seen
    }
}

/// Returns whether an event is part of a log, and not a control event or state.
fn is_logged(frame: &Frame) -> bool {
    frame.id.is_some() && !frame.event.starts_with("stream:") && !frame.event.starts_with("poll:")
}

fn seq_of(frame: &Frame) -> Option<i64> {
    frame.id.as_ref()?.parse().ok()
}

/// Checks that the seqs are 1, 2, 3, … and reach at least `end`.
fn check_order(seqs: &[i64], end: i64) -> Result<(), String> {
    for (index, (seq, next)) in seqs.iter().zip(1..).enumerate() {
        match seq - next {
            0 => {}
            ..0 => return Err(format!("got {seq} a second time")),
            1.. if seqs[index..].contains(&next) => return Err(format!("got {seq} before {next}")),
            1.. => return Err(format!("lost {next}")),
        }
    }
    let last = seqs.last().copied().unwrap_or_default();
    if last < end { Err(format!("lost the events after {last}, up to {end}")) } else { Ok(()) }
}
