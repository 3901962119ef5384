//! The room as a whole, on frames of real clients and of a real Kafka.
pub(super) mod messages;
mod wire;
