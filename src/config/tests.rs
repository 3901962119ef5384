use super::*;
use std::collections::BTreeMap;

fn refused(yaml: &str) -> Vec<String> {
    Config::from_yaml(yaml).unwrap_err().0.iter().map(ToString::to_string).collect()
}

fn with_environment(yaml: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut layers = given::Layers::default();
    layers.add_file(Path::new("strandline.yaml"), yaml);
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Config::from_layers(layers, variables, &Flags::default())
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(Config::from_yaml("").unwrap(), Config::default());
    assert_eq!(Config::from_yaml("# nothing\nproduce:\n").unwrap(), Config::default());
}

#[test]
fn the_documented_file_is_the_default() {
    let text = document::default_file();
    let mut config = Config::from_yaml(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    config.given.clear();
    assert_eq!(config, Config::default());
    for setting in settings() {
        let key = format!("{}:", setting.key);
        assert!(text.lines().any(|l| l.trim_start_matches([' ', '#']).starts_with(&key)), "{key} is missing");
        assert!(text.contains(&setting.variable()));
    }
}

#[test]
fn every_setting_is_documented_and_its_default_is_in_range() {
    for (setting, value) in Config::default().shown() {
        assert!(setting.doc.trim().ends_with('.'), "{}: {:?}", setting.path(), setting.doc);
        assert_eq!(value.is_none(), value.is_none() && !setting.unset.is_empty(), "{}", setting.path());
        let name = setting.section != "kafka";
        assert!(
            !name || setting.key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'),
            "{}",
            setting.path()
        );
        if let Some(value) = value.filter(|_| setting.min.is_some() || setting.max.is_some()) {
            setting.parse::<f64>(&value).unwrap_or_else(|e| panic!("{}: {e}", setting.path()));
        }
    }
}

#[test]
fn environment_names_are_injective() {
    let mut seen = BTreeMap::new();
    for (section, key) in given::keys() {
        let name = given::variable(section, key);
        assert!(!name.contains("LISTENERS__"), "{name} is a listener's");
        if let Some(other) = seen.insert(name.clone(), (section, key)) {
            panic!("{name} is {other:?} and {:?}", (section, key));
        }
    }
    for (name, (section, key)) in &seen {
        assert_eq!(&given::variable(section, key), name);
    }
}

#[test]
fn values_are_read_from_file_environment_and_flags() {
    let yaml = "kafka:\n  num.partitions: 3\n  log.cleanup.policy: [compact, delete]\n  log.retention.ms: null\n\
                produce: {object_bytes_max: 4 MiB, flush_interval_ms: 100}\nbroker_id: 7\n";
    let config = Config::from_yaml(yaml).unwrap();
    assert_eq!((config.kafka.num_partitions, config.broker_id), (3, 7));
    assert_eq!((config.produce.object_bytes_max, config.flush_interval_ms()), (4 << 20, 100));
    assert_eq!(config.kafka.log_cleanup_policy, vec![value::Cleanup::Compact, value::Cleanup::Delete]);
    assert!(config.is_given("kafka.num.partitions") && !config.is_given("kafka.message.max.bytes"));

    let variables = [
        ("STRANDLINE_KAFKA__NUM_PARTITIONS", "4"),
        ("STRANDLINE_PRODUCE__FLUSH_INTERVAL_MS", ""),
        ("STRANDLINE_ADMIN__ADDRESS", ""),
        ("STRANDLINE_DATA_DIR", "/x"),
        ("STRANDLINE_LISTENERS__0__ADDRESS", "127.0.0.1:1"),
        ("STRANDLINE_LISTENERS__1__ADDRESS", "localhost:2"),
        ("STRANDLINE_SERVICE_HOST", "10.0.0.1"),
        ("STRANDLINE_PORT_9092_TCP_ADDR", "10.0.0.1"),
        ("STRANDLINE_PORT", "tcp://10.0.0.1:9092"),
        ("STRANDLINE_HEADLESS_SERVICE_PORT_KAFKA", "9092"),
        ("OTHER", "1"),
    ];
    let config = with_environment(yaml, &variables).unwrap();
    assert_eq!((config.kafka.num_partitions, config.flush_interval_ms()), (4, 0));
    assert_eq!((config.admin.address.as_deref(), config.data_dir.as_path()), (None, Path::new("/x")));
    assert_eq!((config.listeners.len(), config.listeners[1].address.port), (2, 2));
    assert_eq!(config.listeners[1].name, "plain1");

    let flags = Flags { data: Some("/y".to_owned()), listen: Some("127.0.0.1:0".to_owned()) };
    let variables = [("STRANDLINE_DATA_DIR".to_owned(), "/x".to_owned())];
    let config = Config::load(None, variables, &flags).unwrap();
    assert_eq!(
        (config.bucket_url().as_str(), config.journal_path().as_path()),
        ("/y/bucket", Path::new("/y/journal.db"))
    );
    assert_eq!((config.listeners.len(), config.listeners[0].address.port), (1, 0));
    assert_eq!(config.listeners[0].advertised_at(77).to_string(), "127.0.0.1:77");
}

/// What is written, and what is said of it.
const REFUSED: &[(&str, &str)] = &[
    (
        "produce:\n  object_byte_max: 1\n",
        "strandline.yaml:2: produce.object_byte_max: there is no such key; did you mean `object_bytes_max`?",
    ),
    ("prodcue:\n  x: 1\n", "strandline.yaml:1: prodcue: there is no such key; did you mean `produce`?"),
    ("object_bytes_max: 1\n", "strandline.yaml:1: object_bytes_max: there is no such key; it stands under `produce:`"),
    ("num.partitions: 1\n", "strandline.yaml:1: num.partitions: there is no such key; it stands under `kafka:`"),
    (
        "kafka:\n  num_partitions: 1\n",
        "strandline.yaml:2: kafka.num_partitions: there is no such key; did you mean `num.partitions`?",
    ),
    (
        "kafka:\n  colour: 1\n",
        "strandline.yaml:2: kafka.colour: there is no such key; `strandline config default` lists the keys",
    ),
    ("kafka:\n  node.id: 1\n", "strandline.yaml:2: kafka.node.id: is refused; write our `broker_id`"),
    (
        "kafka:\n  ssl.key.password: 1\n",
        "strandline.yaml:2: kafka.ssl.key.password: is refused; there is no encryption yet; leave it out and keep the listeners private",
    ),
    ("kafka:\n  num.partitions: 0\n", "strandline.yaml:2: kafka.num.partitions: 0 is out of range; right is 1 or more"),
    (
        "kafka:\n  num.partitions: x\n",
        "strandline.yaml:2: kafka.num.partitions: \"x\" is not a whole number from -2147483648 to 2147483647; right is 1 or more",
    ),
    ("kafka:\n  num.partitions:\n", "strandline.yaml:2: kafka.num.partitions: has no value; right is 1 or more"),
    (
        "kafka:\n  num.partitions: {a: 1}\n",
        "strandline.yaml:2: kafka.num.partitions: is not a single value; write one value, or a list of texts",
    ),
    (
        "kafka:\n  compression.type: rar\n",
        "strandline.yaml:2: kafka.compression.type: \"rar\" is not one of producer, uncompressed, gzip, snappy, lz4, zstd; right is one of producer, uncompressed, gzip, snappy, lz4, zstd",
    ),
    (
        "kafka:\n  compression.gzip.level: 0\n",
        "strandline.yaml:2: kafka.compression.gzip.level: 0 is out of range; right is 1 to 9, or -1",
    ),
    (
        "produce:\n  object_bytes_max: 1 KiB\n",
        "strandline.yaml:2: produce.object_bytes_max: 1 KiB is out of range; right is 64 KiB to 256 MiB",
    ),
    (
        "bucket:\n  region: 1\n",
        "strandline.yaml:2: bucket.region: is a number or a boolean to YAML, and a text is due; put it in quotes",
    ),
    ("insecure: maybe\n", "strandline.yaml:1: insecure: \"maybe\" is not true or false; right is true or false"),
    ("kafka: 3\n", "strandline.yaml:1: kafka: is a section; write its keys below it, indented"),
    ("- 3\n", "strandline.yaml:1: the file is not a mapping; write `key: value` lines"),
    (
        "listeners:\n  - adress: 1\n",
        "strandline.yaml:2: listeners.0.adress: there is no such key; write items of `name`, `address` and, if clients connect to another one, `advertised`; `zone` if all its clients are in one",
    ),
    ("listeners: []\n", "strandline.yaml:1: listeners: is empty; leave it out for the default, or write an item"),
    (
        "listeners:\n  - address: 192.168.1.1:9092\n",
        "strandline.yaml:2: listeners.0.address: 192.168.1.1:9092 can be reached by other machines, and there is no authentication yet; listen on 127.0.0.1, or set `insecure: true` if everybody who can reach it may do everything",
    ),
    (
        "insecure: true\nlisteners:\n  - name: a\n    address: 0.0.0.0:9092\n",
        "strandline.yaml:4: listeners.0.advertised: clients can't connect to 0.0.0.0:9092; add `advertised: HOST:PORT` with the address that clients are to use",
    ),
    (
        "listeners:\n  - {name: a, address: 'localhost:1'}\n  - {name: A, address: 'localhost:2'}\n",
        "strandline.yaml:3: listeners.1.name: \"A\" is there twice; give each listener another name",
    ),
    (
        "listeners:\n  - {name: a, address: 'localhost:1'}\n  - {name: b, address: 'localhost:1'}\n",
        "strandline.yaml:3: listeners.1.address: localhost:1 is there twice; give each listener another port",
    ),
    (
        "admin:\n  address: 127.0.0.1:9092\n",
        "strandline.yaml:2: admin.address: 127.0.0.1:9092 is a listener's; choose another port",
    ),
    (
        "produce:\n  object_bytes_max: 200 MiB\nfetch:\n  cache_bytes_max: 200 MiB\n",
        "strandline.yaml:2: produce.object_bytes_max: produce.object_bytes_max (200 MiB) does not fit into net.request_bytes_max (128 MiB); raise the second or lower the first",
    ),
    (
        "net:\n  request_bytes_max: 50 MiB\n",
        "strandline.yaml:2: net.request_bytes_max: kafka.socket.request.max.bytes (100 MiB) does not fit into net.request_bytes_max (50 MiB); raise the second or lower the first",
    ),
    (
        "bucket:\n  url: ftp://x\n",
        "strandline.yaml:2: bucket.url: \"ftp://x\" has an unknown scheme; right is a directory, or s3://…, gs://…, az://…, file:///…, memory:",
    ),
    (
        "journal:\n  kind: memory\n",
        "strandline.yaml:2: journal.kind: the journal is gone at the next start, and the bucket's records could not be found; keep both in memory (`journal.kind: memory`, `bucket.url: 'memory:'`), or neither",
    ),
    (
        "journal:\n  kind: postgres\n",
        "strandline.yaml:2: journal.postgres_url: is missing; right is postgres://user@host:5432/database, with several hosts if there are standbys",
    ),
    (
        "journal:\n  kind: postgres\n  postgres_url: mysql://u:secret@h/d?password=x\n",
        "strandline.yaml:3: journal.postgres_url: \"mysql://u:(hidden)@h/d?password=(hidden)\" is no address of a PostgreSQL server; right is postgres://user@host:5432/database, with several hosts if there are standbys",
    ),
    (
        "journal:\n  postgres_schema: Mine\n",
        "strandline.yaml:2: journal.postgres_schema: \"Mine\" is no name of a schema; use up to 40 lower-case letters, digits and `_`, no digit first, and not `pg_`",
    ),
    (
        "journal:\n  bucket_poll_ms_max: 20\n",
        "strandline.yaml:2: journal.bucket_poll_ms_max: journal.bucket_poll_ms_min (50) is above journal.bucket_poll_ms_max (20); raise the second or lower the first",
    ),
    (
        "bucket:\n  access_key_id: 'a'\n",
        "strandline.yaml:2: bucket.access_key_id: is one half of a key; give both `access_key_id` and `secret_access_key`, or neither",
    ),
    (
        "bucket:\n  endpoint: http://x\n",
        "strandline.yaml:2: bucket.endpoint: http:// sends records and signatures in the clear; use https://, or set `bucket.allow_http: true`",
    ),
    (
        "kafka:\n  group.min.session.timeout.ms: 2000000\n",
        "strandline.yaml:2: kafka.group.min.session.timeout.ms: kafka.group.min.session.timeout.ms (2000000) is above kafka.group.max.session.timeout.ms (1800000); raise the second or lower the first",
    ),
];

#[test]
fn what_is_wrong_is_named_with_its_line_and_what_would_be_right() {
    for (yaml, said) in REFUSED {
        let problems = refused(yaml);
        assert_eq!(problems.first().map(String::as_str), Some(*said), "{yaml}{problems:#?}");
    }
    let all = refused("a: 1\nkafka:\n  num.partitions: 0\n  x.y: 1\nbroker_id: -1\n");
    assert_eq!(all.len(), 4, "everything is said at once: {all:#?}");
}

#[test]
fn unknown_variables_are_refused_by_name() {
    let said = |name| with_environment("", &[(name, "1")]).unwrap_err().0[0].to_string();
    let expected = "environment variable STRANDLINE_KAFKA__NUM_PARTITION: there is no such setting; \
                    did you mean STRANDLINE_KAFKA__NUM_PARTITIONS?";
    assert_eq!(said("STRANDLINE_KAFKA__NUM_PARTITION"), expected);
    assert!(said("STRANDLINE_KAFKA_NUM_PARTITIONS").contains("did you mean STRANDLINE_KAFKA__NUM_PARTITIONS?"));
    for name in ["STRANDLINE_X", "STRANDLINE_PORT_X", "STRANDLINE_NET__PORT", "STRANDLINE_PRODUCE__PORT_9"] {
        assert!(said(name).contains("there is no such setting"), "{name}");
    }
    assert!(said("STRANDLINE_LISTENERS__2__NAME").contains("the listener before it is missing"));
    assert!(said("STRANDLINE_LISTENERS__00__NAME").contains("there is no such setting"));
    let bad = with_environment("", &[("STRANDLINE_KAFKA__NUM_PARTITIONS", "0")]).unwrap_err().0[0].to_string();
    let expected = "environment variable STRANDLINE_KAFKA__NUM_PARTITIONS: kafka.num.partitions: 0 is out of range; right is 1 or more";
    assert_eq!(bad, expected);
}

#[test]
fn secrets_are_not_printed() {
    let yaml = "bucket: {access_key_id: 'AKIA', secret_access_key: 'hush', session_token: 'hush', azure_key: 'hush'}\n";
    let config = Config::from_yaml(yaml).unwrap();
    assert!(!format!("{config:?}").contains("hush"));
    assert!(config.shown().iter().all(|(_, value)| value.as_deref() != Some("hush")));
    assert_eq!(config.bucket.secret_access_key.unwrap().expose(), "hush");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let said = Config::load(Some(Path::new("/no/such.yaml")), [], &Flags::default()).unwrap_err().to_string();
    assert!(said.starts_with("strandline: /no/such.yaml: can't be read: "), "{said}");
}

#[test]
fn the_configuration_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = document::markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "docs/configuration.md is not what the code says: run UPDATE_DOCS=1 cargo test --lib config::"
    );
}
