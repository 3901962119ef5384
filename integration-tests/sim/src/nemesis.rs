//! Does things to brokers and links now and then, as the plan has them.
use std::time::Duration;
use strandline::world::World;

use crate::cluster::{Cluster, Order};
use crate::faults::{Fault, Faults};
use crate::network::{Link, Network};
use crate::plan::Plan;

/// After an outage of the journal a broker looks for it again within the fencing time by this.
const LATE: u64 = 8;

/// Who does it.
#[derive(Clone)]
pub struct Nemesis {
    pub world: World,
    pub plan: Plan,
    pub cluster: Cluster,
    pub network: Network,
    pub faults: Faults,
    /// Clients have the numbers below this.
    pub clients: u32,
}

impl Nemesis {
    /// Goes on until it is aborted. One crash comes early, so that every run has one.
    pub async fn run(self) {
        for (fault, rate) in &self.plan.rates {
            self.faults.set(*fault, *rate);
        }
        let mut first = true;
        loop {
            let mean = u64::try_from(self.plan.between_events.as_millis()).unwrap_or(1_000);
            self.world.sleep(Duration::from_millis(mean / 4 + self.world.random_below(mean * 3 / 2))).await;
            if self.plan.events.is_empty() {
                continue;
            }
            let drawn = self.world.random_below(self.plan.events.len() as u64);
            let crashes = std::mem::take(&mut first) && self.plan.events.contains(&Fault::Crash);
            let event = if crashes { Fault::Crash } else { self.plan.events[drawn as usize] };
            self.strike(event);
        }
    }

    fn strike(&self, event: Fault) {
        let ids = self.cluster.ids();
        let id = ids[self.world.random_below(ids.len() as u64) as usize];
        let time = self.duration();
        tracing::debug!(id, ?event, ?time, "strike");
        self.network.note("event", event.name(), &[]);
        if event != Fault::Fork {
            self.faults.fired(event);
        }
        match event {
            Fault::Fork => self.fork(),
            Fault::Crash => self.cluster.order(id, Order::Kill { dark: false, down: time }),
            Fault::PowerLoss => self.cluster.order(id, Order::Kill { dark: true, down: time }),
            Fault::Stop => self.cluster.order(id, Order::Stop { down: time }),
            Fault::Replaced => self.cluster.order(id, Order::Replace { after: time }),
            Fault::Pause => self.pause(id, time),
            Fault::ClockSkew | Fault::ClockJump => self.set_clock(id),
            Fault::ClientPartition => {
                let clients: Vec<u32> = (0..self.clients).filter(|_| self.world.random_below(2) == 0).collect();
                clients.into_iter().for_each(|client| self.block(Link::Client(client, id), time));
            }
            Fault::JournalPartition => self.block(Link::Journal(id), time),
            Fault::JournalAway => {
                let late_ms = u64::try_from(self.plan.fencing.as_millis()).unwrap_or(0) / LATE;
                let late = || Duration::from_millis(self.world.random_below(late_ms));
                ids.into_iter().for_each(|id| self.block(Link::Journal(id), time + late()));
            }
            Fault::BucketPartition => self.block(Link::Bucket(id), time),
            Fault::BucketFull | Fault::JournalFull => self.fill(event, time),
            _ => {}
        }
    }

    /// Mostly short, sometimes longer than any time-out.
    fn duration(&self) -> Duration {
        // Where much happens, nothing lasts: else nothing would be up.
        let longest = if self.plan.between_events < Duration::from_secs(3) { 2 } else { 4 };
        let most = [300, 3_000, 12_000, 30_000][self.world.random_below(longest) as usize];
        Duration::from_millis(50 + self.world.random_below(most))
    }

    fn fork(&self) {
        let cluster = self.cluster.clone();
        self.world.spawn("fork", async move { cluster.fork().await });
    }

    fn pause(&self, id: i32, time: Duration) {
        // What brokers know has to get into the bucket.
        let Some(host) = self.cluster.host(id).filter(|_| !self.cluster.is_forked()) else { return };
        host.pause();
        let world = self.world.clone();
        self.world.spawn("pause", async move {
            world.sleep(time).await;
            host.resume();
        });
    }

    fn set_clock(&self, id: i32) {
        let most = [2_000, 60_000, 3_600_000][self.world.random_below(3) as usize];
        let offset = i64::try_from(self.world.random_below(2 * most)).unwrap_or(0) - most as i64;
        self.cluster.set_wall_offset_ms(id, offset);
    }

    fn block(&self, link: Link, time: Duration) {
        let (network, world) = (self.network.clone(), self.world.clone());
        network.block(link, true);
        self.world.spawn("blocked link", async move {
            world.sleep(time).await;
            network.block(link, false);
        });
    }

    fn fill(&self, fault: Fault, time: Duration) {
        let (faults, world) = (self.faults.clone(), self.world.clone());
        faults.set(fault, 10_000);
        self.world.spawn("full", async move {
            world.sleep(time.min(Duration::from_secs(8))).await;
            faults.set(fault, 0);
        });
    }
}
