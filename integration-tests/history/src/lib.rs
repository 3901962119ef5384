//! What clients of a broker saw, as one list of operations, and a checker that says whether a correct broker can have
//! shown it. It knows nothing of how the broker works: histories come from the simulation, in memory, and from real
//! clients, as JSON lines (`json` describes them; the program `history-check` reads and checks them).
pub mod check;
pub mod json;
pub mod operation;
pub mod payload;

pub use check::{Anomaly, Inventory, Options, Report, Rule, check, check_with};
pub use operation::{Broken, Commit, End, GroupProtocol, History, Log, Operation, Seen, What};
pub use payload::Value;
