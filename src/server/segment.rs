//! What an object of the bucket holds, for people to read, on the stores that the configuration names and without a broker.
use bytes::Bytes;
use std::fmt::Write;
use std::sync::Arc;

use super::ServerError;
use crate::config::Config;
use crate::records::{self, Batch, Batches, Codec, crc_of_pieces};
use crate::segment::{FooterRun, ObjectHeader, ObjectName, read_footer};
use crate::store::{Bucket, BucketSettings, Purpose, open_observed};
use crate::telemetry::Metrics;
use crate::types::TimestampMs;
use crate::world::World;

/// Records of one batch are shown up to this size decompressed, in bytes.
const INFLATED_MAX: usize = 256 << 20;

/// The object at `key`: its header, its rows, and of each batch what `kafka-dump-log` shows; with `records` also these.
///
/// # Errors
/// Why the object can't be read.
pub async fn dump(config: &Config, key: &str, with_records: bool) -> Result<String, ServerError> {
    let world = World::real().map_err(|e| ServerError::System(format!("no random numbers: {e}")))?;
    let metrics = Arc::new(Metrics::new(TimestampMs(world.wall_ms().0)));
    let Some(name) = ObjectName::parse(key) else {
        return Err(ServerError::System(format!(
            "{key:?} is no key of an object with records; right is data/… or compacted/…"
        )));
    };
    let bucket = open_observed(&BucketSettings::from(config), world, metrics).await?;
    let content = bucket.read(&name.key(), None, Purpose::Control).await;
    let content = content.map_err(|e| ServerError::System(e.to_string()))?;
    match read_footer(&content) {
        Ok((header, rows)) => Ok(dumped(key, &content, &header, &rows, with_records)),
        Err(error) => Err(ServerError::System(format!("{key}: {error}"))),
    }
}

fn dumped(key: &str, content: &Bytes, header: &ObjectHeader, rows: &[FooterRun], with_records: bool) -> String {
    let mut out = String::new();
    let applied = header.name.applied;
    // Writing to a String can't fail.
    let _ = writeln!(
        out,
        "object {key}\nkind: {:?} bytes: {} appliedPosition: {} appliedToken: {:016x} incarnation: {:016x} written: {}\nruns: {}",
        header.name.kind,
        content.len(),
        applied.position.0,
        applied.token.0,
        header.incarnation.0,
        header.written_ms.0,
        rows.len(),
    );
    for row in rows {
        let _ = writeln!(
            out,
            "run topicId: {} partition: {} position: {} bytes: {} batches: {}",
            row.topic.0, row.partition.0, row.position, row.bytes, row.batches
        );
        let range = row.position as usize..(row.position as usize).saturating_add(row.bytes as usize);
        let Some(bytes) = content.get(range).map(|part| content.slice_ref(part)) else {
            let _ = writeln!(out, "  the run lies beyond the object");
            continue;
        };
        for batch in Batches::new(bytes) {
            match batch {
                Ok(batch) => show_batch(&mut out, row.position as usize, &batch, with_records),
                Err(error) => {
                    let _ = writeln!(out, "  no batch: {error}");
                }
            }
        }
    }
    out
}

fn show_batch(out: &mut String, run_at: usize, batch: &Batch, with_records: bool) {
    let header = &batch.header;
    let time = match header.timestamp_type() {
        records::TimestampType::CreateTime => "CreateTime",
        records::TimestampType::LogAppendTime => "LogAppendTime",
    };
    let is_valid = crc_of_pieces([&batch.bytes[..]]) == header.crc;
    let _ = writeln!(
        out,
        "  baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} producerId: {} producerEpoch: {} \
         partitionLeaderEpoch: {} isTransactional: {} isControl: {} position: {} {time}: {} size: {} magic: 2 \
         compresscodec: {} crc: {} isvalid: {is_valid}",
        header.base_offset,
        header.last_offset(),
        header.count,
        header.base_sequence.0,
        header.last_sequence().0,
        header.producer_id.0,
        header.producer_epoch.0,
        header.leader_epoch.0,
        header.is_transactional(),
        header.is_control(),
        run_at + batch.range.start,
        header.max_timestamp.0,
        batch.bytes.len(),
        header.codec().map_or_else(|_| "unknown".to_owned(), codec_name),
        header.crc,
    );
    if with_records {
        show_records(out, batch);
    }
}

fn show_records(out: &mut String, batch: &Batch) {
    let header = &batch.header;
    let body = match records::body(header, &batch.bytes, INFLATED_MAX) {
        Ok(body) => body,
        Err(error) => {
            let _ = writeln!(out, "    no records: {error}");
            return;
        }
    };
    for record in records::Records::new(&body, header.records()) {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let _ = writeln!(out, "    no record: {error}");
                return;
            }
        };
        let offset = header.base_offset.0.saturating_add(i64::from(record.offset_delta));
        let at = record.timestamp(header.base_timestamp).map_or(-1, |at| at.0);
        let _ = write!(out, "    offset: {offset} timestamp: {at} ");
        if header.is_control() {
            let kind = record.key.and_then(|key| key.get(3)).copied();
            let kind = match kind {
                Some(0) => "ABORT",
                Some(1) => "COMMIT",
                _ => "unknown",
            };
            let _ = writeln!(out, "endTxnMarker: {kind}");
            continue;
        }
        let _ = write!(out, "key: {} value: {}", text(record.key), text(record.value));
        let headers: Vec<String> =
            record.headers().map(|h| format!("{}={}", text(Some(h.key)), text(h.value))).collect();
        let _ = writeln!(out, " headers: [{}]", headers.join(","));
    }
}

/// Bytes as text where they are printable, else escaped; `null` for none.
fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(
        || "null".to_owned(),
        |bytes| match std::str::from_utf8(bytes) {
            Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
            _ => bytes.escape_ascii().to_string(),
        },
    )
}

fn codec_name(codec: Codec) -> String {
    format!("{codec:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{BatchBuilder, EndMarker, NewRecord};
    use crate::segment::ObjectWriter;
    use crate::types::*;

    #[test]
    fn an_object_is_shown_as_kafka_dump_log_shows_a_file() {
        let name = ObjectName::compacted(Head { position: Position(5), token: Token(6) }, 7);
        let header = ObjectHeader { name, incarnation: Incarnation(8), written_ms: TimestampMs(9) };
        let mut writer = ObjectWriter::new(&header);
        let record = NewRecord { timestamp: TimestampMs(50), key: Some(b"k"), value: Some(b"v\n"), headers: &[] };
        let batch = BatchBuilder::new().base_offset(Offset(10)).with(&record).with(&record).build().unwrap();
        let marker = EndMarker {
            offset: Offset(12),
            leader_epoch: LeaderEpoch(0),
            producer: ProducerId(3),
            epoch: ProducerEpoch(4),
            committed: false,
            ended: TimestampMs(60),
        };
        writer.push(batch);
        writer.push(marker.batch());
        writer.end_run(TopicId(Uuid::from_u128(1)), PartitionIndex(2), 64, 2);
        let content = Bytes::from(writer.finish().0.concat());
        let (header, rows) = read_footer(&content).unwrap();
        let text = dumped(&name.key(), &content, &header, &rows, true);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("kind: Compacted bytes: "), "{text}");
        assert!(lines[3].contains("partition: 2 position: 64 ") && lines[3].ends_with("batches: 2"), "{text}");
        assert!(lines[4].starts_with("  baseOffset: 10 lastOffset: 11 count: 2 baseSequence: -1 "), "{text}");
        assert!(
            lines[4].contains("isControl: false position: 64 CreateTime: 50 ") && lines[4].ends_with("isvalid: true")
        );
        assert_eq!(lines[5], "    offset: 10 timestamp: 50 key: k value: v\\n headers: []");
        assert!(lines[7].contains("producerId: 3 producerEpoch: 4 ") && lines[7].contains("isControl: true"), "{text}");
        assert_eq!((lines[8], lines.len()), ("    offset: 12 timestamp: 60 endTxnMarker: ABORT", 9));
    }
}
