//! `trip`: how long one record takes on a quiet broker, until it is acknowledged and until a waiting consumer on another
//! connection has it. And `first`: the first record that a starting broker acknowledges.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::BytesMut;
use clap::Args;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::Target;
use crate::admin::{self, LATEST};
use crate::batch::{self, next_batch, sequence_after};
use crate::fetch::{Appetite, Fetcher};
use crate::frame::{self, Part, ProduceFrame, SplitMix};
use crate::measure::{Latency, monotonic_seconds, wall_ms};
use crate::wire::{decode_response, read_frame};

const RECORD_BYTES: usize = 100;

#[derive(Args, Clone)]
pub struct Trip {
    #[command(flatten)]
    target: Target,
    /// Records to measure.
    #[arg(long, default_value_t = 500)]
    records: u64,
    /// Records before them that are not measured.
    #[arg(long, default_value_t = 50)]
    warmup: u64,
    /// Milliseconds between two sends; a send does not wait for the answer to the one before.
    #[arg(long, default_value_t = 20)]
    every_ms: u64,
}

/// When each record was sent. A record's number stands in its value.
type Sends = Arc<Mutex<Vec<Instant>>>;

pub async fn run(args: Trip) -> Result<Value> {
    args.target.create_topics().await?;
    let sends = Sends::default();
    let mut wire = args.target.connect(0).await?;
    let producer = admin::init_producer_id(&mut wire).await?;
    let (reader, writer) = wire.into_stream().into_split();
    let tailing = tail(args.clone(), Arc::clone(&sends)).await?;
    let consumed = tokio::spawn(tailing);
    let acked = tokio::spawn(read_acks(reader, args.clone(), Arc::clone(&sends)));
    send(writer, &args, producer, &sends).await?;
    let patience = Duration::from_secs(60);
    let acked = tokio::time::timeout(patience, acked).await.context("not all records were acknowledged")???;
    let consumed = tokio::time::timeout(patience, consumed).await.context("not all records arrived")???;
    Ok(json!({ "ack": acked.to_json(), "consumed": consumed.to_json() }))
}

async fn send(mut socket: OwnedWriteHalf, args: &Trip, producer: batch::Producer, sends: &Sends) -> Result<()> {
    let places = args.target.places();
    let mut sequences = vec![0; places.len()];
    let mut random = SplitMix(1);
    let mut ticks = tokio::time::interval(Duration::from_millis(args.every_ms));
    for number in 0..args.warmup + args.records {
        ticks.tick().await;
        let which = (number % places.len() as u64) as usize;
        let mut value = random.bytes(RECORD_BYTES - 8);
        value.extend_from_slice(&number.to_be_bytes());
        let batch = batch::build(&[value], wall_ms(), Some(producer), sequences[which]);
        sequences[which] = sequence_after(sequences[which], 1);
        let (topic, partition) = &places[which];
        let mut frame = ProduceFrame::build(-1, 30_000, &[Part { topic, partition: *partition, batch: &batch }]);
        frame.set_correlation(number as i32);
        lock(sends).push(Instant::now());
        socket.write_all(frame.bytes()).await?;
    }
    // Dropped, it would shut the connection down before the last answers are read.
    socket.forget();
    Ok(())
}

async fn read_acks(mut socket: OwnedReadHalf, args: Trip, sends: Sends) -> Result<Latency> {
    let mut inbox = BytesMut::new();
    let mut latency = Latency::new();
    for number in 0..args.warmup + args.records {
        let answer = read_frame(&mut socket, &mut inbox).await?;
        let now = Instant::now();
        let (correlation, response) = decode_response::<frame::Request>(answer, frame::VERSION)?;
        ensure!(correlation == number as i32, "answer {correlation} where {number} was due");
        for partition in response.responses.iter().flat_map(|topic| &topic.partition_responses) {
            admin::check("produce", partition.error_code)?;
        }
        if number >= args.warmup {
            latency.record(now - lock(&sends)[number as usize]);
        }
    }
    Ok(latency)
}

/// Goes to the end of every partition, and returns what then waits for the records.
async fn tail(args: Trip, sends: Sends) -> Result<impl Future<Output = Result<Latency>>> {
    let mut wire = args.target.connect(1).await?;
    let mut positions = BTreeMap::new();
    for topic in args.target.names() {
        for (partition, end) in admin::list_offsets(&mut wire, &topic, args.target.partitions, LATEST).await? {
            positions.insert((topic.clone(), partition), end);
        }
    }
    let appetite = Appetite { max_wait_ms: 500, min_bytes: 1, max_bytes: 1 << 20, partition_bytes: 1 << 20 };
    let mut fetcher = Fetcher::new(wire, appetite, positions, true);
    Ok(async move {
        let mut latency = Latency::new();
        let mut missing = args.warmup + args.records;
        while missing > 0 {
            let portions = fetcher.fetch().await?;
            let now = Instant::now();
            for portion in portions {
                admin::check("fetch", portion.error)?;
                let mut rest = &portion.records[..];
                while let Some(batch) = next_batch(&mut rest)? {
                    for value in batch.values()? {
                        let number = value.last_chunk().map(|last| u64::from_be_bytes(*last)).unwrap_or_default();
                        missing = missing.saturating_sub(1);
                        if number >= args.warmup {
                            latency.record(now - lock(&sends)[number as usize]);
                        }
                    }
                    fetcher.advance(&portion.place, batch.last_offset + 1);
                }
            }
        }
        Ok(latency)
    })
}

fn lock(sends: &Sends) -> std::sync::MutexGuard<'_, Vec<Instant>> {
    sends.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Args)]
pub struct First {
    #[command(flatten)]
    target: Target,
    /// Give up after so many seconds.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
}

/// Tries every few milliseconds until a topic exists and a record in it was acknowledged.
pub async fn first(args: First) -> Result<Value> {
    let deadline = Instant::now() + Duration::from_secs_f64(args.seconds);
    let mut target = args.target;
    target.create = true;
    loop {
        match tokio::time::timeout_at(deadline.into(), try_first(&target)).await {
            Ok(Ok(())) => return Ok(json!({ "acked_at_monotonic_s": monotonic_seconds() })),
            Ok(Err(_)) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(2)).await,
            Ok(Err(error)) => return Err(error),
            Err(_) => anyhow::bail!("nothing was acknowledged within {} s", args.seconds),
        }
    }
}

async fn try_first(target: &Target) -> Result<()> {
    target.create_topics().await?;
    let batch = batch::build(&[b"first"], wall_ms(), None, 0);
    let topic = &target.names()[0];
    let frame = ProduceFrame::build(-1, 30_000, &[Part { topic, partition: 0, batch: &batch }]);
    let mut wire = target.connect(0).await?;
    wire.send(frame.bytes()).await?;
    let (_, response) = decode_response::<frame::Request>(wire.receive().await?, frame::VERSION)?;
    let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    for partition in partitions {
        admin::check("produce", partition.error_code)?;
    }
    Ok(())
}
