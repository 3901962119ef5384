//! What a topic's settings are after a change, as Kafka's IncrementalAlterConfigs works it out
//! (`ConfigurationControlManager`).
use super::{Overrides, default, find, validate_all};
use crate::config::Config;
use crate::config::value::{Kind, items};

/// What is done to one setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Set,
    /// Back to the default.
    Delete,
    /// Items are added to a list, those that it has already left out.
    Append,
    /// Items are taken from a list.
    Subtract,
}

impl Op {
    /// By Kafka's number (`AlterConfigOp.OpType`).
    #[must_use]
    pub fn from_kafka(number: i8) -> Option<Self> {
        [Self::Set, Self::Delete, Self::Append, Self::Subtract].get(usize::try_from(number).ok()?).copied()
    }
}

/// One setting's change; `value` counts for nothing when it is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub name: String,
    pub op: Op,
    pub value: String,
}

/// What a topic with `current` would have after `changes`, checked as a whole.
///
/// # Errors
/// Kafka's message for the first that is wrong, which goes with `INVALID_CONFIG`.
pub fn changed(current: &Overrides, changes: &[Change], config: &Config) -> Result<Overrides, String> {
    let mut overrides = current.clone();
    for Change { name, op, value } in changes {
        match op {
            Op::Set => drop(overrides.insert(name.clone(), value.clone())),
            Op::Delete => drop(overrides.remove(name)),
            Op::Append | Op::Subtract => {
                let verb = if *op == Op::Append { "APPEND" } else { "SUBTRACT" };
                if !find(name).is_some_and(|s| matches!(s.kind, Kind::List | Kind::Choices(_))) {
                    return Err(format!("Can't {verb} to key {name} because its type is not LIST."));
                }
                let now = overrides.get(name).cloned().or_else(|| default(name, config)).unwrap_or_default();
                overrides.insert(name.clone(), edited(&now, *op, value));
            }
        }
    }
    validate_all(&overrides, config)?;
    Ok(overrides)
}

fn edited(list: &str, op: Op, value: &str) -> String {
    let mut kept: Vec<&str> = items(list).filter(|item| !item.is_empty()).collect();
    for item in items(value) {
        if op == Op::Subtract {
            kept.retain(|have| *have != item);
        } else if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the topic had, what is done (`=` set, `-` delete, `+` append, `~` subtract), and what it has then, or why not.
    const CASES: &str = "\
 | = retention.ms 5 | retention.ms=5
retention.ms=5 | - retention.ms |
 | - retention.ms |
retention.ms=5 | = retention.ms x | Invalid value x for configuration retention.ms: Not a number of type LONG
 | + cleanup.policy compact | cleanup.policy=delete,compact
 | + cleanup.policy delete | cleanup.policy=delete
cleanup.policy=compact | + cleanup.policy compact,delete | cleanup.policy=compact,delete
cleanup.policy=compact,delete | ~ cleanup.policy delete | cleanup.policy=compact
cleanup.policy=compact | ~ cleanup.policy compact | cleanup.policy=
cleanup.policy=compact | ~ cleanup.policy shred | cleanup.policy=compact
 | + retention.ms 5 | Can't APPEND to key retention.ms because its type is not LIST.
 | ~ nothing x | Can't SUBTRACT to key nothing because its type is not LIST.
 | = nothing x | Unknown topic config name: nothing
 | - nothing |
min.compaction.lag.ms=10 | = max.compaction.lag.ms 5 | conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)";

    #[test]
    fn changes_are_those_of_kafka() {
        for case in CASES.lines() {
            let parts: Vec<&str> = case.split('|').map(str::trim).collect();
            let current: Overrides =
                parts[0].split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter().collect();
            let (op, rest) = parts[1].split_at(1);
            let (name, value) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
            let op = match op {
                "=" => Op::Set,
                "-" => Op::Delete,
                "+" => Op::Append,
                _ => Op::Subtract,
            };
            let change = Change { name: name.to_owned(), op, value: value.to_owned() };
            let found = match changed(&current, &[change], &Config::default()) {
                Ok(all) => all.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(";"),
                Err(why) => why,
            };
            assert_eq!(found, parts[2], "{case}");
        }
    }

    #[test]
    fn a_value_has_a_limit() {
        let config = Config::default();
        let value = "0:0,".repeat(config.limits.config_value_bytes_max / 4 + 1);
        let name = "leader.replication.throttled.replicas".to_owned();
        let why = changed(&Overrides::new(), &[Change { name, op: Op::Set, value }], &config).unwrap_err();
        assert!(why.contains("config_value_bytes_max"), "{why}");
    }
}
