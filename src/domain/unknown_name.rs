//! Names that a newer version defines.

use std::fmt;

/// The name of a value that this version does not define. Replicas of a newer version write to the same database, so this version
/// passes such a name on unchanged. It is `Copy`, as the types that contain it are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownName {
    bytes: [u8; Self::MAX_BYTES],
    length: u8,
}

impl UnknownName {
    /// The maximum length in bytes.
    const MAX_BYTES: usize = 31;

    /// Accepts printable ASCII without spaces, so the name cannot contain a line break.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        let mut bytes = [0; Self::MAX_BYTES];
        bytes.get_mut(..text.len()).filter(|_| is_plain && !text.is_empty())?.copy_from_slice(text.as_bytes());
        Some(Self { bytes, length: u8::try_from(text.len()).ok()? })
    }

    /// Returns the name.
    pub(super) fn as_str(&self) -> &str {
        let name = self.bytes.get(..self.length.into()).unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }
}

impl fmt::Debug for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
