//! Producers: idempotent ones with up to five requests in flight, and plain ones whose retries may write twice. One task
//! owns everything; connections and answers come back to it as events.
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse, ProducerId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use strandline::records::Codec;
use strandline::types::Uuid;
use strandline::world::Instant;
use strandline_history::{End, Log, Value, What};
use tokio::sync::mpsc;
use tracing::trace;

use super::client::{Client, FLEETING, Lane as Link, STABLE, TABLES, View, error_name, is_lasting, topic_name};
use super::connection::{Connection, Fault, note};
use super::lane::{Batch, Identity, Lane, Refused};
use super::records::{self, Form};

/// How a producer is set up.
struct Manner {
    idempotent: bool,
    acks: i16,
    in_flight_max: usize,
    delivery_timeout: Duration,
    /// Between two turns of making batches.
    interval_ms: u64,
    /// Batches of one turn, at most.
    burst_max: u64,
    records_max: u64,
    /// Where the first numbers begin; near their end now and then.
    first_sequence: i32,
    renewal: Renewal,
}

/// How an idempotent producer gets new numbers after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewal {
    /// The next epoch, without asking: Java.
    Local,
    /// InitProducerId with what it had (KIP-360).
    Init,
    /// A new id, and what is in doubt is given up: librdkafka.
    NewId,
}

type At = (String, i32);

enum Event {
    Linked { node: i32, link: Result<Arc<Connection>, Fault> },
    Answered { node: i32, sent: Vec<(At, u64)>, answer: Result<ProduceResponse, Fault>, by_id: bool },
}

struct Producer {
    client: Client,
    manner: Manner,
    lanes: BTreeMap<At, Lane>,
    links: BTreeMap<i32, Linked>,
    identity: Option<Identity>,
    /// InitProducerId is not asked again before.
    init_not_before: Option<Instant>,
    counter: u64,
    batches: u64,
    events: mpsc::Receiver<Event>,
    tell: mpsc::Sender<Event>,
}

#[derive(Default)]
struct Linked {
    connection: Option<Arc<Connection>>,
    connecting: bool,
    in_flight: usize,
}

/// Batches that wait in one producer: then it makes no more until some are through.
const WAITING_MAX: usize = 24;
/// The first version of Produce with which a batch may be packed with zstd.
const ZSTD_VERSION: i16 = 7;
const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;

/// One life of a producer: until clients stop, or for `life`, after which it goes away without a word.
pub(super) async fn run(client: Client, idempotent: bool, life: Duration) {
    let end = client.now() + life;
    client.await_topics().await;
    let (tell, events) = mpsc::channel(1000);
    let manner = Manner::draw(&client, idempotent);
    let mut producer = Producer {
        client,
        manner,
        lanes: BTreeMap::new(),
        links: BTreeMap::new(),
        identity: None,
        init_not_before: None,
        counter: 0,
        batches: 0,
        events,
        tell,
    };
    let mut next_turn = producer.client.now();
    loop {
        let now = producer.client.now();
        let is_stopping = producer.client.is_stopping();
        if now >= end || is_stopping && producer.lanes.values().all(|lane| lane.batches.is_empty()) {
            return producer.go();
        }
        if now >= next_turn && !is_stopping {
            producer.make_batches();
            next_turn = now + Duration::from_millis(producer.client.draw(2 * producer.manner.interval_ms));
        }
        producer.client.refresh_if_due();
        producer.expire();
        producer.renew().await;
        producer.send_ready();
        producer.wait(next_turn.min(end)).await;
    }
}

impl Manner {
    fn draw(client: &Client, idempotent: bool) -> Self {
        // Some give up soon, so that what they sent lies about while they go on with other numbers.
        let is_hasty = client.odds(3);
        Self {
            idempotent,
            acks: if idempotent { -1 } else { [-1, 1, 0][usize::try_from(client.draw(3)).unwrap_or(0)] },
            in_flight_max: if client.odds(4) { 1 } else { 5 },
            delivery_timeout: Duration::from_millis(if is_hasty {
                700 + client.draw(2_000)
            } else {
                5_000 + client.draw(7_000)
            }),
            interval_ms: 80 + client.draw(300),
            burst_max: 1 + client.draw(6),
            records_max: if is_hasty { 1 } else { 1 + client.draw(8) },
            first_sequence: if client.odds(6) { i32::MAX - 50 } else { 0 },
            renewal: [Renewal::Local, Renewal::Init, Renewal::NewId][usize::try_from(client.draw(3)).unwrap_or(0)],
        }
    }
}

impl Producer {
    /// Nobody will learn what becomes of what is under way.
    fn go(mut self) {
        for (at, lane) in std::mem::take(&mut self.lanes) {
            for batch in lane.batches {
                self.end(&at, batch, None, End::Info("the client went away".into()), None);
            }
        }
    }

    fn make_batches(&mut self) {
        let view = self.client.view();
        let all: Vec<At> =
            view.topics.iter().flat_map(|(name, t)| t.leaders.keys().map(|p| (name.clone(), *p))).collect();
        let often = |name: &str| [STABLE, FLEETING, TABLES].contains(&name);
        let stable: Vec<At> = all.iter().filter(|(name, _)| often(name)).cloned().collect();
        for _ in 0..=self.client.draw(self.manner.burst_max) {
            let waiting: usize = self.lanes.values().map(|lane| lane.batches.len()).sum();
            let from = if self.client.odds(4) { &all } else { &stable };
            let Some(at) = self.client.pick(from).filter(|_| waiting < WAITING_MAX).cloned() else { return };
            let batch = self.make_batch(&at);
            self.lanes.entry(at).or_default().batches.push_back(batch);
        }
    }

    fn make_batch(&mut self, at: &At) -> Batch {
        let site = self.client.site().clone();
        let count = 1 + self.client.draw(self.manner.records_max);
        // Times out of order now and then.
        let wall = site.world.wall_ms().0 - if self.client.odds(3) { self.client.between(0, 2_000) } else { 0 };
        let values = (0..count).map(|_| {
            self.counter += 1;
            let (topic, partition) = at.clone();
            let timestamp_ms = wall + self.client.between(0, 20);
            let (run, process, counter) = (site.run, site.process, self.counter);
            let deletes = topic == TABLES && self.client.odds(6);
            Value { run, process, counter, topic, partition, timestamp_ms, source: None, deletes }
        });
        let values = values.collect();
        let codecs = [Codec::None, Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
        let codec = *self.client.pick(&codecs).expect("it is not empty");
        let bytes_min = [0, 60, 300, 2_000][usize::try_from(self.client.draw(4)).unwrap_or(0)];
        self.batches += 1;
        let now = self.client.now();
        Batch {
            id: self.batches,
            values,
            form: Form { codec, bytes_min },
            created: now,
            not_before: now,
            in_flight: false,
            begun: None,
            numbered: None,
            doubt: false,
            once: true,
            node: None,
            topic_id: None,
        }
    }

    /// Gives up what took too long.
    fn expire(&mut self) {
        let before = self.client.now().checked_sub(self.manner.delivery_timeout);
        let late = |batch: &Batch| before.is_some_and(|before| batch.created <= before);
        let mut late_ones = Vec::new();
        for (at, lane) in &mut self.lanes {
            while lane.batches.front().is_some_and(late) {
                let Some(mut batch) = lane.batches.pop_front() else { break };
                lane.gave_up(&batch);
                batch.doubt |= batch.in_flight;
                late_ones.push((at.clone(), batch));
            }
            lane.resolve();
        }
        for (at, batch) in late_ones {
            let end =
                if batch.doubt { End::Info("expired".into()) } else { End::Fail("expired, refused before".into()) };
            self.end(&at, batch, None, end, None);
        }
    }

    /// Gets an identity where there is none, and another where numbers have to begin anew.
    async fn renew(&mut self) {
        if !self.manner.idempotent {
            return;
        }
        let wanting: Vec<At> =
            self.lanes.iter().filter(|(_, lane)| lane.wants_bump).map(|(at, _)| at.clone()).collect();
        let busy = wanting.iter().any(|at| self.lanes[at].in_flight() > 0);
        if self.identity.is_some() && (wanting.is_empty() || busy) {
            return;
        }
        let renewed = match (self.identity, self.manner.renewal) {
            (Some((id, epoch)), Renewal::Local) if epoch < i16::MAX => Some((id, epoch + 1)),
            _ => self.init().await,
        };
        let Some(identity) = renewed else { return };
        self.identity = Some(identity);
        for at in wanting {
            let lane = self.lanes.entry(at.clone()).or_default();
            for batch in lane.renumber(identity, self.manner.renewal == Renewal::NewId) {
                self.end(&at, batch, None, End::Info("given up with its producer id".into()), None);
            }
        }
    }

    async fn init(&mut self) -> Option<Identity> {
        let (client, now) = (self.client.clone(), self.client.now());
        if self.init_not_before.is_some_and(|at| now < at) {
            return None;
        }
        self.init_not_before = Some(now + client.retry_backoff());
        let what =
            |producer_id, epoch| What::InitProducer { transactional_id: None, producer_id, epoch, timeout_ms: -1 };
        let site = client.site();
        let begun = site.recorder.begin(site.process, what(-1, -1));
        let had = self.identity.filter(|_| self.manner.renewal == Renewal::Init);
        let answer = client.ask_any(0..=5, |version| {
            let request =
                InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
            match had.filter(|_| version >= 3) {
                Some((id, epoch)) => request.with_producer_id(ProducerId(id)).with_producer_epoch(epoch),
                None => request,
            }
        });
        let (identity, end) = match answer.await {
            Ok(answer) if answer.error_code == 0 => (Some((answer.producer_id.0, answer.producer_epoch)), End::Ok),
            Ok(answer) => (None, End::Info(error_name(answer.error_code))),
            Err(fault) => (None, End::Info(fault.why)),
        };
        let (id, epoch) = identity.unwrap_or((-1, -1));
        site.recorder.end(begun, None, end, what(id, epoch));
        identity
    }

    /// Sends what may go out, one batch of each partition in a request, to each broker that leads some.
    fn send_ready(&mut self) {
        if self.manner.idempotent && self.identity.is_none() {
            return;
        }
        let (view, now) = (self.client.view(), self.client.now());
        let mut by_node: BTreeMap<i32, Vec<At>> = BTreeMap::new();
        for (at, lane) in &self.lanes {
            if lane.ready(now, self.identity).is_none() {
                continue;
            }
            let topic = view.topics.get(&at.0);
            // What is under way to a topic that is gone comes perhaps behind this in the one that has its name now: which is
            // first there, Kafka does not promise either.
            if topic.is_some_and(|topic| lane.is_under_way_to_other(topic.id)) {
                continue;
            }
            match topic.and_then(|topic| topic.leaders.get(&at.1)) {
                // What is under way elsewhere keeps its order only there.
                Some(leader) => {
                    let node = lane.busy_at().unwrap_or_else(|| self.client.route(leader.node));
                    by_node.entry(node).or_default().push(at.clone());
                }
                None => self.client.want_refresh(),
            }
        }
        for (node, lanes) in by_node {
            let link = self.links.entry(node).or_default();
            if link.in_flight >= self.manner.in_flight_max {
                continue;
            }
            match link.connection.clone().filter(|connection| connection.is_open()) {
                Some(connection) => self.send(node, &connection, &view, lanes),
                None if link.connecting => {}
                None => {
                    (link.connection, link.connecting) = (None, true);
                    let (client, tell) = (self.client.clone(), self.tell.clone());
                    self.client.site().world.spawn("link", async move {
                        let link = client.node(node, Link::Data).await;
                        drop(tell.send(Event::Linked { node, link }).await);
                    });
                }
            }
        }
    }

    fn send(&mut self, node: i32, connection: &Arc<Connection>, view: &View, lanes: Vec<At>) {
        let now = self.client.now();
        let knows_ids = lanes.iter().all(|(name, _)| view.topics[name].id.is_some());
        let Some(version) = connection.version::<ProduceRequest>(3..=if knows_ids { 13 } else { 12 }) else { return };
        let (mut topics, mut sent) = (BTreeMap::<String, Vec<PartitionProduceData>>::new(), Vec::new());
        for at in lanes {
            let named = view.topics[&at.0].id.filter(|_| version >= 13 || is_lasting(&at.0));
            if let Some((id, bytes)) = self.prepare(node, &at, now, named, version) {
                let data = PartitionProduceData::default().with_index(at.1).with_records(Some(bytes));
                topics.entry(at.0.clone()).or_default().push(data);
                sent.push((at, id));
            }
        }
        if sent.is_empty() {
            return;
        }
        let data = topics.into_iter().map(|(name, partitions)| {
            let data = TopicProduceData::default().with_name(topic_name(&name));
            data.with_topic_id(view.topics[&name].id.unwrap_or_default()).with_partition_data(partitions)
        });
        let request = ProduceRequest::default()
            .with_acks(self.manner.acks)
            .with_timeout_ms(i32::try_from(self.client.request_timeout().as_millis()).unwrap_or(i32::MAX))
            .with_topic_data(data.collect());
        if self.manner.acks == 0 {
            let went = connection.send_blindly(version, &request);
            let end = went.err().map_or(End::Ok, |fault| End::Info(fault.why));
            for (at, id) in sent {
                if let Some(batch) = self.lanes.entry(at.clone()).or_default().take(id) {
                    self.end(&at, batch, Some(node), end.clone(), None);
                }
            }
            return;
        }
        self.links.entry(node).or_default().in_flight += 1;
        let due = connection.send(version, &request);
        let (tell, patience, by_id) = (self.tell.clone(), self.client.request_timeout(), version >= 13);
        self.client.site().world.spawn("answer", async move {
            let answer = match due {
                Ok(due) => due.answer(patience).await,
                Err(fault) => Err(fault),
            };
            drop(tell.send(Event::Answered { node, sent, answer, by_id }).await);
        });
    }

    /// Numbers, records and encodes the batch of `at` that is to go. A batch that may be in a topic that was deleted is
    /// not sent into its successor.
    fn prepare(
        &mut self,
        node: i32,
        at: &At,
        now: Instant,
        named: Option<Uuid>,
        version: i16,
    ) -> Option<(u64, bytes::Bytes)> {
        let (identity, first) = (self.identity, self.manner.first_sequence);
        let lane = self.lanes.get_mut(at)?;
        let index = lane.ready(now, identity)?;
        let (doubt, before) = (lane.batches[index].doubt, lane.batches[index].topic_id);
        if doubt && before != named {
            let batch = lane.batches.remove(index)?;
            lane.gave_up(&batch);
            self.end(at, batch, None, End::Info("the topic was deleted".into()), None);
            return None;
        }
        let numbered = identity.map(|identity| lane.number(index, identity, first));
        let batch = &mut lane.batches[index];
        if version < ZSTD_VERSION && batch.form.codec == Codec::Zstd && !self.client.odds(50) {
            batch.form.codec = Codec::Lz4;
        }
        // A plain producer that sends again may write twice.
        batch.once &= self.manner.idempotent || batch.node.is_none();
        (batch.topic_id, batch.node, batch.in_flight) = (named, Some(node), true);
        let bytes = records::make(&batch.values, batch.form, numbered);
        if batch.begun.is_none() {
            let site = self.client.site();
            // Until it has ended nobody knows how often a plain producer will send it.
            let once = self.manner.idempotent && batch.once;
            let what = what(self.client.log_by_name(at), batch, once, self.manner.acks != 0, None);
            batch.begun = Some(site.recorder.begin(site.process, what));
        }
        let (process, id) = (self.client.site().process, batch.id);
        trace!(process, id, topic = at.0, partition = at.1, node, ?numbered, "batch sent");
        Some((id, bytes))
    }

    /// Waits for an event, or until there is something to do.
    async fn wait(&mut self, until: Instant) {
        let now = self.client.now();
        let retries = self.lanes.values().flat_map(|lane| &lane.batches).filter(|b| !b.in_flight && b.not_before > now);
        let until = retries.map(|batch| batch.not_before).min().map_or(until, |retry| retry.min(until));
        let idle = Duration::from_millis(if self.client.is_stopping() { 50 } else { 500 });
        let patience = until.saturating_duration_since(now).clamp(Duration::from_millis(1), idle);
        let world = self.client.site().world.clone();
        if let Some(Some(event)) = world.timeout(patience, self.events.recv()).await {
            self.on(event);
        }
        while let Ok(event) = self.events.try_recv() {
            self.on(event);
        }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Linked { node, link } => {
                let linked = self.links.entry(node).or_default();
                (linked.connecting, linked.connection) = (false, link.ok());
            }
            Event::Answered { node, sent, answer, by_id } => {
                let linked = self.links.entry(node).or_default();
                linked.in_flight = linked.in_flight.saturating_sub(1);
                match answer {
                    Ok(answer) => self.answered(node, sent, &answer, by_id),
                    Err(fault) => {
                        self.client.want_refresh();
                        sent.into_iter().for_each(|(at, id)| self.lost(&at, id, fault.sent));
                    }
                }
            }
        }
    }

    fn answered(&mut self, node: i32, sent: Vec<(At, u64)>, answer: &ProduceResponse, by_id: bool) {
        let parts = answer.responses.iter().flat_map(|t| t.partition_responses.iter().map(move |p| (t, p)));
        let mut parts: Vec<_> = parts.collect();
        for (at, id) in sent {
            let lane = self.lanes.entry(at.clone()).or_default();
            let topic_id = lane.batches.iter().find(|batch| batch.id == id).and_then(|batch| batch.topic_id);
            let found = parts.iter().position(|(topic, part)| {
                let same = if by_id { topic_id.is_none_or(|id| id == topic.topic_id) } else { *topic.name.0 == *at.0 };
                same && part.index == at.1
            });
            match found.map(|found| parts.remove(found).1) {
                Some(part) => self.judge(node, &at, id, part.error_code, part.base_offset),
                None => {
                    note(self.client.site(), &format!("Produce does not answer for {}-{}", at.0, at.1));
                    self.lost(&at, id, true);
                }
            }
        }
        if !parts.is_empty() {
            note(self.client.site(), "Produce answers for a partition that nothing was sent to");
        }
    }

    /// There was no answer: once more.
    fn lost(&mut self, at: &At, id: u64, may_be_done: bool) {
        let not_before = self.client.now() + self.client.retry_backoff();
        let lane = self.lanes.entry(at.clone()).or_default();
        if let Some(batch) = lane.batches.iter_mut().find(|batch| batch.id == id) {
            (batch.in_flight, batch.not_before) = (false, not_before);
            batch.doubt |= may_be_done;
        }
    }

    fn judge(&mut self, node: i32, at: &At, id: u64, code: i16, base_offset: i64) {
        trace!(process = self.client.site().process, id, node, code, base_offset, "batch answered");
        let lane = self.lanes.entry(at.clone()).or_default();
        // What was given up meanwhile is of no interest any more.
        let Some(batch) = lane.batches.iter_mut().find(|batch| batch.id == id) else { return };
        if code == 0 || code == DUPLICATE_SEQUENCE_NUMBER {
            let Some(batch) = lane.take(id) else { return };
            lane.acked(&batch);
            lane.resolve();
            let offset = (base_offset >= 0).then_some(base_offset);
            return self.end(at, batch, Some(node), End::Ok, offset);
        }
        batch.doubt |= !is_certain(code);
        let error = ResponseError::try_from_code(code);
        let retriable = error.is_some_and(|error| error.is_retriable());
        let refused = match batch.numbered.filter(|_| self.manner.idempotent) {
            Some(numbered) => lane.refused(numbered, code, retriable, self.manner.renewal == Renewal::NewId),
            None if retriable => Refused::Retry,
            None => Refused::Fail,
        };
        match refused {
            Refused::Retry => {
                self.client.want_refresh();
                self.lost(at, id, false);
            }
            Refused::Fail => {
                let Some(batch) = lane.take(id) else { return };
                let why = error_name(code);
                let end = if batch.doubt { End::Info(why) } else { End::Fail(why) };
                self.end(at, batch, Some(node), end, None);
            }
        }
    }

    fn end(&self, at: &At, batch: Batch, node: Option<i32>, end: End, offset: Option<i64>) {
        if let Some(begun) = batch.begun {
            let log = self.client.log(&at.0, batch.topic_id, at.1);
            let what = what(log, &batch, batch.once, self.manner.acks != 0, offset);
            self.client.site().recorder.end(begun, node, end, what);
        }
    }
}

fn what(log: Log, batch: &Batch, once: bool, acked: bool, offset: Option<i64>) -> What {
    What::Send { log, values: batch.values.clone(), once, acked, offset, transaction: None }
}

/// Errors that say for certain that the batch is not in the log and will not be. A time-out, a failed storage and a
/// leader that is none any more say nothing.
pub(super) fn is_certain(code: i16) -> bool {
    use ResponseError::*;
    let error = ResponseError::try_from_code(code);
    error.is_some_and(|error| {
        matches!(
            error,
            CorruptMessage
                | UnknownTopicOrPartition
                | MessageTooLarge
                | InvalidTopicException
                | RecordListTooLarge
                | NotEnoughReplicas
                | InvalidRequiredAcks
                | InvalidTimestamp
                | InvalidRequest
                | UnsupportedForMessageFormat
                | PolicyViolation
                | OutOfOrderSequenceNumber
                | InvalidProducerEpoch
                | InvalidProducerIdMapping
                | InvalidTxnState
                | ProducerFenced
                | TransactionAbortable
                | UnknownProducerId
                | UnsupportedCompressionType
                | InvalidRecord
                | ThrottlingQuotaExceeded
                | UnknownTopicId
        )
    })
}
