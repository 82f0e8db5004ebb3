//! What a message between a replica and Postgres is about.
//!
//! Statements are known by what they do, not by their text or their file, so that a schedule still means the same when a
//! statement changes.

use std::collections::HashMap;

/// A kind of message, which a gate can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Point {
    /// Locks topics: of a batch, and of the check of one in doubt.
    Lock,
    /// Appends within a transaction.
    Append,
    /// Commits what the writer has appended: COMMIT, or an append that is a transaction of its own.
    Commit,
    /// Reads a page of a log.
    Page,
    /// Reads where logs end, without locking.
    Heads,
    /// Reads a ride as it is, or its history.
    Snapshot,
    /// Stores a location.
    Location,
    /// Reads values that no hint has told.
    Values,
    /// Sends a NOTIFY.
    Notify,
    /// Anything about presence and leases.
    Presence,
    /// A notification that a replica is sent. It has no request.
    Hint,
}

impl Point {
    pub(crate) const ALL: [(Self, &'static str); 11] = [
        (Self::Lock, "lock"),
        (Self::Append, "append"),
        (Self::Commit, "commit"),
        (Self::Page, "page"),
        (Self::Heads, "heads"),
        (Self::Snapshot, "snapshot"),
        (Self::Location, "location"),
        (Self::Values, "values"),
        (Self::Notify, "notify"),
        (Self::Presence, "presence"),
        (Self::Hint, "hint"),
    ];

    /// What a statement is about, if a gate can hold it.
    fn of(statement: &str) -> Option<Self> {
        let has = |words: &str| statement.contains(words);
        let locks = has("for update") || has("for no key update");
        let writes = has("insert into") || has("delete from") || has("update ");
        if has("pg_notify(") {
            Some(Self::Notify)
        } else if has("delete from rides") {
            None
        } else if has("insert into events") {
            Some(Self::Append)
        } else if has("from topics") && locks {
            Some(Self::Lock)
        } else if has("from ride_snapshots") {
            Some(Self::Snapshot)
        } else if has("insert into ride_locations") {
            Some(Self::Location)
        } else if (has("presence_states") || has("ride_locations")) && has("as known") {
            Some(Self::Values)
        } else if has("presence") || has("replicas") {
            Some(Self::Presence)
        } else if has("from events") && has("limit ") && !writes {
            Some(Self::Page)
        } else if has("last_seq") && has("from topics") && !has("insert into topics") {
            Some(Self::Heads)
        } else {
            None
        }
    }
}

/// Follows what one client sends, and names each of its requests: one query, or all up to a Sync.
#[derive(Debug, Default)]
pub(crate) struct Labeller {
    statements: HashMap<Vec<u8>, Option<Point>>,
    is_in_transaction: bool,
    /// Of the transaction: that of the writer, or one about presence.
    transaction: Option<Point>,
    /// Of the request that is being read.
    current: Option<Point>,
    listens: bool,
}

/// A request's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) point: Option<Point>,
    /// Whether the connection is a listener's from now on.
    pub(crate) listens: bool,
}

impl Labeller {
    /// Takes the next frame. `Some`: it completes a request.
    pub(crate) fn take(&mut self, frame: &[u8]) -> Option<Request> {
        let body = frame.get(5..).unwrap_or_default();
        match frame.first() {
            Some(b'P') => {
                let mut parts = body.splitn(3, |byte| *byte == 0);
                let (name, text) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                self.statements.insert(name.to_vec(), Point::of(&String::from_utf8_lossy(text)));
            }
            Some(b'B') => {
                // The portal's name, then the statement's.
                let name = body.split(|byte| *byte == 0).nth(1).unwrap_or_default();
                self.current = self.statements.get(name).copied().flatten();
                if self.current == Some(Point::Append) && !self.is_in_transaction {
                    self.current = Some(Point::Commit);
                }
                if self.is_in_transaction && matches!(self.current, Some(Point::Append | Point::Presence)) {
                    self.transaction = self.current;
                }
            }
            Some(b'Q') => {
                let text = String::from_utf8_lossy(body);
                self.current = None;
                if text.starts_with("begin") {
                    self.is_in_transaction = true;
                    self.transaction = None;
                } else if text.starts_with("commit") || text.starts_with("rollback") {
                    self.is_in_transaction = false;
                    let transaction = self.transaction.take().filter(|_| text.starts_with("commit"));
                    self.current = transaction.map(|of| if of == Point::Append { Point::Commit } else { of });
                }
                self.listens |= text.starts_with("listen");
                return Some(self.request());
            }
            // The connection's begin, whose frame has no type, is answered like a request.
            Some(b'S' | 0) => return Some(self.request()),
            _ => {}
        }
        None
    }

    fn request(&mut self) -> Request {
        Request { point: self.current.take(), listens: self.listens }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, body: &str) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind], length.to_be_bytes().as_slice(), body.as_bytes()].concat()
    }

    /// The points of a client that sends these queries, or executes these statements.
    fn points(sent: &[(u8, &str)]) -> Vec<Option<Point>> {
        let mut labeller = Labeller::default();
        let mut points = Vec::new();
        for (number, (kind, text)) in sent.iter().enumerate() {
            let frames = match kind {
                b'Q' => vec![frame(b'Q', &format!("{text}\0"))],
                _ => {
                    let prepared = frame(b'P', &format!("s{number}\0{text}\0\0\0"));
                    assert_eq!(labeller.take(&prepared), None);
                    assert_eq!(
                        labeller.take(&frame(b'S', "")).unwrap().point,
                        None,
                        "to prepare is no message to hold"
                    );
                    vec![frame(b'B', &format!("\0s{number}\0")), frame(b'E', "\0"), frame(b'S', "")]
                }
            };
            points.extend(frames.iter().filter_map(|frame| labeller.take(frame)).map(|request| request.point));
        }
        points
    }

    #[test]
    fn a_statement_is_known_by_what_it_does() {
        use ridewire::store::sql;
        for (statement, point) in [
            (sql::TOPICS_LOCK, Some(Point::Lock)),
            (sql::TOPICS_TRY_LOCK, Some(Point::Lock)),
            (sql::TOPICS_HEADS, Some(Point::Heads)),
            (sql::EVENTS_PAGES, Some(Point::Page)),
            (sql::SNAPSHOTS_LOAD, Some(Point::Snapshot)),
            (sql::LOCATIONS_PUT, Some(Point::Location)),
            (sql::LOCATIONS_NEWER, Some(Point::Values)),
            (sql::PRESENCE_NEWER, Some(Point::Values)),
            (sql::PRESENCE_ENLIST, Some(Point::Presence)),
            (sql::PRESENCE_LOCK, Some(Point::Presence)),
            (sql::TOPICS_NOTIFY, Some(Point::Notify)),
            (sql::RIDES_BY_ID, None),
        ] {
            assert_eq!(Point::of(statement), point, "{statement}");
        }
    }

    #[test]
    fn the_writers_commit_is_told_from_others_and_from_an_append_within_a_transaction() {
        let append = ridewire::store::sql::EVENTS_APPEND;
        let arrive = ridewire::store::sql::PRESENCE_ARRIVE;
        assert_eq!(points(&[(b'B', append)]), [Some(Point::Commit)]);
        let within = points(&[(b'Q', "begin"), (b'B', append), (b'Q', "commit")]);
        assert_eq!(within, [None, Some(Point::Append), Some(Point::Commit)]);
        let other = points(&[(b'Q', "begin"), (b'B', arrive), (b'Q', "commit")]);
        assert_eq!(other, [None, Some(Point::Presence), Some(Point::Presence)]);
        let nothing = points(&[(b'Q', "begin"), (b'B', append), (b'Q', "rollback"), (b'Q', "begin"), (b'Q', "commit")]);
        assert_eq!(nothing, [None, Some(Point::Append), None, None, None]);
    }
}
