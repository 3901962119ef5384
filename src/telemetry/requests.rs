//! Counting requests: the handles of each Kafka API and version, resolved when it is first used, so that a request costs
//! a few atomic adds. Keys and versions that a client makes up share one row, so that it can't grow the scrape.
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::OnceLock;

use super::metrics::{ApiLabels, ApiVersionLabels, ErrorLabels, NetTotals, Reason};
use crate::types::KafkaError;

/// One more than the highest API key that has handles of its own; higher keys share one.
const API_KEYS: usize = 96;
/// One more than the highest version that is counted by itself; higher ones are counted as the highest.
const API_VERSIONS: usize = 24;

/// The handles of one API, resolved when it is first used.
pub struct Api {
    /// Kafka's name of the API, `Unknown` for a key that Kafka does not have.
    pub name: &'static str,
    pub request_seconds: Histogram,
    pub request_bytes: Counter,
    pub response_bytes: Counter,
    versions: [OnceLock<Counter>; API_VERSIONS],
}

/// [`NetTotals`] (by deref) and the handles per API.
pub struct Net {
    totals: NetTotals,
    apis: Vec<OnceLock<Api>>,
}

impl std::ops::Deref for Net {
    type Target = NetTotals;
    fn deref(&self) -> &NetTotals {
        &self.totals
    }
}

impl Net {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            totals: NetTotals::register(registry),
            apis: std::iter::repeat_with(OnceLock::new).take(API_KEYS).collect(),
        }
    }

    /// The handles of the API with this key.
    pub fn api(&self, key: i16) -> &Api {
        let index = usize::try_from(key).unwrap_or(API_KEYS).min(API_KEYS - 1);
        self.apis[index].get_or_init(|| {
            let name = api_name(key);
            let labels = ApiLabels { api: name };
            Api {
                name,
                request_seconds: self.totals.request_seconds.get_or_create_owned(&labels),
                request_bytes: self.totals.request_bytes.get_or_create_owned(&labels),
                response_bytes: self.totals.response_bytes.get_or_create_owned(&labels),
                versions: [const { OnceLock::new() }; API_VERSIONS],
            }
        })
    }

    /// Counts a connection that ended, and why.
    pub fn closed(&self, reason: &'static str) {
        self.totals.closed_connections.get_or_create(&Reason { reason }).inc();
    }

    /// Counts a frame that was refused, and why.
    pub fn refused_frame(&self, reason: &'static str) {
        self.totals.refused_frames.get_or_create(&Reason { reason }).inc();
    }

    /// Counts a request with its frame's size.
    pub fn request(&self, key: i16, version: i16, bytes: u64) {
        let api = self.api(key);
        api.request_bytes.inc_by(bytes);
        let index = usize::try_from(version).unwrap_or(API_VERSIONS).min(API_VERSIONS - 1);
        api.versions[index]
            .get_or_init(|| {
                let version = i16::try_from(index).unwrap_or(i16::MAX);
                self.totals.requests.get_or_create_owned(&ApiVersionLabels { api: api.name, version })
            })
            .inc();
    }

    /// Counts a Kafka error that was answered; 0 is none and is not counted.
    pub fn error(&self, key: i16, code: i16) {
        if code == 0 {
            return;
        }
        let name = KafkaError::try_from_code(code).map_or_else(|| "Other".to_owned(), |e| format!("{e:?}"));
        self.totals.errors.get_or_create(&ErrorLabels { api: self.api(key).name, code: name }).inc();
    }
}

/// Kafka's name of an API, from the message crate's list; one text per key, made once.
fn api_name(key: i16) -> &'static str {
    static NAMES: [OnceLock<String>; API_KEYS] = [const { OnceLock::new() }; API_KEYS];
    let Ok(api) = kafka_protocol::messages::ApiKey::try_from(key) else { return "Unknown" };
    match usize::try_from(key).ok().and_then(|k| NAMES.get(k)) {
        Some(name) => name.get_or_init(|| format!("{api:?}")),
        None => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;
    use crate::types::TimestampMs;

    #[test]
    fn an_api_is_counted_under_its_name_and_version() {
        let metrics = Metrics::new(TimestampMs(0));
        metrics.net.request(0, 11, 500);
        metrics.net.request(0, 999, 1);
        metrics.net.request(-7, -1, 1);
        metrics.net.error(0, KafkaError::MessageTooLarge.code());
        metrics.net.error(0, 0);
        let text = metrics.render(TimestampMs(0));
        assert!(text.contains("strandline_net_requests_total{api=\"Produce\",version=\"11\"} 1\n"), "{text}");
        assert!(text.contains("strandline_net_requests_total{api=\"Produce\",version=\"23\"} 1\n"));
        assert!(text.contains("strandline_net_requests_total{api=\"Unknown\",version=\"23\"} 1\n"));
        assert!(text.contains("strandline_net_errors_total{api=\"Produce\",code=\"MessageTooLarge\"} 1\n"));
    }
}
