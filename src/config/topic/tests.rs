use super::*;

/// What Kafka 4.3.1 answers to each value, as one sees it through its AdminClient; `ok` is success.
const KAFKAS_ANSWERS: &str = "\
foo.bar=1 | Unknown topic config name: foo.bar
retention.ms=abc | Invalid value abc for configuration retention.ms: Not a number of type LONG
retention.ms=-2 | Invalid value -2 for configuration retention.ms: Value must be at least -1
retention.ms=-1 | ok
retention.ms= 5  | ok
retention.ms=99999999999999999999 | Invalid value 99999999999999999999 for configuration retention.ms: Not a number of type LONG
retention.ms= | Invalid value  for configuration retention.ms: Not a number of type LONG
cleanup.policy=foo | Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete
cleanup.policy= | ok
cleanup.policy=compact,delete | ok
cleanup.policy=delete,delete | ok
cleanup.policy=compact, delete | ok
cleanup.policy=Compact | Invalid value Compact for configuration cleanup.policy: String must be one of: compact, delete
compression.type=foo | Invalid value foo for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer
compression.type=GZIP | Invalid value GZIP for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer
compression.gzip.level=0 | Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1
compression.gzip.level=10 | Invalid value 10 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1
compression.gzip.level=-1 | ok
compression.lz4.level=0 | Invalid value 0 for configuration compression.lz4.level: Value must be at least 1
compression.lz4.level=18 | Invalid value 18 for configuration compression.lz4.level: Value must be no more than 17
compression.zstd.level=23 | Invalid value 23 for configuration compression.zstd.level: Value must be no more than 22
compression.zstd.level=-131073 | Invalid value -131073 for configuration compression.zstd.level: Value must be at least -131072
compression.zstd.level=0 | ok
max.message.bytes=-1 | Invalid value -1 for configuration max.message.bytes: Value must be at least 0
max.message.bytes=0 | ok
max.message.bytes=1.5 | Invalid value 1.5 for configuration max.message.bytes: Not a number of type INT
max.message.bytes=3000000000 | Invalid value 3000000000 for configuration max.message.bytes: Not a number of type INT
message.timestamp.type=foo | Invalid value foo for configuration message.timestamp.type: String must be one of: CreateTime, LogAppendTime
message.timestamp.before.max.ms=-1 | Invalid value -1 for configuration message.timestamp.before.max.ms: Value must be at least 0
min.cleanable.dirty.ratio=2 | Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1
min.cleanable.dirty.ratio=x | Invalid value x for configuration min.cleanable.dirty.ratio: Not a number of type DOUBLE
min.cleanable.dirty.ratio=1e-1 | ok
min.insync.replicas=0 | Invalid value 0 for configuration min.insync.replicas: Value must be at least 1
preallocate=yes | Invalid value yes for configuration preallocate: Expected value to be either true or false
preallocate=TRUE | ok
preallocate= true | ok
segment.bytes=14 | Invalid value 14 for configuration segment.bytes: Value must be at least 1048576
segment.ms=0 | Invalid value 0 for configuration segment.ms: Value must be at least 1
segment.jitter.ms=-1 | Invalid value -1 for configuration segment.jitter.ms: Value must be at least 0
segment.index.bytes=3 | Invalid value 3 for configuration segment.index.bytes: Value must be at least 4
index.interval.bytes=-1 | Invalid value -1 for configuration index.interval.bytes: Value must be at least 0
flush.messages=0 | Invalid value 0 for configuration flush.messages: Value must be at least 1
flush.ms=-1 | Invalid value -1 for configuration flush.ms: Value must be at least 0
flush.ms=0 | ok
file.delete.delay.ms=-1 | Invalid value -1 for configuration file.delete.delay.ms: Value must be at least 0
delete.retention.ms=-1 | Invalid value -1 for configuration delete.retention.ms: Value must be at least 0
retention.bytes=-2 | ok
local.retention.ms=-3 | Invalid value -3 for configuration local.retention.ms: Value must be at least -2
local.retention.bytes=-3 | Invalid value -3 for configuration local.retention.bytes: Value must be at least -2
retention.ms=1000;local.retention.ms=2000 | ok
remote.storage.enable=true | Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.
remote.log.copy.disable=true | ok
max.compaction.lag.ms=0 | Invalid value 0 for configuration max.compaction.lag.ms: Value must be at least 1
min.compaction.lag.ms=10;max.compaction.lag.ms=5 | conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)
leader.replication.throttled.replicas=foo | Invalid value [foo] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...
leader.replication.throttled.replicas=* | ok
leader.replication.throttled.replicas=0:1,1:2 | ok
unclean.leader.election.enable=maybe | Invalid value maybe for configuration unclean.leader.election.enable: Expected value to be either true or false
message.format.version=3.0 | Unknown topic config name: message.format.version
message.downconversion.enable=true | Unknown topic config name: message.downconversion.enable
";

/// Every topic setting of Kafka 4.3.1 with its type and default, as its DescribeConfigs gives them.
const KAFKAS_TOPIC_SETTINGS: &str = "\
cleanup.policy LIST delete
compression.gzip.level INT -1
compression.lz4.level INT 9
compression.type STRING producer
compression.zstd.level INT 3
delete.retention.ms LONG 86400000
file.delete.delay.ms LONG 60000
flush.messages LONG 9223372036854775807
flush.ms LONG 9223372036854775807
follower.replication.throttled.replicas LIST \n\
index.interval.bytes INT 4096
leader.replication.throttled.replicas LIST \n\
local.retention.bytes LONG -2
local.retention.ms LONG -2
max.compaction.lag.ms LONG 9223372036854775807
max.message.bytes INT 1048588
message.timestamp.after.max.ms LONG 3600000
message.timestamp.before.max.ms LONG 9223372036854775807
message.timestamp.type STRING CreateTime
min.cleanable.dirty.ratio DOUBLE 0.5
min.compaction.lag.ms LONG 0
min.insync.replicas INT 1
preallocate BOOLEAN false
remote.log.copy.disable BOOLEAN false
remote.log.delete.on.disable BOOLEAN false
remote.storage.enable BOOLEAN false
retention.bytes LONG -1
retention.ms LONG 604800000
segment.bytes INT 1073741824
segment.index.bytes INT 10485760
segment.jitter.ms LONG 0
segment.ms LONG 604800000
unclean.leader.election.enable BOOLEAN false
";

fn overrides(text: &str) -> Overrides {
    text.split(';').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[test]
fn values_are_refused_in_kafkas_words() {
    for line in KAFKAS_ANSWERS.lines() {
        let (pairs, answer) = line.split_once(" | ").unwrap();
        let ours = validate_all(&overrides(pairs), &Config::default()).err().unwrap_or_else(|| "ok".to_owned());
        assert_eq!(ours, answer, "{pairs}");
    }
}

#[test]
fn the_settings_are_kafkas_with_kafkas_types_and_defaults() {
    let types = ["", "BOOLEAN", "STRING", "INT", "SHORT", "LONG", "DOUBLE", "LIST"];
    let ours: Vec<String> = TABLE
        .iter()
        .filter(|s| !s.name.starts_with("strandline."))
        .map(|s| {
            let kind = types[usize::try_from(s.kind.kafka_type()).unwrap()];
            format!("{} {kind} {}", s.name, (s.default)(&Config::default()))
        })
        .collect();
    assert_eq!(ours, KAFKAS_TOPIC_SETTINGS.lines().collect::<Vec<_>>());
    assert_eq!(ours.len(), 33);
    assert!(TABLE.is_sorted_by_key(|s| s.name));
}

#[test]
fn synonyms_are_settings_of_the_broker() {
    for name in TABLE.iter().flat_map(|s| s.synonyms) {
        assert!(crate::config::settings().any(|s| s.section == "kafka" && s.key == *name), "{name}");
    }
}

#[test]
fn a_topics_settings_are_its_own_over_the_brokers() {
    let config = Config::from_yaml("kafka:\n  compression.type: gzip\n  log.retention.minutes: 2\n").unwrap();
    let plain = TopicSettings::resolve(&Overrides::new(), &config);
    assert_eq!((plain.compression, plain.compression_level, plain.retention_ms), (Compression::Gzip, None, 120_000));
    assert_eq!((plain.compacted, plain.deletes, plain.validation), (false, true, Validation::Header));
    let own = "compression.type=lz4;cleanup.policy=compact, delete;strandline.validation=full;retention.ms= 7 ;preallocate=TRUE";
    let own = TopicSettings::resolve(&overrides(own), &config);
    assert_eq!((own.compression, own.compression_level, own.retention_ms), (Compression::Lz4, Some(9), 7));
    assert_eq!((own.compacted, own.deletes, own.validation), (true, true, Validation::Full));
    let wrong = TopicSettings::resolve(&overrides("retention.ms=x;max.message.bytes=-1"), &config);
    assert_eq!((wrong.retention_ms, wrong.max_message_bytes), (120_000, 1_048_588));
}
