//! Buffers that are used again: fresh memory costs as much as what is read into it, since the kernel clears it page by
//! page, and the language once more. It promises that what lies unused is bounded, and given back when it stays unused.
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::world::World;

/// The smallest and the largest buffer that is used again, in bytes. Smaller ones cost little, larger ones are rare.
const SMALLEST: usize = 32 << 10;
const LARGEST: usize = 1 << 20;

/// Bytes that are kept: what eight busy producers have under way, five requests of 1 MiB each, and what the cache lets go at
/// one time.
const KEPT_MAX: usize = 48 << 20;

/// How often half of what nobody wanted since the last time is given back.
const SHED_EVERY: Duration = Duration::from_secs(1);

/// The buffers that nobody uses. The default keeps them for ever.
#[derive(Default)]
pub struct Buffers(Mutex<Kept>);

/// A mutex's content, held for a look through a list.
#[derive(Default)]
struct Kept {
    /// Those that came back last are at the end: they are warm.
    free: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The fewest bytes there were since the last shedding.
    lowest: usize,
}

/// Memory with old contents. It goes back where it came from, if that is still there.
pub struct Buffer {
    bytes: Vec<u8>,
    home: Option<Weak<Buffers>>,
}

impl Buffers {
    /// None are kept yet. A task gives back what is not used, for as long as somebody holds them.
    #[must_use]
    pub fn start(world: &World) -> Arc<Self> {
        let buffers: Arc<Self> = Arc::default();
        let (weak, clock) = (Arc::downgrade(&buffers), world.clone());
        world.spawn("buffers", async move {
            loop {
                clock.sleep(SHED_EVERY).await;
                match weak.upgrade() {
                    Some(buffers) => buffers.shed(),
                    None => return,
                }
            }
        });
        buffers
    }

    /// Bytes of the buffer that is taken for `bytes` bytes: up to an eighth more, so that few sizes are kept.
    #[must_use]
    pub fn size_for(bytes: usize) -> usize {
        if !(SMALLEST..=LARGEST).contains(&bytes) {
            return bytes;
        }
        bytes.next_multiple_of(bytes.next_power_of_two() / 16)
    }

    /// A buffer of [`Buffers::size_for`] `bytes`.
    #[must_use]
    pub fn take(self: &Arc<Self>, bytes: usize) -> Buffer {
        let size = Self::size_for(bytes);
        if !(SMALLEST..=LARGEST).contains(&size) {
            return Buffer { bytes: vec![0; size], home: None };
        }
        let bytes = self.kept().pop(size).unwrap_or_else(|| vec![0; size]);
        Buffer { bytes, home: Some(Arc::downgrade(self)) }
    }

    fn shed(&self) {
        let mut kept = self.kept();
        let rest = kept.bytes - kept.lowest.div_ceil(2);
        let shed = kept.shrink(rest);
        kept.lowest = kept.bytes;
        drop(kept);
        drop(shed);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn pop(&mut self, size: usize) -> Option<Vec<u8>> {
        let at = self.free.iter().rposition(|buffer| buffer.len() == size)?;
        let buffer = self.free.remove(at)?;
        self.bytes -= size;
        self.lowest = self.lowest.min(self.bytes);
        Some(buffer)
    }

    /// Takes out those that lay for longest, until `bytes` or less are left.
    fn shrink(&mut self, bytes: usize) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        while self.bytes > bytes
            && let Some(buffer) = self.free.pop_front()
        {
            self.bytes -= buffer.len();
            out.push(buffer);
        }
        self.lowest = self.lowest.min(self.bytes);
        out
    }
}

impl Buffer {
    /// Its bytes, to write on.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(home) = self.home.as_ref().and_then(Weak::upgrade) else { return };
        let bytes = std::mem::take(&mut self.bytes);
        let mut kept = home.kept();
        kept.bytes += bytes.len();
        kept.free.push_back(bytes);
        let over = kept.shrink(KEPT_MAX);
        drop(kept);
        drop(over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_buffer_is_used_again_and_given_back_when_nobody_wants_it() {
        let world = World::seeded(1);
        let buffers = Buffers::start(&world);
        let first = buffers.take(131_200);
        assert_eq!(first.as_ref().len(), 144 << 10);
        let place = first.as_ref().as_ptr();
        drop(first);
        assert_eq!(buffers.take(140_000).as_ref().as_ptr(), place);
        assert_ne!(buffers.take(100_000).as_ref().len(), 144 << 10);
        assert!(buffers.kept().bytes > 200_000);
        world.sleep(Duration::from_secs(30)).await;
        assert_eq!(buffers.kept().bytes, 0);
        let few = buffers.take(1_000);
        assert_eq!(few.as_ref().len(), 1_000);
        drop(few);
        assert_eq!(buffers.kept().bytes, 0, "small ones are not kept");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_bounded_and_what_is_wanted_stays() {
        let world = World::seeded(1);
        let buffers = Buffers::start(&world);
        drop((0..80).map(|_| buffers.take(LARGEST)).collect::<Vec<_>>());
        assert_eq!(buffers.kept().bytes, KEPT_MAX);
        for _ in 0..30 {
            drop((0..48).map(|_| buffers.take(LARGEST)).collect::<Vec<_>>());
            world.sleep(SHED_EVERY).await;
        }
        assert!(buffers.kept().bytes >= KEPT_MAX - LARGEST, "{}", buffers.kept().bytes);
    }

    #[test]
    fn sizes_waste_an_eighth_at_most() {
        for bytes in (SMALLEST..=LARGEST).step_by(4_099) {
            let size = Buffers::size_for(bytes);
            assert!(size >= bytes && size <= LARGEST && size - bytes <= bytes / 8, "{bytes} {size}");
            assert_eq!(Buffers::size_for(size), size);
        }
    }
}
