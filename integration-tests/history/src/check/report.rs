//! What the checker says: anomalies with the operations that prove them, how often each rule had something to look at,
//! and how the operations ended.
use std::collections::BTreeMap;
use std::fmt;

/// Anomalies of one rule that are listed; more are only counted.
const LISTED_MAX: u64 = 20;

macro_rules! rules {
    ($($name:ident $promise:literal,)*) => {
        /// What a broker promises, by the number that an anomaly has where it is broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $(#[doc = $promise] $name,)*
        }

        impl Rule {
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The promise in a sentence.
            #[must_use]
            pub fn promise(self) -> &'static str {
                match self { $(Self::$name => $promise,)* }
            }
        }
    };
}

rules! {
    A1 "An acknowledged record is never passed over by all who read beyond it.",
    A2 "In the end, a reader that begins at the beginning gets every acknowledged record that was not deleted.",
    A3 "One offset has one record, whoever tells of it and whenever.",
    A4 "An idempotent producer's record stands in the log once, however often the client had to retry; so does any that was sent once.",
    A5 "The offset in a producer's answer is the one at which its record is read.",
    A6 "An idempotent producer's records stand in the log in the order in which it sent them, pipelined or not.",
    A7 "What an aborted transaction wrote is not given to readers of committed records.",
    A8 "A batch stands in the log whole and in order, or not at all; so does a transaction for readers of committed records.",
    A10 "No two transactions have each read what the other wrote, nor more of them in a circle.",
    A11 "What a transaction writes is not given to readers of committed records before its commit was asked for.",
    A12 "A reader that goes on where it stopped is given every record that there is.",
    A13 "A reader that goes on where it stopped is given nothing from before.",
    A14 "Inside one answer, offsets rise.",
    A15 "What a client sends after an answer lies behind what that answer was about.",
    A16 "A new record lies behind all that anybody was told of before it was sent; no offset is given twice.",
    A17 "Offsets have no holes.",
    A18 "High watermark and last stable offset never go back.",
    A19 "Where no transaction is open the last stable offset is the high watermark, and one that is given up does not stay open.",
    A20 "A group's committed offset is the last one committed.",
    A21 "Offsets that are sent with a transaction are committed with it, and not otherwise.",
    A22 "A producer whose transactional id another has taken over can do nothing any more.",
    A23 "Who is no longer a member, or is of an older generation, may not commit and is told so.",
    A24 "A partition has one owner in a group at any time.",
    A25 "Readers get only what was sent, where it was sent to, and not before.",
    A26 "Records come back as they were written: value, key, headers, timestamp.",
    A27 "The log start never goes back, nothing below it is served, and nothing above it vanishes.",
    A28 "Where only the last record of each key is kept, that one is, and what is gone does not come back.",
    A29 "A tombstone stays as long as its topic says, so that who has read the value before it learns that it is gone.",
    A30 "ListOffsets by time finds the first record that is not older; -3 finds the one with the largest timestamp.",
    A31 "An acknowledged record is visible to readers within the allowed lag, on the same broker at once.",
    A32 "When faults are over, every partition and group answers again within the allowed time.",
    A33 "Every object that is referred to is in the bucket, whole.",
    A34 "Objects that nothing refers to are collected.",
    A35 "What was refused is not there.",
    K13 "Who reads, writes and commits its offsets in transactions has written once what comes of each record, no more and no less.",
    K15 "A member in good standing is not told that it is none, or of another generation.",
    K26 "The end of a leader epoch lies behind all of its records and before all later ones: else consumers see a truncation.",
    K27 "An offset that can be read is not said to be out of range.",
    K28 "The latest offset is not below what was acknowledged.",
    K30 "A setting that was changed holds from then on, on the broker that changed it at once.",
    K35 "A topic that was made is known, whole, until somebody begins to delete it; a deleted one is gone.",
    K36 "Errors do not lie: no refusal by authorization, fencing or format where nothing of the kind happened.",
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    pub rule: Rule,
    /// The operations that prove it, by their ids.
    pub operations: Vec<u64>,
    /// What was seen.
    pub text: String,
}

/// What was looked at, and what of it was wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub checked: u64,
    pub anomalies: u64,
}

/// The verdict on one history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// At most twenty for each rule; `counts` has them all.
    pub anomalies: Vec<Anomaly>,
    /// Every rule: one with nothing checked proves nothing.
    pub counts: BTreeMap<Rule, Count>,
    /// Operations by kind, and of each kind by how they ended: `ok`, `fail ERROR`, `info ERROR`.
    pub outcomes: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// Logs that were acknowledged anything, and how many of them were read from beginning to end in the final phase.
    pub logs: u64,
    pub logs_read_whole: u64,
    /// Objects in the bucket that nothing refers to, if an inventory was given; those that are still young are not here.
    pub orphans: Option<u64>,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { counts: Rule::ALL.iter().map(|rule| (*rule, Count::default())).collect(), ..Self::default() }
    }

    /// Whether no promise was broken.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.anomalies.is_empty()
    }

    /// The rules that were broken.
    #[must_use]
    pub fn broken(&self) -> Vec<Rule> {
        self.counts.iter().filter(|(_, count)| count.anomalies > 0).map(|(rule, _)| *rule).collect()
    }

    /// The rules that had nothing to look at.
    #[must_use]
    pub fn vacuous(&self) -> Vec<Rule> {
        self.counts.iter().filter(|(_, count)| count.checked == 0).map(|(rule, _)| *rule).collect()
    }

    pub(super) fn checked(&mut self, rule: Rule, times: u64) {
        self.counts.entry(rule).or_default().checked += times;
    }

    /// Notes an anomaly. The text is made only where it is listed.
    pub(super) fn found(&mut self, rule: Rule, operations: &[u64], text: impl FnOnce() -> String) {
        let count = self.counts.entry(rule).or_default();
        count.anomalies += 1;
        if count.anomalies <= LISTED_MAX {
            self.anomalies.push(Anomaly { rule, operations: operations.to_vec(), text: text() });
        }
    }

    /// Looks at one thing: counts it, and notes an anomaly where it is not as promised.
    pub(super) fn expect(&mut self, rule: Rule, holds: bool, operations: &[u64], text: impl FnOnce() -> String) {
        self.checked(rule, 1);
        if !holds {
            self.found(rule, operations, text);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, ends) in &self.outcomes {
            let ends: Vec<String> = ends.iter().map(|(end, count)| format!("{end} {count}")).collect();
            writeln!(f, "{kind}: {}", ends.join(", "))?;
        }
        let checked = self.counts.iter().filter(|(_, count)| count.checked > 0);
        let checked: Vec<String> = checked.map(|(rule, count)| format!("{rule} {}", count.checked)).collect();
        writeln!(f, "checked: {}", checked.join(", "))?;
        let vacuous: Vec<String> = self.vacuous().iter().map(Rule::to_string).collect();
        writeln!(f, "nothing to check: {}", vacuous.join(", "))?;
        writeln!(f, "read whole in the end: {} of {} logs", self.logs_read_whole, self.logs)?;
        if let Some(orphans) = self.orphans {
            writeln!(f, "orphans: {orphans}")?;
        }
        for Anomaly { rule, operations, text } in &self.anomalies {
            writeln!(f, "{rule}: {text} {operations:?}")?;
        }
        for rule in self.broken() {
            writeln!(f, "{rule} broken {} times: {}", self.counts[&rule].anomalies, rule.promise())?;
        }
        write!(f, "{}", if self.is_clean() { "no anomaly" } else { "ANOMALIES" })
    }
}
