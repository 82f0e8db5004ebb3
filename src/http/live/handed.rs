//! Notes which messages are handed to participants, for the trace of a message.

use serde::Deserialize;

use super::reader::{Handed, Reader};
use crate::domain::{Caller, EventType, RideId};
use crate::http::context::Api;
use crate::http::metrics::Transport;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    ride_id: &'a str,
}

/// The ride that the data of a `message:new` names.
pub(super) fn ride_of(data: &str) -> Option<RideId> {
    let Data { ride_id } = serde_json::from_str(data).ok()?;
    RideId::parse(ride_id).ok()
}

/// Records the messages among these events, which are handed to the caller now.
pub(super) fn record(events: &[Handed], reader: &impl Reader, caller: &Caller, api: &Api, transport: Transport) {
    let messages = events.iter().filter(|handed| handed.event.kind == EventType::MessageNew);
    let messages = messages.filter_map(|handed| Some((reader.ride_as_participant(&handed.event)?, handed.event.seq)));
    api.handovers.record(&caller.user, transport.as_str(), messages);
}
