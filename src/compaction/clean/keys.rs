//! The last offset of each key, in memory of a fixed size: 24 bytes a place, four of five in use, whatever the keys are. A key
//! is known by 128 bits that nobody outside can foresee, since they begin with a random number of this pass.
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::planted::{Defect, planted};
use crate::types::Offset;

/// Bytes of a place.
const PLACE_BYTES: u64 = 24;

/// A key, and its last offset + 1; 0 where there is none.
type Place = [u64; 3];

/// The last offset of each key.
pub(in crate::compaction) struct Keys {
    seed: u64,
    places: Vec<Place>,
    used: usize,
}

impl Keys {
    /// Bytes of memory that it takes for up to `keys` keys, of `bytes_max`.
    pub(super) fn bytes(keys: u64, bytes_max: u64) -> u64 {
        let wanted = keys.saturating_add(keys / 4).saturating_add(2);
        wanted.min((bytes_max / PLACE_BYTES).max(2)) * PLACE_BYTES
    }

    /// An empty map in `bytes` bytes.
    pub(super) fn new(bytes: u64, seed: u64) -> Self {
        let places = usize::try_from(bytes / PLACE_BYTES).unwrap_or(usize::MAX).max(2);
        // Zeroed memory is not touched until it is used.
        Self { seed, places: vec![[0; 3]; places], used: 0 }
    }

    /// Keys that it has room for in all.
    pub(super) fn room(&self) -> usize {
        self.places.len() / 5 * 4 + self.places.len() % 5 * 4 / 5
    }

    /// Keys that it has.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// Notes that `key` is at `offset`, which lies beyond those before. There must be room.
    pub(super) fn put(&mut self, key: &[u8], offset: Offset) {
        let (hash, at) = self.find(key);
        if self.places[at][2] == 0 {
            assert!(self.used < self.room(), "whoever adds a key has asked for room");
            self.used += 1;
        }
        self.places[at] = [hash[0], hash[1], offset.0.unsigned_abs() + 1];
    }

    /// Where the last record of `key` is; `None` if it has none.
    pub(super) fn get(&self, key: &[u8]) -> Option<Offset> {
        let (_, at) = self.find(key);
        let after = self.places[at][2].checked_sub(1)?;
        i64::try_from(after).ok().map(Offset)
    }

    /// The place that is the key's, or would be.
    fn find(&self, key: &[u8]) -> ([u64; 2], usize) {
        let hash = xxh3_128_with_seed(key, self.seed);
        let hash = [(hash >> 64) as u64, hash as u64];
        let hash = if planted(Defect::KeysCollide) { [hash[0] & 0xf << 60, 0] } else { hash };
        let places = self.places.len();
        // The upper half of a product spreads evenly, however many places there are.
        let mut at = ((u128::from(hash[0]) * places as u128) >> 64) as usize;
        while self.places[at][2] != 0 && self.places[at][..2] != hash {
            at = (at + 1) % places;
        }
        (hash, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_has_the_last_offset_of_each_key_until_it_is_full() {
        let mut keys = Keys::new(Keys::bytes(1000, 1 << 20), 7);
        assert!(keys.room() >= 1000);
        let mut model = BTreeMap::new();
        for n in 0..10_000_u64 {
            let key = (n * 7919 % 1000).to_be_bytes();
            keys.put(&key, Offset(n as i64));
            model.insert(key, Offset(n as i64));
        }
        assert_eq!(keys.len(), 1000);
        for n in 0..2000_u64 {
            let key = n.to_be_bytes();
            assert_eq!(keys.get(&key), model.get(&key).copied());
        }
    }

    #[test]
    fn its_memory_is_bounded() {
        assert_eq!(Keys::bytes(u64::MAX, 1 << 20), (1 << 20) / 24 * 24);
        assert!(Keys::bytes(10, 1 << 20) <= 400);
        for bytes in 0..500 {
            let keys = Keys::new(bytes, 1);
            assert!((1..keys.places.len()).contains(&keys.room()), "an empty place ends each search");
        }
    }
}
