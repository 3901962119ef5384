//! Snapshots of State in the bucket: written after enough entries or bytes, read back and compared before the journal
//! is trimmed below an older one (H13).
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tracing::{info, warn};

use super::Replica;
use super::witness::key;
use crate::journal::Journal;
use crate::planted::{Defect, planted};
use crate::segment::{ObjectKind, ObjectName};
use crate::state::{Outcome, SnapshotTaken, State};
use crate::store::{Bucket, CreateOutcome, Listed, Purpose};
use crate::telemetry::Metrics;
use crate::types::{Head, Position};
use crate::world::World;

/// Where snapshots lie in the bucket; keys sort by position.
pub const SNAPSHOT_PREFIX: &str = "snapshots/";

/// How often it is looked whether a snapshot is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// When a snapshot is due, and how many are kept.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotPolicy {
    /// Entries since the last one.
    pub entries: u64,
    /// Journal bytes since the last one.
    pub bytes: u64,
    /// Age of the last one, if anything but heartbeats was appended since, in ms.
    pub age_ms: i64,
    /// Snapshots younger than this are not given up, in ms.
    pub kept_ms: i64,
}

pub(super) struct Snapshotter {
    pub(super) replica: Replica,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) bucket: Arc<dyn Bucket>,
    pub(super) world: World,
    pub(super) metrics: Arc<Metrics>,
    pub(super) policy: SnapshotPolicy,
}

impl Snapshotter {
    /// Takes snapshots as they fall due, until the broker stops.
    pub(super) async fn run(self) {
        let mut failed = false;
        let mut last = self.replica.state().snapshots().last().map_or(Position(0), |s| s.at.position);
        let (mut bytes_at_last, mut changes_at_last) = (0, 0);
        let mut taken_at = self.world.now();
        loop {
            self.world.sleep(LOOK_EVERY).await;
            if planted(Defect::GcWithoutGrace) {
                self.sweep().await;
            }
            let at = self.replica.applied().position;
            let bytes = self.replica.shared.journal_bytes.load(Ordering::Relaxed);
            let begun = self.world.now();
            // An idle broker's own snapshot entry must not make the next one due.
            let idle = at.0 <= last.0 + 1;
            let changes = self.replica.shared.changes.load(Ordering::Relaxed);
            let is_old = (begun - taken_at).as_millis() >= u128::from(self.policy.age_ms.unsigned_abs());
            // Heartbeats are nothing that could be lost.
            let aged = is_old && changes > changes_at_last;
            let due = at.0 - last.0 >= self.policy.entries || bytes - bytes_at_last >= self.policy.bytes || aged;
            if idle || !due {
                continue;
            }
            match self.take().await {
                Ok(taken) => {
                    (last, bytes_at_last, taken_at) = (taken.position, bytes, begun);
                    changes_at_last = changes;
                    self.metrics.snapshot.written.inc();
                    self.metrics.snapshot.write_seconds.observe((self.world.now() - begun).as_secs_f64());
                    if failed {
                        info!(position = last.0, "snapshots work again");
                    }
                    failed = false;
                }
                Err(reason) => {
                    self.metrics.snapshot.failed.inc();
                    if !failed {
                        warn!(%reason, "snapshot failed, trying again each second");
                    }
                    failed = true;
                }
            }
        }
    }

    /// Deletes objects that State does not know, as [`Defect::GcWithoutGrace`] has it.
    async fn sweep(&self) {
        let state = self.replica.state();
        let known: BTreeSet<ObjectName> = state.objects().map(|(_, meta)| meta.name).collect();
        for prefix in ObjectName::prefixes(ObjectKind::Data) {
            let listed = self.bucket.list(&prefix, None, 1000, Purpose::Snapshot).await.unwrap_or_default();
            let unknown = |o: &Listed| ObjectName::parse(&o.key).is_some_and(|name| !known.contains(&name));
            for orphan in listed.into_iter().filter(unknown) {
                let _ = self.bucket.delete(&orphan.key, Purpose::Snapshot).await;
            }
        }
    }

    /// Writes a snapshot of State as it is now, reads it back, and tells the others.
    async fn take(&self) -> Result<Head, String> {
        let state = self.replica.state();
        let (header, bytes) = self
            .world
            .compute({
                let state = state.clone();
                move || state.encode_snapshot()
            })
            .await;
        let (key, size) = (key(SNAPSHOT_PREFIX, header.at, self.world.random_u64()), bytes.len() as u64);
        if planted(Defect::TrimTooEarly) {
            let _ = self.journal.trim(header.at.position).await;
        }
        match self.bucket.create(&key, vec![bytes], Purpose::Snapshot).await {
            Ok(CreateOutcome::Created) => {}
            Ok(CreateOutcome::Taken) => return Err(format!("{key} exists with other bytes")),
            Err(error) => return Err(error.to_string()),
        }
        let read = self.bucket.read(&key, None, Purpose::Snapshot).await.map_err(|e| e.to_string())?;
        let again = self.world.compute(move || State::decode_snapshot(&read).map(|(h, _)| h)).await;
        if again.as_ref() != Ok(&header) {
            return Err(format!("{key} does not read back as it was written: {again:?}"));
        }
        self.announce(&state, header.at, key, size).await?;
        self.metrics.snapshot_newest(self.world.wall_ms());
        self.metrics.snapshot.newest_position.set(header.at.position.0 as i64);
        self.metrics.snapshot.newest_bytes.set(size as i64);
        Ok(header.at)
    }

    async fn announce(&self, state: &State, at: Head, key: String, bytes: u64) -> Result<(), String> {
        let now = self.world.wall_ms();
        let old = |taken_ms: i64| now.0 - taken_ms > self.policy.kept_ms;
        let given_up = state.snapshots().iter().filter(|s| old(s.taken_ms.0)).map(|s| s.at.position.0).collect();
        let taken = SnapshotTaken {
            position: at.position.0,
            token: at.token.0,
            key,
            bytes,
            applied_position: at.position.0,
            wall_ms: now.0,
            given_up,
        };
        match self.replica.propose(taken).await {
            Ok(Outcome::Done) => {}
            other => return Err(format!("the snapshot was not recorded: {other:?}")),
        }
        let kept = self.replica.state();
        let kept = kept.snapshots();
        for gone in state.snapshots().iter().filter(|s| !kept.contains(s)) {
            if let Err(error) = self.bucket.delete(&gone.key, Purpose::Snapshot).await {
                warn!(key = gone.key, %error, "an old snapshot was not deleted, it stays as garbage");
            }
        }
        self.trim().await
    }

    /// Trims the journal below the oldest of the newest few snapshots, so that any of those can start a broker.
    async fn trim(&self) -> Result<(), String> {
        let state = self.replica.state();
        let (kept, min) = (state.snapshots(), state.settings().snapshots_min.max(1) as usize);
        let Some(oldest) = kept.len().checked_sub(min).map(|i| kept[i].at.position) else { return Ok(()) };
        self.journal.trim(oldest).await.map_err(|e| e.to_string())?;
        self.metrics.journal.trimmed_position.set(i64::try_from(oldest.0).unwrap_or(i64::MAX));
        Ok(())
    }
}
