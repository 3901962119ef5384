//! Who waits for which partition: a fetch registers its slots, a publication wakes those that it touched.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

use crate::types::Slot;

/// The registry. A mutex, held for a few map operations: waiters come and go on every connection's task.
#[derive(Default)]
pub(super) struct Hub(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    next: u64,
    waiters: BTreeMap<(Slot, u64), Arc<Notify>>,
}

/// One registration; ends when it is dropped.
pub struct Waiter {
    hub: Arc<Mutex<Inner>>,
    id: u64,
    slots: Vec<Slot>,
    woken: Arc<Notify>,
}

impl Hub {
    pub(super) fn register(&self, slots: impl Iterator<Item = Slot>) -> Waiter {
        let woken = Arc::new(Notify::new());
        let slots: Vec<Slot> = slots.collect();
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.next += 1;
        let id = inner.next;
        for &slot in &slots {
            inner.waiters.insert((slot, id), woken.clone());
        }
        drop(inner);
        Waiter { hub: self.0.clone(), id, slots, woken }
    }

    /// Wakes everybody who waits for one of `slots`.
    pub(super) fn wake(&self, slots: impl Iterator<Item = Slot>) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.waiters.is_empty() {
            return;
        }
        for slot in slots {
            for notify in inner.waiters.range((slot, 0)..=(slot, u64::MAX)).map(|(_, n)| n) {
                notify.notify_one();
            }
        }
    }

    /// Wakes everybody.
    pub(super) fn wake_all(&self) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.waiters.values().for_each(|notify| notify.notify_one());
    }
}

impl Waiter {
    /// Resolves when one of the slots got records since the registration or the last call.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut inner = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        for &slot in &self.slots {
            inner.waiters.remove(&(slot, self.id));
        }
    }
}
