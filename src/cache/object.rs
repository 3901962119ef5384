//! An object's bytes in memory, all of them or a part.
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// An object, or a stretch of one, in memory. Positions are the object's.
#[derive(Debug)]
pub struct CachedObject {
    chunks: Arc<[Bytes]>,
    /// Where each chunk begins, and the end of the last.
    starts: Vec<u32>,
    pub(super) pinned_bytes: usize,
    /// Its share of the cache's limit; given back when the last holder lets go.
    _room: Option<OwnedSemaphorePermit>,
}

impl CachedObject {
    /// What `chunks` hold of an object from `position` on.
    pub(super) fn new(
        chunks: Arc<[Bytes]>,
        position: u32,
        pinned_bytes: usize,
        room: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let mut starts = Vec::with_capacity(chunks.len() + 1);
        let mut at = position;
        for chunk in chunks.iter() {
            starts.push(at);
            at = at.saturating_add(u32::try_from(chunk.len()).unwrap_or(u32::MAX));
        }
        starts.push(at);
        Self { chunks, starts, pinned_bytes, _room: room }
    }

    /// A part of an object that is in no cache: whoever reads it bounds its memory.
    #[must_use]
    pub fn apart(position: u32, content: Bytes) -> Self {
        let pinned_bytes = content.len();
        Self::new(Arc::from([content]), position, pinned_bytes, None)
    }

    /// Its size in bytes.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.end() - self.start()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn start(&self) -> u32 {
        self.starts.first().copied().unwrap_or(0)
    }

    fn end(&self) -> u32 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Appends the bytes in `range` to `out`, as slices that keep the object's buffers alive; false if it does not hold
    /// them.
    #[must_use]
    pub fn slice_into<T: From<Bytes>>(&self, range: Range<u32>, out: &mut Vec<T>) -> bool {
        self.pieces(range, |chunk, from, to| out.push(chunk.slice(from..to).into()))
    }

    /// Copies the bytes from `at` on into `out`; false if it does not hold them.
    #[must_use]
    pub fn copy_to(&self, at: u32, out: &mut [u8]) -> bool {
        let Some(end) = u32::try_from(out.len()).ok().and_then(|n| at.checked_add(n)) else { return false };
        let mut filled = 0;
        self.pieces(at..end, |chunk, from, to| {
            out[filled..filled + to - from].copy_from_slice(&chunk[from..to]);
            filled += to - from;
        })
    }

    /// Visits the parts of chunks that make up `range`; false, and no visit, if it begins before or ends behind.
    fn pieces(&self, range: Range<u32>, mut visit: impl FnMut(&Bytes, usize, usize)) -> bool {
        if range.start < self.start() || range.end > self.end() || range.start > range.end {
            return false;
        }
        let mut index = self.starts.partition_point(|s| *s <= range.start).saturating_sub(1);
        let mut at = range.start;
        while at < range.end {
            let (start, end) = (self.starts[index], self.starts[index + 1].min(range.end));
            visit(&self.chunks[index], (at - start) as usize, (end - start) as usize);
            at = end;
            index += 1;
        }
        true
    }
}
