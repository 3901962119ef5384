//! What people write: the file, the environment, settings of topics and groups.
use std::sync::OnceLock;
use strandline::config::describe::Describer;
use strandline::config::topic::{self, Change, Op, Overrides};
use strandline::config::{Config, ConfigError, Flags, TopicSettings, group};

use crate::heap;

/// The whole table with its texts is some 200 KB; a tree of YAML takes a hundred bytes for one.
fn heap_max(text: usize) -> usize {
    512 * text + (2 << 20)
}

/// Whatever was taken works, and whatever was not is said in words.
fn judged(loaded: Result<Config, ConfigError>) -> bool {
    match loaded {
        Ok(config) => {
            assert!(!config.listeners.is_empty());
            let _ = (config.bucket_url(), config.journal_path(), config.admin_address(), config.ignored().count());
            let _ = (config.flush_interval_ms(), config.connections_max(), config.fetch_response_bytes_max());
            let _ = TopicSettings::resolve(&Overrides::new(), &config);
            let _ = (group::describe(&Overrides::new(), &config), describe_all(&config));
            true
        }
        Err(error) => {
            assert!(!error.0.is_empty() && !error.to_string().is_empty());
            false
        }
    }
}

fn describe_all(config: &Config) -> usize {
    let describer = Describer::new(config);
    describer.topic(&Overrides::new()).len() + describer.broker().len()
}

/// The text of a file.
pub(crate) fn yaml(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    judged(heap::within("a file", heap_max(text.len()), || Config::from_yaml(text)))
}

/// Lines of NAME=VALUE, and the flags as the first two.
pub(crate) fn environment(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let mut lines = text.lines();
    let mut flag = || lines.next().filter(|line| !line.is_empty()).map(str::to_owned);
    let flags = Flags { data: flag(), listen: flag() };
    let pairs: Vec<_> = lines.filter_map(|l| l.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    judged(heap::within("an environment", heap_max(text.len()), || Config::load(None, pairs, &flags)))
}

/// Lines of what clients set on topics and groups: an operation, a name, a value, with blanks between.
pub(crate) fn settings(data: &[u8]) -> bool {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    let config = CONFIG.get_or_init(Config::default);
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let change = |line: &str| {
        let (op, rest) = line.split_at_checked(1)?;
        let op = Op::from_kafka(op.parse().ok()?)?;
        let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
        Some(Change { name: name.to_owned(), op, value: value.to_owned() })
    };
    let changes: Vec<Change> = text.lines().filter_map(change).collect();
    let topic = topic::changed(&Overrides::new(), &changes, config);
    if let Ok(overrides) = &topic {
        assert_eq!(topic::validate_all(overrides, config), Ok(()));
        let _ = TopicSettings::resolve(overrides, config);
        assert!(!Describer::new(config).topic(overrides).is_empty());
    }
    let group = group::changed(&Overrides::new(), &changes, config);
    if let Ok(overrides) = &group {
        assert_eq!(group::validate_all(overrides, config), Ok(()));
        assert!(!group::describe(overrides, config).is_empty());
    }
    changes.iter().any(|change| topic::find(&change.name).is_some()) || group.is_ok()
}
