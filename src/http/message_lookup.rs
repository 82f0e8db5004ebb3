//! Finds the message that a request names.

use std::sync::Arc;

use super::api_error::ApiError;
use super::context::Api;
use crate::domain::{Access, Caller, Error, Message, MessageId, RideId, RideSnapshot};

/// Reads a message that the caller may see, its ride, and the caller's access to the ride.
pub(super) async fn find(
    api: &Arc<Api>,
    caller: &Caller,
    id: MessageId,
) -> Result<(Message, RideSnapshot, Access), ApiError> {
    let store = &api.shards.of_message(id).store;
    let message = store.message(id).await?;
    // The same statements run where the message does not exist, so the response time does not reveal whether it exists.
    let ride = match &message {
        Some(message) => message.ride.clone(),
        None => RideId::parse(&id.to_string()).map_err(|_| Error::Internal)?,
    };
    let snapshot = store.snapshot(&ride).await?;
    let (Some(message), Some(snapshot)) = (message, snapshot) else { return Err(Error::MessageNotFound.into()) };
    let access = snapshot.require_access(caller).map_err(|_| Error::MessageNotFound)?;
    if !snapshot.access_intervals(caller).contains(message.seq) {
        return Err(Error::MessageNotFound.into());
    }
    Ok((message, snapshot, access))
}
