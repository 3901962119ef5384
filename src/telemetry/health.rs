//! May this broker be sent clients? It may when nobody has an objection. Each part of the broker that can be in trouble
//! (`start`, `bucket`, `journal`, `drain`, …) raises and clears its own objection, so that the end of one outage does
//! not hide another. `/readyz` and the logs read it.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared by everybody who may object; cheap to clone.
#[derive(Clone, Default)]
pub struct Health {
    /// A mutex and not an owner task: it is taken at changes of state and by probes, never awaited over.
    objections: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Health {
    /// Health of a broker that has not started yet: `start` objects until it is cleared.
    #[must_use]
    pub fn starting() -> Self {
        let health = Self::default();
        health.object("start", "the broker is starting");
        health
    }

    /// `who` says why clients should stay away. True if `who` had no objection before: the one time to log it.
    pub fn object(&self, who: &'static str, why: impl Into<String>) -> bool {
        self.lock().insert(who, why.into()).is_none()
    }

    /// `who` has no objection any more. True if it had one: the one time to log it.
    pub fn clear(&self, who: &'static str) -> bool {
        self.lock().remove(who).is_some()
    }

    /// The objections as `who: why`, joined by `; `, or `Ok` if there are none.
    ///
    /// # Errors
    /// The text, while somebody objects.
    pub fn ready(&self) -> Result<(), String> {
        let objections = self.lock();
        if objections.is_empty() {
            return Ok(());
        }
        Err(objections.iter().map(|(who, why)| format!("{who}: {why}")).collect::<Vec<_>>().join("; "))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.objections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_one_outage_does_not_hide_another() {
        let health = Health::starting();
        assert!(health.clear("start"));
        assert_eq!(health.ready(), Ok(()));
        assert!(health.object("bucket", "no answer for 12 s"));
        assert!(!health.object("bucket", "no answer for 13 s"));
        assert!(health.object("journal", "disk full"));
        assert!(health.clear("bucket"));
        assert!(!health.clear("bucket"));
        assert_eq!(health.ready(), Err("journal: disk full".to_owned()));
    }
}
