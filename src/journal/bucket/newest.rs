//! The newest entry of each incarnation: what makes a retry recognisable when its entry is trimmed (H8). It follows from
//! the entries alone, so every broker has the same one at a position. Pure.
use std::collections::BTreeMap;

use crate::journal::rules::Known;
use crate::types::{Incarnation, Position, Token};

/// Incarnations that are remembered; a broker's start makes one. The bound of a boundary's size, at 32 bytes each.
pub(super) const INCARNATIONS_MAX: usize = 10_000;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Newest(BTreeMap<Incarnation, Known>);

/// One of them, as it is written.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Row {
    #[prost(uint64, tag = "1")]
    incarnation: u64,
    #[prost(uint64, tag = "2")]
    counter: u64,
    #[prost(uint64, tag = "3")]
    position: u64,
    #[prost(fixed64, tag = "4")]
    token: u64,
}

impl Newest {
    /// Takes in an entry whose position is above all before it. Beyond the limit the incarnation that has been silent
    /// longest is forgotten.
    pub(super) fn note(&mut self, incarnation: Incarnation, known: Known) {
        self.0.insert(incarnation, known);
        if self.0.len() > INCARNATIONS_MAX {
            let silent = self.0.iter().min_by_key(|(_, known)| known.position).map(|(incarnation, _)| *incarnation);
            silent.and_then(|silent| self.0.remove(&silent));
        }
    }

    pub(super) fn of(&self, incarnation: Incarnation) -> Option<Known> {
        self.0.get(&incarnation).copied()
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        let row = |(incarnation, known): (&Incarnation, &Known)| Row {
            incarnation: incarnation.0,
            counter: known.counter,
            position: known.position.0,
            token: known.token.0,
        };
        self.0.iter().map(row).collect()
    }

    pub(super) fn from_rows(rows: Vec<Row>) -> Self {
        let known = |row: Row| {
            let known = Known { counter: row.counter, position: Position(row.position), token: Token(row.token) };
            (Incarnation(row.incarnation), known)
        };
        Self(rows.into_iter().map(known).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(position: u64) -> Known {
        Known { counter: 1, position: Position(position), token: Token(position) }
    }

    #[test]
    fn the_longest_silent_is_forgotten() {
        let mut newest = Newest::default();
        let max = INCARNATIONS_MAX as u64;
        (1..=max).for_each(|n| newest.note(Incarnation(n), known(n)));
        newest.note(Incarnation(1), known(max + 1));
        newest.note(Incarnation(max + 1), known(max + 2));
        assert_eq!(newest.of(Incarnation(1)), Some(known(max + 1)));
        assert_eq!(newest.of(Incarnation(2)), None);
        assert_eq!(newest.of(Incarnation(3)), Some(known(3)));
        assert_eq!(Newest::from_rows(newest.rows()), newest);
        assert_eq!(newest.rows().len(), INCARNATIONS_MAX);
    }
}
