//! `/users`: what the platform asks for about one person.

use salvo::oapi::endpoint;
use salvo::{Response, Scribe, Writer as _};
use serde::Serialize;

use super::audit;
use super::body::Json;
use super::context::{Api, Session};
use super::params::UserPath;
use super::refusal::Refusal;
use super::schema;
use crate::domain::{Caller, Error, Role, Time, Topic, UserId};
use crate::writer::{EraseMessage, EraseReactions, Writer};

/// How many messages are erased together: a batch that holds everybody else up for milliseconds.
const PART: i64 = 200;

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
    if caller.role == Role::Service { Ok(()) } else { Err(Error::Forbidden("only the service may do this to a user")) }
}

/// Erase a user
///
/// For the platform (service). All that the user has written is erased for good, from the messages, the logs, the feed, and the
/// memory of every replica; tombstones stay in their place, without the `clientMessageId`. So are their reactions, the reasons that
/// they gave, their own topic, where they were, and when they were online. Their id stays where others' rides and marks
/// name it. Revoke the user's tokens first: what they do afterwards is not erased. Responds when all of it is done; after a 503 or a
/// lost connection, repeat the request to do the rest.
#[endpoint(tags("operations"), operation_id = "eraseUser", responses(
    (status_code = 200, description = "Erased", body = schema::Erased),
    (status_code = 403, description = "`forbidden`: not the service")))]
pub(super) async fn erase_user(session: Session, user: UserPath, res: &mut Response) -> Result<(), Refusal> {
    let Session { caller, api, writer } = session;
    let UserPath(user) = user;
    require_service(&caller)?;
    let (mut after, mut messages) = (None, 0);
    loop {
        let page = api.store.messages_of_sender(&user, after.as_ref(), PART).await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        messages += page.len();
        let erasing = page
            .into_iter()
            .map(|((ride, _), message)| writer.submit(EraseMessage { by: caller.user.clone(), ride, message }));
        futures_util::future::try_join_all(erasing).await?;
    }
    erase_reactions(&api, &writer, &user).await?;
    while api.store.erase_words(&user, PART).await? > 0 {}
    let driver = api.store.erase_topic(&user).await?;
    let erasures = api.store.erase_from_feed(&user, api.relay.is_some()).await?;
    // Nothing of it is in the database any more: now it goes from the memory of this replica, and the others are notified.
    driver.into_iter().for_each(|signal| api.tell(signal));
    api.hub.hint([(Topic::users(), erasures)]);
    api.notifier.tell_heads([(Topic::users(), erasures)].into());
    api.hub.check(&api.store).await?;
    audit::erase(&api, &user).await?;
    Json::<schema::Erased>::ok(&Erased { user_id: &user, messages })?.render(res);
    Ok(())
}

/// Takes back all reactions of a user, as far as they are found: one that comes meanwhile is found by the next page.
async fn erase_reactions(api: &Api, writer: &Writer, user: &UserId) -> Result<(), Refusal> {
    loop {
        let page = api.store.messages_of_reactor(user, PART).await?;
        if page.is_empty() {
            return Ok(());
        }
        let erasing = page
            .into_iter()
            .map(|((ride, _), message)| writer.submit(EraseReactions { user: user.clone(), ride, message }));
        futures_util::future::try_join_all(erasing).await?;
    }
}

/// Revoke a user's logins
///
/// For the platform (service). Tokens of the user that were issued until now, and stream tickets made with them, are
/// refused from now on, and what is open with them ends, on every replica: at once where hints arrive, else with the next
/// fallback poll. Tokens issued later are good; one of the same second counts as issued before.
#[endpoint(tags("operations"), operation_id = "revokeUser", responses(
    (status_code = 200, description = "Revoked", body = schema::Revoked),
    (status_code = 403, description = "`forbidden`: not the service")))]
pub(super) async fn revoke_user(session: Session, user: UserPath, res: &mut Response) -> Result<(), Refusal> {
    let Session { caller, api, .. } = session;
    let UserPath(user) = user;
    require_service(&caller)?;
    let revoked_at = api.store.revoke(&user).await?;
    // Here before it is answered; the other replicas are told.
    api.revocations.refresh(&api.store).await?;
    api.notifier.tell_revoked();
    Json::<schema::Revoked>::ok(&Revoked { user_id: &user, revoked_at })?.render(res);
    Ok(())
}
