//! A whole cluster in one thread: real brokers from their frame decoding to their journal and bucket, clients that
//! behave as real ones do, and faults, all from one seed on a virtual clock. One seed twice is one history.
pub mod bucket;
pub mod clients;
pub mod cluster;
pub mod faults;
pub mod inventory;
pub mod journal;
pub mod nemesis;
pub mod network;
pub mod plan;
pub mod recorder;
pub mod run;
pub mod summary;
pub mod verdict;

use strandline::config::HostPort;
use strandline::world::World;

/// What one logical client works with.
#[derive(Clone)]
pub struct Site {
    /// True time, and chance that nobody else draws from.
    pub world: World,
    pub network: network::Network,
    pub recorder: recorder::Recorder,
    /// The run that values name.
    pub run: u64,
    /// The client's number; unique in a run.
    pub process: u32,
    pub bootstrap: Vec<HostPort>,
}
