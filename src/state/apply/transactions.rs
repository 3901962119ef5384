//! Commands about transactions. What a producer may do is decided here, with its epoch as it is when the command comes,
//! so nothing that is late joins a transaction that is not its own (H14, KIP-890). A transaction ends in one step: all
//! markers get their offsets and all offsets of groups are committed, or dropped.
use std::sync::Arc;

use super::State;
use crate::planted::{Defect, planted};
use crate::state::group::{CommittedOffset, GroupName, GroupOffsets};
use crate::state::outcome::{OffsetsOutcome, Outcome};
use crate::state::producer::Moment;
use crate::state::runs::ProducerSpec;
use crate::state::tail::{Marker, Run};
use crate::state::transaction::{
    Aborted, Ended, OpenTransaction, Producing, TRANSACTIONS_LEVEL, TransactionalId, TransactionalProducer,
};
use crate::state::transaction_commands::{
    AbortTransaction, AddToTransaction, EndTransaction, ExpireTransactionalIds, InitProducer, OffsetsTransaction,
    ProducerStamp,
};
use crate::types::{KafkaError, LeaderEpoch, Offset, Position, ProducerEpoch, ProducerId, Slot};

/// How a transaction is ended.
#[derive(Clone, Copy)]
struct End {
    committed: bool,
    /// The markers have an epoch that fences the producer's, and whoever goes on gets it or another producer id.
    bump: bool,
    /// The client that ended it asks for its answer again if that is lost.
    by_client: bool,
}

impl State {
    pub(super) fn init_producer(&mut self, at: Moment, command: &InitProducer) -> Outcome {
        if self.feature_level < TRANSACTIONS_LEVEL {
            return too_early();
        }
        let Some((id, known)) = self.transactional.get_key_value(command.transactional_id.as_str()) else {
            return self.new_transactional_id(at, command);
        };
        let (id, known) = (id.clone(), known.clone());
        let asks = command.exchanged.as_ref().map(producing);
        let again = asks.is_some() && asks == known.exchanged && known.open.is_none();
        if asks.is_some_and(|asks| asks != known.producer) && !again {
            return refused(KafkaError::ProducerFenced);
        }
        let mut grown = Vec::new();
        if !again && known.open.is_some() {
            // One epoch more fences the old instance in its partitions, and is the new one's.
            grown = self.finish(at, &id, End { committed: false, bump: true, by_client: false });
        } else if !again {
            let next = self.after(known.producer);
            self.give(&id, next);
        }
        let Some(now) = self.transactional.get_mut(&id).map(Arc::make_mut) else { return unknown() };
        now.timeout_ms = command.timeout_ms;
        (now.last_used, now.last_used_ms) = (at.position, at.wall_ms);
        now.exchanged = asks;
        Outcome::Producer { producer: now.producer, grown }
    }

    fn new_transactional_id(&mut self, at: Moment, command: &InitProducer) -> Outcome {
        let max = self.settings.transactional_ids_max;
        if self.transactional.len() >= max as usize {
            let message = format!("The cluster has its limit of {max} transactional ids (transactional_ids_max).");
            return Outcome::refused(KafkaError::PolicyViolation, message);
        }
        let id: TransactionalId = Arc::from(command.transactional_id.as_str());
        let producer = self.next_producing();
        let new = TransactionalProducer {
            producer,
            timeout_ms: command.timeout_ms,
            last_used: at.position,
            last_used_ms: at.wall_ms,
            open: None,
            ended: None,
            exchanged: command.exchanged.as_ref().map(producing),
        };
        self.transactional.insert(id.clone(), Arc::new(new));
        self.transactional_ids.insert(producer.id, id);
        Outcome::Producer { producer, grown: Vec::new() }
    }

    pub(super) fn add_to_transaction(&mut self, at: Moment, command: &AddToTransaction) -> Outcome {
        let id = match self.check_producer(&command.transactional_id, &command.producer) {
            Ok(id) => id,
            Err(error) => return refused(error),
        };
        let slots = || command.slots.iter().map(|slot| Slot(*slot));
        if slots().any(|slot| self.partition(slot).is_none()) {
            return refused(KafkaError::UnknownTopicOrPartition);
        }
        if slots().any(|slot| self.is_offsets_slot(slot)) {
            return refused(KafkaError::InvalidTopicException);
        }
        let groups: Vec<GroupName> = command.groups.iter().map(|group| self.group_name(group)).collect();
        let open = self.transactional.get(&id).and_then(|t| t.open.as_ref());
        let new_slots = slots().filter(|slot| !open.is_some_and(|open| open.partitions.contains_key(slot))).count();
        let new_groups = groups.iter().filter(|group| !open.is_some_and(|open| open.groups.contains_key(*group)));
        if !self.has_room(&id, new_slots + new_groups.count()) {
            return self.too_large();
        }
        let Some(open) = self.opened(at, &id) else { return unknown() };
        for slot in slots() {
            open.partitions.entry(slot).or_insert(None);
        }
        for group in groups {
            open.groups.entry(group).or_default();
        }
        Outcome::Done
    }

    pub(super) fn end_transaction(&mut self, at: Moment, command: &EndTransaction) -> Outcome {
        let Some((id, known)) = self.transactional.get_key_value(command.transactional_id.as_str()) else {
            return unknown();
        };
        let (id, by) = (id.clone(), producing(&command.producer));
        // Sent again, perhaps long after: what it ended is answered for, and what is open now is not touched (H14). With
        // version 1 the epoch does not tell one transaction from the next, so there only a closed one has been ended.
        let again = known.ended.filter(|e| e.by == Some(by) && (known.open.is_none() || e.next != by));
        if let Some(ended) = again
            && (ended.next != by || !command.bump)
        {
            return match ended.committed == command.commit {
                true => Outcome::Producer { producer: ended.next, grown: Vec::new() },
                false if known.open.is_some() => refused(KafkaError::ProducerFenced),
                false => refused(KafkaError::InvalidTxnState),
            };
        }
        if let Err(error) = self.check_producer(&id, &command.producer) {
            return refused(error);
        }
        // Of version 2 a transaction may be aborted of which no record has come: what is on its way is fenced then.
        let is_open = self.transactional.get(&id).is_some_and(|t| t.open.is_some());
        if !is_open && (command.commit || !command.bump) {
            return refused(KafkaError::InvalidTxnState);
        }
        let grown = self.finish(at, &id, End { committed: command.commit, bump: command.bump, by_client: true });
        let producer = self.transactional.get(&id).map_or(by, |t| t.producer);
        Outcome::Producer { producer, grown }
    }

    pub(super) fn abort_transaction(&mut self, at: Moment, command: &AbortTransaction) -> Outcome {
        let id = match self.check_producer(&command.transactional_id, &command.producer) {
            Ok(id) => id,
            Err(error) => return refused(error),
        };
        let since = |t: &Arc<TransactionalProducer>| t.open.as_ref().map(|open| open.since);
        if self.transactional.get(&id).and_then(since) != Some(Position(command.since)) {
            return refused(KafkaError::InvalidTxnState);
        }
        let grown = self.finish(at, &id, End { committed: false, bump: true, by_client: false });
        let producer = self.transactional.get(&id).map_or(producing(&command.producer), |t| t.producer);
        Outcome::Producer { producer, grown }
    }

    pub(super) fn expire_transactional_ids(&mut self, command: &ExpireTransactionalIds) -> Outcome {
        for gone in &command.ids {
            let unused = |t: &&Arc<TransactionalProducer>| t.last_used == Position(gone.last_used) && t.open.is_none();
            if let Some(producer) = self.transactional.get(gone.id.as_str()).filter(unused).map(|t| t.producer.id) {
                self.transactional.remove(gone.id.as_str());
                self.transactional_ids.remove(&producer);
            }
        }
        Outcome::Done
    }

    /// Why a transactional producer may not append this batch, or one with its flag wrong; `None` if it may as far as its
    /// transaction is concerned.
    pub(super) fn check_transaction(
        &self,
        slot: Slot,
        producer: &ProducerSpec,
        is_known: bool,
    ) -> Result<Option<TransactionalId>, KafkaError> {
        if self.feature_level < TRANSACTIONS_LEVEL {
            return Ok(None);
        }
        let id = match (self.transactional_ids.get(&producer.id), producer.transactional) {
            (None, false) => return Ok(None),
            (None, true) => return Err(KafkaError::InvalidProducerIdMapping),
            // Readers would take such a batch for committed while its neighbours are not (H14).
            (Some(_), false) => return Err(KafkaError::InvalidTxnState),
            (Some(id), true) => id,
        };
        let known = self.transactional.get(id).ok_or(KafkaError::InvalidProducerIdMapping)?;
        if producer.epoch != known.producer.epoch && !planted(Defect::TransactionsUnfenced) {
            return Err(KafkaError::InvalidProducerEpoch);
        }
        let added = known.open.as_ref().is_some_and(|open| open.partitions.contains_key(&slot));
        if !added && !producer.joins && !planted(Defect::LateProduceJoins) {
            return Err(KafkaError::InvalidTxnState);
        }
        if !added && !self.has_room(id, 1) {
            return Err(KafkaError::PolicyViolation);
        }
        // Each transaction of version 2 has its own epoch, so its first batch in a partition is the first of all.
        if !added && producer.joins && !is_known && producer.first_sequence.0 != 0 {
            return Err(KafkaError::OutOfOrderSequenceNumber);
        }
        Ok(Some(id.clone()))
    }

    /// A batch of the transaction was accepted at this offset.
    pub(super) fn join_transaction(&mut self, at: Moment, id: &TransactionalId, slot: Slot, base_offset: Offset) {
        let Some(producer) = self.transactional.get(id).map(|t| t.producer.id) else { return };
        let Some(open) = self.opened(at, id) else { return };
        if open.partitions.get(&slot).is_some_and(Option::is_some) {
            return;
        }
        open.partitions.insert(slot, Some(base_offset));
        if let Some(partition) = self.partition_mut(slot) {
            partition.transactions_mut().open.insert(base_offset, producer);
        }
    }

    /// Whether the producer is in a transaction that has records in the partition.
    pub(super) fn is_in_transaction(&self, slot: Slot, producer: ProducerId) -> bool {
        let known = self.transactional_ids.get(&producer).and_then(|id| self.transactional.get(id));
        let open = known.and_then(|t| t.open.as_ref());
        open.is_some_and(|open| open.partitions.get(&slot).is_some_and(Option::is_some))
    }

    /// Takes offsets of a group into a transaction.
    pub(super) fn commit_with_transaction(
        &mut self,
        at: Moment,
        request: &GroupOffsets,
        transaction: &OffsetsTransaction,
    ) -> OffsetsOutcome {
        let refused = |error| OffsetsOutcome::Refused { error };
        let id = match self.check_producer(&transaction.transactional_id, &transaction.producer) {
            Ok(id) => id,
            Err(KafkaError::ProducerFenced) => return refused(KafkaError::InvalidProducerEpoch),
            Err(error) => return refused(error),
        };
        let name = self.group_name(&request.group);
        let open = self.transactional.get(&id).and_then(|t| t.open.as_ref());
        if !open.is_some_and(|open| open.groups.contains_key(&name)) && !transaction.joins {
            return refused(KafkaError::InvalidTxnState);
        }
        let known = open.and_then(|open| open.groups.get(&name));
        let is_fresh = |slot| !known.is_some_and(|k| k.contains_key(&slot)) && self.partition(slot).is_some();
        let fresh = request.offsets.iter().filter(|o| is_fresh(Slot(o.slot))).count();
        let full = !self.has_room(&id, fresh + usize::from(known.is_none()));
        if full || self.group_offsets + self.pending + fresh as u64 > u64::from(self.settings.group_offsets_max) {
            return refused(KafkaError::InvalidCommitOffsetSize);
        }
        let (mut pending, mut deleted) = (known.cloned().unwrap_or_default(), Vec::new());
        for spec in &request.offsets {
            let slot = Slot(spec.slot);
            if self.partition(slot).is_none() {
                deleted.push(slot);
                continue;
            }
            let offset = CommittedOffset {
                offset: Offset(spec.offset),
                leader_epoch: LeaderEpoch(spec.leader_epoch),
                metadata: Arc::from(spec.metadata.as_str()),
                committed_ms: at.wall_ms,
                expires_ms: None,
                sequence: 0,
            };
            if pending.insert(slot, offset).is_none() {
                *self.pending_offsets.entry((name.clone(), slot)).or_insert(0) += 1;
                self.pending += 1;
            }
        }
        if let Some(open) = self.opened(at, &id) {
            open.groups.insert(name, pending);
        }
        OffsetsOutcome::Committed { deleted }
    }

    fn forget_pending(&mut self, group: &GroupName, slot: Slot) {
        let key = (group.clone(), slot);
        self.pending -= 1;
        match self.pending_offsets.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.pending_offsets.remove(&key)),
        }
    }

    /// The transactional id as State has it, if this is its producer in its present epoch.
    fn check_producer(&self, id: &str, producer: &ProducerStamp) -> Result<TransactionalId, KafkaError> {
        if self.feature_level < TRANSACTIONS_LEVEL {
            return Err(KafkaError::UnsupportedVersion);
        }
        let (id, known) = self.transactional.get_key_value(id).ok_or(KafkaError::InvalidProducerIdMapping)?;
        if known.producer.id != ProducerId(producer.id) {
            return Err(KafkaError::InvalidProducerIdMapping);
        }
        match known.producer == producing(producer) || planted(Defect::TransactionsUnfenced) {
            true => Ok(id.clone()),
            false => Err(KafkaError::ProducerFenced),
        }
    }

    /// Whether the transaction, open or not yet, may have that many partitions and offsets more.
    fn has_room(&self, id: &TransactionalId, more: usize) -> bool {
        let open = self.transactional.get(id).and_then(|t| t.open.as_ref());
        let of_groups = |open: &OpenTransaction| open.groups.values().map(|offsets| 1 + offsets.len()).sum::<usize>();
        let have = open.map_or(0, |open| open.partitions.len() + of_groups(open));
        have + more <= self.settings.transaction_partitions_max as usize
    }

    fn too_large(&self) -> Outcome {
        let max = self.settings.transaction_partitions_max;
        let message = format!("A transaction has at most {max} partitions and offsets (transaction_partitions_max).");
        Outcome::refused(KafkaError::PolicyViolation, message)
    }

    /// The open transaction, which begins now if there is none.
    fn opened(&mut self, at: Moment, id: &TransactionalId) -> Option<&mut OpenTransaction> {
        let known = self.transactional.get_mut(id).map(Arc::make_mut)?;
        if known.open.is_none() {
            (known.last_used, known.last_used_ms) = (at.position, at.wall_ms);
        }
        Some(known.open.get_or_insert_with(|| OpenTransaction::new(at.position, at.wall_ms)))
    }

    /// Ends the transaction if one is open, and gives the partitions that got a marker or a record.
    fn finish(&mut self, at: Moment, id: &TransactionalId, end: End) -> Vec<Slot> {
        let Some(known) = self.transactional.get_mut(id).map(Arc::make_mut) else { return Vec::new() };
        let (by, open) = (known.producer, known.open.take());
        (known.last_used, known.last_used_ms) = (at.position, at.wall_ms);
        let next = if end.bump { self.after(by) } else { by };
        self.give(id, next);
        let ended = Ended { by: end.by_client.then_some(by), committed: end.committed, next };
        if let Some(known) = self.transactional.get_mut(id).map(Arc::make_mut) {
            (known.exchanged, known.ended) = (None, Some(ended));
        }
        let Some(open) = open else { return Vec::new() };
        let epoch = if end.bump { by.fencing() } else { by.epoch };
        let marker = Marker { producer: by.id, epoch, committed: end.committed };
        let mut grown = Vec::new();
        for (slot, first) in &open.partitions {
            let Some(first) = first else { continue };
            if self.mark(at, *slot, *first, marker) {
                grown.push(*slot);
            }
        }
        for (group, offsets) in &open.groups {
            offsets.keys().for_each(|slot| self.forget_pending(group, *slot));
            if end.committed || planted(Defect::AbortedOffsetsCommitted) {
                grown.extend(self.commit_pending(group, offsets.iter()));
            }
        }
        grown
    }

    /// Puts a marker at the end of a partition in which the transaction began at `first`.
    fn mark(&mut self, at: Moment, slot: Slot, first: Offset, marker: Marker) -> bool {
        let Some(partition) = self.partition_mut(slot) else { return false };
        let run = Run::marker(partition.end, marker, at.wall_ms);
        partition.tail.push(&run);
        partition.end = run.end_offset;
        partition.bytes += u64::from(run.bytes);
        let transactions = partition.transactions_mut();
        transactions.open.remove(&first);
        if !marker.committed {
            let stable = transactions.open.get_min().map_or(run.end_offset, |(first, _)| *first);
            let aborted = Aborted { producer: marker.producer, first, stable };
            transactions.aborted.insert(run.base_offset, aborted);
        }
        if transactions.is_empty() {
            partition.transactions = None;
        }
        self.runs += 1;
        true
    }

    /// Commits what the transaction had for the group.
    fn commit_pending<'a>(
        &mut self,
        name: &GroupName,
        offsets: impl Iterator<Item = (&'a Slot, &'a CommittedOffset)>,
    ) -> Option<Slot> {
        let mut group = self.groups.get(name).map_or_else(Arc::default, Arc::clone);
        let mut any = false;
        for (slot, offset) in offsets {
            if self.partition(*slot).is_none() {
                continue;
            }
            any = true;
            let sequence = self.take_group_sequence();
            let committed = CommittedOffset { sequence, ..offset.clone() };
            let old = Arc::make_mut(&mut group).offsets.insert(*slot, committed);
            self.group_offsets += u64::from(old.is_none());
            self.log_commit(name, *slot, old.map(|c| c.sequence), sequence);
        }
        if any {
            self.groups.insert(name.clone(), group);
        }
        self.offsets_slot(name).filter(|_| any)
    }

    /// The epoch after this one; where a producer id has no more of them, another id.
    fn after(&mut self, producer: Producing) -> Producing {
        match producer.epoch < Producing::EPOCH_MAX {
            true => Producing { epoch: producer.fencing(), ..producer },
            false => self.next_producing(),
        }
    }

    fn next_producing(&mut self) -> Producing {
        let id = self.next_producer;
        self.next_producer = ProducerId(id.0.saturating_add(1));
        Producing { id, epoch: ProducerEpoch(0) }
    }

    fn give(&mut self, id: &TransactionalId, producer: Producing) {
        let Some(known) = self.transactional.get_mut(id).map(Arc::make_mut) else { return };
        let old = std::mem::replace(&mut known.producer, producer);
        if old.id != producer.id {
            self.transactional_ids.remove(&old.id);
            self.transactional_ids.insert(producer.id, id.clone());
        }
    }
}

fn producing(stamp: &ProducerStamp) -> Producing {
    let epoch = ProducerEpoch(i16::try_from(stamp.epoch).unwrap_or(-1));
    Producing { id: ProducerId(stamp.id), epoch }
}

fn refused(error: KafkaError) -> Outcome {
    Outcome::refused(error, String::new())
}

fn unknown() -> Outcome {
    refused(KafkaError::InvalidProducerIdMapping)
}

fn too_early() -> Outcome {
    Outcome::refused(KafkaError::UnsupportedVersion, "the cluster is below feature level 4; raise it first")
}

#[cfg(test)]
mod tests;
