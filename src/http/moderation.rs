//! The moderation of a message before the writer stores it.
//!
//! Only content that would be stored is checked. The writer decides about a request without permission and about a repeated send;
//! the platform's moderation does not receive them. The writer repeats these checks under its locks. If it finds that it would store
//! content that was not checked, because the state changed in between, it stores nothing.

use super::api_error::ApiError;
use super::context::Api;
use super::message_lookup::find;
use super::session::Session;
use crate::domain::{Content, Error, MessageId, Metadata, Review};
use crate::moderation::CheckRequest;
use crate::store::StoreError;
use crate::writer::{EditMessage, Edited, SendMessage};

/// How often an edit is checked again because the message has changed meanwhile.
const MAX_CHECKS: usize = 3;

/// Checks a message before it is sent.
pub(super) async fn review(api: &Api, send: &SendMessage) -> Result<Review, ApiError> {
    if api.moderation.is_none() {
        return Ok(Review::NotNeeded);
    }
    let (snapshot, is_sent) =
        tokio::try_join!(api.shards.of_ride(&send.ride).store.snapshot(&send.ride), is_sent(api, send))?;
    let Some(snapshot) = snapshot.filter(|_| !is_sent) else {
        return Ok(Review::NotChecked);
    };
    let Ok(access) = snapshot.require_access(&send.caller) else { return Ok(Review::NotChecked) };
    if snapshot.require_open_chat(access.role).is_err() {
        return Ok(Review::NotChecked);
    }
    let check = CheckRequest {
        ride_id: &send.ride,
        sender_id: &send.caller.user,
        sender_role: access.role,
        content: &send.content,
        metadata: send.metadata.as_ref(),
        message_id: None,
    };
    match check_content(api, &check).await {
        // An earlier attempt of this send may have been committed during the check.
        Review::Rejected(error) if !self::is_sent(api, send).await? => Err(error.into()),
        review => Ok(review),
    }
}

/// Returns whether this send is stored already.
async fn is_sent(api: &Api, send: &SendMessage) -> Result<bool, StoreError> {
    match &send.client_message_id {
        Some(name) => api.shards.of_ride(&send.ride).store.is_sent(&send.ride, &send.caller.user, name).await,
        None => Ok(false),
    }
}

/// Calls the moderation hook and counts the result.
async fn check_content(api: &Api, check: &CheckRequest<'_>) -> Review {
    let Some(moderation) = &api.moderation else { return Review::NotNeeded };
    let checked = moderation.check(check).await;
    api.metrics.checked(&checked);
    moderation.review(checked)
}

/// Edits a message and returns it as JSON. Moderation checks the message as it would be after the edit. If another edit is committed
/// in between, the message is checked again.
pub(super) async fn edit(
    session: &Session,
    id: MessageId,
    content: Option<Content>,
    metadata: Option<Option<Metadata>>,
) -> Result<String, ApiError> {
    let Session { caller, api, .. } = session;
    for _ in 0..MAX_CHECKS {
        let (message, snapshot, access) = find(api, caller, id).await?;
        let mut edit = EditMessage {
            caller: caller.clone(),
            ride: message.ride.clone(),
            message: id,
            content: content.clone(),
            metadata: metadata.clone(),
            review: if api.moderation.is_some() { Review::NotChecked } else { Review::NotNeeded },
            reviewed: None,
        };
        let may_edit = message.sender == caller.user
            && message.deleted_at.is_none()
            && snapshot.require_open_chat(access.role).is_ok();
        if may_edit
            && api.moderation.is_some()
            && let Some((Some(content), metadata)) = edit.change(&message)
        {
            let check = CheckRequest {
                ride_id: &message.ride,
                sender_id: &caller.user,
                sender_role: access.role,
                content: &content,
                metadata: metadata.as_ref(),
                message_id: Some(id),
            };
            edit.review = match check_content(api, &check).await {
                Review::Rejected(error) => return Err(error.into()),
                review => review,
            };
            edit.reviewed = Some(message);
        }
        match session.writer_of(&edit.ride).submit(edit).await? {
            Edited::Stored(json) => return Ok(json),
            Edited::Outdated => {}
        }
    }
    Err(Error::Unavailable.into())
}
