//! Defects on purpose, by which the simulation's checker is proved: each is a mistake that a good engineer could make, no
//! assertion of the broker notices it, and the checker has to find it from what clients saw. They are there with the
//! feature `planted` only; without it [`planted`] is constantly false, and nothing of them is in the binary. At most one
//! is active: in a thread that says so, or in a whole process by `PLANTED=name`. No room: it imports nothing, and every
//! room may use it.

macro_rules! defects {
    ($($(#[doc = $about:literal])+ $variant:ident $name:literal $origin:literal)+) => {
        /// What is broken, and what a client could notice.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Defect { $($(#[doc = $about])+ $variant,)+ }

        impl Defect {
            /// All, in the order of the list.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As `PLANTED` names it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The hazard or corner that it comes from: H1 to H18, K1 to K36, or `issue` where issue 5 names it.
            #[must_use]
            pub const fn origin(self) -> &'static str {
                match self { $(Self::$variant => $origin),+ }
            }

            /// What is broken, and what a client could notice, in words.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => concat!($($about),+)),+ }
            }
        }
    };
}

defects! {
    /// Producers are answered with the foreseen offsets before the journal has the entry. After a crash, or beside
    /// another broker, acknowledged records are missing or stand at other offsets.
    AckBeforeCommit "ack-before-commit" "issue"
    /// A flush counts as stored when its PUT has begun. Its records are readable from memory, and gone after a crash in
    /// between.
    DroppedSync "dropped-sync" "issue"
    /// Batches of one connection and partition are committed in the order in which their PUTs end. Records of a plain
    /// producer stand in another order than it sent them.
    PutOrder "put-order" "issue"
    /// A fetch that a lagging broker finds out of range is answered so without a read barrier. A consumer that moved to
    /// it is reset although its offset is good.
    StaleOutOfRange "stale-out-of-range" "issue"
    /// A topic that a lagging broker does not know is answered as unknown without a read barrier. Clients of another
    /// broker have been told before that it was created.
    StaleUnknownTopic "stale-unknown-topic" "issue"
    /// A commit is accepted from a member of an earlier generation. It overwrites what the partition's new owner has
    /// committed.
    StaleGeneration "stale-generation" "issue"
}

/// Whether this defect is the one that is active.
#[cfg(not(feature = "planted"))]
#[must_use]
#[inline]
pub const fn planted(_: Defect) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use active::{activate, planted};

#[cfg(feature = "planted")]
mod active {
    use super::Defect;
    use std::cell::Cell;
    use std::sync::OnceLock;

    thread_local! {
        static HERE: Cell<Option<Defect>> = const { Cell::new(None) };
    }

    /// Makes this defect, or none, the active one of this thread. A simulated cluster runs in one.
    pub fn activate(defect: Option<Defect>) {
        HERE.set(defect);
    }

    /// Whether this defect is the one that is active.
    ///
    /// # Panics
    /// If `PLANTED` names none: a misspelt defect would pass for one that nobody finds.
    #[must_use]
    pub fn planted(defect: Defect) -> bool {
        static EVERYWHERE: OnceLock<Option<Defect>> = OnceLock::new();
        let named = || {
            let name = std::env::var("PLANTED").ok()?;
            let found = Defect::ALL.iter().copied().find(|known| known.name() == name);
            Some(found.unwrap_or_else(|| panic!("PLANTED={name} is not the name of a defect")))
        };
        HERE.get().or_else(|| *EVERYWHERE.get_or_init(named)) == Some(defect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn sources(folder: &Path, all: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, all);
            } else if path.file_name().is_some_and(|name| name != "planted.rs") {
                all.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn each_has_a_name_and_a_place() {
        let mut all = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
        let names: BTreeSet<_> = Defect::ALL.iter().map(|defect| defect.name()).collect();
        assert_eq!(names.len(), Defect::ALL.len());
        for defect in Defect::ALL {
            let uses = all.matches(&format!("planted(Defect::{defect:?})")).count();
            assert!(uses > 0, "{defect:?} is nowhere in the source");
            assert!(!defect.about().is_empty() && !defect.origin().is_empty());
        }
    }

    #[test]
    fn none_is_active_unless_named() {
        let named = std::env::var("PLANTED").ok();
        let active = Defect::ALL.iter().find(|defect| planted(**defect));
        let expected = named.as_deref().filter(|_| cfg!(feature = "planted"));
        assert_eq!(active.map(|defect| defect.name()), expected);
    }
}
