//! How far to read ahead of whom. A reader is known by what it reads: one that goes on where it ended is given more each
//! time, one that jumps begins anew. Being wrong costs loads that nobody wanted, at most the window's.
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::plan::AHEAD_MAX;
use crate::types::{Offset, Slot};

/// Readers that are remembered; those that came last.
const STREAMS_MAX: usize = 256;

/// The readers of compacted runs. A mutex, held for a look through a short list.
#[derive(Default)]
pub(super) struct Streams(Mutex<VecDeque<Stream>>);

struct Stream {
    slot: Slot,
    /// Its last read: from here to the end of the last run that it reached.
    from: Offset,
    to: Offset,
    window: usize,
}

impl Streams {
    /// Notes a read, and gives how many of the runs that follow to load.
    pub(super) fn window(&self, slot: Slot, from: Offset, to: Offset) -> usize {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = streams.iter().position(|s| s.slot == slot && s.from <= from && from <= s.to);
        let known = at.and_then(|at| streams.remove(at));
        if known.is_none() && streams.len() >= STREAMS_MAX {
            streams.pop_front();
        }
        let window = match known {
            None => 0,
            // It asks for the same again, or has not left its run.
            Some(known) if known.from == from || known.to >= to => known.window,
            Some(known) => (known.window * 2).clamp(1, AHEAD_MAX),
        };
        streams.push_back(Stream { slot, from, to, window });
        window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_goes_on_gets_more_and_one_that_jumps_begins_anew() {
        let streams = Streams::default();
        let window = |slot, from, to| streams.window(Slot(slot), Offset(from), Offset(to));
        assert_eq!(window(1, 0, 10), 0);
        assert_eq!(window(2, 0, 10), 0, "another partition's reader");
        assert_eq!([window(1, 10, 20), window(1, 10, 20), window(1, 15, 20)], [1; 3]);
        assert_eq!([20, 30, 40, 50].map(|at| window(1, at, at + 10)), [2, 4, 8, 8]);
        assert_eq!(window(1, 500, 510), 0);
        assert_eq!(window(1, 60, 70), 8, "the first reader is still known");
        assert!((0..STREAMS_MAX as i64).all(|at| window(3, 1000 * at, 1000 * at + 10) == 0));
        assert_eq!(window(1, 70, 80), 0);
    }
}
