//! The program that a power cut hits: it puts objects into a local bucket and names each in the SQLite journal, as a
//! broker's flush does, and says on its standard output what is promised from then on.
//!
//!     power-load load DIR [--bytes N] [--workers N]    works until it is killed
//!     power-load check DIR                             prints what is there, and whether every object is whole
//!     power-load bench DIR [--bytes N] [--workers N]   appends for three seconds, prints rate and latencies
use bytes::Bytes;
use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use strandline::journal::{Journal, JournalError, Proposal, SqliteJournal};
use strandline::store::{Bucket, CreateOutcome, LocalBucket, Purpose};
use strandline::types::{Head, Incarnation, Position, Token};
use strandline::world::World;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(clap::Parser)]
struct Args {
    what: String,
    dir: PathBuf,
    #[arg(long, default_value_t = 2048)]
    bytes: usize,
    #[arg(long, default_value_t = 4)]
    workers: u64,
    /// Where below DIR the bucket is.
    #[arg(long, default_value = "bucket")]
    bucket: PathBuf,
    /// Where below DIR the journal is.
    #[arg(long, default_value = "meta/journal.db")]
    journal: PathBuf,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let args = <Args as clap::Parser>::parse();
    match args.what.as_str() {
        "load" => load(&args).await,
        "check" => check(&args).await,
        "bench" => bench(&args).await,
        other => Err(format!("{other} is neither load, check nor bench").into()),
    }
}

/// One write, so that the line is whole, and recorded before anybody acts on it.
fn say(line: &str) -> std::io::Result<()> {
    std::io::stdout().lock().write_all(format!("{line}\n").as_bytes())
}

async fn load(args: &Args) -> Outcome<()> {
    let world = World::real()?;
    let bucket = Arc::new(LocalBucket::open(&args.dir.join(&args.bucket), world.clone())?);
    let journal = Arc::new(SqliteJournal::open(&args.dir.join(&args.journal)).await?);
    // What a restarted process shows is promised as much as what it acknowledges.
    let head = journal.head().await?;
    say(&format!("recovered {} {}", head.position, head.token))?;
    let mut workers = Vec::new();
    for _ in 0..args.workers.max(1) {
        let (world, bucket, journal) = (world.clone(), Arc::clone(&bucket), Arc::clone(&journal));
        let bytes = args.bytes;
        let worker = world.clone().spawn("worker", async move { work(&world, &*bucket, &*journal, head, bytes).await });
        workers.push(worker);
    }
    for worker in workers {
        worker.await??;
    }
    Ok(())
}

async fn work(world: &World, bucket: &dyn Bucket, journal: &dyn Journal, head: Head, bytes: usize) -> Outcome<()> {
    let incarnation = Incarnation(world.random_u64());
    let mut after = head;
    for counter in 1.. {
        let bytes = usize::try_from(world.random_below(2 * bytes as u64 + 1))?;
        // Some directories are new and some are not.
        let key = format!("l0/{:02x}/{:016x}", world.random_below(64), world.random_u64());
        let mut content = vec![0; bytes];
        world.fill(&mut content);
        let checksum = crc32c::crc32c(&content);
        let body = vec![Bytes::from(content)];
        if bucket.create(&key, body, Purpose::Ingest).await? != CreateOutcome::Created {
            return Err(format!("{key} is taken").into());
        }
        // Sometimes an entry is large, so that a commit is many pages.
        let padding = if world.random_below(8) == 0 { world.random_below(60_000) } else { world.random_below(500) };
        let payload = format!("{key} {checksum:08x} {}", "x".repeat(usize::try_from(padding)?));
        let proposal =
            Proposal { incarnation, counter, token: Token(world.random_u64()), payload: Bytes::from(payload) };
        after = append(world, journal, &proposal, after).await?;
        say(&format!("acknowledged {} {}", after.position, after.token))?;
        if after.position.0.is_multiple_of(97) {
            let below = after.position.0.saturating_sub(200);
            say(&format!("trimming {below}"))?;
            match journal.trim(Position(below)).await {
                Err(JournalError::NotDone(_) | JournalError::Unknown(_)) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// Appends until it is known to have happened.
async fn append(world: &World, journal: &dyn Journal, proposal: &Proposal, after: Head) -> Outcome<Head> {
    loop {
        match journal.append(proposal.clone(), after).await {
            Ok(appended) => return Ok(Head { position: appended.position, token: proposal.token }),
            Err(e @ (JournalError::NotDone(_) | JournalError::Unknown(_))) => {
                // "Not done" is a promise too: it does not turn up later.
                let token = proposal.token;
                let refused = matches!(e, JournalError::NotDone(_));
                say(&format!("{} {token} {e}", if refused { "refused" } else { "unknown" }))?;
                world.sleep(Duration::from_millis(5)).await;
                say(&format!("retrying {token}"))?;
            }
            Err(e) => return Err(e.into()),
        }
    }
}

async fn check(args: &Args) -> Outcome<()> {
    let bucket = LocalBucket::open(&args.dir.join(&args.bucket), World::real()?)?;
    let journal = SqliteJournal::open(&args.dir.join(&args.journal)).await?;
    let head = journal.head().await?;
    let mut next = Position(1);
    if let Err(JournalError::Trimmed { first }) = journal.read(next).await {
        next = first;
    }
    say(&format!("first {next}"))?;
    while next <= head.position {
        for entry in journal.read(next).await? {
            let payload = std::str::from_utf8(&entry.proposal.payload)?;
            let mut parts = payload.split(' ');
            let (key, checksum) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let state = match bucket.read(&key.to_owned(), None, Purpose::Tail).await {
                Ok(content) if format!("{:08x}", crc32c::crc32c(&content)) == checksum => "whole",
                Ok(_) => "damaged",
                Err(_) => "missing",
            };
            say(&format!("entry {} {} {state}", entry.position, entry.proposal.token))?;
            next = entry.position.next();
        }
    }
    say(&format!("head {}", head.position))?;
    Ok(())
}

async fn bench(args: &Args) -> Outcome<()> {
    let world = World::real()?;
    let journal = Arc::new(SqliteJournal::open(&args.dir.join(&args.journal)).await?);
    let end = world.now() + Duration::from_secs(3);
    let total = Arc::new(AtomicU64::new(0));
    let mut callers = Vec::new();
    for _ in 0..args.workers.max(1) {
        let (world, journal, total) = (world.clone(), Arc::clone(&journal), Arc::clone(&total));
        let payload = Bytes::from(vec![7; args.bytes]);
        callers.push(world.clone().spawn("caller", async move {
            let incarnation = Incarnation(world.random_u64());
            let mut after = journal.head().await?;
            let mut took = Vec::new();
            for counter in 1.. {
                let start = world.now();
                if start >= end {
                    break;
                }
                let token = Token(world.random_u64());
                let proposal = Proposal { incarnation, counter, token, payload: payload.clone() };
                let position = journal.append(proposal, after).await?.position;
                after = Head { position, token };
                took.push(start.elapsed());
                total.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, JournalError>(took)
        }));
    }
    let mut took = Vec::new();
    for caller in callers {
        took.extend(caller.await??);
    }
    took.sort_unstable();
    let at = |part: f64| took.get(((took.len() as f64 - 1.0) * part) as usize).copied().unwrap_or_default();
    let [p50, p99, p999, max] = [at(0.5), at(0.99), at(0.999), at(1.0)];
    let rate = total.load(Ordering::Relaxed) / 3;
    say(&format!("{} callers: {rate}/s, p50 {p50:?}, p99 {p99:?}, p99.9 {p999:?}, max {max:?}", args.workers))?;
    Ok(())
}
