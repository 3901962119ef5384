//! Requests that are refused, and what a client may make a group hold.
use super::*;

#[test]
fn a_heartbeat_is_checked_first() {
    let mut bench = Bench::new();
    bench.topic("t", 1);
    let mut empty_rack = join("a", &["t"]);
    empty_rack.0.rack = Some(String::new());
    let cases = [
        (beat("", 1), "MemberId can't be empty."),
        (beat("", -1), "MemberId can't be empty."),
        (join("a", &["t"]).instance(""), "InstanceId can't be empty."),
        (empty_rack, "RackId can't be empty."),
        (join("a", &["t"]).timeout(-1), "RebalanceTimeoutMs must be provided in first request."),
        (beat("a", 0).topics(&["t"]).timeout(1), "TopicPartitions must be empty when (re-)joining."),
        (join("a", &["t"]).owned(&[(TopicId::default(), &[1])]), "TopicPartitions must be empty when (re-)joining."),
        (
            join("a", &[]).no_topics(),
            "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
        ),
        (beat("a", -2), "InstanceId can't be null."),
        (beat("a", -3), "MemberEpoch is invalid."),
        (join(&"a".repeat(101), &["t"]), "MemberId is longer than 100 bytes (limits.group_id_bytes_max)."),
    ];
    for (beat, message) in cases {
        assert_eq!(bench.error(beat), (KafkaError::InvalidRequest, message.to_owned()));
    }
    let message = "ServerAssignor x is not supported. Supported assignors: uniform, range.";
    assert_eq!(bench.error(join("a", &["t"]).assignor("x")), (KafkaError::UnsupportedAssignor, message.into()));
    let names: Vec<String> = (0..3000).map(|i| format!("{i:0>200}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(bench.error(join("a", &names)).0, KafkaError::InvalidRequest);
    assert_eq!(bench.taken_changes(), 0);
}

#[test]
fn a_group_that_is_not_there_is_not_found() {
    let mut bench = Bench::new();
    for (epoch, message) in [(1, "Consumer group g not found."), (-1, "Group g not found.")] {
        assert_eq!(bench.error(beat("a", epoch)), (KafkaError::GroupIdNotFound, message.into()));
    }
}

#[test]
fn a_full_group_takes_nobody_in() {
    let mut bench = Bench::with(|kafka| kafka.group_consumer_max_size = 2);
    bench.topic("t", 4);
    bench.ok(join("a", &["t"]));
    bench.ok(join("b", &["t"]));
    let text = "The consumer group has reached its maximum capacity of 2 members.";
    assert_eq!(bench.error(join("c", &["t"])), (KafkaError::GroupMaxSizeReached, text.into()));
    bench.ok(join("a", &["t"]));
}

#[test]
fn expressions_of_a_group_are_limited() {
    let mut bench = Bench::new();
    for i in 0..64 {
        bench.ok(join(&format!("m{i}"), &[]).regex(&format!("t{i}")));
    }
    assert_eq!(bench.error(join("x", &[]).regex("u")).0, KafkaError::InvalidRegularExpression);
    bench.ok(join("x", &[]).regex("t5"));
}

#[test]
fn a_large_assignment_goes_in_several_changes() {
    let mut bench = Bench::with(|kafka| kafka.group_consumer_assignment_interval_ms = 1_000);
    let names: Vec<String> = (0..20).map(|i| format!("t{i}")).collect();
    names.iter().for_each(|name| assert_ne!(bench.topic(name, 50_000), TopicId::default()));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for i in 0..10 {
        bench.ok(join(&format!("m{i}"), &names));
    }
    let assigned =
        |bench: &Bench| bench.group().targets.values().flat_map(|t| t.values()).map(BTreeSet::len).sum::<usize>();
    // One member can't take everything.
    assert_eq!(assigned(&bench), 100_000);
    bench.pass_ms(1_000);
    bench.taken_changes();
    // No change is larger than the bench allows. Until the last one it is to be computed again.
    bench.ok(beat("m0", 2));
    assert_eq!(assigned(&bench), 1_000_000);
    let epochs: Vec<Option<(i32, i32)>> =
        bench.changes.iter().map(|c| c.header.as_ref().map(|h| (h.epoch, h.assignment_epoch))).collect();
    assert_eq!(epochs, [Some((11, 10)), Some((11, 11))]);
    bench.crash();
    assert_eq!(assigned(&bench), 1_000_000);
}
