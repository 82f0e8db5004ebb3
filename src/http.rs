//! The HTTP interface: what a request says, who may, and what is answered. Decides nothing else.

mod admission;
mod body;
mod broadcasts;
mod console;
mod context;
mod drivers;
pub mod guard;
mod health;
mod live;
mod location;
mod messages;
mod metrics;
pub mod openapi;
mod params;
mod presence;
mod problem;
mod rate;
mod reactions;
mod receipts;
mod refusal;
mod rides;
mod router;
mod schema;
mod tickets;
mod trace;
mod typing;
mod users;
mod webhooks;

pub use admission::{Admission, Quota};
pub use console::{Console, DemoPeople};
pub use context::{Api, Limits};
pub(crate) use location::{Fix, locate};
pub use metrics::Metrics;
pub use rate::SendRate;
pub use router::{Served, service};
pub(crate) use typing::say_typing;
