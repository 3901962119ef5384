//! Which topic had a name when. A topic may be deleted and made again, and an operation may name it by its name only. The
//! deletions of a name divide time into eras; what begins and ends within one era concerns the one topic of that era. An
//! operation by name that overlaps a deletion, or follows one whose end nobody knows, may concern either.
use std::collections::{BTreeMap, HashMap};

use super::facts::{end_of, log_of};
use crate::operation::{End, Log, Operation, What};

/// When something was, or may have been, under way: the deletions of a topic's name, its creations.
#[derive(Default)]
pub(super) struct Spans {
    /// Begin, and the latest end of those that began up to then (`u64::MAX` where it is not known). Sorted once sealed.
    spans: Vec<(u64, u64)>,
}

impl Spans {
    pub(super) fn tell(&mut self, start_us: u64, end_us: u64) {
        self.spans.push((start_us, end_us));
    }

    pub(super) fn seal(&mut self) {
        self.spans.sort_unstable();
        let mut latest = 0;
        for (_, over) in &mut self.spans {
            latest = latest.max(*over);
            *over = latest;
        }
    }

    /// The number of those that were over by `start_us`, if none may have been under way up to `end_us`.
    pub(super) fn era(&self, start_us: u64, end_us: u64) -> Option<usize> {
        let begun = self.spans.partition_point(|(start, _)| *start <= end_us);
        let over = begun.checked_sub(1).is_none_or(|last| self.spans[last].1 < start_us);
        over.then_some(begun)
    }

    /// Whether one may have been under way at some time from `from_us` to `to_us`.
    pub(super) fn touch(&self, from_us: u64, to_us: u64) -> bool {
        let begun = self.spans.partition_point(|(start, _)| *start <= to_us);
        begun.checked_sub(1).is_some_and(|last| self.spans[last].1 >= from_us)
    }
}

/// The deletions of each topic's name.
pub(super) fn deletions<'a>(operations: &[&'a Operation]) -> HashMap<&'a str, Spans> {
    let mut found: HashMap<&str, Spans> = HashMap::new();
    for operation in operations {
        let What::DeleteTopic { topic, .. } = &operation.what else { continue };
        let over = match operation.end {
            End::Ok => end_of(operation),
            End::Info(_) => u64::MAX,
            End::Fail(_) => continue,
        };
        found.entry(topic).or_default().tell(operation.start_us, over);
    }
    found.values_mut().for_each(Spans::seal);
    found
}

/// The id of the topic that had a name in an era; `None` where there seem to be several. An id belongs to the first era in
/// which it was seen: a lagging broker may show it later too.
pub(super) fn ids_of_eras<'a>(
    operations: &[&'a Operation],
    era: &impl Fn(&Operation, &str) -> Option<usize>,
) -> HashMap<(&'a str, usize), Option<&'a str>> {
    let mut first: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation.end == End::Ok) {
        let (topic, id) = match &operation.what {
            What::CreateTopic { topic, id: Some(id), .. } => (topic, id),
            What::Describe { topic, found: Some((id, _)) } if !id.is_empty() => (topic, id),
            // Nobody says that it came to a topic that was there.
            What::Send { acked: false, .. } => continue,
            what => match log_of(what) {
                Some(Log { topic, id: Some(id), .. }) => (topic, id),
                _ => continue,
            },
        };
        if let Some(era) = era(operation, topic) {
            let earliest = first.entry((topic, id)).or_insert(era);
            *earliest = era.min(*earliest);
        }
    }
    let mut ids: HashMap<(&str, usize), Option<&str>> = HashMap::new();
    for ((topic, id), era) in first {
        ids.entry((topic, era)).and_modify(|known| *known = None).or_insert(Some(id));
    }
    ids
}
