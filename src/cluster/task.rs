//! Keeps this broker's place among the others: an entry where it has nothing else to say, so that it is heard; a proposal
//! to fence those who are silent (H12); and what a cluster that was brought to a new feature level has to be told.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{info, warn};

use super::Membership;
use super::hearing::Hearing;
use crate::metadata::Replica;
use crate::state::{
    AnnounceBroker, Broker, BrokerProfile, Command, FenceBroker, Outcome, SetSettings, Settings, Standing, State,
};
use crate::types::{BrokerId, Incarnation, Position};
use crate::world::{Instant, World};

/// How often it is looked whether something is due, at least.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Looks in a fencing time, at least: a broker that speaks only at every other look has to be heard without a gap even so
/// where silence is noticed soon.
const LOOKS_MIN: u32 = 20;

/// Appends of heartbeats take at most one part in this many of what the journal could do.
const JOURNAL_SHARE: u32 = 5;

/// A broker is heard this often in a fencing time at least, however slow the journal is.
const HEARD_MIN: u32 = 4;

/// An entry that takes longer than the fencing time by this met an outage. Short enough that what is not noticed of one,
/// and the time in which brokers find the journal again, are well below the fencing time.
const OUTAGE: u32 = 8;

/// When a broker speaks, and when it calls others silent.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two entries of an idle broker.
    pub heartbeat: Duration,
    /// After so long without a word of the journal it is cut off (H9).
    pub staleness_max: Duration,
}

/// See the module.
pub struct Task {
    pub world: World,
    pub replica: Replica,
    pub membership: Membership,
    pub timing: Timing,
    /// What the others are told of this broker.
    pub profile: BrokerProfile,
    /// From this broker's configuration.
    pub settings: Settings,
    /// Told when the others say that this broker shall go.
    pub drained: watch::Sender<bool>,
}

/// When somebody was last seen to have spoken.
#[derive(Clone, Copy)]
struct Heard {
    last: Position,
    at: Instant,
    /// After this silence the broker is proposed to be fenced.
    patience: Duration,
}

impl Task {
    /// Works until nobody waits any more for the broker to be told to go.
    pub fn start(self) {
        let (world, membership, drained) = (self.world.clone(), self.membership.clone(), self.drained.clone());
        // Beside the work, which waits for the journal: it is by then at the latest that a broker has to notice.
        self.world.spawn("membership watch", async move {
            while world.timeout(LOOK_EVERY, drained.closed()).await.is_none() {
                let _ = membership.now();
            }
        });
        self.world.clone().spawn("membership", self.run());
    }

    async fn run(self) {
        let mut heard: BTreeMap<BrokerId, Heard> = BTreeMap::new();
        let mut hearing = Hearing::from(self.world.now());
        let (mut interval, mut told) = (self.timing.heartbeat, None);
        loop {
            let every = look_every(&self.replica.state());
            if self.world.timeout(every, self.drained.closed()).await.is_some() {
                return;
            }
            let members = self.membership.now();
            let state = self.replica.state();
            let me = members.me();
            let Some(mine) = state.broker(me) else { continue };
            if mine.standing == Standing::Draining {
                self.drained.send_replace(true);
            }
            self.listen(&state, &mut heard);
            self.catch_up(&state, mine, &mut told).await;
            let others = state.brokers().filter(|b| b.incarnation.is_some() && b.id != me).count();
            if others == 0 || fencing_time(&state).is_zero() {
                // Nobody listens, and nobody could take over.
                continue;
            }
            // Beside the time between two entries: looks, and what waits in front of one.
            let gap = interval + fencing_time(&state) / HEARD_MIN;
            if heard.get(&me).is_none_or(|h| self.world.now() - h.at >= interval) {
                interval = self.speak(&state, others, &mut hearing).await;
            }
            if self.world.now() - self.replica.confirmed() >= self.timing.staleness_max / 2 {
                // Where entries are too dear to be made for this, the head is asked for. Without an answer it is at the next look.
                let _ = self.replica.barrier().await;
            }
            hearing.reach(self.replica.confirmed(), gap);
            self.fence(&mut heard, &mut hearing, gap).await;
        }
    }

    /// Appends an entry; gives the time until the next.
    async fn speak(&self, state: &State, others: usize, hearing: &mut Hearing) -> Duration {
        let begun = self.world.now();
        // One that the journal did not take is made up for by the next.
        let spoken = self.replica.heartbeat().await;
        let took = self.world.now() - begun;
        if spoken.is_err() || took > fencing_time(state) / OUTAGE {
            // The others could not be heard either.
            hearing.interrupted(self.world.now());
        }
        self.interval(state, took, others)
    }

    /// Notes who has spoken since the last look.
    fn listen(&self, state: &State, heard: &mut BTreeMap<BrokerId, Heard>) {
        let now = self.world.now();
        let fencing = fencing_time(state);
        heard.retain(|id, _| state.broker(*id).is_some_and(|broker| broker.incarnation.is_some()));
        for broker in state.brokers().filter(|broker| broker.incarnation.is_some()) {
            if heard.get(&broker.id).is_none_or(|h| h.last != broker.last_position) {
                // Not all who wait propose it at one time.
                let jitter = self.world.random_below(1 + fencing.as_millis() as u64 / 10);
                let patience = fencing + Duration::from_millis(jitter);
                heard.insert(broker.id, Heard { last: broker.last_position, at: now, patience });
            }
        }
    }

    /// Proposes to fence those who have been silent for longer than their time. `apply` decides.
    async fn fence(&self, heard: &mut BTreeMap<BrokerId, Heard>, hearing: &mut Hearing, gap: Duration) {
        let me = self.membership.me();
        let quiet =
            |(id, h): (&BrokerId, &Heard)| *id != me && hearing.silence_until(self.world.now(), h.at) >= h.patience;
        if !heard.iter().any(quiet) || self.replica.barrier().await.is_err() {
            return;
        }
        hearing.reach(self.replica.confirmed(), gap);
        let state = self.replica.state();
        self.listen(&state, heard);
        let silent = |b: &&Broker| heard.get(&b.id).is_some_and(|h| hearing.silence_since(h.at) >= h.patience);
        let silent: Vec<Broker> = state.brokers().filter(|b| b.id != me).filter(silent).cloned().collect();
        for broker in silent {
            let Some(incarnation) = broker.incarnation else { continue };
            let (id, last_position) = (broker.id.0, broker.last_position.0);
            let fence = FenceBroker { broker: id, incarnation: incarnation.0, last_position };
            match self.replica.propose(fence).await {
                Ok(Outcome::Done) => warn!(broker = id, "a silent broker was fenced, others take over what it led"),
                other => info!(broker = id, ?other, "a broker is silent and was not fenced"),
            }
            if let Some(heard) = heard.get_mut(&broker.id) {
                heard.patience += self.timing.heartbeat;
            }
        }
    }

    /// What a cluster does not know that has got a new feature level since this broker registered.
    async fn catch_up(&self, state: &Arc<State>, mine: &Broker, told: &mut Option<(Incarnation, u32)>) {
        let (life, level) = (self.replica.identity().incarnation, state.feature_level());
        if level < 2 || mine.incarnation != Some(life) || *told == Some((life, level)) {
            return;
        }
        let mut commands: Vec<Command> = Vec::new();
        if *mine.profile != self.profile {
            let BrokerProfile { zone, endpoints } = self.profile.clone();
            commands.push(AnnounceBroker { zone, endpoints }.into());
        }
        let settings = self.settings_of(level, *state.settings());
        if settings != *state.settings() {
            commands.push(SetSettings { settings }.into());
        }
        for command in commands {
            match self.replica.propose(command).await {
                Ok(Outcome::Refused(refusal)) => warn!(reason = refusal.message, "the broker is not announced"),
                Ok(_) => {}
                // The next look tries again.
                Err(_) => return,
            }
        }
        *told = Some((life, level));
    }

    /// The cluster's settings with those that its level has brought and nobody has set.
    fn settings_of(&self, level: u32, now: Settings) -> Settings {
        let ours = self.settings.at_level(level);
        Settings {
            fencing_ms: if now.fencing_ms == 0 { ours.fencing_ms.max(0) } else { now.fencing_ms },
            transactional_ids_max: Some(now.transactional_ids_max)
                .filter(|max| *max > 0)
                .unwrap_or(ours.transactional_ids_max),
            transaction_partitions_max: Some(now.transaction_partitions_max)
                .filter(|max| *max > 0)
                .unwrap_or(ours.transaction_partitions_max),
            garbage_grace_ms: Some(now.garbage_grace_ms).filter(|ms| *ms > 0).unwrap_or(ours.garbage_grace_ms),
            ..now
        }
    }

    /// Heartbeats of all brokers together leave the journal room for the rest (H18).
    fn interval(&self, state: &State, append: Duration, others: usize) -> Duration {
        let brokers = u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1);
        let most = fencing_time(state) / HEARD_MIN;
        let affordable = append.saturating_mul(brokers).saturating_mul(JOURNAL_SHARE);
        self.timing.heartbeat.max(affordable).min(most.max(self.timing.heartbeat))
    }
}

fn look_every(state: &State) -> Duration {
    let fencing = fencing_time(state);
    if fencing.is_zero() { LOOK_EVERY } else { LOOK_EVERY.min(fencing / LOOKS_MIN) }
}

fn fencing_time(state: &State) -> Duration {
    Duration::from_millis(u64::try_from(state.settings().fencing_ms).unwrap_or(0))
}
