//! An object: 64 bytes of header, the record batches run by run, a footer, and a trailer of 16 bytes.
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::types::{Head, Incarnation, PartitionIndex, TimestampMs, TopicId, Uuid};

use super::name::{ObjectKind, ObjectName};

/// Size of the header: the first run begins there.
pub const HEADER_BYTES: u32 = 64;

const MAGIC: [u8; 4] = *b"SLOB";
/// Of what a flush writes; and of what compaction writes, whose headers are final.
const VERSIONS: [(u16, ObjectKind); 2] = [(1, ObjectKind::Data), (2, ObjectKind::Compacted)];
const FOOTER_RUN_BYTES: usize = 32;
const TRAILER_BYTES: usize = 16;

/// Who wrote an object, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectHeader {
    pub name: ObjectName,
    pub incarnation: Incarnation,
    pub written_ms: TimestampMs,
}

/// A run as the object itself describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterRun {
    pub topic: TopicId,
    pub partition: PartitionIndex,
    /// Where its first byte lies in the object.
    pub position: u32,
    pub bytes: u32,
    pub batches: u32,
}

/// The object's bytes are not what a writer writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("object is damaged: {0}")]
pub struct ObjectError(pub(super) &'static str);

/// Lays an object out as a list of buffers; record bytes are not copied.
pub struct ObjectWriter {
    body: Vec<Bytes>,
    runs: BytesMut,
    count: u32,
    bytes: u32,
    /// CRC-32C of the record bytes.
    crc: u32,
}

impl ObjectWriter {
    /// Begins an object.
    #[must_use]
    pub fn new(header: &ObjectHeader) -> Self {
        Self { body: vec![header_bytes(header)], runs: BytesMut::new(), count: 0, bytes: HEADER_BYTES, crc: 0 }
    }

    /// Where the next run will begin.
    #[must_use]
    pub fn position(&self) -> u32 {
        self.bytes
    }

    /// Adds a buffer of record batches to the object.
    pub fn push(&mut self, batches: Bytes) {
        self.crc = crc32c::crc32c_append(self.crc, &batches);
        self.bytes += u32::try_from(batches.len()).expect("an object is bounded far below 4 GiB");
        self.body.push(batches);
    }

    /// Describes the buffers pushed since `position` as a run.
    pub fn end_run(&mut self, topic: TopicId, partition: PartitionIndex, position: u32, batches: u32) {
        self.runs.put_u128(topic.0.as_u128());
        self.runs.put_i32(partition.0);
        self.runs.put_u32(position);
        self.runs.put_u32(self.bytes - position);
        self.runs.put_u32(batches);
        self.count += 1;
    }

    /// The finished object and its size in bytes.
    #[must_use]
    pub fn finish(mut self) -> (Vec<Bytes>, u32) {
        let footer_crc = crc32c::crc32c(&self.runs);
        let mut out = self.runs;
        out.put_u32(self.crc);
        out.put_u32(self.count);
        out.put_u32(footer_crc);
        out.put_slice(&MAGIC);
        self.bytes += u32::try_from(out.len()).expect("a footer is bounded by its runs");
        self.body.push(out.freeze());
        (self.body, self.bytes)
    }
}

/// A finished object under another name; its record bytes are shared.
#[must_use]
pub fn renamed(body: &[Bytes], header: &ObjectHeader) -> Vec<Bytes> {
    let mut body = body.to_vec();
    if let Some(first) = body.first_mut() {
        *first = header_bytes(header);
    }
    body
}

fn header_bytes(header: &ObjectHeader) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_BYTES as usize);
    out.put_slice(&MAGIC);
    out.put_u16(if header.name.kind == ObjectKind::Data { VERSIONS[0].0 } else { VERSIONS[1].0 });
    out.put_u16(0);
    out.put_u64(header.name.applied.position.0);
    out.put_u64(header.name.applied.token.0);
    out.put_u128(header.name.ulid);
    out.put_u64(header.incarnation.0);
    out.put_i64(header.written_ms.0);
    out.put_u32(0);
    let crc = crc32c::crc32c(&out);
    out.put_u32(crc);
    out.freeze()
}

/// Reads the header and the footer of a whole object, and checks its checksums.
///
/// # Errors
/// If the object is not what a writer writes.
pub fn read_footer(object: &[u8]) -> Result<(ObjectHeader, Vec<FooterRun>), ObjectError> {
    let header = read_header(object)?;
    let trailer_at = object.len().checked_sub(TRAILER_BYTES).ok_or(ObjectError("too short"))?;
    let mut trailer = &object[trailer_at..];
    let (data_crc, count, footer_crc) = (trailer.get_u32(), trailer.get_u32(), trailer.get_u32());
    if trailer != MAGIC {
        return Err(ObjectError("its end is missing"));
    }
    let footer_bytes = (count as usize).checked_mul(FOOTER_RUN_BYTES).ok_or(ObjectError("too many runs"))?;
    let footer_at = trailer_at.checked_sub(footer_bytes).ok_or(ObjectError("too many runs"))?;
    let data = object.get(HEADER_BYTES as usize..footer_at).ok_or(ObjectError("too many runs"))?;
    let mut footer = &object[footer_at..trailer_at];
    if crc32c::crc32c(footer) != footer_crc || crc32c::crc32c(data) != data_crc {
        return Err(ObjectError("a checksum does not hold"));
    }
    let mut runs = Vec::with_capacity(count as usize);
    while footer.has_remaining() {
        runs.push(FooterRun {
            topic: TopicId(Uuid::from_u128(footer.get_u128())),
            partition: PartitionIndex(footer.get_i32()),
            position: footer.get_u32(),
            bytes: footer.get_u32(),
            batches: footer.get_u32(),
        });
    }
    Ok((header, runs))
}

fn read_header(object: &[u8]) -> Result<ObjectHeader, ObjectError> {
    let mut header = object.get(..HEADER_BYTES as usize).ok_or(ObjectError("too short"))?;
    let crc = crc32c::crc32c(&header[..HEADER_BYTES as usize - 4]);
    if !header.starts_with(&MAGIC) {
        return Err(ObjectError("it has another magic"));
    }
    header.advance(4);
    let version = header.get_u16();
    let known = VERSIONS.iter().find(|(number, _)| *number == version);
    let (_, kind) = known.ok_or(ObjectError("it has another version"))?;
    header.advance(2);
    let applied =
        Head { position: crate::types::Position(header.get_u64()), token: crate::types::Token(header.get_u64()) };
    let name = ObjectName { applied, ulid: header.get_u128(), kind: *kind };
    let (incarnation, written_ms) = (Incarnation(header.get_u64()), TimestampMs(header.get_i64()));
    header.advance(4);
    if header.get_u32() != crc {
        return Err(ObjectError("its header's checksum does not hold"));
    }
    Ok(ObjectHeader { name, incarnation, written_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Position, Token};

    fn header() -> ObjectHeader {
        let applied = Head { position: Position(5), token: Token(6) };
        let name = ObjectName::data(applied, 7);
        ObjectHeader { name, incarnation: Incarnation(8), written_ms: TimestampMs(9) }
    }

    #[test]
    fn an_object_describes_itself() {
        let mut writer = ObjectWriter::new(&header());
        let topic = TopicId(Uuid::from_u128(1));
        for (partition, data) in [(0, "first"), (3, "second one")] {
            let position = writer.position();
            writer.push(Bytes::from(data));
            writer.end_run(topic, PartitionIndex(partition), position, 1);
        }
        let (body, bytes) = writer.finish();
        let object = body.concat();
        assert_eq!(object.len(), bytes as usize);
        let (read, runs) = read_footer(&object).unwrap();
        assert_eq!(read, header());
        let texts: Vec<&[u8]> = runs.iter().map(|r| &object[r.position as usize..][..r.bytes as usize]).collect();
        assert_eq!(texts, [&b"first"[..], b"second one"]);
        assert_eq!(runs[1].partition, PartitionIndex(3));
        let other = ObjectHeader { name: ObjectName { ulid: 99, ..header().name }, ..header() };
        assert_eq!(read_footer(&renamed(&body, &other).concat()).unwrap(), (other, runs));
    }

    #[test]
    fn damage_is_noticed_at_every_byte() {
        let mut writer = ObjectWriter::new(&header());
        writer.push(Bytes::from_static(b"data"));
        writer.end_run(TopicId::default(), PartitionIndex(0), HEADER_BYTES, 1);
        let object = writer.finish().0.concat();
        for i in 0..object.len() {
            let mut damaged = object.clone();
            damaged[i] ^= 1;
            assert!(read_footer(&damaged).is_err(), "byte {i}");
            assert!(read_footer(&object[..i]).is_err(), "cut at {i}");
        }
    }
}
