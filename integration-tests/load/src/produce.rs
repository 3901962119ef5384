//! `produce`: connections that write as fast as the broker acknowledges, or at a steady rate. With a rate, latency counts
//! from when a request was due, so a stall of the broker is seen by every request that it held up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use clap::Args;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::admin;
use crate::batch::{SequenceStamp, sequence_after};
use crate::frame::{self, Part, ProduceFrame};
use crate::measure::{Latency, cpu_seconds, wall_ms};
use crate::wire::{Wire, decode_response, read_frame};
use crate::{Bytes, Target};

#[derive(Args, Clone)]
pub struct Produce {
    #[command(flatten)]
    target: Target,
    /// Connections, each a producer of its own that writes to all partitions.
    #[arg(long, default_value_t = 1)]
    producers: u32,
    /// Bytes of one record's value.
    #[arg(long, default_value = "1KiB")]
    record_bytes: Bytes,
    /// Records of one batch (126 of 1 KiB fill 128 KiB).
    #[arg(long, default_value_t = 126)]
    batch_records: usize,
    /// Batches of one request, each for another partition.
    #[arg(long, default_value_t = 8)]
    request_batches: usize,
    /// Requests that a producer has sent and not seen answered.
    #[arg(long, default_value_t = 5)]
    in_flight: usize,
    /// -1 (all) or 1.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    acks: i16,
    /// Leave out producer id and sequences.
    #[arg(long)]
    not_idempotent: bool,
    /// Stop after so many bytes of record batches, over all producers.
    #[arg(long)]
    bytes: Option<Bytes>,
    /// Stop after so many seconds.
    #[arg(long)]
    seconds: Option<f64>,
    /// Records a second over all producers; without it, as many as the broker takes.
    #[arg(long)]
    rate: Option<f64>,
    /// Seed of the payloads.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What one connection saw.
struct Tally {
    bytes: u64,
    records: u64,
    requests: u64,
    latency: Latency,
    last_ack: Instant,
}

/// A request that was sent and not answered. Dropping it lets the next one go.
struct Sent {
    correlation: i32,
    due: Instant,
    bytes: u64,
    _slot: OwnedSemaphorePermit,
}

pub async fn run(args: Produce) -> Result<Value> {
    ensure!(args.bytes.is_some() || args.seconds.is_some(), "say when to stop: --bytes or --seconds");
    ensure!(args.acks != 0, "acks=0 has no answers to measure");
    args.target.create_topics().await?;
    let mut lanes = Vec::new();
    for index in 0..args.producers {
        lanes.push(Lane::open(&args, index).await?);
    }
    let (cpu, start) = (cpu_seconds(), Instant::now());
    let mut running = JoinSet::new();
    for lane in lanes {
        running.spawn(lane.run(args.clone(), start));
    }
    let mut total = Tally { bytes: 0, records: 0, requests: 0, latency: Latency::new(), last_ack: start };
    while let Some(tally) = running.join_next().await {
        total.add(&tally??);
    }
    let seconds = (total.last_ack - start).as_secs_f64();
    Ok(json!({
        "bytes": total.bytes, "records": total.records, "requests": total.requests, "seconds": seconds,
        "mb_per_s": total.bytes as f64 / 1e6 / seconds, "records_per_s": total.records as f64 / seconds,
        "ack": total.latency.to_json(), "client_cpu_s": cpu_seconds() - cpu,
    }))
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.records += other.records;
        self.requests += other.requests;
        self.latency.merge(&other.latency);
        self.last_ack = self.last_ack.max(other.last_ack);
    }
}

/// One producer: its connection, the frames that it sends in turn, and the next sequence of each partition.
struct Lane {
    wire: Wire,
    frames: Vec<ProduceFrame>,
    sequences: Vec<Vec<i32>>,
    stamp: Option<SequenceStamp>,
}

impl Lane {
    async fn open(args: &Produce, index: u32) -> Result<Self> {
        let mut wire = args.target.connect(index as usize).await?;
        let producer = match args.not_idempotent {
            true => None,
            false => Some(admin::init_producer_id(&mut wire).await?),
        };
        let mut places = args.target.places();
        let turn = index as usize * args.request_batches % places.len();
        places.rotate_left(turn);
        places.chunks_mut(args.request_batches).for_each(<[_]>::sort);
        let seed = args.seed.wrapping_add(u64::from(index) << 32);
        let batch = |place: usize| {
            let seed = seed.wrapping_add(place as u64);
            frame::random_batch(seed, args.batch_records, args.record_bytes.0 as usize, wall_ms(), producer)
        };
        let batches: Vec<_> = (0..places.len()).map(batch).collect();
        let parts: Vec<_> = places
            .iter()
            .zip(&batches)
            .map(|((topic, partition), batch)| Part { topic, partition: *partition, batch })
            .collect();
        let frames: Vec<_> =
            parts.chunks(args.request_batches).map(|parts| ProduceFrame::build(args.acks, 30_000, parts)).collect();
        let sequences = frames.iter().map(|frame| vec![0; frame.parts()]).collect();
        let stamp = producer.map(|_| SequenceStamp::new(batches[0].len()));
        Ok(Self { wire, frames, sequences, stamp })
    }

    async fn run(self, args: Produce, start: Instant) -> Result<Tally> {
        let (reader, writer) = self.wire.into_stream().into_split();
        let (sent, waiting) = mpsc::channel(args.in_flight);
        let lane = Writer { frames: self.frames, sequences: self.sequences, stamp: self.stamp, socket: writer };
        let batch_records = args.batch_records as u64;
        let reading = tokio::spawn(read_acks(reader, waiting, batch_records));
        let written = lane.write(&args, start, sent).await;
        // When the broker refuses, the reader ends first and knows why; the writer only sees a closed queue.
        let tally = reading.await??;
        written?;
        Ok(tally)
    }
}

struct Writer {
    frames: Vec<ProduceFrame>,
    sequences: Vec<Vec<i32>>,
    stamp: Option<SequenceStamp>,
    socket: OwnedWriteHalf,
}

impl Writer {
    async fn write(mut self, args: &Produce, start: Instant, sent: mpsc::Sender<Sent>) -> Result<()> {
        let slots = Arc::new(Semaphore::new(args.in_flight));
        let end = args.seconds.map(|seconds| start + Duration::from_secs_f64(seconds));
        let budget = args.bytes.map_or(u64::MAX, |bytes| bytes.0 / u64::from(args.producers));
        let records = (args.batch_records * args.request_batches) as f64;
        let pace = args.rate.map(|rate| records * f64::from(args.producers) / rate);
        let mut written = 0;
        for turn in 0u32.. {
            if written >= budget || end.is_some_and(|end| Instant::now() >= end) {
                break;
            }
            let planned = pace.map(|seconds| start + Duration::from_secs_f64(seconds * f64::from(turn)));
            let woken = sleep_until(planned).await;
            let slot = Arc::clone(&slots).acquire_owned().await?;
            let due = woken.or(planned).unwrap_or_else(Instant::now);
            let which = turn as usize % self.frames.len();
            let correlation = turn.cast_signed();
            self.stamp(which, correlation, args.batch_records as i32);
            let frame = &self.frames[which];
            written += frame.batch_bytes();
            let note = Sent { correlation, due, bytes: frame.batch_bytes(), _slot: slot };
            if sent.send(note).await.is_err() {
                break;
            }
            self.socket.write_all(frame.bytes()).await?;
        }
        // Dropped, it would shut the connection down before the last answers are read.
        self.socket.forget();
        Ok(())
    }

    fn stamp(&mut self, which: usize, correlation: i32, records: i32) {
        let frame = &mut self.frames[which];
        frame.set_correlation(correlation);
        if let Some(stamp) = &self.stamp {
            for (index, sequence) in self.sequences[which].iter_mut().enumerate() {
                frame.set_sequence(index, stamp, *sequence);
                *sequence = sequence_after(*sequence, records);
            }
        }
    }
}

/// Waits for a planned time and returns when it woke: the timer's coarseness is ours, not the broker's. `None` when the
/// time had passed already; then the plan counts.
async fn sleep_until(planned: Option<Instant>) -> Option<Instant> {
    let planned = planned.filter(|planned| *planned > Instant::now())?;
    tokio::time::sleep_until(planned.into()).await;
    Some(Instant::now())
}

async fn read_acks(mut socket: OwnedReadHalf, mut waiting: mpsc::Receiver<Sent>, batch_records: u64) -> Result<Tally> {
    let mut inbox = BytesMut::new();
    let mut tally = Tally { bytes: 0, records: 0, requests: 0, latency: Latency::new(), last_ack: Instant::now() };
    while let Some(sent) = waiting.recv().await {
        let answer = read_frame(&mut socket, &mut inbox).await.context("waiting for an acknowledgement")?;
        tally.last_ack = Instant::now();
        let (correlation, response) = decode_response::<frame::Request>(answer, frame::VERSION)?;
        ensure!(correlation == sent.correlation, "answer {correlation} where {} was due", sent.correlation);
        for topic in &response.responses {
            for partition in &topic.partition_responses {
                if partition.error_code != 0 {
                    let error = admin::error_name(partition.error_code);
                    bail!("produce to {} {}: {error}", topic.name.as_str(), partition.index);
                }
                tally.records += batch_records;
            }
        }
        tally.latency.record(tally.last_ack - sent.due);
        tally.bytes += sent.bytes;
        tally.requests += 1;
    }
    Ok(tally)
}
