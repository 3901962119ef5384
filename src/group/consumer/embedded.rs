//! What consumers of the classic protocol put into JoinGroup and get from SyncGroup: Kafka's `ConsumerProtocol` messages.
//! A group that has members of both protocols reads the one and writes the other for them.
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
        let version = reader.i16()?;
        let topics = reader.array(2, |r| r.string())?;
        reader.nullable_bytes()?;
        let owned = if version >= 1 { reader.partitions()? } else { Vec::new() };
        if version >= 2 {
            reader.i32()?;
        }
        let rack = if version >= 3 { reader.nullable_string()? } else { None };
        (version >= 0).then_some(Self { version, topics, owned, rack })
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

    fn string(&mut self) -> Option<String> {
        self.nullable_string()?
    }

    fn nullable_string(&mut self) -> Option<Option<String>> {
        match self.i16()? {
            -1 => Some(None),
            length => {
                let bytes = self.take(usize::try_from(length).ok()?)?;
                Some(Some(std::str::from_utf8(bytes).ok()?.to_owned()))
            }
        }
    }

    fn nullable_bytes(&mut self) -> Option<Option<&'a [u8]>> {
        match self.i32()? {
            -1 => Some(None),
            length => self.take(usize::try_from(length).ok()?).map(Some),
        }
    }

    fn partitions(&mut self) -> Option<NamedPartitions> {
        self.array(6, |r| Some((r.string()?, r.array(4, |r| r.i32())?)))
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
