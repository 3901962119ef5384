//! Frames that made the message crate abort or panic, or take a multiple of their size, each by its name.
use super::*;
use crate::protocol::{FrameError, decode};
use kafka_protocol::messages::*;

const HUGE: &[u8] = &[0x7f, 0xff, 0xff, 0xff];
const HUGE_COMPACT: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0x0f];

fn body(parts: &[&[u8]]) -> Bytes {
    parts.concat().into()
}

fn refused<M: kafka_protocol::protocol::Request + std::fmt::Debug>(version: i16, parts: &[&[u8]]) -> FrameError {
    decode::<M>(version, body(parts)).unwrap_err()
}

#[test]
fn metadata_with_two_billion_topics_in_four_bytes() {
    assert!(matches!(refused::<MetadataRequest>(1, &[HUGE]), FrameError::Malformed(_)));
}

#[test]
fn metadata_with_four_billion_topics_compactly() {
    assert!(matches!(refused::<MetadataRequest>(12, &[HUGE_COMPACT, &[0; 64]]), FrameError::Malformed(_)));
}

#[test]
fn produce_with_four_billion_topics() {
    let head: &[u8] = &[0, 0, 1, 0, 0, 0, 1];
    assert!(matches!(refused::<ProduceRequest>(9, &[head, HUGE_COMPACT, &[0; 64]]), FrameError::Malformed(_)));
}

#[test]
fn produce_with_records_longer_than_the_frame() {
    let head: &[u8] = &[0, 0, 1, 0, 0, 0, 1, 2, 2, b't', 2, 0, 0, 0, 0];
    assert!(matches!(refused::<ProduceRequest>(9, &[head, HUGE_COMPACT, &[0; 64]]), FrameError::Malformed(_)));
}

#[test]
fn fetch_of_a_quarter_billion_partitions() {
    let head: &[u8] = &[0xff; 4 + 4 + 4 + 4 + 1 + 4 + 4];
    let topic: &[u8] = &[2, 2, b't', 0x80, 0x80, 0x80, 0x80, 0x01];
    assert!(matches!(refused::<FetchRequest>(12, &[head, topic, &[0; 64]]), FrameError::Malformed(_)));
}

#[test]
fn four_billion_tagged_fields() {
    assert!(matches!(refused::<MetadataRequest>(12, &[&[0, 1, 0], HUGE_COMPACT]), FrameError::Malformed(_)));
    let header = [&[0, 3, 0, 12, 0, 0, 0, 7, 0xff, 0xff], HUGE_COMPACT].concat();
    assert!(matches!(parse_header(&header.into()), Err(FrameError::Malformed(_))));
}

#[test]
fn a_tagged_field_longer_than_the_frame() {
    assert!(matches!(refused::<MetadataRequest>(12, &[&[0, 1, 0, 1, 9], HUGE_COMPACT]), FrameError::Malformed(_)));
}

#[test]
fn a_string_that_is_null_where_it_may_not_be() {
    assert!(matches!(refused::<MetadataRequest>(1, &[&[0, 0, 0, 1, 0xff, 0xff]]), FrameError::Malformed(_)));
}

#[test]
fn a_string_that_is_not_utf8() {
    assert!(matches!(refused::<MetadataRequest>(1, &[&[0, 0, 0, 1, 0, 1, 0xff]]), FrameError::Malformed(_)));
}

#[test]
fn every_api_and_version_with_poison_instead_of_a_body() {
    for (api, version) in all() {
        for poison in POISON {
            for bytes in [poison.to_vec(), poison.repeat(20), [poison, &[0; 100]].concat()] {
                let verdict = request(api, version, &bytes);
                assert_eq!(verdict.is_ok(), decode_encode(api.key, version, bytes.into()).is_ok());
            }
        }
    }
}

/// Bodies of 10 to 100 MiB that consist of what is smallest on the wire and largest in memory.
fn amplifiers() -> Vec<(&'static str, i16, i16, Vec<u8>)> {
    const MANY: usize = 10 << 20;
    let compact = [0x80, 0x80, 0x80, 0x05]; // MANY, which stands for one element less
    let topics = |element: &[u8]| element.repeat(MANY - 1);
    let mut all = vec![
        ("topics of Produce", 0, 9, [&[0, 0, 1, 0, 0, 0, 1], &compact[..], &topics(&[1, 1, 0]), &[0]].concat()),
        ("topics of Metadata", 3, 9, [&compact[..], &topics(&[1, 0]), &[0, 0, 0, 0]].concat()),
        ("names of FindCoordinator", 10, 4, [&[0], &compact[..], &topics(&[1]), &[0]].concat()),
        ("topics of CreateTopics", 19, 5, [&compact[..], &topics(&[1, 0, 0, 0, 0, 0, 0, 1, 1, 0])].concat()),
    ];
    // A topic with two unknown tagged fields of no bytes, the other way into a map of half a kilobyte.
    let tagged: Vec<u8> = [1, 2, 100, 0, 101, 0].repeat(1 << 20);
    all.push(("tagged fields of Metadata", 3, 9, [&[0x81, 0x80, 0x40], &tagged[..], &[0, 0, 0, 0]].concat()));
    all
}

#[test]
fn small_elements_do_not_become_gigabytes() {
    for (name, key, version, body) in amplifiers() {
        assert_eq!(request(api(key).unwrap(), version, &body), Err(Flaw::TooLarge), "{name}");
    }
}

#[test]
fn who_has_not_said_who_he_is_gets_little_memory() {
    // ApiVersions 3 with a thousand unknown tagged fields of no bytes: 100 KB of maps for 3 KB.
    let tags: Vec<u8> = (0..1000_u32).flat_map(|tag| [0x80 | (tag & 0x7f) as u8, (tag >> 7) as u8, 0]).collect();
    let body = [&[2, b'a', 2, b'1', 0xe8, 0x07], &tags[..]].concat();
    assert_eq!(request(api(18).unwrap(), 3, &body), Err(Flaw::TooLarge));
    let few = [&[2, b'a', 2, b'1', 10], &tags[..30]].concat();
    assert!(request(api(18).unwrap(), 3, &few).is_ok());
}

#[test]
fn a_small_message_stays_small() {
    // 2,000 topics of Metadata without a name: 2 KB that would take 144 KB.
    let body = [&[0xd1, 0x0f], &[1, 0].repeat(2000)[..], &[0, 0, 0, 0]].concat();
    assert_eq!(request(api(3).unwrap(), 9, &body), Err(Flaw::TooLarge));
}

#[test]
fn what_clients_ask_for_in_earnest_is_within_the_limits() {
    // 100,000 topics with short names; 200,000 partitions of one topic.
    let names = [&[0, 1, 0x86, 0xa0], &b"\0\x04name".repeat(100_000)[..]].concat();
    assert!(decode::<MetadataRequest>(0, names.into()).is_ok());
    let head: &[u8] = &[0xff; 4 + 4 + 4 + 4 + 1];
    let partitions = [0; 16].repeat(200_000);
    let fetch = [head, &[0, 0, 0, 1, 0, 1, b't', 0, 3, 0x0d, 0x40], &partitions].concat();
    assert!(decode::<FetchRequest>(4, fetch.into()).is_ok());
}

/// The same frames and the poison again, in a process that may have 700 MiB of address space: the frames are of up to
/// 100 MiB and exist twice, so an allocation by a number on the wire would end it.
#[test]
#[cfg(target_os = "linux")]
fn hostile_frames_need_no_memory() {
    let child = std::process::Command::new("sh")
        .args(["-c", "ulimit -v 700000 && exec \"$0\" --test-threads 1 --exact \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(
            ["small_elements_do_not_become_gigabytes", "every_api_and_version_with_poison_instead_of_a_body"]
                .map(|name| format!("{}::{name}", module_path!().split_once("::").unwrap().1)),
        )
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && output.contains("2 passed"), "{output}");
}
