//! The brokers of one run, and the journal and bucket that they share.
use std::sync::Arc;
use strandline::config::{Config, HostPort};
use strandline::journal::MemoryJournal;
use strandline::server::assemble;
use strandline::store::MemoryBucket;
use strandline::telemetry::Metrics;
use strandline::types::TimestampMs;
use strandline::world::{Host, Pace, World};
use tokio::sync::watch;

use crate::network::{Listener, Network};

/// Starts one broker.
///
/// # Panics
/// If it does not start.
pub async fn start(network: &Network, outside: &World, seed: u64) -> HostPort {
    let world = World::on(Host::new(seed, Pace::default()), outside.now(), seed);
    let yaml = "journal:\n  kind: memory\nbucket:\n  url: \"memory:\"\n";
    let config = Arc::new(Config::from_yaml(yaml).expect("it is right"));
    let metrics = Arc::new(Metrics::new(TimestampMs(0)));
    let journal = Arc::new(MemoryJournal::new());
    let broker = assemble(&config, &world, &metrics, journal, Arc::new(MemoryBucket::new())).await;
    let broker = Arc::new(broker.expect("nothing fails yet"));
    let address = HostPort { host: "broker-1".into(), port: 9092 };
    let (stop, stopping) = watch::channel(false);
    std::mem::forget(stop);
    network.listen(Listener { broker, world, address: Arc::new(address.clone()), stop: stopping });
    address
}
