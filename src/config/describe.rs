//! Settings as Kafka's DescribeConfigs shows them: value, type, where it comes from, and what would count without it.
use std::collections::BTreeMap;

use super::setting::Setting;
use super::topic::{Overrides, TABLE, TopicSetting};
use super::value::{Kind, items};
use super::{Config, SECTIONS};

/// Where a value comes from; Kafka's numbers (`ConfigSource` of DescribeConfigs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Topic = 1,
    StaticBroker = 4,
    Default = 5,
    Group = 8,
}

/// A value and its source, as `DescribeConfigs` lists them when asked for synonyms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    pub name: &'static str,
    pub value: Option<String>,
    pub source: Source,
}

/// One setting as it is described.
#[derive(Clone, Debug)]
pub struct Described {
    pub name: &'static str,
    /// `None` where it is unset, or secret.
    pub value: Option<String>,
    pub source: Source,
    pub kind: Kind,
    pub read_only: bool,
    pub sensitive: bool,
    /// The value in force first, then what would count without it.
    pub synonyms: Vec<Synonym>,
    pub doc: String,
}

impl Kind {
    /// Kafka's number for the type (`ConfigType` of DescribeConfigs).
    #[must_use]
    pub fn kafka_type(self) -> i8 {
        match self {
            Self::Bool => 1,
            Self::Text | Self::Path | Self::Choice(_) => 2,
            Self::Int => 3,
            Self::Short => 4,
            Self::Long | Self::Count => 5,
            Self::Double => 6,
            Self::List | Self::Choices(_) => 7,
            Self::Secret => 9,
        }
    }

    /// A right value as Kafka shows it once it has read it: `TRUE` is `true`, ` 5 ` is `5`, `a, b` is `a,b`.
    fn canonical(self, text: &str) -> String {
        let text = text.trim();
        match self {
            Self::Bool => text.to_ascii_lowercase(),
            Self::Short | Self::Int | Self::Long | Self::Count => {
                text.parse::<i64>().map_or_else(|_| text.to_owned(), |n| n.to_string())
            }
            Self::Double => text.parse::<f64>().map_or_else(|_| text.to_owned(), |n| format!("{n:?}")),
            Self::List | Self::Choices(_) => items(text).collect::<Vec<_>>().join(","),
            Self::Text | Self::Path | Self::Secret | Self::Choice(_) => text.to_owned(),
        }
    }
}

/// Describes settings of one broker's topics, and of the broker. Making one reads every setting; keep it for a request.
pub struct Describer<'a> {
    config: &'a Config,
    /// Kafka's settings by name: as they are, and as they would be if nobody had set them.
    current: BTreeMap<&'static str, Option<String>>,
    defaults: BTreeMap<&'static str, Option<String>>,
}

impl<'a> Describer<'a> {
    #[must_use]
    pub fn new(config: &'a Config) -> Self {
        let shown = |config: &Config| config.kafka.shown().into_iter().map(|(s, text)| (s.key, text)).collect();
        Self { config, current: shown(config), defaults: shown(&Config::default()) }
    }

    /// A topic's settings, all of them, sorted by name.
    #[must_use]
    pub fn topic(&self, overrides: &Overrides) -> Vec<Described> {
        TABLE.iter().map(|setting| self.topic_setting(setting, overrides)).collect()
    }

    fn topic_setting(&self, setting: &'static TopicSetting, overrides: &Overrides) -> Described {
        let mut synonyms = Vec::new();
        if let Some(value) = overrides.get(setting.name) {
            let value = Some(setting.kind.canonical(value));
            synonyms.push(Synonym { name: setting.name, value, source: Source::Topic });
        }
        synonyms.extend(setting.synonyms.iter().flat_map(|name| self.broker_synonyms(name)));
        let (value, source) = match synonyms.first() {
            Some(own) if own.source == Source::Topic => (own.value.clone(), Source::Topic),
            Some(broker) => (Some((setting.default)(self.config)), broker.source),
            None => (Some((setting.default)(self.config)), Source::Default),
        };
        let (kind, doc) = (setting.kind, setting.doc.to_owned());
        Described { name: setting.name, value, source, kind, read_only: false, sensitive: false, synonyms, doc }
    }

    /// A broker setting's value and, if it was given, its default behind it; unset values are left out.
    fn broker_synonyms(&self, name: &'static str) -> Vec<Synonym> {
        let text = |of: &BTreeMap<&str, Option<String>>| of.get(name).cloned().flatten();
        let given = self.config.is_given(&format!("kafka.{name}")).then(|| (text(&self.current), Source::StaticBroker));
        let default = (text(&self.defaults), Source::Default);
        let known = given.into_iter().chain([default]).filter(|(value, _)| value.is_some());
        known.map(|(value, source)| Synonym { name, value, source }).collect()
    }

    /// The broker's settings, all of them, sorted by name: Kafka's, and those of ours that Kafka's tools look for under
    /// Kafka's name.
    #[must_use]
    pub fn broker(&self) -> Vec<Described> {
        let mut all = self.kafka_rows();
        all.extend(ours(self.config));
        all.sort_by_key(|described| described.name);
        all
    }

    fn kafka_rows(&self) -> Vec<Described> {
        let rows = SECTIONS.iter().filter(|s| s.name == "kafka").flat_map(|s| s.settings);
        rows.map(|setting: &'static Setting| {
            let synonyms = self.broker_synonyms(setting.key);
            let (value, source) =
                synonyms.first().map_or((None, Source::Default), |first| (first.value.clone(), first.source));
            let doc = setting.doc.trim().to_owned();
            let (name, kind, sensitive) = (setting.key, setting.kind, setting.kind == Kind::Secret);
            Described { name, value, source, kind, read_only: true, sensitive, synonyms, doc }
        })
        .collect()
    }
}

fn ours(config: &Config) -> Vec<Described> {
    let advertised = config.listeners.iter().map(|l| format!("PLAINTEXT://{}", l.advertised_at(l.address.port)));
    let addresses = config.listeners.iter().map(|l| format!("PLAINTEXT://{}", l.address));
    let join = |texts: Vec<String>| texts.join(",");
    let id = config.broker_id.to_string();
    let given = |path: &str| if config.is_given(path) { Source::StaticBroker } else { Source::Default };
    let ours = [
        (
            "advertised.listeners",
            Kind::List,
            join(advertised.collect()),
            Source::StaticBroker,
            "What clients are told to connect to.",
        ),
        ("broker.id", Kind::Int, id.clone(), given("broker_id"), "This broker's id (`broker_id`)."),
        ("listeners", Kind::List, join(addresses.collect()), Source::StaticBroker, "What the broker listens on."),
        (
            "log.dirs",
            Kind::List,
            config.data_dir.display().to_string(),
            given("data_dir"),
            "This machine's part of the data (`data_dir`); records are in the bucket.",
        ),
        ("node.id", Kind::Int, id, given("broker_id"), "This broker's id (`broker_id`)."),
        ("process.roles", Kind::List, "broker".to_owned(), Source::Default, "Every broker is the same."),
    ];
    let rows = ours.into_iter().map(|(name, kind, value, source, doc)| {
        let synonyms = vec![Synonym { name, value: Some(value.clone()), source }];
        Described {
            name,
            value: Some(value),
            source,
            kind,
            read_only: true,
            sensitive: false,
            synonyms,
            doc: doc.to_owned(),
        }
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topics_own_value_counts_before_the_brokers_and_that_before_the_default() {
        let config = Config::from_yaml("kafka:\n  log.retention.hours: 1\n  message.max.bytes: 5000\n").unwrap();
        let overrides = Overrides::from([("max.message.bytes".to_owned(), "77".to_owned())]);
        let all = Describer::new(&config).topic(&overrides);
        let find = |name: &str| all.iter().find(|d| d.name == name).unwrap();
        let own = find("max.message.bytes");
        assert_eq!((own.value.as_deref(), own.source), (Some("77"), Source::Topic));
        let sources: Vec<_> = own.synonyms.iter().map(|s| (s.name, s.value.as_deref().unwrap(), s.source)).collect();
        let broker = "message.max.bytes";
        let expected = [
            ("max.message.bytes", "77", Source::Topic),
            (broker, "5000", Source::StaticBroker),
            (broker, "1048588", Source::Default),
        ];
        assert_eq!(sources, expected);
        let retention = find("retention.ms");
        assert_eq!((retention.value.as_deref(), retention.source), (Some("3600000"), Source::StaticBroker));
        assert_eq!(find("segment.bytes").source, Source::Default);
    }

    #[test]
    fn the_brokers_settings_have_what_tools_look_for() {
        let config = Config::from_yaml("kafka:\n  num.partitions: 3\n").unwrap();
        let all = Describer::new(&config).broker();
        let find = |name: &str| all.iter().find(|d| d.name == name).unwrap();
        assert_eq!(find("num.partitions").source, Source::StaticBroker);
        assert_eq!(find("log.retention.ms").value, None);
        for name in ["auto.create.topics.enable", "default.replication.factor", "offsets.retention.minutes", "node.id"]
        {
            assert!(find(name).value.is_some());
        }
        assert!(all.is_sorted_by_key(|d| d.name));
    }
}
