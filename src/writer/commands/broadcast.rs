//! Notices to chosen users.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::{Caller, Error, EventType, Metadata, Result, Role, Time, UserId};
use crate::writer::{Command, Ledger, Needs};

/// Puts a notice on the topic of each of these users, who need not be known.
#[derive(Debug)]
pub struct Broadcast {
    /// Who: the service.
    pub caller: Caller,
    /// To whom; each once.
    pub users: Vec<UserId>,
    /// What kind of notice it is, in the platform's words.
    pub kind: Option<String>,
    /// What it says.
    pub data: Metadata,
}

/// `notice`.
#[derive(Serialize)]
struct Notice<'a> {
    r#type: Option<&'a str>,
    data: &'a RawValue,
    by: &'a UserId,
    at: Time,
}

impl Command for Broadcast {
    type Output = ();

    fn needs(&self, _: &mut Needs) {}

    fn judge(&self, ledger: &mut Ledger) -> Result<()> {
        if self.caller.role != Role::Service {
            return Err(Error::Forbidden("only the service may broadcast"));
        }
        let (at, by) = (ledger.now(), &self.caller.user);
        let notice = Notice { r#type: self.kind.as_deref(), data: self.data.as_raw(), by, at };
        self.users.iter().try_for_each(|user| ledger.tell(user, EventType::Notice, &notice))
    }
}
