//! The batches of a run, one after another. A flush's batches are counted, since they have no offsets; those of compaction
//! say their own.
use super::object::ObjectError;
use crate::records::{BatchHeader, crc_of_pieces};
use crate::types::Offset;

/// Where a run lies in its object, and in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunBounds {
    /// Of its first byte, and behind its last.
    pub position: u32,
    pub end: u32,
    pub base_offset: Offset,
    pub end_offset: Offset,
    /// Whether the headers say the offsets (compaction). Between such batches there may be gaps.
    pub is_final: bool,
}

/// A batch in an object, and its place in the log.
#[derive(Clone, Copy, Debug)]
pub struct Located {
    pub header: BatchHeader,
    pub base_offset: Offset,
    /// The offset after its last record.
    pub end_offset: Offset,
    /// Where it lies in the object.
    pub position: u32,
    pub bytes: u32,
}

/// The batch whose header `bytes` begins with. It lies at `position`, and no offset below `next` is its.
///
/// # Errors
/// If it is no batch, or does not lie within the run.
pub fn locate(bytes: &[u8], position: u32, next: Offset, bounds: &RunBounds) -> Result<Located, ObjectError> {
    let header = BatchHeader::parse(bytes).map_err(|_| ObjectError("a run holds something else than batches"))?;
    let bytes = u32::try_from(header.total_bytes()).map_err(|_| ObjectError("a batch is too long"))?;
    let beyond = ObjectError("a batch lies beyond its run");
    position.checked_add(bytes).filter(|at| *at <= bounds.end).ok_or_else(|| beyond.clone())?;
    if !bounds.is_final {
        let end_offset = next.plus(u64::from(header.records()));
        return Ok(Located { header, base_offset: next, end_offset, position, bytes });
    }
    let end_offset = header.last_offset().0.checked_add(1).map(Offset).ok_or_else(|| beyond.clone())?;
    if header.base_offset < next || header.last_offset_delta < 0 || end_offset > bounds.end_offset {
        return Err(beyond);
    }
    Ok(Located { header, base_offset: header.base_offset, end_offset, position, bytes })
}

/// Whether `content` is nothing but whole batches, each as its producer or the broker made it, from the run's first offset to its
/// last. No checksum covers the offset in a header: where there are no gaps, another one would not lie between its neighbours.
///
/// # Errors
/// If it is not.
pub fn check_run(content: &[u8], bounds: &RunBounds) -> Result<(), ObjectError> {
    let (mut rest, mut at, mut next) = (content, bounds.position, bounds.base_offset);
    while at < bounds.end {
        let batch = locate(rest, at, next, bounds)?;
        let bytes = rest.split_off(..batch.bytes as usize).ok_or(ObjectError("a batch lies beyond its run"))?;
        if crc_of_pieces([bytes]) != batch.header.crc {
            return Err(ObjectError("a batch's checksum does not hold"));
        }
        (at, next) = (at + batch.bytes, batch.end_offset);
    }
    if next != bounds.end_offset || !rest.is_empty() {
        return Err(ObjectError("a run has other offsets than its batches"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{BatchBuilder, NewRecord};
    use bytes::Bytes;

    fn batch(base_offset: i64, records: usize) -> Bytes {
        let record = NewRecord { value: Some(b"value"), ..NewRecord::default() };
        let batch = (0..records).fold(BatchBuilder::new(), |b, _| b.with(&record));
        batch.base_offset(Offset(base_offset)).build().unwrap()
    }

    fn bounds(is_final: bool) -> RunBounds {
        RunBounds { position: 64, end: 1000, base_offset: Offset(10), end_offset: Offset(20), is_final }
    }

    #[test]
    fn a_flushs_batches_are_counted_and_final_ones_say_their_offsets() {
        let found = locate(&batch(77, 3), 64, Offset(12), &bounds(false)).unwrap();
        assert_eq!((found.base_offset, found.end_offset), (Offset(12), Offset(15)));
        let found = locate(&batch(14, 3), 64, Offset(12), &bounds(true)).unwrap();
        assert_eq!((found.base_offset, found.end_offset), (Offset(14), Offset(17)));
        for outside in [batch(11, 3), batch(18, 3), batch(i64::MAX, 1)] {
            assert!(locate(&outside, 64, Offset(12), &bounds(true)).is_err());
        }
        assert!(locate(&batch(14, 3), 950, Offset(12), &bounds(true)).is_err());
    }

    #[test]
    fn damage_is_noticed_wherever_it_is_but_in_the_epoch() {
        let whole = [batch(10, 3), batch(13, 1)].concat();
        let end = 64 + whole.len() as u32;
        let bounds = RunBounds { position: 64, end, base_offset: Offset(10), end_offset: Offset(14), is_final: true };
        assert_eq!(check_run(&whole, &bounds), Ok(()));
        // The leader epoch is held against what State says of it.
        for at in (0..whole.len()).filter(|at| !(12..16).contains(&(at % batch(10, 3).len()))) {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                assert!(check_run(&damaged, &bounds).is_err(), "byte {at}, bit {bit}");
            }
        }
        assert!(check_run(&whole[..whole.len() - 1], &bounds).is_err());
        assert!(check_run(&whole, &RunBounds { end_offset: Offset(15), ..bounds }).is_err(), "one is missing");
    }
}
