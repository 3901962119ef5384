//! The counting allocator.
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// What `work` gives, and how many bytes beyond those before it the heap held at most meanwhile. A buffer that grows
/// counts twice while it is copied.
pub(crate) fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let given = work();
    (given, HEAP.peak_usage().saturating_sub(before))
}

/// As [`peak`], and it must not be more than `bytes_max`.
#[track_caller]
pub(crate) fn within<T>(what: &str, bytes_max: usize, work: impl FnOnce() -> T) -> T {
    let (given, peak) = peak(work);
    assert!(peak <= bytes_max, "{what} took {peak} bytes of heap, more than {bytes_max}");
    given
}
