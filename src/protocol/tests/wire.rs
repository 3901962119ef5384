//! `tests/wire/exchanges/`: what clients said to Apache Kafka 4.3.1 and what it answered, recorded by
//! `tests/wire/record.py`. Each request is accepted and is the same bytes when it is encoded again, each response too.
use std::path::Path;

use bytes::Bytes;

use super::messages;
use crate::protocol::{FrameError, parse_header, unsupported_api_versions};

struct Exchange {
    client: String,
    key: i16,
    version: i16,
    request: Bytes,
    /// None where the client wanted no answer.
    response: Option<Bytes>,
}

fn exchanges() -> Vec<Exchange> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/exchanges");
    let mut all = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap().path();
        let client = file.file_stem().unwrap().to_string_lossy().into_owned();
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let [key, version, request, response] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let (key, version) = (key.parse().unwrap(), version.parse().unwrap());
            let response = (response != "-").then(|| unhex(response));
            all.push(Exchange { client: client.clone(), key, version, request: unhex(request), response });
        }
    }
    all
}

fn unhex(text: &str) -> Bytes {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn requests_of_real_clients_are_accepted_and_encoded_as_they_came() {
    let mut seen = 0;
    for exchange in exchanges().iter() {
        let Exchange { client, key, version, request, .. } = exchange;
        if (*key, *version) == (18, 5) || *version == 99 {
            assert!(matches!(parse_header(request), Err(FrameError::Unsupported { .. })));
            continue;
        }
        let (header, body) = parse_header(request).unwrap();
        assert_eq!((header.api_key as i16, header.version), (*key, *version));
        let again = messages::decode_encode(*key, *version, body.clone()).unwrap();
        // librdkafka 2.16 sends three bytes too many in Metadata 13, which Kafka ignores.
        let excess: &[u8] = if again.len() < body.len() && *key == 3 { &[1, 0, 0] } else { &[] };
        assert_eq!([&again, excess].concat(), body, "{client}: {key} version {version}");
        seen += 1;
    }
    assert!(seen > 100);
}

#[test]
fn responses_of_kafka_are_encoded_as_they_came() {
    for exchange in exchanges().iter() {
        let Exchange { client, key, version, response: Some(response), .. } = exchange else { continue };
        let spoken = if (*key, *version) == (18, 5) || *version == 99 { 0 } else { *version };
        let again = messages::answer(*key, spoken, response.clone());
        assert_eq!(&again, response, "{client}: {key} version {version}");
    }
}

#[test]
fn an_unknown_api_versions_is_answered_as_kafka_does() {
    let mut seen = 0;
    for Exchange { version, request, response, .. } in exchanges().iter().filter(|exchange| exchange.key == 18) {
        if let Err(FrameError::Unsupported { correlation_id, .. }) = parse_header(request) {
            let frame = unsupported_api_versions(correlation_id, 0, 4).unwrap();
            let frame = frame[0].in_memory().unwrap().to_vec();
            assert_eq!(Some(&frame[4..]), response.as_deref(), "version {version}");
            seen += 1;
        }
    }
    assert_eq!(seen, 2);
}
