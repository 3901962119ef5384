//! The owner of what is being produced: gathers, flushes, proposes, answers. It never awaits anything but its next
//! event; PUTs and outcomes come back as events.
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tracing::{debug, info, warn};

use super::budget::{Budget, Decision, FlushRule, InFlight};
use super::chain::{Chains, FlushId, GivenUp, Link, Newcomers, Numbered, Unsettled};
use super::flush::{LaidOut, commit_runs, lay_out};
use super::open::{Held, Open, pinned};
use super::put::{PutPolicy, Putter, Stored, fresh_header};
use super::{BatchResult, PartBatch, Placed, ProduceError, Producer, QUEUE_MAX, Submission};
use crate::cache::ObjectCache;
use crate::metadata::{ProposeError, Replica};
use crate::planted::{Defect, planted};
use crate::segment::ObjectName;
use crate::state::{BatchOutcome, BatchSequence, Outcome, State};
use crate::store::Bucket;
use crate::telemetry::Metrics;
use crate::types::{ConnectionId, KafkaError, ObjectId, Offset};
use crate::world::{Instant, JoinHandle, World};

/// What the batcher works with.
pub struct Batcher {
    pub replica: Replica,
    pub bucket: Arc<dyn Bucket>,
    /// Where written objects go, so that tailing readers find them in memory.
    pub cache: Arc<ObjectCache>,
    pub world: World,
    pub metrics: Arc<Metrics>,
    pub flush: FlushRule,
    pub put: PutPolicy,
}

/// Starts the batcher; it ends, after its last flush is answered, when every handle is gone.
pub fn start(batcher: Batcher) -> (Producer, JoinHandle<()>) {
    let (queue, submitted) = mpsc::channel(QUEUE_MAX);
    let world = batcher.world.clone();
    let putter = Putter::new(
        batcher.bucket.clone(),
        world.clone(),
        batcher.replica.identity().incarnation,
        batcher.metrics.clone(),
        batcher.put,
    );
    let owner = Owner {
        putter: Arc::new(putter),
        budget: Budget::new(batcher.flush),
        batcher,
        open: Open::default(),
        requests: BTreeMap::new(),
        next_request: 0,
        next_flush: 0,
        flights: BTreeMap::new(),
        puts: 0,
        chains: Chains::default(),
        given_up: GivenUp::default(),
        unsettled: Unsettled::default(),
        newcomers: Newcomers::default(),
        doubtful: BTreeMap::new(),
        events: FuturesUnordered::new(),
        failing: false,
    };
    (Producer { queue }, world.spawn("batcher", owner.run(submitted)))
}

/// A request that waits for its batches.
struct Request {
    results: Vec<Option<BatchResult>>,
    missing: usize,
    reply: oneshot::Sender<Vec<BatchResult>>,
    since: Instant,
}

/// A flush on its way.
struct Flight {
    name: ObjectName,
    object_bytes: u32,
    /// Its number in State, once a first command gave it one.
    object: Option<ObjectId>,
    stored: bool,
    /// Whether it waited for the outcome of another, so that all of it can be proposed at once.
    waited: bool,
    /// Batches that are not proposed yet.
    waiting: Vec<LaidOut>,
    proposed: usize,
}

enum Event {
    Put {
        flush: FlushId,
        result: Result<ObjectName, String>,
        permits: Vec<OwnedSemaphorePermit>,
    },
    Outcome {
        flush: FlushId,
        batches: Vec<LaidOut>,
        outcome: Result<Outcome, ProposeError>,
        since: Instant,
    },
    /// State is as new as the request now, or (false) nobody can say.
    Caught {
        submission: Submission,
        reply: Reply,
        up: bool,
    },
}

type Reply = oneshot::Sender<Vec<BatchResult>>;

struct Owner {
    batcher: Batcher,
    putter: Arc<Putter>,
    budget: Budget,
    open: Open,
    requests: BTreeMap<u64, Request>,
    next_request: u64,
    next_flush: u64,
    flights: BTreeMap<FlushId, Flight>,
    puts: usize,
    chains: Chains,
    given_up: GivenUp,
    unsettled: Unsettled,
    newcomers: Newcomers,
    /// Connections with a request that waits for a read barrier, and their requests behind it.
    doubtful: BTreeMap<ConnectionId, Vec<(Submission, Reply)>>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    failing: bool,
}

impl Owner {
    async fn run(mut self, mut submitted: mpsc::Receiver<(Submission, Reply)>) {
        let mut draining = false;
        loop {
            let due = self.flush_what_may_leave(draining);
            if draining && self.flights.is_empty() && self.open.held.is_empty() && self.doubtful.is_empty() {
                return;
            }
            let world = self.batcher.world.clone();
            let timer = async {
                match due {
                    Some(at) => world.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(event) = self.events.next() => self.handle(event),
                taken = submitted.recv(), if !draining => match taken {
                    Some((submission, reply)) => self.receive(submission, reply),
                    None => draining = true,
                },
                () = timer => {}
            }
        }
    }

    /// Adds a request's batches to the open flush; if one of them is to be refused as far as State knows, behind a read
    /// barrier: another broker may have taken what has to come first.
    fn receive(&mut self, submission: Submission, reply: Reply) {
        if let Some(behind) = self.doubtful.get_mut(&submission.connection) {
            return behind.push((submission, reply));
        }
        let state = self.batcher.replica.state();
        for batch in submission.batches.iter().filter(|batch| !is_known(&state, batch)) {
            if let Some(first) = batch.awaits {
                let awaited = Numbered { first, ..Numbered::of(batch) };
                self.given_up.give_up(awaited);
                self.unsettled.give_up(awaited, self.batcher.world.now());
            }
        }
        if submission.batches.iter().all(|batch| self.admits(&state, submission.connection, batch)) {
            return self.take(submission, reply, true);
        }
        self.doubtful.insert(submission.connection, Vec::new());
        let replica = self.batcher.replica.clone();
        self.events.push(Box::pin(async move {
            let up = replica.barrier().await.is_ok();
            Event::Caught { submission, reply, up }
        }));
    }

    /// `up`: State is as new as the request.
    fn take(&mut self, submission: Submission, reply: Reply, up: bool) {
        let (now, state) = (self.batcher.world.now(), self.batcher.replica.state());
        self.budget.taken();
        let count = submission.batches.len();
        let request = self.next_request;
        self.next_request += 1;
        self.requests.insert(request, Request { results: vec![None; count], missing: count, reply, since: now });
        let sizes: usize = submission.batches.iter().map(|b| b.bytes.len()).sum();
        // Slices keep their whole frame allocated, so they are worth keeping only where they are most of it.
        let keep_slices = sizes >= submission.frame_bytes / 8 * 7 && sizes / count.max(1) >= 16 << 10;
        let mut taken = false;
        for (index, batch) in submission.batches.into_iter().enumerate() {
            let size = batch.bytes.len();
            let connection = submission.connection;
            if !self.admits(&state, connection, &batch) {
                let (error, message) = if !up {
                    (KafkaError::NotLeaderOrFollower, "is missing, and the journal does not say whether it was written")
                } else if self.given_up.admits(Numbered::of(&batch)) {
                    (KafkaError::NotLeaderOrFollower, "is on its way over another connection")
                } else {
                    (self.out_of_order(Numbered::of(&batch)), "was not written, and has to come first")
                };
                let message = format!("an earlier batch of this producer {message}");
                let numbered = Numbered::of(&batch);
                debug!(connection = connection.0, ?numbered, awaits = ?batch.awaits, message, "batch refused");
                self.answer(request, index, Err(retriable(error, &message)));
                continue;
            }
            let pinned_bytes = size * submission.frame_bytes / sizes.max(1);
            let newcomer = !is_known(&state, &batch);
            if batch.header.has_producer() {
                self.given_up.end(Numbered::of(&batch));
            }
            if newcomer {
                self.newcomers.enter(connection, Numbered::of(&batch));
            }
            self.open.push(Held {
                connection,
                batch,
                keep_slices,
                pinned_bytes,
                request,
                index,
                since: now,
                applied: state.head(),
                newcomer,
                permit: None,
            });
            taken = true;
        }
        if let Some(last) = self.open.held.last_mut().filter(|_| taken) {
            self.batcher.metrics.produce.buffered_bytes.inc_by(pinned(submission.permit.iter()));
            last.permit = submission.permit;
        }
        if count == 0 {
            self.finish_if_complete(request);
        }
    }

    /// Whether a batch may be taken before another one of its producer; one that State knows is judged by State.
    fn admits(&self, state: &State, connection: ConnectionId, batch: &PartBatch) -> bool {
        let numbered = Numbered::of(batch);
        is_known(state, batch) || self.given_up.admits(numbered) && !self.newcomers.overtakes(connection, numbered)
    }

    /// Lets flushes go; gives the time at which the next one is due.
    fn flush_what_may_leave(&mut self, draining: bool) -> Option<Instant> {
        loop {
            let now = self.batcher.world.now();
            let in_flight = InFlight { puts: self.puts, stored: self.flights.values().filter(|f| f.stored).count() };
            match self.budget.decide(now, self.open.bytes, in_flight) {
                Decision::Flush(reason) => self.flush(now, reason),
                Decision::At(_) if draining => self.flush(now, "drain"),
                Decision::At(due) => return Some(due),
                Decision::Wait => return None,
            }
        }
    }

    fn flush(&mut self, now: Instant, reason: &'static str) {
        let mut open = self.open.leave(self.batcher.flush.object_bytes);
        let oldest = open.held.first().map(|oldest| (oldest.since, oldest.applied));
        let (since, applied) = oldest.unwrap_or_else(|| (now, self.batcher.replica.applied()));
        let permits = open.held.iter_mut().filter_map(|held| held.permit.take()).collect();
        let flush = FlushId(self.next_flush);
        self.next_flush += 1;
        self.budget.flushed(now);
        let header = fresh_header(&self.batcher.world, self.batcher.replica.identity().incarnation, applied);
        let layout = lay_out(&header, open.held);
        for batch in &layout.batches {
            self.chains.enter(batch.held.link(), flush);
        }
        self.batcher.metrics.produce.flushed(reason, open.bytes as u64, layout.batches.len());
        self.puts += 1;
        self.batcher.metrics.produce.puts_in_flight.set(self.puts as i64);
        let flight = Flight {
            name: header.name,
            object_bytes: layout.object_bytes,
            object: None,
            stored: false,
            waited: false,
            waiting: layout.batches,
            proposed: 0,
        };
        self.flights.insert(flush, flight);
        let task = self.store(since, header.name, layout.body, layout.pinned_bytes);
        self.events.push(Box::pin(async move {
            let result = task.await.unwrap_or_else(|e| Err(e.to_string()));
            Event::Put { flush, result, permits }
        }));
    }

    /// PUTs an object, and hands it to readers, on a task of its own: both may take long.
    fn store(
        &self,
        since: Instant,
        name: ObjectName,
        body: Vec<Bytes>,
        pinned_bytes: usize,
    ) -> JoinHandle<Result<ObjectName, String>> {
        let (putter, cache, world) = (self.putter.clone(), self.batcher.cache.clone(), self.batcher.world.clone());
        self.batcher.world.spawn("put", async move {
            if planted(Defect::DroppedSync) {
                let behind = body.clone();
                world.spawn("put", async move { putter.put(since, name, behind).await });
                cache.insert_written(name, body.into(), pinned_bytes);
                return Ok(name);
            }
            let Stored { name, body } = putter.put(since, name, body).await?;
            cache.insert_written(name, body.into(), pinned_bytes);
            Ok(name)
        })
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Put { flush, result, permits } => {
                self.puts -= 1;
                self.batcher.metrics.produce.puts_in_flight.set(self.puts as i64);
                match result {
                    Ok(name) => self.stored(flush, name),
                    Err(reason) => self.put_failed(flush, &reason),
                }
                self.batcher.metrics.produce.buffered_bytes.dec_by(pinned(permits.iter()));
                drop(permits);
            }
            Event::Outcome { flush, batches, outcome, since } => self.known(flush, batches, outcome, since),
            Event::Caught { submission, reply, up } => {
                let behind = self.doubtful.remove(&submission.connection);
                self.take(submission, reply, up);
                behind.into_iter().flatten().for_each(|(submission, reply)| self.receive(submission, reply));
            }
        }
    }

    fn stored(&mut self, flush: FlushId, name: ObjectName) {
        if std::mem::take(&mut self.failing) {
            info!("the bucket takes objects again");
        }
        self.budget.stored(self.batcher.world.now());
        let Some(flight) = self.flights.get_mut(&flush) else { return };
        (flight.stored, flight.name) = (true, name);
        self.propose(flush);
    }

    /// Whether a batch of `flush` waits for nothing but an outcome. Until that is known the journal takes no other entry
    /// of ours, so the rest of the flush loses no time if it waits too, and all of it is one entry.
    fn has_an_outcome_before_it(&self, flush: FlushId) -> bool {
        let Some(flight) = self.flights.get(&flush) else { return false };
        let before = |batch: &LaidOut| self.chains.just_before(batch.held.link(), flush);
        flight.waiting.iter().filter_map(before).any(|f| self.flights.get(&f).is_some_and(|f| f.stored))
    }

    /// Proposes the batches of a stored flush that wait for no earlier one.
    fn propose(&mut self, flush: FlushId) {
        let waits =
            self.flights.get(&flush).is_some_and(|f| f.stored && !f.waited) && self.has_an_outcome_before_it(flush);
        let Some(flight) = self.flights.get_mut(&flush).filter(|f| f.stored) else { return };
        if waits {
            flight.waited = true;
            return;
        }
        // The number that State gave the object is needed before more of it is committed.
        if flight.proposed > 0 && flight.object.is_none() {
            return;
        }
        let chains = &self.chains;
        let (free, blocked): (Vec<_>, Vec<_>) =
            flight.waiting.drain(..).partition(|b| chains.is_first(b.held.link(), flush) || planted(Defect::PutOrder));
        flight.waiting = blocked;
        if free.is_empty() {
            return;
        }
        flight.proposed += free.len();
        let command = commit_runs(flight.name, flight.object_bytes, flight.object, &free);
        let (replica, since) = (self.batcher.replica.clone(), self.batcher.world.now());
        self.events.push(Box::pin(async move {
            let outcome = replica.propose(command).await;
            Event::Outcome { flush, batches: free, outcome, since }
        }));
    }

    fn known(
        &mut self,
        flush: FlushId,
        mut batches: Vec<LaidOut>,
        outcome: Result<Outcome, ProposeError>,
        since: Instant,
    ) {
        let now = self.batcher.world.now();
        self.batcher.metrics.produce.commit_seconds.observe((now - since).as_secs_f64());
        if let Some(flight) = self.flights.get_mut(&flush) {
            flight.proposed -= batches.len();
        }
        match outcome {
            Ok(Outcome::Batches { object, batches: outcomes }) => {
                if let Some(flight) = self.flights.get_mut(&flush) {
                    flight.object = object.or(flight.object);
                }
                let mut outcomes = outcomes.into_iter();
                let again: Vec<LaidOut> = batches
                    .extract_if(.., |batch| match outcomes.next() {
                        Some(BatchOutcome::Refused { error: KafkaError::NotLeaderOrFollower }) => true,
                        Some(outcome) => {
                            self.arrived(&batch.held);
                            let result = self.result_of(&batch.held, outcome);
                            self.answer(batch.held.request, batch.held.index, result);
                            false
                        }
                        None => false,
                    })
                    .collect();
                self.leave(flush, &batches);
                if !again.is_empty() {
                    let message = "it may be in the log already, of a producer that was forgotten since";
                    self.give_up(flush, again, KafkaError::NotLeaderOrFollower, message);
                }
            }
            Ok(Outcome::Refused(refusal)) => self.give_up(flush, batches, refusal.error, &refusal.message),
            Ok(other) => {
                let message = format!("the broker can't commit: {other:?}");
                self.give_up(flush, batches, KafkaError::NotLeaderOrFollower, &message);
            }
            Err(error) => self.give_up(flush, batches, timed_out(), &error.to_string()),
        }
    }

    fn put_failed(&mut self, flush: FlushId, reason: &str) {
        if !std::mem::replace(&mut self.failing, true) {
            warn!(reason, "the bucket takes no objects; producers are told to try again");
        }
        let Some(flight) = self.flights.get_mut(&flush) else { return };
        let batches = std::mem::take(&mut flight.waiting);
        self.give_up(flush, batches, timed_out(), "the object store did not take the records in time");
    }

    /// Fails batches that were certainly not committed, and everything behind them in their chains (H7).
    fn give_up(&mut self, flush: FlushId, batches: Vec<LaidOut>, error: KafkaError, message: &str) {
        let links: BTreeSet<Link> = batches.iter().map(|batch| batch.held.link()).collect();
        let mut failed = BTreeMap::from([(flush, batches)]);
        // The oldest first, so that of each producer the first batch is the one that is waited for.
        while let Some((flush, batches)) = failed.pop_first() {
            for batch in &batches {
                self.expect_again(&batch.held);
                let link = batch.held.link();
                for behind in self.chains.behind(link, flush) {
                    if planted(Defect::SuccessorsGoOn) {
                        break;
                    }
                    let Some(flight) = self.flights.get_mut(&behind) else { continue };
                    let with_it = flight.waiting.extract_if(.., |b| b.held.link() == link);
                    failed.entry(behind).or_default().extend(with_it);
                }
            }
            for batch in &batches {
                self.fail(&batch.held, error, message);
            }
            self.leave(flush, &batches);
        }
        // What has not left yet is behind them too.
        for held in self.open.drop_if(|held| links.contains(&held.link()) && !planted(Defect::SuccessorsGoOn)) {
            self.batcher.metrics.produce.buffered_bytes.dec_by(pinned(held.permit.iter()));
            self.expect_again(&held);
            self.fail(&held, error, message);
        }
    }

    /// Nothing of the batch's producer is taken before it, unless it, or what is before it, has come again already. What
    /// is behind it is told to try again too.
    fn expect_again(&mut self, held: &Held) {
        self.arrived(held);
        if held.batch.header.has_producer() {
            self.unsettled.give_up(Numbered::of(&held.batch), self.batcher.world.now());
        }
        if !is_known(&self.batcher.replica.state(), &held.batch)
            && !self.newcomers.comes_again(held.connection, Numbered::of(&held.batch))
            && !planted(Defect::GivenUpForgotten)
        {
            self.given_up.give_up(Numbered::of(&held.batch));
        }
    }

    fn result_of(&self, held: &Held, outcome: BatchOutcome) -> BatchResult {
        match outcome {
            BatchOutcome::Duplicate { .. } if planted(Defect::DuplicateAtZero) => Ok(Placed { base_offset: Offset(0) }),
            BatchOutcome::Accepted { base_offset } | BatchOutcome::Duplicate { base_offset } => {
                Ok(Placed { base_offset })
            }
            BatchOutcome::Refused { error: KafkaError::OutOfOrderSequenceNumber } => {
                Err(ProduceError { error: self.out_of_order(Numbered::of(&held.batch)), message: None })
            }
            BatchOutcome::Refused { error } => Err(ProduceError { error, message: None }),
        }
    }

    /// What the producer of a batch is told that came before its turn.
    fn out_of_order(&self, batch: Numbered) -> KafkaError {
        if self.unsettled.holds(batch, self.batcher.world.now()) {
            KafkaError::NotLeaderOrFollower
        } else {
            KafkaError::OutOfOrderSequenceNumber
        }
    }

    /// Answers a batch that was given up. If an attempt over another connection is in the log, that is the answer: an
    /// error would make the client send it again when State may not remember it any more.
    fn fail(&mut self, held: &Held, error: KafkaError, message: &str) {
        let (header, state) = (&held.batch.header, self.batcher.replica.state());
        let same = |b: &&BatchSequence| b.first == header.base_sequence && b.records == header.records();
        let producer = state.producer(held.batch.slot, header.producer_id);
        let known =
            producer.filter(|p| p.epoch == header.producer_epoch).and_then(|p| p.batches().iter().find(same).copied());
        let result = known.map(|b| Placed { base_offset: b.base_offset }).ok_or_else(|| retriable(error, message));
        self.answer(held.request, held.index, result);
    }

    /// The batch is on its way no more.
    fn arrived(&mut self, held: &Held) {
        if held.newcomer {
            self.newcomers.leave(held.connection, Numbered::of(&held.batch));
        }
    }

    /// The batches are done with: whoever waited for them may go.
    fn leave(&mut self, flush: FlushId, batches: &[LaidOut]) {
        let mut freed = vec![flush];
        for batch in batches {
            let link = batch.held.link();
            freed.extend(self.chains.behind(link, flush).first());
            self.chains.leave(link, flush);
        }
        freed.sort_unstable();
        freed.dedup();
        freed.into_iter().for_each(|f| self.propose(f));
        if self.flights.get(&flush).is_some_and(|f| f.waiting.is_empty() && f.proposed == 0) {
            self.flights.remove(&flush);
        }
    }

    fn answer(&mut self, request: u64, index: usize, result: BatchResult) {
        if let Some(waiting) = self.requests.get_mut(&request)
            && waiting.results[index].replace(result).is_none()
        {
            waiting.missing -= 1;
            self.finish_if_complete(request);
        }
    }

    fn finish_if_complete(&mut self, request: u64) {
        if self.requests.get(&request).is_none_or(|r| r.missing > 0) {
            return;
        }
        let Some(done) = self.requests.remove(&request) else { return };
        let now = self.batcher.world.now();
        self.budget.answered(now);
        self.batcher.metrics.produce.ack_seconds.observe((now - done.since).as_secs_f64());
        // A client that hung up, or asked for no acknowledgement, needs no answer.
        let _ = done.reply.send(done.results.into_iter().flatten().collect());
    }
}

/// Whether State judges the order of the batch's producer, or nobody has to.
fn is_known(state: &State, batch: &PartBatch) -> bool {
    !batch.header.has_producer() || state.producer(batch.slot, batch.header.producer_id).is_some()
}

/// What a producer is told that shall try again.
fn timed_out() -> KafkaError {
    if planted(Defect::TimeoutAsFenced) { KafkaError::InvalidProducerEpoch } else { KafkaError::RequestTimedOut }
}

fn retriable(error: KafkaError, message: &str) -> ProduceError {
    ProduceError { error, message: Some(message.to_owned()) }
}
