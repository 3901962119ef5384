//! The metrics of log compaction.
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::metrics::{Counter, room, seconds};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabels {
    pub result: &'static str,
}

room! {
    /// Log compaction: `cleanup.policy=compact`.
    Cleaning, "cleaning" {
        /// Partitions whose logs are to be compacted, as of this broker's last look; every broker looks at all.
        due_partitions: Gauge,
        /// Bytes in them that are not clean.
        due_bytes: Gauge,
        /// Jobs of this broker that ended, by result (done, overtaken, failed).
        jobs: Family<ResultLabels, Counter>,
        /// Time of a job that did not fail.
        job_seconds: Histogram = seconds(),
        /// Bytes that were read from the bucket.
        read_bytes: Counter,
        /// Bytes that were written.
        written_bytes: Counter,
    }
}

impl Cleaning {
    /// Counts a job that ended.
    pub fn ended(&self, result: &'static str) {
        self.jobs.get_or_create(&ResultLabels { result }).inc();
    }
}
