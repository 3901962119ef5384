//! Batches that real clients made and a real Kafka stored: they pass every check untouched and are read as written.
use super::{CODECS, LIMIT, rules};
use crate::records::{BatchBytes, Batches, Codec, Level, Validation, recompress, validate, walk};
use crate::types::TimestampMs;
use bytes::Bytes;

fn clients() -> impl Iterator<Item = (&'static str, Codec, Bytes)> {
    let lines = include_str!("clients.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let (name, hex) = line.split_once(' ').unwrap();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        let codec = CODECS.into_iter().find(|codec| name.ends_with(codec.name())).unwrap();
        (name, codec, bytes.into())
    })
}

fn assert_read_as_written(name: &str, batch: &[u8]) {
    let mut index = 0;
    walk(batch, LIMIT, |record| {
        let value = format!("value-{index} ").repeat(20);
        assert_eq!(record.key, Some(format!("key-{index}").as_bytes()), "{name}");
        assert_eq!(record.value, Some(value.as_bytes()), "{name}");
        assert_eq!(record.headers().filter(|header| header.key == b"h").count(), 2, "{name}");
        index += 1;
    })
    .unwrap();
    assert_eq!(index, 3, "{name}");
}

#[test]
fn real_batches_pass_untouched() {
    assert_eq!(clients().count(), 15);
    for (name, codec, bytes) in clients() {
        let batches: Vec<_> = Batches::new(bytes.clone()).map(Result::unwrap).collect();
        assert_eq!(batches.len(), 1, "{name}");
        assert_eq!(batches[0].header.codec(), Ok(codec), "{name}");
        for validation in [Validation::Header, Validation::Full] {
            let now = batches[0].header.max_timestamp;
            let rules = crate::records::Rules { validation, compacted: validation == Validation::Full, now, ..rules() };
            assert_eq!(validate(&bytes, &rules).unwrap().bytes, BatchBytes::whole(bytes.clone()), "{name}");
        }
        assert_read_as_written(name, &bytes);
    }
}

#[test]
fn real_batches_survive_recompression_to_every_codec() {
    for (name, _, bytes) in clients() {
        for codec in CODECS {
            let other = recompress(&bytes, codec, Level::Default, LIMIT).unwrap();
            assert_read_as_written(name, &other);
            let now = TimestampMs(i64::MAX / 2);
            let valid = validate(&other, &crate::records::Rules { now, ..rules() }).unwrap();
            assert_eq!(valid.header.codec(), Ok(codec));
            let back =
                validate(&bytes, &crate::records::Rules { now, target: Some((codec, Level::Default)), ..rules() });
            let whole = back.unwrap().bytes.into_bytes();
            if codec != Codec::None {
                assert_read_as_written(name, &whole);
            }
        }
    }
}
