//! Classifies the messages between a replica and Postgres.
//!
//! A statement is classified by what it does, not by its text or file, so that a schedule keeps its meaning when a statement changes.

use std::collections::HashMap;

/// A kind of message, which a gate can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum MessageKind {
    /// Locks topics: for a batch, and for the lookup of a batch in doubt.
    Lock,
    /// Appends events within a transaction.
    Append,
    /// Commits what the writer has appended: COMMIT, or an append that is a transaction of its own.
    Commit,
    /// Reads a page of a log.
    Page,
    /// Reads the heads of logs without a lock.
    Heads,
    /// Reads the state of a ride or its history.
    Snapshot,
    /// Stores a location.
    Location,
    /// Reads values whose notification may have been lost.
    Values,
    /// Registers or unregisters a topic that has readers, to which values are sent.
    Follow,
    /// Sends a NOTIFY.
    Notify,
    /// Reads or writes presence and leases.
    Presence,
    /// A notification to a replica. It has no request.
    Hint,
}

impl MessageKind {
    pub(crate) const ALL: [(Self, &'static str); 12] = [
        (Self::Lock, "lock"),
        (Self::Append, "append"),
        (Self::Commit, "commit"),
        (Self::Page, "page"),
        (Self::Heads, "heads"),
        (Self::Snapshot, "snapshot"),
        (Self::Location, "location"),
        (Self::Values, "values"),
        (Self::Follow, "follow"),
        (Self::Notify, "notify"),
        (Self::Presence, "presence"),
        (Self::Hint, "hint"),
    ];

    /// Returns the kind of a statement, if a gate can hold it.
    fn of(statement: &str) -> Option<Self> {
        let has = |words: &str| statement.contains(words);
        let locks = has("for update") || has("for no key update");
        let writes = has("insert into") || has("delete from") || has("update ");
        if has("pg_notify(") {
            Some(Self::Notify)
        } else if has("followers") {
            Some(Self::Follow)
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

/// A complete request.
#[derive(Debug, Default)]
pub(crate) struct RequestClassifier {
    statements: HashMap<Vec<u8>, Option<MessageKind>>,
    is_in_transaction: bool,
    /// The kind of the current transaction: of the writer, or of presence.
    transaction: Option<MessageKind>,
    /// The kind of the request that is being read.
    current: Option<MessageKind>,
    listens: bool,
}

/// A request's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) kind: Option<MessageKind>,
    /// Whether the connection is a listener's from now on.
    pub(crate) listens: bool,
}

impl RequestClassifier {
    /// Adds the next frame. Returns the request that it completes, if any.
    pub(crate) fn push(&mut self, frame: &[u8]) -> Option<Request> {
        let body = frame.get(5..).unwrap_or_default();
        match frame.first() {
            Some(b'P') => {
                let mut parts = body.splitn(3, |byte| *byte == 0);
                let (name, text) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                self.statements.insert(name.to_vec(), MessageKind::of(&String::from_utf8_lossy(text)));
            }
            Some(b'B') => {
                // The portal's name comes first, then the statement's.
                let name = body.split(|byte| *byte == 0).nth(1).unwrap_or_default();
                self.current = self.statements.get(name).copied().flatten();
                if self.current == Some(MessageKind::Append) && !self.is_in_transaction {
                    self.current = Some(MessageKind::Commit);
                }
                if self.is_in_transaction && matches!(self.current, Some(MessageKind::Append | MessageKind::Presence)) {
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
                    self.current =
                        transaction.map(|of| if of == MessageKind::Append { MessageKind::Commit } else { of });
                }
                self.listens |= text.starts_with("listen");
                return Some(self.request());
            }
            // The startup message, whose frame has no type, gets a response like a request.
            Some(b'S' | 0) => return Some(self.request()),
            _ => {}
        }
        None
    }

    fn request(&mut self) -> Request {
        Request { kind: self.current.take(), listens: self.listens }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, body: &str) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind], length.to_be_bytes().as_slice(), body.as_bytes()].concat()
    }

    /// Returns the kinds of the requests of a client that sends these queries, or executes these statements.
    fn kinds(sent: &[(u8, &str)]) -> Vec<Option<MessageKind>> {
        let mut classifier = RequestClassifier::default();
        let mut kinds = Vec::new();
        for (number, (kind, text)) in sent.iter().enumerate() {
            let frames = match kind {
                b'Q' => vec![frame(b'Q', &format!("{text}\0"))],
                _ => {
                    let prepared = frame(b'P', &format!("s{number}\0{text}\0\0\0"));
                    assert_eq!(classifier.push(&prepared), None);
                    assert_eq!(classifier.push(&frame(b'S', "")).unwrap().kind, None, "a prepare cannot be held");
                    vec![frame(b'B', &format!("\0s{number}\0")), frame(b'E', "\0"), frame(b'S', "")]
                }
            };
            kinds.extend(frames.iter().filter_map(|frame| classifier.push(frame)).map(|request| request.kind));
        }
        kinds
    }

    #[test]
    fn statements_are_classified_by_what_they_do() {
        use ridewire::store::sql;
        for (statement, kind) in [
            (sql::TOPICS_LOCK, Some(MessageKind::Lock)),
            (sql::TOPICS_TRY_LOCK, Some(MessageKind::Lock)),
            (sql::TOPICS_HEADS, Some(MessageKind::Heads)),
            (sql::EVENTS_PAGES, Some(MessageKind::Page)),
            (sql::SNAPSHOTS_LOAD, Some(MessageKind::Snapshot)),
            (sql::LOCATIONS_PUT, Some(MessageKind::Location)),
            (sql::LOCATIONS_NEWER, Some(MessageKind::Values)),
            (sql::PRESENCE_NEWER, Some(MessageKind::Values)),
            (sql::PRESENCE_REGISTER_REPLICA, Some(MessageKind::Presence)),
            (sql::PRESENCE_LOCK, Some(MessageKind::Presence)),
            (sql::FOLLOWERS_ADD, Some(MessageKind::Follow)),
            (sql::FOLLOWERS_REMOVE, Some(MessageKind::Follow)),
            (sql::TOPICS_NOTIFY, Some(MessageKind::Notify)),
            (sql::RIDES_BY_ID, None),
        ] {
            assert_eq!(MessageKind::of(statement), kind, "{statement}");
        }
    }

    #[test]
    fn the_writers_commit_is_distinguished_from_others_and_from_an_append_within_a_transaction() {
        let append = ridewire::store::sql::EVENTS_APPEND;
        let connect = ridewire::store::sql::PRESENCE_CONNECT;
        assert_eq!(kinds(&[(b'B', append)]), [Some(MessageKind::Commit)]);
        let within = kinds(&[(b'Q', "begin"), (b'B', append), (b'Q', "commit")]);
        assert_eq!(within, [None, Some(MessageKind::Append), Some(MessageKind::Commit)]);
        let other = kinds(&[(b'Q', "begin"), (b'B', connect), (b'Q', "commit")]);
        assert_eq!(other, [None, Some(MessageKind::Presence), Some(MessageKind::Presence)]);
        let nothing = kinds(&[(b'Q', "begin"), (b'B', append), (b'Q', "rollback"), (b'Q', "begin"), (b'Q', "commit")]);
        assert_eq!(nothing, [None, Some(MessageKind::Append), None, None, None]);
    }
}
