//! Settings of topics: Kafka's names, types, ranges and messages. A topic keeps only what somebody set (its overrides);
//! the rest are the broker's defaults. Owns which values are right; keeps no topic.
mod change;
mod table;

use std::collections::BTreeMap;

use super::kafka::{Compression, TimestampType};
use super::value::{Cleanup, Kind, Value, items};
use super::{Config, Validation};
pub use change::{Change, Op, changed};
pub use table::{TABLE, TopicSetting};

/// What somebody set on a topic, by Kafka's name.
pub type Overrides = BTreeMap<String, String>;

/// The row of a setting.
#[must_use]
pub fn find(name: &str) -> Option<&'static TopicSetting> {
    TABLE.iter().find(|setting| setting.name == name)
}

/// The value that a topic without its own has; `None` if there is no such setting.
#[must_use]
pub fn default(name: &str, config: &Config) -> Option<String> {
    find(name).map(|setting| (setting.default)(config))
}

/// Checks one value by itself.
///
/// # Errors
/// Kafka's message for it, which goes with `INVALID_CONFIG`.
pub fn validate(name: &str, value: &str) -> Result<(), String> {
    let setting = find(name).ok_or_else(|| format!("Unknown topic config name: {name}"))?;
    let text = value.trim();
    let invalid = |value: &str, why: &str| Err(format!("Invalid value {value} for configuration {name}: {why}"));
    match setting.kind {
        Kind::Bool => match bool::parse(text) {
            Ok(_) => Ok(()),
            Err(_) => invalid(value, "Expected value to be either true or false"),
        },
        Kind::Int => match text.parse::<i32>() {
            Ok(n) => setting.in_range(n.into()).or_else(|why| invalid(&n.to_string(), &why)),
            Err(_) => invalid(value, "Not a number of type INT"),
        },
        Kind::Double => match f64::parse(text) {
            Ok(n) if n < 0.0 => invalid(&format!("{n:?}"), "Value must be at least 0"),
            Ok(n) if n > 1.0 => invalid(&format!("{n:?}"), "Value must be no more than 1"),
            Ok(_) => Ok(()),
            Err(_) => invalid(value, "Not a number of type DOUBLE"),
        },
        Kind::Choice(names) => one_of(names, text).or_else(|why| invalid(text, &why)),
        Kind::Choices(names) => items(text).try_for_each(|item| one_of(names, item).or_else(|why| invalid(item, &why))),
        Kind::List => throttled(text).or_else(|()| {
            let found = items(text).collect::<Vec<_>>().join(", ");
            let form = "[partitionId]:[brokerId],[partitionId]:[brokerId],...";
            invalid(
                &format!("[{found}]"),
                &format!("{name} must be the literal '*' or a list of replicas in the following format: {form}"),
            )
        }),
        _ => match text.parse::<i64>() {
            Ok(n) => setting.in_range(n).or_else(|why| invalid(&n.to_string(), &why)),
            Err(_) => invalid(value, "Not a number of type LONG"),
        },
    }
}

/// Checks all that a topic would have: each value, and those that contradict each other, defaults included.
///
/// # Errors
/// Kafka's message for the first that is wrong, which goes with `INVALID_CONFIG`.
pub fn validate_all(overrides: &Overrides, config: &Config) -> Result<(), String> {
    let longest = config.limits.config_value_bytes_max;
    if let Some((name, _)) = overrides.iter().find(|(_, value)| value.len() > longest) {
        return Err(format!("The value for configuration {name} has over {longest} bytes (config_value_bytes_max)."));
    }
    overrides.iter().try_for_each(|(name, value)| validate(name, value))?;
    let (min, max) = ("min.compaction.lag.ms", "max.compaction.lag.ms");
    let (least, most): (i64, i64) = (current(overrides, config, min), current(overrides, config, max));
    if least > most {
        return Err(format!("conflict topic config setting {min} ({least}) > {max} ({most})"));
    }
    if current(overrides, config, "remote.storage.enable") {
        return Err("Tiered Storage functionality is disabled in the broker. \
                    Topic cannot be configured with remote log storage."
            .to_owned());
    }
    Ok(())
}

impl TopicSetting {
    fn in_range(&self, n: i64) -> Result<(), String> {
        match (self.min, self.max, self.or) {
            (_, _, Some(or)) if n == or => Ok(()),
            (Some(min), Some(max), Some(or)) if n < min || n > max => {
                Err(format!("Value must be between {min} and {max} or equal to {or}"))
            }
            (Some(min), _, _) if n < min => Err(format!("Value must be at least {min}")),
            (_, Some(max), _) if n > max => Err(format!("Value must be no more than {max}")),
            _ => Ok(()),
        }
    }
}

fn one_of(names: &[&str], text: &str) -> Result<(), String> {
    if names.contains(&text) { Ok(()) } else { Err(format!("String must be one of: {}", names.join(", "))) }
}

/// `*`, nothing, or pairs of partition and broker.
fn throttled(text: &str) -> Result<(), ()> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let pair = |item: &str| item.split_once(':').is_some_and(|(partition, broker)| digits(partition) && digits(broker));
    if text == "*" || items(text).all(pair) { Ok(()) } else { Err(()) }
}

/// The value in force: the topic's own if it is right, else the broker's. A wrong one can't be set; if an older version
/// let it in, the default is the safer reading.
fn current<T: Value>(overrides: &Overrides, config: &Config, name: &str) -> T {
    let own = overrides.get(name).filter(|value| validate(name, value).is_ok());
    let own = own.and_then(|value| T::parse(value.trim()).ok());
    #[expect(clippy::expect_used, reason = "a test reads every default as its field's type")]
    own.unwrap_or_else(|| T::parse(&default(name, config).unwrap_or_default()).expect("a default has its type"))
}

/// How long a topic's records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Since their time, in ms; `None` is for ever.
    pub ms: Option<u64>,
    /// Bytes of a partition beyond which the oldest go; `None` is no limit.
    pub bytes: Option<u64>,
}

impl Retention {
    /// What is in force on a topic with these overrides. Nothing goes by age or size where `cleanup.policy` does not say so.
    #[must_use]
    pub fn resolve(overrides: &Overrides, config: &Config) -> Self {
        let cleanup: Vec<Cleanup> = current(overrides, config, "cleanup.policy");
        let deletes = cleanup.contains(&Cleanup::Delete);
        let limit = |name: &str| u64::try_from(current::<i64>(overrides, config, name)).ok().filter(|_| deletes);
        Self { ms: limit("retention.ms"), bytes: limit("retention.bytes") }
    }
}

/// A topic's settings that do something, each read as its type.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicSettings {
    /// Bytes of the largest record batch, as it is stored.
    pub max_message_bytes: i32,
    pub timestamp_type: TimestampType,
    /// Both bounds count only with `CreateTime`.
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    pub compression: Compression,
    /// The level for `compression`; `None` where the codec has none or it is the codec's own default.
    pub compression_level: Option<i32>,
    /// Records need keys.
    pub compacted: bool,
    pub deletes: bool,
    /// Below 0: never.
    pub retention_ms: i64,
    /// Below 0: no limit.
    pub retention_bytes: i64,
    pub delete_retention_ms: i64,
    pub min_compaction_lag_ms: i64,
    pub max_compaction_lag_ms: i64,
    pub min_cleanable_dirty_ratio: f64,
    pub validation: Validation,
}

impl TopicSettings {
    /// The settings in force on a topic with these overrides. Reads fifteen texts: keep the result as long as the
    /// overrides stay the same, rather than asking for every batch.
    #[must_use]
    pub fn resolve(overrides: &Overrides, config: &Config) -> Self {
        let long = |name: &str| current::<i64>(overrides, config, name);
        let level = |name: &str| current::<i32>(overrides, config, name);
        let compression = current(overrides, config, "compression.type");
        let cleanup: Vec<Cleanup> = current(overrides, config, "cleanup.policy");
        Self {
            max_message_bytes: level("max.message.bytes"),
            timestamp_type: current(overrides, config, "message.timestamp.type"),
            timestamp_before_max_ms: long("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: long("message.timestamp.after.max.ms"),
            compression,
            compression_level: match compression {
                Compression::Gzip => Some(level("compression.gzip.level")).filter(|level| *level != -1),
                Compression::Lz4 => Some(level("compression.lz4.level")),
                Compression::Zstd => Some(level("compression.zstd.level")),
                Compression::Producer | Compression::Uncompressed | Compression::Snappy => None,
            },
            compacted: cleanup.contains(&Cleanup::Compact),
            deletes: cleanup.contains(&Cleanup::Delete),
            retention_ms: long("retention.ms"),
            retention_bytes: long("retention.bytes"),
            delete_retention_ms: long("delete.retention.ms"),
            min_compaction_lag_ms: long("min.compaction.lag.ms"),
            max_compaction_lag_ms: long("max.compaction.lag.ms"),
            min_cleanable_dirty_ratio: current(overrides, config, "min.cleanable.dirty.ratio"),
            validation: current(overrides, config, "strandline.validation"),
        }
    }
}

#[cfg(test)]
mod tests;
