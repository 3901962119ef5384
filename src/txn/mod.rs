//! What a coordinator of transactions does beside answering: it lets requests share entries, aborts transactions that are
//! open for longer than their producer said, and forgets transactional ids that nobody uses. Whatever a client asks for is
//! one command, decided in `apply`, so there is no owner task and no state to move: every broker watches all
//! transactions, and the one that coordinates an id proposes. It never looks at records. Tests: beside each file.
mod expiry;
mod pace;

pub use expiry::{Expiry, ExpirySettings};
pub use pace::Pace;
