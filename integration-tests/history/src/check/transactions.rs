//! What became of each transaction, and when it can have been open. A transaction is known by its process and a number,
//! and has a transactional id by its process' InitProducerId.
use std::collections::{BTreeMap, HashMap};

use super::bounds::Rising;
use super::eras::Spans;
use super::facts::{Facts, NONE, end_of};
use crate::operation::{End, What};

/// What is known of one.
pub(super) struct Transaction {
    pub(super) process: u32,
    pub(super) number: u64,
    /// Operations, by their begins.
    pub(super) sends: Vec<u32>,
    pub(super) offsets: Vec<u32>,
    /// EndTxn, to commit it and to abort it; `NONE` where that was not asked for.
    pub(super) commit: u32,
    pub(super) abort: u32,
    pub(super) fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Committed,
    /// It was never asked for, or refused, or its producer was fenced before it asked.
    NotCommitted,
    Unknown,
}

impl Transaction {
    /// When its first operation began.
    fn began_us(&self, facts: &Facts<'_>) -> u64 {
        let first = [self.sends.first(), self.offsets.first()].into_iter().flatten();
        let ends = [self.commit, self.abort].into_iter().filter(|end| *end != NONE);
        first.copied().chain(ends).map(|operation| facts.op(operation).start_us).min().unwrap_or(0)
    }
}

/// All of one history.
#[derive(Default)]
pub(super) struct Transactions {
    /// By process and number.
    pub(super) all: Vec<Transaction>,
    /// Of each log, those that sent to it.
    pub(super) by_log: Vec<Vec<u32>>,
    /// Of each log, when some transaction may have been open there.
    open: Vec<Spans>,
    /// By operation of a transaction, `NONE` for others.
    of: Vec<u32>,
    /// Of each value, whether a reader of committed records got it.
    pub(super) read_committed: Vec<bool>,
    owners: Owners,
}

/// Who may use each transactional id, by the answers to InitProducerId.
#[derive(Default)]
struct Owners {
    /// Of each process, its transactional id and its InitProducerIds that were answered well, by their ends.
    processes: HashMap<u32, (String, Vec<(u64, u32)>)>,
    /// Of each transactional id, by the ends of the answers, the latest begin of their questions.
    ids: HashMap<String, Rising>,
    /// Of each transactional id, its InitProducerIds but for those that were refused.
    asked: HashMap<String, Vec<Asked>>,
    /// Of each process, the time-out that it asked for, in µs.
    timeouts: HashMap<u32, u64>,
}

/// One InitProducerId that may have happened.
struct Asked {
    start_us: u64,
    over_us: u64,
    /// Who asked, if that was answered.
    process: Option<u32>,
}

impl Owners {
    fn gather(facts: &Facts<'_>) -> Self {
        let mut owners = Self::default();
        for (number, operation) in (0..).zip(&facts.operations) {
            let What::InitProducer { transactional_id: Some(id), timeout_ms, .. } = &operation.what else { continue };
            let process = operation.process;
            let own = owners.processes.entry(process).or_insert_with(|| (id.clone(), Vec::new()));
            let timeout_us = u64::try_from(*timeout_ms).map_or(u64::MAX, |ms| ms.saturating_mul(1000));
            owners.timeouts.insert(process, timeout_us);
            if !matches!(operation.end, End::Fail(_)) {
                let process = (operation.end == End::Ok).then_some(process);
                let asked = Asked { start_us: operation.start_us, over_us: end_of(operation), process };
                owners.asked.entry(id.clone()).or_default().push(asked);
            }
            let told = owners.ids.entry(id.clone()).or_default();
            if operation.end == End::Ok {
                own.1.push((end_of(operation), number));
                told.tell(end_of(operation), i64::try_from(operation.start_us).unwrap_or(i64::MAX), number);
            }
        }
        owners.ids.values_mut().for_each(Rising::seal);
        owners.processes.values_mut().for_each(|(_, inits)| inits.sort_unstable());
        owners
    }

    /// The InitProducerId that made another process the owner of this one's transactional id before then: it was asked
    /// after this one had been answered.
    fn fenced(&self, process: u32, when_us: u64) -> Option<u32> {
        let (id, inits) = self.processes.get(&process)?;
        let last = inits[..inits.partition_point(|(end, _)| *end <= when_us)].last()?;
        let (start, by) = self.ids.get(id)?.before(when_us)?;
        (u64::try_from(start).unwrap_or(0) > last.0).then_some(by)
    }
}

impl Transactions {
    pub(super) fn gather(facts: &Facts<'_>) -> Self {
        let mut found = Self { owners: Owners::gather(facts), ..Self::default() };
        found.of = vec![NONE; facts.operations.len()];
        found.by_log.resize_with(facts.logs.len(), Vec::new);
        let mut known: BTreeMap<(u32, u64), u32> = BTreeMap::new();
        for (at, operation) in (0u32..).zip(&facts.operations) {
            let number = match operation.what {
                What::Send { transaction: Some(number), .. } => number,
                What::SendOffsets { transaction, .. } | What::EndTransaction { transaction, .. } => transaction,
                _ => continue,
            };
            let index =
                *known.entry((operation.process, number)).or_insert_with(|| found.begin(operation.process, number));
            found.of[at as usize] = index;
            let transaction = &mut found.all[index as usize];
            match operation.what {
                What::Send { .. } => transaction.sends.push(at),
                What::SendOffsets { .. } => transaction.offsets.push(at),
                What::EndTransaction { commit: true, .. } => transaction.commit = at,
                _ => transaction.abort = at,
            }
            let log = facts.placed[at as usize];
            if log != NONE && found.by_log[log as usize].last() != Some(&index) {
                found.by_log[log as usize].push(index);
            }
        }
        for of in &mut found.by_log {
            of.sort_unstable();
            of.dedup();
        }
        found.know_what_was_read(facts);
        found.judge(facts);
        found.open = (0..).zip(&facts.logs).map(|(log, _)| found.spans(facts, log)).collect();
        found
    }

    fn begin(&mut self, process: u32, number: u64) -> u32 {
        let (sends, offsets) = (Vec::new(), Vec::new());
        let new = Transaction { process, number, sends, offsets, commit: NONE, abort: NONE, fate: Fate::Unknown };
        self.all.push(new);
        u32::try_from(self.all.len() - 1).expect("fewer than operations, which are fewer")
    }

    fn know_what_was_read(&mut self, facts: &Facts<'_>) {
        self.read_committed = vec![false; facts.sent.len()];
        for operation in facts.operations.iter().filter(|operation| operation.end == End::Ok) {
            let What::Poll { records, read_committed: true, .. } = &operation.what else { continue };
            for seen in records {
                if let Some(read) = self.read_committed.get_mut(facts.value_of(seen) as usize) {
                    *read = true;
                }
            }
        }
    }

    /// What was read as committed proves the rest where the producer itself never learnt it.
    fn judge(&mut self, facts: &Facts<'_>) {
        let mut proved = vec![false; self.all.len()];
        for ((send, _), _) in facts.sent.iter().zip(&self.read_committed).filter(|(_, read)| **read) {
            if let Some(proved) = proved.get_mut(self.of[*send as usize] as usize) {
                *proved = true;
            }
        }
        for (at, proved) in proved.into_iter().enumerate() {
            self.all[at].fate = self.fate(facts, &self.all[at], proved);
        }
    }

    fn fate(&self, facts: &Facts<'_>, transaction: &Transaction, proved: bool) -> Fate {
        if transaction.commit == NONE {
            return Fate::NotCommitted;
        }
        let commit = facts.op(transaction.commit);
        match commit.end {
            End::Fail(_) => Fate::NotCommitted,
            // After a fork the end itself may be lost, and so may be who has fenced it.
            _ if facts.options.salvaged => Fate::Unknown,
            _ if self.fenced(facts, transaction.commit).is_some() => Fate::NotCommitted,
            End::Ok => Fate::Committed,
            End::Info(_) if proved => Fate::Committed,
            End::Info(_) => Fate::Unknown,
        }
    }

    /// When some transaction may have been open in the log: from its first send there on, until it ended, its producer
    /// was fenced, or, where nothing is heard of it, its time-out was over.
    fn spans(&self, facts: &Facts<'_>, log: u32) -> Spans {
        let mut spans = Spans::default();
        for transaction in self.by_log[log as usize].iter().map(|index| &self.all[*index as usize]) {
            let here = transaction.sends.iter().filter(|send| facts.placed[**send as usize] == log);
            let Some(first) = here.map(|send| facts.op(*send).start_us).min() else { continue };
            let ends = [transaction.commit, transaction.abort].into_iter().filter(|end| *end != NONE);
            let ended = ends.map(|end| facts.op(end)).filter(|end| end.end == End::Ok).map(end_of).min();
            let ended = ended.filter(|_| !facts.options.salvaged);
            spans.tell(first, ended.unwrap_or_else(|| self.given_up(facts, transaction)));
        }
        spans.seal();
        spans
    }

    fn given_up(&self, facts: &Facts<'_>, transaction: &Transaction) -> u64 {
        let (Some(healed_us), Some(timeout_us)) = (facts.healed_us, self.owners.timeouts.get(&transaction.process))
        else {
            return u64::MAX;
        };
        let last =
            transaction.sends.iter().map(|send| facts.op(*send)).map(|send| send.end_us.unwrap_or(send.start_us));
        let last = last.max().unwrap_or(0).max(healed_us);
        last.saturating_add(*timeout_us).saturating_add(facts.options.liveness_us)
    }

    /// The transaction that the operation is part of.
    pub(super) fn of_operation(&self, operation: u32) -> Option<&Transaction> {
        self.all.get(*self.of.get(operation as usize)? as usize)
    }

    /// The transaction that sent the value.
    pub(super) fn of_value(&self, facts: &Facts<'_>, value: u32) -> Option<&Transaction> {
        self.of_operation(facts.sent.get(value as usize)?.0)
    }

    /// The place of the transaction that the operation is part of, in `all`.
    pub(super) fn index_of(&self, operation: u32) -> Option<u32> {
        self.of.get(operation as usize).copied().filter(|index| *index != NONE)
    }

    /// How many markers the log has at most.
    pub(super) fn markers(&self, log: u32) -> i64 {
        self.by_log.get(log as usize).map_or(0, |of| i64::try_from(of.len()).unwrap_or(i64::MAX))
    }

    /// Whether a transaction may have been open in the log at some time from `from_us` to `to_us`.
    pub(super) fn may_be_open(&self, log: u32, from_us: u64, to_us: u64) -> bool {
        self.open.get(log as usize).is_some_and(|open| open.touch(from_us, to_us))
    }

    /// Who had taken the operation's transactional id from its process before it began.
    pub(super) fn fenced(&self, facts: &Facts<'_>, operation: u32) -> Option<u32> {
        let operation = facts.op(operation);
        self.owners.fenced(operation.process, operation.start_us)
    }

    /// Whether nothing can have fenced the operation's process, or aborted its transaction, before the operation ended: no
    /// other had asked for its transactional id, and its time-out was not over.
    pub(super) fn has_no_reason(&self, facts: &Facts<'_>, number: u32) -> bool {
        let operation = facts.op(number);
        let Some((id, _)) = self.owners.processes.get(&operation.process) else { return true };
        if facts.options.salvaged || facts.options.clocks_differ {
            return false;
        }
        let others = self.owners.asked.get(id).map_or(&[][..], Vec::as_slice);
        let own_us = others.iter().filter(|asked| asked.process == Some(operation.process)).map(|asked| asked.start_us);
        let own_us = own_us.filter(|start_us| *start_us <= operation.start_us).max().unwrap_or(0);
        let by_other = others.iter().any(|asked| {
            let in_time = asked.start_us <= operation.end_us.unwrap_or(u64::MAX) && asked.over_us >= own_us;
            in_time && asked.process != Some(operation.process)
        });
        let timeout_us = self.owners.timeouts.get(&operation.process).copied().unwrap_or(0);
        let began = self.of_operation(number).map(|transaction| transaction.began_us(facts));
        // What was not answered, or told nothing, may have begun something long before.
        let late = began.is_none_or(|began| operation.end_us.is_none_or(|end| end.saturating_sub(began) >= timeout_us));
        !by_other && !late
    }

    /// The transactional id that the process uses.
    pub(super) fn id_of(&self, process: u32) -> Option<&str> {
        self.owners.processes.get(&process).map(|(id, _)| id.as_str())
    }
}
