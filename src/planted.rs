//! Defects on purpose, by which the simulation's checker is proved: each is a mistake that a good engineer could make, no
//! assertion of the broker notices it, and the checker has to find it from what clients saw. They are there with the
//! feature `planted` only; without it [`planted`] is constantly false, and nothing of them is in the binary. At most one
//! is active: in a thread that says so, or in a whole process by `PLANTED=name`. No room: it imports nothing, and every
//! room may use it.

macro_rules! defects {
    ($($(#[doc = $about:literal])+ $variant:ident $name:literal $origin:literal)+) => {
        /// What is broken, and what a client could notice.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Defect { $($(#[doc = $about])+ $variant,)+ }

        impl Defect {
            /// All, in the order of the list.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As `PLANTED` names it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The hazard or corner that it comes from: H1 to H18, K1 to K36, or `issue` where it was asked for by name.
            #[must_use]
            pub const fn origin(self) -> &'static str {
                match self { $(Self::$variant => $origin),+ }
            }

            /// What is broken, and what a client could notice, in words.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => concat!($($about),+)),+ }
            }
        }
    };
}

defects! {
    /// Producers are answered with the foreseen offsets before the journal has the entry. After a crash, or beside
    /// another broker, acknowledged records are missing or stand at other offsets.
    AckBeforeCommit "ack-before-commit" "issue"
    /// A flush counts as stored when its PUT has begun. Its records are readable from memory, and gone after a crash in
    /// between.
    DroppedSync "dropped-sync" "issue"
    /// A batch with an older producer epoch than the partition knows is judged like one of the present. What a fenced
    /// life of the producer still had on its way is appended.
    SkippedEpochCheck "skipped-epoch-check" "issue"
    /// Of several partitions of one topic in a request only the first is answered with its offset, the others with 0.
    OffsetZero "offset-zero" "issue"
    /// A retried batch that is in the window is appended again: an idempotent producer's record at two offsets.
    WindowIgnored "window-ignored" "issue"
    /// Batches of one connection and partition are committed in the order in which their PUTs end. Records of a plain
    /// producer stand in another order than it sent them.
    PutOrder "put-order" "issue"
    /// An append without an answer counts as failed. Admin requests are told that nothing happened, and it did; groups
    /// and producers go on as if it had not.
    UnknownAppendFailed "unknown-append-failed" "issue"
    /// What others have seen of the journal is not held against it, and their marks stop nobody (H2). A broker that lagged as
    /// much as a journal that lost its tail goes on: offsets that were given are given again.
    ForkIgnored "fork-ignored" "H2"
    /// An append without an answer is tried again under a new counter (H8). If the first was done too, everything in it
    /// is applied twice: a plain producer's record stands at two offsets though it was sent once.
    UnknownAppendAgain "unknown-append-again" "H8"
    /// An object that is not there after a PUT without an answer is believed to appear soon. Acknowledged records that
    /// no object holds.
    SilenceIsCreated "silence-is-created" "issue"
    /// Any conflict on a PUT (409 as well as 412) is taken for our own earlier attempt, without looking. Acknowledged
    /// records that no object holds.
    ConflictIsOurs "conflict-is-ours" "issue"
    /// Each second every object is deleted that State does not name, also one that is stored and about to be committed
    /// (H4). Acknowledged records go as soon as no memory holds them.
    GcWithoutGrace "gc-without-grace" "issue"
    /// An object may be committed whatever its writer had applied when it named it (H4). One that a slow broker commits was
    /// swept before: acknowledged records that no object holds.
    HorizonUnchecked "horizon-unchecked" "H4"
    /// An object counts as dead when the first of its partitions lets go of it. The records of the others go when its grace is
    /// over.
    SharedIsDead "shared-is-dead" "H4"
    /// Retention counts a third of its time. Records go that readers were promised.
    RetentionTooEarly "retention-too-early" "issue"
    /// Log compaction takes tombstones away the first time that it sees them. Who has read the value before keeps it for good.
    TombstonesAtOnce "tombstones-at-once" "K20"
    /// Log compaction takes keys for the same whose hashes begin alike. The last record of a key goes for another one's.
    KeysCollide "keys-collide" "K20"
    /// After a hedged PUT the first copy is deleted as the loser, also when it won. Acknowledged records go as soon as no
    /// memory holds them.
    HedgeCleansWinner "hedge-cleans-winner" "issue"
    /// A fetch that a lagging broker finds out of range is answered so without a read barrier (H10). A consumer that
    /// moved to it is reset although its offset is good.
    StaleOutOfRange "stale-out-of-range" "issue"
    /// A topic that a lagging broker does not know is answered as unknown without a read barrier (H10). Another broker
    /// has said before that it was created.
    StaleUnknownTopic "stale-unknown-topic" "issue"
    /// ListOffsets is answered from what this broker has applied (H10): a latest offset below one that was acknowledged
    /// before.
    StaleLatestOffset "stale-latest-offset" "issue"
    /// OffsetFetch is answered from what this broker has applied (H10): an older offset than one that was committed
    /// before, or none.
    StaleCommittedOffset "stale-committed-offset" "issue"
    /// OffsetForLeaderEpoch is answered from what this broker has applied (H10): the end of the epoch lies before what a
    /// consumer has read, which is truncation to it.
    StaleEpochEnd "stale-epoch-end" "issue"
    /// A commit is accepted from a member of an earlier generation (K15). It overwrites what the partition's new owner
    /// has committed.
    StaleGeneration "stale-generation" "issue"
    /// Snapshots keep no batches of producers, and nobody compares outcomes. After a restart a retried batch is appended
    /// again, and brokers disagree about the offsets behind it.
    SnapshotForgetsWindows "snapshot-forgets-windows" "H5"
    /// A refused batch in the middle of a run does not count in the positions behind it. Its bytes are read where an
    /// accepted one's should be: one record lost, another twice, or an error.
    RunKeepsRefused "run-keeps-refused" "H6"
    /// When a flush fails, the batches behind it go on. Of a producer that State does not know the second batch is
    /// accepted first, and the first never.
    SuccessorsGoOn "successors-go-on" "H7"
    /// It is not remembered which batch of an unknown producer failed. What the client had on its way behind it is
    /// accepted first.
    GivenUpForgotten "given-up-forgotten" "H7"
    /// Entries of an earlier life of a broker act, and raise its counter: those of the new life are ignored until they
    /// have caught up, and its clients are refused for long.
    ZombieAdmitted "zombie-admitted" "H8"
    /// A broker that is cut off from the journal keeps its clients. Another takes over its groups meanwhile: a partition has
    /// two owners.
    CutOffKeepsClients "cut-off-keeps-clients" "H9"
    /// A read barrier joins a read of the head that began before it was asked for: non-retriable errors and absences that
    /// were not so any more.
    BarrierJoinsEarlier "barrier-joins-earlier" "H10"
    /// A read barrier reads the head and does not wait until it is applied.
    BarrierDoesNotWait "barrier-does-not-wait" "H10"
    /// Batches that are copied into an answer carry leader epoch 1, which no broker ever had.
    EpochOfCopies "epoch-of-copies" "H11"
    /// The journal is trimmed up to a snapshot before that is written. A broker that stops in between, or lags, finds
    /// neither entries nor snapshot: no broker starts any more, and everything is unreadable.
    TrimTooEarly "trim-too-early" "H13"
    /// Compaction leaves out one of a partition's runs, and nobody looks whether the offsets are whole. Records that were
    /// acknowledged are not there any more.
    CompactionLosesARun "compaction-loses-a-run" "issue"
    /// Compaction writes no ABORT markers down (H14). A reader of committed records takes the producer's next transaction
    /// for the aborted one.
    CompactionForgetsMarker "compaction-forgets-marker" "H14"
    /// What compaction made takes the place of whatever is there, also of what another broker's job has put there meanwhile.
    /// Records behind the end of the older job go.
    CompactionCommitsBlindly "compaction-commits-blindly" "H17"
    /// A batch that is refused as out of order is remembered all the same. Sent again in its turn it is answered as a
    /// duplicate, and is nowhere.
    RefusedIsRemembered "refused-is-remembered" "H15"
    /// Producers expire by a mistaken unit (8.64 s instead of a day), looked at each 10 s, also those used since the look. A
    /// retry after it is appended again.
    ExpiryOfUsed "expiry-of-used" "H16"
    /// An append that hangs is waited for, for an hour: a broker that answers no change until then.
    HungAppendAwaited "hung-append-awaited" "H17"
    /// Only the last three batches of a producer are recognised. Of five in flight that are sent again the first two are
    /// answered as out of order, though they are in the log.
    WindowTooShort "window-too-short" "K1"
    /// Duplicates are answered with the offset of the producer's newest batch.
    DuplicateNewestOffset "duplicate-newest-offset" "K2"
    /// Duplicates are answered with offset 0.
    DuplicateAtZero "duplicate-at-zero" "K2"
    /// After sequence 2^31-1 comes 1: the batch at 0 is refused, and the producer is stuck or fails.
    SequenceWrap "sequence-wrap" "K3"
    /// A producer that the partition does not know must begin at sequence 0. After expiry, or a topic's recreation, one
    /// that goes on is refused for good.
    StrictUnknown "strict-unknown" "K4"
    /// A producer that was silent for 5 s in a partition is not looked up: a late retry is appended again.
    DuplicateAfterIdle "duplicate-after-idle" "K4"
    /// The window outlives a producer epoch. A batch of the new one with the sequences of one of the old is answered as
    /// its duplicate, and is nowhere.
    EpochKeepsWindow "epoch-keeps-window" "K5"
    /// The text that a client commits with an offset comes back empty.
    CommitMetadataLost "commit-metadata-lost" "K14"
    /// A group that had members and has none answers that nothing was committed. Its consumers begin anew after a restart.
    EmptyGroupForgets "empty-group-forgets" "K14"
    /// A commit below the last one is answered well and ignored.
    CommitNeverGoesBack "commit-never-goes-back" "K14"
    /// A commit is acknowledged before the journal has it. After a crash or a move of the group it never was.
    CommitAckedEarly "commit-acked-early" "K14"
    /// A rebalance of the same members keeps the generation. Requests of the time before it pass for those of the new.
    GenerationStays "generation-stays" "K15"
    /// A member that was removed may go on committing until the generation rises; of a consumer group, for ever. It
    /// overwrites what the new owner has committed.
    FencedMemberCommits "fenced-member-commits" "K15"
    /// The member id of a static member is not compared: one that was replaced goes on beside its successor, with the
    /// same partitions.
    ZombieStaticMember "zombie-static-member" "K16"
    /// A partition that a member is still to give back (KIP-848) is free for others: two have it.
    RevokingIsFree "revoking-is-free" "K17"
    /// A commit with a member epoch of the past (KIP-848) is accepted for partitions that came to the member later.
    StaleEpochCommits "stale-epoch-commits" "K17"
    /// A fetch that begins at the last record of a batch of several skips it.
    SkipsLastOfBatch "skips-last-of-batch" "K22"
    /// The first batch of an answer obeys the limits too: a consumer with small ones is stuck at a large batch.
    FirstBatchBounded "first-batch-bounded" "K23"
    /// An incremental fetch session leaves out partitions that have an error and no records: their consumers never learn
    /// of it.
    SessionHidesErrors "session-hides-errors" "K25"
    /// A fetch session keeps the higher offset when its consumer seeks back: records are skipped.
    SessionIgnoresSeek "session-ignores-seek" "K25"
    /// A fetch below the log start begins at the oldest run: deleted records come back, and no consumer is told that it
    /// is out of range.
    DeletedIsServed "deleted-is-served" "K27"
    /// DeleteRecords into the middle of a run deletes all of it: records go that nobody gave up.
    DeletesWholeRun "deletes-whole-run" "K27"
    /// A run has the largest time of its last batch: a search by time misses an earlier record.
    TimeOfLastBatch "time-of-last-batch" "K28"
    /// A topic's settings stay as they were when a broker first used them: a changed `max.message.bytes` has no effect.
    SettingsNotReloaded "settings-not-reloaded" "K30"
    /// A broker whose journal writes groups for two coordinators lets both: versions are not compared, and each gives the
    /// partitions to its own members.
    TwoCoordinators "two-coordinators" "K33"
    /// Members are answered before the change that says so is in the journal. After a crash the group stands at a
    /// generation that they have left behind.
    ReplyBeforeChange "reply-before-change" "K33"
    /// The batches of a flush are sorted by partition with a sort that keeps no order among equals: with more than 20,
    /// records of a plain producer change places.
    UnstableSort "unstable-sort" "K34"
    /// A new partition takes the slot of a deleted one. What was on its way to that is committed to the new one.
    SlotReused "slot-reused" "K35"
    /// Objects are named by the clock alone. Two of the same millisecond are one to the cache: the records of one are read
    /// as those of the other.
    NamesByClock "names-by-clock" "K35"
    /// The epoch of a transactional producer is not compared: an instance that was replaced goes on writing and ending the
    /// transactions of its successor.
    TransactionsUnfenced "transactions-unfenced" "K6"
    /// A transactional batch opens a transaction, whoever sent it: one that comes after the end is part of the next.
    LateProduceJoins "late-produce-joins" "K7"
    /// Readers of committed records read up to the high watermark: records of transactions that may be aborted.
    UnstableIsRead "unstable-is-read" "K9"
    /// The list of aborted transactions lacks those that began before the fetched offset: what is left of them is read.
    AbortedUnlisted "aborted-unlisted" "K11"
    /// The offsets of an aborted transaction are committed all the same: its input is never read again.
    AbortedOffsetsCommitted "aborted-offsets-committed" "K13"
    /// Where a broker gives up in time, it says INVALID_PRODUCER_EPOCH: producers die of a slow bucket, and a record that
    /// was refused for good may be in the log.
    TimeoutAsFenced "timeout-as-fenced" "K36"
    /// A bucket that does not answer makes OFFSET_OUT_OF_RANGE of a read: consumers are reset.
    SlowBucketOutOfRange "slow-bucket-out-of-range" "K36"
}

/// Whether this defect is the one that is active.
#[cfg(not(feature = "planted"))]
#[must_use]
#[inline]
pub const fn planted(_: Defect) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use active::{activate, planted};

#[cfg(feature = "planted")]
mod active {
    use super::Defect;
    use std::cell::Cell;
    use std::sync::OnceLock;

    thread_local! {
        static HERE: Cell<Option<Defect>> = const { Cell::new(None) };
    }

    /// Makes this defect, or none, the active one of this thread. A simulated cluster runs in one.
    pub fn activate(defect: Option<Defect>) {
        HERE.set(defect);
    }

    /// Whether this defect is the one that is active.
    ///
    /// # Panics
    /// If `PLANTED` names none: a misspelt defect would pass for one that nobody finds.
    #[must_use]
    pub fn planted(defect: Defect) -> bool {
        static EVERYWHERE: OnceLock<Option<Defect>> = OnceLock::new();
        let named = || {
            let name = std::env::var("PLANTED").ok()?;
            let found = Defect::ALL.iter().copied().find(|known| known.name() == name);
            Some(found.unwrap_or_else(|| panic!("PLANTED={name} is not the name of a defect")))
        };
        HERE.get().or_else(|| *EVERYWHERE.get_or_init(named)) == Some(defect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn sources(folder: &Path, all: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, all);
            } else if path.file_name().is_some_and(|name| name != "planted.rs") {
                all.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn each_has_a_name_and_a_place() {
        let mut all = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
        let names: BTreeSet<_> = Defect::ALL.iter().map(|defect| defect.name()).collect();
        assert_eq!(names.len(), Defect::ALL.len());
        for defect in Defect::ALL {
            let uses = all.matches(&format!("planted(Defect::{defect:?})")).count();
            assert!(uses > 0, "{defect:?} is nowhere in the source");
            assert!(!defect.about().is_empty() && !defect.origin().is_empty());
        }
    }

    #[test]
    fn none_is_active_unless_named() {
        let named = std::env::var("PLANTED").ok();
        let active = Defect::ALL.iter().find(|defect| planted(**defect));
        let expected = named.as_deref().filter(|_| cfg!(feature = "planted"));
        assert_eq!(active.map(|defect| defect.name()), expected);
    }
}
