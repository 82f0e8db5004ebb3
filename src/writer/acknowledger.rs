//! Deliveries that a reader's cursor acknowledges.
//!
//! Whoever asks for what lies past 7 has what lies before it. An acknowledgement is never waited for, and one that is lost
//! comes again with the reader's next cursor; so they are written many at a time. One that comes alone is written at once;
//! those that come within a moment of it are written together after it, which is what makes thousands of readers that come
//! back at once cheap. Each is a command of its own: one whose ride is locked holds up no other. A reader is written for once
//! a second at most. What was written is remembered for a while, so that a poll
//! that comes back with the same cursor costs nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Mark, MarkKind, Writer};
use crate::domain::{Caller, Error, RideId, RideRole, RideSnapshot, Seq, UserId};

/// The shortest time between two writes, and between two for one reader.
const MOMENT: Duration = Duration::from_millis(200);
const PACE: Duration = Duration::from_secs(1);

/// The most readers that are written for at once: as many as a batch has commands, so that others' have room beside them.
const LARGEST: usize = super::LARGEST_BATCH;

/// For how long a reader that has gone is remembered: longer than a poll may wait.
const MEMORY: Duration = Duration::from_secs(120);

/// The fewest readers that are worth forgetting.
const FORGET_FROM: usize = 1_024;

/// Somebody who reads a ride.
type Key = (RideId, UserId);

/// Gathers deliveries, and writes them.
#[derive(Debug, Default)]
pub struct Acknowledger {
    readers: Mutex<Readers>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Readers {
    known: HashMap<Key, Reader>,
    /// Those with something to write, by when it may be written.
    waiting: BTreeSet<(Instant, Key)>,
    forget_at: usize,
}

#[derive(Debug)]
struct Reader {
    caller: Caller,
    /// How far it has acknowledged.
    up_to: Seq,
    /// Whether it waits to be written for.
    waits: bool,
    /// When it may be written for next.
    due: Instant,
    seen: Instant,
}

impl Acknowledger {
    fn readers(&self) -> MutexGuard<'_, Readers> {
        // A std lock: held for a few moves in maps, never across an await.
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Others' messages up to `up_to` have reached the caller, who follows the ride of `snapshot`.
    pub fn delivered(&self, caller: &Caller, snapshot: &RideSnapshot, up_to: Seq) {
        let Some(access) = snapshot.access(caller).filter(|access| access.role != RideRole::System) else { return };
        if snapshot.receipts.of(&caller.user, access.role).delivered_seq >= up_to {
            return;
        }
        if self.readers().note((snapshot.ride.id.clone(), caller.user.clone()), caller, up_to) {
            self.more.notify_one();
        }
    }

    /// Writes, for ever.
    pub async fn run(&self, writer: Writer) {
        let mut writes = FuturesUnordered::new();
        let mut pause = Instant::now();
        loop {
            let now = Instant::now();
            let room = LARGEST - writes.len().min(LARGEST);
            let mut next = Some(pause);
            if room > 0 && now >= pause {
                let (marks, due) = self.readers().take(now, room);
                next = due;
                if !marks.is_empty() {
                    // Where there are more, they follow sooner.
                    pause = now + if marks.len() < room { MOMENT } else { MOMENT / 4 };
                    next = Some(pause);
                    writes.extend(marks.into_iter().map(|mark| {
                        let (key, writing) = ((mark.ride.clone(), mark.caller.user.clone()), writer.submit(mark));
                        async move { (key, writing.await) }
                    }));
                }
            }
            let is_full = writes.len() >= LARGEST;
            let more = async {
                match next {
                    _ if is_full => std::future::pending().await,
                    Some(next) if now < pause => sleep_until(next).await,
                    Some(due) => drop(timeout_at(due, self.more.notified()).await),
                    None => self.more.notified().await,
                }
            };
            tokio::select! {
                () = more => {}
                Some((key, written)) = writes.next(), if !writes.is_empty() => {
                    if let Err(error @ (Error::Unavailable | Error::TooManyWaiting | Error::Internal)) = written {
                        tracing::debug!(%error, "an acknowledgement was not written");
                        self.readers().forget_all(&[key]);
                    }
                }
            }
        }
    }
}

impl Readers {
    /// Whether there is more to write now.
    fn note(&mut self, key: Key, caller: &Caller, up_to: Seq) -> bool {
        self.forget();
        let now = Instant::now();
        let reader = self.known.entry(key.clone()).or_insert_with(|| Reader {
            caller: caller.clone(),
            up_to: 0,
            waits: false,
            due: now,
            seen: now,
        });
        reader.seen = now;
        if up_to <= reader.up_to {
            return false;
        }
        reader.up_to = up_to;
        reader.caller.clone_from(caller);
        if std::mem::replace(&mut reader.waits, true) {
            return false;
        }
        self.waiting.insert((reader.due.max(now), key))
    }

    /// What may be written now, so many at most, and when the next may be that waits longer.
    fn take(&mut self, now: Instant, most: usize) -> (Vec<Mark>, Option<Instant>) {
        let mut marks = Vec::new();
        while marks.len() < most
            && let Some((due, _)) = self.waiting.first()
            && *due <= now
            && let Some((_, key)) = self.waiting.pop_first()
        {
            let Some(reader) = self.known.get_mut(&key) else { continue };
            reader.waits = false;
            reader.due = now + PACE;
            let (caller, up_to) = (reader.caller.clone(), reader.up_to);
            marks.push(Mark { caller, ride: key.0, kind: MarkKind::Delivered, up_to });
        }
        (marks, self.waiting.first().map(|(due, _)| *due))
    }

    /// Forgets readers for whom could not be written: they say it again.
    fn forget_all(&mut self, keys: &[Key]) {
        for key in keys {
            if self.known.get(key).is_some_and(|reader| !reader.waits) {
                self.known.remove(key);
            }
        }
    }

    /// Forgets those who have gone, each time that as many have come as there were.
    fn forget(&mut self) {
        if self.known.len() < self.forget_at.max(FORGET_FROM) {
            return;
        }
        self.known.retain(|_, reader| reader.waits || reader.seen.elapsed() < MEMORY);
        self.forget_at = self.known.len() * 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Role, Time, UserId};

    fn caller(name: &str) -> Caller {
        Caller {
            user: UserId::parse(name).unwrap(),
            role: Role::Rider,
            issued_at: None,
            key: None,
            expires_at: Time::now(),
        }
    }

    fn key(name: &str) -> Key {
        (RideId::parse("ride").unwrap(), UserId::parse(name).unwrap())
    }

    fn note(readers: &mut Readers, name: &str, up_to: Seq) -> bool {
        readers.note(key(name), &caller(name), up_to)
    }

    fn places(marks: &[Mark]) -> Vec<(&str, Seq)> {
        marks.iter().map(|mark| (mark.caller.user.as_str(), mark.up_to)).collect()
    }

    #[test]
    fn those_who_wait_are_one_write_each_with_the_last_that_it_said() {
        let mut readers = Readers::default();
        assert!(note(&mut readers, "a", 3));
        assert!(note(&mut readers, "b", 4));
        assert!(!note(&mut readers, "a", 5), "it waits already");
        let (marks, next) = readers.take(Instant::now(), LARGEST);
        assert_eq!(places(&marks), [("a", 5), ("b", 4)]);
        assert_eq!(next, None);
    }

    #[test]
    fn a_reader_is_written_for_at_its_pace_and_not_twice_for_the_same() {
        let mut readers = Readers::default();
        note(&mut readers, "a", 3);
        let now = Instant::now();
        readers.take(now, LARGEST);
        assert!(!note(&mut readers, "a", 3));
        assert!(note(&mut readers, "a", 4));
        assert_eq!(readers.take(now, LARGEST).1, Some(now + PACE));
        assert_eq!(places(&readers.take(now + PACE, LARGEST).0), [("a", 4)]);
    }

    #[test]
    fn one_write_is_no_larger_than_it_may_be() {
        let mut readers = Readers::default();
        for number in 0..LARGEST + 1 {
            note(&mut readers, &format!("user-{number}"), 1);
        }
        let now = Instant::now();
        assert_eq!([readers.take(now, LARGEST).0.len(), readers.take(now, LARGEST).0.len()], [LARGEST, 1]);
    }

    #[test]
    fn what_could_not_be_written_is_written_when_it_is_said_again() {
        let mut readers = Readers::default();
        note(&mut readers, "a", 3);
        let now = Instant::now();
        readers.take(now, LARGEST);
        readers.forget_all(&[key("a")]);
        assert!(note(&mut readers, "a", 3));
    }
}
