//! What an idempotent producer knows of one partition: which batches are under way in which order, and their numbers.
//! It follows the Java producer's rules, which decide what a broker has to withstand. No I/O.
use std::collections::VecDeque;
use strandline::types::Uuid;
use strandline::world::Instant;
use strandline_history::Value;

use super::records::{Form, Numbered};
use crate::recorder::Begun;

/// A producer's id and epoch.
pub(super) type Identity = (i64, i16);

/// One batch on its way.
pub(super) struct Batch {
    pub(super) id: u64,
    pub(super) values: Vec<Value>,
    pub(super) form: Form,
    pub(super) created: Instant,
    /// While it waits for another attempt.
    pub(super) not_before: Instant,
    pub(super) in_flight: bool,
    /// Set by the first attempt.
    pub(super) begun: Option<Begun>,
    pub(super) numbered: Option<Numbered>,
    /// An attempt may have put it into the log.
    pub(super) doubt: bool,
    /// Nothing that the client did by itself can have written it twice.
    pub(super) once: bool,
    /// The broker that it was sent to last.
    pub(super) node: Option<i32>,
    /// The topic's id as the last attempt named it.
    pub(super) topic_id: Option<Uuid>,
}

impl Batch {
    fn count(&self) -> i32 {
        i32::try_from(self.values.len()).unwrap_or(0)
    }
}

/// One partition.
#[derive(Default)]
pub(super) struct Lane {
    /// In the order of their numbers.
    pub(super) batches: VecDeque<Batch>,
    /// Whose numbers these are.
    identity: Option<Identity>,
    first: i32,
    next: i32,
    last_acked: Option<i32>,
    /// The number behind a batch that was given up without knowing its fate: until that is known no new batch goes out.
    unresolved: Option<i32>,
    /// Some batch was given up, so that a gap in the numbers is the client's own doing.
    gave_up: bool,
    /// The batches are to be numbered anew, under another identity.
    pub(super) wants_bump: bool,
}

/// What to do with a batch that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Retry,
    Fail,
}

const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const UNKNOWN_PRODUCER_ID: i16 = 59;

impl Lane {
    pub(super) fn in_flight(&self) -> usize {
        self.batches.iter().filter(|batch| batch.in_flight).count()
    }

    /// The broker that has some of it under way.
    pub(super) fn busy_at(&self) -> Option<i32> {
        self.batches.iter().find(|batch| batch.in_flight).and_then(|batch| batch.node)
    }

    /// Whether some of it is under way to a topic with another id.
    pub(super) fn is_under_way_to_other(&self, id: Option<Uuid>) -> bool {
        self.batches.iter().any(|batch| batch.in_flight && batch.topic_id.is_some_and(|sent| Some(sent) != id))
    }

    /// The batch that may go out now. Batches that went out before go again only when they are the first.
    pub(super) fn ready(&self, now: Instant, identity: Option<Identity>) -> Option<usize> {
        let (at, batch) = self.batches.iter().enumerate().find(|(_, batch)| !batch.in_flight)?;
        let may = match (identity, batch.numbered) {
            (None, _) => true,
            (Some(_), _) if self.wants_bump => false,
            (Some(_), Some(_)) => at == 0,
            // Numbers of another identity must be out of the way first.
            (Some(identity), None) => self.unresolved.is_none() && (at == 0 || self.identity == Some(identity)),
        };
        (may && batch.not_before <= now).then_some(at)
    }

    /// Gives the batch its number, if it has none. A partition's first one is `first`.
    pub(super) fn number(&mut self, at: usize, identity: Identity, first: i32) -> Numbered {
        if let Some(numbered) = self.batches[at].numbered {
            return numbered;
        }
        if self.identity != Some(identity) {
            // Where another epoch wrote before, a new one has to begin at 0.
            let first = if self.identity.is_none() { first } else { 0 };
            (self.identity, self.first, self.next) = (Some(identity), first, first);
            (self.last_acked, self.unresolved, self.gave_up) = (None, None, false);
        }
        let numbered = (identity.0, identity.1, self.next);
        self.next = advance(self.next, self.batches[at].count());
        self.batches[at].numbered = Some(numbered);
        numbered
    }

    pub(super) fn take(&mut self, id: u64) -> Option<Batch> {
        let at = self.batches.iter().position(|batch| batch.id == id)?;
        self.batches.remove(at)
    }

    pub(super) fn acked(&mut self, batch: &Batch) {
        if let Some((id, epoch, first)) = batch.numbered
            && self.identity == Some((id, epoch))
        {
            self.last_acked = Some(advance(first, batch.count() - 1));
        }
    }

    /// Judges an error as Java's TransactionManager does; with `gives_up`, a batch that is out of order fails, as
    /// librdkafka's does.
    pub(super) fn refused(&mut self, numbered: Numbered, code: i16, retriable: bool, gives_up: bool) -> Refused {
        let is_next = self.is_next(numbered.2);
        match code {
            OUT_OF_ORDER_SEQUENCE_NUMBER if self.identity != Some((numbered.0, numbered.1)) => Refused::Retry,
            OUT_OF_ORDER_SEQUENCE_NUMBER => {
                let gap = if self.unresolved.is_some() { self.unresolved == Some(numbered.2) } else { is_next };
                self.wants_bump |= gap;
                self.gave_up |= gap && gives_up;
                if gap && gives_up { Refused::Fail } else { Refused::Retry }
            }
            UNKNOWN_PRODUCER_ID => {
                self.wants_bump = true;
                Refused::Retry
            }
            _ if retriable => Refused::Retry,
            _ => {
                self.gave_up = true;
                self.wants_bump = true;
                Refused::Fail
            }
        }
    }

    /// A batch was given up; what became of it is not known.
    pub(super) fn gave_up(&mut self, batch: &Batch) {
        if let Some((_, _, first)) = batch.numbered {
            self.gave_up = true;
            self.unresolved = Some(advance(first, batch.count()));
        }
    }

    /// When all that had numbers is through: whether the broker has them all. If not, new numbers are needed.
    pub(super) fn resolve(&mut self) {
        if self.unresolved.is_some() && self.batches.iter().all(|batch| batch.numbered.is_none()) {
            self.unresolved = None;
            self.wants_bump |= !self.is_next(self.next);
        }
    }

    /// Numbers everything anew from 0 under `identity`. A batch that may be in the log and is sent again under another
    /// identity may be there twice; that is the client's doing only where it gave something up before. With `drop`
    /// those batches are given up instead, as librdkafka does, and returned.
    pub(super) fn renumber(&mut self, identity: Identity, drop: bool) -> Vec<Batch> {
        let fair = self.gave_up;
        (self.identity, self.first, self.next) = (Some(identity), 0, 0);
        (self.last_acked, self.unresolved, self.gave_up, self.wants_bump) = (None, None, false, false);
        let mut dropped = Vec::new();
        for mut batch in std::mem::take(&mut self.batches) {
            if drop && batch.doubt {
                dropped.push(batch);
                continue;
            }
            if batch.numbered.is_some() {
                batch.once &= !(fair && batch.doubt);
                batch.numbered = Some((identity.0, identity.1, self.next));
                self.next = advance(self.next, batch.count());
            }
            self.batches.push_back(batch);
        }
        dropped
    }

    fn is_next(&self, sequence: i32) -> bool {
        sequence == self.last_acked.map_or(self.first, |last| advance(last, 1))
    }
}

/// After 2^31 - 1 comes 0.
fn advance(sequence: i32, by: i32) -> i32 {
    sequence.wrapping_add(by) & i32::MAX
}
