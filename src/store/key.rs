//! What a key may look like: one rule for every store, so that a key that works on one works on all.
use super::{Key, StoreError};

/// S3, GCS and Azure allow 1,024 bytes with the bucket's prefix; what is left here is for that prefix.
pub(crate) const KEY_BYTES_MAX: usize = 768;
/// The longest file name of ext4, XFS and APFS.
const SEGMENT_BYTES_MAX: usize = 255;

/// Refuses a key that some store could not hold or would change: see [`Key`] for the alphabet. A segment is neither
/// empty nor only dots (`.` and `..` are directories).
pub(crate) fn check(key: &Key) -> Result<(), StoreError> {
    let refuse = |reason: &str| {
        Err(StoreError::Refused { what: format!("key {key:?}"), reason: format!("not a key: {reason}") })
    };
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return refuse("its length is not 1 to 768 bytes");
    }
    for segment in key.split('/') {
        if segment.is_empty() || segment.len() > SEGMENT_BYTES_MAX {
            return refuse("a segment is empty or longer than 255 bytes");
        }
        if !is_segment(segment) {
            return refuse("other than letters, digits, '.', '-', '_' and '/', or a segment of dots");
        }
    }
    Ok(())
}

/// Whether `name` can be one segment of a key.
pub(crate) fn is_segment(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        && name.bytes().any(|b| b != b'.')
}

/// The part of `prefix` that ends in its last `/`, which stores that know directories can start from.
pub(crate) fn directory(prefix: &str) -> &str {
    &prefix[..prefix.rfind('/').map_or(0, |at| at + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_a_store_would_change_are_refused() {
        for good in ["a", "a/b.c", "journal/00000000000000000001", "a/..b", "-_./x"] {
            assert!(check(&good.to_owned()).is_ok(), "{good}");
        }
        let long = "x".repeat(256);
        for bad in ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a b", "a%20", "ä", "a#1", &long] {
            assert!(check(&bad.to_owned()).is_err(), "{bad}");
        }
    }
}
