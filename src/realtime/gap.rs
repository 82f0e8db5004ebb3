//! A gap in a log.

use crate::domain::Seq;

/// Events that the log no longer has. Both ends are included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, salvo::oapi::ToSchema)]
#[salvo(schema(name = "Gap"))]
pub struct Gap {
    /// The first missing seq.
    pub from: Seq,
    /// The last missing seq.
    pub to: Seq,
}
