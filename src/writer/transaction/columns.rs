//! The rows that the statements of a commit take, each with named columns.
//!
//! A statement takes an array for each column, and unnests them. The arrays are parameters, which have numbers and no names. So each
//! kind of row is declared once, with the names that its statement gives to the columns, in the same order. A test compares both.

use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::domain::{BatchId, Seq};
use crate::store::{Session, StoreError};

/// A parameter of a statement.
pub(super) type Param<'a> = &'a (dyn ToSql + Sync);

/// Rows as columns.
pub(super) trait Columns {
    /// The names of the columns.
    #[cfg_attr(not(test), expect(dead_code, reason = "compared with the statements' names"))]
    const NAMES: &'static [&'static str];

    /// Returns the arrays, as parameters.
    fn params(&self) -> Vec<Param<'_>>;

    /// Returns whether there are no rows.
    fn is_empty(&self) -> bool;
}

/// Executes a statement that takes rows, then `further` parameters. A statement without rows is not sent.
pub(super) async fn execute(
    session: &Session,
    statement: &'static str,
    rows: &impl Columns,
    further: &[Param<'_>],
) -> Result<u64, StoreError> {
    if rows.is_empty() {
        return Ok(0);
    }
    session.execute(statement, &[rows.params().as_slice(), further].concat()).await
}

/// Declares a row, and its columns as arrays.
macro_rules! columns {
    ($(#[$doc:meta])* $row:ident of $rows:ident { $($column:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $row<'a> {
            $(pub(super) $column: $type,)*
        }

        #[doc = concat!("The columns of each [`", stringify!($row), "`].")]
        #[derive(Debug, Default)]
        pub(super) struct $rows<'a> {
            $($column: Vec<$type>,)*
        }

        impl Columns for $rows<'_> {
            const NAMES: &'static [&'static str] = &[$(stringify!($column),)*];

            fn params(&self) -> Vec<Param<'_>> {
                vec![$(&self.$column,)*]
            }

            fn is_empty(&self) -> bool {
                [$(self.$column.is_empty(),)*].contains(&true)
            }
        }

        impl<'a> FromIterator<$row<'a>> for $rows<'a> {
            fn from_iter<I: IntoIterator<Item = $row<'a>>>(rows: I) -> Self {
                let mut columns = Self::default();
                for row in rows {
                    $(columns.$column.push(row.$column);)*
                }
                columns
            }
        }
    };
}

columns! {
    /// An event to append.
    EventRow of EventRows {
        topic: &'a str,
        seq: Seq,
        event_type: &'a str,
        data: &'a str,
        message_id: Option<Uuid>,
        trace: Option<String>,
    }
}

columns! {
    /// The head of a topic, which the statement compares, and its new value.
    TopicEndRow of TopicEndRows {
        topic: &'a str,
        expected_seq: Seq,
        expected_batch: Option<BatchId>,
        last_seq: Seq,
    }
}

columns! {
    /// The message of a `message:new` event.
    MessageRow of MessageRows {
        id: Uuid,
        ride_id: &'a str,
        seq: Seq,
        sender_id: &'a str,
        sender_role: &'a str,
        content: Option<&'a str>,
        metadata: Option<&'a str>,
        client_message_id: Option<&'a str>,
        content_hash: &'a [u8],
    }
}

columns! {
    /// A ride that is new or changed.
    RideRow of RideRows {
        ride_id: &'a str,
        status: &'a str,
        rider_id: &'a str,
        driver_id: Option<&'a str>,
        accepted: bool,
        ended_at: Option<Timestamp>,
        closed_at: Option<Timestamp>,
        created_at: Timestamp,
        updated_at: Timestamp,
        chat_opens_at: Option<&'a str>,
        rider_grace_seconds: Option<i64>,
        driver_grace_seconds: Option<i64>,
        rider_closes_at: Option<Timestamp>,
        driver_closes_at: Option<Timestamp>,
        closed_seq: Option<Seq>,
    }
}

columns! {
    /// A participant that is new or changed.
    ParticipantRow of ParticipantRows {
        ride_id: &'a str,
        user_id: &'a str,
        role: &'a str,
        from_seq: Seq,
        until_seq: Option<Seq>,
        joined_at: Timestamp,
        is_over: bool,
        left_status: Option<&'a str>,
        left_updated_at: Option<Timestamp>,
        user_shard: Option<i64>,
    }
}

columns! {
    /// An event for a user of another shard.
    OutboxEventRow of OutboxEventRows {
        ride_id: &'a str,
        user_id: &'a str,
        event_type: &'a str,
        data: &'a str,
        trace: Option<String>,
    }
}

columns! {
    /// A ride of another shard in the list of a user.
    RemoteRideRow of RemoteRideRows {
        user_id: &'a str,
        ride_id: &'a str,
        last_id: i64,
        from_seq: Seq,
        until_seq: Option<Seq>,
        joined_at: Timestamp,
        status: &'a str,
        is_ended: bool,
        is_over: bool,
        is_read: bool,
    }
}

columns! {
    /// The watermarks of a participant.
    ReceiptRow of ReceiptRows {
        ride_id: &'a str,
        user_id: &'a str,
        role: &'a str,
        delivered_seq: Seq,
        read_seq: Seq,
    }
}

columns! {
    /// A message that was edited, deleted, labelled or reacted to.
    ChangedMessageRow of ChangedMessageRows {
        id: Uuid,
        content: Option<&'a str>,
        metadata: Option<&'a str>,
        edited_at: Option<Timestamp>,
        deleted_at: Option<Timestamp>,
        reactions: String,
        labels: Option<String>,
        client_message_id: Option<&'a str>,
    }
}

columns! {
    /// A flag of a message, for the feed.
    FlagRow of FlagRows {
        id: Uuid,
        message_id: Uuid,
        topic: &'a str,
        seq: Seq,
        labels: String,
    }
}

columns! {
    /// A deleted message, and the data that replaces that of its events.
    TombstoneRow of TombstoneRows {
        topic: &'a str,
        seq: Seq,
        message_id: Uuid,
        tombstone: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sql;

    /// Checks that a statement unnests its parameters from number `first` on as these columns: in an alias, or as an insert's list.
    fn check(statement: &str, first: usize, columns: &[&str]) {
        let text: String = statement.split_whitespace().collect::<Vec<_>>().join(" ");
        let list = format!("({})", columns.join(", "));
        let at = text.find(&list).unwrap_or_else(|| panic!("{list} is missing in {statement}"));
        let calls: Vec<_> = text.match_indices("unnest(").map(|(at, _)| at).collect();
        // The alias follows its call; the list of an insert precedes it.
        let call = calls.iter().copied().rfind(|call| *call < at).or(calls.first().copied()).unwrap();
        let arguments = text[call + "unnest(".len()..].split(')').next().unwrap();
        let numbers = arguments.split(',').map(|argument| argument.trim().split("::").next().unwrap().to_owned());
        let expected: Vec<_> = (first..first + columns.len()).map(|number| format!("${number}")).collect();
        assert_eq!(numbers.collect::<Vec<_>>(), expected, "{list} in {statement}");
    }

    #[test]
    fn statements_name_the_columns_as_the_rows_do() {
        check(sql::EVENTS_APPEND, 1, EventRows::NAMES);
        check(sql::EVENTS_APPEND, 8, TopicEndRows::NAMES);
        check(sql::EVENTS_APPEND, 12, MessageRows::NAMES);
        check(sql::RIDES_PUT, 1, RideRows::NAMES);
        check(sql::PARTICIPANTS_PUT, 1, ParticipantRows::NAMES);
        check(sql::RECEIPTS_PUT, 1, ReceiptRows::NAMES);
        check(sql::MESSAGES_UPDATE, 1, ChangedMessageRows::NAMES);
        check(sql::FLAGS_PUT, 1, FlagRows::NAMES);
        check(sql::EVENTS_ERASE, 1, TombstoneRows::NAMES);
        check(sql::REMOTE_RIDES_PUT, 1, RemoteRideRows::NAMES);
        let events = [OutboxEventRows::NAMES, &["number"]].concat();
        assert!(sql::OUTBOX_PUT.contains(&format!("({})", events.join(", "))), "{events:?}");
    }
}
