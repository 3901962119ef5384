//! What lies in the bucket beside snapshots: data objects, the cluster's marker, names.
use bytes::Bytes;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use strandline::config::HostPort;
use strandline::segment::{HEADER_BYTES, ObjectName, ObjectWriter, read_footer};
use strandline::store::marker::{Claim, MARKER_KEY, claim, peek};
use strandline::store::{Bucket, CreateOutcome, MemoryBucket, Purpose};

use crate::heap;

/// A bucket in memory never waits.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(given) => given,
        Poll::Pending => panic!("a bucket in memory waits"),
    }
}

const TRAILER_BYTES: usize = 16;
const ROW_BYTES: usize = 32;

/// A whole object; once as it is, once with checksums made right.
pub(crate) fn object(data: &[u8]) -> bool {
    let _ = heap::within("a footer", 4 * data.len() + (64 << 10), || read_footer(data));
    let Some(object) = with_checksums(data) else { return false };
    let Ok((header, runs)) = heap::within("a footer", 4 * object.len() + (64 << 10), || read_footer(&object)) else {
        return false;
    };
    // What was read is written again as its writer would have.
    let mut writer = ObjectWriter::new(&header);
    let (start, end) = (HEADER_BYTES as usize, object.len() - TRAILER_BYTES - ROW_BYTES * runs.len());
    writer.push(Bytes::copy_from_slice(&object[start..end]));
    for run in &runs {
        writer.end_run(run.topic, run.partition, HEADER_BYTES, run.batches);
    }
    let again = writer.finish().0.concat();
    let (header_again, runs_again) = read_footer(&again).expect("what a writer writes is read");
    assert_eq!((header_again, runs_again.len()), (header, runs.len()));
    assert_eq!(ObjectName::parse(&header.name.key()), Some(header.name));
    let mut damaged = object;
    let at = crc32c::crc32c(data) as usize % (8 * damaged.len());
    damaged[at / 8] ^= 1 << (at % 8);
    assert!(read_footer(&damaged).is_err(), "a flipped bit {at} is noticed");
    true
}

fn with_checksums(data: &[u8]) -> Option<Vec<u8>> {
    let start = HEADER_BYTES as usize;
    if data.len() < start + TRAILER_BYTES {
        return None;
    }
    let mut object = data.to_vec();
    let trailer = object.len() - TRAILER_BYTES;
    object[..6].copy_from_slice(b"SLOB\0\x01");
    let crc = crc32c::crc32c(&object[..start - 4]);
    object[start - 4..start].copy_from_slice(&crc.to_be_bytes());
    let count = u32::from_be_bytes(object[trailer + 4..trailer + 8].try_into().ok()?) as usize;
    let footer = trailer.checked_sub(count.checked_mul(ROW_BYTES)?).filter(|at| *at >= start)?;
    let crcs = [crc32c::crc32c(&object[start..footer]), crc32c::crc32c(&object[footer..trailer])];
    object[trailer..trailer + 4].copy_from_slice(&crcs[0].to_be_bytes());
    object[trailer + 8..trailer + 12].copy_from_slice(&crcs[1].to_be_bytes());
    object[trailer + 12..].copy_from_slice(b"SLOB");
    Some(object)
}

/// What lies under the marker's key; once as it is, once as the message of a marker that is otherwise right.
pub(crate) fn marker(data: &[u8]) -> bool {
    let found = |bytes: Vec<u8>| {
        let bucket = MemoryBucket::new();
        bucket.overwrite(MARKER_KEY, bytes.into());
        let most = 16 * data.len() + (64 << 10);
        let peeked = heap::within("a marker", most, || block_on(peek(&bucket)));
        let claimed = block_on(claim(&bucket, "other"));
        match &peeked {
            Ok(Some(owner)) if owner == "other" => assert_eq!(claimed, Ok(Claim::Ours)),
            Ok(Some(owner)) => assert_eq!(claimed, Ok(Claim::BelongsTo(owner.clone()))),
            Ok(None) => panic!("the marker is there"),
            Err(_) => assert!(claimed.is_err(), "what can't be read is not taken over"),
        }
        peeked.is_ok()
    };
    found(data.to_vec());
    let mut whole = b"SLBUCKET\0\x01".to_vec();
    whole.extend_from_slice(&(data.len() as u32).to_be_bytes());
    whole.extend_from_slice(data);
    let crc = crc32c::crc32c(&whole);
    whole.extend_from_slice(&crc.to_be_bytes());
    found(whole)
}

/// Keys of buckets, names of objects, addresses of listeners.
pub(crate) fn names(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    if let Some(name) = ObjectName::parse(text) {
        assert_eq!(name.key(), text);
        assert!(text.starts_with(name.kind.prefix()));
    }
    if let Ok(address) = HostPort::parse(text) {
        assert_eq!(HostPort::parse(&address.to_string()), Ok(address.clone()));
        let _ = (address.is_loopback(), address.is_wildcard());
    }
    let (bucket, key) = (MemoryBucket::new(), text.to_owned());
    if block_on(bucket.create(&key, vec![Bytes::from_static(b"x")], Purpose::Control)) == Ok(CreateOutcome::Created) {
        assert!(key.len() <= 768 && !key.split('/').any(|s| s.is_empty() || s == "." || s == ".."));
        assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b)));
        assert_eq!(block_on(bucket.read(&key, None, Purpose::Control)).as_deref(), Ok(&b"x"[..]));
    }
    true
}
