//! Consumer groups: both protocols (JoinGroup/SyncGroup, and KIP-848), and committed offsets. One owner task per group
//! that has something to do puts requests and time into a machine without I/O ([`machine`]) and carries out what it asks
//! for: changes go through the journal, in order, and a reply leaves only after every change before it is applied
//! (invariant 1). What must survive the broker is in State; session timers and waiting requests are not, so members go on
//! after a restart without a rebalance. It never looks at records. Tests: `tests/`, and scripts beside each machine.
mod classic;
mod consumer;
mod deadlines;
mod embedded;
mod expiry;
mod gather;
mod lag;
mod machine;
mod message;
mod offsets;
mod offsets_topic;
mod owner;
mod router;

pub use consumer::pattern::compile as compile_pattern;
pub use embedded::{EmbeddedAssignment, EmbeddedSubscription, NamedPartitions, subscribed_topics, write_assignment};
pub use lag::lags;
pub use machine::Phase;
pub use message::*;
pub use offsets_topic::create_offsets_topic;
pub use router::{GroupSettings, Groups};

#[cfg(test)]
mod tests;
