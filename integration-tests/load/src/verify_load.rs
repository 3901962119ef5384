//! `verify-load`: idempotent producers that go on through crashes of the broker, and note every acknowledgement. What they
//! promise is what a careful client promises: a request that was not answered is sent again with the same sequences, in
//! the same order, until it is answered.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::admin::{self, error_name};
use crate::batch::{self, Producer};
use crate::frame::{self, Part, ProduceFrame, SplitMix};
use crate::identity::Identity;
use crate::measure::{Latency, wall_ms};
use crate::wire::{Wire, decode_response};
use crate::{Bytes, Target};

const CORRUPT_MESSAGE: i16 = 2;
const OUT_OF_ORDER: i16 = 45;
const DUPLICATE: i16 = 46;
const UNKNOWN_PRODUCER: i16 = 59;
/// How often a batch that is the oldest of its partition may be called out of order before that is a defect. It may be,
/// for a moment, after a batch before it failed or while a broker catches up.
const OUT_OF_ORDER_MAX: u32 = 20;

#[derive(Args, Clone)]
pub struct VerifyLoad {
    #[command(flatten)]
    target: Target,
    /// Where to note acknowledgements: a line each of `producer topic partition first_counter records base_offset`.
    #[arg(long)]
    acks: PathBuf,
    #[arg(long, default_value_t = 4)]
    producers: u32,
    #[arg(long, default_value = "100")]
    record_bytes: Bytes,
    /// Most records of one batch; each has between one and so many.
    #[arg(long, default_value_t = 8)]
    batch_records: u64,
    /// Batches of one request, each for another partition.
    #[arg(long, default_value_t = 4)]
    request_batches: usize,
    /// Requests that a producer has sent and not seen answered; brokers remember five batches of a producer.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=5))]
    in_flight: u64,
    /// Stop sending after so many seconds.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Stop sending when this file exists.
    #[arg(long)]
    stop_file: Option<PathBuf>,
    /// Requests a second of each producer; without it, as many as are answered.
    #[arg(long)]
    rate: Option<f64>,
    /// How long to go on for answers after the last send, and for a broker to come back.
    #[arg(long, default_value_t = 60.0)]
    patience: f64,
    /// A name for this run, and the seed of its batch sizes.
    #[arg(long, default_value_t = 1)]
    run: u64,
}

pub async fn run(args: VerifyLoad) -> Result<Value> {
    let deadline = Instant::now() + Duration::from_secs_f64(args.patience);
    while let Err(error) = args.target.create_topics().await {
        ensure!(Instant::now() < deadline, "no topic within {} s: {error:#}", args.patience);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut file = BufWriter::new(File::create(&args.acks).with_context(|| format!("{}", args.acks.display()))?);
    writeln!(file, "run {}", args.run)?;
    let acks = Arc::new(Mutex::new(file));
    let end = Instant::now() + Duration::from_secs_f64(args.seconds);
    let mut running = JoinSet::new();
    for index in 0..args.producers {
        running.spawn(Careful::new(&args, index, Arc::clone(&acks), end).run());
    }
    let mut total = Tally::default();
    while let Some(tally) = running.join_next().await {
        total.add(tally??);
    }
    acks.lock().unwrap_or_else(PoisonError::into_inner).flush()?;
    Ok(total.to_json())
}

#[derive(Default)]
struct Tally {
    sent_records: u64,
    acked_records: u64,
    acked_batches: u64,
    acked_again: u64,
    unacknowledged_records: u64,
    connections: u64,
    resent_requests: u64,
    silence_max: Duration,
    errors: BTreeMap<String, u64>,
    latency: Option<Latency>,
    violations: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.sent_records += other.sent_records;
        self.acked_records += other.acked_records;
        self.acked_batches += other.acked_batches;
        self.acked_again += other.acked_again;
        self.unacknowledged_records += other.unacknowledged_records;
        self.connections += other.connections;
        self.resent_requests += other.resent_requests;
        self.silence_max = self.silence_max.max(other.silence_max);
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
        if let Some(latency) = other.latency {
            self.latency.get_or_insert_with(Latency::new).merge(&latency);
        }
        self.violations.extend(other.violations);
    }

    fn to_json(&self) -> Value {
        json!({
            "sent_records": self.sent_records, "acked_records": self.acked_records,
            "acked_batches": self.acked_batches, "acked_again": self.acked_again,
            "unacknowledged_records": self.unacknowledged_records, "connections": self.connections,
            "resent_requests": self.resent_requests, "silence_max_s": self.silence_max.as_secs_f64(),
            "errors": self.errors, "ack": self.latency.as_ref().map(Latency::to_json),
            "violations": self.violations,
        })
    }
}

/// A request that stays here until all of its batches are acknowledged.
struct Request {
    number: i32,
    frame: ProduceFrame,
    batches: Vec<Batch>,
    records: u64,
    first_sent: Instant,
}

struct Batch {
    place: usize,
    first: u64,
    records: u64,
    acked_at: Option<i64>,
}

/// One producer.
struct Careful {
    args: VerifyLoad,
    index: u32,
    end: Instant,
    acks: Arc<Mutex<BufWriter<File>>>,
    places: Vec<(String, i32)>,
    /// The next counter of each place; a producer's sequence is its counter.
    counters: Vec<u64>,
    turn: usize,
    requests_made: i32,
    random: SplitMix,
    waiting: VecDeque<Request>,
    out_of_order: u32,
    last_ack: Instant,
    tally: Tally,
}

/// Why a connection was given up.
enum Setback {
    /// It broke, or an answer asks to try again.
    Again,
    /// The broker broke a promise; noted in the tally.
    Violation,
}

impl Careful {
    fn new(args: &VerifyLoad, index: u32, acks: Arc<Mutex<BufWriter<File>>>, end: Instant) -> Self {
        let places = args.target.places();
        Self {
            args: args.clone(),
            index,
            end,
            acks,
            counters: vec![0; places.len()],
            turn: index as usize * args.request_batches,
            places,
            requests_made: 0,
            random: SplitMix(args.run.wrapping_mul(1_000_003).wrapping_add(u64::from(index))),
            waiting: VecDeque::new(),
            out_of_order: 0,
            last_ack: Instant::now(),
            tally: Tally { latency: Some(Latency::new()), ..Tally::default() },
        }
    }

    async fn run(mut self) -> Result<Tally> {
        let patience = Duration::from_secs_f64(self.args.patience);
        let mut producer = None;
        self.last_ack = Instant::now();
        for attempt in 0usize.. {
            match self.connection(attempt, &mut producer).await {
                Ok(()) | Err(Setback::Violation) => break,
                Err(Setback::Again) if self.last_ack.elapsed() > patience => break,
                Err(Setback::Again) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        self.tally.unacknowledged_records = self.waiting.iter().map(|request| request.records).sum();
        Ok(self.tally)
    }

    /// Works over one connection until everything is sent and acknowledged.
    async fn connection(&mut self, attempt: usize, producer: &mut Option<Producer>) -> Result<(), Setback> {
        let mut wire = self.args.target.connect(self.index as usize + attempt).await.map_err(|_| Setback::Again)?;
        self.tally.connections += 1;
        let producer = match *producer {
            Some(known) => known,
            None => *producer.insert(admin::init_producer_id(&mut wire).await.map_err(|_| Setback::Again)?),
        };
        for request in &self.waiting {
            self.tally.resent_requests += 1;
            wire.send(request.frame.bytes()).await.map_err(|_| Setback::Again)?;
        }
        let mut due = Instant::now();
        loop {
            let room = self.sending() && (self.waiting.len() as u64) < self.args.in_flight;
            if room && Instant::now() >= due {
                due += self.args.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate));
                self.make_request(producer);
                let bytes = self.waiting.back().map_or(&[][..], |request| request.frame.bytes());
                wire.send(bytes).await.map_err(|_| Setback::Again)?;
                continue;
            }
            let answer = tokio::select! {
                () = tokio::time::sleep_until(due.into()), if room => continue,
                answer = receive(&mut wire, self.args.patience), if !self.waiting.is_empty() => answer,
                else => return Ok(()),
            };
            match answer {
                Some(answer) => self.take_answer(answer)?,
                None => return Err(Setback::Again),
            }
        }
    }

    fn sending(&self) -> bool {
        Instant::now() < self.end && !self.args.stop_file.as_ref().is_some_and(|file| file.exists())
    }

    fn make_request(&mut self, producer: Producer) {
        let mut batches = Vec::new();
        let mut bytes = Vec::new();
        let count = self.places.len();
        let mut chosen: Vec<_> =
            (0..self.args.request_batches.min(count)).map(|index| (self.turn + index) % count).collect();
        chosen.sort_unstable();
        self.turn = (self.turn + chosen.len()) % count;
        for place in chosen {
            let records = 1 + self.random.next() % self.args.batch_records;
            let first = self.counters[place];
            self.counters[place] += records;
            let (topic, partition) = &self.places[place];
            let value = |counter| {
                let (run, producer, topic) = (self.args.run, self.index, topic.clone());
                Identity { run, producer, topic, partition: *partition, counter }
                    .encode(self.args.record_bytes.0 as usize)
            };
            let values: Vec<_> = (first..first + records).map(value).collect();
            let sequence = (first & u64::from(i32::MAX.cast_unsigned())) as i32;
            bytes.push(batch::build(&values, wall_ms(), Some(producer), sequence));
            batches.push(Batch { place, first, records, acked_at: None });
        }
        let mut parts = Vec::new();
        for (batch, bytes) in batches.iter().zip(&bytes) {
            let (topic, partition) = &self.places[batch.place];
            parts.push(Part { topic, partition: *partition, batch: bytes });
        }
        let mut frame = ProduceFrame::build(-1, 30_000, &parts);
        self.requests_made = self.requests_made.wrapping_add(1);
        frame.set_correlation(self.requests_made);
        let records = batches.iter().map(|batch| batch.records).sum();
        self.tally.sent_records += records;
        let number = self.requests_made;
        self.waiting.push_back(Request { number, frame, batches, records, first_sent: Instant::now() });
    }

    fn take_answer(&mut self, answer: bytes::Bytes) -> Result<(), Setback> {
        let Some(mut request) = self.waiting.pop_front() else { return Ok(()) };
        let noted = self.note(&mut request, answer);
        if noted.is_ok() {
            self.out_of_order = 0;
            if let Some(latency) = &mut self.tally.latency {
                latency.record(request.first_sent.elapsed());
            }
        } else {
            self.waiting.push_front(request);
        }
        noted
    }

    /// Notes what an answer says of each batch. All have to be acknowledged, or the request is sent again.
    fn note(&mut self, request: &mut Request, answer: bytes::Bytes) -> Result<(), Setback> {
        let results = match parse(answer, request, &self.places) {
            Ok(results) => results,
            Err(error) => return self.violation(format!("{error:#}")),
        };
        let mut outcome = Ok(());
        for (batch, (code, offset)) in request.batches.iter_mut().zip(results) {
            match code {
                0 => self.acknowledged(batch, offset)?,
                DUPLICATE => self.acknowledged(batch, batch.acked_at.unwrap_or(-1))?,
                _ => {
                    self.count(error_name(code));
                    outcome = Err(Setback::Again);
                }
            }
            match code {
                OUT_OF_ORDER | UNKNOWN_PRODUCER if self.out_of_order < OUT_OF_ORDER_MAX => self.out_of_order += 1,
                0 | DUPLICATE => {}
                code if code != CORRUPT_MESSAGE && admin::is_retriable(code) => {}
                code => {
                    let (topic, partition) = &self.places[batch.place];
                    let which = format!("producer {} {topic} {partition} counter {}", self.index, batch.first);
                    return self.violation(format!("{which}: {}", error_name(code)));
                }
            }
        }
        outcome
    }

    fn acknowledged(&mut self, batch: &mut Batch, offset: i64) -> Result<(), Setback> {
        let now = Instant::now();
        self.tally.silence_max = self.tally.silence_max.max(now - self.last_ack);
        self.last_ack = now;
        let (topic, partition) = &self.places[batch.place];
        match batch.acked_at.replace(offset) {
            Some(before) if before != offset => {
                let which = format!("producer {} {topic} {partition} counter {}", self.index, batch.first);
                return self.violation(format!("{which}: acknowledged at {before}, then at {offset}"));
            }
            Some(_) => self.tally.acked_again += 1,
            None => {
                self.tally.acked_batches += 1;
                self.tally.acked_records += batch.records;
                let mut file = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
                let line = format!("{} {topic} {partition} {} {} {offset}", self.index, batch.first, batch.records);
                let written = writeln!(file, "{line}").and_then(|()| file.flush());
                drop(file);
                if let Err(error) = written {
                    return self.violation(format!("cannot note an acknowledgement: {error}"));
                }
            }
        }
        Ok(())
    }

    fn violation(&mut self, what: String) -> Result<(), Setback> {
        self.tally.violations.push(what);
        Err(Setback::Violation)
    }

    fn count(&mut self, error: String) {
        *self.tally.errors.entry(error).or_default() += 1;
    }
}

/// The next answer; `None` when the connection broke, or gave none for longer than Kafka's request time-out. Nothing is
/// lost when it is dropped before it is done.
async fn receive(wire: &mut Wire, patience: f64) -> Option<bytes::Bytes> {
    let limit = Duration::from_secs_f64(patience.min(35.0));
    tokio::time::timeout(limit, wire.receive()).await.ok()?.ok()
}

/// The (error, base offset) of each batch of the request, in its order.
fn parse(answer: bytes::Bytes, request: &Request, places: &[(String, i32)]) -> Result<Vec<(i16, i64)>> {
    let (correlation, response) = decode_response::<frame::Request>(answer, frame::VERSION)?;
    ensure!(correlation == request.number, "answer {correlation} where {} was due", request.number);
    let mut results = BTreeMap::new();
    for topic in &response.responses {
        for partition in &topic.partition_responses {
            let place = (topic.name.to_string(), partition.index);
            results.insert(place, (partition.error_code, partition.base_offset));
        }
    }
    let result = |batch: &Batch| match results.get(&places[batch.place]) {
        Some(result) => Ok(*result),
        None => bail!("an answer without {:?}, which was asked", places[batch.place]),
    };
    request.batches.iter().map(result).collect()
}
