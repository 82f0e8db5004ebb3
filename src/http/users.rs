//! `/users`: erase a user, and revoke a user's tokens.

use futures_util::future::try_join_all;
use salvo::oapi::endpoint;
use salvo::{Response, Scribe, Writer as _};
use serde::Serialize;

use super::api_error::ApiError;
use super::audit;
use super::body::Json;
use super::params::UserPath;
use super::schema;
use super::session::Session;
use crate::domain::{Caller, Error, Role, Time, Topic, UserId};
use crate::shards::Shard;
use crate::store::Store;
use crate::writer::{EraseMessage, EraseReactions, Writer};

/// The number of messages that are erased at once: a batch that delays other writes by a few milliseconds.
const BATCH_SIZE: i64 = 200;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Erased<'a> {
    user_id: &'a UserId,
    messages: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Revoked<'a> {
    user_id: &'a UserId,
    revoked_at: Time,
}

fn require_service(caller: &Caller) -> Result<(), Error> {
    if caller.role == Role::Service {
        Ok(())
    } else {
        Err(Error::Forbidden("only the `service` role can erase users and revoke tokens"))
    }
}

/// Erase a user
///
/// For the platform (service). Permanently erases all content of the user from the messages, the logs, the feed and the memory
/// of every replica: messages, reactions, reasons, their user topic, locations and presence. Tombstones of the messages remain,
/// without the `clientMessageId`. The user's id remains in rides and receipts. Revoke the user's tokens first: content that is
/// created later is not erased. The response is sent when the erasure is complete. After a 503 or a lost connection, repeat the
/// request to complete it.
#[endpoint(tags("operations"), operation_id = "eraseUser", responses(
    (status_code = 200, description = "Erased", body = schema::Erased),
    (status_code = 403, description = "`forbidden`: not the `service` role")))]
pub(super) async fn erase_user(session: Session, user: UserPath, res: &mut Response) -> Result<(), ApiError> {
    require_service(&session.caller)?;
    let UserPath(user) = user;
    let (api, writers) = (&session.api, session.writers());
    let erasing = api.shards.iter().map(|shard| erase_in_rides(shard, writers.get(shard.id), &session.caller, &user));
    let messages = try_join_all(erasing).await?.into_iter().sum();
    if api.shards.map().count() > 1 {
        // What is on the way to users of other shards is erased on their topics.
        try_join_all(api.shards.iter().map(|shard| shard.store.wait_until_outbox_is_sent())).await?;
    }
    try_join_all(api.shards.iter().map(|shard| erase_topics(shard, &user, api.relay.is_some()))).await?;
    audit::erase(api, &user).await?;
    Json::<schema::Erased>::ok(&Erased { user_id: &user, messages })?.render(res);
    Ok(())
}

/// Erases a user from the rides of one shard. Returns the number of erased messages.
async fn erase_in_rides(shard: &Shard, writer: &Writer, caller: &Caller, user: &UserId) -> Result<usize, ApiError> {
    let (mut after, mut messages) = (None, 0);
    loop {
        let page = shard.store.messages_of_sender(user, after.as_ref(), BATCH_SIZE).await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        messages += page.len();
        let erasing = page
            .into_iter()
            .map(|((ride, _), message)| writer.submit(EraseMessage { by: caller.user.clone(), ride, message }));
        try_join_all(erasing).await?;
    }
    erase_reactions(&shard.store, writer, user).await?;
    while shard.store.erase_event_text(user, BATCH_SIZE).await? > 0 {}
    Ok(messages)
}

/// Erases a user from the topics of all users of one shard, and then from the memory of this replica.
async fn erase_topics(shard: &Shard, user: &UserId, has_feed: bool) -> Result<(), ApiError> {
    while shard.store.erase_event_text(user, BATCH_SIZE).await? > 0 {}
    let driver = shard.store.erase_topic(user).await?;
    let erasures = shard.store.erase_from_feed(user, has_feed).await?;
    // The database has no content of the user any more. Next, this replica evicts it from memory, and the others are notified.
    driver.into_iter().for_each(|update| shard.publish(update));
    shard.hub.hint([(Topic::users(), erasures)]);
    shard.notifier.notify_heads([(Topic::users(), erasures)].into());
    Ok(shard.hub.check(&shard.store).await?)
}

/// Removes all reactions of a user, page by page, until a page is empty. It thereby also finds reactions that are added
/// meanwhile.
async fn erase_reactions(store: &Store, writer: &Writer, user: &UserId) -> Result<(), ApiError> {
    loop {
        let page = store.messages_of_reactor(user, BATCH_SIZE).await?;
        if page.is_empty() {
            return Ok(());
        }
        let erasing = page
            .into_iter()
            .map(|((ride, _), message)| writer.submit(EraseReactions { user: user.clone(), ride, message }));
        try_join_all(erasing).await?;
    }
}

/// Revoke a user's tokens
///
/// For the platform (service). All replicas reject the user's tokens that were issued until now, and stream tickets that were
/// created with them, and end their open streams and polls. This takes effect immediately, or with the next fallback poll where
/// notifications do not arrive. Tokens that are issued later are valid. A token that is issued in the same second counts as
/// issued before.
#[endpoint(tags("operations"), operation_id = "revokeUser", responses(
    (status_code = 200, description = "Revoked", body = schema::Revoked),
    (status_code = 403, description = "`forbidden`: not the `service` role")))]
pub(super) async fn revoke_user(session: Session, user: UserPath, res: &mut Response) -> Result<(), ApiError> {
    let Session { caller, api, .. } = session;
    let UserPath(user) = user;
    require_service(&caller)?;
    let first = api.shards.first();
    let revoked_at = first.store.revoke(&user).await?;
    // This replica applies the revocation before it responds. The others are notified.
    api.revocations.refresh(&first.store).await?;
    first.notifier.notify_revoked();
    Json::<schema::Revoked>::ok(&Revoked { user_id: &user, revoked_at })?.render(res);
    Ok(())
}
