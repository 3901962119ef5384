//! What clients of a broker saw, as one list of operations, and a checker that says whether a correct broker can have
//! shown it. It knows nothing of how the broker works: histories come from the simulation and from real clients alike.
pub mod operation;
pub mod payload;

pub use operation::{Broken, Commit, End, GroupProtocol, History, Log, Operation, Seen, What};
pub use payload::Value;
