//! An object's name: unique, never reused, and carrying what its writer had applied when its first batch came (H2, H4).
use std::fmt;

use crate::types::{Head, Position, Token};

/// Where L0 objects lie in the bucket.
pub const DATA_PREFIX: &str = "data/";

/// The name of an L0 object. Its key is `data/<s>/<position>-<token>-<ulid>`, all in hexadecimal, where `<s>` is the
/// ULID's last digit: 16 prefixes share the store's request rates, and within one keys sort by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    pub applied: Head,
    /// 48 bits of wall-clock ms and 80 random bits.
    pub ulid: u128,
}

impl ObjectName {
    /// The object's key in the bucket.
    #[must_use]
    pub fn key(&self) -> String {
        self.to_string()
    }

    /// The prefixes under which all L0 objects lie.
    pub fn prefixes() -> impl Iterator<Item = String> {
        (0..16).map(|shard| format!("{DATA_PREFIX}{shard:x}/"))
    }

    /// Reads a key that [`ObjectName::key`] made; `None` if it is anything else.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let name = key.strip_prefix(DATA_PREFIX)?.split_once('/')?.1;
        let mut parts = name.split('-');
        let position = u64::from_str_radix(parts.next()?, 16).ok()?;
        let token = u64::from_str_radix(parts.next()?, 16).ok()?;
        let ulid = u128::from_str_radix(parts.next()?, 16).ok()?;
        let name = Self { applied: Head { position: Position(position), token: Token(token) }, ulid };
        (parts.next().is_none() && name.key() == key).then_some(name)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Head { position, token } = self.applied;
        write!(f, "{DATA_PREFIX}{:x}/{:016x}-{:016x}-{:032x}", self.ulid & 0xf, position.0, token.0, self.ulid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_object() {
        let applied = Head { position: Position(77), token: Token(u64::MAX) };
        let name = ObjectName { applied, ulid: 0x0123_4567_89ab_cdef };
        assert_eq!(name.key(), "data/f/000000000000004d-ffffffffffffffff-00000000000000000123456789abcdef");
        assert_eq!(ObjectName::parse(&name.key()), Some(name));
        assert!(ObjectName::prefixes().any(|p| name.key().starts_with(&p)));
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
