//! A bucket in memory, for tests and the simulation: no thread, no clock, no chance, and no await that waits. Clones
//! share the objects, as several brokers share a bucket.
use super::{Body, Bucket, CreateOutcome, Key, Listed, Purpose, StoreError, key};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct MemoryBucket(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// A mutex and not an owner task: nothing awaits while it is held.
    objects: Mutex<Objects>,
    bytes_max: Option<u64>,
}

#[derive(Debug, Default)]
struct Objects {
    by_key: BTreeMap<Key, Bytes>,
    bytes: u64,
}

impl MemoryBucket {
    /// An empty bucket without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty bucket that refuses a create that would take it beyond `bytes_max`, as a full disk does.
    #[must_use]
    pub fn with_limit(bytes_max: u64) -> Self {
        Self(Arc::new(Inner { objects: Mutex::default(), bytes_max: Some(bytes_max) }))
    }

    /// The bytes of all objects.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.objects().bytes
    }

    /// All objects as they are now, for tests that compare or damage them.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<Key, Bytes> {
        self.objects().by_key.clone()
    }

    /// Puts `content` under `key` whatever is there: what no bucket does to us, for tests of damage.
    pub fn overwrite(&self, key: &str, content: Bytes) {
        let mut objects = self.objects();
        objects.bytes += content.len() as u64;
        if let Some(old) = objects.by_key.insert(key.to_owned(), content) {
            objects.bytes -= old.len() as u64;
        }
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.0.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Bucket for MemoryBucket {
    async fn create(&self, key: &Key, body: Body, _: Purpose) -> Result<CreateOutcome, StoreError> {
        key::check(key)?;
        let content = join(body);
        let mut objects = self.objects();
        if let Some(there) = objects.by_key.get(key) {
            return Ok(if *there == content { CreateOutcome::Created } else { CreateOutcome::Taken });
        }
        let bytes = objects.bytes + content.len() as u64;
        if self.0.bytes_max.is_some_and(|max| bytes > max) {
            return Err(StoreError::Refused { what: format!("create {key}"), reason: "the bucket is full".into() });
        }
        objects.bytes = bytes;
        objects.by_key.insert(key.clone(), content);
        Ok(CreateOutcome::Created)
    }

    async fn read(&self, key: &Key, range: Option<Range<u64>>, _: Purpose) -> Result<Bytes, StoreError> {
        key::check(key)?;
        let content = self.objects().by_key.get(key).cloned();
        let content = content.ok_or_else(|| StoreError::NotFound { key: key.clone() })?;
        let Some(range) = range else { return Ok(content) };
        match (usize::try_from(range.start), usize::try_from(range.end)) {
            (Ok(start), Ok(end)) if start <= end && end <= content.len() => Ok(content.slice(start..end)),
            _ => Err(super::out_of_range(key, &range, Some(content.len() as u64))),
        }
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
        _: Purpose,
    ) -> Result<Vec<Listed>, StoreError> {
        let from = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix),
        };
        let objects = self.objects();
        let rows = objects.by_key.range::<str, _>((from, Bound::Unbounded));
        let rows = rows.take_while(|(key, _)| key.starts_with(prefix)).take(limit);
        Ok(rows.map(|(key, content)| Listed { key: key.clone(), bytes: content.len() as u64 }).collect())
    }

    async fn delete(&self, key: &Key, _: Purpose) -> Result<(), StoreError> {
        key::check(key)?;
        let mut objects = self.objects();
        if let Some(old) = objects.by_key.remove(key) {
            objects.bytes -= old.len() as u64;
        }
        Ok(())
    }
}

fn join(mut body: Body) -> Bytes {
    if body.len() == 1 {
        return body.remove(0);
    }
    let mut content = BytesMut::with_capacity(body.iter().map(Bytes::len).sum());
    body.iter().for_each(|chunk| content.extend_from_slice(chunk));
    content.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_bucket_refuses_and_keeps_nothing() {
        let bucket = MemoryBucket::with_limit(4);
        let create = |key: &str, content: &'static [u8]| {
            let (bucket, key) = (bucket.clone(), key.to_owned());
            async move { bucket.create(&key, vec![Bytes::from_static(content)], Purpose::Ingest).await }
        };
        assert_eq!(create("a", b"123").await, Ok(CreateOutcome::Created));
        assert!(matches!(create("b", b"12").await, Err(StoreError::Refused { .. })));
        bucket.delete(&"a".into(), Purpose::Control).await.unwrap();
        assert_eq!(create("b", b"12").await, Ok(CreateOutcome::Created));
        assert_eq!((bucket.bytes(), bucket.contents().len()), (2, 1));
    }
}
