//! All remembered producers, by slot and id. Neighbours are packed together into some 250 bytes, since there may be
//! millions and most of them rest: a producer with one batch takes about 35 bytes, one with five 60. Clones share.
use imbl::OrdMap;
use std::ops::Range;
use std::sync::Arc;

use super::producer::{BatchSequence, Moment, ProducerState};
use super::varint;
use crate::types::{Offset, Position, ProducerEpoch, ProducerId, Sequence, Slot, TimestampMs};

/// A pack that grows beyond this is split, in bytes: large enough that the map's share of a producer is small, small
/// enough that to read one through and copy it takes less than 100 ns.
const PACK_BYTES_MAX: usize = 256;

/// Below every producer.
const LOWEST: Key = (Slot(0), ProducerId(i64::MIN));

type Key = (Slot, ProducerId);

/// Remembered producers.
#[derive(Clone, Debug, Default)]
pub(super) struct Producers {
    /// A pack holds the producers from its key up to the next pack's, in order. Each is a byte with the length of the
    /// rest, then as LEB128: slot; id, epoch (signed); entry and its time (signed) of the last use; records accepted; per
    /// batch: first sequence minus that expected (signed), records, base offset minus the last one (signed).
    packs: OrdMap<Key, Arc<[u8]>>,
    len: usize,
}

impl Producers {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What is remembered of this producer.
    pub(super) fn get(&self, key: &Key) -> Option<ProducerState> {
        let (_, pack) = self.packs.get_prev(key)?;
        let place = find(pack, key).ok()?;
        Some(unpack(&pack[place]).1)
    }

    /// Remembers this of the producer; true if nothing was before.
    pub(super) fn set(&mut self, key: Key, producer: &ProducerState) -> bool {
        let mut item = Vec::with_capacity(PACK_BYTES_MAX);
        pack(&mut item, key, producer);
        let Some((_, pack)) = self.packs.get_prev_mut(&key) else {
            self.packs.insert(LOWEST, item.into());
            self.len += 1;
            return true;
        };
        let found = find(pack, &key);
        let new = found.is_err();
        self.len += usize::from(new);
        let place = found.unwrap_or_else(|at| at..at);
        if place.len() == item.len() {
            Arc::make_mut(pack)[place].copy_from_slice(&item);
            return new;
        }
        let mut grown = Vec::with_capacity(pack.len() + item.len());
        grown.extend_from_slice(&pack[..place.start]);
        grown.extend_from_slice(&item);
        grown.extend_from_slice(&pack[place.end..]);
        if grown.len() <= PACK_BYTES_MAX {
            *pack = grown.into();
            return new;
        }
        let (middle, key) = middle(&grown);
        *pack = grown[..middle].into();
        self.packs.insert(key, grown[middle..].into());
        new
    }

    /// Forgets the producer; true if it was there.
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        let Some((first, place)) = self.packs.get_prev(key).and_then(|(first, p)| Some((*first, find(p, key).ok()?)))
        else {
            return false;
        };
        self.len -= 1;
        if let Some(pack) = self.packs.get_mut(&first) {
            if place.len() == pack.len() {
                self.packs.remove(&first);
            } else {
                *pack = [&pack[..place.start], &pack[place.end..]].concat().into();
            }
        }
        true
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, ProducerState)> {
        self.packs.values().flat_map(|pack| Items { pack, at: 0 }.map(|place| unpack(&pack[place])))
    }

    /// Those of one slot, in order.
    pub(super) fn of(&self, slot: Slot) -> impl Iterator<Item = (ProducerId, ProducerState)> {
        let low = (slot, ProducerId(i64::MIN));
        let first = self.packs.get_prev(&low).map_or(low, |(key, _)| *key);
        let packs = self.packs.range(first..=(slot, ProducerId(i64::MAX)));
        let all = packs.flat_map(|(_, pack)| Items { pack, at: 0 }.map(|place| unpack(&pack[place])));
        all.filter(move |(key, _)| key.0 == slot).map(|(key, producer)| (key.1, producer))
    }
}

/// Where each producer of a pack lies in it, its length's byte included.
struct Items<'a> {
    pack: &'a [u8],
    at: usize,
}

impl Iterator for Items<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        self.at += 1 + usize::from(*self.pack.get(start)?);
        Some(start..self.at)
    }
}

/// Where the producer lies in the pack, or would.
fn find(pack: &[u8], key: &Key) -> Result<Range<usize>, usize> {
    for place in (Items { pack, at: 0 }) {
        match key_of(&pack[place.clone()]).cmp(key) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => return Ok(place),
            std::cmp::Ordering::Greater => return Err(place.start),
        }
    }
    Err(pack.len())
}

/// Where the second half of a pack of several producers begins, and with which.
fn middle(pack: &[u8]) -> (usize, Key) {
    let place = Items { pack, at: 0 }.skip(1).find(|place| place.end > pack.len() / 2);
    let place = place.expect("a pack that must be split holds two producers, since one is far smaller");
    (place.start, key_of(&pack[place]))
}

fn key_of(item: &[u8]) -> Key {
    take_key(&mut &item[1..]).expect(OURS)
}

const OURS: &str = "a pack holds what `pack` wrote";

fn take_key(input: &mut &[u8]) -> Option<Key> {
    Some((Slot(varint::take_u32(input)?), ProducerId(varint::take_signed(input)?)))
}

fn pack(out: &mut Vec<u8>, key: Key, producer: &ProducerState) {
    out.push(0);
    varint::put(out, u64::from(key.0.0));
    varint::put_signed(out, key.1.0);
    varint::put_signed(out, i64::from(producer.epoch.0));
    varint::put(out, producer.last_used.0);
    varint::put_signed(out, producer.last_used_ms.0);
    varint::put(out, producer.accepted);
    let (mut expected, mut base) = (0, 0);
    for batch in producer.batches() {
        varint::put_signed(out, i64::from(batch.first.0) - expected);
        varint::put(out, u64::from(batch.records));
        varint::put_signed(out, batch.base_offset.0.wrapping_sub(base));
        (expected, base) = (i64::from(batch.first.0) + i64::from(batch.records), batch.base_offset.0);
    }
    out[0] = u8::try_from(out.len() - 1).expect("five batches of 20 bytes and 50 bytes before them are below 256");
}

fn unpack(item: &[u8]) -> (Key, ProducerState) {
    take(&mut &item[1..]).expect(OURS)
}

fn take(input: &mut &[u8]) -> Option<(Key, ProducerState)> {
    let key = take_key(input)?;
    let epoch = ProducerEpoch(i16::try_from(varint::take_signed(input)?).ok()?);
    let position = Position(varint::take(input)?);
    let last = Moment { position, wall_ms: TimestampMs(varint::take_signed(input)?) };
    let accepted = varint::take(input)?;
    let mut batches = [BatchSequence::default(); 5];
    let (mut filled, mut expected, mut base) = (0, 0, 0_i64);
    while !input.is_empty() {
        let first = expected + varint::take_signed(input)?;
        let records = varint::take_u32(input)?;
        base = base.wrapping_add(varint::take_signed(input)?);
        let batch = BatchSequence { first: Sequence(i32::try_from(first).ok()?), records, base_offset: Offset(base) };
        *batches.get_mut(filled)? = batch;
        (filled, expected) = (filled + 1, first + i64::from(records));
    }
    Some((key, ProducerState::restore(epoch, last, accepted, &batches[..filled])?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn states() -> impl Strategy<Value = ProducerState> {
        let batch = (any::<i32>(), any::<u32>(), any::<i64>()).prop_map(|(first, records, base)| BatchSequence {
            first: Sequence(first),
            records,
            base_offset: Offset(base),
        });
        let batches = proptest::collection::vec(batch, 0..=5);
        (any::<i16>(), any::<u64>(), any::<i64>(), any::<u64>(), batches).prop_map(
            |(epoch, at, ms, accepted, batches)| {
                let last = Moment { position: Position(at), wall_ms: TimestampMs(ms) };
                ProducerState::restore(ProducerEpoch(epoch), last, accepted, &batches).unwrap()
            },
        )
    }

    fn keys() -> impl Strategy<Value = Key> {
        let id = prop_oneof![0..20_i64, any::<i64>()];
        (prop_oneof![0..4_u32, any::<u32>()], id).prop_map(|(slot, id)| (Slot(slot), ProducerId(id)))
    }

    proptest! {
        #[test]
        fn equals_a_plain_map(steps in proptest::collection::vec((keys(), proptest::option::of(states())), 0..200)) {
            let (mut producers, mut plain) = (Producers::default(), BTreeMap::new());
            for (key, state) in steps {
                let (held, before) = (producers.clone(), plain.clone());
                match state {
                    Some(state) => prop_assert_eq!(producers.set(key, &state), plain.insert(key, state).is_none()),
                    None => prop_assert_eq!(producers.remove(&key), plain.remove(&key).is_some()),
                }
                prop_assert_eq!(producers.get(&key), plain.get(&key).cloned());
                prop_assert_eq!(producers.len(), plain.len());
                prop_assert_eq!(held.iter().collect::<BTreeMap<_, _>>(), before, "a clone does not see the change");
            }
            prop_assert!(producers.iter().eq(plain.clone()), "in order");
            for slot in plain.keys().map(|key| key.0).chain([Slot(0), Slot(7)]) {
                let of_slot = plain.iter().filter(|(key, _)| key.0 == slot).map(|(key, state)| (key.1, state.clone()));
                prop_assert!(producers.of(slot).eq(of_slot));
            }
            for key in plain.keys() {
                prop_assert!(producers.remove(key));
            }
            prop_assert_eq!((producers.len(), producers.packs.len()), (0, 0));
        }
    }
}
