//! Compaction: what many flushes wrote becomes a few large objects, in which a partition's records lie one after another. Owns
//! the plans ([`plan`]), how objects become one ([`merge`]), and the task that does it ([`run`]). It promises that
//! readers find the same batches at the same offsets before, while and after; that an input is given up only when each
//! of its batches was read, whole and in its place; and that its memory and its pace are bounded. It never decides what State
//! says: `apply` takes what still holds (ADR 0018). Tests: beside each file, `server/tests/compaction.rs` for the whole.
mod clean;
mod job;
mod merge;
mod plan;
mod run;

pub use clean::CleaningLimits;
pub use plan::Limits;
pub use run::{Compactor, Pace};
