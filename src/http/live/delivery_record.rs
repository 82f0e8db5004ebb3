//! Records which messages are delivered to participants, for the message trace.

use super::reader::{EventWithCursor, Reader};
use crate::domain::{Caller, EventType};
use crate::http::context::Api;
use crate::http::metrics::Transport;

/// Records the messages among the events that are now delivered to the caller.
pub(super) fn record(
    events: &[EventWithCursor],
    reader: &impl Reader,
    caller: &Caller,
    api: &Api,
    transport: Transport,
) {
    let messages = events.iter().filter(|one| one.event.kind == EventType::MessageNew);
    let messages = messages.filter_map(|one| Some((reader.ride_as_participant(&one.event)?, one.event.seq)));
    api.handovers.record(&caller.user, transport.as_str(), messages);
}
