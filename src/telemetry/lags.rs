//! Where consumer groups stand, looked up when somebody scrapes. The only metrics whose labels clients choose, so their
//! number is limited.
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Partitions of groups that are shown at most, in the order of the groups' names. Two numbers each make a scrape of 2 MB,
/// which is about what Prometheus takes without asking.
pub const GROUP_PARTITIONS_MAX: usize = 10_000;

/// A partition that a group has committed an offset for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupLag {
    pub group: Arc<str>,
    pub topic: Arc<str>,
    pub partition: i32,
    pub committed_offset: i64,
    /// The log end offset minus the committed one, as `kafka-consumer-groups --describe` prints it.
    pub lag: i64,
}

/// All that is shown of groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupLags {
    pub partitions: Vec<GroupLag>,
    /// Those over [`GROUP_PARTITIONS_MAX`].
    pub left_out: u64,
}

type Source = Box<dyn Fn() -> GroupLags + Send + Sync>;

/// Asks for the lags at each scrape, once somebody knows them.
#[derive(Clone, Default)]
pub struct Lags(Arc<OnceLock<Source>>);

impl Lags {
    pub(super) const NAMES: &'static [&'static str] =
        &["strandline_group_lag", "strandline_group_committed_offset", "strandline_group_partitions_left_out"];

    pub(super) fn register(registry: &mut Registry) -> Self {
        let lags = Self::default();
        registry.register_collector(Box::new(lags.clone()));
        lags
    }

    /// From now on scrapes ask `source`; only the first call counts.
    pub fn come_from(&self, source: impl Fn() -> GroupLags + Send + Sync + 'static) {
        // A second source would be a second broker, which has metrics of its own.
        let _ = self.0.set(Box::new(source));
    }
}

impl fmt::Debug for Lags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lags")
    }
}

impl Collector for Lags {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let GroupLags { partitions, left_out } = self.0.get().map_or_else(GroupLags::default, |source| source());
        type Number = (&'static str, &'static str, fn(&GroupLag) -> i64);
        let numbers: [Number; 2] = [
            ("group_lag", "Records between a group's committed offset and the end of the partition.", |p| p.lag),
            ("group_committed_offset", "The offset that a group has committed.", |p| p.committed_offset),
        ];
        for (name, help, number) in numbers {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for p in &partitions {
                let names = [("group", &*p.group), ("topic", &*p.topic)];
                let labels = (names, [("partition", p.partition)]);
                ConstGauge::new(number(p)).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Partitions of groups over the limit of 10000 that have no lag here.";
        let metric = encoder.encode_descriptor("group_partitions_left_out", help, None, MetricType::Gauge)?;
        ConstGauge::new(left_out).encode(metric)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;
    use crate::types::TimestampMs;

    #[test]
    fn lags_are_those_of_the_scrape_with_their_names_escaped() {
        let metrics = Metrics::new(TimestampMs(0));
        assert!(metrics.render(TimestampMs(0)).contains("strandline_group_partitions_left_out 0\n"));
        let part = |group: &str, lag| GroupLag {
            group: Arc::from(group),
            topic: Arc::from("t"),
            partition: 3,
            committed_offset: 7,
            lag,
        };
        let lags = GroupLags { partitions: vec![part("a \"b\"\n\\", 5), part("c", -1)], left_out: 9 };
        metrics.lags.come_from(move || lags.clone());
        let text = metrics.render(TimestampMs(0));
        let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("strandline_group_")).collect();
        assert_eq!(
            lines,
            [
                r#"strandline_group_lag{group="a \"b\"\n\\",topic="t",partition="3"} 5"#,
                r#"strandline_group_lag{group="c",topic="t",partition="3"} -1"#,
                r#"strandline_group_committed_offset{group="a \"b\"\n\\",topic="t",partition="3"} 7"#,
                r#"strandline_group_committed_offset{group="c",topic="t",partition="3"} 7"#,
                "strandline_group_partitions_left_out 9",
            ]
        );
    }
}
