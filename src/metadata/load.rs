//! How a broker gets its State: newest good snapshot, then the journal's tail, and what tells that this journal's history
//! is the one that the bucket knows (H2, H13).
use futures::future::try_join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tracing::{info, warn};

use super::fork;
use super::owner::{Fatal, OutcomeHashes, fold};
use super::snapshots::SNAPSHOT_PREFIX;
use super::start::StartError;
use super::witness::{WITNESS_PREFIX, list_for, list_since, moment, seen_since};
use crate::journal::{Journal, JournalError};
use crate::planted::{Defect, planted};
use crate::segment::{ObjectKind, ObjectName};
use crate::state::State;
use crate::store::{Bucket, Listed, Purpose, StoreError};
use crate::telemetry::Metrics;
use crate::types::{Head, Position, Token};
use crate::world::World;

/// What State is made from.
pub(super) struct Sources {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) bucket: Arc<dyn Bucket>,
    pub(super) world: World,
    pub(super) metrics: Arc<Metrics>,
}

/// State as of the journal's head.
pub(super) struct Loaded {
    pub(super) state: State,
    pub(super) hashes: OutcomeHashes,
}

/// State as of the journal's head, for who only looks.
///
/// # Errors
/// As a broker's start.
pub async fn read_state(
    journal: Arc<dyn Journal>,
    bucket: Arc<dyn Bucket>,
    world: World,
    metrics: Arc<Metrics>,
) -> Result<State, StartError> {
    Sources { journal, bucket, world, metrics }.load().await.map(|loaded| loaded.state)
}

impl Sources {
    /// State with everything that the journal has.
    ///
    /// # Errors
    /// Every reason for which going on could lose or mix up data. What was trimmed meanwhile may be loaded again.
    pub(super) async fn load(&self) -> Result<Loaded, StartError> {
        if let Some(mark) = fork::found(&*self.bucket).await? {
            return Err(StartError::ForkFound { mark });
        }
        let head = refuse_newer_bucket(self).await?;
        let (mut state, mut hashes) = (load_snapshot(self, head).await?, OutcomeHashes::default());
        hashes.remember(&state);
        let last = replay::<StartError>(&*self.journal, &mut state, &mut hashes, Position(u64::MAX)).await?;
        refuse_forked(self, &last).await?;
        if let Some(newest) = state.snapshots().last() {
            self.metrics.snapshot_newest(newest.taken_ms);
        }
        Ok(Loaded { state, hashes })
    }

    /// Whether there is a snapshot of `first` or later.
    pub(super) async fn has_snapshot_from(&self, first: Position) -> Result<bool, StoreError> {
        Ok(list_snapshots(&*self.bucket).await?.pop().is_some_and(|(at, _)| at.position >= first))
    }
}

/// The journal's head; an empty or older journal in front of a used bucket would give offsets twice.
async fn refuse_newer_bucket(from: &Sources) -> Result<Head, StartError> {
    let head = from.journal.head().await?;
    let Some((first, _)) = newer(from, head).await? else { return Ok(head) };
    // A name that was damaged on its way is not there when asked for again.
    let Some((second, what)) = newer(from, head).await? else { return Ok(head) };
    // Another broker may have gone on while we looked; then the journal has what it built on by now.
    let head = from.journal.head().await?;
    let is_older = head.position < first.min(second);
    if is_older { Err(StartError::JournalTooOld { what, head: head.position }) } else { Ok(head) }
}

/// Something in the bucket whose writer knew of a later position than `head`.
async fn newer(from: &Sources, head: Head) -> Result<Option<(Position, String)>, StoreError> {
    if planted(Defect::ForkIgnored) {
        return Ok(None);
    }
    let newest = list_snapshots(&*from.bucket).await?.pop();
    if let Some((at, key)) = newest.filter(|(at, _)| at.position > head.position) {
        return Ok(Some((at.position, format!("snapshot {key} of position {}", at.position))));
    }
    let witness = list_since(&*from.bucket, WITNESS_PREFIX, head.position.next()).await?.pop();
    if let Some((at, key)) = witness.and_then(|o| Some((moment(WITNESS_PREFIX, &o.key)?, o.key))) {
        return Ok(Some((at.position, format!("witness {key}"))));
    }
    let objects = first_objects(&*from.bucket, head.position.next()).await?;
    let applied = |key: &str| ObjectName::parse(key).map_or(Position(u64::MAX), |name| name.applied.position);
    Ok(objects.first().map(|object| (applied(&object.key), format!("object {}", object.key))))
}

/// Whoever has applied one of the journal's last entries names its token (H2).
async fn refuse_forked(from: &Sources, last: &Tokens) -> Result<(), StartError> {
    let foreign = foreign_to(from, last).await?;
    if foreign.is_empty() {
        return Ok(());
    }
    // A name that was damaged on its way is not there when asked for again.
    match foreign_to(from, last).await?.intersection(&foreign).next() {
        Some(what) => Err(StartError::Forked { what: what.clone() }),
        None => Ok(()),
    }
}

/// The keys that name an entry at the position of one of `last`, and are not of it.
async fn foreign_to(from: &Sources, last: &Tokens) -> Result<BTreeSet<String>, StoreError> {
    let first = last.first_key_value().filter(|_| !planted(Defect::ForkIgnored));
    let Some((first, _)) = first else { return Ok(BTreeSet::new()) };
    let seen = seen_since(&*from.bucket, *first).await?.into_iter();
    let foreign = seen.filter(|(at, _)| last.get(&at.position).is_some_and(|token| *token != at.token));
    Ok(foreign.map(|(_, key)| key).collect())
}

/// The first object under each prefix whose writer had applied `position` or more; the prefixes are listed side by side.
async fn first_objects(bucket: &dyn Bucket, position: Position) -> Result<Vec<Listed>, StoreError> {
    let lists = ObjectName::prefixes(ObjectKind::Data).map(|prefix| async move {
        let from = format!("{prefix}{:016x}", position.0);
        bucket.list(&prefix, Some(&from), 1, Purpose::Control).await
    });
    Ok(try_join_all(lists).await?.into_iter().flatten().collect())
}

/// The snapshots in the bucket, oldest first.
async fn list_snapshots(bucket: &dyn Bucket) -> Result<Vec<(Head, String)>, StoreError> {
    let listed = list_for(bucket, SNAPSHOT_PREFIX, Position(0), Purpose::Snapshot).await?;
    Ok(listed.into_iter().filter_map(|o| moment(SNAPSHOT_PREFIX, &o.key).map(|at| (at, o.key))).collect())
}

/// State as of the newest snapshot that is whole and of this history; the beginning if there is none and none is needed.
async fn load_snapshot(from: &Sources, head: Head) -> Result<State, StartError> {
    let mut snapshots = list_snapshots(&*from.bucket).await?;
    while let Some((at, key)) = snapshots.pop() {
        let bytes = match from.bucket.read(&key, None, Purpose::Snapshot).await {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound { .. } | StoreError::Damaged { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let size = bytes.len() as u64;
        match from.world.compute(move || State::decode_snapshot(&bytes)).await {
            Ok((header, state)) if header.at == at => {
                if !is_of_history(from, at, &key).await? {
                    warn!(key, "the journal was trimmed beyond this snapshot, falling back to the one before");
                    continue;
                }
                from.metrics.snapshot.newest_position.set(at.position.0 as i64);
                from.metrics.snapshot.newest_bytes.set(size as i64);
                info!(position = at.position.0, head = head.position.0, key, "state loaded from snapshot");
                return Ok(state);
            }
            Ok(_) => warn!(key, "snapshot is not what its key says, falling back to the one before"),
            Err(error) => warn!(key, %error, "snapshot is unusable, falling back to the one before"),
        }
    }
    match from.journal.read(Position(1)).await {
        Ok(_) => Ok(State::default()),
        Err(JournalError::Trimmed { first }) => Err(StartError::NoSnapshot { first }),
        Err(error) => Err(error.into()),
    }
}

/// A snapshot must be of this journal's history: its position has its token there. False if that was trimmed: then the
/// snapshot can't be told from another cluster's, and brokers never trim the entry of one that they need.
async fn is_of_history(from: &Sources, at: Head, key: &str) -> Result<bool, StartError> {
    match from.journal.read(at.position).await {
        Ok(page) if page.first().is_some_and(|e| e.position == at.position && e.proposal.token == at.token) => Ok(true),
        Ok(_) => Err(StartError::Forked { what: format!("snapshot {key}") }),
        Err(JournalError::Trimmed { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The tokens of the last entries, by position.
pub(super) type Tokens = BTreeMap<Position, Token>;

/// How many of them are held against what the bucket has.
const TOKENS_MAX: usize = 1000;

/// Folds in what the journal has beyond `state` up to `until`; gives the last entries.
pub(super) async fn replay<E: From<JournalError> + From<Fatal>>(
    journal: &dyn Journal,
    state: &mut State,
    hashes: &mut OutcomeHashes,
    until: Position,
) -> Result<Tokens, E> {
    let mut last = Tokens::from([(state.head().position, state.head().token)]);
    loop {
        let page = journal.read(state.head().position.next()).await?;
        if page.is_empty() || state.head().position >= until {
            return Ok(last);
        }
        for stored in page.into_iter().take_while(|stored| stored.position <= until) {
            last.insert(stored.position, stored.proposal.token);
            fold(state, hashes, stored)?;
        }
        while last.len() > TOKENS_MAX {
            last.pop_first();
        }
    }
}
