//! The guarantees, as properties of each reachable state; and states that must be reachable, because otherwise the model proves nothing.

use stateright::Property;

use crate::database::{COMMANDS, Command, Effects, Event, EventId, Kind, Request, Row, Topic};
use crate::protocol::Scenario;
use crate::system::SystemState;
use crate::writer::Response;

/// A command with a 2xx response is in the log. With an asynchronous standby, a failover may lose it afterwards.
pub(crate) const NOT_LOST: &str = "no acknowledged event is lost";
/// A command is stored at most once, even if its event was trimmed since.
pub(crate) const ONCE: &str = "no command is stored twice";
/// After a message is deleted, no event has its content.
pub(crate) const ERASED: &str = "no erased content returns";
/// A log has all seqs up to its head, in commit order. Retention deletes from its beginning.
pub(crate) const ORDER: &str = "each log is complete and in order";
/// A command with a 4xx response is not in the log.
pub(crate) const REJECTED_NOT_STORED: &str = "no rejected command is stored";
/// No message follows the event that closes a ride's chat, before an event that reopens it.
pub(crate) const RIGHTS: &str = "no message is stored after the event that closes the chat";
/// The row of a ride and its topic exist together, and each ride's log has a first event.
pub(crate) const WHOLE: &str = "a commit is stored as a whole";

/// The response is 503, and the command is in the log.
pub(crate) const UNKNOWN_STORED: &str = "stored, with a 503 response";
/// The response is 503, and the command never gets into the log.
pub(crate) const UNKNOWN_NOT_STORED: &str = "not stored, with a 503 response";
/// An acknowledged message was deleted by another replica.
pub(crate) const STORED_ERASED: &str = "acknowledged, and erased";
/// An acknowledged message was deleted by retention.
pub(crate) const STORED_TRIMMED: &str = "acknowledged, and trimmed";
/// An acknowledged command was stored by a second run.
pub(crate) const STORED_AGAIN: &str = "acknowledged, and stored by a second run";
/// An acknowledged command was lost by a failover.
pub(crate) const STORED_LOST: &str = "acknowledged, and lost by a failover";

/// The guarantees, which must hold in every state; and states that must be reachable.
pub(crate) fn all() -> Vec<Property<Scenario>> {
    let mut all = guarantees();
    all.extend(reachable());
    all
}

fn reachable() -> Vec<Property<Scenario>> {
    vec![
        Property::sometimes(UNKNOWN_STORED, |_, system| {
            commands(system).any(|(effects, response)| response == Response::Unknown && effects.stored > 0)
        }),
        Property::sometimes(UNKNOWN_NOT_STORED, |_, system| {
            let mut commands = commands(system);
            let is_done = system.transactions.is_empty();
            is_done && commands.any(|(effects, response)| response == Response::Unknown && effects.stored == 0)
        }),
        Property::sometimes(STORED_ERASED, |_, system| {
            commands(system).any(|(effects, response)| response == Response::Stored && effects.was_erased)
        }),
        Property::sometimes(STORED_TRIMMED, |_, system| {
            let mut commands = (0..).zip(commands(system));
            let is_in_log = |command| events(system).any(|event| event.id.is_of_command(command));
            commands.any(|(command, (_, response))| response == Response::Stored && !is_in_log(command))
        }),
        Property::sometimes(STORED_AGAIN, |scenario, system| {
            let first_run = |command| scenario.batches.iter().position(|batch| contains(batch, command));
            let mut events = events(system);
            events.any(|event| match event.id {
                EventId::Run { command, run } => first_run(command).is_some_and(|first| usize::from(run) > first),
                EventId::Other(_) => false,
            })
        }),
        Property::sometimes(STORED_LOST, |_, system: &SystemState| system.responses.contains(&Response::StoredAndLost)),
    ]
}

fn contains(batch: &[Request], command: Command) -> bool {
    batch.iter().any(|request| request.command == command)
}

fn guarantees() -> Vec<Property<Scenario>> {
    vec![
        Property::always(NOT_LOST, |_, system| {
            commands(system).all(|(effects, response)| response != Response::Stored || effects.stored > 0)
        }),
        Property::always(ONCE, |_, system| commands(system).all(|(effects, _)| effects.stored <= 1)),
        Property::always(REJECTED_NOT_STORED, |_, system| {
            commands(system).all(|(effects, response)| response != Response::Rejected || effects.stored == 0)
        }),
        Property::always(ERASED, |_, system: &SystemState| {
            let erased = (0..COMMANDS as u8).filter(|command| system.database.effects(*command).was_erased);
            let returns = |command: u8| {
                let has_content = |event: &Event| event.has_content_of(command) && !event.is_erased;
                system.database.effects(command).has_content || events(system).any(has_content)
            };
            !erased.into_iter().any(returns)
        }),
        Property::always(ORDER, |_, system| topics(system).all(is_contiguous)),
        Property::always(RIGHTS, |_, system| {
            topics(system).all(|topic| {
                // Only the log of a closed ride is deleted.
                let mut is_open = topic.events.first().is_none_or(|first| first.seq == 1);
                topic.events.iter().all(|event| {
                    match event.kind {
                        Kind::Closed => is_open = false,
                        Kind::Reopened => is_open = true,
                        Kind::Created | Kind::Message | Kind::Edited | Kind::Deleted => {}
                    }
                    is_open || event.kind != Kind::Message
                })
            })
        }),
        Property::always(WHOLE, |_, system: &SystemState| {
            let mut rides = system.database.rides.iter();
            rides.all(|ride| match &ride.topic {
                Some(topic) => ride.row != Row::Absent && topic.head > 0,
                None => ride.row == Row::Absent,
            })
        }),
    ]
}

fn commands(system: &SystemState) -> impl Iterator<Item = (Effects, Response)> {
    system.database.effects.into_iter().zip(system.responses)
}

fn topics(system: &SystemState) -> impl Iterator<Item = &Topic> {
    system.database.rides.iter().filter_map(|ride| ride.topic.as_ref())
}

fn events(system: &SystemState) -> impl Iterator<Item = &Event> {
    topics(system).flat_map(|topic| &topic.events)
}

/// Whether each event follows the one before, and the last event is the head. Retention may have deleted all of them.
fn is_contiguous(topic: &Topic) -> bool {
    let follows = topic.events.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq);
    follows && topic.events.last().is_none_or(|last| last.seq == topic.head && last.id == topic.last)
}
