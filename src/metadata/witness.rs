//! What can be seen of the journal's history in the bucket, where the loss of the journal's store does not reach (H2):
//! every key there that names an entry which somebody had applied. Objects and snapshots come by themselves; a broker
//! that writes nothing leaves a small object now and then.
use async_trait::async_trait;
use futures::future::try_join_all;
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

use super::fork;
use super::owner::Fatal;
use super::snapshots::SNAPSHOT_PREFIX;
use super::{Replica, Shared};
use crate::journal::{Journal, JournalError, WitnessError, Witnesses};
use crate::planted::{Defect, planted};
use crate::segment::{ObjectKind, ObjectName};
use crate::store::{Bucket, Listed, Purpose, StoreError};
use crate::types::{Head, Position, Token};
use crate::world::World;

/// Where brokers leave what they have applied.
pub const WITNESS_PREFIX: &str = "witness/";

/// Rows of one listing.
const PAGE: usize = 1000;

/// The key of an object that is of one moment of the history; keys sort by position.
pub(super) fn key(prefix: &str, at: Head, nonce: u64) -> String {
    format!("{prefix}{:016x}-{:016x}-{nonce:016x}", at.position.0, at.token.0)
}

/// The moment that a key of this form names; `None` if it is of another.
pub(super) fn moment(prefix: &str, key: &str) -> Option<Head> {
    let mut parts = key.strip_prefix(prefix)?.split('-');
    let position = u64::from_str_radix(parts.next()?, 16).ok()?;
    let token = u64::from_str_radix(parts.next()?, 16).ok()?;
    parts.next().map(|_| Head { position: Position(position), token: Token(token) })
}

/// Everything below `prefix` whose key is of `position` or later, sorted by key.
pub(super) async fn list_since(
    bucket: &dyn Bucket,
    prefix: &str,
    position: Position,
) -> Result<Vec<Listed>, StoreError> {
    list_for(bucket, prefix, position, Purpose::Control).await
}

/// The same, for a purpose of the caller's.
pub(super) async fn list_for(
    bucket: &dyn Bucket,
    prefix: &str,
    position: Position,
    purpose: Purpose,
) -> Result<Vec<Listed>, StoreError> {
    let (mut found, mut after) = (Vec::new(), Some(format!("{prefix}{:016x}", position.0)));
    loop {
        let page = bucket.list(prefix, after.as_ref(), PAGE, purpose).await?;
        after = page.last().map(|last| last.key.clone());
        let full = page.len() == PAGE;
        found.extend(page);
        if !full {
            return Ok(found);
        }
    }
}

/// Every entry from `position` on that a key in the bucket names, with such a key.
pub(super) async fn seen_since(bucket: &dyn Bucket, position: Position) -> Result<Vec<(Head, String)>, StoreError> {
    let (mut few, many) =
        futures::future::try_join(few_since(bucket, position), objects_since(bucket, position)).await?;
    few.extend(many);
    Ok(few)
}

/// Of snapshots, witnesses and marks, of which there are never many.
pub(super) async fn few_since(bucket: &dyn Bucket, position: Position) -> Result<Vec<(Head, String)>, StoreError> {
    let prefixes = [SNAPSHOT_PREFIX, WITNESS_PREFIX, fork::STATE_PREFIX, fork::FOUND_PREFIX];
    let lists = prefixes.map(|prefix| async move {
        let listed = list_since(bucket, prefix, position).await?;
        Ok(listed.into_iter().filter_map(|o| Some((moment(prefix, &o.key)?, o.key))).collect::<Vec<_>>())
    });
    Ok(try_join_all(lists).await?.into_iter().flatten().collect())
}

/// Of objects of records.
pub(super) async fn objects_since(bucket: &dyn Bucket, position: Position) -> Result<Vec<(Head, String)>, StoreError> {
    let lists = ObjectName::prefixes(ObjectKind::Data).map(|prefix| async move {
        let listed = list_since(bucket, &prefix, position).await?;
        let applied = |o: Listed| Some((ObjectName::parse(&o.key)?.applied, o.key));
        Ok(listed.into_iter().filter_map(applied).collect::<Vec<_>>())
    });
    Ok(try_join_all(lists).await?.into_iter().flatten().collect())
}

/// The witnesses that lie in a bucket.
pub struct BucketWitnesses(pub Arc<dyn Bucket>);

#[async_trait]
impl Witnesses for BucketWitnesses {
    async fn since(&self, position: Position) -> Result<Vec<Head>, WitnessError> {
        let unavailable = |error: StoreError| WitnessError::Unavailable(error.to_string());
        if let Some(mark) = fork::found(&*self.0).await.map_err(unavailable)? {
            return Err(WitnessError::Forked(format!("a fork was found before, see {mark} in the bucket")));
        }
        if planted(Defect::ForkIgnored) {
            return Ok(Vec::new());
        }
        let seen = seen_since(&*self.0, position).await.map_err(unavailable)?;
        Ok(seen.into_iter().map(|(head, _)| head).collect())
    }
}

/// Leaves witnesses of what a replica has applied, and sees those of forks that others found.
pub(super) struct Witness {
    pub(super) replica: Replica,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) bucket: Arc<dyn Bucket>,
    pub(super) world: World,
    pub(super) interval: Duration,
}

impl Witness {
    /// Works until somebody finds a fork.
    pub(super) async fn run(self) -> Fatal {
        let (mut last, mut failing) = (Head::default(), false);
        let mut left: Option<String> = None;
        loop {
            let half = self.interval / 2;
            self.world.sleep(half + Duration::from_micros(self.world.random_below(half.as_micros() as u64 + 1))).await;
            match fork::found(&*self.bucket).await {
                Ok(Some(mark)) => return Fatal::ForkFound { mark },
                Ok(None) => {}
                // The next look is soon.
                Err(_) => continue,
            }
            if let Some(fatal) = self.compare(last).await.filter(|_| !planted(Defect::ForkIgnored)) {
                return fatal;
            }
            let head = self.replica.applied();
            if head == last {
                continue;
            }
            match self.leave(&self.replica.shared, head).await {
                Ok(key) => {
                    if let Some(old) = left.replace(key) {
                        // What is not deleted is a small object too many.
                        let _ = self.bucket.delete(&old, Purpose::Control).await;
                    }
                    (last, failing) = (head, false);
                }
                Err(error) if !failing => {
                    warn!(%error, "no witness of the journal's history was left in the bucket, trying on");
                    failing = true;
                }
                Err(_) => {}
            }
        }
    }

    /// Holds the last witness of the others that is not ahead of us against the journal: a fork that nobody noticed when it
    /// happened is noticed here.
    async fn compare(&self, last: Head) -> Option<Fatal> {
        let others = async || {
            let listed = list_since(&*self.bucket, WITNESS_PREFIX, last.position).await.unwrap_or_default();
            listed.into_iter().filter_map(|o| moment(WITNESS_PREFIX, &o.key)).collect::<Vec<_>>()
        };
        let applied = self.replica.applied().position;
        let newest = others().await.into_iter().filter(|seen| seen.position <= applied).max()?;
        let page = self.journal.read(newest.position).await.ok()?;
        let found = page.first()?.proposal.token;
        // A name that was damaged on its way is not there when asked for again.
        if found == newest.token || !others().await.contains(&newest) {
            return None;
        }
        let reason = format!("another broker has seen it, and the journal has {:016x} there", found.0);
        Some(Fatal::Journal(JournalError::Forked { after: newest, reason }))
    }

    async fn leave(&self, shared: &Shared, head: Head) -> Result<String, StoreError> {
        let key = key(WITNESS_PREFIX, head, self.world.random_u64());
        let body = format!("broker {}\n", shared.broker.0);
        self.bucket.create(&key, vec![body.into()], Purpose::Control).await?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_moment() {
        let at = Head { position: Position(77), token: Token(u64::MAX) };
        let made = key(WITNESS_PREFIX, at, 5);
        assert_eq!(made, "witness/000000000000004d-ffffffffffffffff-0000000000000005");
        assert_eq!(moment(WITNESS_PREFIX, &made), Some(at));
        for other in ["", "witness/", "witness/4d-1", "witness/x-1-1", "snapshots/4d-1-1"] {
            assert_eq!(moment(WITNESS_PREFIX, other), None, "{other}");
        }
    }
}
