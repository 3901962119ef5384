//! Each rule against histories that break it, and against legal ones that come near.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
mod build;

use build::*;
use strandline_history::check::{Expiry, LogInventory, Object, Run};
use strandline_history::{Inventory, Rule, What};

fn new() -> Build {
    Build::new()
}

/// Two values, acknowledged at 0 and 1.
fn two() -> Build {
    new().ok(1, (10, 20), send(1, &[1], Some(0))).ok(1, (30, 40), send(1, &[2], Some(1)))
}

#[test]
fn a1_passed_over_by_all() {
    table(
        Rule::A1,
        vec![("a gap", two().ok(2, (50, 60), poll(0, &[(1, 1, 2)], 2)))],
        vec![
            ("it may have been deleted", two().info(9, 45, trim(1, -1)).ok(2, (50, 60), poll(0, &[(1, 1, 2)], 2))),
            ("the reader began behind it", two().ok(2, (50, 60), poll(1, &[(1, 1, 2)], 2))),
            ("nobody knows whether it is there", {
                let build = new().info(1, 10, send(1, &[1], None));
                build.ok(3, (30, 40), send(3, &[2], Some(0))).ok(2, (50, 60), poll(0, &[(0, 3, 2)], 1))
            }),
        ],
    );
}

#[test]
fn a2_not_there_in_the_end() {
    table(
        Rule::A2,
        vec![
            ("the tail is lost", two().healed(1000).ok(2, (1001, 1002), poll(0, &[(0, 1, 1)], 1))),
            (
                "without an offset",
                new().ok(1, (10, 20), send(1, &[1], None)).healed(1000).ok(2, (1001, 1002), poll(0, &[], 0)),
            ),
            ("lost, though once read", {
                let build = two().ok(2, (50, 60), poll(0, &[(0, 1, 1), (1, 1, 2)], 2)).healed(1000);
                build.ok(3, (1001, 1002), poll(0, &[(0, 1, 1)], 1))
            }),
            ("nobody looked", two().with(|options| options.final_reads = true).healed(1000)),
        ],
        vec![
            ("deleted", {
                let build = two().ok(9, (50, 60), trim(1, 1)).healed(1000);
                build.ok(2, (1001, 1002), starts_at(poll(1, &[(1, 1, 2)], 2), 1))
            }),
            (
                "unknown and absent",
                new().info(1, 10, send(1, &[1], None)).healed(1000).ok(2, (1001, 1002), poll(0, &[], 0)),
            ),
            ("not read to the end", two().healed(1000).ok(2, (1001, 1002), poll(0, &[(0, 1, 1)], 2))),
            ("in two answers", {
                let build = two().healed(1000).ok(2, (1001, 1002), poll(0, &[(0, 1, 1)], 2));
                build.ok(2, (1003, 1004), poll(1, &[(1, 1, 2)], 2)).with(|options| options.final_reads = true)
            }),
            ("read by its id, though somebody still sends to the topic before it", {
                let build = new().ok(9, (10, 20), delete()).ok(9, (30, 40), create());
                let build = build.ok(3, (50, 50), to(unacked(send(3, &[1], None)), log_id("A")));
                let build = build.ok(1, (60, 70), send(1, &[1], Some(0))).healed(1000);
                let build = build.ok(2, (1001, 1002), to(poll(0, &[(0, 1, 1)], 1), log_id("B")));
                build.with(|options| options.final_reads = true)
            }),
        ],
    );
}

#[test]
fn a3_two_records_at_one_offset() {
    let made_again = |first: What, second: What| {
        new().ok(1, (10, 20), first).ok(9, (30, 40), delete()).ok(9, (50, 60), create()).ok(3, (200, 210), second)
    };
    table(
        Rule::A3,
        vec![
            ("two readers", two().ok(2, (50, 60), poll(0, &[(0, 1, 1)], 2)).ok(3, (50, 60), poll(0, &[(0, 1, 2)], 2))),
            ("two answers", new().ok(1, (10, 20), send(1, &[1], Some(0))).ok(3, (10, 20), send(3, &[1], Some(0)))),
        ],
        vec![
            ("two topics by name", made_again(send(1, &[1], Some(0)), send(3, &[1], Some(0)))),
            ("two topics by id", {
                let build =
                    made_again(to(send(1, &[1], Some(0)), log_id("A")), to(send(3, &[1], Some(0)), log_id("B")));
                build.ok(2, (400, 410), to(poll(0, &[(0, 3, 1)], 1), log_id("B")))
            }),
            ("a deletion whose end is unknown", {
                let build = new().ok(1, (10, 20), send(1, &[1], Some(0))).info(9, 30, delete());
                build.info(9, 50, create()).ok(3, (200, 210), send(3, &[1], Some(0)))
            }),
        ],
    );
}

#[test]
fn a4_duplicates() {
    let twice = |what: What| new().info(1, 10, what).ok(2, (50, 60), poll(0, &[(0, 1, 1), (1, 1, 1)], 2));
    table(
        Rule::A4,
        vec![("sent again by an idempotent producer, or once", twice(send(1, &[1], None)))],
        vec![("plain", twice(plain(send(1, &[1], None))))],
    );
}

#[test]
fn a5_offsets_in_answers() {
    let read = |what: What, records: &[(i64, u32, u64)]| {
        let other = new().ok(3, (2, 3), send(3, &[1], Some(0)));
        other.ok(1, (10, 20), what).ok(2, (50, 60), poll(0, records, i64::try_from(records.len()).unwrap()))
    };
    table(
        Rule::A5,
        vec![
            ("offset 0", read(send(1, &[1], Some(0)), &[(0, 3, 1), (1, 1, 1)])),
            ("offset -1", read(send(1, &[1], Some(-1)), &[(0, 3, 1), (1, 1, 1)])),
            ("plain, elsewhere", read(plain(send(1, &[1], Some(0))), &[(0, 3, 1), (1, 1, 1)])),
        ],
        vec![
            ("as told", read(send(1, &[1], Some(1)), &[(0, 3, 1), (1, 1, 1)])),
            ("plain, the second copy", read(plain(send(1, &[1], Some(2))), &[(0, 3, 1), (1, 1, 1), (2, 1, 1)])),
            ("plain, the second copy not read yet", read(plain(send(1, &[1], Some(2))), &[(0, 3, 1), (1, 1, 1)])),
        ],
    );
}

#[test]
fn a6_pipelined_order() {
    let swapped = |first: What, second: What| new().ok(1, (10, 30), first).ok(1, (11, 29), second);
    table(
        Rule::A6,
        vec![("swapped", swapped(send(1, &[1], Some(1)), send(1, &[2], Some(0))))],
        vec![
            ("in order", swapped(send(1, &[1], Some(0)), send(1, &[2], Some(1)))),
            ("plain", swapped(plain(send(1, &[1], Some(1))), plain(send(1, &[2], Some(0))))),
            ("the first is unknown", {
                let build = new().info(1, 10, send(1, &[1], None)).ok(1, (11, 29), send(1, &[2], Some(0)));
                build.ok(2, (50, 60), poll(0, &[(0, 1, 2), (1, 1, 1)], 2))
            }),
        ],
    );
}

#[test]
fn a8_whole_batches() {
    let batch = || new().ok(1, (10, 20), send(1, &[1, 2], Some(0)));
    let other = |build: Build| build.ok(3, (10, 20), send(3, &[1], None));
    table(
        Rule::A8,
        vec![("torn", other(batch()).ok(2, (50, 60), poll(0, &[(0, 1, 1), (1, 3, 1)], 2)))],
        vec![
            ("read in part", batch().ok(2, (50, 60), poll(0, &[(0, 1, 1)], 2))),
            ("read from its middle", batch().ok(2, (50, 60), poll(1, &[(1, 1, 2)], 2))),
            ("its first half deleted", {
                let build = batch().ok(2, (50, 60), poll(0, &[(0, 1, 1)], 2)).ok(9, (70, 80), trim(1, 1));
                build.ok(2, (300, 310), starts_at(poll_as(1, 1, vec![seen(1, 1, 2)], 2), 1))
            }),
        ],
    );
}

#[test]
fn a12_a13_a14_readers_that_go_on() {
    let three = || two().ok(1, (41, 42), send(1, &[3], Some(2)));
    let all = || three().ok(2, (50, 60), poll(0, &[(0, 1, 1), (1, 1, 2), (2, 1, 3)], 3));
    let going_on = |from| all().ok(4, (70, 80), poll(0, &[(0, 1, 1)], 3)).ok(4, (81, 82), from);
    table(
        Rule::A12,
        vec![
            ("inside an answer", all().ok(4, (70, 80), poll(0, &[(0, 1, 1), (2, 1, 3)], 3))),
            ("between answers", going_on(poll(2, &[(2, 1, 3)], 3))),
        ],
        vec![
            ("a seek", going_on(poll_as(1, 2, vec![seen(2, 1, 3)], 3))),
            ("going on", going_on(poll(1, &[(1, 1, 2), (2, 1, 3)], 3))),
        ],
    );
    table(
        Rule::A13,
        vec![
            ("between answers", going_on(poll(0, &[(0, 1, 1)], 3))),
            ("before what was asked", going_on(poll(1, &[(0, 1, 1), (1, 1, 2)], 3))),
        ],
        vec![("a seek", going_on(poll_as(1, 0, vec![seen(0, 1, 1)], 3)))],
    );
    let twice = vec![seen(0, 1, 1), seen(0, 1, 1)];
    table(Rule::A14, vec![("twice in an answer", all().ok(4, (70, 80), poll_as(0, 0, twice, 3)))], vec![]);
}

#[test]
fn a15_a16_new_records_lie_behind() {
    let reader = || new().ok(2, (10, 20), poll(0, &[], 5));
    table(
        Rule::A15,
        vec![("own", new().ok(1, (10, 20), send(1, &[1], Some(5))).ok(1, (30, 40), send(1, &[2], Some(4))))],
        vec![],
    );
    table(
        Rule::A16,
        vec![
            ("another's", new().ok(1, (10, 20), send(1, &[1], Some(5))).ok(3, (30, 40), send(3, &[2], Some(4)))),
            ("below a high watermark", reader().ok(3, (30, 40), send(3, &[2], Some(4)))),
            ("a deleted one again", {
                new().ok(1, (10, 20), send(1, &[1], Some(5))).ok(9, (30, 40), trim(6, 6)).ok(
                    3,
                    (50, 60),
                    send(3, &[2], Some(0)),
                )
            }),
        ],
        vec![
            ("concurrent", new().ok(1, (10, 30), send(1, &[1], Some(5))).ok(3, (29, 40), send(3, &[2], Some(4)))),
            ("at the same time", new().ok(1, (10, 30), send(1, &[1], Some(5))).ok(3, (30, 40), send(3, &[2], Some(4)))),
        ],
    );
}

#[test]
fn a17_holes() {
    let hole = || new().info(1, 10, send(1, &[1], None)).ok(2, (50, 60), poll(0, &[(1, 1, 1)], 2));
    table(
        Rule::A17,
        vec![("a hole", hole())],
        vec![
            ("holes are legal", hole().with(|options| options.holes_legal = true)),
            (
                "below the log start",
                new().info(9, 5, trim(1, -1)).info(1, 10, send(1, &[1], None)).ok(
                    2,
                    (50, 60),
                    poll(0, &[(1, 1, 1)], 2),
                ),
            ),
            ("retention", hole().with(|options| options.retention = true)),
        ],
    );
}

#[test]
fn a18_a19_a31_how_far_the_log_goes() {
    let fetched =
        |broker, at, end| two().ok_by(1, 2, (50, 60), poll(2, &[], 9)).ok_by(broker, 3, at, poll(2, &[], end));
    table(
        Rule::A18,
        vec![("one broker", fetched(1, (61, 62), 8)), ("another, late", fetched(2, (161, 162), 8))],
        vec![
            ("another, within the lag", fetched(2, (61, 62), 8)),
            ("concurrent", fetched(1, (55, 62), 8)),
            ("rising", fetched(1, (61, 62), 10)),
        ],
    );
    let acked =
        |broker, at, end| new().ok_by(1, 1, (10, 20), send(1, &[1], Some(0))).ok_by(broker, 3, at, poll(0, &[], end));
    table(
        Rule::A31,
        vec![
            ("one broker", acked(1, (21, 22), 0)),
            ("another, late", acked(2, (121, 122), 0)),
            ("another, at its end, late for that", acked(2, (51, 52), 0).with(|options| options.end_lag_us = 30)),
        ],
        vec![
            ("another, within the lag", acked(2, (21, 22), 0)),
            ("there, without room", acked(1, (21, 22), 1)),
            ("another, with records", {
                let build = new().ok(1, (1, 2), send(1, &[1], Some(0))).ok_by(1, 1, (10, 20), send(1, &[2], Some(1)));
                let read = poll(0, &[(0, 1, 1)], 1);
                build.ok_by(2, 3, (51, 52), read).with(|options| options.end_lag_us = 30)
            }),
        ],
    );
    let stable = |stable| {
        let What::Poll { log, position_of, from, next, records, log_start_offset, .. } = poll(0, &[], 5) else {
            unreachable!()
        };
        let (high_watermark, last_stable_offset, read_committed) = (5, stable, true);
        let fetch = What::Poll {
            log,
            position_of,
            from,
            next,
            records,
            high_watermark,
            last_stable_offset,
            log_start_offset,
            read_committed,
        };
        new().ok(2, (10, 20), fetch)
    };
    table(Rule::A19, vec![("stuck", stable(4))], vec![("at the end", stable(5)), ("not shown", stable(-1))]);
}

#[test]
fn a20_committed_offsets() {
    let one = || new().ok(2, (10, 20), commit("", -1, 5));
    let two = || one().ok(2, (30, 40), commit("", -1, 6));
    let with_text = |text| new().ok(2, (10, 20), said(commit("", -1, 5), text));
    table(
        Rule::A20,
        vec![
            ("an older one", two().ok(3, (50, 60), committed(Some(5)))),
            ("none", one().ok(3, (50, 60), committed(None))),
            ("one that nobody committed", one().ok(3, (50, 60), committed(Some(4)))),
            ("another text", with_text("a").ok(3, (50, 60), said(committed(Some(5)), "b"))),
            ("before it was committed", one().ok(3, (2, 3), committed(Some(5)))),
            ("back after an unknown one was seen", {
                let build = one().info(2, 30, commit("", -1, 6)).ok(3, (50, 60), committed(Some(6)));
                build.ok(3, (70, 80), committed(Some(5)))
            }),
            (
                "refused and there",
                one().fail(2, (30, 40), "ILLEGAL_GENERATION", commit("", -1, 6)).ok(3, (50, 60), committed(Some(6))),
            ),
            ("there after its group was deleted", {
                one().ok(9, (30, 40), What::DeleteGroup { group: "g".into() }).ok(3, (50, 60), committed(Some(5)))
            }),
        ],
        vec![
            ("the last one", two().ok(3, (50, 60), committed(Some(6)))),
            ("its text", with_text("a").ok(3, (50, 60), said(committed(Some(5)), "a"))),
            ("unknown, and not seen", one().info(2, 30, commit("", -1, 6)).ok(3, (50, 60), committed(Some(5)))),
            ("unknown, and late", {
                let build = one().info(2, 30, commit("", -1, 6)).ok(3, (50, 60), committed(Some(5)));
                build.ok(3, (70, 80), committed(Some(6)))
            }),
            ("concurrent", two().ok(3, (35, 60), committed(Some(5)))),
            ("back by a newer commit", two().ok(2, (41, 42), commit("", -1, 5)).ok(3, (50, 60), committed(Some(5)))),
            (
                "a deleted group",
                one().info(9, 30, What::DeleteGroup { group: "g".into() }).ok(3, (50, 60), committed(None)),
            ),
            ("a deleted topic", one().ok(9, (30, 40), delete()).ok(3, (50, 60), committed(None))),
        ],
    );
}

#[test]
fn a23_stale_members() {
    let first = || new().ok(1, (10, 20), assigned("a", 1));
    let second = || first().ok(2, (30, 40), owning_nothing(assigned("b", 2)));
    let instance = |name| as_instance(owning_nothing(assigned(name, 1)), "i");
    table(
        Rule::A23,
        vec![
            ("heartbeat", second().ok(1, (50, 60), heartbeat("a", 1))),
            ("commit", second().ok(1, (50, 60), commit("a", 1, 5))),
            ("after leaving", first().ok(1, (30, 40), left("a")).ok(1, (50, 60), commit("a", 1, 5))),
            ("a replaced instance", {
                let build = new().ok(1, (10, 20), instance("a")).ok(2, (30, 40), instance("b"));
                build.ok(1, (50, 60), heartbeat("a", 1))
            }),
            ("from outside", { first().ok(9, (30, 40), commit("", -1, 5)).ok(1, (50, 60), heartbeat("a", 1)) }),
            ("also where groups were deleted", {
                let build =
                    new().ok(9, (2, 3), What::DeleteGroup { group: "g".into() }).ok(1, (10, 20), assigned("a", 1));
                build.ok(2, (30, 40), owning_nothing(assigned("b", 2))).ok(1, (50, 60), heartbeat("a", 1))
            }),
            ("a newer member after leaving", {
                let build = new().ok(1, (10, 20), newer(assigned("a", 1))).ok(1, (30, 40), left("a"));
                build.ok(1, (50, 60), heartbeat("a", 1))
            }),
        ],
        vec![
            (
                "while the newer one is prepared",
                first().ok(2, (30, 90), owning_nothing(assigned("b", 2))).ok(1, (50, 60), commit("a", 1, 5)),
            ),
            ("refused", second().fail(1, (50, 60), "ILLEGAL_GENERATION", heartbeat("a", 1))),
            ("newer members have epochs of their own", {
                let build = new().ok(1, (10, 20), newer(assigned("a", 1)));
                build.ok(2, (30, 40), newer(owning_nothing(assigned("b", 2)))).ok(1, (50, 60), heartbeat("a", 1))
            }),
            ("a group that began anew", {
                let build =
                    first().ok(1, (21, 22), left("a")).ok(2, (30, 40), assigned("b", 2)).ok(2, (41, 42), left("b"));
                let build = build.ok(9, (43, 44), What::DeleteGroup { group: "g".into() });
                build.ok(3, (45, 46), assigned("c", 1)).ok(3, (50, 60), heartbeat("c", 1))
            }),
            ("left without an answer", first().info(1, 30, left("a")).ok(1, (50, 60), heartbeat("a", 1))),
            (
                "back again",
                first().ok(1, (21, 22), left("a")).ok(1, (30, 40), assigned("a", 2)).ok(1, (50, 60), heartbeat("a", 2)),
            ),
            ("from outside, when it is empty", first().ok(1, (21, 22), left("a")).ok(9, (30, 40), commit("", -1, 5))),
        ],
    );
}

#[test]
fn a24_two_owners() {
    let both = || new().ok(1, (10, 20), newer(assigned("a", 1))).ok(2, (30, 40), newer(assigned("b", 2)));
    table(
        Rule::A24,
        vec![
            ("newer", both().ok(1, (50, 60), heartbeat("a", 1)).ok(2, (50, 60), heartbeat("b", 2))),
            ("classic", {
                let build = new().ok(1, (10, 20), assigned("a", 1)).ok(2, (10, 20), assigned("b", 1));
                build.ok(1, (50, 60), heartbeat("a", 1)).ok(2, (50, 60), commit("b", 1, 3))
            }),
            ("shared out twice", new().ok(1, (10, 20), assigned("a", 1)).ok(2, (30, 40), assigned("b", 1))),
        ],
        vec![
            ("a static member that took another's place", {
                let build = new().ok(1, (10, 20), as_instance(assigned("a", 1), "i"));
                build.ok(2, (30, 40), as_instance(assigned("b", 1), "i"))
            }),
            ("a is not heard of any more", both().ok(2, (50, 60), heartbeat("b", 2))),
            (
                "a is refused",
                both().fail(1, (50, 60), "UNKNOWN_MEMBER_ID", heartbeat("a", 1)).ok(2, (50, 60), heartbeat("b", 2)),
            ),
            ("a let go before", {
                let build = new().ok(1, (10, 20), newer(assigned("a", 1))).ok(
                    1,
                    (25, 27),
                    newer(owning_nothing(assigned("a", 2))),
                );
                let build = build.ok(2, (30, 40), newer(assigned("b", 2)));
                build.ok(1, (50, 60), heartbeat("a", 2)).ok(2, (50, 60), heartbeat("b", 2))
            }),
            ("b's answer was slow", {
                let build = new().ok(2, (10, 40), newer(assigned("b", 1))).ok(1, (20, 30), newer(assigned("a", 2)));
                build.ok(1, (50, 60), heartbeat("a", 2)).fail(2, (50, 60), "UNKNOWN_MEMBER_ID", heartbeat("b", 1))
            }),
        ],
    );
}

#[test]
fn a25_a26_a35_what_is_read() {
    let elsewhere = || {
        let What::Send { mut values, .. } = send(1, &[1], None) else { unreachable!() };
        values[0].partition = 1;
        let there = strandline_history::Log { partition: 1, ..log() };
        let (once, acked, offset, transaction) = (true, true, Some(0), None);
        let sent = What::Send { log: there, values: values.clone(), once, acked, offset, transaction };
        let read = strandline_history::Seen {
            offset: 0,
            timestamp_ms: 1001,
            leader_epoch: None,
            value: Ok(values[0].clone()),
        };
        new().ok(1, (10, 20), sent).ok(2, (50, 60), poll_as(0, 0, vec![read], 1))
    };
    table(
        Rule::A25,
        vec![
            ("nobody sent it", new().ok(2, (50, 60), poll(0, &[(0, 1, 1)], 1))),
            ("to another partition", elsewhere()),
            (
                "before it was sent",
                new().ok(2, (5, 6), poll(0, &[(0, 1, 1)], 1)).ok(1, (10, 20), send(1, &[1], Some(0))),
            ),
            ("to a topic that is no more", {
                let build = new().ok(1, (10, 20), to(send(1, &[1], Some(0)), log_id("A"))).ok(9, (30, 40), delete());
                build.ok(9, (50, 60), create()).ok(2, (300, 310), to(poll(0, &[(0, 1, 1)], 1), log_id("B")))
            }),
        ],
        vec![(
            "while it is sent",
            new().ok(2, (5, 16), poll(0, &[(0, 1, 1)], 1)).ok(1, (10, 20), send(1, &[1], Some(0))),
        )],
    );
    let stamped = || {
        let mut seen = seen(0, 1, 1);
        seen.timestamp_ms += 1;
        new().ok(1, (10, 20), send(1, &[1], Some(0))).ok(2, (50, 60), poll_as(0, 0, vec![seen], 1))
    };
    let by_broker =
        What::AlterConfig { name: "t".into(), key: "message.timestamp.type".into(), value: "LogAppendTime".into() };
    table(
        Rule::A26,
        vec![
            (
                "damaged",
                new().ok(1, (10, 20), send(1, &[1], Some(0))).ok(2, (50, 60), poll_as(0, 0, vec![broken(0)], 1)),
            ),
            ("another time", stamped()),
        ],
        vec![("the broker's time", stamped().ok(9, (2, 3), by_broker))],
    );
    table(
        Rule::A35,
        vec![("refused and read", {
            new().fail(1, (10, 20), "MESSAGE_TOO_LARGE", send(1, &[1], None)).ok(2, (50, 60), poll(0, &[(0, 1, 1)], 1))
        })],
        vec![
            ("unknown and read", new().info(1, 10, send(1, &[1], None)).ok(2, (50, 60), poll(0, &[(0, 1, 1)], 1))),
            ("refused and salvaged", {
                let refused = new().fail(1, (10, 20), "REQUEST_TIMED_OUT", send(1, &[1], None));
                refused.ok(2, (50, 60), poll(0, &[(0, 1, 1)], 1)).with(|options| options.salvaged = true)
            }),
        ],
    );
}

#[test]
fn a27_log_starts() {
    let trimmed = || two().ok_by(1, 9, (50, 60), trim(1, 1));
    let read = |at, from, start| {
        let records: &[_] = if from == 0 { &[(0, 1, 1), (1, 1, 2)] } else { &[(1, 1, 2)] };
        trimmed().ok_by(2, 2, at, starts_at(poll(from, records, 2), start))
    };
    table(
        Rule::A27,
        vec![
            ("it goes back", read((200, 210), 1, 0)),
            ("served below", read((200, 210), 0, -1)),
            ("earliest", trimmed().ok(2, (70, 80), list(-2, 0, -1))),
            ("not deleted", two().ok(9, (50, 60), trim(2, 1))),
            ("nobody asked for it", two().ok(2, (50, 60), starts_at(poll(1, &[(1, 1, 2)], 2), 1))),
        ],
        vec![
            ("within the lag", read((70, 80), 0, 0)),
            ("as it should be", read((200, 210), 1, 1)),
            (
                "unknown, then there",
                two().info(9, 50, trim(1, -1)).ok(2, (70, 80), starts_at(poll(1, &[(1, 1, 2)], 2), 1)),
            ),
            ("retention", {
                let build = two().ok(2, (50, 60), starts_at(poll(1, &[(1, 1, 2)], 2), 1));
                build.with(|options| options.retention = true)
            }),
        ],
    );
}

#[test]
fn a27_a2_records_that_go_by_time_are_there_until_then() {
    // The two values have the timestamps 1001 and 1002 ms, and are kept for 2 s: up to 3001 and 3002 ms of the history.
    let expiry = |ahead_ms| Expiry { kept_ms: [("t".to_owned(), 2_000)].into(), wall_ms: 0, ahead_ms };
    let at = |at_us, ahead_ms| {
        let build = two().ok(2, (at_us, at_us + 1), starts_at(poll(1, &[(1, 1, 2)], 2), 1));
        build.with(|options| options.expiry = Some(expiry(ahead_ms)))
    };
    let asked = |at_us| {
        let build = two().fail(2, (at_us, at_us + 1), "OFFSET_OUT_OF_RANGE", poll(0, &[], 0));
        build.with(|options| options.expiry = Some(expiry(0)))
    };
    table(
        Rule::A27,
        vec![("too early", at(3_000_000, 0))],
        vec![("in time", at(3_001_000, 0)), ("by a clock that is ahead", at(2_900_000, 200))],
    );
    table(Rule::K27, vec![("too early", asked(3_000_000))], vec![("in time", asked(3_001_000))]);
    let read = |at_us| {
        let build = two().healed(1000).ok(2, (at_us, at_us + 1), poll(1, &[(1, 1, 2)], 2));
        let build = build.ok(3, (at_us + 2, at_us + 3), starts_at(poll(1, &[(1, 1, 2)], 2), 1));
        build.with(|options| options.expiry = Some(expiry(0)))
    };
    table(Rule::A2, vec![("never read, and not expired", read(2_000_000))], vec![("expired", read(3_002_000))]);
}

#[test]
fn a30_k26_k28_lookups() {
    let ask = |what| two().ok(2, (50, 60), what);
    table(
        Rule::A30,
        vec![
            ("too late", ask(list(1001, 1, 1002))),
            ("too early", ask(list(1002, 0, 1001))),
            ("none", ask(list(1002, -1, -1))),
            ("another time", ask(list(1001, 0, 1000))),
            ("the largest", ask(list(-3, 0, 1001))),
            ("no largest", ask(list(-3, -1, -1))),
        ],
        vec![
            ("exact", ask(list(1001, 0, 1001))),
            ("between", ask(list(500, 0, 1001))),
            ("beyond", ask(list(1003, -1, -1))),
            ("the largest", ask(list(-3, 1, 1002))),
            ("deleted", two().info(9, 41, trim(1, -1)).ok(2, (50, 60), list(1001, 1, 1002))),
            ("not acknowledged yet", new().ok(1, (10, 70), send(1, &[1], Some(0))).ok(2, (50, 60), list(1001, -1, -1))),
        ],
    );
    table(
        Rule::K28,
        vec![("below", ask(list(-1, 1, -1)))],
        vec![("exact", ask(list(-1, 2, -1))), ("above", ask(list(-1, 3, -1)))],
    );
    let epoch = |end_offset| What::EpochEnd { log: log(), epoch: 0, end_offset };
    table(
        Rule::K26,
        vec![("below", ask(epoch(1)))],
        vec![
            ("exact", ask(epoch(2))),
            ("unknown epoch", ask(epoch(-1))),
            ("an old epoch", ask(epoch(1)).with(|options| options.one_epoch = false)),
        ],
    );
    let read_as = |leader_epoch| {
        let mut what = poll(0, &[(0, 1, 1), (1, 1, 2)], 2);
        if let What::Poll { records, .. } = &mut what {
            records.iter_mut().for_each(|seen| seen.leader_epoch = leader_epoch);
        }
        ask(epoch(2)).ok(2, (70, 80), what)
    };
    table(
        Rule::K26,
        vec![("of a later epoch", read_as(Some(1)))],
        vec![("of the same", read_as(Some(0))), ("of which is not known", read_as(None))],
    );
}

#[test]
fn a32_liveness() {
    let ask = || two().healed(1000).doubtful(1, (1010, 1600), "REQUEST_TIMED_OUT", send(1, &[3], None));
    let later = |build: Build| build.doubtful(1, (1700, 2500), "REQUEST_TIMED_OUT", send(1, &[5], None));
    let group = || two().healed(1000).fail(2, (1010, 1020), "NOT_COORDINATOR", commit("a", 1, 5));
    let too_large = |at| two().healed(1000).fail(1, (1010, at), "MESSAGE_TOO_LARGE", send(1, &[3], None));
    table(
        Rule::A32,
        vec![
            ("never", later(ask())),
            (
                "for ever",
                two().healed(1000).info(1, 1010, send(1, &[3], None)).ok(1, (2020, 2030), send(1, &[4], Some(2))),
            ),
            ("too late", ask().ok(1, (1990, 2030), send(1, &[4], Some(2)))),
            ("a group", {
                let again = group().fail(2, (1510, 1600), "NOT_COORDINATOR", commit("a", 1, 5));
                again.fail(2, (2020, 2030), "NOT_COORDINATOR", commit("a", 1, 5))
            }),
        ],
        vec![
            ("in time", later(ask().ok(1, (1900, 1990), send(1, &[4], Some(2))))),
            ("nobody waited", ask()),
            ("another question, long after the first was given up", { group().ok(2, (3000, 3010), commit("a", 1, 5)) }),
            ("refused for its own sake", too_large(3000)),
            ("refused for its own sake, after an attempt without an answer", {
                let build = two().healed(1000);
                build.doubtful(1, (1010, 3000), "MESSAGE_TOO_LARGE", send(1, &[3], None))
            }),
            ("deleted", later(ask().ok(9, (1001, 1002), delete()))),
        ],
    );
}

#[test]
fn k15_k27_k36_refusals() {
    let refused = |error, next: What| {
        let build = new().ok(1, (10, 20), assigned("a", 1)).fail(1, (30, 40), error, heartbeat("a", 1));
        build.ok(1, (50, 60), next)
    };
    let moved = |error| {
        let build = new().ok(1, (10, 20), assigned("a", 1)).fail(1, (30, 40), error, heartbeat("a", 1));
        build.fail(1, (42, 44), "NOT_COORDINATOR", heartbeat("a", 1)).ok(1, (50, 60), heartbeat("a", 1))
    };
    table(
        Rule::K15,
        vec![
            ("unknown member", refused("UNKNOWN_MEMBER_ID", heartbeat("a", 1))),
            ("generation", refused("ILLEGAL_GENERATION", commit("a", 1, 5))),
            ("instance", refused("FENCED_INSTANCE_ID", heartbeat("a", 1))),
        ],
        vec![
            ("joined again", refused("UNKNOWN_MEMBER_ID", assigned("a", 2)).ok(1, (70, 80), heartbeat("a", 2))),
            ("a rebalance", refused("REBALANCE_IN_PROGRESS", heartbeat("a", 1))),
            ("another coordinator, which had not noticed its silence", moved("UNKNOWN_MEMBER_ID")),
            ("another coordinator, which had not heard of its successor", moved("FENCED_INSTANCE_ID")),
        ],
    );
    let range = |from, build: Build| build.fail(2, (50, 60), "OFFSET_OUT_OF_RANGE", poll(from, &[], -1));
    table(
        Rule::K27,
        vec![("inside", range(1, two())), ("at the end", range(2, two()))],
        vec![
            ("beyond", range(3, two())),
            ("deleted", range(0, two().info(9, 41, trim(1, -1)))),
            ("not there yet", range(1, new().ok(1, (10, 55), send(1, &[1], Some(0))))),
        ],
    );
    let sized = |value: &str, end: &str| {
        let (name, key) = ("t".to_owned(), "max.message.bytes".to_owned());
        let build = new().ok_by(1, 9, (10, 20), What::AlterConfig { name, key, value: value.to_owned() });
        match end {
            "" => build.ok_by(1, 1, (30, 40), send(1, &[1], Some(0))),
            error => build.fail_by(1, 1, (30, 40), error, send(1, &[1], None)),
        }
    };
    table(
        Rule::K30,
        vec![
            ("too large and taken", sized("10", "")),
            ("small enough and refused", sized("2000000", "MESSAGE_TOO_LARGE")),
        ],
        vec![
            ("refused", sized("10", "MESSAGE_TOO_LARGE")),
            ("taken", sized("2000000", "")),
            ("by another broker", sized("10", "MESSAGE_TOO_LARGE").ok_by(2, 1, (50, 60), send(1, &[2], Some(0)))),
        ],
    );
    let out_of_order = |build: Build| build.fail(1, (50, 60), "OUT_OF_ORDER_SEQUENCE_NUMBER", send(1, &[3], None));
    table(
        Rule::K36,
        vec![
            ("all before was well", out_of_order(two())),
            ("authorization", two().fail(1, (50, 60), "TOPIC_AUTHORIZATION_FAILED", send(1, &[3], None))),
            ("fenced", two().fail(1, (50, 60), "PRODUCER_FENCED: why", send(1, &[3], None))),
        ],
        vec![
            ("behind an unknown one", out_of_order(two().info(1, 45, send(1, &[4], None)))),
            ("not now", two().info(1, 50, send(1, &[3], None))),
        ],
    );
}

#[test]
fn k35_topics() {
    let grown = || new().ok(9, (2, 3), What::Grow { topic: "t".into(), partitions: 4 });
    let gone = || new().ok(9, (10, 20), delete());
    table(
        Rule::K35,
        vec![
            ("not there", new().ok(2, (50, 60), describe(None))),
            ("unknown", new().fail(1, (50, 60), "UNKNOWN_TOPIC_OR_PARTITION", send(1, &[1], None))),
            ("shrunk", grown().ok(2, (150, 160), describe(Some(("A", 2))))),
            ("still there", gone().ok(2, (150, 160), describe(Some(("A", 2))))),
            ("written after it was deleted", gone().ok(1, (50, 60), send(1, &[1], Some(0)))),
            ("not there after it was made again", gone().ok(9, (30, 40), create()).ok(2, (50, 60), describe(None))),
        ],
        vec![
            ("being deleted", new().info(9, 10, delete()).ok(2, (50, 60), describe(None))),
            ("still there, within the lag", gone().ok(2, (50, 60), describe(Some(("A", 2))))),
            ("deleted", gone().ok(2, (50, 60), describe(None))),
            ("made again, perhaps", gone().info(9, 30, create()).ok(2, (150, 160), describe(Some(("B", 2))))),
            (
                "made again, and only then was the id told",
                new().ok(2, (5, 6), describe(Some(("A", 2)))).ok(9, (10, 20), delete()).ok(
                    9,
                    (30, 40),
                    What::CreateTopic { topic: "t".into(), id: Some("B".into()), partitions: 2 },
                ),
            ),
            (
                "an unknown partition",
                new().fail(1, (50, 60), "UNKNOWN_TOPIC_OR_PARTITION", {
                    to(send(1, &[1], None), strandline_history::Log { partition: 2, ..log() })
                }),
            ),
            (
                "while it was made",
                new().ok(9, (10, 20), delete()).ok(9, (30, 55), create()).ok(2, (50, 60), describe(None)),
            ),
            ("not asked for an answer", gone().ok(1, (50, 60), unacked(send(1, &[1], None)))),
        ],
    );
}

#[test]
fn inventories() {
    let run = |base_offset, count, object: &str| Run { base_offset, count, object: object.into(), at: 10, bytes: 90 };
    let object = |key: &str| Object { key: key.into(), bytes: 100, young: false, problem: None };
    let inventory = || {
        let account =
            LogInventory { log: log_id("A"), log_start: 0, end: 2, runs: vec![run(0, 1, "x"), run(1, 1, "y")] };
        Inventory {
            logs: vec![account],
            objects: vec![object("x"), object("y"), object("z")],
            others: vec!["z".into()],
        }
    };
    let with = |change: &dyn Fn(&mut Inventory)| {
        let mut inventory = inventory();
        change(&mut inventory);
        Build { inventory: Some(inventory), ..two().with(|options| options.orphans_max = Some(0)) }
    };
    table(
        Rule::A1,
        vec![(
            "it ends too early",
            with(&|i| {
                i.logs[0].end = 1;
                i.logs[0].runs.pop();
            }),
        )],
        vec![("whole", with(&|_| ()))],
    );
    table(
        Rule::A17,
        vec![
            ("a hole", with(&|i| i.logs[0].runs[1].base_offset = 2)),
            (
                "nothing at the start",
                with(&|i| {
                    i.logs[0].runs.remove(0);
                }),
            ),
        ],
        vec![],
    );
    table(Rule::A16, vec![("overlapping runs", with(&|i| i.logs[0].runs[0].count = 2))], vec![]);
    table(Rule::A27, vec![("a log start that nobody asked for", with(&|i| i.logs[0].log_start = 1))], vec![]);
    table(
        Rule::A33,
        vec![
            (
                "missing",
                with(&|i| {
                    i.objects.remove(0);
                }),
            ),
            ("short", with(&|i| i.objects[0].bytes = 99)),
            ("damaged", with(&|i| i.objects[0].problem = Some("checksum".into()))),
            (
                "a snapshot",
                with(&|i| {
                    i.objects.remove(2);
                }),
            ),
        ],
        vec![],
    );
    table(
        Rule::A34,
        vec![("an orphan", with(&|i| i.objects.push(object("o"))))],
        vec![("a young one", with(&|i| i.objects.push(Object { young: true, ..object("o") })))],
    );
}
