//! Whether a store can do what we rely on, asked once at start: better a clear refusal then than lost data later.
use super::{Bucket, CreateOutcome, Key, Purpose, StoreError};
use crate::world::World;
use bytes::Bytes;

/// What a store lacks, or that it did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// It answered, and wrongly: nothing that we wait for will mend it.
    #[error("the bucket can't be used, it lacks {what}: {found}")]
    Lacks { what: &'static str, found: String },
    /// It refused or did not answer; may pass.
    #[error("the bucket could not be probed for {what}: {source}")]
    Failed { what: &'static str, source: StoreError },
}

const CONDITIONAL_CREATE: &str = "create-if-absent (If-None-Match: * on S3)";
const WHOLE_READS: &str = "reading back what was written";
const RANGE_READS: &str = "range reads";
const LISTING: &str = "listing by prefix";
const DELETING: &str = "deleting";

/// Writes a small object under `probe/`, tries on it everything that we rely on, and deletes it. When this returns
/// `Ok`, the bucket answers, our credentials suffice, and a second create of a key is refused. An object of a probe
/// that was killed stays; it has some bytes.
///
/// # Errors
/// See [`ProbeError`].
pub async fn probe(bucket: &dyn Bucket, world: &World) -> Result<(), ProbeError> {
    let key = format!("probe/{:016x}", world.random_u64());
    let result = try_all(bucket, &key).await;
    let deleted = delete(bucket, &key).await;
    result.and(deleted)
}

async fn try_all(bucket: &dyn Bucket, key: &Key) -> Result<(), ProbeError> {
    let content = Bytes::from(format!("Strandline asks what this store can do: {key}"));
    let create = |body: Bytes| bucket.create(key, vec![body], Purpose::Control);
    let first = answered(CONDITIONAL_CREATE, create(content.clone()).await)?;
    expect(CONDITIONAL_CREATE, &first, &CreateOutcome::Created)?;
    // Of the same length, so that only the bytes tell them apart.
    let other = Bytes::from(content.to_ascii_uppercase());
    let second = answered(CONDITIONAL_CREATE, create(other).await)?;
    expect(CONDITIONAL_CREATE, &second, &CreateOutcome::Taken)?;
    let again = answered(CONDITIONAL_CREATE, create(content.clone()).await)?;
    expect(CONDITIONAL_CREATE, &again, &CreateOutcome::Created)?;

    let whole = answered(WHOLE_READS, bucket.read(key, None, Purpose::Control).await)?;
    expect(WHOLE_READS, &whole, &content)?;
    let part = answered(RANGE_READS, bucket.read(key, Some(3..9), Purpose::Control).await)?;
    expect(RANGE_READS, &part, &content.slice(3..9))?;

    let listed = answered(LISTING, bucket.list(key, None, 10, Purpose::Control).await)?;
    let listed: Vec<_> = listed.into_iter().map(|row| row.key).collect();
    expect(LISTING, &listed, &vec![key.clone()])
}

async fn delete(bucket: &dyn Bucket, key: &Key) -> Result<(), ProbeError> {
    answered(DELETING, bucket.delete(key, Purpose::Control).await)?;
    match bucket.read(key, None, Purpose::Control).await {
        Err(StoreError::NotFound { .. }) => Ok(()),
        Ok(_) => Err(ProbeError::Lacks { what: DELETING, found: "the object is still there".into() }),
        Err(source) => Err(ProbeError::Failed { what: DELETING, source }),
    }
}

/// An answer that makes no sense is a lack; silence and refusals are not.
fn answered<T>(what: &'static str, answer: Result<T, StoreError>) -> Result<T, ProbeError> {
    answer.map_err(|source| match source {
        StoreError::NotFound { .. } | StoreError::Damaged { .. } => {
            ProbeError::Lacks { what, found: source.to_string() }
        }
        StoreError::Refused { .. } | StoreError::Unknown { .. } => ProbeError::Failed { what, source },
    })
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &'static str, found: &T, right: &T) -> Result<(), ProbeError> {
    if found == right {
        return Ok(());
    }
    Err(ProbeError::Lacks { what, found: format!("it answered {found:?} instead of {right:?}") })
}

#[cfg(test)]
mod tests {
    use super::super::{Body, Listed, MemoryBucket};
    use super::*;
    use async_trait::async_trait;
    use std::ops::Range;

    /// A store with one thing wrong.
    struct Broken {
        bucket: MemoryBucket,
        wrong: &'static str,
    }

    #[async_trait]
    impl Bucket for Broken {
        async fn create(&self, key: &Key, body: Body, purpose: Purpose) -> Result<CreateOutcome, StoreError> {
            if self.wrong == CONDITIONAL_CREATE {
                self.bucket.overwrite(key, body.concat().into());
                return Ok(CreateOutcome::Created);
            }
            self.bucket.create(key, body, purpose).await
        }

        async fn read(&self, key: &Key, range: Option<Range<u64>>, purpose: Purpose) -> Result<Bytes, StoreError> {
            let range = range.filter(|_| self.wrong != RANGE_READS);
            self.bucket.read(key, range, purpose).await
        }

        async fn list(&self, p: &str, a: Option<&Key>, l: usize, purpose: Purpose) -> Result<Vec<Listed>, StoreError> {
            self.bucket.list(p, a, if self.wrong == LISTING { 0 } else { l }, purpose).await
        }

        async fn delete(&self, key: &Key, purpose: Purpose) -> Result<(), StoreError> {
            if self.wrong == DELETING { Ok(()) } else { self.bucket.delete(key, purpose).await }
        }
    }

    #[tokio::test]
    async fn what_is_lacking_is_named() {
        let world = World::seeded(1);
        for wrong in [CONDITIONAL_CREATE, RANGE_READS, LISTING, DELETING] {
            let bucket = Broken { bucket: MemoryBucket::new(), wrong };
            let got = probe(&bucket, &world).await;
            assert!(matches!(&got, Err(ProbeError::Lacks { what, .. }) if *what == wrong), "{wrong}: {got:?}");
        }
        let bucket = MemoryBucket::new();
        assert_eq!(probe(&bucket, &world).await, Ok(()));
        assert_eq!(bucket.bytes(), 0);
        let full = probe(&MemoryBucket::with_limit(3), &world).await;
        assert!(matches!(full, Err(ProbeError::Failed { .. })), "{full:?}");
    }
}
