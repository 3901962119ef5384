//! Small models of the two subtlest races, checked by stateright in all interleavings. Each has a switch per rule; with a
//! rule taken out the checker must find what the rule prevents, or the model would prove nothing.
//!
//! - [`journal`]: the journal in the bucket (`docs/formats/journal-bucket.md`): append × trim × boundary × read × pause.
//! - [`sweep`]: orphan horizon × commit × sweep of objects that nothing refers to.
pub mod journal;
pub mod sweep;
