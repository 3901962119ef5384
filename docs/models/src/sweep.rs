//! Orphan horizon × commit × sweep (H4). A writer that may stand still between naming an object, putting it and committing
//! it, in two entries; a retention that lets go of what was committed; and a sweeper that deletes what nothing refers to. A
//! broker's State is the fold of the journal as far as it has applied it.
use stateright::{Model, Property};

const OBJECTS: usize = 2;
const ENTRIES_MAX: usize = 5;

/// The rules, each of which can be taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    Nothing,
    /// `apply` refuses an object whose writer had applied less than the horizon.
    HorizonAtApply,
    /// The sweeper decides by a State that has applied its horizon.
    HorizonApplied,
    /// What the sweeper deletes was named below the horizon.
    HorizonOfOrphans,
    /// What was released is deleted below the horizon only, since a later entry may commit the rest of it.
    HorizonOfReleased,
    /// The position stands in the name when the object is named, not when it is committed.
    PositionInName,
    /// Both sides draw the line at the same position.
    SameLine,
}

#[derive(Clone, Debug)]
pub struct Sweep {
    pub without: Without,
}

/// A position of the journal: how many entries were applied.
pub type Applied = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// Commits a part of an object, which was named by one who had applied this much.
    Commit {
        object: u8,
        named_at: Applied,
    },
    /// Nothing of the object is needed any more.
    Release {
        object: u8,
    },
    RaiseHorizon {
        to: Applied,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    Unnamed,
    Named { at: Applied },
    There { at: Applied },
    Deleted { at: Applied },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fold {
    pub horizon: Applied,
    pub referenced: [bool; OBJECTS],
    /// Was referenced once.
    pub released: [bool; OBJECTS],
    pub refused: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub objects: [Object; OBJECTS],
    /// Entries that the writer has appended for each object.
    pub commits: [u8; OBJECTS],
    pub journal: Vec<Entry>,
    pub writer_applied: Applied,
    pub sweeper_applied: Applied,
    /// Objects that the sweeper has decided to delete.
    pub condemned: [bool; OBJECTS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    WriterApplies,
    SweeperApplies,
    Name(usize),
    Put(usize),
    Commit(usize),
    Release(usize),
    RaiseHorizon,
    Condemn(usize),
    Delete(usize),
}

impl Sweep {
    fn fold(&self, journal: &[Entry]) -> Fold {
        let mut fold = Fold::default();
        for entry in journal {
            match *entry {
                Entry::Commit { object, named_at } => {
                    if named_at < fold.horizon && self.without != Without::HorizonAtApply {
                        fold.refused = true;
                    } else {
                        fold.referenced[usize::from(object)] = true;
                    }
                }
                Entry::Release { object } => {
                    let object = usize::from(object);
                    fold.released[object] |= fold.referenced[object];
                    fold.referenced[object] = false;
                }
                Entry::RaiseHorizon { to } => fold.horizon = fold.horizon.max(to),
            }
        }
        fold
    }

    /// Whether the sweeper may delete the object, by the State that it has.
    fn may_go(&self, state: &State, object: usize) -> bool {
        let Object::There { at } = state.objects[object] else { return false };
        let fold = self.fold(&state.journal[..usize::from(state.sweeper_applied)]);
        if fold.referenced[object] {
            return false;
        }
        let raised = state.journal.iter().filter_map(|entry| match entry {
            Entry::RaiseHorizon { to } => Some(*to),
            Entry::Commit { .. } | Entry::Release { .. } => None,
        });
        let horizon = match self.without {
            Without::HorizonApplied => raised.max().unwrap_or(0),
            _ => fold.horizon,
        };
        let spared = match self.without {
            Without::HorizonOfOrphans => false,
            Without::HorizonOfReleased => !fold.released[object],
            _ => true,
        };
        let below = if self.without == Without::SameLine { at <= horizon } else { at < horizon };
        below || !spared
    }
}

impl Model for Sweep {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            objects: [Object::Unnamed; OBJECTS],
            commits: [0; OBJECTS],
            journal: Vec::new(),
            writer_applied: 0,
            sweeper_applied: 0,
            condemned: [false; OBJECTS],
        }]
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        actions.extend([Action::WriterApplies, Action::SweeperApplies, Action::RaiseHorizon]);
        for object in 0..OBJECTS {
            actions.extend([Action::Name(object), Action::Put(object), Action::Commit(object)]);
            actions.extend([Action::Release(object), Action::Condemn(object), Action::Delete(object)]);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let end = state.journal.len() as Applied;
        let has_room = state.journal.len() < ENTRIES_MAX;
        match action {
            Action::WriterApplies if state.writer_applied < end => state.writer_applied += 1,
            Action::SweeperApplies if state.sweeper_applied < end => state.sweeper_applied += 1,
            Action::Name(object) if state.objects[object] == Object::Unnamed => {
                state.objects[object] = Object::Named { at: state.writer_applied };
            }
            Action::Put(object) => {
                let Object::Named { at } = state.objects[object] else { return None };
                state.objects[object] = Object::There { at };
            }
            Action::Commit(object) if has_room && state.commits[object] < 2 => {
                // Its writer put it, whatever has become of it since.
                let (Object::There { at } | Object::Deleted { at }) = state.objects[object] else { return None };
                let named_at = if self.without == Without::PositionInName { state.writer_applied } else { at };
                state.commits[object] += 1;
                state.journal.push(Entry::Commit { object: object as u8, named_at });
            }
            Action::Release(object) if has_room && self.fold(&state.journal).referenced[object] => {
                state.journal.push(Entry::Release { object: object as u8 });
            }
            Action::RaiseHorizon if has_room => {
                let to = state.sweeper_applied;
                if to <= self.fold(&state.journal).horizon {
                    return None;
                }
                state.journal.push(Entry::RaiseHorizon { to });
            }
            Action::Condemn(object) if !state.condemned[object] && self.may_go(last, object) => {
                state.condemned[object] = true;
            }
            Action::Delete(object) if state.condemned[object] => {
                let Object::There { at } = state.objects[object] else { return None };
                state.objects[object] = Object::Deleted { at };
            }
            _ => return None,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing that is deleted is referred to", |model: &Sweep, state: &State| {
                let referenced = model.fold(&state.journal).referenced;
                (0..OBJECTS).all(|object| !referenced[object] || !is_deleted(state, object))
            }),
            Property::sometimes("an orphan is deleted", |_, state: &State| {
                (0..OBJECTS).any(|object| is_deleted(state, object) && state.commits[object] == 0)
            }),
            Property::sometimes("what was released is deleted", |model: &Sweep, state: &State| {
                let released = model.fold(&state.journal).released;
                (0..OBJECTS).any(|object| is_deleted(state, object) && released[object])
            }),
            Property::sometimes("a commit comes too late", |model: &Sweep, state: &State| {
                model.fold(&state.journal).refused
            }),
        ]
    }
}

fn is_deleted(state: &State, object: usize) -> bool {
    matches!(state.objects[object], Object::Deleted { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use stateright::Checker;

    #[test]
    fn with_all_rules_nothing_breaks() {
        let checker = Sweep { without: Without::Nothing }.checker().threads(2).spawn_bfs().join();
        println!("{} states", checker.unique_state_count());
        checker.assert_properties();
    }

    #[test]
    fn each_rule_is_needed() {
        for without in [
            Without::HorizonAtApply,
            Without::HorizonApplied,
            Without::HorizonOfOrphans,
            Without::HorizonOfReleased,
            Without::PositionInName,
            Without::SameLine,
        ] {
            let checker = Sweep { without }.checker().threads(2).spawn_bfs().join();
            let broken = checker.discovery("nothing that is deleted is referred to");
            assert!(broken.is_some(), "nothing breaks without {without:?}");
        }
    }
}
