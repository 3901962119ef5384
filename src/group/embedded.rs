//! What consumers of the classic protocol put into JoinGroup and get from SyncGroup: Kafka's `ConsumerProtocol` messages.
//! A group that has members of both protocols reads the one and writes the other for them; one of classic members alone
//! only looks at what they are subscribed to.
use bytes::{BufMut, Bytes, BytesMut};

/// Partitions by the name of their topic.
pub type NamedPartitions = Vec<(String, Vec<i32>)>;

/// A member's subscription, versions 0 to 3; what newer ones add is left unread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmbeddedSubscription {
    pub version: i16,
    pub topics: Vec<String>,
    /// What it has not given up (cooperative assignors; version 1).
    pub owned: NamedPartitions,
    pub rack: Option<String>,
}

/// A member's assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmbeddedAssignment {
    pub partitions: NamedPartitions,
    pub has_user_data: bool,
}

impl EmbeddedSubscription {
    /// `None` if it is not one.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let (version, topics) = reader.subscription_head()?;
        let topics = topics.into_iter().map(str::to_owned).collect();
        reader.nullable_bytes()?;
        let owned = if version >= 1 { reader.partitions()? } else { Vec::new() };
        if version >= 2 {
            reader.i32()?;
        }
        let rack = if version >= 3 { reader.nullable_string()?.map(str::to_owned) } else { None };
        Some(Self { version, topics, owned, rack })
    }
}

impl EmbeddedAssignment {
    /// `None` if it is not one. Who has nothing yet has no bytes.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let mut reader = Reader(bytes);
        let version = reader.i16()?;
        let partitions = reader.partitions()?;
        let user_data = reader.nullable_bytes()?;
        (version >= 0).then_some(Self { partitions, has_user_data: user_data.is_some_and(|d| !d.is_empty()) })
    }
}

/// An assignment for a member whose subscription has this version.
pub fn write_assignment<'a>(version: i16, partitions: impl ExactSizeIterator<Item = (&'a str, Vec<i32>)>) -> Bytes {
    let length = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let mut out = BytesMut::new();
    out.put_i16(version);
    out.put_i32(length(partitions.len()));
    for (topic, partitions) in partitions {
        out.put_i16(i16::try_from(topic.len()).unwrap_or(i16::MAX));
        out.put_slice(topic.as_bytes());
        out.put_i32(length(partitions.len()));
        partitions.into_iter().for_each(|p| out.put_i32(p));
    }
    // No user data.
    out.put_i32(-1);
    out.freeze()
}

/// The topics of a subscription, whatever follows them; `None` if it is not one.
#[must_use]
pub fn subscribed_topics(bytes: &[u8]) -> Option<Vec<&str>> {
    Reader(bytes).subscription_head().map(|(_, topics)| topics)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn i16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn string(&mut self) -> Option<&'a str> {
        self.nullable_string()?
    }

    fn nullable_string(&mut self) -> Option<Option<&'a str>> {
        match self.i16()? {
            -1 => Some(None),
            length => {
                let bytes = self.take(usize::try_from(length).ok()?)?;
                Some(Some(std::str::from_utf8(bytes).ok()?))
            }
        }
    }

    /// Version and topics, which stand in the same place in every version.
    fn subscription_head(&mut self) -> Option<(i16, Vec<&'a str>)> {
        let version = self.i16()?;
        let topics = self.array(2, |r| r.string())?;
        (version >= 0).then_some((version, topics))
    }

    fn nullable_bytes(&mut self) -> Option<Option<&'a [u8]>> {
        match self.i32()? {
            -1 => Some(None),
            length => self.take(usize::try_from(length).ok()?).map(Some),
        }
    }

    fn partitions(&mut self) -> Option<NamedPartitions> {
        self.array(6, |r| Some((r.string()?.to_owned(), r.array(4, |r| r.i32())?)))
    }

    /// Elements of `least` bytes or more: a count that can't be true ends before it costs anything.
    fn array<T>(&mut self, least: usize, mut element: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::try_from(self.i32()?).ok()?;
        if count > self.0.len() / least {
            return None;
        }
        (0..count).map(|_| element(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::subscribed_topics as topics;

    #[test]
    fn topics_are_read_whatever_follows_them() {
        let old = b"\0\0\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff";
        assert_eq!(topics(old), Some(vec!["a", "bc"]));
        let mut newer = old.to_vec();
        newer[1] = 3;
        newer.extend_from_slice(b"\0\0\0\0whatever");
        assert_eq!(topics(&newer), Some(vec!["a", "bc"]));
        assert_eq!(topics(b"\0\0\0\0\0\0"), Some(vec![]));
    }

    #[test]
    fn what_is_no_subscription_is_none() {
        for bytes in [
            &b""[..],
            b"\0",
            b"\xff\xff\0\0\0\0",
            b"\0\0\xff\xff\xff\xff",
            b"\0\0\x7f\xff\xff\xff\0\0",
            b"\0\0\0\0\0\x01\0\x05ab",
            b"\0\0\0\0\0\x01\xff\xff",
            b"\0\0\0\0\0\x01\0\x01\xff",
        ] {
            assert_eq!(topics(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_wild(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = topics(&bytes);
        }
    }
}
