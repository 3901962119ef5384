//! Writes answers: buffers of a frame, or of several, in one system call where they fit.
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::world::World;

/// Buffers per call; the kernel takes 1,024.
const SLICES_MAX: usize = 256;

/// Why an answer was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteEnded {
    Closed,
    /// The client read nothing for too long.
    Stalled,
}

/// While others wait for memory (`pressed`), a client that reads nothing has only this long.
const PRESSED_STALL: Duration = Duration::from_secs(3);

/// Writes all of `chunks`, with progress at least every `stall`.
pub(super) async fn write_all<W: AsyncWrite + Unpin>(
    socket: &mut W,
    chunks: Vec<Bytes>,
    world: &World,
    stall: Duration,
    pressed: impl Fn() -> bool,
) -> Result<(), WriteEnded> {
    let mut left: VecDeque<Bytes> = chunks.into_iter().filter(|c| !c.is_empty()).collect();
    while !left.is_empty() {
        let slices: Vec<IoSlice<'_>> = left.iter().take(SLICES_MAX).map(|c| IoSlice::new(c)).collect();
        let mut waited = Duration::ZERO;
        let written = loop {
            let patience = PRESSED_STALL.min(stall);
            // Not started again by the time-out: a write that is dropped before it is ready has written nothing.
            match world.timeout(patience, socket.write_vectored(&slices)).await {
                Some(written) => break written,
                None => waited += patience,
            }
            if waited >= stall || pressed() {
                return Err(WriteEnded::Stalled);
            }
        };
        let mut written = written.ok().filter(|n| *n > 0).ok_or(WriteEnded::Closed)?;
        while let Some(first) = left.front_mut() {
            if written < first.len() {
                first.advance(written);
                break;
            }
            written -= first.len();
            left.pop_front();
        }
    }
    Ok(())
}
