//! Time-outs of transactions and expiry of transactional ids. Both name what they saw, so that `apply` spares what was
//! used since (H16).
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, info};

use crate::cluster::Membership;
use crate::metadata::Replica;
use crate::state::{
    AbortTransaction, ExpireTransactionalIds, ExpiredTransactionalId, OpenTransaction, Outcome, ProducerStamp, State,
    TransactionalId, TransactionalProducer,
};
use crate::telemetry::Metrics;
use crate::types::{Position, TimestampMs};
use crate::world::{Instant, World};

/// How often transactions are looked through: one is aborted at most this much later than its time-out says (Kafka looks
/// every 10 s, `transaction.abort.timed.out.transaction.cleanup.interval.ms`).
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks between two for unused transactional ids, which live for a week by default.
const LOOKS_FOR_IDS: u32 = 60;

/// Ids that one command names at most (H15).
const NAMED_MAX: usize = 1_000;

/// From the broker's configuration.
#[derive(Clone, Copy, Debug)]
pub struct ExpirySettings {
    /// `transactional.id.expiration.ms`.
    pub ids_ms: i64,
}

/// The task.
pub struct Expiry {
    pub world: World,
    pub replica: Replica,
    pub membership: Membership,
    pub metrics: Arc<Metrics>,
    pub settings: ExpirySettings,
}

impl Expiry {
    /// Proposes until the broker stops.
    pub fn start(self) {
        self.world.clone().spawn("transactions", self.run());
    }

    async fn run(self) {
        let mut watch = Watch::default();
        let mut looks = 0_u32;
        while !self.replica.has_stopped() {
            self.world.sleep(LOOK_EVERY).await;
            looks = looks.wrapping_add(1);
            let (state, wall) = (self.replica.state(), self.replica.agreed_wall_ms(&self.world));
            let mut due = watch.look(&state, self.world.now(), wall);
            let members = self.membership.now();
            due.retain(|abort| members.coordinates(&abort.transactional_id));
            for abort in due {
                self.abort(abort).await;
            }
            if looks.is_multiple_of(LOOKS_FOR_IDS)
                && let Some(wall) = wall
            {
                let mut ids = unused(&state, wall, self.settings.ids_ms);
                ids.retain(|gone| members.coordinates(&gone.id));
                ids.truncate(NAMED_MAX);
                if !ids.is_empty() {
                    // What the journal did not take is proposed again at the next look.
                    let _ = self.replica.propose(ExpireTransactionalIds { ids }).await;
                }
            }
        }
    }

    async fn abort(&self, abort: AbortTransaction) {
        let id = abort.transactional_id.clone();
        match self.replica.propose(abort).await {
            Ok(Outcome::Producer { .. }) => {
                self.metrics.transactions.aborted("timeout");
                info!(
                    transactional_id = id,
                    "a transaction was aborted, since it was open for longer than its time-out"
                );
            }
            // It has ended meanwhile.
            Ok(_) => {}
            // It is due at the next look too; what the journal can't do is said elsewhere.
            Err(error) => debug!(transactional_id = id, %error, "a transaction that timed out is not aborted yet"),
        }
    }
}

/// Open transactions, and since when each is known to be. Brokers' wall clocks may be wrong, so a time-out counts from when
/// this broker saw the transaction; only of those that were open when it began, the journal's time is all there is, if this
/// broker's clock agrees with the others'.
#[derive(Default)]
struct Watch {
    seen: BTreeMap<TransactionalId, Sight>,
    began: bool,
}

#[derive(Clone, Copy)]
struct Sight {
    /// The transaction's first entry: an id's next transaction is another one.
    since: Position,
    due: Instant,
}

impl Watch {
    /// One more look; gives the transactions whose time is over.
    fn look(&mut self, state: &State, now: Instant, wall: Option<TimestampMs>) -> Vec<AbortTransaction> {
        let open = |known: &TransactionalProducer, since| known.open.as_ref().is_some_and(|o| o.since == since);
        self.seen.retain(|id, sight| state.transactional_producer(id).is_some_and(|known| open(known, sight.since)));
        let mut due = Vec::new();
        for (id, known) in state.transactional_producers() {
            let Some(open) = &known.open else { continue };
            let sight = self.seen.get(id).copied().unwrap_or_else(|| {
                let age = wall.filter(|_| !self.began).map_or(Duration::ZERO, |wall| age(open, wall));
                let left = Duration::from_millis(u64::try_from(known.timeout_ms).unwrap_or(0)).saturating_sub(age);
                Sight { since: open.since, due: now + left }
            });
            self.seen.insert(id.clone(), sight);
            if sight.due <= now {
                let producer = ProducerStamp { id: known.producer.id.0, epoch: i32::from(known.producer.epoch.0) };
                due.push(AbortTransaction { transactional_id: id.to_string(), producer, since: open.since.0 });
            }
        }
        self.began = true;
        due
    }
}

fn age(open: &OpenTransaction, wall: TimestampMs) -> Duration {
    Duration::from_millis(u64::try_from(wall.0.saturating_sub(open.since_ms.0)).unwrap_or(0))
}

fn unused(state: &State, wall: TimestampMs, kept_ms: i64) -> Vec<ExpiredTransactionalId> {
    let old =
        |known: &TransactionalProducer| known.open.is_none() && wall.0.saturating_sub(known.last_used_ms.0) > kept_ms;
    let unused = state.transactional_producers().filter(|(_, known)| old(known));
    unused.map(|(id, known)| ExpiredTransactionalId { id: id.to_string(), last_used: known.last_used.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{AddToTransaction, Bootstrap, Command, EndTransaction, Entry, InitProducer, RegisterBroker};
    use crate::state::{Settings, TRANSACTIONS_LEVEL};

    /// A State of one broker, whose entries are a second apart.
    fn state_after(commands: Vec<Command>) -> State {
        let settings = Settings { transactional_ids_max: 10, transaction_partitions_max: 10, ..Settings::default() };
        let found = Bootstrap { cluster_id: "c".into(), settings };
        let register = RegisterBroker { broker: 1, incarnation: 1, feature_level_max: TRANSACTIONS_LEVEL };
        let first = [vec![found.into(), register.into()]];
        let mut state = State::default();
        for (n, commands) in first.into_iter().chain(commands.into_iter().map(|c| vec![c])).enumerate() {
            let counter = n as u64 + 1;
            let entry = Entry {
                feature_level: TRANSACTIONS_LEVEL,
                broker: 1,
                incarnation: 1,
                counter,
                wall_ms: 1_000_000 + 1000 * n as i64,
                commands,
                ..Entry::default()
            };
            state.apply(state.head().position.next(), &entry);
        }
        state
    }

    fn begun(epoch: i32) -> Vec<Command> {
        let producer = ProducerStamp { id: 0, epoch };
        let (transactional_id, groups) = ("t".to_owned(), vec!["g".to_owned()]);
        vec![AddToTransaction { transactional_id, producer, slots: vec![], groups }.into()]
    }

    fn init() -> Command {
        InitProducer { transactional_id: "t".into(), timeout_ms: 10_000, exchanged: None }.into()
    }

    #[tokio::test(start_paused = true)]
    async fn k9_a_transaction_is_due_when_its_timeout_has_passed_whatever_the_clocks_say() {
        let (world, mut watch) = (World::seeded(1), Watch::default());
        let empty = state_after(vec![init()]);
        assert!(watch.look(&empty, world.now(), Some(TimestampMs(0))).is_empty());
        let open = state_after([vec![init()], begun(0)].concat());
        // The broker that began it has a clock that is hours behind.
        assert!(watch.look(&open, world.now(), Some(TimestampMs(100_000_000))).is_empty());
        world.sleep(Duration::from_millis(9_999)).await;
        assert!(watch.look(&open, world.now(), Some(TimestampMs(0))).is_empty());
        world.sleep(Duration::from_millis(1)).await;
        assert_eq!(watch.look(&open, world.now(), Some(TimestampMs(0))).len(), 1);
        let end = EndTransaction {
            transactional_id: "t".into(),
            producer: ProducerStamp { id: 0, epoch: 0 },
            commit: true,
            bump: true,
        };
        let next = state_after([vec![init()], begun(0), vec![end.into()], begun(1)].concat());
        assert!(
            watch.look(&next, world.now(), Some(TimestampMs(0))).is_empty(),
            "the next transaction has its own time"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn k9_what_was_open_when_the_broker_began_is_due_by_the_journals_time() {
        let (world, mut watch) = (World::seeded(1), Watch::default());
        let open = state_after([vec![init()], begun(0)].concat());
        let began = open.transactional_producer("t").unwrap().open.clone().unwrap().since_ms;
        assert!(watch.look(&open, world.now(), Some(TimestampMs(began.0 + 9_000))).is_empty());
        world.sleep(Duration::from_secs(1)).await;
        let due = watch.look(&open, world.now(), Some(TimestampMs(began.0)));
        assert_eq!((due.len(), due[0].since), (1, open.head().position.0));
    }

    #[test]
    fn ids_that_are_open_or_were_used_are_kept() {
        let idle = state_after(vec![init()]);
        let used = idle.transactional_producer("t").unwrap().last_used_ms;
        assert!(unused(&idle, TimestampMs(used.0 + 1000), 1000).is_empty());
        assert_eq!(unused(&idle, TimestampMs(used.0 + 1001), 1000).len(), 1);
        let open = state_after([vec![init()], begun(0)].concat());
        assert!(unused(&open, TimestampMs(i64::MAX), 1000).is_empty());
    }
}
