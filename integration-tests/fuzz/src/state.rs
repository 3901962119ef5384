//! What stands in the journal and in snapshots.
use bytes::Bytes;
use strandline::state::{Command, CommandKind, Entry, RunSpec, RunsReader, RunsWriter, State};
use strandline::types::Position;

use crate::heap;

/// A State may take this many times its snapshot, of which the least topic is some twenty bytes. Beyond that a number was believed.
const STATE_RATIO: usize = 1024;
const STATE_FREE: usize = 16 << 20;
/// Of a snapshot: how many places for partitions it has, deleted ones included. They take their memory though nothing
/// else tells of them (as they do in the broker that wrote it), so inputs that claim many say nothing about the rest.
const NEXT_SLOT_KEY: u8 = 11 << 3;
const NEXT_SLOT_MAX: u64 = 1 << 20;

/// Whether a field that looks like the number of places is large, and yet not so large that it is refused.
fn claims_much(body: &[u8]) -> bool {
    let value =
        |bytes: &[u8]| bytes.iter().take(5).zip(0..).fold(0, |sum, (b, at)| sum | u64::from(b & 0x7f) << (7 * at));
    let varint =
        |bytes: &[u8]| value(&bytes[..bytes.iter().position(|b| *b < 0x80).map_or(bytes.len(), |end| end + 1)]);
    let places = (1..body.len()).filter(|at| body[at - 1] == NEXT_SLOT_KEY).map(|at| varint(&body[at..]));
    places.into_iter().any(|places| (NEXT_SLOT_MAX..=1 << 28).contains(&(places & 0xffff_ffff)))
}

/// `body` between its magic and a right checksum.
fn sealed(magic: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut out = [&magic[..], &[1], body].concat();
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// The same bytes but for one bit, which one of them depends on all of them.
fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let at = crc32c::crc32c(bytes) as usize % (8 * bytes.len());
    out[at / 8] ^= 1 << (at % 8);
    out
}

/// The bodies of entries, each after its length in two bytes. They are applied one after another.
pub(crate) fn journal(data: &[u8]) -> bool {
    let _ = Entry::decode_framed(Bytes::copy_from_slice(data));
    let (mut state, mut rest, mut kept) = (State::default(), data, false);
    let mut entries = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length)).min(behind.len());
        let (body, behind) = behind.split_at(length);
        rest = behind;
        let framed = Bytes::from(sealed(b"SLJE", body));
        let most = 64 * framed.len() + (64 << 10);
        let Ok(entry) = heap::within("an entry", most, || Entry::decode_framed(framed.clone())) else { continue };
        let again = entry.encode_framed();
        assert_eq!(Entry::decode_framed(again.clone()).as_ref(), Ok(&entry), "an entry comes back");
        assert!(Entry::decode_framed(flipped(&again).into()).is_err(), "a flipped bit is noticed");
        assert!(Entry::decode_framed(flipped(&framed).into()).is_err(), "a flipped bit is noticed");
        kept = true;
        entries.push(entry);
    }
    for (entry, position) in entries.iter().zip(1..) {
        let outcomes = state.apply(Position(position), entry);
        assert_eq!(outcomes.len(), entry.commands.len());
        packed_runs(&entry.commands);
    }
    if kept {
        comes_back(&state);
    }
    kept
}

/// The runs of commands come back from what they are written as.
fn packed_runs(commands: &[Command]) {
    for command in commands {
        if let Some(CommandKind::CommitRuns(commit)) = &command.kind {
            rewritten(commit.base_timestamp, &commit.runs);
        }
    }
}

/// A timestamp of eight bytes, and packed runs.
pub(crate) fn runs(data: &[u8]) -> bool {
    let Some((base, packed)) = data.split_first_chunk() else { return false };
    rewritten(i64::from_be_bytes(*base), packed)
}

fn rewritten(base: i64, packed: &[u8]) -> bool {
    let read = |base, packed: &[u8]| {
        let (mut reader, mut run, mut all) = (RunsReader::new(base, packed), RunSpec::empty(), Vec::new());
        while reader.next_into(&mut run).ok()? {
            all.push(run.clone());
        }
        Some(all)
    };
    // A batch of two bytes takes forty, twice while the list grows.
    let Some(runs) = heap::within("runs", 128 * packed.len() + 1024, || read(base, packed)) else { return false };
    let mut writer = RunsWriter::default();
    runs.iter().for_each(|run| writer.push(run));
    let (base, packed) = writer.finish();
    assert_eq!(read(base, &packed), Some(runs), "runs come back");
    true
}

/// The body of a snapshot.
pub(crate) fn snapshot(data: &[u8]) -> bool {
    if claims_much(data) {
        return false;
    }
    let _ = State::decode_snapshot(data);
    let whole = sealed(b"SLSN", data);
    let most = STATE_RATIO * whole.len() + STATE_FREE;
    let Ok((header, state)) = heap::within("a snapshot", most, || State::decode_snapshot(&whole)) else { return false };
    assert!(State::decode_snapshot(&flipped(&whole)).is_err(), "a flipped bit is noticed");
    assert_eq!(header.at, state.head());
    comes_back(&state);
    true
}

/// A State comes back from its snapshot, which then is the same to the byte.
fn comes_back(state: &State) {
    let (header, bytes) = state.encode_snapshot();
    let (read, again) = State::decode_snapshot(&bytes).unwrap_or_else(|e| panic!("our own snapshot: {e}"));
    assert_eq!(header, read);
    let (header, second) = again.encode_snapshot();
    assert!(header == read && second == bytes, "a State is the same after a snapshot");
    assert!(State::decode_snapshot(&flipped(&bytes)).is_err(), "a flipped bit is noticed");
}
