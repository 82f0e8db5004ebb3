//! `/messages/{messageId}/reactions/{emoji}`.

use salvo::http::StatusCode;
use salvo::oapi::endpoint;
use salvo::{Response, Writer as _};

use super::api_error::ApiError;
use super::message_lookup::find;
use super::params::{EmojiPath, MessagePath};
use super::session::Session;
use crate::writer::React;

async fn react(
    session: Session,
    message: MessagePath,
    emoji: EmojiPath,
    removed: bool,
    res: &mut Response,
) -> Result<(), ApiError> {
    let (message, ..) = find(&session.api, &session.caller, message.0).await?;
    let writer = session.writer_of(&message.ride);
    let command = React { caller: session.caller, ride: message.ride, message: message.id, emoji: emoji.0, removed };
    writer.submit(command).await?;
    res.status_code(StatusCode::NO_CONTENT);
    Ok(())
}

/// Add a reaction
///
/// A user has at most one reaction per emoji; adding it again changes nothing. A message can have at most 20 different
/// emoji.
#[endpoint(tags("messages"), operation_id = "putReaction", responses(
    (status_code = 204, description = "The reaction exists"),
    (status_code = 403, description = "`forbidden`: the `service` role cannot react"),
    (status_code = 404, description = "`message_not_found`"),
    (status_code = 409, description = "`message_deleted`, `chat_closed`, or `too_many_reactions`")))]
pub(super) async fn put_reaction(
    session: Session,
    message: MessagePath,
    emoji: EmojiPath,
    res: &mut Response,
) -> Result<(), ApiError> {
    react(session, message, emoji, false, res).await
}

/// Remove a reaction
#[endpoint(tags("messages"), operation_id = "deleteReaction", responses(
    (status_code = 204, description = "The reaction does not exist"),
    (status_code = 403, description = "`forbidden`: the `service` role cannot react"),
    (status_code = 404, description = "`message_not_found`"),
    (status_code = 409, description = "`message_deleted`, or `chat_closed`")))]
pub(super) async fn delete_reaction(
    session: Session,
    message: MessagePath,
    emoji: EmojiPath,
    res: &mut Response,
) -> Result<(), ApiError> {
    react(session, message, emoji, true, res).await
}
