//! YAML file + environment + flags → checked sections. Owns every setting: its name, type, default, range, unit,
//! documentation, and the metric that tells that it is wrong, all in one table (`section!`). Promises that what it
//! returns is within range and free of contradictions, and that what it refuses is named with file, line, key and what
//! would be right. Never opens anything but the file, and never prints a secret. Tests: `tests.rs` and at each file's end.
mod check; // contradictions between settings
pub mod describe; // as Kafka's DescribeConfigs shows them
pub mod document; // `config default` and docs/configuration.md
mod foreign; // Kafka's settings that are ignored or refused
mod given; // what file, environment and flags give
pub mod group; // Kafka's group settings
pub mod kafka; // Kafka's broker settings
pub mod listener;
mod problem;
pub mod sections; // our settings
pub mod setting; // a row of the table
pub mod topic; // Kafka's topic settings
pub mod value; // the types that settings have
mod yaml;
pub mod zones; // of clients, by address

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use kafka::{Compression, TimestampType};
pub use kafka::{KafkaSettings, Migration};
pub use listener::{Entrance, HostPort, Listener};
pub use problem::{ConfigError, Origin, Problem};
use sections::General;
pub use sections::{
    Admin, Bucket, Cluster, Compaction, Fetch, Journal, JournalKind, Limits, Log, LogFormat, LogLevel, Net,
    PostgresDurability, Produce, Snapshot, Upkeep, Validation,
};
use setting::Setting;
pub use topic::TopicSettings;

/// Everything that a broker is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub data_dir: PathBuf,
    pub broker_id: i32,
    pub zone: Option<String>,
    pub insecure: bool,
    /// At least one; names and addresses are distinct.
    pub listeners: Vec<Listener>,
    pub admin: Admin,
    pub log: Log,
    pub bucket: Bucket,
    pub journal: Journal,
    pub cluster: Cluster,
    pub produce: Produce,
    pub fetch: Fetch,
    pub net: Net,
    pub snapshot: Snapshot,
    pub upkeep: Upkeep,
    pub compaction: Compaction,
    pub limits: Limits,
    pub kafka: KafkaSettings,
    /// The paths (`kafka.num.partitions`) that somebody gave; the rest are defaults.
    given: BTreeSet<String>,
}

/// What `serve` was told on the command line.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--data`: replaces `data_dir`.
    pub data: Option<String>,
    /// `--listen`: one listener in place of the file's.
    pub listen: Option<String>,
}

/// A section of the file.
pub struct Section {
    /// Empty for the keys at the top.
    pub name: &'static str,
    pub doc: &'static str,
    pub settings: &'static [Setting],
}

macro_rules! sections {
    ($($ty:ty: $name:literal),* $(,)?) => {
        /// All sections, in the order of the file.
        pub const SECTIONS: &[Section] =
            &[$(Section { name: $name, doc: <$ty>::DOC, settings: <$ty>::SETTINGS }),*];
    };
}
sections!(
    General: "", Admin: "admin", Log: "log", Bucket: "bucket", Journal: "journal", Cluster: "cluster",
    Produce: "produce", Fetch: "fetch", Net: "net", Snapshot: "snapshot", Upkeep: "upkeep", Compaction: "compaction",
    Limits: "limits", KafkaSettings: "kafka",
);

/// Every row of the table.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    SECTIONS.iter().flat_map(|section| section.settings)
}

impl Config {
    /// Reads the file, if there is one, then the environment, then the flags, each over the one before.
    ///
    /// # Errors
    /// Everything that is wrong, in one list.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &Flags,
    ) -> Result<Self, ConfigError> {
        let mut layers = given::Layers::default();
        if let Some(path) = file {
            match std::fs::read_to_string(path) {
                Ok(text) => layers.add_file(path, &text),
                Err(e) => {
                    let at = Origin::File { path: path.to_owned(), line: 0 };
                    layers.problem(at, "", format!("can't be read: {e}"), "name a readable file with --config");
                }
            }
        }
        Self::from_layers(layers, environment, flags)
    }

    /// As [`Config::load`], of a text instead of a file, without environment and flags.
    ///
    /// # Errors
    /// Everything that is wrong, in one list.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        let mut layers = given::Layers::default();
        layers.add_file(Path::new("strandline.yaml"), text);
        Self::from_layers(layers, [], &Flags::default())
    }

    fn from_layers(
        mut layers: given::Layers,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &Flags,
    ) -> Result<Self, ConfigError> {
        layers.add_environment(environment);
        if let Some(data) = &flags.data {
            layers.add_flag("--data", "data_dir", data);
        }
        if let Some(listen) = &flags.listen {
            layers.add_listen_flag(listen);
        }
        let (listeners, origins) = listener::read(&mut layers).into_iter().unzip();
        let general = General::read(&mut layers);
        let config = Self {
            data_dir: general.data_dir,
            broker_id: general.broker_id,
            zone: general.zone,
            insecure: general.insecure,
            listeners,
            admin: Admin::read(&mut layers),
            log: Log::read(&mut layers),
            bucket: Bucket::read(&mut layers),
            journal: Journal::read(&mut layers),
            cluster: Cluster::read(&mut layers),
            produce: Produce::read(&mut layers),
            fetch: Fetch::read(&mut layers),
            net: Net::read(&mut layers),
            snapshot: Snapshot::read(&mut layers),
            upkeep: Upkeep::read(&mut layers),
            compaction: Compaction::read(&mut layers),
            limits: Limits::read(&mut layers),
            kafka: KafkaSettings::read(&mut layers),
            given: layers.given(),
        };
        if layers.problems.is_empty() {
            let origins: Vec<Origin> = origins;
            check::contradictions(&config, &origins, &mut layers);
        }
        if layers.problems.is_empty() { Ok(config) } else { Err(ConfigError(layers.problems)) }
    }

    /// Whether somebody gave the setting at `path` (`kafka.num.partitions`), or it has its default.
    #[must_use]
    pub fn is_given(&self, path: &str) -> bool {
        self.given.contains(path)
    }

    /// The given Kafka settings that are taken and ignored, as paths.
    pub fn ignored(&self) -> impl Iterator<Item = &str> {
        let ignored = |path: &&String| path.strip_prefix("kafka.").is_some_and(|key| foreign::ignored().contains(&key));
        self.given.iter().filter(ignored).map(String::as_str)
    }

    /// Where the bucket is: `bucket.url`, or the directory `bucket` in `data_dir`.
    #[must_use]
    pub fn bucket_url(&self) -> String {
        self.bucket.url.clone().unwrap_or_else(|| self.data_dir.join("bucket").display().to_string())
    }

    /// The bucket costs nothing per PUT: a directory, or memory.
    #[must_use]
    pub fn bucket_is_local(&self) -> bool {
        let url = self.bucket_url();
        !url.contains("://") || url.starts_with("file://")
    }

    /// Where the SQLite journal is: `journal.sqlite_path`, or `journal.db` in `data_dir`.
    #[must_use]
    pub fn journal_path(&self) -> PathBuf {
        self.journal.sqlite_path.clone().unwrap_or_else(|| self.data_dir.join("journal.db"))
    }

    /// What the admin port listens on, if it is on.
    #[must_use]
    pub fn admin_address(&self) -> Option<HostPort> {
        self.admin.address.as_deref().and_then(|text| HostPort::parse(text).ok())
    }

    /// The time between flushes under load; 0 where the flush follows the PUTs in flight.
    #[must_use]
    pub fn flush_interval_ms(&self) -> u64 {
        self.produce.flush_interval_ms.unwrap_or(if self.bucket_is_local() { 0 } else { 250 })
    }

    /// The time after which the others give up a broker that is silent.
    #[must_use]
    pub fn fencing_timeout_ms(&self) -> u64 {
        let each_costs = self.journal.kind == JournalKind::Bucket;
        self.cluster.fencing_timeout_ms.unwrap_or(if each_costs { 30_000 } else { 15_000 })
    }

    /// The time between two entries of a broker that has nothing else to say.
    #[must_use]
    pub fn heartbeat_interval_ms(&self) -> u64 {
        let usual = if self.journal.kind == JournalKind::Bucket { 10_000 } else { 3_000 };
        self.cluster.heartbeat_interval_ms.unwrap_or(usual.min(self.fencing_timeout_ms() / 3))
    }

    /// Open client connections: the lower of our setting and Kafka's.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        self.net.connections_max.min(usize::try_from(self.kafka.max_connections).unwrap_or(0))
    }

    /// The largest answer to a fetch, in bytes: the lower of our setting and Kafka's.
    #[must_use]
    pub fn fetch_response_bytes_max(&self) -> u64 {
        self.fetch.response_bytes_max.min(u64::try_from(self.kafka.fetch_max_bytes).unwrap_or(0))
    }

    /// Every setting with its value, in the order of the file.
    fn shown(&self) -> Vec<setting::Shown> {
        let general = General {
            data_dir: self.data_dir.clone(),
            broker_id: self.broker_id,
            zone: self.zone.clone(),
            insecure: self.insecure,
        };
        let mut shown = general.shown();
        shown.extend(self.admin.shown());
        shown.extend(self.log.shown());
        shown.extend(self.bucket.shown());
        shown.extend(self.journal.shown());
        shown.extend(self.cluster.shown());
        shown.extend(self.produce.shown());
        shown.extend(self.fetch.shown());
        shown.extend(self.net.shown());
        shown.extend(self.snapshot.shown());
        shown.extend(self.upkeep.shown());
        shown.extend(self.compaction.shown());
        shown.extend(self.limits.shown());
        shown.extend(self.kafka.shown());
        shown
    }
}

impl Default for Config {
    fn default() -> Self {
        let general = General::default();
        Self {
            data_dir: general.data_dir,
            broker_id: general.broker_id,
            zone: general.zone,
            insecure: general.insecure,
            listeners: vec![Listener::default()],
            admin: Admin::default(),
            log: Log::default(),
            bucket: Bucket::default(),
            journal: Journal::default(),
            cluster: Cluster::default(),
            produce: Produce::default(),
            fetch: Fetch::default(),
            net: Net::default(),
            snapshot: Snapshot::default(),
            upkeep: Upkeep::default(),
            compaction: Compaction::default(),
            limits: Limits::default(),
            kafka: KafkaSettings::default(),
            given: BTreeSet::new(),
        }
    }
}

#[cfg(test)]
mod tests;
