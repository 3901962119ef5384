//! Buffers that are used again: fresh memory costs as much as what is read into it, since the kernel clears it page by
//! page, and the language once more.
use std::sync::{Arc, Mutex, PoisonError};

/// Size of the buffers that are used again.
pub const BUFFER_BYTES: usize = 256 << 10;

/// Buffers that are kept, so 8 MiB: what one fetch of the largest size copies.
const KEPT_MAX: usize = 32;

/// The buffers that nobody uses. A mutex, held for a push or a pop.
#[derive(Default)]
pub struct Buffers(Mutex<Vec<Vec<u8>>>);

/// Memory with old contents. It goes back where it came from.
pub struct Buffer {
    bytes: Vec<u8>,
    home: Option<Arc<Buffers>>,
}

impl Buffers {
    /// A buffer for `bytes` bytes, or a few more. It pins at most twice as much.
    #[must_use]
    pub fn take(self: &Arc<Self>, bytes: usize) -> Buffer {
        if !(BUFFER_BYTES / 2..=BUFFER_BYTES).contains(&bytes) {
            return Buffer { bytes: vec![0; bytes], home: None };
        }
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = kept.unwrap_or_else(|| vec![0; BUFFER_BYTES]);
        Buffer { bytes, home: Some(self.clone()) }
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
        let Some(home) = &self.home else { return };
        let mut kept = home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}
