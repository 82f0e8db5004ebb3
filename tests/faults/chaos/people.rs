//! Who takes part: groups of people with three rides, ten clients in one process. Every group is a stranger to all
//! others.
//!
//! | ride | rider | its clients | driver |
//! |---|---|---|---|
//! | a | ann | stream, poll, merged poll | dora: merged stream, merged poll; poll of c |
//! | b | bob | stream, poll, merged stream | |
//! | c | sid | merged stream; and pries into other groups' rides | |

use super::journal::{Begun, Transport};
use crate::support::Role;

/// The clients of one group, and so of one process.
pub(super) const CLIENTS: usize = 10;

/// A client of a group.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) begun: Begun,
    pub(super) role: Role,
}

/// The rides of a group, each with its rider.
pub(super) fn rides(group: usize) -> [(String, String); 3] {
    [("a", "ann"), ("b", "bob"), ("c", "sid")]
        .map(|(ride, rider)| (format!("ride.{group}{ride}"), format!("{rider}_{group}")))
}

/// The driver of all of them.
pub(super) fn driver(group: usize) -> String {
    format!("dora_{group}")
}

/// The clients of a group that follow and send.
pub(super) fn clients(group: usize) -> [Client; CLIENTS] {
    use Transport::{MergedPoll, MergedStream, Poll, Stream};
    [
        ("ann", Stream, "a"),
        ("ann", Poll, "a"),
        ("ann", MergedPoll, "a"),
        ("bob", Stream, "b"),
        ("bob", Poll, "b"),
        ("bob", MergedStream, "b"),
        ("sid", MergedStream, "c"),
        ("dora", Poll, "c"),
        ("dora", MergedStream, "abc"),
        ("dora", MergedPoll, "abc"),
    ]
    .map(|(name, transport, rides)| {
        let begun = Begun {
            client: format!("{name}_{group}-{transport:?}"),
            user: format!("{name}_{group}"),
            transport,
            rides: rides.chars().map(|ride| format!("ride.{group}{ride}")).collect(),
        };
        Client { begun, role: if name == "dora" { Role::Driver } else { Role::Rider } }
    })
}

/// The client that asks for what is not its user's.
pub(super) fn stranger(group: usize) -> Client {
    let (ride, user) = rides(group)[2].clone();
    let begun = Begun { client: format!("{user}-Pry"), user, transport: Transport::Pry, rides: vec![ride] };
    Client { begun, role: Role::Rider }
}

/// The rides that a text names, wherever it does.
pub(super) fn rides_named_in(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("ride.").map(|(start, mark)| {
        let rest = &text[start + mark.len()..];
        let length = rest.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(rest.len());
        &text[start..start + mark.len() + length]
    })
}
