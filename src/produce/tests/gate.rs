//! A bucket whose creates end as a test says, object by object.
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::store::{Body, Bucket, CreateOutcome, Key, Listed, Purpose, StoreError};
use crate::world::World;

/// What becomes of one object's creates, whatever the number of attempts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// Done after this time.
    After(Duration),
    /// Not done, and said so, that many times; then done.
    Fails(u32),
    /// Done, but the answer is lost that many times.
    Lost(u32),
    /// Done, and taken for another object that many times, since it is read back with a wrong byte.
    Misread(u32),
    Hangs,
}

#[derive(Clone)]
pub(super) struct Gate {
    bucket: Arc<dyn Bucket>,
    world: World,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Default)]
struct Plan {
    next: VecDeque<Fate>,
    by_chance: bool,
    fates: BTreeMap<Key, Fate>,
    open: usize,
    most_open: usize,
    creates: usize,
}

impl Gate {
    pub(super) fn new(bucket: Arc<dyn Bucket>, world: World) -> Self {
        Self { bucket, world, plan: Arc::default() }
    }

    /// The fates of the next objects, in the order in which they come; after them all is done at once.
    pub(super) fn next(&self, fates: impl IntoIterator<Item = Fate>) {
        self.plan().next.extend(fates);
    }

    /// Forgets the fates that no object took.
    pub(super) fn clear(&self) {
        self.plan().next.clear();
    }

    /// From now on, or not any more, the world's chance decides.
    pub(super) fn by_chance(&self, by_chance: bool) {
        self.plan().by_chance = by_chance;
    }

    /// Creates that are being served.
    pub(super) fn open(&self) -> usize {
        self.plan().open
    }

    pub(super) fn most_open(&self) -> usize {
        self.plan().most_open
    }

    /// Creates that came, attempts counted one by one.
    pub(super) fn creates(&self) -> usize {
        self.plan().creates
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self, key: &Key) -> Fate {
        let mut plan = self.plan();
        plan.creates += 1;
        if let Some(fate) = plan.fates.get_mut(key) {
            let now = *fate;
            if let Fate::Fails(left) | Fate::Lost(left) | Fate::Misread(left) = fate {
                *left = left.saturating_sub(1);
            }
            return now;
        }
        let scripted = plan.next.pop_front();
        let chance = plan.by_chance;
        let fate = scripted.unwrap_or_else(|| if chance { self.drawn() } else { Fate::After(Duration::ZERO) });
        let rest = match fate {
            Fate::Fails(n) => Fate::Fails(n.saturating_sub(1)),
            Fate::Lost(n) => Fate::Lost(n.saturating_sub(1)),
            Fate::Misread(n) => Fate::Misread(n.saturating_sub(1)),
            other => other,
        };
        plan.fates.insert(key.clone(), rest);
        fate
    }

    fn drawn(&self) -> Fate {
        let world = &self.world;
        match world.random_below(20) {
            0 => Fate::Hangs,
            1 | 2 => Fate::Fails(1 + world.random_below(12) as u32),
            3 => Fate::Lost(1 + world.random_below(12) as u32),
            4 => Fate::After(Duration::from_millis(world.random_below(8_000))),
            _ => Fate::After(Duration::from_millis(world.random_below(300))),
        }
    }
}

/// Counts a create while it is served, also if it is dropped.
struct Open<'a>(&'a Gate);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.plan().open -= 1;
    }
}

#[async_trait]
impl Bucket for Gate {
    async fn create(&self, key: &Key, body: Body, purpose: Purpose) -> Result<CreateOutcome, StoreError> {
        let fate = self.fate(key);
        let _open = {
            let mut plan = self.plan();
            plan.open += 1;
            plan.most_open = plan.most_open.max(plan.open);
            Open(self)
        };
        let unknown = || Err(StoreError::Unknown { what: format!("create {key}"), reason: "a test".into() });
        match fate {
            Fate::After(time) => {
                self.world.sleep(time).await;
                self.bucket.create(key, body, purpose).await
            }
            Fate::Fails(1..) => unknown(),
            Fate::Lost(1..) => self.bucket.create(key, body, purpose).await.and(unknown()),
            Fate::Misread(1..) => {
                self.bucket.create(key, body, purpose).await?;
                Ok(CreateOutcome::Taken)
            }
            Fate::Fails(0) | Fate::Lost(0) | Fate::Misread(0) => self.bucket.create(key, body, purpose).await,
            Fate::Hangs => std::future::pending().await,
        }
    }

    async fn read(&self, key: &Key, range: Option<Range<u64>>, purpose: Purpose) -> Result<Bytes, StoreError> {
        self.bucket.read(key, range, purpose).await
    }

    async fn list(&self, p: &str, after: Option<&Key>, n: usize, purpose: Purpose) -> Result<Vec<Listed>, StoreError> {
        self.bucket.list(p, after, n, purpose).await
    }

    async fn delete(&self, key: &Key, purpose: Purpose) -> Result<(), StoreError> {
        self.bucket.delete(key, purpose).await
    }
}
