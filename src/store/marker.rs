//! Whose bucket this is: the object `cluster`, created once and never changed. Its format is in
//! `docs/formats/bucket.md`.
use super::{Bucket, CreateOutcome, Key, Purpose, StoreError};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

/// The marker's key.
pub const MARKER_KEY: &str = "cluster";

const MAGIC: &[u8; 8] = b"SLBUCKET";
/// The layout of the whole bucket: keys and what they mean. A broker refuses a version that it does not know.
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 8 + 2 + 4;
const CRC_BYTES: usize = 4;

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Marker {
    #[prost(string, tag = "1")]
    cluster_id: String,
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The bucket belongs to the cluster that asked, now or already before.
    Ours,
    /// It belongs to this cluster; nothing may be written to it.
    BelongsTo(String),
}

/// Why it is not known whose bucket this is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarkerError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the bucket has layout {found}, and this version of Strandline knows up to {VERSION}: use a newer one")]
    Newer { found: u16 },
    #[error("the object {MARKER_KEY:?} is no cluster marker ({0}): is this another program's bucket?")]
    Foreign(&'static str),
}

/// Takes the bucket for `cluster_id` if nobody has it. True after [`Claim::Ours`]: no other cluster can claim it any
/// more. May be repeated.
///
/// # Errors
/// See [`MarkerError`]; only those of the store can pass.
pub async fn claim(bucket: &dyn Bucket, cluster_id: &str) -> Result<Claim, MarkerError> {
    let body = encode(&Marker { cluster_id: cluster_id.to_owned() });
    if bucket.create(&Key::from(MARKER_KEY), vec![body], Purpose::Control).await? == CreateOutcome::Created {
        return Ok(Claim::Ours);
    }
    Ok(match peek(bucket).await? {
        Some(owner) if owner == cluster_id => Claim::Ours,
        Some(owner) => Claim::BelongsTo(owner),
        // Somebody removed the marker between the two requests, which no broker does.
        None => return Err(MarkerError::Foreign("it comes and goes")),
    })
}

/// The id of the cluster that has the bucket, if one has.
///
/// # Errors
/// See [`MarkerError`].
pub async fn peek(bucket: &dyn Bucket) -> Result<Option<String>, MarkerError> {
    match bucket.read(&Key::from(MARKER_KEY), None, Purpose::Control).await {
        Ok(bytes) => match decode(&bytes) {
            Ok(marker) => Ok(Some(marker.cluster_id)),
            // Perhaps it was damaged on its way; the bucket is called another program's only if it is so twice.
            Err(_) => {
                let again = bucket.read(&Key::from(MARKER_KEY), None, Purpose::Control).await?;
                Ok(Some(decode(&again)?.cluster_id))
            }
        },
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn encode(marker: &Marker) -> Bytes {
    let message = marker.encode_to_vec();
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES + message.len() + CRC_BYTES);
    bytes.put_slice(MAGIC);
    bytes.put_u16(VERSION);
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(&message);
    let crc = crc32c::crc32c(&bytes);
    bytes.put_u32(crc);
    bytes.freeze()
}

fn decode(bytes: &[u8]) -> Result<Marker, MarkerError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(MarkerError::Foreign("its magic is another"))?;
    let (version, rest) = rest.split_first_chunk().ok_or(MarkerError::Foreign("it is cut"))?;
    let found = u16::from_be_bytes(*version);
    if found > VERSION {
        return Err(MarkerError::Newer { found });
    }
    let (length, rest) = rest.split_first_chunk().ok_or(MarkerError::Foreign("it is cut"))?;
    let (message, crc) = rest.split_last_chunk().ok_or(MarkerError::Foreign("it is cut"))?;
    if usize::try_from(u32::from_be_bytes(*length)) != Ok(message.len()) {
        return Err(MarkerError::Foreign("its length is wrong"));
    }
    if crc32c::crc32c(&bytes[..bytes.len() - CRC_BYTES]) != u32::from_be_bytes(*crc) {
        return Err(MarkerError::Foreign("its checksum does not hold"));
    }
    Marker::decode(message).map_err(|_| MarkerError::Foreign("its message can't be read"))
}

#[cfg(test)]
mod tests {
    use super::super::MemoryBucket;
    use super::*;

    #[tokio::test]
    async fn a_bucket_belongs_to_the_first_cluster_that_claims_it() {
        let bucket = MemoryBucket::new();
        assert_eq!(peek(&bucket).await, Ok(None));
        assert_eq!(claim(&bucket, "one").await, Ok(Claim::Ours));
        assert_eq!(claim(&bucket, "one").await, Ok(Claim::Ours));
        assert_eq!(claim(&bucket, "two").await, Ok(Claim::BelongsTo("one".into())));
        assert_eq!(peek(&bucket).await, Ok(Some("one".into())));
    }

    #[tokio::test]
    async fn a_marker_that_is_not_ours_to_read_is_not_overwritten() {
        let whole = encode(&Marker { cluster_id: "one".into() });
        for cut in 0..whole.len() {
            let bucket = MemoryBucket::new();
            bucket.overwrite(MARKER_KEY, whole.slice(..cut));
            assert!(matches!(claim(&bucket, "two").await, Err(MarkerError::Foreign(_))), "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.to_vec();
            changed[at] ^= 1;
            assert!(decode(&changed).is_err(), "changed at {at}");
        }
        let mut newer = whole.to_vec();
        newer[9] = 2;
        assert_eq!(decode(&newer), Err(MarkerError::Newer { found: 2 }));
    }

    /// Written once, readable for ever.
    #[test]
    fn the_format_is_the_documented_one() {
        let bytes = encode(&Marker { cluster_id: "abc".into() });
        assert_eq!(&bytes[..19], b"SLBUCKET\x00\x01\x00\x00\x00\x05\x0a\x03abc");
        assert_eq!(&bytes[19..], crc32c::crc32c(&bytes[..19]).to_be_bytes());
    }
}
