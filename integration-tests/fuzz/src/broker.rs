//! A whole broker, its journal and bucket in memory and its clock paused, and one connection that says anything: what
//! requests mean is looked at by the handlers and the coordinators, not by the decoders.
use bytes::{Buf, Bytes, BytesMut};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use strandline::config::{Config, Entrance, HostPort};
use strandline::journal::MemoryJournal;
use strandline::net;
use strandline::peers::Tcp;
use strandline::server::{Broker, assemble};
use strandline::store::MemoryBucket;
use strandline::telemetry::Metrics;
use strandline::types::TimestampMs;
use strandline::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use crate::requests::framed;

/// Requests of one input; more only take time.
const REQUESTS_MAX: usize = 16;

/// Requests as `request` takes them, each after its length in two bytes, on one connection.
pub(crate) fn broker(data: &[u8]) -> bool {
    let (mut rest, mut frames) = (data, Vec::new());
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length)).min(behind.len());
        let (request, behind) = behind.split_at(length);
        rest = behind;
        frames.extend(framed(request));
    }
    frames.truncate(REQUESTS_MAX);
    if frames.is_empty() {
        return false;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let answers = runtime.expect("a runtime needs nothing").block_on(serve(&frames));
    for answer in &answers {
        assert!(answer.len() >= 4, "an answer has its correlation id");
    }
    !answers.is_empty()
}

fn config() -> Arc<Config> {
    static CONFIG: OnceLock<Arc<Config>> = OnceLock::new();
    let text = "journal:\n  kind: memory\nbucket:\n  url: \"memory:\"\nproduce:\n  flush_interval_ms: 0\n\
                limits:\n  partitions_max: 1000\n  partitions_per_topic_max: 100\n";
    CONFIG.get_or_init(|| Arc::new(Config::from_yaml(text).expect("it is right"))).clone()
}

/// Sends the frames and gives the answers, without their sizes.
async fn serve(frames: &[Bytes]) -> Vec<Bytes> {
    let world = World::seeded(1);
    let metrics = Arc::new(Metrics::new(TimestampMs(0)));
    let (journal, bucket) = (Arc::new(MemoryJournal::new()), Arc::new(MemoryBucket::new()));
    let advertised = HostPort::parse("broker.example:9092").expect("it is right");
    let entrance = Entrance { listener: "plain".to_owned(), advertised, zone: None };
    let broker =
        assemble(&config(), &world, &metrics, journal, bucket, Arc::new(Tcp), std::slice::from_ref(&entrance)).await;
    let Broker { context, limits, drained, owner, batcher } =
        broker.unwrap_or_else(|e| panic!("the broker starts: {e}"));
    let (stop, stopping) = watch::channel(false);
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (read, write) = tokio::io::split(theirs);
    let attached = net::attach(context.clone(), limits, read, write, None, Arc::new(entrance), stopping);
    let connection = world.spawn("connection", attached);
    let (mut answers, mut requests) = tokio::io::split(ours);
    let reading = world.spawn("client", async move {
        let mut all = BytesMut::new();
        while answers.read_buf(&mut all).await.is_ok_and(|read| read > 0) {}
        all.freeze()
    });
    for frame in frames {
        let sized = [&(frame.len() as u32).to_be_bytes()[..], frame].concat();
        // A broker that closes the connection has answered too.
        if requests.write_all(&sized).await.is_err() {
            break;
        }
    }
    // Long enough for rebalances; who waits longer is told to stop.
    world.sleep(Duration::from_secs(30)).await;
    assert!(!owner.is_finished(), "the broker can't go on");
    stop.send_replace(true);
    drop(drained);
    let ended = tokio::time::timeout(Duration::from_secs(600), async {
        connection.await.expect("the connection's task ends");
        let all = reading.await.expect("the client's task ends");
        drop(context);
        batcher.await.expect("the batcher ends");
        all
    });
    split(ended.await.expect("a broker that is told to stop stops"))
}

fn split(mut all: Bytes) -> Vec<Bytes> {
    let mut answers = Vec::new();
    while all.has_remaining() {
        let size = all.try_get_u32().expect("an answer begins with its size") as usize;
        assert!(size <= all.len(), "an answer is as long as it says");
        answers.push(all.split_to(size));
    }
    answers
}
