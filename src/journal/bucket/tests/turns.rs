//! H18: several brokers that all want to append, over a bucket as slow as S3. Virtual time.
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;

use super::held::Held;
use super::{at, handle};
use crate::journal::Journal;
use crate::journal::contract::entry;
use crate::store::modelled::{LogNormal, Model, Modelled};
use crate::store::{Bucket, MemoryBucket, Operation};
use crate::types::Head;
use crate::world::{Instant, World};

/// S3's PUT in milliseconds, about; a GET takes a quarter of it.
const S3: f64 = 60.0;
/// That of a store on the same machine.
const NEAR: f64 = 8.0;

/// A PUT takes about so many milliseconds; `spread` is what the slowest of a hundred takes of that.
fn model(put_ms: f64, spread: f64) -> Model {
    let get_ms = put_ms / 4.0;
    Model {
        create: LogNormal { p50_ms: put_ms, p99_ms: put_ms * spread },
        read: LogNormal { p50_ms: get_ms, p99_ms: get_ms * spread },
        read_bytes_per_s: 93e6,
    }
}

pub(super) struct Ran {
    /// How long each append of each handle took.
    appends: Vec<Vec<Duration>>,
    creates: u64,
    reads: u64,
    elapsed: Duration,
}

impl Ran {
    pub(super) fn count(&self) -> u64 {
        self.appends.iter().map(|own| own.len() as u64).sum()
    }

    fn longest(&self) -> Duration {
        *self.appends.iter().flatten().max().unwrap()
    }

    pub(super) fn describe(&self) -> String {
        let mut all: Vec<_> = self.appends.iter().flatten().copied().collect();
        all.sort_unstable();
        let (n, seconds) = (self.count(), self.elapsed.as_secs_f64());
        format!(
            "{} handles: {:.1} appends/s, p50 {:?}, p99 {:?}, longest {:?}; {:.2} PUTs and {:.2} GETs an append; {:?} each",
            self.appends.len(),
            n as f64 / seconds,
            all[all.len() / 2],
            all[all.len() * 99 / 100],
            self.longest(),
            self.creates as f64 / n as f64,
            self.reads as f64 / n as f64,
            self.appends.iter().map(Vec::len).collect::<Vec<_>>(),
        )
    }
}

/// Handles that append for a minute over a slow bucket, each the next one `pause` after the one before.
async fn run(handles: u64, put_ms: f64, spread: f64, pause: Duration) -> Ran {
    let world = World::seeded(handles);
    let slow = Modelled::new(Arc::new(MemoryBucket::new()), world.clone(), model(put_ms, spread));
    append_for(Arc::new(slow), &world, handles, pause, Duration::from_secs(60)).await
}

/// Handles that append over `bucket` for so long.
pub(super) async fn append_for(
    bucket: Arc<dyn Bucket>,
    world: &World,
    handles: u64,
    pause: Duration,
    time: Duration,
) -> Ran {
    let counted = Held::new(bucket);
    let bucket: Arc<dyn Bucket> = Arc::new(counted.clone());
    let start = world.now();
    let appenders = (1..=handles)
        .map(|incarnation| appender(handle(&bucket, world), world.clone(), incarnation, pause, start + time));
    let appends = join_all(appenders).await;
    let requests = counted.take_requests();
    Ran { appends, creates: requests[&Operation::Create], reads: requests[&Operation::Read], elapsed: start.elapsed() }
}

async fn appender(
    journal: super::BucketJournal,
    world: World,
    incarnation: u64,
    pause: Duration,
    end: Instant,
) -> Vec<Duration> {
    let (mut took, mut head) = (Vec::new(), Head::default());
    while world.now() < end {
        let begun = world.now();
        let proposal = entry(incarnation, took.len() as u64 + 1, b"x");
        let appended = journal.append(proposal.clone(), head).await.unwrap();
        head = at(appended.position.0, &proposal);
        took.push(begun.elapsed());
        world.sleep(pause).await;
    }
    took
}

/// The bounds follow from how turns are taken. A newcomer is seen at the latest when somebody who believed itself alone
/// pauses, after eight appends; then everybody is before it once, and by bad luck once more; and one of the requests that it
/// waits for may be as slow as the slowest of a hundred.
#[tokio::test(start_paused = true)]
async fn h18_nobody_starves_however_many_append_at_once() {
    for (handles, put_ms, spread, at_least) in [
        (2, S3, 1.01, 10),
        (3, S3, 1.01, 10),
        (10, S3, 1.01, 10),
        (3, S3, 4.0, 8),
        (10, S3, 4.0, 8),
        (3, NEAR, 1.01, 50),
        (3, NEAR, 4.0, 50),
    ] {
        let ran = run(handles, put_ms, spread, Duration::ZERO).await;
        println!("{}", ran.describe());
        let one_append = ran.elapsed.div_f64(ran.count() as f64);
        let slot = Duration::from_millis(put_ms as u64) * 7 / 4;
        let longest = one_append * (8 + 2 * u32::try_from(handles).unwrap()) + slot.mul_f64(spread);
        assert!(ran.longest() <= longest, "over {longest:?}: {}", ran.describe());
        let (least, most) = (ran.appends.iter().map(Vec::len).min(), ran.appends.iter().map(Vec::len).max());
        assert!(least.unwrap() * 4 >= most.unwrap() * 3, "{}", ran.describe());
        assert!(ran.count() >= 60 * at_least, "{}", ran.describe());
        assert!(ran.creates * 2 < ran.count() * 3, "{}", ran.describe());
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_alone_waits_for_nobody() {
    let ran = run(1, S3, 1.01, Duration::ZERO).await;
    println!("{}", ran.describe());
    assert!(ran.count() >= 60 * 10, "{}", ran.describe());
    assert_eq!(ran.creates, ran.count());
    // As brokers append: a flush every 250 ms.
    let ran = run(3, S3, 1.01, Duration::from_millis(250)).await;
    println!("{}", ran.describe());
    assert!(ran.longest() <= Duration::from_millis(500), "{}", ran.describe());
}
