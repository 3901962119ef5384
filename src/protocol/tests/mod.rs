//! The room as a whole, on frames of real clients and of a real Kafka.
mod by_id;
pub(super) mod messages;
mod wire;
