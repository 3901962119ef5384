//! Who the brokers are, and which of them a client is sent to for a partition, a group or a transactional id. It promises
//! that brokers with the same State give the same answers, that one that comes or goes moves only its share, and that a
//! partition's leader epoch never falls for a client that stays in its zone (H11). It never decides what may happen: each
//! broker serves every partition, and of two coordinators `apply` lets one win. [`task`] keeps this broker's place among
//! the others. Tests: beside each file.
mod hearing;
mod members;
mod membership;
mod task;
mod zone;

pub use members::{Led, Members, Seen};
pub use membership::Membership;
pub use task::{Task, Timing};
pub use zone::zone_of_client_id;
