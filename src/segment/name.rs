//! An object's name: unique, never reused, and carrying what its writer had applied when its first batch came (H2, H4).
use std::fmt;

use crate::types::{Head, Position, TimestampMs, Token};

/// Where L0 objects lie in the bucket.
pub const DATA_PREFIX: &str = "data/";

/// Where compaction writes. What lies below [`DATA_PREFIX`] and is named by no entry may hold records that were never
/// committed; what lies here holds none that are not elsewhere, or were.
pub const COMPACTED_PREFIX: &str = "compacted/";

/// What wrote an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// A flush: its batches have no offsets yet.
    #[default]
    Data,
    /// Compaction: the headers of its batches are final.
    Compacted,
}

impl ObjectKind {
    /// What the keys of such objects begin with.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Data => DATA_PREFIX,
            Self::Compacted => COMPACTED_PREFIX,
        }
    }
}

/// An object's name. Its key is `data/<s>/<position>-<token>-<ulid>`, or `compacted/…`, all in hexadecimal, where `<s>` is
/// the ULID's last digit: 16 prefixes share the store's request rates, and within one keys sort by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    pub applied: Head,
    /// 48 bits of wall-clock ms and 80 random bits.
    pub ulid: u128,
    pub kind: ObjectKind,
}

impl ObjectName {
    /// Which of [`ObjectName::prefixes`] it lies under.
    #[must_use]
    pub fn shard(&self) -> usize {
        (self.ulid & 0xf) as usize
    }

    /// The name of what a flush writes.
    #[must_use]
    pub fn data(applied: Head, ulid: u128) -> Self {
        Self { applied, ulid, kind: ObjectKind::Data }
    }

    /// The name of what compaction writes.
    #[must_use]
    pub fn compacted(applied: Head, ulid: u128) -> Self {
        Self { applied, ulid, kind: ObjectKind::Compacted }
    }

    /// When it was named, by its writer's clock. Nominal: nothing may depend on it but when work is done.
    #[must_use]
    pub fn written_ms(&self) -> TimestampMs {
        TimestampMs(i64::try_from(self.ulid >> 80).unwrap_or(i64::MAX))
    }

    /// The object's key in the bucket.
    #[must_use]
    pub fn key(&self) -> String {
        self.to_string()
    }

    /// The prefixes under which all objects of a kind lie.
    pub fn prefixes(kind: ObjectKind) -> impl Iterator<Item = String> {
        (0..16).map(move |shard| format!("{}{shard:x}/", kind.prefix()))
    }

    /// Reads a key that [`ObjectName::key`] made; `None` if it is anything else.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let (kind, rest) = match key.strip_prefix(DATA_PREFIX) {
            Some(rest) => (ObjectKind::Data, rest),
            None => (ObjectKind::Compacted, key.strip_prefix(COMPACTED_PREFIX)?),
        };
        let name = rest.split_once('/')?.1;
        let mut parts = name.split('-');
        let position = u64::from_str_radix(parts.next()?, 16).ok()?;
        let token = u64::from_str_radix(parts.next()?, 16).ok()?;
        let ulid = u128::from_str_radix(parts.next()?, 16).ok()?;
        let name = Self { applied: Head { position: Position(position), token: Token(token) }, ulid, kind };
        (parts.next().is_none() && name.key() == key).then_some(name)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Head { position, token } = self.applied;
        let prefix = self.kind.prefix();
        write!(f, "{prefix}{:x}/{:016x}-{:016x}-{:032x}", self.ulid & 0xf, position.0, token.0, self.ulid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_object() {
        let applied = Head { position: Position(77), token: Token(u64::MAX) };
        let name = ObjectName::data(applied, 0x0123_4567_89ab_cdef);
        assert_eq!(name.key(), "data/f/000000000000004d-ffffffffffffffff-00000000000000000123456789abcdef");
        assert_eq!(ObjectName::parse(&name.key()), Some(name));
        assert!(ObjectName::prefixes(ObjectKind::Data).any(|p| name.key().starts_with(&p)));
        let compacted = ObjectName::compacted(applied, name.ulid);
        assert_eq!(compacted.key(), name.key().replace("data/", "compacted/"));
        assert_eq!(ObjectName::parse(&compacted.key()), Some(compacted));
        for other in [
            "",
            "data/f/4d-1-2",
            "snapshots/1",
            "data/e/000000000000004d-ffffffffffffffff-00000000000000000123456789abcdef",
        ] {
            assert_eq!(ObjectName::parse(other), None, "{other}");
        }
    }
}
