//! Everything that may go wrong, by name: how often by the seed, how often it happened, and what was under way then.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use strandline::world::World;

use crate::recorder::Recorder;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// One kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $($(#[$doc])* $name,)+ }

        impl Fault {
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Its name in reports.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

faults! {
    /// A connection is closed in the middle of whatever it carries.
    ConnectionCut = "connection cut",
    /// What one side sends does not arrive any more, and nobody is told.
    HalfOpen = "half-open connection",
    /// A connection is not answered at all while it is made.
    ConnectHangs = "connect hangs",
    /// Nothing passes between a client and a broker for a while.
    ClientPartition = "client partition",
    /// A broker does not reach the journal for a while.
    JournalPartition = "broker cut off from the journal",
    /// No broker reaches the journal for a while, and they do not all find it again at one time.
    JournalAway = "journal away for all",
    /// A broker does not reach the bucket for a while.
    BucketPartition = "broker cut off from the bucket",
    /// An answer of the store takes seconds.
    BucketSlow = "bucket slow",
    /// A request is not done, and refused with 409.
    BucketConflict = "bucket 409",
    /// A create is refused with 412, though there is no such object.
    BucketPrecondition = "bucket 412",
    BucketError = "bucket 500",
    BucketBusy = "bucket 503",
    /// A request is done, and answered with 503.
    BucketDoneThenBusy = "bucket done, then 503",
    /// A request is done, and answered with 409.
    BucketDoneThenConflict = "bucket done, then 409",
    /// The connection breaks before the request is done.
    BucketReset = "bucket reset",
    /// A request is done, and its answer is lost.
    BucketReplyLost = "bucket reply lost",
    /// A request is done long after it was given up.
    BucketDoneLater = "bucket done later",
    /// No answer ever.
    BucketHangs = "bucket hangs",
    /// A body ends too early.
    BucketCut = "bucket read cut",
    /// A body has a byte that was not written.
    BucketCorrupt = "bucket read corrupt",
    BucketNoConnection = "bucket no connection",
    /// No room for anything for a while.
    BucketFull = "bucket full",
    JournalSlow = "journal slow",
    /// An append is not taken.
    JournalNotDone = "journal refuses",
    /// An append is not done, and nobody is told.
    JournalLost = "journal request lost",
    /// An append is done, and its answer is lost.
    JournalReplyLost = "journal reply lost",
    /// An append is done long after it was given up.
    JournalDoneLater = "journal done later",
    JournalHangs = "journal hangs",
    JournalReadFails = "journal read fails",
    JournalHeadFails = "journal head fails",
    /// That there are new entries is told late.
    JournalNoticeLate = "journal notice late",
    /// No room for anything for a while.
    JournalFull = "journal full",
    /// A broker dies, and its connections with it.
    Crash = "crash",
    /// A broker's machine is gone, and nobody closes its connections.
    PowerLoss = "power loss",
    /// A broker ends as it should, and comes back.
    Stop = "orderly stop",
    /// A broker stands still and goes on.
    Pause = "pause",
    /// A broker stands still, another takes its place, and it goes on.
    Replaced = "replaced while paused",
    /// The journal's store loses its last entries.
    Fork = "fork",
    ClockSkew = "clock skew",
    ClockJump = "clock jump",
}

/// The faults of one run; clones are the same.
#[derive(Clone)]
pub struct Faults(Arc<Inner>);

struct Inner {
    world: World,
    recorder: Recorder,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In chances of 10,000, per opportunity.
    rates: BTreeMap<Fault, u64>,
    fired: BTreeMap<Fault, u64>,
    /// What clients had under way when a fault happened.
    met: BTreeSet<(Fault, &'static str)>,
}

impl Faults {
    /// No faults yet.
    #[must_use]
    pub fn new(world: World, recorder: Recorder) -> Self {
        Self(Arc::new(Inner { world, recorder, state: Mutex::default() }))
    }

    /// The faults of somebody whom none befalls.
    #[must_use]
    pub fn none(&self) -> Self {
        Self::new(self.0.world.clone(), self.0.recorder.clone())
    }

    /// From now on each opportunity for `fault` is taken with a chance of `rate` in 10,000.
    pub fn set(&self, fault: Fault, rate: u64) {
        self.state().rates.insert(fault, rate);
    }

    #[must_use]
    pub fn rate(&self, fault: Fault) -> u64 {
        self.state().rates.get(&fault).copied().unwrap_or(0)
    }

    /// Nothing goes wrong any more.
    pub fn end(&self) {
        self.state().rates.clear();
    }

    /// Whether `fault` happens at this opportunity; if so it is counted.
    #[must_use]
    pub fn happens(&self, fault: Fault) -> bool {
        let rate = self.rate(fault);
        let happens = rate > 0 && self.0.world.random_below(10_000) < rate;
        if happens {
            self.fired(fault);
        }
        happens
    }

    /// The first of `faults` that happens at this opportunity.
    #[must_use]
    pub fn first_of(&self, faults: &[Fault]) -> Option<Fault> {
        faults.iter().copied().find(|fault| self.happens(*fault))
    }

    /// Counts one that was decided elsewhere.
    pub fn fired(&self, fault: Fault) {
        let under_way = self.0.recorder.under_way();
        let mut state = self.state();
        *state.fired.entry(fault).or_default() += 1;
        state.met.extend(under_way.into_iter().map(|what| (fault, what)));
    }

    /// How often each has happened.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Fault, u64> {
        self.state().fired.clone()
    }

    /// What clients had under way when each happened.
    #[must_use]
    pub fn met(&self) -> BTreeSet<(Fault, &'static str)> {
        self.state().met.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
