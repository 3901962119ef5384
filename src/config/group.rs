//! Settings of groups: Kafka's names, ranges and messages (`GroupConfig`). They are those of the consumer protocol; share
//! and streams groups are not there, and neither are their settings.
use super::describe::{Described, Source, Synonym};
use super::topic::{Change, Op, Overrides};
use super::value::Kind;
use super::{Config, KafkaSettings};

/// One setting of a group; all are whole numbers.
struct GroupSetting {
    name: &'static str,
    doc: &'static str,
    /// The least that the type allows.
    min: i32,
    /// The broker's setting that is the default, and those that bound what a group may choose.
    default: (&'static str, fn(&KafkaSettings) -> i32),
    least: (&'static str, fn(&KafkaSettings) -> i32),
    most: (&'static str, fn(&KafkaSettings) -> i32),
}

const ASSIGNMENT_INTERVAL: &str = "consumer.assignment.interval.ms";
const HEARTBEAT_INTERVAL: &str = "consumer.heartbeat.interval.ms";
const SESSION_TIMEOUT: &str = "consumer.session.timeout.ms";

/// By name.
static TABLE: [GroupSetting; 3] = [
    GroupSetting {
        name: ASSIGNMENT_INTERVAL,
        doc: "The least time between two assignments of a group that uses the consumer protocol.",
        min: 0,
        default: ("group.consumer.assignment.interval.ms", |k| k.group_consumer_assignment_interval_ms),
        // Kafka's defaults for these two.
        least: ("group.consumer.min.assignment.interval.ms", |_| 0),
        most: ("group.consumer.max.assignment.interval.ms", |_| 15_000),
    },
    GroupSetting {
        name: HEARTBEAT_INTERVAL,
        doc: "Time between heartbeats of members that use the consumer protocol.",
        min: 1,
        default: ("group.consumer.heartbeat.interval.ms", |k| k.group_consumer_heartbeat_interval_ms),
        least: ("group.consumer.min.heartbeat.interval.ms", |k| k.group_consumer_min_heartbeat_interval_ms),
        most: ("group.consumer.max.heartbeat.interval.ms", |k| k.group_consumer_max_heartbeat_interval_ms),
    },
    GroupSetting {
        name: SESSION_TIMEOUT,
        doc: "Session time-out of members that use the consumer protocol.",
        min: 1,
        default: ("group.consumer.session.timeout.ms", |k| k.group_consumer_session_timeout_ms),
        least: ("group.consumer.min.session.timeout.ms", |k| k.group_consumer_min_session_timeout_ms),
        most: ("group.consumer.max.session.timeout.ms", |k| k.group_consumer_max_session_timeout_ms),
    },
];

fn find(name: &str) -> Result<&'static GroupSetting, String> {
    if let Some(setting) = TABLE.iter().find(|setting| setting.name == name) {
        return Ok(setting);
    }
    match ["share.", "streams."].iter().find(|kind| name.starts_with(**kind)) {
        Some(kind) => {
            let kind = kind.trim_end_matches('.');
            Err(format!("{name} is a setting of {kind} groups, which this version of Strandline does not have."))
        }
        None => Err(format!("Unknown group config name: {name}")),
    }
}

/// What a group with `current` would have after `changes`, checked as a whole.
///
/// # Errors
/// Kafka's message for the first that is wrong, which goes with `INVALID_CONFIG`.
pub fn changed(current: &Overrides, changes: &[Change], config: &Config) -> Result<Overrides, String> {
    let mut overrides = current.clone();
    for Change { name, op, value } in changes {
        match op {
            Op::Set => drop(overrides.insert(name.clone(), value.clone())),
            Op::Delete => drop(overrides.remove(name)),
            Op::Append => return Err(format!("Can't APPEND to key {name} because its type is not LIST.")),
            Op::Subtract => return Err(format!("Can't SUBTRACT to key {name} because its type is not LIST.")),
        }
    }
    validate_all(&overrides, config)?;
    Ok(overrides)
}

/// Checks all that a group would have: each value, and those that contradict each other, defaults included.
///
/// # Errors
/// As [`changed`].
pub fn validate_all(overrides: &Overrides, config: &Config) -> Result<(), String> {
    for (name, text) in overrides {
        let GroupSetting { min, least, most, .. } = find(name)?;
        let invalid = |value: &str, why: &str| format!("Invalid value {value} for configuration {name}: {why}");
        let value: i32 = text.trim().parse().map_err(|_| invalid(text, "Not a number of type INT"))?;
        if value < *min {
            return Err(invalid(&value.to_string(), &format!("Value must be at least {min}")));
        }
        if value < least.1(&config.kafka) {
            return Err(format!("{name} must be greater than or equal to {}", least.0));
        }
        if value > most.1(&config.kafka) {
            return Err(format!("{name} must be less than or equal to {}", most.0));
        }
    }
    let in_force = |name: &str| {
        let own = overrides.get(name).and_then(|text| text.trim().parse().ok());
        own.or_else(|| Some(find(name).ok()?.default.1(&config.kafka)))
    };
    if in_force(SESSION_TIMEOUT) <= in_force(HEARTBEAT_INTERVAL) {
        return Err(format!("{SESSION_TIMEOUT} must be greater than {HEARTBEAT_INTERVAL}"));
    }
    Ok(())
}

/// A group's settings, all of them, sorted by name, as DescribeConfigs shows them.
#[must_use]
pub fn describe(overrides: &Overrides, config: &Config) -> Vec<Described> {
    TABLE.iter().map(|setting| describe_one(setting, overrides, config)).collect()
}

fn describe_one(setting: &GroupSetting, overrides: &Overrides, config: &Config) -> Described {
    let mut synonyms = Vec::new();
    let mut add = |name, value, source| synonyms.push(Synonym { name, value: Some(value), source });
    if let Some(own) = overrides.get(setting.name) {
        add(setting.name, own.trim().to_owned(), Source::Group);
    }
    let (name, default) = setting.default;
    if config.is_given(&format!("kafka.{name}")) {
        add(name, default(&config.kafka).to_string(), Source::StaticBroker);
    }
    add(name, default(&KafkaSettings::default()).to_string(), Source::Default);
    let (value, source) = synonyms.first().map_or((None, Source::Default), |s| (s.value.clone(), s.source));
    Described {
        name: setting.name,
        value,
        source,
        kind: Kind::Int,
        read_only: false,
        sensitive: false,
        synonyms,
        doc: setting.doc.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is set, and why not.
    const CASES: &str = "\
consumer.session.timeout.ms=50000 |
consumer.session.timeout.ms=x | Invalid value x for configuration consumer.session.timeout.ms: Not a number of type INT
consumer.session.timeout.ms=44999 | consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms
consumer.session.timeout.ms=60001 | consumer.session.timeout.ms must be less than or equal to group.consumer.max.session.timeout.ms
consumer.heartbeat.interval.ms=0 | Invalid value 0 for configuration consumer.heartbeat.interval.ms: Value must be at least 1
consumer.heartbeat.interval.ms=15001 | consumer.heartbeat.interval.ms must be less than or equal to group.consumer.max.heartbeat.interval.ms
consumer.assignment.interval.ms=0 |
consumer.assignment.interval.ms=15001 | consumer.assignment.interval.ms must be less than or equal to group.consumer.max.assignment.interval.ms
share.session.timeout.ms=1 | share.session.timeout.ms is a setting of share groups, which this version of Strandline does not have.
nothing=1 | Unknown group config name: nothing";

    #[test]
    fn values_are_refused_in_kafkas_words() {
        for case in CASES.lines() {
            let (set, why) = case.split_once('|').unwrap();
            let (name, value) = set.trim().split_once('=').unwrap();
            let change = Change { name: name.to_owned(), op: Op::Set, value: value.to_owned() };
            let result = changed(&Overrides::new(), &[change], &Config::default());
            assert_eq!(result.err().unwrap_or_default(), why.trim(), "{case}");
        }
    }

    #[test]
    fn a_session_outlives_a_heartbeat() {
        let yaml =
            "kafka:\n  group.consumer.min.session.timeout.ms: 1000\n  group.consumer.session.timeout.ms: 45000\n";
        let config = Config::from_yaml(yaml).unwrap();
        let set = Overrides::from([(SESSION_TIMEOUT.to_owned(), "5000".to_owned())]);
        let why = "consumer.session.timeout.ms must be greater than consumer.heartbeat.interval.ms";
        assert_eq!(validate_all(&set, &config), Err(why.to_owned()));
    }

    #[test]
    fn a_groups_own_value_counts_before_the_brokers() {
        let config = Config::from_yaml("kafka:\n  group.consumer.session.timeout.ms: 50000\n").unwrap();
        let set = Overrides::from([(SESSION_TIMEOUT.to_owned(), "55000".to_owned())]);
        let all = describe(&set, &config);
        let session = all.iter().find(|d| d.name == SESSION_TIMEOUT).unwrap();
        let sources: Vec<_> = session.synonyms.iter().map(|s| (s.value.as_deref().unwrap(), s.source)).collect();
        assert_eq!(sources, [("55000", Source::Group), ("50000", Source::StaticBroker), ("45000", Source::Default)]);
        assert!(all.is_sorted_by_key(|d| d.name));
    }
}
