//! `consume`: reads topics from the beginning to where they ended at the start, and looks at batch headers only.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::admin::{self, EARLIEST, LATEST};
use crate::batch::next_batch;
use crate::fetch::{Appetite, Fetcher, Place};
use crate::measure::cpu_seconds;
use crate::{Bytes, Target};

/// How long a broker may give nothing although there is more.
const STALL_MAX: Duration = Duration::from_secs(30);

#[derive(Args, Clone)]
pub struct Consume {
    #[command(flatten)]
    target: Target,
    /// Connections; the partitions are split over them.
    #[arg(long, default_value_t = 1)]
    consumers: usize,
    /// Read everything so many times.
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// Start no further reading after so many seconds.
    #[arg(long)]
    seconds: Option<f64>,
    /// Use fetch sessions, as the Java client does and librdkafka does not.
    #[arg(long)]
    sessions: bool,
    /// Most bytes of one answer (the Java client's default).
    #[arg(long, default_value = "50MiB")]
    max_bytes: Bytes,
    /// Most bytes of one partition in it (the clients' default).
    #[arg(long, default_value = "1MiB")]
    partition_bytes: Bytes,
}

/// Where a partition starts and ends.
type Bounds = BTreeMap<Place, (i64, i64)>;

#[derive(Default)]
struct Tally {
    bytes: u64,
    records: u64,
    fetches: u64,
}

pub async fn run(args: Consume) -> Result<Value> {
    ensure!(args.consumers > 0, "no consumer");
    let mut shares = vec![Bounds::new(); args.consumers];
    for (index, (place, bounds)) in bounds(&args.target).await?.into_iter().enumerate() {
        shares[index % args.consumers].insert(place, bounds);
    }
    let (cpu, start) = (cpu_seconds(), Instant::now());
    let mut running = JoinSet::new();
    for (index, share) in shares.into_iter().enumerate().filter(|(_, share)| !share.is_empty()) {
        running.spawn(read_share(args.clone(), index, share, start));
    }
    let mut total = Tally::default();
    while let Some(tally) = running.join_next().await {
        let tally = tally??;
        total.bytes += tally.bytes;
        total.records += tally.records;
        total.fetches += tally.fetches;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(json!({
        "bytes": total.bytes, "records": total.records, "fetches": total.fetches, "seconds": seconds,
        "mb_per_s": total.bytes as f64 / 1e6 / seconds, "records_per_s": total.records as f64 / seconds,
        "client_cpu_s": cpu_seconds() - cpu,
    }))
}

async fn bounds(target: &Target) -> Result<Bounds> {
    let mut wire = target.connect(0).await?;
    let mut bounds = Bounds::new();
    for topic in target.names() {
        let starts = admin::list_offsets(&mut wire, &topic, target.partitions, EARLIEST).await?;
        let ends = admin::list_offsets(&mut wire, &topic, target.partitions, LATEST).await?;
        for (partition, start) in starts {
            let end = ends.get(&partition).copied().unwrap_or(start);
            if end > start {
                bounds.insert((topic.clone(), partition), (start, end));
            }
        }
    }
    Ok(bounds)
}

async fn read_share(args: Consume, index: usize, share: Bounds, start: Instant) -> Result<Tally> {
    let mut tally = Tally::default();
    let deadline = args.seconds.map(|seconds| start + Duration::from_secs_f64(seconds));
    for _ in 0..args.repeat {
        read_once(&args, index, &share, &mut tally).await?;
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
    }
    Ok(tally)
}

async fn read_once(args: &Consume, index: usize, share: &Bounds, tally: &mut Tally) -> Result<()> {
    let appetite = Appetite {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: i32::try_from(args.max_bytes.0)?,
        partition_bytes: i32::try_from(args.partition_bytes.0)?,
    };
    let positions = share.iter().map(|(place, (start, _))| (place.clone(), *start)).collect();
    let mut fetcher = Fetcher::new(args.target.connect(index).await?, appetite, positions, args.sessions);
    let mut unfinished = share.len();
    let mut progress = Instant::now();
    while unfinished > 0 {
        ensure!(progress.elapsed() < STALL_MAX, "nothing more comes of {unfinished} partitions");
        tally.fetches += 1;
        for portion in fetcher.fetch().await? {
            admin::check(&format!("fetch {:?}", portion.place), portion.error)?;
            let mut rest = &portion.records[..];
            let mut next = None;
            while let Some(batch) = next_batch(&mut rest)? {
                tally.bytes += batch.len() as u64;
                tally.records += u64::from(batch.records.cast_unsigned());
                next = Some(batch.last_offset + 1);
            }
            if next.is_some() {
                progress = Instant::now();
            }
            if let (Some(next), Some((_, end))) = (next, share.get(&portion.place)) {
                let before = fetcher.position(&portion.place);
                fetcher.advance(&portion.place, next);
                if next >= *end && before.is_some_and(|before| before < *end) {
                    unfinished -= 1;
                    if !args.sessions {
                        fetcher.forget(&portion.place);
                    }
                }
            }
        }
    }
    Ok(())
}
