//! Time, this process's CPU, and latency as JSON.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// Latencies in microseconds, to three digits, up to ten minutes.
pub struct Latency(Histogram<u64>);

impl Latency {
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, 600_000_000, 3);
        Self(histogram.unwrap_or_else(|error| unreachable!("constant bounds are good: {error}")))
    }

    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub fn merge(&mut self, other: &Self) {
        self.0 += &other.0;
    }

    /// Count, mean and percentiles in milliseconds.
    pub fn to_json(&self) -> Value {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1000.0;
        json!({
            "count": self.0.len(), "mean_ms": self.0.mean() / 1000.0, "p50_ms": at(0.5), "p90_ms": at(0.9),
            "p99_ms": at(0.99), "p999_ms": at(0.999), "max_ms": self.0.max() as f64 / 1000.0,
        })
    }
}

/// CPU seconds of this process so far, user and system.
pub fn cpu_seconds() -> f64 {
    seconds(ClockId::ProcessCPUTime)
}

/// The system's monotonic clock in seconds, comparable between processes.
pub fn monotonic_seconds() -> f64 {
    seconds(ClockId::Monotonic)
}

fn seconds(clock: ClockId) -> f64 {
    let now = clock_gettime(clock);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Wall clock in milliseconds, for record timestamps.
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
