//! The members as they are now, worked out once for each change.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tracing::debug;

use super::Members;
use crate::metadata::Replica;
use crate::planted::{Defect, planted};
use crate::types::BrokerId;
use crate::world::{Instant, World};

/// Who the brokers are, by what this one knows; cheap to clone.
#[derive(Clone)]
pub struct Membership(Arc<Inner>);

struct Inner {
    me: BrokerId,
    world: World,
    replica: Replica,
    staleness_max: Duration,
    /// A lock, held for a copy: each request looks.
    known: Mutex<Known>,
    /// When somebody has noticed a change. It wakes in the order in which they came, which a `watch` does not.
    changed: Notify,
}

/// What the members were worked out from.
#[derive(PartialEq, Eq, Clone, Copy)]
struct Basis {
    membership: u32,
    cut_off: bool,
}

struct Known {
    basis: Basis,
    members: Arc<Members>,
    /// Since when it is known that there are others: a broker that was alone did not have to ask for the head.
    others_since: Instant,
}

impl Membership {
    /// As the broker behind `replica` sees it. Others count as unknown after the journal's head was unknown for
    /// `staleness_max`.
    #[must_use]
    pub fn new(world: World, replica: Replica, staleness_max: Duration) -> Self {
        let (me, state) = (replica.identity().broker, replica.state());
        let members = Arc::new(Members::of(me, &state));
        let basis = Basis { membership: state.membership(), cut_off: false };
        let known = Mutex::new(Known { basis, members, others_since: world.now() });
        Self(Arc::new(Inner { me, world, replica, staleness_max, known, changed: Notify::new() }))
    }

    /// This broker.
    #[must_use]
    pub fn me(&self) -> BrokerId {
        self.0.me
    }

    /// The members as they are now: without this broker, if it has not heard of the journal for long (H9), or knows that it
    /// has missed much.
    #[must_use]
    pub fn now(&self) -> Arc<Members> {
        let inner = &*self.0;
        let (state, now) = (inner.replica.state(), inner.world.now());
        let mut known = inner.known.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = inner.replica.confirmed().max(known.others_since);
        let silent = now.saturating_duration_since(heard) > inner.staleness_max;
        let cut_off = (silent || inner.replica.is_reloading()) && !planted(Defect::CutOffKeepsClients);
        let basis = Basis { membership: state.membership(), cut_off };
        if known.basis != basis {
            let mut members = Members::of(inner.me, &state);
            if members.has_others() && !known.members.has_others() {
                known.others_since = now;
            } else if cut_off {
                members = members.without_me();
            }
            known.basis = basis;
            if *known.members != members {
                debug!(?members, cut_off, "the members have changed");
                known.members = Arc::new(members);
                inner.changed.notify_waiters();
            }
        }
        known.members.clone()
    }

    /// Ends with the next change that [`Membership::now`] shows to somebody, also if it is waited for only after that.
    pub fn change(&self) -> Notified<'_> {
        self.0.changed.notified()
    }
}
