//! A transactional producer: InitProducerId, partitions and offsets that join, EndTxn, with the retries of Java's producer.
//! Of version 2 (KIP-890) partitions join with their records and each transaction has an epoch of its own, which EndTxn
//! tells; of version 1 they are added first, and a producer that is not sure what became of its requests asks for
//! another epoch before it goes on. One task owns it and waits for each step.
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest, ProducerId,
    TransactionalId, TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;
use strandline_history::{End, Value, What};

use super::client::{Client, CoordinatorOf, Lane, TABLES, error_name, text, topic_name};
use super::connection::Fault;
use super::membership::{Committed, Membership};
use super::producer::is_certain;
use super::reader::At;
use super::records::Form;
use super::transactional_batch::{Batch, Sent, send};

/// Which version of transactions a producer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// Why a transaction does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// It has to be aborted; the next one may go well.
    Abort,
    /// This producer is fenced, or does not know what became of it: it closes.
    Closed,
}

/// See the module.
pub(super) struct Transactional {
    pub(super) client: Client,
    id: String,
    version: Version,
    timeout: Duration,
    /// How long one step is tried.
    patience: Duration,
    identity: (i64, i16),
    coordinator: Option<i32>,
    /// Of each partition, the next sequence number of the present identity.
    sequences: BTreeMap<At, i32>,
    added: BTreeSet<At>,
    number: u64,
    counter: u64,
    /// Something failed, or was not answered and may come later: version 1 needs another epoch.
    wants_epoch: bool,
    /// It is of the time before a producer could ask for another epoch (KIP-360).
    is_old: bool,
    /// Where such a one has batches that may come later: it writes there no more.
    lost: BTreeSet<At>,
}

const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
const COORDINATOR_NOT_AVAILABLE: i16 = 15;
const NOT_COORDINATOR: i16 = 16;
const CONCURRENT_TRANSACTIONS: i16 = 51;
const REQUEST_TIMED_OUT: i16 = 7;

/// How one step ended that did not end well.
struct Failed {
    why: String,
    /// Some attempt may have been carried out, or may be later.
    doubt: bool,
    over: Over,
}

impl Failed {
    fn end(&self) -> End {
        if self.doubt { End::Info(self.why.clone()) } else { End::Fail(self.why.clone()) }
    }
}

impl Transactional {
    /// One that has its id and epoch, so that all others of its transactional id are fenced; `None` if it could not be had.
    pub(super) async fn open(client: &Client, id: &str, timeout: Duration) -> Option<Self> {
        let mut producer = Self {
            client: client.clone(),
            id: id.to_owned(),
            version: if client.odds(3) { Version::One } else { Version::Two },
            timeout,
            // Some give up soon, so that what they sent may come when the transaction is over.
            patience: Duration::from_millis(match client.odds(3) {
                true => 700 + client.draw(2_000),
                false => 4_000 + client.draw(12_000),
            }),
            identity: (-1, -1),
            coordinator: None,
            sequences: BTreeMap::new(),
            added: BTreeSet::new(),
            number: 0,
            counter: 0,
            wants_epoch: false,
            is_old: false,
            lost: BTreeSet::new(),
        };
        producer.init(false).await.ok()?;
        Some(producer)
    }

    /// Makes it one that can't ask for another epoch, if it speaks version 1.
    pub(super) fn grow_old(&mut self) {
        self.is_old = self.version == Version::One;
    }

    /// Whether it may write there.
    pub(super) fn writes(&self, at: &At) -> bool {
        !self.lost.contains(at)
    }

    /// A value to be written; each has another counter.
    pub(super) fn value(&mut self, at: &At, source: Option<(u32, u64)>) -> Value {
        let site = self.client.site();
        self.counter += 1;
        let (run, process, counter, timestamp_ms) = (site.run, site.process, self.counter, site.world.wall_ms().0);
        let deletes = at.0 == TABLES && self.client.odds(6);
        Value { run, process, counter, topic: at.0.clone(), partition: at.1, timestamp_ms, source, deletes }
    }

    /// From now on what is written is part of the next transaction.
    pub(super) fn begin(&mut self) {
        self.number += 1;
        self.added.clear();
    }

    /// Writes batches, partitions beside each other, and waits for all of them.
    pub(super) async fn write(&mut self, batches: Vec<(At, Vec<Value>, Form)>) -> Result<(), Over> {
        self.add(batches.iter().map(|(at, ..)| at.clone()).collect()).await?;
        let mut lanes: BTreeMap<At, Vec<Batch>> = BTreeMap::new();
        for (at, values, form) in batches {
            let next = self.sequences.entry(at.clone()).or_insert(0);
            let numbered = (self.identity.0, self.identity.1, *next);
            *next += i32::try_from(values.len()).unwrap_or(0);
            let (id, version, transaction) = (self.id.clone(), self.version, self.number);
            lanes.entry(at).or_default().push(Batch { id, version, transaction, values, form, numbered });
        }
        let world = &self.client.site().world;
        let spawn =
            |(at, lane): (At, _)| (at.clone(), world.spawn("lane", send(self.client.clone(), at, lane, self.patience)));
        let under_way: Vec<_> = lanes.into_iter().map(spawn).collect();
        let mut worst = Ok(());
        for (at, sent) in under_way {
            match sent.await {
                Ok(Sent::All) => continue,
                Ok(Sent::Not(Over::Closed)) => worst = Err(Over::Closed),
                Ok(Sent::Not(over)) => worst = worst.and(Err(over)),
                Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
                Err(_) => worst = Err(Over::Closed),
            }
            self.lost.extend(self.is_old.then_some(at));
        }
        self.wants_epoch |= worst.is_err() && !self.is_old;
        worst
    }

    /// AddPartitionsToTxn, of version 1.
    async fn add(&mut self, partitions: BTreeSet<At>) -> Result<(), Over> {
        let new: Vec<At> = partitions.into_iter().filter(|at| !self.added.contains(at)).collect();
        if new.is_empty() || self.version == Version::Two {
            return Ok(());
        }
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        new.iter().for_each(|(topic, partition)| topics.entry(topic).or_default().push(*partition));
        let topic = |(name, partitions): (&str, Vec<i32>)| {
            AddPartitionsToTxnTopic::default().with_name(topic_name(name)).with_partitions(partitions)
        };
        let topics: Vec<_> = topics.into_iter().map(topic).collect();
        let (id, (producer, epoch)) = (self.transactional_id(), self.identity);
        let request = |_| {
            AddPartitionsToTxnRequest::default()
                .with_v3_and_below_transactional_id(id.clone())
                .with_v3_and_below_producer_id(ProducerId(producer))
                .with_v3_and_below_producer_epoch(epoch)
                .with_v3_and_below_topics(topics.clone())
        };
        let added = self.settle(0..=3, request, |answer| {
            let mut results = answer.results_by_topic_v3_and_below.iter().flat_map(|t| &t.results_by_partition);
            results.find_map(|r| (r.partition_error_code != 0).then_some(r.partition_error_code)).unwrap_or(0)
        });
        added.await.map_err(|failed| failed.over)?;
        self.added.extend(new);
        Ok(())
    }

    /// TxnOffsetCommit: where `member` and its group go on when this transaction is committed.
    pub(super) async fn send_offsets(
        &mut self,
        member: &mut Membership,
        offsets: &BTreeMap<At, Option<Committed>>,
    ) -> Result<(), Over> {
        if self.version == Version::One {
            let (id, group, (producer, epoch)) = (self.transactional_id(), member.group_id(), self.identity);
            let request = |_| {
                let request = AddOffsetsToTxnRequest::default().with_transactional_id(id.clone());
                let request = request.with_producer_id(ProducerId(producer)).with_producer_epoch(epoch);
                request.with_group_id(group.clone())
            };
            self.settle(0..=4, request, |answer| answer.error_code).await.map_err(|failed| failed.over)?;
        }
        let site = self.client.site().clone();
        let what = What::SendOffsets {
            transaction: self.number,
            group: member.group.clone(),
            member: member.id.clone(),
            generation: member.generation,
            offsets: member.commits(offsets),
        };
        let begun = site.recorder.begin(site.process, what.clone());
        let sent = self.try_offsets(member, offsets).await;
        let end = sent.as_ref().err().map_or(End::Ok, Failed::end);
        site.recorder.end(begun, member.node(), end, what);
        sent.map_err(|failed| failed.over)
    }

    async fn try_offsets(
        &mut self,
        member: &mut Membership,
        offsets: &BTreeMap<At, Option<Committed>>,
    ) -> Result<(), Failed> {
        let usable = match (self.version, member.generation >= 0) {
            (Version::Two, _) => 5..=5,
            (Version::One, true) => 3..=4,
            (Version::One, false) => 0..=4,
        };
        let (until, mut doubt) = (self.client.now() + self.patience, false);
        loop {
            let (id, group, (producer, epoch)) = (self.transactional_id(), member.group_id(), self.identity);
            let (name, generation, instance) = (text(member.id.clone()), member.generation, member.instance.clone());
            let topics = offset_topics(offsets);
            let request = |version| {
                let request = TxnOffsetCommitRequest::default().with_transactional_id(id).with_group_id(group);
                let request = request.with_producer_id(ProducerId(producer)).with_producer_epoch(epoch);
                let request = request.with_topics(topics);
                if version < 3 {
                    return request;
                }
                let request = request.with_member_id(name).with_generation_id(generation);
                request.with_group_instance_id(instance.map(text))
            };
            let answer = member.ask(usable.clone(), self.client.request_timeout(), request).await;
            let code = answer.map(|answer| {
                let mut parts = answer.topics.iter().flat_map(|topic| &topic.partitions);
                parts.find_map(|part| (part.error_code != 0).then_some(part.error_code)).unwrap_or(0)
            });
            let again = match &code {
                Ok(0) => return Ok(()),
                Ok(code) => {
                    doubt |= may_be_done(*code);
                    member.is_moved(*code) || is_again(*code)
                }
                Err(fault) => {
                    doubt |= fault.sent;
                    true
                }
            };
            // What of version 1 may come later would be part of the next transaction.
            let unsure = doubt && self.version == Version::One;
            if !again || unsure || self.client.now() > until {
                self.wants_epoch = true;
                let over = code.as_ref().map_or(Over::Abort, |code| over(*code));
                let why = code.map_or_else(|fault| fault.why, error_name);
                return Err(Failed { why, doubt, over });
            }
            self.client.back_off().await;
        }
    }

    /// EndTxn, until it is known how it ended; then another epoch if that is wanted.
    pub(super) async fn end(&mut self, commit: bool) -> Result<(), Over> {
        // One that keeps away from all that it would have written to has nothing to commit either.
        if self.version == Version::One && self.added.is_empty() && (!commit || self.is_old) {
            // Nothing has begun, as far as it knows.
            return if self.wants_epoch { self.init(true).await } else { Ok(()) };
        }
        let site = self.client.site().clone();
        let what = What::EndTransaction { transaction: self.number, commit };
        let begun = site.recorder.begin(site.process, what.clone());
        let (id, (producer, epoch)) = (self.transactional_id(), self.identity);
        let request = |_| {
            let request = EndTxnRequest::default().with_transactional_id(id.clone()).with_committed(commit);
            request.with_producer_id(ProducerId(producer)).with_producer_epoch(epoch)
        };
        let usable = if self.version == Version::Two { 5..=5 } else { 0..=4 };
        let ended = self.settle(usable, request, |answer| answer.error_code).await;
        let end = ended.as_ref().err().map_or(End::Ok, Failed::end);
        site.recorder.end(begun, self.coordinator, end, what);
        match ended {
            Ok(answer) if self.version == Version::Two => {
                self.take((answer.producer_id.0, answer.producer_epoch));
                Ok(())
            }
            Ok(_) if self.wants_epoch && self.is_old => Err(Over::Closed),
            Ok(_) if self.wants_epoch => self.init(true).await,
            Ok(_) => Ok(()),
            // Nothing of it may have reached the coordinator, so that there is nothing to abort.
            Err(failed) if !commit && self.version == Version::One && failed.over == Over::Abort => {
                self.init(true).await
            }
            Err(_) => Err(Over::Closed),
        }
    }

    /// InitProducerId, again and again; each attempt without an answer is an operation of its own, since it would fence
    /// whoever has the id when it is carried out. With `again` it tells who it was (KIP-360).
    async fn init(&mut self, again: bool) -> Result<(), Over> {
        let site = self.client.site().clone();
        let until = self.client.now() + self.patience;
        let timeout_ms = i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX);
        let what = |producer_id, epoch| What::InitProducer {
            transactional_id: Some(self.id.clone()),
            producer_id,
            epoch,
            timeout_ms,
        };
        while self.client.now() < until {
            let begun = site.recorder.begin(site.process, what(-1, -1));
            let (id, (producer, epoch)) = (self.transactional_id(), self.identity);
            let request = |_| {
                let request = InitProducerIdRequest::default().with_transactional_id(Some(id));
                let request = request.with_transaction_timeout_ms(timeout_ms);
                if !again {
                    return request;
                }
                request.with_producer_id(ProducerId(producer)).with_producer_epoch(epoch)
            };
            let node = self.coordinator;
            let answer = ask(&self.client, &self.id, node, if again { 3..=5 } else { 0..=5 }, request).await;
            let (node, answer) =
                answer.map_or_else(|fault| (None, Err(fault)), |(node, answer)| (Some(node), Ok(answer)));
            let end = match &answer {
                Ok(answer) if answer.error_code == 0 => End::Ok,
                Ok(answer) if may_be_done(answer.error_code) => End::Info(error_name(answer.error_code)),
                Ok(answer) => End::Fail(error_name(answer.error_code)),
                Err(fault) if fault.sent => End::Info(fault.why.clone()),
                Err(fault) => End::Fail(fault.why.clone()),
            };
            let now = answer.as_ref().map_or((-1, -1), |a| (a.producer_id.0, a.producer_epoch));
            site.recorder.end(begun, node, end.clone(), what(now.0, now.1));
            match answer {
                Ok(answer) if answer.error_code == 0 => {
                    self.coordinator = node;
                    self.wants_epoch = false;
                    self.take(now);
                    return Ok(());
                }
                Ok(answer) if !is_again(answer.error_code) => return Err(Over::Closed),
                _ => self.coordinator = None,
            }
            self.client.back_off().await;
        }
        Err(Over::Closed)
    }

    fn take(&mut self, identity: (i64, i16)) {
        if self.identity != identity {
            (self.identity, self.wants_epoch) = (identity, false);
            self.sequences.clear();
        }
    }

    fn transactional_id(&self) -> TransactionalId {
        TransactionalId(text(self.id.clone()))
    }

    /// Asks the coordinator until it says what became of it.
    async fn settle<R>(
        &mut self,
        usable: RangeInclusive<i16>,
        make: impl Fn(i16) -> R,
        code: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response, Failed>
    where
        R: Request,
        R::Response: Decodable + HeaderVersion,
    {
        let (until, mut doubt) = (self.client.now() + self.patience, false);
        loop {
            let answer = ask(&self.client, &self.id, self.coordinator, usable.clone(), &make).await;
            let why = match answer {
                Ok((node, answer)) => {
                    let code = code(&answer);
                    if code == 0 {
                        self.coordinator = Some(node);
                        self.wants_epoch |= doubt;
                        return Ok(answer);
                    }
                    doubt |= may_be_done(code);
                    if !is_again(code) {
                        self.wants_epoch = true;
                        return Err(Failed { why: error_name(code), doubt, over: over(code) });
                    }
                    error_name(code)
                }
                Err(fault) => {
                    doubt |= fault.sent;
                    fault.why
                }
            };
            self.coordinator = None;
            if self.client.now() > until {
                self.wants_epoch = true;
                return Err(Failed { why, doubt, over: Over::Abort });
            }
            self.client.back_off().await;
        }
    }
}

/// Asks the broker `node`, or whoever coordinates the transactional id `id`, and tells which that was.
async fn ask<R>(
    client: &Client,
    id: &str,
    node: Option<i32>,
    usable: RangeInclusive<i16>,
    make: impl FnOnce(i16) -> R,
) -> Result<(i32, R::Response), Fault>
where
    R: Request,
    R::Response: Decodable + HeaderVersion,
{
    let node = match node {
        Some(node) => node,
        None => client.find_coordinator(CoordinatorOf::Transactions, id).await?,
    };
    Ok((node, client.node(node, Lane::Group).await?.ask(usable, make).await?))
}

/// Errors that ask for another attempt.
fn is_again(code: i16) -> bool {
    let moved = [COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR, CONCURRENT_TRANSACTIONS];
    moved.contains(&code) || ResponseError::try_from_code(code).is_some_and(|error| error.is_retriable())
}

/// Errors behind which it may have been done, or may be done later.
fn may_be_done(code: i16) -> bool {
    matches!(code, COORDINATOR_NOT_AVAILABLE | REQUEST_TIMED_OUT) || !is_again(code) && !is_certain(code) && code != 0
}

/// What an error that no other attempt mends means to the transaction, by Java's TransactionManager.
pub(super) fn over(code: i16) -> Over {
    use ResponseError::*;
    match ResponseError::try_from_code(code) {
        Some(ProducerFenced | InvalidProducerIdMapping | InvalidTxnState | UnsupportedVersion) => Over::Closed,
        _ => Over::Abort,
    }
}

fn offset_topics(offsets: &BTreeMap<At, Option<Committed>>) -> Vec<TxnOffsetCommitRequestTopic> {
    let mut topics: BTreeMap<&str, Vec<TxnOffsetCommitRequestPartition>> = BTreeMap::new();
    for ((topic, partition), committed) in offsets {
        let Some((offset, metadata)) = committed else { continue };
        let one = TxnOffsetCommitRequestPartition::default()
            .with_partition_index(*partition)
            .with_committed_offset(*offset)
            .with_committed_metadata(Some(text(metadata.clone())));
        topics.entry(topic).or_default().push(one);
    }
    let topic = |(name, partitions)| {
        TxnOffsetCommitRequestTopic::default().with_name(topic_name(name)).with_partitions(partitions)
    };
    topics.into_iter().map(topic).collect()
}
