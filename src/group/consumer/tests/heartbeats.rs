//! The life of members: join, reconcile, leave, time-outs, epochs, static members.
use super::*;

#[test]
fn a_member_joins_and_gets_everything() {
    let mut bench = Bench::new();
    let t = bench.topic("t", 3);
    let reply = bench.ok(join("a", &["t"]));
    assert_eq!((reply.member_epoch, partitions(&reply)), (2, Some(vec![0, 1, 2])));
    assert_eq!((reply.member_id.as_deref(), reply.heartbeat_interval_ms), (Some("a"), 5000));
    assert_eq!(bench.machine.phase(), Phase::Stable);
    assert_eq!(bench.taken_changes(), 1);
    // A settled member's heartbeats change nothing, in full or not.
    let reply = bench.ok(beat("a", 2));
    assert_eq!((reply.member_epoch, reply.assignment), (2, None));
    let reply = bench.ok(beat("a", 2).topics(&["t"]).owned(&[(t, &[0, 1, 2])]).timeout(60_000));
    assert_eq!(partitions(&reply), Some(vec![0, 1, 2]));
    assert_eq!(bench.taken_changes(), 0);
}

#[test]
fn the_coordinator_names_a_member_that_has_no_name() {
    let mut bench = Bench::new();
    bench.topic("t", 1);
    let id = bench.ok(join("", &["t"])).member_id.unwrap();
    assert_eq!(id.len(), 22);
    assert_eq!(bench.ok(beat(&id, 2)).member_epoch, 2);
}

#[test]
fn a_partition_is_given_on_only_when_it_was_given_up() {
    let mut bench = Bench::new();
    let t = bench.topic("t", 4);
    bench.ok(join("a", &["t"]));
    let b = bench.ok(join("b", &["t"]));
    assert_eq!((b.member_epoch, partitions(&b)), (3, Some(vec![])));
    assert_eq!(bench.machine.phase(), Phase::Reconciling);
    // A heartbeat of `a` tells it what to give up; its epoch stays, and so does what it may not have given up.
    let a = bench.ok(beat("a", 2));
    assert_eq!((a.member_epoch, partitions(&a)), (2, Some(vec![0, 1])));
    assert_eq!(bench.ok(beat("b", 3)).assignment, None);
    assert_eq!(bench.ok(beat("a", 2).owned(&[(t, &[0, 1, 3])])).member_epoch, 2);
    assert_eq!(bench.ok(beat("b", 3)).assignment, None);
    let a = bench.ok(beat("a", 2).owned(&[(t, &[0, 1])]));
    assert_eq!((a.member_epoch, a.assignment), (3, None));
    let b = bench.ok(beat("b", 3));
    assert_eq!((b.member_epoch, partitions(&b)), (3, Some(vec![2, 3])));
    assert_eq!(bench.machine.phase(), Phase::Stable);
}

#[test]
fn a_leaving_member_frees_its_partitions() {
    let mut bench = Bench::new();
    let t = bench.topic("t", 2);
    bench.ok(join("a", &["t"]));
    bench.ok(join("b", &["t"]));
    bench.ok(beat("a", 2));
    bench.ok(beat("a", 2).owned(&[(t, &[0])]));
    assert_eq!(partitions(&bench.ok(beat("b", 3))), Some(vec![1]));
    let reply = bench.ok(beat("b", -1));
    assert_eq!((reply.member_epoch, reply.heartbeat_interval_ms), (-1, 0));
    let a = bench.ok(beat("a", 3));
    assert_eq!((a.member_epoch, partitions(&a)), (4, Some(vec![0, 1])));
    assert_eq!(bench.error(beat("b", 3)).0, KafkaError::UnknownMemberId);
    bench.ok(beat("a", -1));
    assert_eq!((bench.machine.phase(), bench.machine.deadline()), (Phase::Empty, None));
    assert!(bench.state.group("g").unwrap().members.is_empty());
}

#[test]
fn a_silent_member_is_fenced_after_its_session() {
    let mut bench = Bench::new();
    bench.topic("t", 2);
    bench.ok(join("a", &["t"]));
    bench.pass_ms(44_000);
    bench.ok(beat("a", 2));
    bench.pass_ms(44_999);
    assert_eq!(bench.machine.phase(), Phase::Stable);
    bench.pass_ms(2);
    assert_eq!(bench.machine.phase(), Phase::Empty);
    assert_eq!(bench.error(beat("a", 2)), (KafkaError::UnknownMemberId, "Member a is not a member of group g.".into()));
}

#[test]
fn a_member_that_does_not_revoke_in_time_is_fenced() {
    let mut bench = Bench::new();
    bench.topic("t", 2);
    bench.ok(join("a", &["t"]).timeout(10_000));
    bench.ok(join("b", &["t"]));
    bench.ok(beat("a", 2));
    bench.pass_ms(9_000);
    bench.ok(beat("a", 2));
    bench.pass_ms(1_001);
    assert_eq!(bench.error(beat("a", 2)).0, KafkaError::UnknownMemberId);
    assert_eq!(partitions(&bench.ok(beat("b", 3))), Some(vec![0, 1]));
}

#[test]
fn epochs_that_are_not_the_members_are_fenced() {
    let mut bench = Bench::new();
    let t = bench.topic("t", 2);
    bench.ok(join("a", &["t"]));
    assert_eq!(bench.error(beat("a", 3)).0, KafkaError::FencedMemberEpoch);
    bench.topic("u", 1);
    bench.ok(beat("a", 2).topics(&["t", "u"]));
    // The answer with epoch 2 was lost: epoch 1 is accepted with what it had then, and with nothing else.
    bench.ok(beat("a", 2).owned(&[(t, &[0])]));
    bench.ok(beat("a", 2).owned(&[]));
    let text = "The consumer group member has a smaller member epoch (2) than the one known by the group coordinator (3). \
                The member must abandon all its partitions and rejoin.";
    assert_eq!(bench.error(beat("a", 2)), (KafkaError::FencedMemberEpoch, text.into()));
    assert_eq!(bench.error(beat("a", 2).owned(&[(t, &[7])])).0, KafkaError::FencedMemberEpoch);
    assert_eq!(bench.error(beat("a", 2).owned(&[(TopicId(Uuid::nil()), &[0])])).0, KafkaError::FencedMemberEpoch);
}

#[test]
fn a_member_may_begin_anew_at_any_time() {
    let mut bench = Bench::new();
    bench.topic("t", 2);
    bench.ok(join("a", &["t"]));
    bench.ok(join("b", &["t"]));
    bench.ok(beat("a", 2));
    // It says that it has nothing, so what it had to give back is given back.
    let a = bench.ok(join("a", &["t"]));
    assert_eq!((a.member_epoch, partitions(&a)), (3, Some(vec![0])));
    assert_eq!(partitions(&bench.ok(beat("b", 3))), Some(vec![1]));
}

#[test]
fn a_static_member_comes_back_to_its_partitions() {
    let mut bench = Bench::new();
    bench.topic("t", 2);
    bench.ok(join("a", &["t"]).instance("i"));
    let text = "Static member b with instance id i cannot join the group because the instance id is owned by a member.";
    assert_eq!(bench.error(join("b", &["t"]).instance("i")), (KafkaError::UnreleasedInstanceId, text.into()));
    assert_eq!(bench.ok(beat("a", -2).instance("i")).member_epoch, -2);
    let b = bench.ok(join("b", &["t"]).instance("i"));
    // No epoch rose for it.
    assert_eq!((b.member_epoch, partitions(&b)), (2, Some(vec![0, 1])));
    let text = "Static member a with instance id i was fenced by member b.";
    assert_eq!(bench.error(beat("a", 2).instance("i")), (KafkaError::FencedInstanceId, text.into()));
    assert_eq!(bench.error(beat("a", -1).instance("i")).0, KafkaError::FencedInstanceId);
    let text = "Instance id j is unknown.";
    assert_eq!(bench.error(beat("b", 2).instance("j")), (KafkaError::UnknownMemberId, text.into()));
    bench.crash();
    assert_eq!(bench.ok(beat("b", 2).instance("i")).member_epoch, 2);
    // One that does not come back in time goes.
    bench.ok(beat("b", -2).instance("i"));
    bench.pass_ms(45_001);
    assert_eq!(bench.machine.phase(), Phase::Empty);
}

#[test]
fn a_static_member_with_the_same_id_comes_back() {
    let mut bench = Bench::new();
    bench.topic("t", 2);
    bench.ok(join("a", &["t"]).instance("i"));
    bench.ok(beat("a", -2).instance("i"));
    let a = bench.ok(join("a", &["t"]).instance("i"));
    assert_eq!((a.member_epoch, partitions(&a)), (2, Some(vec![0, 1])));
    bench.crash();
    assert_eq!(bench.ok(beat("a", 2).instance("i")).assignment, None);
}

#[test]
fn the_epoch_rises_when_topics_change() {
    let mut bench = Bench::new();
    bench.topic("t", 1);
    bench.ok(join("a", &["t", "late"]));
    bench.topic("other", 5);
    assert_eq!(bench.ok(beat("a", 2)).member_epoch, 2);
    bench.taken_changes();
    bench.grow("t", 3);
    let a = bench.ok(beat("a", 2));
    assert_eq!((a.member_epoch, partitions(&a)), (3, Some(vec![0, 1, 2])));
    let late = bench.topic("late", 1);
    let a = bench.ok(beat("a", 3));
    assert_eq!((a.member_epoch, a.assignment.unwrap().len()), (4, 2));
    bench.delete("t");
    let a = bench.ok(beat("a", 4));
    // What is gone is given back like anything else.
    assert_eq!((a.member_epoch, partitions(&a)), (4, Some(vec![0])));
    assert_eq!(bench.ok(beat("a", 4).owned(&[(late, &[0])])).member_epoch, 5);
    assert_eq!(bench.taken_changes(), 4);
}

#[test]
fn what_a_member_unsubscribes_from_it_loses_at_once() {
    let mut bench = Bench::with(|kafka| kafka.group_consumer_assignment_interval_ms = 10_000);
    let t = bench.topic("t", 1);
    let u = bench.topic("u", 1);
    bench.ok(join("a", &["t", "u"]));
    // No new target yet, all the same it must not be left with what it does not want.
    let a = bench.ok(beat("a", 2).topics(&["t"]));
    assert_eq!((a.member_epoch, partitions(&a)), (2, Some(vec![0])));
    assert_eq!(bench.machine.phase(), Phase::Assigning);
    bench.ok(beat("a", 2).owned(&[(t, &[0])]));
    bench.pass_ms(10_000);
    assert_eq!(bench.ok(beat("a", 2).owned(&[(t, &[0])])).member_epoch, 3);
    assert!(!bench.group().owners.contains_key(&(u, 0)));
}

#[test]
fn assignments_keep_their_distance() {
    let mut bench = Bench::with(|kafka| kafka.group_consumer_assignment_interval_ms = 1_000);
    bench.topic("t", 2);
    assert_eq!(partitions(&bench.ok(join("a", &["t"]))), Some(vec![0, 1]));
    let b = bench.ok(join("b", &["t"]));
    assert_eq!((b.member_epoch, partitions(&b)), (2, Some(vec![])));
    assert_eq!(bench.machine.phase(), Phase::Assigning);
    bench.pass_ms(999);
    assert_eq!(bench.ok(beat("a", 2)).assignment, None);
    bench.pass_ms(1);
    assert_eq!(partitions(&bench.ok(beat("a", 2))), Some(vec![0]));
    bench.config("consumer.assignment.interval.ms", "0");
    bench.ok(join("c", &["t"]));
    assert_eq!(bench.group().header.assignment_epoch, 4);
}

#[test]
fn a_groups_own_settings_hold_within_the_brokers_bounds() {
    let mut bench = Bench::new();
    bench.topic("t", 1);
    bench.config("consumer.session.timeout.ms", "50000");
    bench.config("consumer.heartbeat.interval.ms", "1");
    assert_eq!(bench.ok(join("a", &["t"])).heartbeat_interval_ms, 5_000);
    bench.pass_ms(49_999);
    assert_eq!(bench.machine.phase(), Phase::Stable);
    bench.pass_ms(1);
    assert_eq!(bench.machine.phase(), Phase::Empty);
}

#[test]
fn the_assignor_is_voted_for() {
    let mut bench = Bench::new();
    bench.topic("t", 4);
    let mut chosen = |beat: Beat| {
        bench.ok(beat);
        match bench.ask(Request::Describe) {
            Ok(Reply::Described(description)) => description.protocol_name,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(chosen(join("a", &["t"])), "uniform");
    assert_eq!(chosen(join("b", &["t"]).assignor("range")), "range");
    assert_eq!(chosen(join("c", &["t"]).assignor("uniform")), "uniform");
    assert_eq!(chosen(join("d", &["t"]).assignor("range")), "range");
}

#[test]
fn commits_are_bound_to_the_epoch_of_the_assignment() {
    let mut bench = Bench::new();
    let t = bench.topic("t", 2);
    bench.ok(join("a", &["t"]));
    bench.ok(join("b", &["t"]));
    bench.ok(beat("a", 2));
    // What it has and what it still has to give back.
    assert_eq!(bench.commit("a", 2, t, 0), Ok(()));
    assert_eq!(bench.commit("a", 2, t, 1), Ok(()));
    bench.ok(beat("a", 2).owned(&[(t, &[0])]));
    bench.ok(beat("b", 3));
    // It had 0 at epoch 1, and has not 1 any more.
    assert_eq!(bench.commit("a", 2, t, 0), Ok(()));
    assert_eq!(bench.commit("a", 2, t, 1), Err(KafkaError::StaleMemberEpoch));
    assert_eq!(bench.commit("a", 4, t, 0), Err(KafkaError::StaleMemberEpoch));
    assert_eq!(bench.commit("b", 2, t, 1), Err(KafkaError::StaleMemberEpoch));
    assert_eq!(bench.commit("b", 3, t, 1), Ok(()));
    assert_eq!(bench.commit("x", 3, t, 1), Err(KafkaError::UnknownMemberId));
    assert_eq!(bench.commit("", -1, t, 1), Err(KafkaError::UnknownMemberId));
    let read = |bench: &mut Bench, epoch| {
        let reader = Reader { member_id: "b".into(), member_epoch: epoch };
        bench.ask(Request::ReadOffsets(Some(reader))).map_err(|e| e.error)
    };
    assert_eq!(read(&mut bench, 3), Ok(Reply::Done));
    assert_eq!(read(&mut bench, 2), Err(KafkaError::StaleMemberEpoch));
    bench.ok(beat("a", -1));
    bench.ok(beat("b", -1));
    assert_eq!(bench.commit("", -1, t, 1), Ok(()));
}

#[test]
fn members_go_on_after_a_crash() {
    let mut bench = Bench::new();
    let t = bench.topic("t", 4);
    bench.ok(join("a", &["t"]));
    bench.ok(join("b", &["t"]));
    bench.ok(beat("a", 2));
    bench.crash();
    bench.taken_changes();
    assert_eq!(bench.ok(beat("b", 3)).assignment, None);
    assert_eq!(bench.ok(beat("a", 2).owned(&[(t, &[0, 1])])).member_epoch, 3);
    bench.crash();
    assert_eq!(partitions(&bench.ok(beat("b", 3))), Some(vec![2, 3]));
    bench.taken_changes();
    bench.crash();
    bench.ok(beat("a", 3));
    bench.ok(beat("b", 3));
    assert_eq!((bench.taken_changes(), bench.machine.phase()), (0, Phase::Stable));
}
