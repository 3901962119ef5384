//! Log compaction, `cleanup.policy=compact`: of each key the last record stays (ADR 19). Owns which partitions are due
//! ([`plan`]), the memory for keys ([`keys`]), what stays of a batch ([`sieve`]), and the task ([`run`], [`job`]). What it keeps
//! is written as any compaction writes ([`super::merge`]), at the offsets that it had; State takes it if the partition is what was
//! read, and notes how far it is clean. It never touches what an open transaction may still decide, nor a flush.
mod job;
mod keys;
mod plan;
mod run;
mod sieve;

pub use run::CleaningLimits;
pub(super) use run::run;
pub(super) use sieve::{Sieve, Verdict};
