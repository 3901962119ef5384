//! Settings that are right by themselves and wrong together.
use std::collections::BTreeSet;

use super::given::Layers;
use super::problem::Origin;
use super::sections::JournalKind;
use super::value::size_text;
use super::zones::AddressZones;
use super::{Config, HostPort};

/// Adds a problem for each contradiction. `origins` says where each listener comes from.
pub(super) fn contradictions(config: &Config, origins: &[Origin], layers: &mut Layers) {
    listeners(config, origins, layers);
    budgets(config, layers);
    stores(config, layers);
    orders(config, layers);
    if let Err(what) = AddressZones::parse(&config.cluster.zones_by_address) {
        let at = layers.origin("cluster.zones_by_address");
        layers.problem(at, "cluster.zones_by_address", what, "write a network and a zone, as `10.1.0.0/16=a`");
    }
}

fn listeners(config: &Config, origins: &[Origin], layers: &mut Layers) {
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for (i, (listener, at)) in config.listeners.iter().zip(origins).enumerate() {
        let address = &listener.address;
        let mut problem = |field: &str, what: String, remedy: &str| {
            layers.problem(at.clone(), format!("listeners.{i}.{field}"), what, remedy);
        };
        if !address.is_loopback() && !config.insecure {
            let what = format!("{address} can be reached by other machines, and there is no authentication yet");
            problem(
                "address",
                what,
                "listen on 127.0.0.1, or set `insecure: true` if everybody who can reach it may do everything",
            );
        }
        if address.is_wildcard() && listener.advertised.is_none() {
            let what = format!("clients can't connect to {address}");
            problem("advertised", what, "add `advertised: HOST:PORT` with the address that clients are to use");
        }
        if let Some(advertised) = &listener.advertised
            && (advertised.port == 0 || advertised.is_wildcard())
        {
            problem(
                "advertised",
                format!("clients can't connect to {advertised}"),
                "name a host and a port that clients can reach",
            );
        }
        let name_fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if listener.name.is_empty() || !listener.name.chars().all(name_fits) {
            problem("name", format!("{:?} is not a name", listener.name), "use letters, digits, `-` and `_`");
        }
        if !names.insert(listener.name.to_lowercase()) {
            problem("name", format!("{:?} is there twice", listener.name), "give each listener another name");
        }
        if address.port != 0 && !addresses.insert(address.to_string()) {
            problem("address", format!("{address} is there twice"), "give each listener another port");
        }
    }
    let Some(text) = &config.admin.address else { return };
    let at = layers.origin("admin.address");
    match HostPort::parse(text) {
        Err(what) => layers.problem(at, "admin.address", what, "right is host:port, or null for none"),
        Ok(address) if address.port != 0 && addresses.contains(&address.to_string()) => {
            layers.problem(at, "admin.address", format!("{address} is a listener's"), "choose another port");
        }
        Ok(_) => {}
    }
}

/// `small` must fit into `large`; both are paths and bytes.
fn fits(layers: &mut Layers, small: (&str, u64), large: (&str, u64)) {
    if small.1 <= large.1 {
        return;
    }
    // The line of the one that somebody gave, since the other one is a default that they may not know of.
    let at = if layers.origin(small.0) == Origin::Default { large.0 } else { small.0 };
    let text = |n: u64| size_text(i64::try_from(n).unwrap_or(i64::MAX));
    let what = format!("{} ({}) does not fit into {} ({})", small.0, text(small.1), large.0, text(large.1));
    layers.problem(layers.origin(at), at, what, "raise the second or lower the first");
}

fn budgets(config: &Config, layers: &mut Layers) {
    let bytes = |n: i32| u64::try_from(n).unwrap_or(0);
    let object = ("produce.object_bytes_max", config.produce.object_bytes_max);
    let requests = ("net.request_bytes_max", config.net.request_bytes_max);
    let message = ("kafka.message.max.bytes", bytes(config.kafka.message_max_bytes));
    let request = ("kafka.socket.request.max.bytes", bytes(config.kafka.socket_request_max_bytes));
    fits(layers, object, requests);
    fits(layers, object, ("fetch.cache_bytes_max", config.fetch.cache_bytes_max));
    fits(layers, message, request);
    fits(layers, message, ("fetch.answer_bytes_max", config.fetch.answer_bytes_max));
    fits(layers, request, requests);
    let cache = ("fetch.cache_bytes_max", config.fetch.cache_bytes_max);
    fits(layers, ("fetch.answer_bytes_max", config.fetch.answer_bytes_max), cache);
    fits(
        layers,
        ("fetch.response_bytes_max", config.fetch.response_bytes_max),
        ("fetch.answer_bytes_max", config.fetch.answer_bytes_max),
    );
}

fn stores(config: &Config, layers: &mut Layers) {
    const URLS: [&str; 4] = ["s3://", "gs://", "az://", "file://"];
    let url = config.bucket_url();
    let at = layers.origin("bucket.url");
    if url.contains("://") && !URLS.iter().any(|scheme| url.starts_with(scheme)) {
        let remedy = "right is a directory, or s3://…, gs://…, az://…, file:///…, memory:";
        layers.problem(at.clone(), "bucket.url", format!("{url:?} has an unknown scheme"), remedy);
    }
    let memory = url.starts_with("memory:");
    // A journal in the bucket is gone when the bucket is.
    if config.journal.kind != JournalKind::Bucket && (config.journal.kind == JournalKind::Memory) != memory {
        let (at, what) = match memory {
            true => {
                ("bucket.url", "the bucket is gone at the next start, and the journal would still name its objects")
            }
            false => {
                ("journal.kind", "the journal is gone at the next start, and the bucket's records could not be found")
            }
        };
        layers.problem(
            layers.origin(at),
            at,
            what,
            "keep both in memory (`journal.kind: memory`, `bucket.url: 'memory:'`), or neither",
        );
    }
    postgres(config, layers);
    let (min, max) = (config.journal.bucket_poll_ms_min, config.journal.bucket_poll_ms_max);
    if min > max {
        let given = "journal.bucket_poll_ms_min";
        let at = if layers.origin(given) == Origin::Default { "journal.bucket_poll_ms_max" } else { given };
        let what = format!("{given} ({min}) is above journal.bucket_poll_ms_max ({max})");
        layers.problem(layers.origin(at), at, what, "raise the second or lower the first");
    }
    let bucket = &config.bucket;
    if bucket.access_key_id.is_some() != bucket.secret_access_key.is_some() {
        let given = if bucket.access_key_id.is_some() { "bucket.access_key_id" } else { "bucket.secret_access_key" };
        let what = "is one half of a key";
        layers.problem(
            layers.origin(given),
            given,
            what,
            "give both `access_key_id` and `secret_access_key`, or neither",
        );
    }
    if bucket.endpoint.as_ref().is_some_and(|e| e.starts_with("http://")) && !bucket.allow_http {
        let at = layers.origin("bucket.endpoint");
        let remedy = "use https://, or set `bucket.allow_http: true`";
        layers.problem(at, "bucket.endpoint", "http:// sends records and signatures in the clear", remedy);
    }
}

fn postgres(config: &Config, layers: &mut Layers) {
    const RIGHT: &str = "right is postgres://user@host:5432/database, with several hosts if there are standbys";
    let journal = &config.journal;
    if journal.kind == JournalKind::Postgres {
        match &journal.postgres_url {
            None => layers.problem(layers.origin("journal.kind"), "journal.postgres_url", "is missing", RIGHT),
            Some(url) if !["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme)) => {
                let what = format!("{:?} is no address of a PostgreSQL server", url.shown());
                layers.problem(layers.origin("journal.postgres_url"), "journal.postgres_url", what, RIGHT);
            }
            Some(_) => {}
        }
    }
    // It stands in SQL, and in the name of a notification channel.
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let schema = &journal.postgres_schema;
    let name_fits = schema.starts_with(|c: char| c.is_ascii_lowercase() || c == '_') && schema.chars().all(plain);
    if !name_fits || schema.len() > 40 || schema.starts_with("pg_") {
        let at = layers.origin("journal.postgres_schema");
        let remedy = "use up to 40 lower-case letters, digits and `_`, no digit first, and not `pg_`";
        layers.problem(at, "journal.postgres_schema", format!("{schema:?} is no name of a schema"), remedy);
    }
}

/// Pairs of which the first must not be above the second.
fn orders(config: &Config, layers: &mut Layers) {
    let (kafka, limits, cluster) = (&config.kafka, &config.limits, &config.cluster);
    let ms = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let pairs: [(&str, i64, &str, i64); 13] = [
        (
            "cluster.heartbeat_interval_ms",
            ms(config.heartbeat_interval_ms().saturating_mul(3)),
            "cluster.fencing_timeout_ms",
            ms(config.fencing_timeout_ms()),
        ),
        (
            "cluster.journal_staleness_max_ms",
            ms(cluster.journal_staleness_max_ms.saturating_add(1)),
            "cluster.fencing_timeout_ms",
            ms(config.fencing_timeout_ms()),
        ),
        (
            "produce.puts_in_flight_local",
            count(config.produce.puts_in_flight_local),
            "produce.puts_in_flight_max",
            count(config.produce.puts_in_flight_max),
        ),
        (
            "limits.partitions_per_topic_max",
            count(limits.partitions_per_topic_max),
            "limits.partitions_max",
            count(limits.partitions_max),
        ),
        (
            "limits.producers_per_partition_max",
            count(limits.producers_per_partition_max),
            "limits.producers_max",
            count(limits.producers_max),
        ),
        (
            "kafka.num.partitions",
            kafka.num_partitions.into(),
            "limits.partitions_per_topic_max",
            count(limits.partitions_per_topic_max),
        ),
        (
            "kafka.log.cleaner.min.compaction.lag.ms",
            kafka.log_cleaner_min_compaction_lag_ms,
            "kafka.log.cleaner.max.compaction.lag.ms",
            kafka.log_cleaner_max_compaction_lag_ms,
        ),
        (
            "kafka.group.min.session.timeout.ms",
            kafka.group_min_session_timeout_ms.into(),
            "kafka.group.max.session.timeout.ms",
            kafka.group_max_session_timeout_ms.into(),
        ),
        (
            "kafka.group.consumer.min.session.timeout.ms",
            kafka.group_consumer_min_session_timeout_ms.into(),
            "kafka.group.consumer.session.timeout.ms",
            kafka.group_consumer_session_timeout_ms.into(),
        ),
        (
            "kafka.group.consumer.session.timeout.ms",
            kafka.group_consumer_session_timeout_ms.into(),
            "kafka.group.consumer.max.session.timeout.ms",
            kafka.group_consumer_max_session_timeout_ms.into(),
        ),
        (
            "kafka.group.consumer.min.heartbeat.interval.ms",
            kafka.group_consumer_min_heartbeat_interval_ms.into(),
            "kafka.group.consumer.heartbeat.interval.ms",
            kafka.group_consumer_heartbeat_interval_ms.into(),
        ),
        (
            "kafka.group.consumer.heartbeat.interval.ms",
            kafka.group_consumer_heartbeat_interval_ms.into(),
            "kafka.group.consumer.max.heartbeat.interval.ms",
            kafka.group_consumer_max_heartbeat_interval_ms.into(),
        ),
        (
            "kafka.group.consumer.heartbeat.interval.ms",
            kafka.group_consumer_heartbeat_interval_ms.into(),
            "kafka.group.consumer.session.timeout.ms",
            kafka.group_consumer_session_timeout_ms.into(),
        ),
    ];
    for (low, n, high, m) in pairs {
        if n > m {
            let at = if layers.origin(low) == Origin::Default { high } else { low };
            layers.problem(
                layers.origin(at),
                at,
                format!("{low} ({n}) is above {high} ({m})"),
                "raise the second or lower the first",
            );
        }
    }
}
