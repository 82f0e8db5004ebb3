//! The guarantees, as properties of each state that can be reached; and states that must be reachable, or the model proves
//! nothing.

use stateright::Property;

use crate::database::{COMMANDS, Command, Event, EventId, Kind, Request, Row, Topic, Trace};
use crate::protocol::Scenario;
use crate::world::World;
use crate::writer::Answer;

/// A command that was answered 2xx is in the log. With an asynchronous standby, a failover may lose it afterwards.
pub(crate) const NOT_LOST: &str = "no acknowledged event is lost";
/// A command is stored at most once, also when what it stored has been trimmed since.
pub(crate) const ONCE: &str = "no command is stored twice";
/// Once a message is deleted, no event has its content.
pub(crate) const ERASED: &str = "no erased content returns";
/// A log has the seqs up to its head, without holes, in commit order; what retention deletes is a beginning of it.
pub(crate) const ORDER: &str = "each ride keeps its order";
/// A command that was answered 4xx is not in the log.
pub(crate) const HONEST: &str = "no rejected command is stored";
/// Nobody writes on a ride whose log says that it is closed, unless it says after that that it is open again.
pub(crate) const RIGHTS: &str = "nothing is stored after the event that forbids it";
/// The row of a ride and its topic exist together, and each ride's log has a beginning.
pub(crate) const WHOLE: &str = "a commit is stored as a whole";

/// 503, and the command is in the log.
pub(crate) const UNKNOWN_STORED: &str = "stored, and answered 503";
/// 503, and the command never gets into the log.
pub(crate) const UNKNOWN_NOT_STORED: &str = "not stored, and answered 503";
/// What was acknowledged was deleted by another replica.
pub(crate) const STORED_ERASED: &str = "acknowledged, and erased";
/// What was acknowledged was deleted by retention.
pub(crate) const STORED_TRIMMED: &str = "acknowledged, and trimmed";
/// What was acknowledged was stored by a second run.
pub(crate) const STORED_AGAIN: &str = "acknowledged, and stored by a second run";
/// What was acknowledged was lost by a failover.
pub(crate) const STORED_LOST: &str = "acknowledged, and lost by a failover";

/// The guarantees, which must hold in every state; and states that must be reachable.
pub(crate) fn all() -> Vec<Property<Scenario>> {
    let mut all = guarantees();
    all.extend(reachable());
    all
}

fn reachable() -> Vec<Property<Scenario>> {
    vec![
        Property::sometimes(UNKNOWN_STORED, |_, world| {
            commands(world).any(|(trace, answer)| answer == Answer::Unknown && trace.stored > 0)
        }),
        Property::sometimes(UNKNOWN_NOT_STORED, |_, world| {
            let mut commands = commands(world);
            let is_over = world.transactions.is_empty();
            is_over && commands.any(|(trace, answer)| answer == Answer::Unknown && trace.stored == 0)
        }),
        Property::sometimes(STORED_ERASED, |_, world| {
            commands(world).any(|(trace, answer)| answer == Answer::Stored && trace.was_erased)
        }),
        Property::sometimes(STORED_TRIMMED, |_, world| {
            let mut commands = (0..).zip(commands(world));
            let is_in_log = |command| events(world).any(|event| event.id.is_of_command(command));
            commands.any(|(command, (_, answer))| answer == Answer::Stored && !is_in_log(command))
        }),
        Property::sometimes(STORED_AGAIN, |scenario, world| {
            let first_run = |command| scenario.batches.iter().position(|batch| contains(batch, command));
            let mut events = events(world);
            events.any(|event| match event.id {
                EventId::Run { command, run } => first_run(command).is_some_and(|first| usize::from(run) > first),
                EventId::Other(_) => false,
            })
        }),
        Property::sometimes(STORED_LOST, |_, world: &World| world.answers.contains(&Answer::StoredAndLost)),
    ]
}

fn contains(batch: &[Request], command: Command) -> bool {
    batch.iter().any(|request| request.command == command)
}

fn guarantees() -> Vec<Property<Scenario>> {
    vec![
        Property::always(NOT_LOST, |_, world| {
            commands(world).all(|(trace, answer)| answer != Answer::Stored || trace.stored > 0)
        }),
        Property::always(ONCE, |_, world| commands(world).all(|(trace, _)| trace.stored <= 1)),
        Property::always(HONEST, |_, world| {
            commands(world).all(|(trace, answer)| answer != Answer::Rejected || trace.stored == 0)
        }),
        Property::always(ERASED, |_, world: &World| {
            let erased = (0..COMMANDS as u8).filter(|command| world.database.trace(*command).was_erased);
            let returns = |command: u8| {
                let has_content = |event: &Event| event.has_content_of(command) && !event.is_erased;
                world.database.trace(command).has_content || events(world).any(has_content)
            };
            !erased.into_iter().any(returns)
        }),
        Property::always(ORDER, |_, world| topics(world).all(is_contiguous)),
        Property::always(RIGHTS, |_, world| {
            topics(world).all(|topic| {
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
        Property::always(WHOLE, |_, world: &World| {
            let mut rides = world.database.rides.iter();
            rides.all(|ride| match &ride.topic {
                Some(topic) => ride.row != Row::Absent && topic.head > 0,
                None => ride.row == Row::Absent,
            })
        }),
    ]
}

fn commands(world: &World) -> impl Iterator<Item = (Trace, Answer)> {
    world.database.traces.into_iter().zip(world.answers)
}

fn topics(world: &World) -> impl Iterator<Item = &Topic> {
    world.database.rides.iter().filter_map(|ride| ride.topic.as_ref())
}

fn events(world: &World) -> impl Iterator<Item = &Event> {
    topics(world).flat_map(|topic| &topic.events)
}

/// Whether each event follows the one before, and the last is the head; retention may have deleted all of them.
fn is_contiguous(topic: &Topic) -> bool {
    let follows = topic.events.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq);
    follows && topic.events.last().is_none_or(|last| last.seq == topic.head && last.id == topic.last)
}
