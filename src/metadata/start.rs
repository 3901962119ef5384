//! How a broker begins: it loads State, checks that this journal and this bucket belong together (H2), registers (H8), and
//! starts what works on State.
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::barrier::{self, Barrier};
use super::life::{Registered, new_incarnation};
use super::load::{Loaded, Sources};
use super::mend::cluster_of;
use super::owner::{Fatal, OutcomeHashes, Owner};
use super::snapshots::{SNAPSHOT_PREFIX, SnapshotPolicy, Snapshotter};
use super::witness::Witness;
use super::{ProposeError, Proposed, QUEUE_MAX, Replica, Shared, expiry, fork};
use crate::journal::{Deadlined, Journal, JournalError};
use crate::state::{Bootstrap, BrokerProfile, Outcome, SetSettings, Settings, State};
use crate::store::marker::{Claim, MarkerError, claim, peek};
use crate::store::{Bucket, StoreError};
use crate::telemetry::Metrics;
use crate::types::{BrokerId, KafkaError, Position};
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

impl Parts {
    fn sources(&self) -> Sources {
        Sources {
            journal: self.journal.clone(),
            bucket: self.bucket.clone(),
            world: self.world.clone(),
            metrics: self.metrics.clone(),
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
            Err(StartError::NoSnapshot { first }) if parts.sources().has_snapshot_from(first).await? => first,
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

/// How often a start begins again because others have trimmed the journal meanwhile.
const OVERTAKEN_MAX: usize = 20;

async fn begin(parts: &Parts) -> Result<Started, StartError> {
    // Before the journal is read: a cluster is in its journal before it is in its bucket.
    let marked = peek(&*parts.bucket).await?;
    let Loaded { state, hashes } = parts.sources().load().await?;
    let cluster_id = match (state.cluster_id(), marked) {
        (Some(journal), Some(bucket)) if **journal != *bucket => {
            return Err(StartError::OtherCluster { bucket, journal: journal.to_string() });
        }
        (Some(journal), _) => journal.to_string(),
        // The journal knows its cluster before the bucket does, so a bucket that knows one is not this journal's.
        (None, Some(bucket)) => return Err(StartError::JournalOfNobody { bucket }),
        (None, None) => new_cluster_id(&parts.world),
    };
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
    mut owner: Owner,
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
        ended = Box::pin(owner.live(queue)) => ended,
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
        changes: AtomicU64::new(0),
        appended: watch::Sender::default(),
        journal: parts.journal.clone(),
        reloading: watch::Sender::new(false),
    });
    let owner = Owner {
        journal: parts.journal.clone(),
        bucket: parts.bucket.clone(),
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
        registered: Registered::default(),
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
    owner.is_registered();
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
