//! Notices to chosen users.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::{Caller, Error, Metadata, Result, Role, Time, UserId};
use crate::writer::{BatchState, Command, ReadSet};

/// Appends a notice to the topic of each of these users, who need not exist yet.
#[derive(Debug)]
pub struct Broadcast {
    /// The service.
    pub caller: Caller,
    /// The recipients, without repeats: users of this shard.
    pub users: Vec<UserId>,
    /// The notice's type, which the platform defines.
    pub kind: Option<String>,
    /// The notice's data.
    pub data: Metadata,
}

/// The data of `notice`.
#[derive(Serialize)]
struct Notice<'a> {
    r#type: Option<&'a str>,
    data: &'a RawValue,
    by: &'a UserId,
    at: Time,
}

impl Command for Broadcast {
    type Output = ();

    fn read_set(&self, _: &mut ReadSet) {}

    fn apply(&self, state: &mut BatchState) -> Result<()> {
        if self.caller.role != Role::Service {
            return Err(Error::Forbidden("only the `service` role can broadcast"));
        }
        let (at, by) = (state.now(), &self.caller.user);
        let notice = Notice { r#type: self.kind.as_deref(), data: self.data.as_raw(), by, at };
        self.users.iter().try_for_each(|user| state.append_notice(user, &notice))
    }
}
