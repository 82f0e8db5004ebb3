//! The commands, one family per file: what each must load and lock, and the rules by which it is decided.

mod broadcast;
mod closing;
mod erasure;
mod messages;
mod reactions;
mod receipts;
mod receive;
mod rides;

pub use broadcast::Broadcast;
pub use closing::{CloseRide, ReopenRide};
pub use erasure::{EraseMessage, EraseReactions};
pub use messages::{DeleteMessage, EditMessage, Edited, SendMessage, Sent};
pub use reactions::React;
pub use receipts::{ReceiptKind, UpdateReceipt};
pub use receive::ReceiveRows;
pub use rides::{AcceptRide, CancelRide, PutRide, SetStatus};
