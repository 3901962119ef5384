//! The words that every room shares: ids, offsets, epochs, positions and Kafka's error codes, each as a type, so that
//! an offset can't be passed where an epoch is due. Owns no behaviour and imports no room.
mod piece;

use std::fmt;
use std::sync::Arc;

pub use kafka_protocol::error::ResponseError as KafkaError;
pub use piece::{FileRange, Piece};
pub use uuid::Uuid;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

newtype!(/** A topic's id: new for each creation, never the nil UUID (KIP-516). */ TopicId(Uuid));
newtype!(/** A partition's index within its topic, from 0. */ PartitionIndex(i32));
newtype!(/** The small integer that State gives a topic-partition when it is created; never reused. */ Slot(u32));
newtype!(/** A record's offset in its partition. */ Offset(i64));
newtype!(/** A partition's leader epoch (KIP-101); -1 where a client knows none. */ LeaderEpoch(i32));
newtype!(/** An idempotent or transactional producer's id; -1 where a batch has none. */ ProducerId(i64));
newtype!(/** A producer id's epoch; -1 where a batch has none. */ ProducerEpoch(i16));
newtype!(/** A batch's first sequence number, 0 to 2^31-1, wrapping to 0; -1 where a batch has none. */ Sequence(i32));
newtype!(/** A journal position: 1, 2, 3 … without gaps; 0 is before the first entry. */ Position(u64));
newtype!(/** The random token of a journal entry; tells two histories apart (H2). 0 before the first entry. */ Token(u64));
newtype!(/** One registered life of a broker process (H8). */ Incarnation(u64));
newtype!(/** Kafka's node id. */ BrokerId(i32));
newtype!(/** Milliseconds since the Unix epoch. */ TimestampMs(i64));
newtype!(/** State's number for an object in the bucket; never reused. */ ObjectId(u64));
newtype!(/** One client connection of this process; never reused within it. */ ConnectionId(u64));

impl Offset {
    /// The offset `records` further on; saturates at `i64::MAX`.
    #[must_use]
    pub fn plus(self, records: u64) -> Self {
        Self(self.0.saturating_add_unsigned(records))
    }
}

impl Sequence {
    /// Whether it comes before `other`: they wrap from 2^31-1 to 0, and what is in flight is far less than half of them.
    #[must_use]
    pub fn precedes(self, other: Self) -> bool {
        let ahead = (i64::from(other.0) - i64::from(self.0)).rem_euclid(1 << 31);
        ahead > 0 && ahead < 1 << 30
    }
}

impl Position {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A topic's name, shared rather than copied.
pub type TopicName = Arc<str>;

/// The last entry that somebody has applied: its position, and the token that tells its history from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Head {
    pub position: Position,
    pub token: Token,
}

/// What a broker says of itself to the others: the last entry that it has appended. It may be late, wrong, or made up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    pub incarnation: Incarnation,
    pub position: Position,
}
