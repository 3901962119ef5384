//! The rules of transactions: histories that break each, and legal ones that come near. Process 1 has the transactional id
//! `x`, and so may process 3, later; 2 reads.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
mod build;

use build::*;
use strandline_history::{Rule, What};

/// Process 1 has its id, and sends value 1 as its transaction 1, which gets the offset 0.
fn open() -> Build {
    Build::new().ok(1, (1, 2), init(0)).ok(1, (10, 20), within(1, send(1, &[1], Some(0))))
}

/// The same, and its end from 30 to 40.
fn closed(commit: bool) -> Build {
    open().ok(1, (30, 40), ended(1, commit))
}

/// A reader of committed records that gets the value, or passes it over, from 50 to 60.
fn given(build: Build) -> Build {
    build.ok(2, (50, 60), poll_committed(0, &[(0, 1, 1)], 2, 2))
}

fn passed_over(build: Build) -> Build {
    build.ok(2, (50, 60), poll_committed(0, &[], 2, 2))
}

#[test]
fn a7_aborted_records() {
    let fenced = |commit: What| {
        let build = open().ok(3, (25, 28), init(1)).info(1, 30, commit);
        given(build)
    };
    table(
        Rule::A7,
        vec![
            ("aborted", given(closed(false))),
            ("never ended", given(open())),
            (
                "its commit was refused",
                given(open().fail(1, (30, 40), "PRODUCER_FENCED", ended(1, true)).info(3, 5, init(1))),
            ),
            ("fenced before it asked", fenced(ended(1, true))),
        ],
        vec![
            ("committed", given(closed(true))),
            ("nobody knows, so it was", given(open().info(1, 30, ended(1, true)))),
            ("to whoever reads all", closed(false).ok(2, (50, 60), on_to(poll(0, &[(0, 1, 1)], 2), 2))),
            ("passed over", passed_over(closed(false))),
            ("fenced by one whom a fork has lost", fenced(ended(1, true)).with(|options| options.salvaged = true)),
            ("asked before it was fenced", given(open().info(1, 24, ended(1, true)).ok(3, (25, 28), init(1)))),
        ],
    );
}

#[test]
fn a8_torn_transactions() {
    // Values 1 and 2 at the offsets 0 and 1; the marker is 2.
    let two = |build: Build| build.ok(1, (22, 24), within(1, send(1, &[2], Some(1))));
    let half = |build: Build| build.ok(2, (50, 60), poll_committed(0, &[(1, 1, 2)], 3, 3));
    let whole = |build: Build| build.ok(2, (50, 60), poll_committed(0, &[(0, 1, 1), (1, 1, 2)], 3, 3));
    let none = |build: Build| build.ok(2, (50, 60), poll_committed(0, &[], 3, 3));
    table(
        Rule::A8,
        vec![
            ("half of it", half(two(open()).ok(1, (30, 40), ended(1, true)))),
            ("nothing of it", none(two(open()).ok(1, (30, 40), ended(1, true)))),
            ("half of one that is proved by the other half", half(two(open()).info(1, 30, ended(1, true)))),
        ],
        vec![
            ("all of it", whole(two(open()).ok(1, (30, 40), ended(1, true)))),
            ("nothing of one whose end is unknown", none(two(open()).info(1, 30, ended(1, true)))),
            ("nothing of an aborted one", none(two(open()).ok(1, (30, 40), ended(1, false)))),
            ("the first half first", {
                let build = two(open()).ok(1, (30, 40), ended(1, true));
                let build = build.ok(2, (50, 60), poll_committed(0, &[(0, 1, 1)], 1, 3).stable(3));
                build.ok(2, (61, 62), poll_committed(1, &[(1, 1, 2)], 3, 3))
            }),
            (
                "lost by a fork",
                half(two(open()).ok(1, (30, 40), ended(1, true))).with(|options| options.salvaged = true),
            ),
        ],
    );
}

/// Changes what is stable.
trait Stable {
    fn stable(self, offset: i64) -> Self;
}

impl Stable for What {
    fn stable(mut self, offset: i64) -> Self {
        if let What::Poll { last_stable_offset, .. } = &mut self {
            *last_stable_offset = offset;
        }
        self
    }
}

#[test]
fn a10_circles() {
    // Each writes one value, reads the other's, and commits.
    let both = |first_commit: (u64, u64), second_commit: (u64, u64)| {
        let build = open().ok(3, (3, 4), init_as("y")).ok(3, (11, 21), within(1, send(3, &[1], Some(1))));
        let build = build.ok(1, (30, 40), poll_committed(1, &[(1, 3, 1)], 2, 4)).ok(1, first_commit, ended(1, true));
        build.ok(3, (30, 40), poll_committed(0, &[(0, 1, 1)], 1, 4)).ok(3, second_commit, ended(1, true))
    };
    let after = {
        let build = closed(true).ok(3, (3, 4), init_as("y")).ok(3, (50, 60), poll_committed(0, &[(0, 1, 1)], 2, 2));
        build.ok(3, (61, 70), within(1, send(3, &[1], Some(2)))).ok(3, (71, 80), ended(1, true))
    };
    table(Rule::A10, vec![("each has read the other", both((50, 60), (50, 60)))], vec![("one after the other", after)]);
}

#[test]
fn a11_before_the_commit() {
    let late = given(open().ok(1, (70, 80), ended(1, true)));
    let own = open().ok(1, (22, 28), poll_committed(0, &[(0, 1, 1)], 1, 1)).ok(1, (30, 40), ended(1, true));
    table(
        Rule::A11,
        vec![
            ("asked for later", late),
            ("by itself", own),
            ("beyond what is stable", closed(true).ok(2, (50, 60), poll_committed(0, &[(0, 1, 1)], 2, 2).stable(0))),
        ],
        vec![("asked for meanwhile", given(open().ok(1, (55, 80), ended(1, true))))],
    );
}

#[test]
fn a18_a19_the_last_stable_offset() {
    let stable = |offset| poll(0, &[], 2).stable(offset);
    let fetched =
        |broker, at, offset| closed(true).ok_by(1, 2, (50, 60), stable(2)).ok_by(broker, 3, at, stable(offset));
    table(
        Rule::A18,
        vec![("one broker", fetched(1, (61, 62), 0)), ("another, late", fetched(2, (161, 162), 0))],
        vec![("another, within the lag", fetched(2, (61, 62), 0)), ("rising", fetched(1, (61, 62), 2))],
    );
    // The lag is 100 µs, the time-out 1000 µs, and as much is allowed for whoever has to see it.
    let given_up = |at: u64| open().healed(100).ok(2, (at, at + 1), poll(0, &[], 2).stable(0));
    table(
        Rule::A19,
        vec![
            ("committed long ago", closed(true).ok(2, (150, 160), stable(0))),
            ("aborted long ago", closed(false).ok(2, (150, 160), stable(0))),
            ("its time-out was over long ago", given_up(2201)),
            ("stuck when all is well again", closed(true).healed(100).ok(2, (1101, 1102), stable(0))),
            ("by a broker that knows what came later", {
                let build = closed(true).ok(9, (60, 70), send(9, &[1], Some(2)));
                build.ok(2, (80, 90), poll(0, &[], 3).stable(0))
            }),
            ("beyond the end", open().ok(2, (150, 160), stable(3))),
        ],
        vec![
            ("open", open().ok(2, (150, 160), stable(0))),
            ("ended, within the lag", closed(true).ok(2, (130, 160), stable(0))),
            ("its time-out is not over, or not seen", given_up(2000)),
            ("its end is unknown", open().info(1, 30, ended(1, true)).ok(2, (500, 560), stable(0))),
        ],
    );
}

#[test]
fn a21_offsets_of_transactions() {
    let sent = |build: Build| build.ok(1, (22, 24), sent_offset(1, 5));
    let read = |build: Build, offset| build.ok(4, (50, 60), committed(offset));
    table(
        Rule::A21,
        vec![
            ("aborted and there", read(sent(open()).ok(1, (30, 40), ended(1, false)), Some(5))),
            ("committed and not there", read(sent(open()).ok(1, (30, 40), ended(1, true)), None)),
            ("there before its end", read(sent(open()).ok(1, (70, 80), ended(1, true)), Some(5))),
            ("there without an end", read(sent(open()), Some(5))),
            ("replaced in the transaction and there", {
                let build = sent(open()).ok(1, (25, 28), sent_offset(1, 6)).ok(1, (30, 40), ended(1, true));
                read(build, Some(5))
            }),
        ],
        vec![
            ("committed", read(sent(open()).ok(1, (30, 40), ended(1, true)), Some(5))),
            ("aborted", read(sent(open()).ok(1, (30, 40), ended(1, false)), None)),
            ("unknown and there", read(sent(open()).info(1, 30, ended(1, true)), Some(5))),
            ("unknown and not there", read(sent(open()).info(1, 30, ended(1, true)), None)),
            ("meanwhile", read(sent(open()).ok(1, (55, 80), ended(1, true)), Some(5))),
            ("the newer of two", {
                let build = sent(open()).ok(1, (25, 28), sent_offset(1, 6)).ok(1, (30, 40), ended(1, true));
                read(build, Some(6))
            }),
        ],
    );
}

#[test]
fn a22_zombies() {
    let taken = |at: (u64, u64)| Build::new().ok(1, (1, 2), init(0)).ok(3, at, init(1));
    let refused = |build: Build| build.fail(1, (10, 20), "INVALID_PRODUCER_EPOCH", within(1, send(1, &[1], None)));
    table(
        Rule::A22,
        vec![
            ("writes", taken((3, 5)).ok(1, (10, 20), within(1, send(1, &[1], Some(0))))),
            ("sends offsets", taken((3, 5)).ok(1, (10, 20), sent_offset(1, 5))),
            (
                "commits",
                taken((12, 15)).ok(1, (10, 20), within(1, send(1, &[1], Some(0)))).ok(1, (30, 40), ended(1, true)),
            ),
            ("writes, as a reader shows", {
                let build = taken((3, 5)).info(1, 10, within(1, send(1, &[1], None)));
                build.ok(2, (50, 60), on_to(poll(0, &[(0, 1, 1)], 2), 2))
            }),
        ],
        vec![
            ("refused", refused(taken((3, 5)))),
            ("began before", taken((12, 15)).ok(1, (10, 20), within(1, send(1, &[1], Some(0))))),
            ("took it at the same time", taken((2, 5)).ok(1, (10, 20), within(1, send(1, &[1], Some(0))))),
            ("took it back", taken((3, 5)).ok(1, (6, 7), init(2)).ok(1, (10, 20), within(1, send(1, &[1], Some(0))))),
        ],
    );
}

#[test]
fn k13_chains() {
    // Process 9 writes values 1 and 2, which process 1 takes to where they came from, as its transactions 1 and 2.
    let input = || Build::new().ok(1, (1, 2), init(0)).ok(9, (3, 4), send(9, &[1, 2], Some(0)));
    let take = |build: Build, number: u64, source: u64, at: i64, offset: i64| {
        let begin = 10 + 100 * number;
        let made = made_from(within(number, send(1, &[number], Some(at))), (9, source));
        let build = build.ok(1, (begin, begin + 1), made).ok(1, (begin + 2, begin + 3), sent_offset(number, offset));
        build.ok(1, (begin + 4, begin + 5), ended(number, true))
    };
    let end = |build: Build, records: &[(i64, u32, u64)], next: i64, offset: Option<i64>| {
        let records: Vec<_> = records.to_vec();
        let build = build.healed(1000).ok(4, (1001, 1002), committed(offset));
        let mut read = poll_committed(0, &records, next, next);
        if let What::Poll { records, .. } = &mut read {
            let made = |seen: &&mut strandline_history::Seen| seen.value.as_ref().is_ok_and(|value| value.process == 1);
            for seen in records.iter_mut().filter(made) {
                let sources = [(5, 2), (2, 1), (4, 1)];
                let source = sources.iter().find(|(offset, _)| *offset == seen.offset).map(|(_, source)| (9, *source));
                seen.value.as_mut().unwrap().source = source;
            }
        }
        build.ok(2, (1003, 1004), starts_at_begin(read)).with(|options| options.final_reads = true)
    };
    let both = [(0, 9, 1), (1, 9, 2), (2, 1, 1), (4, 1, 2)];
    table(
        Rule::K13,
        vec![
            ("twice", end(take(take(input(), 1, 1, 2, 1), 2, 1, 4, 1), &both, 6, Some(1))),
            ("committed and not taken", end(take(input(), 1, 1, 2, 2), &both[..3], 4, Some(2))),
            (
                "taken and not committed",
                end(take(input(), 1, 1, 2, 1).ok(7, (500, 510), commit("", -1, 0)), &both[..3], 4, Some(0)),
            ),
        ],
        vec![("one of two", end(take(input(), 1, 1, 2, 1), &both[..3], 4, Some(1)))],
    );
}

fn starts_at_begin(mut what: What) -> What {
    if let What::Poll { log_start_offset, .. } = &mut what {
        *log_start_offset = 0;
    }
    what
}

#[test]
fn k36_fenced_without_a_reason() {
    let told = |build: Build, at: (u64, u64)| build.fail(1, at, "PRODUCER_FENCED", ended(1, true));
    table(
        Rule::K36,
        vec![
            ("nobody else", told(open(), (30, 40))),
            ("who was there before", told(Build::new().ok(3, (1, 2), init(0)).ok(1, (3, 4), init(1)), (30, 40))),
            ("without transactions", Build::new().fail(5, (30, 40), "INVALID_TXN_STATE", send(5, &[1], None))),
        ],
        vec![
            ("another has the id", told(open().ok(3, (25, 28), init(1)), (30, 40))),
            ("another may have it", told(open().info(3, 25, init(1)), (30, 40))),
            ("its time-out may be over", told(open(), (30, 1010))),
            ("clocks that are wrong", told(open(), (30, 40)).with(|options| options.clocks_differ = true)),
        ],
    );
}
