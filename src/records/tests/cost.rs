//! What validation costs (ADR 0003): `cargo test --release --lib records::tests::cost -- --ignored --nocapture`.
use super::{CODECS, NOW, rules};
use crate::records::header::crc_of;
use crate::records::{
    BatchBuilder, BatchHeader, Codec, HEADER_BYTES, Level, NewRecord, Records, Rules, Validation, body, validate,
};
use crate::types::TimestampMs;
use bytes::Bytes;
use std::hint::black_box;
use std::time::Duration;

/// Lines as a service would log them: fields whose names repeat, numbers that do not.
fn value(seed: &mut u64, bytes: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(bytes + 80);
    while value.len() < bytes {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (id, user) = (*seed >> 20, *seed >> 50);
        value.extend_from_slice(format!("{{\"id\":{id},\"user\":\"u{user}\",\"level\":\"info\"}}").as_bytes());
    }
    value.truncate(bytes);
    value
}

fn sample(codec: Codec, records: u32, bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new().codec(codec, Level::Default);
    let mut seed = 7;
    for index in 0..records {
        let (key, value) = (index.to_string(), value(&mut seed, bytes));
        builder.push(&NewRecord {
            timestamp: TimestampMs(NOW + i64::from(index)),
            key: Some(key.as_bytes()),
            value: Some(&value),
            headers: &[],
        });
    }
    builder.build().unwrap()
}

/// The quickest of several rounds, per call.
#[expect(clippy::disallowed_methods, reason = "measures real time")]
fn quickest(mut work: impl FnMut()) -> Duration {
    let round = |work: &mut dyn FnMut(), calls: u32| {
        let start = std::time::Instant::now();
        (0..calls).for_each(|_| work());
        start.elapsed() / calls
    };
    let once = round(&mut work, 3).max(Duration::from_nanos(20));
    let calls = u32::try_from(20_000_000 / once.as_nanos()).unwrap().max(1);
    (0..9).map(|_| round(&mut work, calls)).min().unwrap()
}

fn row(name: &str, time: Duration, batch: usize, inflated: usize, records: u32) {
    let seconds = time.as_secs_f64();
    let mb = |bytes: usize| bytes as f64 / 1e6 / seconds;
    let per_record = time.as_nanos() as f64 / f64::from(records);
    println!(
        "{name:28} {:9.0} ns/batch {per_record:8.1} ns/record {:9.0} MB/s sent {:9.0} MB/s inflated",
        time.as_nanos(),
        mb(batch),
        mb(inflated)
    );
}

#[test]
#[ignore = "a measurement; only a release build says anything"]
fn cost_of_validation() {
    for (records, bytes) in [(128, 1024), (16, 100)] {
        for codec in CODECS {
            let batch = sample(codec, records, bytes);
            let header = BatchHeader::parse(&batch).unwrap();
            let inflated = body(&header, &batch, usize::MAX).unwrap().len() + HEADER_BYTES;
            println!("{records} records of {bytes} bytes, {codec}: {} bytes, inflated {inflated}", batch.len());
            let show = |name: &str, time| row(name, time, batch.len(), inflated, records);
            show(
                "parse and CRC",
                quickest(|| {
                    black_box(BatchHeader::parse(black_box(&batch)).unwrap());
                    black_box(crc_of(black_box(&batch)));
                }),
            );
            if codec == Codec::None {
                let body = body(&header, &batch, usize::MAX).unwrap();
                let walk = || {
                    Records::new(black_box(&body), records).for_each(|record| {
                        let _ = black_box(record);
                    });
                };
                show("walk alone", quickest(walk));
            }
            for validation in [Validation::Header, Validation::Full] {
                let rules = Rules { validation, after_max_ms: i64::MAX, ..rules() };
                let time = quickest(|| drop(black_box(validate(black_box(&batch), &rules).unwrap())));
                show(&format!("validate {validation:?}"), time);
            }
        }
    }
}
