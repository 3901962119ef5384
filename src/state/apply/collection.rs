//! Commands that let go of records and objects, and the references that objects live by. What they mean is in
//! `state/collection.rs`.
use super::State;
use crate::planted::{Defect, planted};
use crate::state::collection::{COLLECTION_LEVEL, Death, ForgetObjects, RaiseOrphanHorizon, TrimLogs};
use crate::state::outcome::Outcome;
use crate::state::producer::Moment;
use crate::state::topic::ObjectMeta;
use crate::types::{KafkaError, ObjectId, Offset, Position, Slot, TopicId, Uuid};

/// Partitions, or objects, that one command names at most (H15).
pub const NAMED_MAX: usize = 10_000;

impl State {
    pub(super) fn trim_logs(&mut self, at: Moment, command: &TrimLogs) -> Outcome {
        if self.feature_level < COLLECTION_LEVEL {
            return too_early();
        }
        let Some(trims) = self.read_trims(command) else {
            return Outcome::refused(KafkaError::InvalidRequest, "its trims are malformed, or too many");
        };
        let (mut released, mut count) = (Vec::new(), 0);
        for (slot, offset) in trims {
            count += self.cut_below(slot, offset, &mut released).map_or(0, |(_, runs)| runs);
        }
        self.release(at, released);
        Outcome::Counted { count }
    }

    /// The partitions that a command trims, and where. Those of a topic that was deleted, or whose settings have changed since
    /// it was worked out, are left out.
    fn read_trims(&self, command: &TrimLogs) -> Option<Vec<(Slot, Offset)>> {
        let (mut all, mut named) = (Vec::new(), 0);
        for of_topic in &command.topics {
            let (id, trims) = (Uuid::from_slice(&of_topic.topic_id).ok()?, of_topic.read()?);
            named += trims.len();
            let topic = self.topics.get(&TopicId(id)).filter(|topic| topic.config_version == of_topic.config_version);
            let Some(topic) = topic else { continue };
            all.extend(trims.into_iter().filter_map(|(index, offset)| Some((*topic.slots.get(index)?, offset))));
        }
        (named <= NAMED_MAX).then_some(all)
    }

    /// Moves a partition's log start up to `offset`, but not beyond its end, and adds the objects of the runs that go to
    /// `released`, once for each run. Gives the log start and the number of those runs, markers included; `None` if there is
    /// no such partition.
    pub(super) fn cut_below(
        &mut self,
        slot: Slot,
        offset: Offset,
        released: &mut Vec<ObjectId>,
    ) -> Option<(Offset, u64)> {
        let partition = self.partition_mut(slot)?;
        partition.log_start = partition.log_start.max(offset.min(partition.end));
        let (log_start, mut bytes, mut runs) = (partition.log_start, 0, 0);
        partition.tail.drop_below(log_start, |run| {
            bytes += u64::from(run.bytes);
            runs += 1;
            if run.marker.is_none() {
                released.push(run.object);
            }
        });
        partition.bytes -= bytes;
        partition.forget_aborted_below(log_start);
        self.runs -= runs;
        Some((log_start, runs))
    }

    /// Runs of these objects, as often as each is named, are not referred to any more. Objects share their runs among
    /// partitions, so that each is looked up once.
    pub(super) fn release(&mut self, at: Moment, mut objects: Vec<ObjectId>) {
        objects.sort_unstable();
        for same in objects.chunk_by(|one, other| one == other) {
            let meta = self.objects.get_mut(&same[0]).expect("an object stays while a run refers to it");
            meta.live_runs -= u32::try_from(same.len()).expect("it has that many runs, which it counts in 32 bits");
            let (unused, meta) = (meta.live_runs == 0, *meta);
            if self.feature_level >= COLLECTION_LEVEL && (unused || planted(Defect::SharedIsDead)) {
                self.die(at, same[0], &meta);
            }
        }
    }

    fn die(&mut self, at: Moment, id: ObjectId, meta: &ObjectMeta) {
        if self.dead.insert(id, Death { since: at.position, since_ms: at.wall_ms }).is_none() {
            self.dead_bytes += u64::from(meta.bytes);
        }
    }

    /// The cluster begins to know which objects are dead: all that nothing refers to, whenever that began.
    pub(super) fn begin_collection(&mut self, at: Moment) {
        let unused: Vec<_> =
            self.objects.iter().filter(|(_, meta)| meta.live_runs == 0).map(|(id, m)| (*id, *m)).collect();
        unused.iter().for_each(|(id, meta)| self.die(at, *id, meta));
    }

    pub(super) fn forget_objects(&mut self, command: &ForgetObjects) -> Outcome {
        if self.feature_level < COLLECTION_LEVEL {
            return too_early();
        }
        let Some(named) = command.read().filter(|named| named.len() <= NAMED_MAX) else {
            return Outcome::refused(KafkaError::InvalidRequest, "its objects are malformed, or too many");
        };
        let mut count = 0;
        for (id, since) in named {
            let unused = self.objects.get(&id).filter(|meta| meta.live_runs == 0).copied();
            let died = self.dead.get(&id).is_some_and(|death| death.since == since);
            let Some(meta) = unused.filter(|_| died) else { continue };
            self.dead.remove(&id);
            self.objects.remove(&id);
            self.dead_bytes -= u64::from(meta.bytes);
            count += 1;
        }
        Outcome::Counted { count }
    }

    /// An object that a live broker may still commit is spared: what it names from now on has a position that it has reported
    /// or a later one. What it has named before and not committed yet is refused then, and its producers send again.
    pub(super) fn raise_orphan_horizon(&mut self, command: &RaiseOrphanHorizon) -> Outcome {
        if self.feature_level < COLLECTION_LEVEL {
            return too_early();
        }
        let (asked, oldest) = (Position(command.position), self.oldest_reported());
        if oldest.is_none_or(|oldest| asked > oldest) {
            let message = "a live broker has not said that it has applied that much";
            return Outcome::refused(KafkaError::InvalidRequest, message);
        }
        self.orphan_horizon = self.orphan_horizon.max(asked);
        Outcome::Done
    }

    /// Whether an object that its writer named after it had `applied` that much may not be introduced any more (H4).
    pub(super) fn is_below_horizon(&self, applied: Position) -> bool {
        applied < self.orphan_horizon && !planted(Defect::HorizonUnchecked)
    }

    /// The oldest position that a broker which takes part said last that it had applied; `None` if there is none.
    #[must_use]
    pub fn oldest_reported(&self) -> Option<Position> {
        self.brokers.values().filter(|broker| broker.incarnation.is_some()).map(|broker| broker.reported).min()
    }

    /// Objects whose writer had applied less than this when it named them are refused (H4).
    #[must_use]
    pub fn orphan_horizon(&self) -> Position {
        self.orphan_horizon
    }

    /// Objects that nothing refers to and that are perhaps still in the bucket, by number.
    pub fn dead_objects(&self) -> impl Iterator<Item = (ObjectId, Death, &ObjectMeta)> {
        self.dead.iter().filter_map(|(id, death)| Some((*id, *death, self.objects.get(id)?)))
    }

    /// Their numbers, and since when they are dead.
    pub fn deaths(&self) -> impl Iterator<Item = (ObjectId, Death)> {
        self.dead.iter().map(|(id, death)| (*id, *death))
    }

    /// How many they are.
    #[must_use]
    pub fn dead_object_count(&self) -> usize {
        self.dead.len()
    }

    /// Their bytes.
    #[must_use]
    pub fn dead_bytes(&self) -> u64 {
        self.dead_bytes
    }
}

fn too_early() -> Outcome {
    let message = format!("the cluster is below feature level {COLLECTION_LEVEL}; raise it first");
    Outcome::refused(KafkaError::UnsupportedVersion, message)
}

#[cfg(test)]
mod tests;
