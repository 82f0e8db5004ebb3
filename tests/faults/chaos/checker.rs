//! Judges a run by its journals alone.
//!
//! Those who follow a ride by itself know the seq of each event, and must agree on what it is: together they are the
//! ride's log. Then each follower must have got that log from 1 on, every event once and in order, and at least up to
//! the last acknowledged message, over all its connections together. The stream of everything does not tell seqs: there
//! an event is known by its type and data.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::journal::{Begun, Entry, Frame, Opened, Sending, Sent, Transport};
use super::people::rides_named_in;

/// What a run has shown.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) problems: Vec<String>,
    pub(super) clients: usize,
    pub(super) connections: usize,
    /// Messages, however often each was acknowledged.
    pub(super) acknowledged: usize,
    /// Acknowledgements beyond the first of each.
    pub(super) again: usize,
    pub(super) events: usize,
    pub(super) denied: usize,
}

/// A client's part of its journal.
struct Follower<'a> {
    begun: &'a Begun,
    frames: Vec<&'a Frame>,
}

/// Type and data.
type Content<'a> = (&'a str, &'a str);

/// By seq.
type Log<'a> = BTreeMap<i64, Content<'a>>;

/// Ride, sender and `clientMessageId`.
type Name<'a> = (&'a str, &'a str, &'a str);

struct Run<'a> {
    followers: BTreeMap<&'a str, Follower<'a>>,
    sendings: HashMap<Name<'a>, &'a Sending>,
    /// In the order in which their process wrote them.
    sents: Vec<&'a Sent>,
    verdict: Verdict,
}

/// Everything that is wrong with a run, and how much there was of it.
pub(super) fn check(journals: &[Vec<Entry>]) -> Verdict {
    let mut run =
        Run { followers: BTreeMap::new(), sendings: HashMap::new(), sents: Vec::new(), verdict: Verdict::default() };
    for journal in journals {
        run.collect(journal);
    }
    run.check_leaks();
    let logs = run.logs();
    run.check_messages(&logs);
    let ends = run.check_acknowledgements(&logs);
    run.check_followers(&logs, &ends);
    run.verdict
}

impl<'a> Run<'a> {
    fn problem(&mut self, problem: String) {
        self.verdict.problems.push(problem);
    }

    /// Sorts the entries of a journal, and follows cursors from connection to connection.
    fn collect(&mut self, journal: &'a [Entry]) {
        let mut cursors: HashMap<&str, &str> = HashMap::new();
        for entry in journal {
            match entry {
                Entry::Begun(begun) => {
                    self.verdict.clients += usize::from(begun.transport != Transport::Pry);
                    self.followers.insert(&begun.client, Follower { begun, frames: Vec::new() });
                }
                Entry::Opened(Opened { client, connection, from, .. }) => {
                    self.verdict.connections += 1;
                    let last = cursors.get(client.as_str()).copied();
                    if from.as_deref() != last {
                        self.problem(format!("{client} opens {connection} from {from:?} after {last:?}"));
                    }
                }
                Entry::Frame(frame) => {
                    if let Some(id) = &frame.id {
                        cursors.insert(&frame.client, id);
                    }
                    match self.followers.get_mut(frame.client.as_str()) {
                        Some(follower) => follower.frames.push(frame),
                        None => self.problem(format!("{} has not begun, and got {frame:?}", frame.client)),
                    }
                }
                Entry::Sending(sending) => {
                    self.sendings.insert((&sending.ride, &sending.user, &sending.name), sending);
                }
                Entry::Sent(sent) => self.sents.push(sent),
                Entry::Denied { .. } => self.verdict.denied += 1,
                Entry::Wrong { client, what } => self.problem(format!("{client}: {what}")),
                Entry::Closed { .. } => {}
            }
        }
    }

    /// Nothing that anybody got names a ride that is not theirs: not even what has no id.
    fn check_leaks(&mut self) {
        let mut problems = Vec::new();
        for Follower { begun: Begun { client, rides, .. }, frames } in self.followers.values() {
            for frame in frames {
                let strange = rides_named_in(&frame.data).find(|ride| !rides.iter().any(|own| own == ride));
                if let Some(ride) = strange {
                    problems.push(format!("{client} was told of {ride}, which is not theirs: {}", frame.data));
                }
            }
        }
        self.verdict.problems.extend(problems);
    }

    /// The rides' logs, as those have seen them who follow a ride by itself.
    fn logs(&mut self) -> HashMap<&'a str, Log<'a>> {
        let mut logs: HashMap<&str, Log<'_>> = HashMap::new();
        let mut problems = Vec::new();
        for Follower { begun, frames } in self.followers.values() {
            if !matches!(begun.transport, Transport::Stream | Transport::Poll) {
                continue;
            }
            let ride = begun.rides[0].as_str();
            let log = logs.entry(ride).or_default();
            for frame in frames.iter().filter(|frame| is_logged(frame)) {
                let content = (frame.event.as_str(), frame.data.as_str());
                let Some(seq) = seq_of(frame) else {
                    problems.push(format!("{} got the id {:?}", begun.client, frame.id));
                    continue;
                };
                let known = log.entry(seq).or_insert(content);
                if *known != content {
                    problems.push(format!("{} got {content:?} as {seq} of {ride}, others {known:?}", begun.client));
                }
            }
        }
        self.verdict.problems.extend(problems);
        logs
    }

    /// Each message is there once, and says what its sender said.
    fn check_messages(&mut self, logs: &HashMap<&'a str, Log<'a>>) {
        let mut seen: HashSet<(&str, String, String)> = HashSet::new();
        for (ride, log) in logs {
            for (seq, (_, data)) in log.iter().filter(|(_, (event, _))| *event == "message:new") {
                let message: Value = serde_json::from_str(data).unwrap_or_default();
                let text = |name: &str| message[name].as_str().unwrap_or_default();
                let (user, name, content) = (text("senderId"), text("clientMessageId"), text("content"));
                match self.sendings.get(&(ride, user, name)).map(|sending| sending.content.as_str()) {
                    None => self.problem(format!("nobody has sent {seq} of {ride}: {data}")),
                    Some(sent) if sent != content || message["seq"] != *seq => {
                        self.problem(format!("{seq} of {ride} should say {sent:?}: {data}"));
                    }
                    Some(_) => {}
                }
                if !seen.insert((ride, user.to_owned(), name.to_owned())) {
                    self.problem(format!("{name} of {user} is on {ride} again, as {seq}"));
                }
            }
        }
    }

    /// What was acknowledged is in the log, as which it was acknowledged. The last of each ride.
    fn check_acknowledgements(&mut self, logs: &HashMap<&'a str, Log<'a>>) -> HashMap<&'a str, i64> {
        let mut first: HashMap<Name<'_>, (&str, i64)> = HashMap::new();
        let mut ends: HashMap<&str, i64> = HashMap::new();
        for Sent { ride, user, name, attempt, status, id, seq } in std::mem::take(&mut self.sents) {
            if (*attempt == 0) && *status != 201 {
                self.problem(format!("{name} was sent for the first time and answered {status}"));
            }
            if let Some(known) = first.insert((ride, user, name), (id, *seq)) {
                self.verdict.again += 1;
                if known != (id, *seq) {
                    self.problem(format!("{name} was acknowledged as {known:?} and as {:?}", (id, seq)));
                }
                continue;
            }
            self.verdict.acknowledged += 1;
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

    fn check_followers(&mut self, logs: &HashMap<&'a str, Log<'a>>, ends: &HashMap<&'a str, i64>) {
        let mut places: HashMap<Content<'_>, (&str, i64)> = HashMap::new();
        for (ride, log) in logs {
            for (seq, content) in log {
                if let Some((other, at)) = places.insert(*content, (ride, *seq)) {
                    self.problem(format!("{at} of {other} is {seq} of {ride} again: {content:?}"));
                }
            }
        }
        for Follower { begun, frames } in std::mem::take(&mut self.followers).into_values() {
            if begun.transport == Transport::Pry {
                continue;
            }
            self.verdict.events += frames.iter().filter(|frame| is_logged(frame)).count();
            self.check_syncs(begun, &frames);
            let seen = if begun.transport.is_merged() {
                self.places_of(begun, &frames, &places, logs)
            } else {
                let seqs = frames.iter().filter(|frame| is_logged(frame)).filter_map(|frame| seq_of(frame));
                HashMap::from([(begun.rides[0].as_str(), seqs.collect())])
            };
            for ride in &begun.rides {
                let seqs = seen.get(ride.as_str()).map_or(&[][..], Vec::as_slice);
                let end = ends.get(ride.as_str()).copied().unwrap_or_default();
                if let Err(problem) = check_order(seqs, end) {
                    self.problem(format!("{} {problem} of {ride}", begun.client));
                }
            }
        }
    }

    /// A stream begins with where it is, and nothing has ever given a cursor up.
    fn check_syncs(&mut self, begun: &Begun, frames: &[&Frame]) {
        let mut connection = 0;
        for frame in frames {
            let is_first = frame.connection > connection;
            connection = frame.connection;
            let is_sync = ["stream:sync", "poll:answer"].contains(&frame.event.as_str());
            let is_stream = matches!(begun.transport, Transport::Stream | Transport::MergedStream);
            let data: Value = if is_sync { serde_json::from_str(&frame.data).unwrap_or_default() } else { Value::Null };
            if (is_first && is_stream && !is_sync) || (is_sync && (data["resumed"] != true || !data["gap"].is_null())) {
                self.problem(format!("{} was to continue, and got {frame:?}", begun.client));
            }
        }
    }

    /// By ride: the seqs of what a follower of everything got. What its user was told beside must have come once.
    fn places_of(
        &mut self,
        begun: &'a Begun,
        frames: &[&'a Frame],
        places: &HashMap<Content<'a>, (&'a str, i64)>,
        logs: &HashMap<&'a str, Log<'a>>,
    ) -> HashMap<&'a str, Vec<i64>> {
        let mut seen: HashMap<&str, Vec<i64>> = HashMap::new();
        let mut assigned = Vec::new();
        for frame in frames.iter().filter(|frame| is_logged(frame)) {
            let content = (frame.event.as_str(), frame.data.as_str());
            let ride = rides_named_in(&frame.data).next().unwrap_or_default();
            match places.get(&content) {
                Some((ride, seq)) => seen.entry(ride).or_default().push(*seq),
                None if frame.event == "ride:assigned" => assigned.push(ride),
                // Who follows the ride by itself may have ended before.
                None if frame.event == "message:delivered" => {
                    let seqs = seen.entry(ride).or_default();
                    let head = logs.get(ride).and_then(|log| log.keys().next_back()).copied().unwrap_or_default();
                    seqs.push(seqs.last().copied().unwrap_or_default().max(head) + 1);
                }
                None => self.problem(format!("{} got what nobody else has: {content:?}", begun.client)),
            }
        }
        assigned.sort_unstable();
        if !assigned.iter().eq(&begun.rides) {
            self.problem(format!("{} was told to have {assigned:?}", begun.client));
        }
        seen
    }
}

/// Whether it is of a log: neither the stream's own, nor state.
fn is_logged(frame: &Frame) -> bool {
    frame.id.is_some() && !frame.event.starts_with("stream:") && !frame.event.starts_with("poll:")
}

fn seq_of(frame: &Frame) -> Option<i64> {
    frame.id.as_ref()?.parse().ok()
}

/// 1, 2, 3, …, up to `end` at least.
fn check_order(seqs: &[i64], end: i64) -> Result<(), String> {
    for (place, (seq, next)) in seqs.iter().zip(1..).enumerate() {
        match seq - next {
            0 => {}
            ..0 => return Err(format!("got {seq} again")),
            1.. if seqs[place..].contains(&next) => return Err(format!("got {seq} before {next}")),
            1.. => return Err(format!("lost {next}")),
        }
    }
    let last = seqs.last().copied().unwrap_or_default();
    if last < end { Err(format!("lost what follows {last}, up to {end}")) } else { Ok(()) }
}
