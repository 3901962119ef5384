use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::{BrokerId, MetadataResponse, ShareFetchResponse};
use kafka_protocol::protocol::StrBytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

/// What one partition of a response holds; None is null.
type Rope = Option<Vec<Bytes>>;

/// A Fetch response over these ropes, each turned into `records` by `add`.
fn fetch_response(version: i16, ropes: &[Rope], mut add: impl FnMut(Vec<Bytes>) -> Bytes) -> FetchResponse {
    let mut topics = Vec::new();
    for (t, topic) in ropes.chunks(3).enumerate() {
        let mut partitions = Vec::new();
        for (p, rope) in topic.iter().enumerate() {
            let mut data = PartitionData::default()
                .with_partition_index(p as i32)
                .with_high_watermark(1 << 40)
                .with_aborted_transactions(
                    (p == 1).then(|| vec![AbortedTransaction::default().with_first_offset(7); 2]),
                )
                .with_records(rope.clone().map(&mut add));
            if version >= 12 && p == 2 {
                data.current_leader = LeaderIdAndEpoch::default().with_leader_id(BrokerId(5)).with_leader_epoch(9);
            }
            partitions.push(data);
        }
        let mut response = FetchableTopicResponse::default().with_partitions(partitions);
        match version {
            ..=12 => response.topic = StrBytes::from_string(format!("topic-{t}")).into(),
            _ => response.topic_id = Uuid::from_u128(t as u128 + 1),
        }
        topics.push(response);
    }
    let mut response = FetchResponse::default().with_responses(topics);
    if version >= 16 {
        response.node_endpoints = vec![NodeEndpoint::default().with_host(StrBytes::from_static_str("host"))];
    }
    response
}

/// What the crate alone makes of it.
fn plain<M: Encodable + HeaderVersion>(version: i16, message: &M) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    ResponseHeader::default().with_correlation_id(77).encode(&mut bytes, M::header_version(version)).unwrap();
    message.encode(&mut bytes, version).unwrap();
    let size = (bytes.len() - 4) as i32;
    bytes[..4].copy_from_slice(&size.to_be_bytes());
    bytes
}

fn spliced(version: i16, ropes: &[Rope]) -> Frame {
    let mut splices = Splices::default();
    let response = fetch_response(version, ropes, |rope| splices.add(rope));
    encode_response(ApiKey::Fetch, version, 77, &response, splices).unwrap()
}

/// A frame without files, as one.
fn joined(frame: Frame) -> Vec<u8> {
    frame.iter().flat_map(|piece| piece.in_memory().unwrap()).copied().collect()
}

fn rope(lengths: &[usize]) -> Rope {
    Some(lengths.iter().enumerate().map(|(at, &length)| Bytes::from(vec![at as u8 + 1; length])).collect())
}

const VERSIONS: std::ops::RangeInclusive<i16> = 4..=18;

#[test]
fn a_spliced_fetch_response_is_what_the_crate_would_write() {
    let mut ropes = vec![None, Some(vec![]), rope(&[0]), rope(&[1]), rope(&[4095]), rope(&[4096]), rope(&[61, 4000])];
    ropes.extend((0..100).map(|n| rope(&[61, 150 * n, 61, 70_000, 3])));
    ropes.push(rope(&[5_000_000]));
    for version in VERSIONS {
        let whole = plain(version, &fetch_response(version, &ropes, |rope| rope.concat().into()));
        assert_eq!(joined(spliced(version, &ropes)), whole, "version {version}");
    }
}

#[test]
fn large_chunks_are_not_copied() {
    let chunk = Bytes::from(vec![7; 4096]);
    let frame = spliced(17, &[Some(vec![Bytes::from_static(&[1; 61]), chunk.clone()])]);
    assert_eq!(frame.len(), 3);
    assert_eq!(frame[1].in_memory().unwrap().as_ptr(), chunk.as_ptr());
}

#[test]
fn a_placeholder_that_is_lost_is_an_error() {
    let mut splices = Splices::default();
    let _ = splices.add(vec![Bytes::from(vec![0; 4096])]);
    let error = encode_response(ApiKey::Fetch, 17, 1, &FetchResponse::default(), splices).unwrap_err();
    assert!(matches!(error, EncodeError::Splices { added: 1, used: 0 }));
}

#[test]
fn a_placeholder_used_twice_is_an_error() {
    let mut splices = Splices::default();
    let records = splices.add(vec![Bytes::from(vec![0; 4096])]);
    let response = fetch_response(17, &[Some(vec![]), Some(vec![])], |_| records.clone());
    let error = encode_response(ApiKey::Fetch, 17, 1, &response, splices).unwrap_err();
    assert!(matches!(error, EncodeError::Splices { added: 1, used: 1 }));
}

#[test]
fn share_fetch_is_spliced_as_well() {
    use kafka_protocol::messages::share_fetch_response::{PartitionData, ShareFetchableTopicResponse};
    let of = |records| {
        let partition = PartitionData::default().with_records(Some(records));
        let topic = ShareFetchableTopicResponse::default().with_partitions(vec![partition]);
        ShareFetchResponse::default().with_responses(vec![topic])
    };
    let (chunk, mut splices) = (Bytes::from(vec![7; 4096]), Splices::default());
    let response = of(splices.add(vec![chunk.clone()]));
    let frame = encode_response(ApiKey::ShareFetch, 1, 77, &response, splices).unwrap();
    assert_eq!(joined(frame), plain(1, &of(chunk)));
}

#[test]
fn other_responses_are_one_buffer() {
    for version in 0..=13 {
        let response = MetadataResponse::default();
        let frame = encode_response(ApiKey::Metadata, version, 77, &response, Splices::default()).unwrap();
        assert_eq!(frame.len(), 1);
        assert_eq!(joined(frame), plain(version, &response));
    }
}

proptest! {
    #[test]
    fn splicing_any_ropes_gives_the_crates_bytes(
        version in VERSIONS,
        ropes in prop::collection::vec(
            prop::option::of(prop::collection::vec(prop_oneof![0..5000_usize, Just(130_000)], 0..6)),
            0..20,
        ),
    ) {
        let ropes: Vec<Rope> = ropes.iter().map(|lengths| lengths.as_deref().and_then(rope)).collect();
        let whole = plain(version, &fetch_response(version, &ropes, |rope| rope.concat().into()));
        prop_assert_eq!(joined(spliced(version, &ropes)), whole);
    }
}

/// `cargo test --release --lib protocol::response -- --ignored --nocapture`
#[test]
#[ignore = "prints times"]
fn time_of_splicing() {
    for (partitions, lengths) in [(1, [61, 65536]), (10, [61, 1 << 20]), (100, [61, 65536]), (1000, [61, 4096])] {
        let ropes = vec![rope(&lengths); partitions];
        let rounds = 20_000 / partitions as u32;
        let (mut copying, mut splicing) = (std::time::Duration::ZERO, std::time::Duration::ZERO);
        for _ in 0..rounds {
            let whole = fetch_response(17, &ropes, |rope| rope[1].clone());
            copying +=
                timed(|| drop(std::hint::black_box(encode_response(ApiKey::Fetch, 17, 1, &whole, Splices::default()))));
            let mut splices = Splices::default();
            let parts = fetch_response(17, &ropes, |rope| splices.add(rope));
            splicing += timed(|| drop(std::hint::black_box(encode_response(ApiKey::Fetch, 17, 1, &parts, splices))));
        }
        println!("{partitions} x {}: copy {:?}, splice {:?}", lengths[1], copying / rounds, splicing / rounds);
    }
}

#[allow(clippy::disallowed_methods)]
fn timed(what: impl FnOnce()) -> std::time::Duration {
    let start = std::time::Instant::now();
    what();
    start.elapsed()
}
