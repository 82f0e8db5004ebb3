//! `/messages/{messageId}/reactions/{emoji}`.

use salvo::http::StatusCode;
use salvo::oapi::endpoint;
use salvo::{Response, Writer as _};

use super::context::Session;
use super::messages::find;
use super::params::{EmojiPath, MessagePath};
use super::refusal::Refusal;
use crate::writer::React;

async fn react(
    session: Session,
    message: MessagePath,
    emoji: EmojiPath,
    removed: bool,
    res: &mut Response,
) -> Result<(), Refusal> {
    let (message, ..) = find(&session.api, &session.caller, message.0).await?;
    let command = React { caller: session.caller, ride: message.ride, message: message.id, emoji: emoji.0, removed };
    session.writer.submit(command).await?;
    res.status_code(StatusCode::NO_CONTENT);
    Ok(())
}

/// React to a message
///
/// Once with each emoji; again changes nothing. A message has at most 20 kinds.
#[endpoint(tags("messages"), operation_id = "putReaction", responses(
    (status_code = 204, description = "It is there"),
    (status_code = 403, description = "`forbidden`: the service does not react"),
    (status_code = 404, description = "`message_not_found`"),
    (status_code = 409, description = "`message_deleted`, `chat_closed`, or `too_many_reactions`")))]
pub(super) async fn put_reaction(
    session: Session,
    message: MessagePath,
    emoji: EmojiPath,
    res: &mut Response,
) -> Result<(), Refusal> {
    react(session, message, emoji, false, res).await
}

/// Take a reaction back
#[endpoint(tags("messages"), operation_id = "deleteReaction", responses(
    (status_code = 204, description = "It is gone"),
    (status_code = 403, description = "`forbidden`: the service does not react"),
    (status_code = 404, description = "`message_not_found`"),
    (status_code = 409, description = "`message_deleted`, or `chat_closed`")))]
pub(super) async fn delete_reaction(
    session: Session,
    message: MessagePath,
    emoji: EmojiPath,
    res: &mut Response,
) -> Result<(), Refusal> {
    react(session, message, emoji, true, res).await
}
