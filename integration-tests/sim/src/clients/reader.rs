//! Reading partitions, as assigned and grouped consumers do it: one fetch at a time to each broker, positions of its own,
//! resets where the broker says that an offset is out of range. One task owns it; answers come back as events.
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use std::collections::BTreeMap;
use std::time::Duration;
use strandline::types::Uuid;
use strandline::world::Instant;
use strandline_history::{End, Log, Value, What};
use tokio::sync::mpsc;

use super::client::{Client, Lane, View, error_name, topic_name};
use super::connection::{Fault, note};
use super::offsets::list_offset;
use super::records::{self, Aborts};
use super::session::{Asked, Plan, Session};
use crate::recorder::Begun;

/// A partition by its topic's name.
pub(super) type At = (String, i32);

pub(super) const EARLIEST: i64 = -2;
pub(super) const LATEST: i64 = -1;

/// How a consumer fetches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) sessions: bool,
    pub(super) read_committed: bool,
    pub(super) min_bytes: i32,
    pub(super) max_wait_ms: i32,
    pub(super) bytes_max: i32,
    pub(super) partition_bytes_max: i32,
    /// Between two fetches of one broker.
    pub(super) idle_ms: u64,
    /// Where to go on after OFFSET_OUT_OF_RANGE: a timestamp of ListOffsets.
    pub(super) reset: i64,
}

/// See the module.
pub(super) struct Reader {
    client: Client,
    manner: Manner,
    parts: BTreeMap<At, Part>,
    nodes: BTreeMap<i32, Node>,
    positions: u64,
    /// What it read since somebody asked, if anybody asks: the values of each partition.
    kept: Option<Vec<(At, Value)>>,
    events: mpsc::Receiver<Event>,
    tell: mpsc::Sender<Event>,
}

struct Part {
    position: Position,
    /// Changes whenever what comes next does not follow from what came before.
    position_of: u64,
    topic_id: Option<Uuid>,
    not_before: Instant,
    /// A fetch or a reset is under way.
    busy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    At(i64),
    /// To be asked for by ListOffsets.
    Ask(i64),
}

#[derive(Default)]
struct Node {
    session: Session,
    busy: bool,
    not_before: Option<Instant>,
}

/// A partition's share of a fetch that is under way.
struct Share {
    at: At,
    log: Log,
    asked: Asked,
    position_of: u64,
    begun: Begun,
}

enum Event {
    Fetched { node: i32, epoch: i32, shares: Vec<Share>, answer: Result<(FetchResponse, bool), Fault> },
    Reset { at: At, position_of: u64, offset: Option<i64> },
}

const OFFSET_OUT_OF_RANGE: i16 = 1;

impl Manner {
    pub(super) fn draw(client: &Client) -> Self {
        let one_of = |of: &[i32]| *client.pick(of).expect("it is not empty");
        Self {
            sessions: !client.odds(3),
            read_committed: client.odds(3),
            min_bytes: one_of(&[1, 1, 1, 500, 20_000]),
            max_wait_ms: one_of(&[0, 50, 200, 500, 1_000]),
            bytes_max: one_of(&[1, 3_000, 1 << 20, 50 << 20]),
            partition_bytes_max: one_of(&[1, 1_000, 20_000, 1 << 20]),
            idle_ms: 50 + client.draw(250),
            reset: if client.odds(3) { LATEST } else { EARLIEST },
        }
    }
}

impl Reader {
    pub(super) fn new(client: &Client, manner: Manner) -> Self {
        let (tell, events) = mpsc::channel(1000);
        let client = client.clone();
        Self { client, manner, parts: BTreeMap::new(), nodes: BTreeMap::new(), positions: 0, kept: None, events, tell }
    }

    /// Reads `at` too, from `offset`; negative ones are ListOffsets' timestamps.
    pub(super) fn assign(&mut self, at: At, offset: i64) {
        self.positions += 1;
        let position = if offset < 0 { Position::Ask(offset) } else { Position::At(offset) };
        let (position_of, not_before) = (self.positions, self.client.now());
        let topic_id = self.client.view().topics.get(&at.0).and_then(|topic| topic.id);
        let part = Part { position, position_of, topic_id, not_before, busy: false };
        self.parts.insert(at, part);
    }

    /// Reads it no longer. An answer that is under way is written down and not used.
    pub(super) fn revoke(&mut self, at: &At) {
        self.parts.remove(at);
    }

    /// Gives what it read since the last call, and keeps from now on what it reads. All of it lies before the positions.
    pub(super) fn take(&mut self) -> Vec<(At, Value)> {
        self.kept.replace(Vec::new()).unwrap_or_default()
    }

    pub(super) fn assigned(&self) -> Vec<At> {
        self.parts.keys().cloned().collect()
    }

    /// Where it would go on, if that is known.
    pub(super) fn position(&self, at: &At) -> Option<i64> {
        match self.parts.get(at)?.position {
            Position::At(offset) => Some(offset),
            Position::Ask(_) => None,
        }
    }

    /// Fetches what may be fetched, and takes what answers there are until `patience` is over or one came.
    pub(super) async fn turn(&mut self, patience: Duration) {
        self.client.refresh_if_due();
        let view = self.client.view();
        self.follow(&view);
        self.ask_for_positions();
        self.fetch(&view);
        let world = self.client.site().world.clone();
        let now = self.client.now();
        let soon = self.nodes.values().filter(|node| !node.busy).filter_map(|node| node.not_before);
        let soon = soon.filter(|at| *at > now).min().map_or(patience, |at| (at - now).min(patience));
        if let Some(Some(event)) = world.timeout(soon.max(Duration::from_millis(1)), self.events.recv()).await {
            self.on(event);
        }
        while let Ok(event) = self.events.try_recv() {
            self.on(event);
        }
    }

    /// A topic that was made anew is read anew.
    fn follow(&mut self, view: &View) {
        for (at, part) in &mut self.parts {
            let id = view.topics.get(&at.0).and_then(|topic| topic.id);
            if id.is_some() && id != part.topic_id {
                self.positions += 1;
                (part.topic_id, part.position_of) = (id, self.positions);
                (part.position, part.busy) = (Position::Ask(EARLIEST), false);
            }
        }
    }

    fn ask_for_positions(&mut self) {
        let now = self.client.now();
        for (at, part) in self.parts.iter_mut().filter(|(_, part)| !part.busy && part.not_before <= now) {
            let Position::Ask(timestamp) = part.position else { continue };
            part.busy = true;
            let (client, tell, at, position_of) =
                (self.client.clone(), self.tell.clone(), at.clone(), part.position_of);
            self.client.site().world.spawn("position", async move {
                let offset = list_offset(&client, &at, timestamp).await;
                drop(tell.send(Event::Reset { at, position_of, offset }).await);
            });
        }
    }

    fn fetch(&mut self, view: &View) {
        let now = self.client.now();
        let mut by_node: BTreeMap<i32, BTreeMap<At, Asked>> = BTreeMap::new();
        for (at, part) in &self.parts {
            let Position::At(from) = part.position else { continue };
            let topic = view.topics.get(&at.0);
            let Some(leader) = topic.and_then(|topic| topic.leaders.get(&at.1)) else {
                self.client.want_refresh();
                continue;
            };
            if !part.busy && part.not_before <= now {
                let bytes_max = self.manner.partition_bytes_max;
                let asked = Asked { topic_id: part.topic_id, from, leader_epoch: leader.epoch, bytes_max };
                by_node.entry(self.client.route(leader.node)).or_default().insert(at.clone(), asked);
            }
        }
        for (id, wanted) in by_node {
            let node = self.nodes.entry(id).or_default();
            if node.busy || node.not_before.is_some_and(|at| at > now) {
                continue;
            }
            node.busy = true;
            let by_id = wanted.values().all(|asked| asked.topic_id.is_some());
            let plan = node.session.next(wanted.clone(), self.manner.sessions);
            let shares = self.begin(wanted);
            let (client, tell, manner, epoch) = (self.client.clone(), self.tell.clone(), self.manner, plan.epoch);
            self.client.site().world.spawn("fetch", async move {
                let answer = fetch(&client, id, plan, manner, by_id).await;
                drop(tell.send(Event::Fetched { node: id, epoch, shares, answer }).await);
            });
        }
    }

    fn begin(&mut self, wanted: BTreeMap<At, Asked>) -> Vec<Share> {
        let site = self.client.site();
        let shares = wanted.into_iter().filter_map(|(at, asked)| {
            let part = self.parts.get_mut(&at)?;
            part.busy = true;
            // Whether it names an id follows from the version, which is not known yet.
            let (log, position_of) = (self.client.log_by_name(&at), part.position_of);
            let begun = site.recorder.begin(site.process, poll(&log, position_of, asked.from, self.manner, None));
            Some(Share { at, log, asked, position_of, begun })
        });
        shares.collect()
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Reset { at, position_of, offset } => {
                let again = self.client.now() + self.client.retry_backoff();
                let part = self.parts.get_mut(&at).filter(|part| part.position_of == position_of);
                let Some(part) = part else { return };
                part.busy = false;
                match offset {
                    Some(offset) => part.position = Position::At(offset),
                    None => part.not_before = again,
                }
            }
            Event::Fetched { node: id, epoch, shares, answer } => {
                let now = self.client.now();
                let node = self.nodes.entry(id).or_default();
                node.busy = false;
                node.not_before = Some(now + Duration::from_millis(self.client.draw(2 * self.manner.idle_ms)));
                for share in &shares {
                    let part = self.parts.get_mut(&share.at);
                    if let Some(part) = part.filter(|part| part.position_of == share.position_of) {
                        part.busy = false;
                    }
                }
                match answer {
                    Ok((answer, by_id)) => {
                        node.session.answered(epoch, answer.error_code, answer.session_id);
                        self.answered(id, shares, answer, by_id);
                    }
                    Err(fault) => {
                        node.session.lost();
                        self.client.want_refresh();
                        self.end_all(shares, None, &End::Info(fault.why));
                    }
                }
            }
        }
    }

    /// One of them tells that the whole fetch failed; the others need not be known.
    fn end_all(&self, shares: Vec<Share>, node: Option<i32>, end: &End) {
        let site = self.client.site();
        for (at, share) in shares.into_iter().enumerate() {
            let what = poll(&share.log, share.position_of, share.asked.from, self.manner, None);
            match at {
                0 => site.recorder.end(share.begun, node, end.clone(), what),
                _ => site.recorder.forget(share.begun),
            }
        }
    }

    fn answered(&mut self, node: i32, mut shares: Vec<Share>, answer: FetchResponse, by_id: bool) {
        if answer.error_code != 0 {
            return self.end_all(shares, Some(node), &End::Fail(error_name(answer.error_code)));
        }
        for topic in answer.responses {
            for data in topic.partitions {
                let same = |share: &Share| match (by_id, share.asked.topic_id) {
                    (true, Some(id)) => id == topic.topic_id,
                    _ => share.at.0 == *topic.topic.0,
                };
                let found = shares.iter().position(|share| same(share) && share.at.1 == data.partition_index);
                match found {
                    Some(found) => {
                        let mut share = shares.remove(found);
                        if by_id {
                            share.log = self.client.log(&share.at.0, share.asked.topic_id, share.at.1);
                        }
                        self.share(node, share, &data);
                    }
                    None => note(self.client.site(), "Fetch answers for a partition that was not asked for"),
                }
            }
        }
        for mut share in shares {
            if by_id {
                share.log = self.client.log(&share.at.0, share.asked.topic_id, share.at.1);
            }
            self.unchanged(node, share);
        }
    }

    /// What a session does not name is as it was told last, and has no records (KIP-227).
    fn unchanged(&self, node: i32, share: Share) {
        let Share { at, log, asked, position_of, begun } = share;
        let recorder = &self.client.site().recorder;
        let told = self.nodes.get(&node).and_then(|node| node.session.told(&at));
        let Some((high_watermark, log_start)) = told else { return recorder.forget(begun) };
        let data = PartitionData::default()
            .with_high_watermark(high_watermark)
            .with_last_stable_offset(-1)
            .with_log_start_offset(log_start);
        let seen = Some((&data, records::Got::default(), asked.from));
        recorder.end(begun, Some(node), End::Ok, poll(&log, position_of, asked.from, self.manner, seen));
    }

    fn share(&mut self, node: i32, share: Share, data: &PartitionData) {
        let site = self.client.site().clone();
        let Share { at, log, asked, position_of, begun } = share;
        let from = asked.from;
        let part = self.parts.get_mut(&at).filter(|part| part.position_of == position_of);
        if data.error_code == 0 {
            if let Some(node) = self.nodes.get_mut(&node) {
                node.session.tell(&at, data.high_watermark, data.log_start_offset);
            }
            let records = data.records.clone().unwrap_or_default();
            let aborts = self.manner.read_committed.then(|| Aborts::of(data));
            let got = records::read(&records, &log, site.run, from, aborts);
            let next = got.next.map_or(from, |next| next.max(from));
            if let Some(part) = part {
                part.position = Position::At(next);
                if let Some(kept) = &mut self.kept {
                    let values = got.records.iter().filter_map(|seen| seen.value.clone().ok());
                    kept.extend(values.map(|value| (at.clone(), value)));
                }
            }
            let seen = Some((data, got, next));
            return site.recorder.end(begun, Some(node), End::Ok, poll(&log, position_of, from, self.manner, seen));
        }
        let end = End::Fail(error_name(data.error_code));
        let seen = Some((data, records::Got::default(), from));
        site.recorder.end(begun, Some(node), end, poll(&log, position_of, from, self.manner, seen));
        let again = self.client.now() + self.client.retry_backoff();
        if let Some(part) = part {
            part.not_before = again;
            if data.error_code == OFFSET_OUT_OF_RANGE {
                self.positions += 1;
                (part.position, part.position_of) = (Position::Ask(self.manner.reset), self.positions);
            }
        }
        self.client.want_refresh();
    }
}

/// A share of a fetch as the history has it, with what was answered.
fn poll(
    log: &Log,
    position_of: u64,
    from: i64,
    manner: Manner,
    seen: Option<(&PartitionData, records::Got, i64)>,
) -> What {
    let (high_watermark, last_stable_offset, log_start_offset) =
        seen.as_ref().map_or((-1, -1, -1), |(d, ..)| (d.high_watermark, d.last_stable_offset, d.log_start_offset));
    let (records, next) = seen.map_or((Vec::new(), from), |(_, got, next)| (got.records, next));
    What::Poll {
        log: log.clone(),
        position_of,
        from,
        next,
        records,
        high_watermark,
        last_stable_offset,
        log_start_offset,
        read_committed: manner.read_committed,
    }
}

/// Asks one broker; with the answer comes whether it names topics by id.
async fn fetch(
    client: &Client,
    node: i32,
    plan: Plan,
    manner: Manner,
    by_id: bool,
) -> Result<(FetchResponse, bool), Fault> {
    let connection = client.node(node, Lane::Data).await?;
    let usable = if by_id { 4..=18 } else { 4..=12 };
    let version = connection.version::<FetchRequest>(usable).unwrap_or(4);
    let answer = connection.ask(version..=version, |version| request(plan, manner, version)).await?;
    Ok((answer, version >= 13))
}

fn request(plan: Plan, manner: Manner, version: i16) -> FetchRequest {
    let mut topics: BTreeMap<String, FetchTopic> = BTreeMap::new();
    for ((name, partition), asked) in plan.named {
        let one = FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(asked.from)
            .with_current_leader_epoch(if version >= 9 { asked.leader_epoch } else { -1 })
            .with_partition_max_bytes(asked.bytes_max);
        let id = asked.topic_id.unwrap_or_default();
        let topic = topics.entry(name.clone());
        topic
            .or_insert_with(|| FetchTopic::default().with_topic(topic_name(&name)).with_topic_id(id))
            .partitions
            .push(one);
    }
    let forgotten = plan.forgotten.into_iter().map(|((name, partition), id)| {
        let topic = ForgottenTopic::default().with_topic(topic_name(&name)).with_topic_id(id.unwrap_or_default());
        topic.with_partitions(vec![partition])
    });
    let request = FetchRequest::default()
        .with_max_wait_ms(manner.max_wait_ms)
        .with_min_bytes(manner.min_bytes)
        .with_max_bytes(manner.bytes_max)
        .with_isolation_level(i8::from(manner.read_committed))
        .with_topics(topics.into_values().collect());
    if version < 7 {
        return request;
    }
    let request = request.with_session_id(plan.id).with_session_epoch(plan.epoch);
    request.with_forgotten_topics_data(forgotten.collect())
}
