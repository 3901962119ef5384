//! Fetch sessions (KIP-227): the broker remembers a consumer's partitions, requests name only what changed, answers
//! only what has news. Rules: Kafka's `FetchSession` and `FetchManager`.
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::planted::{Defect, planted};
use crate::types::{Offset, PartitionIndex, TopicId, TopicName};
use crate::world::{Instant, World};

/// An idle session is evicted for a new one after this long (`min.incremental.fetch.session.eviction.ms`).
const EVICTABLE_AFTER: Duration = Duration::from_secs(120);

/// Partitions that all sessions together remember at most; a fetch with more is served without a session.
const PARTITIONS_MAX: usize = 1_000_000;

/// A partition, as the request's version names its topic: by id from 13 on, by name before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicKey {
    Id(TopicId),
    Name(TopicName),
}

/// A partition as a session remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPartition {
    pub offset: Offset,
    pub bytes_max: i32,
    pub leader_epoch: i32,
    /// What the last answer said; an answer is due when they change. -1 before the first.
    pub high_watermark: Offset,
    pub log_start: Offset,
}

/// The partitions that one request asks for.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// 0 where there is no session.
    pub id: i32,
    /// Whether unchanged partitions are left out of the answer.
    pub incremental: bool,
    pub partitions: Vec<((TopicKey, PartitionIndex), SessionPartition)>,
}

/// What a request with a session id may be told; both make the client begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    NotFound,
    InvalidEpoch,
}

/// All sessions of this broker. A mutex, held for map operations only: requests of all connections use it.
pub struct Sessions {
    world: World,
    slots: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    sessions: BTreeMap<i32, Session>,
    partitions: usize,
}

struct Session {
    epoch: i32,
    last_used: Instant,
    by_id: bool,
    partitions: BTreeMap<(TopicKey, PartitionIndex), SessionPartition>,
    /// The partition that the next answer begins with: each gets its turn at the byte limit.
    turn: usize,
}

/// What a request says of its session.
pub struct SessionRequest {
    pub id: i32,
    pub epoch: i32,
    /// Whether topics are named by id (Fetch 13 and later).
    pub by_id: bool,
    pub wanted: Vec<((TopicKey, PartitionIndex), SessionPartition)>,
    pub forgotten: Vec<(TopicKey, PartitionIndex)>,
}

impl Sessions {
    /// Room for `slots` sessions (`max.incremental.fetch.session.cache.slots`).
    #[must_use]
    pub fn new(world: World, slots: usize) -> Self {
        Self { world, slots, inner: Mutex::default() }
    }

    /// The partitions that a request asks for, after its changes to the session.
    ///
    /// # Errors
    /// If the session is not there or the request is not its next one.
    pub fn begin(&self, request: SessionRequest) -> Result<SessionView, SessionError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.world.now();
        match (request.id, request.epoch) {
            // A full fetch that asks for no session, and perhaps ends one.
            (id, -1) => {
                inner.remove(id);
                Ok(SessionView { id: 0, incremental: false, partitions: request.wanted })
            }
            // A full fetch that wants a new session.
            (id, 0) => {
                inner.remove(id);
                let id = self.create(&mut inner, now, &request);
                Ok(SessionView { id, incremental: false, partitions: request.wanted })
            }
            (id, epoch) => inner.go_on(id, epoch, now, request),
        }
    }

    fn create(&self, inner: &mut Inner, now: Instant, request: &SessionRequest) -> i32 {
        if request.wanted.is_empty() || inner.partitions + request.wanted.len() > PARTITIONS_MAX {
            return 0;
        }
        if inner.sessions.len() >= self.slots && !inner.evict(now) {
            return 0;
        }
        let id = loop {
            let id = (self.world.random_u64() & 0x7fff_ffff) as i32;
            if id != 0 && !inner.sessions.contains_key(&id) {
                break id;
            }
        };
        let partitions: BTreeMap<_, _> = request.wanted.iter().cloned().collect();
        inner.partitions += partitions.len();
        let session = Session { epoch: 1, last_used: now, by_id: request.by_id, partitions, turn: 0 };
        inner.sessions.insert(id, session);
        id
    }

    /// Remembers what was answered.
    pub fn answered(&self, id: i32, answered: impl Iterator<Item = ((TopicKey, PartitionIndex), Offset, Offset)>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(session) = inner.sessions.get_mut(&id) else { return };
        for (key, high_watermark, log_start) in answered {
            if let Some(partition) = session.partitions.get_mut(&key) {
                partition.high_watermark = high_watermark;
                partition.log_start = log_start;
            }
        }
    }

    /// Sessions that there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).sessions.len()
    }
}

impl Inner {
    fn remove(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.partitions -= session.partitions.len();
        }
    }

    /// Evicts the session that was idle for longest, if it was so for long enough.
    fn evict(&mut self, now: Instant) -> bool {
        let Some((&id, oldest)) = self.sessions.iter().min_by_key(|(_, s)| s.last_used) else { return false };
        if now.saturating_duration_since(oldest.last_used) < EVICTABLE_AFTER {
            return false;
        }
        self.remove(id);
        true
    }

    fn go_on(
        &mut self,
        id: i32,
        epoch: i32,
        now: Instant,
        request: SessionRequest,
    ) -> Result<SessionView, SessionError> {
        let Some(session) = self.sessions.get_mut(&id) else { return Err(SessionError::NotFound) };
        if session.epoch != epoch {
            return Err(SessionError::InvalidEpoch);
        }
        // A client that changed between names and ids begins anew.
        if session.by_id != request.by_id {
            return Err(SessionError::NotFound);
        }
        session.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        session.last_used = now;
        let before = session.partitions.len();
        for key in &request.forgotten {
            session.partitions.remove(key);
        }
        for (key, mut wanted) in request.wanted {
            if let Some(known) = session.partitions.get(&key).filter(|_| planted(Defect::SessionIgnoresSeek)) {
                wanted.offset = wanted.offset.max(known.offset);
            }
            let known = session.partitions.get(&key).map(|k| (k.high_watermark, k.log_start));
            let (high_watermark, log_start) = known.unwrap_or((Offset(-1), Offset(-1)));
            session.partitions.insert(key, SessionPartition { high_watermark, log_start, ..wanted });
        }
        let after = session.partitions.len();
        let mut partitions: Vec<_> = session.partitions.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        if after > 0 {
            partitions.rotate_left(session.turn % after);
            session.turn = (session.turn + 1) % after;
        }
        self.partitions = self.partitions + after - before;
        if after == 0 {
            self.remove(id);
            return Ok(SessionView { id: 0, incremental: true, partitions });
        }
        Ok(SessionView { id, incremental: true, partitions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> (TopicKey, PartitionIndex) {
        (TopicKey::Name("t".into()), PartitionIndex(partition))
    }

    fn at(offset: i64) -> SessionPartition {
        let (high_watermark, log_start) = (Offset(-1), Offset(-1));
        SessionPartition { offset: Offset(offset), bytes_max: 1, leader_epoch: -1, high_watermark, log_start }
    }

    fn ask(id: i32, epoch: i32, wanted: &[(i32, i64)], forgotten: &[i32]) -> SessionRequest {
        let wanted = wanted.iter().map(|(p, o)| (key(*p), at(*o))).collect();
        SessionRequest { id, epoch, by_id: false, wanted, forgotten: forgotten.iter().map(|p| key(*p)).collect() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_remembers_and_forgets_partitions() {
        let sessions = Sessions::new(World::seeded(1), 10);
        let first = sessions.begin(ask(0, 0, &[(0, 5), (1, 6)], &[])).unwrap();
        assert!(first.id != 0 && !first.incremental);
        let second = sessions.begin(ask(first.id, 1, &[(1, 9), (2, 0)], &[0])).unwrap();
        let mut offsets: Vec<_> = second.partitions.iter().map(|(k, p)| (k.1.0, p.offset.0)).collect();
        offsets.sort_unstable();
        assert_eq!(offsets, [(1, 9), (2, 0)]);
        assert_eq!(sessions.begin(ask(first.id, 1, &[], &[])).unwrap_err(), SessionError::InvalidEpoch);
        assert_eq!(sessions.begin(ask(7, 1, &[], &[])).unwrap_err(), SessionError::NotFound);
        sessions.begin(ask(first.id, -1, &[(0, 0)], &[])).unwrap();
        assert_eq!(sessions.count(), 0, "epoch -1 ends the session");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_cache_evicts_only_the_idle() {
        let sessions = Sessions::new(World::seeded(1), 1);
        assert_ne!(sessions.begin(ask(0, 0, &[(0, 0)], &[])).unwrap().id, 0);
        assert_eq!(sessions.begin(ask(0, 0, &[(0, 0)], &[])).unwrap().id, 0);
        sessions.world.sleep(EVICTABLE_AFTER).await;
        assert_ne!(sessions.begin(ask(0, 0, &[(0, 0)], &[])).unwrap().id, 0);
        assert_eq!(sessions.count(), 1);
    }
}
