//! The commands, one family a file: what each needs, and the rules by which it is judged.

mod broadcast;
mod closing;
mod erasing;
mod marks;
mod messages;
mod reactions;
mod rides;

pub use broadcast::Broadcast;
pub use closing::{CloseRide, ReopenRide};
pub use erasing::{EraseMessage, EraseReactions};
pub use marks::{Mark, MarkKind};
pub use messages::{DeleteMessage, EditMessage, Edited, SendMessage, Sent};
pub use reactions::React;
pub use rides::{AcceptRide, CancelRide, PutRide, SetStatus};
