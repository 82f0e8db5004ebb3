//! The users of a run: groups of three rides and ten clients, each group in one process. No group may see the rides of
//! another group.
//!
//! | ride | rider | its clients | driver |
//! |---|---|---|---|
//! | a | ann | stream, poll, merged poll | dora: merged stream, merged poll; poll of c |
//! | b | bob | stream, poll, merged stream | |
//! | c | sid | merged stream; and probes for rides of other groups | |

use super::journal::{ClientStart, Transport};
use crate::support::Role;

/// The number of clients in a group, and therefore in a process.
pub(super) const CLIENTS: usize = 10;

/// A client of a group.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) start: ClientStart,
    pub(super) role: Role,
}

/// Returns the rides of a group, each with its rider.
pub(super) fn rides(group: usize) -> [(String, String); 3] {
    [("a", "ann"), ("b", "bob"), ("c", "sid")]
        .map(|(ride, rider)| (format!("ride.{group}{ride}"), format!("{rider}_{group}")))
}

/// Returns the driver of all rides of a group.
pub(super) fn driver(group: usize) -> String {
    format!("dora_{group}")
}

/// Returns the clients of a group that read and send.
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
        let start = ClientStart {
            client: format!("{name}_{group}-{transport:?}"),
            user: format!("{name}_{group}"),
            transport,
            rides: rides.chars().map(|ride| format!("ride.{group}{ride}")).collect(),
        };
        Client { start, role: if name == "dora" { Role::Driver } else { Role::Rider } }
    })
}

/// Returns the client that requests rides of another group.
pub(super) fn outsider(group: usize) -> Client {
    let (ride, user) = rides(group)[2].clone();
    let start = ClientStart { client: format!("{user}-Probe"), user, transport: Transport::Probe, rides: vec![ride] };
    Client { start, role: Role::Rider }
}

/// Returns the ids of all rides that a text contains.
pub(super) fn ride_ids_in(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("ride.").map(|(start, prefix)| {
        let rest = &text[start + prefix.len()..];
        let length = rest.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(rest.len());
        &text[start..start + prefix.len() + length]
    })
}
