//! How a broker gets its State: newest good snapshot, then the journal's tail, then the checks that this journal and
//! this bucket belong together (H2, H13), then its registration (H8).
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::try_join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::barrier::{self, Barrier};
use super::mend::cluster_of;
use super::owner::{Fatal, OutcomeHashes, Owner, fold, new_incarnation};
use super::snapshots::{SNAPSHOT_PREFIX, SnapshotPolicy, Snapshotter};
use super::witness::{WITNESS_PREFIX, Witness, list_for, list_since, moment, seen_since};
use super::{ProposeError, Proposed, QUEUE_MAX, Replica, Shared, expiry, fork};
use crate::journal::{Deadlined, Journal, JournalError};
use crate::segment::ObjectName;
use crate::state::{Bootstrap, BrokerProfile, Outcome, SetSettings, Settings, State};
use crate::store::marker::{Claim, MarkerError, claim, peek};
use crate::store::{Bucket, Listed, Purpose, StoreError};
use crate::telemetry::Metrics;
use crate::types::{BrokerId, Head, KafkaError, Position, Token};
use crate::world::{JoinHandle, World};

/// What a broker brings to its start.
pub struct Parts {
    pub journal: Arc<dyn Journal>,
    pub bucket: Arc<dyn Bucket>,
    pub world: World,
    pub metrics: Arc<Metrics>,
    pub broker: BrokerId,
    /// What the others are told of this broker.
    pub profile: BrokerProfile,
    /// The feature level of a cluster that it founds.
    pub founding_level: u32,
    /// From this broker's configuration: a new cluster gets them, an old one is brought to them.
    pub settings: Settings,
    pub snapshots: SnapshotPolicy,
    /// How often the broker leaves a witness of the journal's history in the bucket, and looks for the mark of a fork;
    /// `None` where the journal is in the bucket itself.
    pub witness_interval: Option<Duration>,
    /// After this long without an answer a call to the journal is made again.
    pub append_deadline: Duration,
}

/// A replica that runs, and the task that ends if it can't go on.
pub struct Started {
    pub replica: Replica,
    pub owner: JoinHandle<Result<(), Fatal>>,
}

/// Why a broker refuses to start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the bucket does not answer: {0}")]
    Bucket(#[from] StoreError),
    #[error(transparent)]
    Marker(#[from] MarkerError),
    #[error("the journal can't be read: {0}")]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Fatal(#[from] Fatal),
    #[error(
        "the bucket belongs to cluster {bucket}, the journal to cluster {journal}; give each cluster a bucket or prefix \
         of its own, or the journal that belongs to this bucket"
    )]
    OtherCluster { bucket: String, journal: String },
    #[error(
        "the bucket belongs to cluster {bucket}, and the journal is empty: going on would give offsets twice. Restore the \
         journal that was used with this bucket, or use an empty bucket or prefix. If it is lost: `strandline fork show`"
    )]
    JournalOfNobody { bucket: String },
    #[error(
        "the bucket holds {what}, but the journal ends at position {head}: it is empty, or older than the bucket, and \
         going on would give offsets twice. Restore the newest journal that was used with this bucket, or use an empty \
         bucket or prefix. If it is lost: `strandline fork show`"
    )]
    JournalTooOld { what: String, head: Position },
    #[error(
        "the bucket holds {what}, which the journal's history does not have at that position: it was forked. Restore \
         the journal that was used with this bucket, or see `strandline fork show`"
    )]
    Forked { what: String },
    #[error(
        "a fork of the journal's history was found, see {mark} in the bucket; no broker starts before it is resolved: see \
         `strandline fork show`"
    )]
    ForkFound { mark: String },
    #[error(
        "the journal begins at position {first}, and the bucket has no usable snapshot from there on; restore a snapshot below {SNAPSHOT_PREFIX} in the bucket"
    )]
    NoSnapshot { first: Position },
    #[error("the broker was not registered: {0}")]
    Refused(String),
}

impl StartError {
    /// Whether the journal's history forked (H2).
    #[must_use]
    pub fn is_fork(&self) -> bool {
        match self {
            Self::Forked { .. } | Self::ForkFound { .. } | Self::Journal(JournalError::Forked { .. }) => true,
            Self::Fatal(fatal) => fatal.is_fork(),
            _ => false,
        }
    }
}

/// Builds State, checks that journal and bucket belong together, registers this broker, and starts the tasks.
///
/// # Errors
/// Every reason for which going on could lose or mix up data.
pub async fn start(parts: Parts) -> Result<Started, StartError> {
    let journal = Deadlined::new(parts.journal, parts.world.clone(), parts.append_deadline);
    let parts = Parts { journal: Arc::new(journal), ..parts };
    for _ in 0..OVERTAKEN_MAX {
        let first = match begin(&parts).await {
            Err(
                StartError::Journal(JournalError::Trimmed { first })
                | StartError::Fatal(Fatal::Journal(JournalError::Trimmed { first })),
            ) => first,
            // The one that they trimmed for was not there yet when we looked.
            Err(StartError::NoSnapshot { first }) if has_snapshot_from(&*parts.bucket, first).await? => first,
            Err(error @ StartError::Forked { .. }) => {
                mark_if_ours(&parts, &error).await;
                return Err(error);
            }
            ended => return ended,
        };
        info!(first = first.0, "the journal was trimmed by others during the start, beginning again");
    }
    begin(&parts).await
}

/// Leaves the mark of a fork for the others. Not where it may be the configuration that is wrong: a broker with another
/// cluster's journal must not stop this one.
async fn mark_if_ours(parts: &Parts, error: &StartError) {
    let journals = cluster_of(&*parts.journal, &*parts.bucket).await;
    let Ok(head) = parts.journal.head().await else { return };
    if journals.is_some() && peek(&*parts.bucket).await == Ok(journals) {
        let marked = fork::mark(&*parts.bucket, &parts.world, head, &error.to_string()).await;
        if let Err(error) = marked {
            warn!(%error, "the mark of the fork was not left in the bucket");
        }
    }
}

async fn has_snapshot_from(bucket: &dyn Bucket, first: Position) -> Result<bool, StoreError> {
    Ok(list_snapshots(bucket).await?.pop().is_some_and(|(at, _)| at.position >= first))
}

/// How often a start begins again because others have trimmed the journal meanwhile.
const OVERTAKEN_MAX: usize = 20;

async fn begin(parts: &Parts) -> Result<Started, StartError> {
    if let Some(mark) = fork::found(&*parts.bucket).await? {
        return Err(StartError::ForkFound { mark });
    }
    // Before the journal is read: a cluster is in its journal before it is in its bucket.
    let marked = peek(&*parts.bucket).await?;
    let head = refuse_newer_bucket(parts).await?;
    let (mut state, mut hashes) = (load_snapshot(parts, head).await?, OutcomeHashes::default());
    hashes.remember(&state);
    let last = replay::<StartError>(&*parts.journal, &mut state, &mut hashes, Position(u64::MAX)).await?;
    refuse_forked(parts, &last).await?;
    let cluster_id = match (state.cluster_id(), marked) {
        (Some(journal), Some(bucket)) if **journal != *bucket => {
            return Err(StartError::OtherCluster { bucket, journal: journal.to_string() });
        }
        (Some(journal), _) => journal.to_string(),
        // The journal knows its cluster before the bucket does, so a bucket that knows one is not this journal's.
        (None, Some(bucket)) => return Err(StartError::JournalOfNobody { bucket }),
        (None, None) => new_cluster_id(&parts.world),
    };
    if let Some(newest) = state.snapshots().last() {
        parts.metrics.snapshot_newest(newest.taken_ms);
    }
    let (started, mut owner, queue) = build(parts, state, hashes);
    let cluster_id = register(&mut owner, parts, cluster_id).await?;
    if let Claim::BelongsTo(other) = claim(&*parts.bucket, &cluster_id).await? {
        return Err(StartError::OtherCluster { bucket: other, journal: cluster_id });
    }
    let snapshotter = Snapshotter {
        replica: started.clone(),
        journal: parts.journal.clone(),
        bucket: parts.bucket.clone(),
        world: parts.world.clone(),
        metrics: parts.metrics.clone(),
        policy: parts.snapshots,
    };
    let helpers = [
        parts.world.spawn("snapshotter", snapshotter.run()),
        parts.world.spawn("expiry", expiry::run(started.clone(), parts.world.clone())),
    ];
    let around = Surroundings {
        helpers,
        journal: parts.journal.clone(),
        bucket: parts.bucket.clone(),
        world: parts.world.clone(),
        metrics: parts.metrics.clone(),
        witness_interval: parts.witness_interval,
    };
    let owner = parts.world.spawn("metadata owner", own(owner, queue, started.clone(), around));
    Ok(Started { replica: started, owner })
}

/// The journal's head; an empty or older journal in front of a used bucket would give offsets twice.
async fn refuse_newer_bucket(parts: &Parts) -> Result<Head, StartError> {
    let head = parts.journal.head().await?;
    let Some((first, _)) = newer(parts, head).await? else { return Ok(head) };
    // A name that was damaged on its way is not there when asked for again.
    let Some((second, what)) = newer(parts, head).await? else { return Ok(head) };
    // Another broker may have gone on while we looked; then the journal has what it built on by now.
    let head = parts.journal.head().await?;
    let is_older = head.position < first.min(second);
    if is_older { Err(StartError::JournalTooOld { what, head: head.position }) } else { Ok(head) }
}

/// Something in the bucket whose writer knew of a later position than `head`.
async fn newer(parts: &Parts, head: Head) -> Result<Option<(Position, String)>, StoreError> {
    let newest = list_snapshots(&*parts.bucket).await?.pop();
    if let Some((at, key)) = newest.filter(|(at, _)| at.position > head.position) {
        return Ok(Some((at.position, format!("snapshot {key} of position {}", at.position))));
    }
    let witness = list_since(&*parts.bucket, WITNESS_PREFIX, head.position.next()).await?.pop();
    if let Some((at, key)) = witness.and_then(|o| Some((moment(WITNESS_PREFIX, &o.key)?, o.key))) {
        return Ok(Some((at.position, format!("witness {key}"))));
    }
    let objects = first_objects(&*parts.bucket, head.position.next()).await?;
    let applied = |key: &str| ObjectName::parse(key).map_or(Position(u64::MAX), |name| name.applied.position);
    Ok(objects.first().map(|object| (applied(&object.key), format!("object {}", object.key))))
}

/// Whoever has applied one of the journal's last entries names its token (H2).
async fn refuse_forked(parts: &Parts, last: &Tokens) -> Result<(), StartError> {
    let foreign = foreign_to(parts, last).await?;
    if foreign.is_empty() {
        return Ok(());
    }
    // A name that was damaged on its way is not there when asked for again.
    match foreign_to(parts, last).await?.intersection(&foreign).next() {
        Some(what) => Err(StartError::Forked { what: what.clone() }),
        None => Ok(()),
    }
}

/// The keys that name an entry at the position of one of `last`, and are not of it.
async fn foreign_to(parts: &Parts, last: &Tokens) -> Result<BTreeSet<String>, StoreError> {
    let Some((first, _)) = last.first_key_value() else { return Ok(BTreeSet::new()) };
    let seen = seen_since(&*parts.bucket, *first).await?.into_iter();
    let foreign = seen.filter(|(at, _)| last.get(&at.position).is_some_and(|token| *token != at.token));
    Ok(foreign.map(|(_, key)| key).collect())
}

/// The first object under each prefix whose writer had applied `position` or more; the prefixes are listed side by side.
async fn first_objects(bucket: &dyn Bucket, position: Position) -> Result<Vec<Listed>, StoreError> {
    let lists = ObjectName::prefixes().map(|prefix| async move {
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
async fn load_snapshot(parts: &Parts, head: Head) -> Result<State, StartError> {
    let mut snapshots = list_snapshots(&*parts.bucket).await?;
    while let Some((at, key)) = snapshots.pop() {
        let bytes = match parts.bucket.read(&key, None, Purpose::Snapshot).await {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound { .. } | StoreError::Damaged { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let size = bytes.len() as u64;
        match parts.world.compute(move || State::decode_snapshot(&bytes)).await {
            Ok((header, state)) if header.at == at => {
                if !is_of_history(parts, at, &key).await? {
                    warn!(key, "the journal was trimmed beyond this snapshot, falling back to the one before");
                    continue;
                }
                parts.metrics.snapshot.newest_position.set(at.position.0 as i64);
                parts.metrics.snapshot.newest_bytes.set(size as i64);
                info!(position = at.position.0, head = head.position.0, key, "state loaded from snapshot");
                return Ok(state);
            }
            Ok(_) => warn!(key, "snapshot is not what its key says, falling back to the one before"),
            Err(error) => warn!(key, %error, "snapshot is unusable, falling back to the one before"),
        }
    }
    match parts.journal.read(Position(1)).await {
        Ok(_) => Ok(State::default()),
        Err(JournalError::Trimmed { first }) => Err(StartError::NoSnapshot { first }),
        Err(error) => Err(error.into()),
    }
}

/// A snapshot must be of this journal's history: its position has its token there. False if that was trimmed: then the
/// snapshot can't be told from another cluster's, and brokers never trim the entry of one that they need.
async fn is_of_history(parts: &Parts, at: Head, key: &str) -> Result<bool, StartError> {
    match parts.journal.read(at.position).await {
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

/// What [`own`] needs of [`Parts`].
struct Surroundings {
    /// They have nothing to do any more when the owner has ended.
    helpers: [JoinHandle<()>; 2],
    journal: Arc<dyn Journal>,
    bucket: Arc<dyn Bucket>,
    world: World,
    metrics: Arc<Metrics>,
    witness_interval: Option<Duration>,
}

/// The owner's work, and the witnesses that it leaves. Who stops because of a fork leaves what it knew for the others.
async fn own(
    owner: Owner,
    queue: mpsc::Receiver<Proposed>,
    replica: Replica,
    around: Surroundings,
) -> Result<(), Fatal> {
    let Surroundings { helpers, journal, bucket, world, metrics, witness_interval } = around;
    let forked = async {
        match witness_interval {
            Some(interval) => {
                let (replica, bucket, world) = (replica.clone(), bucket.clone(), world.clone());
                Witness { replica, journal, bucket, world, interval }.run().await
            }
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        biased;
        ended = Box::pin(owner.run(queue)) => ended,
        fatal = Box::pin(forked) => Err(fatal),
    };
    helpers.iter().for_each(JoinHandle::abort);
    if let Err(fatal) = ended.as_ref()
        && fatal.is_fork()
    {
        metrics.journal.forked.set(1);
        fork::tell(bucket, world, replica.state(), fatal).await;
    }
    ended
}

fn build(parts: &Parts, state: State, hashes: OutcomeHashes) -> (Replica, Owner, mpsc::Receiver<Proposed>) {
    let state = Arc::new(state);
    let (queue, proposed) = mpsc::channel(QUEUE_MAX);
    let (barriers, asked) = mpsc::channel(QUEUE_MAX);
    let (applied, applied_seen) = watch::channel(state.head().position);
    let shared = Arc::new(Shared {
        state: RwLock::new(state.clone()),
        hub: Default::default(),
        broker: parts.broker,
        incarnation: AtomicU64::new(new_incarnation(&parts.world)),
        confirmed: Mutex::new(parts.world.now()),
        journal_bytes: AtomicU64::new(0),
    });
    let owner = Owner {
        journal: parts.journal.clone(),
        world: parts.world.clone(),
        metrics: parts.metrics.clone(),
        shared: shared.clone(),
        state,
        counter: 0,
        applied,
        hashes,
        founding_level: parts.founding_level,
        profile: Arc::new(parts.profile.clone()),
        appended: Position(0),
        registered: Position(0),
    };
    let serve = barrier::run(Barrier {
        journal: parts.journal.clone(),
        world: parts.world.clone(),
        deadline: parts.append_deadline,
        shared: shared.clone(),
        applied: applied_seen,
        asked,
    });
    parts.world.spawn("read barrier", serve);
    (Replica { shared, queue, barriers }, owner, proposed)
}

/// The broker's first entry: it founds the cluster if there is none, and begins this incarnation. Gives the cluster's
/// id, which is another broker's choice where that one was faster.
async fn register(owner: &mut Owner, parts: &Parts, cluster_id: String) -> Result<String, StartError> {
    if owner.state.cluster_id().is_none() {
        // Refused if another broker founds it at the same time; then the cluster is that one's.
        let found = Bootstrap { cluster_id, settings: parts.settings.at_level(owner.level()) };
        let commands = std::iter::once(found.into()).chain(owner.registration()).collect();
        accepted(owner.append_directly(commands).await?.split_off(1))?;
    } else {
        let mut outcomes = owner.append_directly(owner.registration()).await?;
        if outcomes.iter().any(came_too_late) {
            // An entry of an earlier process of this broker arrived in between; this one comes after it.
            outcomes = owner.append_directly(owner.registration()).await?;
        }
        accepted(outcomes)?;
    }
    owner.registered = owner.appended;
    let settings = parts.settings.at_level(owner.state.feature_level());
    if *owner.state.settings() != settings {
        accepted(owner.append_directly(vec![SetSettings { settings }.into()]).await?)?;
    }
    let cluster_id = owner.state.cluster_id().map(ToString::to_string);
    cluster_id.ok_or_else(|| StartError::Refused("the cluster was not founded".to_owned()))
}

fn came_too_late(outcome: &Result<Outcome, ProposeError>) -> bool {
    matches!(outcome, Ok(Outcome::Refused(refusal)) if refusal.error == KafkaError::DuplicateBrokerRegistration)
}

fn accepted(outcomes: Vec<Result<Outcome, ProposeError>>) -> Result<(), StartError> {
    outcomes.into_iter().try_for_each(|outcome| match outcome {
        Ok(Outcome::Done) => Ok(()),
        Ok(Outcome::Refused(refusal)) => Err(StartError::Refused(refusal.message)),
        other => Err(StartError::Refused(format!("{other:?}"))),
    })
}

/// 16 random bytes in URL-safe Base64, as Kafka's cluster ids are.
fn new_cluster_id(world: &World) -> String {
    let mut bytes = [0; 16];
    world.fill(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}
