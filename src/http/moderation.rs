//! What moderation says of a message before the writer stores it.
//!
//! Only of what would be stored: a request of somebody who may not write, or a repeat of a send that is stored, is for the writer to
//! decide, and the platform does not see it. The writer checks all of that again under its locks. Where it finds that a message
//! would be stored that moderation has not seen, because something changed in between, it stores nothing.

use super::context::{Api, Session};
use super::messages::find;
use super::refusal::Refusal;
use crate::domain::{Content, Error, MessageId, Metadata, Review};
use crate::moderation::Check;
use crate::store::StoreError;
use crate::writer::{EditMessage, Edited, SendMessage};

/// How often an edit is checked again because the message has changed meanwhile.
const MOST_CHECKS: usize = 3;

/// What moderation says of a message that is to be sent.
pub(super) async fn review(api: &Api, send: &SendMessage) -> Result<Review, Refusal> {
    if api.moderation.is_none() {
        return Ok(Review::NotNeeded);
    }
    let (snapshot, is_sent) = tokio::try_join!(api.store.snapshot(&send.ride), is_sent(api, send))?;
    let Some(snapshot) = snapshot.filter(|_| !is_sent) else {
        return Ok(Review::Missing);
    };
    let Ok(access) = snapshot.admit(&send.caller) else { return Ok(Review::Missing) };
    if snapshot.require_open_chat(access.role).is_err() {
        return Ok(Review::Missing);
    }
    let check = Check {
        ride_id: &send.ride,
        sender_id: &send.caller.user,
        sender_role: access.role,
        content: &send.content,
        metadata: send.metadata.as_ref(),
        message_id: None,
    };
    match ask(api, &check).await {
        // The first attempt of this send may have been stored while the hook was asked about the second.
        Review::Refused(error) if !self::is_sent(api, send).await? => Err(error.into()),
        review => Ok(review),
    }
}

/// Whether this send is stored already.
async fn is_sent(api: &Api, send: &SendMessage) -> Result<bool, StoreError> {
    match &send.client_message_id {
        Some(name) => api.store.is_sent(&send.ride, &send.caller.user, name).await,
        None => Ok(false),
    }
}

/// Asks the hook, and counts that.
async fn ask(api: &Api, check: &Check<'_>) -> Review {
    let Some(moderation) = &api.moderation else { return Review::NotNeeded };
    let checked = moderation.check(check).await;
    api.metrics.checked(&checked);
    moderation.review(checked)
}

/// Edits a message. What is checked is the message as it would be after the edit; where another edit comes in between, it is checked
/// again. The message as JSON.
pub(super) async fn edit(
    session: &Session,
    id: MessageId,
    content: Option<Content>,
    metadata: Option<Option<Metadata>>,
) -> Result<String, Refusal> {
    let Session { caller, api, writer } = session;
    for _ in 0..MOST_CHECKS {
        let (message, snapshot, access) = find(api, caller, id).await?;
        let mut edit = EditMessage {
            caller: caller.clone(),
            ride: message.ride.clone(),
            message: id,
            content: content.clone(),
            metadata: metadata.clone(),
            review: if api.moderation.is_some() { Review::Missing } else { Review::NotNeeded },
            reviewed: None,
        };
        let may_edit = message.sender == caller.user
            && message.deleted_at.is_none()
            && snapshot.require_open_chat(access.role).is_ok();
        if may_edit
            && api.moderation.is_some()
            && let Some((Some(content), metadata)) = edit.change(&message)
        {
            let check = Check {
                ride_id: &message.ride,
                sender_id: &caller.user,
                sender_role: access.role,
                content: &content,
                metadata: metadata.as_ref(),
                message_id: Some(id),
            };
            edit.review = match ask(api, &check).await {
                Review::Refused(error) => return Err(error.into()),
                review => review,
            };
            edit.reviewed = Some(message);
        }
        match writer.submit(edit).await? {
            Edited::Stored(json) => return Ok(json),
            Edited::Outdated => {}
        }
    }
    Err(Error::Unavailable.into())
}
