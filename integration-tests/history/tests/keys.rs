//! Rules of topics that keep the last record of each key, against histories that break them, and legal ones that come near.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
mod build;

use build::*;
use strandline_history::{Rule, What};

/// How long tombstones are kept, in ms.
const KEPT_MS: i64 = 1;

fn new() -> Build {
    Build::new().with(|options| {
        options.compacted = [("t".to_owned(), KEPT_MS)].into();
    })
}

/// 1 and 8 have one key, 2 has another.
fn three() -> Build {
    let build = new().ok(1, (10, 20), send(1, &[1], Some(0))).ok(1, (30, 40), send(1, &[2], Some(1)));
    build.ok(1, (50, 60), send(1, &[8], Some(2)))
}

/// The same without a value.
fn gone(mut what: What) -> What {
    if let What::Send { values, .. } = &mut what {
        values.iter_mut().for_each(|value| value.deletes = true);
    }
    what
}

/// A value, and the tombstone that takes it back.
fn taken_back() -> Build {
    new().ok(1, (10, 20), send(1, &[1], Some(0))).ok(1, (30, 40), gone(send(1, &[8], Some(1))))
}

const ALL: &[(i64, u32, u64)] = &[(0, 1, 1), (1, 1, 2), (2, 1, 8)];
const LAST: &[(i64, u32, u64)] = &[(1, 1, 2), (2, 1, 8)];

#[test]
fn a28_the_last_record_of_each_key_stays() {
    let read = |records| three().ok(2, (70, 80), poll(0, records, 3));
    table(
        Rule::A28,
        vec![
            ("the last one is missing", read(&[(0, 1, 1), (1, 1, 2)]).ok(2, (90, 95), reads(2, &[], 3))),
            ("the only one is missing", read(&[(2, 1, 8)])),
            ("nothing has come behind it yet", {
                let build = new().ok(1, (10, 20), send(1, &[1, 2], Some(0)));
                build.ok(2, (30, 40), poll(0, &[(1, 1, 2)], 2)).ok(1, (50, 60), send(1, &[8], Some(2)))
            }),
            ("what may have come behind it is another key's", {
                let build = new().ok(1, (10, 20), send(1, &[1, 2], Some(0))).info(1, 25, send(1, &[9], None));
                build.ok(2, (30, 40), poll(0, &[(1, 1, 2)], 2))
            }),
        ],
        vec![
            ("all", read(ALL)),
            ("the last ones", read(LAST)),
            ("those in between had no answer", {
                let build = new().ok(1, (10, 20), send(1, &[1, 2], Some(0))).info(1, 25, send(1, &[8], None));
                let build = build.ok(2, (30, 40), poll(0, &[(1, 1, 2)], 3));
                build.ok(1, (50, 60), send(1, &[15], Some(3)))
            }),
            ("a batch in parts", {
                let build = new().ok(1, (10, 20), send(1, &[1, 2, 8], Some(0)));
                build.ok(2, (30, 40), poll(0, LAST, 3))
            }),
        ],
    );
}

#[test]
fn a28_what_is_gone_does_not_come_back() {
    let first = || three().ok_by(5, 2, (70, 80), poll(0, LAST, 3));
    table(
        Rule::A28,
        vec![
            ("of the same broker", first().ok_by(5, 3, (90, 95), poll(0, ALL, 3))),
            ("of another, much later", first().ok_by(6, 3, (10_000, 10_001), poll(0, ALL, 3))),
        ],
        vec![
            ("a broker that lags", first().ok_by(6, 3, (90, 95), poll(0, ALL, 3))),
            ("at the same time", first().ok_by(5, 3, (75, 95), poll(0, ALL, 3))),
        ],
    );
}

#[test]
fn a28_what_was_aborted_goes_and_takes_nothing_back() {
    let with = |committed| {
        let build = Build::new().with(|options| options.compacted = [("t".to_owned(), KEPT_MS)].into());
        let build = build.ok(1, (1, 2), init(0)).ok(3, (3, 9), send(3, &[1], Some(0)));
        let build = build.ok(3, (10, 20), send(3, &[2], Some(1))).ok(1, (30, 40), within(1, send(1, &[5], Some(2))));
        build.ok(1, (50, 60), ended(1, committed))
    };
    let read = |build: Build, records| build.ok(2, (70, 80), reads(0, records, 4));
    table(
        Rule::A28,
        vec![("what was committed is gone", read(with(true), &[(0, 3, 1), (1, 3, 2)]))],
        vec![
            ("what was aborted is gone", read(with(false), &[(0, 3, 1), (1, 3, 2)])),
            ("what was aborted is there", read(with(false), &[(0, 3, 1), (1, 3, 2), (2, 1, 5)])),
        ],
    );
}

#[test]
fn a29_tombstones_stay_for_their_time() {
    let read = |at| taken_back().ok(2, (at, at + 1), reads(0, &[], 2));
    table(
        Rule::A29,
        vec![("gone too early", read(900))],
        vec![
            ("gone in time", read(1_100)),
            ("another came behind it", {
                let build = taken_back().ok(1, (50, 60), send(1, &[15], Some(2)));
                build.ok(2, (70, 80), poll(0, &[(2, 1, 15)], 3))
            }),
            ("it may stand in the log twice", {
                let build =
                    new().ok(1, (1, 9), plain(gone(send(1, &[8], Some(0))))).ok(1, (10, 20), send(1, &[1], Some(1)));
                build.ok(2, (2_000, 2_001), reads(0, &[], 3))
            }),
            ("its value is gone and it is there", taken_back().ok(2, (50, 60), reads(0, &[], 1))),
        ],
    );
}

#[test]
fn a2_a4_a5_a30_allow_what_is_gone() {
    let healed = |build: Build, records| build.healed(1_000).ok(2, (1_001, 1_002), poll(0, records, 3));
    let twice = || new().ok(1, (10, 20), plain(send(1, &[1], Some(0)))).ok(1, (30, 40), send(1, &[8], Some(2)));
    table(
        Rule::A2,
        vec![("the last one was never read", {
            let build = three().healed(1_000);
            build.ok(2, (1_001, 1_002), poll(0, &[(0, 1, 1), (1, 1, 2)], 2))
        })],
        vec![("never read, since another came", healed(three(), LAST))],
    );
    let asked = |at| three().ok(2, (70, 80), list(1001, at, -1)).ok(2, (90, 99), poll(0, LAST, 3));
    table(
        Rule::A30,
        vec![("behind one that is there", asked(2))],
        vec![("the first is gone", asked(1)), ("not yet", asked(0))],
    );
    table(Rule::A5, vec![], vec![("a copy that is gone", healed(twice(), &[(1, 1, 1), (2, 1, 8)]))]);
}

/// A fetch that passes over all up to `next` but those.
fn reads(from: i64, records: &[(i64, u32, u64)], next: i64) -> What {
    let mut what = poll(from, records, next);
    if let What::Poll { next: goes_on, .. } = &mut what {
        *goes_on = next;
    }
    what
}
