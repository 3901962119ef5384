//! The rules of the classic protocol, one by one, in virtual time.
use super::rig::*;
use crate::group::machine::{Members, Phase, RequestId};
use crate::group::message::*;
use crate::types::KafkaError;

/// A group of dynamic members, who joined one after another while it was new; it is stable, and each has its number as
/// its assignment. The first leads.
fn stable(rig: &mut Rig, members: usize) -> Vec<String> {
    let joins: Vec<RequestId> = (0..members).map(|_| rig.join(consumer(""))).collect();
    rig.pass(6_000);
    let replies: Vec<JoinReply> = joins.into_iter().map(|id| rig.joined(id)).collect();
    settle(rig, &replies);
    replies.into_iter().map(|r| r.member_id).collect()
}

/// Everybody who got these replies synchronises, the leader last.
fn settle(rig: &mut Rig, replies: &[JoinReply]) {
    const NUMBERS: [&str; 6] = ["0", "1", "2", "3", "4", "5"];
    let (leaders, followers): (Vec<_>, Vec<_>) = replies.iter().partition(|r| r.leader == r.member_id);
    let follow: Vec<RequestId> =
        followers.iter().map(|r| rig.sync(identity(&r.member_id, r.generation), &[])).collect();
    assert!(follow.iter().all(|id| rig.is_waiting(*id)));
    let everybody: Vec<(&str, &'static str)> = leaders[0].members.iter().map(|m| &*m.member_id).zip(NUMBERS).collect();
    let changes = rig.changes;
    let lead = rig.sync(identity(&leaders[0].member_id, leaders[0].generation), &everybody);
    assert_eq!(rig.changes, changes + 1, "one change for a generation");
    for id in follow.into_iter().chain([lead]) {
        assert_ne!(rig.assigned(id), "");
    }
    assert_eq!(rig.phase(), Phase::Stable);
}

#[test]
fn a_member_joins_assigns_heartbeats_and_leaves() {
    let mut rig = Rig::new(&[]);
    let first = rig.join(JoinGroup { member_id_required: true, ..consumer("") });
    let told = rig.take(first).unwrap_err();
    assert_eq!(told.error, KafkaError::MemberIdRequired);
    let id = told.member_id.unwrap();
    assert!(id.starts_with("c-") && id.len() == 2 + 36, "{id}");
    let join = rig.join(JoinGroup { member_id_required: true, ..consumer(&id) });
    rig.pass(2_999);
    assert!(rig.is_waiting(join), "the initial delay is 3 s");
    rig.pass(1);
    let reply = rig.joined(join);
    assert_eq!((reply.generation, &reply.leader, &reply.member_id), (1, &id, &id));
    assert_eq!(reply.protocol_name.as_deref(), Some("range"));
    assert_eq!(reply.members.len(), 1);
    assert_eq!(rig.heartbeat(identity(&id, 1)), Ok(()));
    let sync = rig.sync(identity(&id, 1), &[(&id, "all")]);
    assert_eq!(rig.assigned(sync), "all");
    for _ in 0..20 {
        rig.pass(9_000);
        assert_eq!(rig.heartbeat(identity(&id, 1)), Ok(()));
    }
    assert_eq!(rig.changes, 1, "heartbeats change nothing");
    assert_eq!(rig.leave(&[(&id, None)]), [None]);
    assert_eq!(rig.phase(), Phase::Empty);
    assert_eq!(rig.state.group(GROUP).unwrap().header.epoch, 2);
    assert_eq!(rig.machine.deadline(), None);
}

#[test]
fn a_silent_member_is_removed_and_the_others_join_again() {
    let mut rig = Rig::new(&[]);
    let ids = stable(&mut rig, 2);
    rig.pass(9_999);
    assert_eq!(rig.heartbeat(identity(&ids[0], 1)), Ok(()));
    rig.pass(1);
    assert_eq!(rig.heartbeat(identity(&ids[1], 1)), Err(KafkaError::UnknownMemberId));
    assert_eq!(rig.heartbeat(identity(&ids[0], 1)), Err(KafkaError::RebalanceInProgress));
    let again = rig.join(consumer(&ids[0]));
    let reply = rig.joined(again);
    assert_eq!((reply.generation, reply.members.len()), (2, 1));
}

#[test]
fn after_a_crash_members_go_on_without_a_rebalance() {
    let mut rig = Rig::new(&[]);
    let ids = stable(&mut rig, 3);
    let before = rig.described();
    rig.pass(9_000);
    rig.crash();
    assert_eq!(rig.described(), before);
    rig.pass(9_000);
    for id in &ids {
        assert_eq!(rig.heartbeat(identity(id, 1)), Ok(()), "sessions begin anew");
        assert_eq!(rig.commit(identity(id, 1)), Ok(()));
    }
    let again = rig.join(consumer(&ids[1]));
    assert_eq!(rig.joined(again).generation, 1);
    assert_eq!(rig.changes, 1);
}

#[test]
fn a_crash_between_join_and_sync_goes_back_to_the_last_generation() {
    let mut rig = Rig::new(&[]);
    let ids = stable(&mut rig, 2);
    let joins: Vec<RequestId> = ids.iter().map(|id| rig.join(JoinGroup { ..consumer(id) })).collect();
    assert!(joins.iter().all(|id| !rig.is_waiting(*id)), "the leader's join made a rebalance, and all have joined");
    assert_eq!(rig.phase(), Phase::CompletingRebalance);
    rig.crash();
    assert_eq!(rig.heartbeat(identity(&ids[0], 2)), Err(KafkaError::IllegalGeneration));
    assert_eq!(rig.commit(identity(&ids[0], 2)), Err(KafkaError::IllegalGeneration));
    let sync = rig.sync(identity(&ids[0], 2), &[]);
    assert_eq!(rig.error(sync), KafkaError::IllegalGeneration);
    assert_eq!(rig.phase(), Phase::Stable);
}

#[test]
fn a_static_member_that_comes_back_takes_its_place() {
    let mut rig = Rig::new(&[]);
    let joins = ["a", "b"].map(|instance| rig.join(fixed(instance, "")));
    rig.pass(6_000);
    let replies = joins.map(|id| rig.joined(id));
    assert!(replies[0].member_id.starts_with("a-"));
    settle(&mut rig, &replies);
    let leads = usize::from(replies[1].leader == replies[1].member_id);
    let changes = rig.changes;
    let back = rig.join(fixed(["a", "b"][leads], ""));
    let reply = rig.joined(back);
    assert_eq!((reply.generation, reply.skip_assignment, &reply.leader), (1, true, &reply.member_id));
    assert_eq!(reply.members.len(), 2);
    assert_eq!((rig.phase(), rig.changes), (Phase::Stable, changes + 1));
    let sync = rig.sync(identity(&reply.member_id, 1), &[]);
    assert_ne!(rig.assigned(sync), "");
    let old = Identity { instance_id: Some(["a", "b"][leads].into()), ..identity(&replies[leads].member_id, 1) };
    assert_eq!(rig.heartbeat(old.clone()), Err(KafkaError::FencedInstanceId));
    assert_eq!(rig.commit(old.clone()), Err(KafkaError::FencedInstanceId));
    assert_eq!(rig.heartbeat(Identity { instance_id: None, ..old }), Err(KafkaError::UnknownMemberId));
}

#[test]
fn session_timeouts_have_bounds() {
    let mut rig = Rig::new(&["group.min.session.timeout.ms: 100", "group.max.session.timeout.ms: 200"]);
    for (ms, fits) in [(99, false), (100, true), (200, true), (201, false), (-1, false)] {
        let id = rig.join(JoinGroup { session_timeout_ms: ms, member_id_required: true, ..consumer("") });
        let expected = if fits { KafkaError::MemberIdRequired } else { KafkaError::InvalidSessionTimeout };
        assert_eq!(rig.error(id), expected, "{ms}");
    }
}

#[test]
fn an_id_that_is_not_used_is_forgotten_after_a_session_timeout() {
    let mut rig = Rig::new(&[]);
    let first = rig.join(JoinGroup { member_id_required: true, ..consumer("") });
    let id = rig.take(first).unwrap_err().member_id.unwrap();
    rig.pass(9_999);
    let (phase, deadline) = (rig.phase(), rig.machine.deadline());
    assert_eq!((phase, deadline.is_some()), (Phase::Empty, true), "the machine knows something that State does not");
    rig.pass(1);
    assert_eq!(rig.machine.deadline(), None);
    let late = rig.join(consumer(&id));
    let error = rig.take(late).unwrap_err();
    assert_eq!((error.error, error.member_id), (KafkaError::UnknownMemberId, Some(id)));
    assert_eq!(rig.changes, 0);
}

#[test]
fn a_rebalance_waits_for_who_was_given_an_id() {
    let mut rig = Rig::new(&[]);
    let ids = stable(&mut rig, 1);
    let first = rig.join(JoinGroup { member_id_required: true, ..consumer("") });
    let new_id = rig.take(first).unwrap_err().member_id.unwrap();
    assert_eq!(rig.phase(), Phase::Stable, "to be given an id changes nothing");
    let lead = rig.join(consumer(&ids[0]));
    assert!(rig.is_waiting(lead));
    let join = rig.join(consumer(&new_id));
    assert_eq!((rig.joined(lead).members.len(), rig.joined(join).generation), (2, 2));
}

#[test]
fn the_initial_delay_goes_on_while_members_come_up_to_the_rebalance_timeout() {
    let mut rig = Rig::new(&[]);
    let first = rig.join(JoinGroup { rebalance_timeout_ms: 8_000, ..consumer("") });
    let mut joins = vec![first];
    for _ in 0..3 {
        rig.pass(2_000);
        joins.push(rig.join(JoinGroup { rebalance_timeout_ms: 8_000, ..consumer("") }));
        assert!(rig.is_waiting(first));
    }
    rig.pass(1_999);
    assert!(rig.is_waiting(first));
    rig.pass(1);
    let sizes: Vec<usize> = joins.into_iter().map(|id| rig.joined(id).members.len()).collect();
    assert_eq!(sizes, [4, 0, 0, 0], "8 s after the first, and it leads");
}

#[test]
fn without_an_initial_delay_the_first_does_not_wait() {
    let mut rig = Rig::new(&["group.initial.rebalance.delay.ms: 0"]);
    let join = rig.join(consumer(""));
    rig.pass(0);
    assert_eq!(rig.joined(join).generation, 1);
}

#[test]
fn who_joins_a_stable_group_again() {
    let mut rig = Rig::new(&[]);
    let ids = stable(&mut rig, 2);
    let same = rig.join(consumer(&ids[1]));
    let reply = rig.joined(same);
    assert_eq!((reply.generation, reply.leader, reply.members.len()), (1, ids[0].clone(), 0));
    assert_eq!(rig.phase(), Phase::Stable, "an unchanged follower is told what it knew");
    let changed = vec![("range".to_owned(), subscription(&["u"]))];
    let other = rig.join(JoinGroup { protocols: changed, ..consumer(&ids[1]) });
    assert_eq!(rig.phase(), Phase::PreparingRebalance, "another subscription is a rebalance");
    let lead = rig.join(consumer(&ids[0]));
    let replies = [rig.joined(lead), rig.joined(other)];
    settle(&mut rig, &replies);
    let lead = rig.join(consumer(&ids[0]));
    assert!(rig.is_waiting(lead), "the leader that joins again wants to assign again");
    assert_eq!(rig.heartbeat(identity(&ids[1], 2)), Err(KafkaError::RebalanceInProgress));
}

#[test]
fn a_member_that_did_not_hear_of_its_generation_is_told_again() {
    let mut rig = Rig::new(&[]);
    let join = [rig.join(consumer("")), rig.join(consumer(""))];
    rig.pass(6_000);
    let replies = join.map(|id| rig.joined(id));
    assert_eq!(rig.phase(), Phase::CompletingRebalance);
    for reply in &replies {
        let again = rig.join(consumer(&reply.member_id));
        assert_eq!(rig.joined(again), *reply);
    }
    let changed = JoinGroup { protocols: vec![("range".into(), subscription(&[]))], ..consumer(&replies[1].member_id) };
    let sync = rig.sync(identity(&replies[1].member_id, 1), &[]);
    let join = rig.join(changed);
    assert_eq!(rig.error(sync), KafkaError::RebalanceInProgress);
    assert!(rig.is_waiting(join));
    assert_eq!(rig.phase(), Phase::PreparingRebalance);
}

#[test]
fn a_join_that_is_asked_twice_is_answered_to_the_last() {
    let mut rig = Rig::new(&[]);
    let first = rig.join(JoinGroup { member_id_required: true, ..consumer("") });
    let id = rig.take(first).unwrap_err().member_id.unwrap();
    let (one, two) = (rig.join(consumer(&id)), rig.join(consumer(&id)));
    assert_eq!(rig.error(one), KafkaError::RebalanceInProgress);
    rig.pass(6_000);
    assert_eq!(rig.joined(two).members.len(), 1);
}

#[test]
fn a_full_group_refuses_new_members_and_keeps_its_own() {
    let mut rig = Rig::new(&["group.max.size: 2"]);
    let joins = [rig.join(consumer("")), rig.join(consumer(""))];
    let third = rig.join(consumer(""));
    assert_eq!(rig.error(third), KafkaError::GroupMaxSizeReached);
    rig.pass(6_000);
    let replies = joins.map(|id| rig.joined(id));
    settle(&mut rig, &replies);
    let third = rig.join(consumer(""));
    let error = rig.take(third).unwrap_err();
    assert_eq!((error.error, error.member_id.as_deref()), (KafkaError::GroupMaxSizeReached, Some("")));
    assert_eq!(rig.phase(), Phase::Stable);
    // The limit goes down: who is last to join again goes.
    rig.settings.kafka.group_max_size = 1;
    let lead = rig.join(consumer(&replies[0].member_id));
    let follow = rig.join(consumer(&replies[1].member_id));
    assert_eq!(rig.error(follow), KafkaError::GroupMaxSizeReached);
    assert_eq!(rig.joined(lead).members.len(), 1);
}

#[test]
fn errors_of_sync() {
    let mut rig = Rig::new(&[]);
    let sync = rig.sync(identity("x", 0), &[]);
    assert_eq!(rig.error(sync), KafkaError::UnknownMemberId);
    let ids = stable(&mut rig, 2);
    let asks = |kind: Option<&str>, name: Option<&str>| SyncGroup {
        identity: identity(&ids[1], 1),
        protocol_type: kind.map(str::to_owned),
        protocol_name: name.map(str::to_owned),
        assignments: Vec::new(),
    };
    for (kind, name, fits) in [
        (Some("consumer"), Some("range"), true),
        (None, None, true),
        (Some("connect"), None, false),
        (None, Some("sticky"), false),
    ] {
        let id = rig.ask(Request::Sync(asks(kind, name)));
        let answer = rig.take(id).map_err(|e| e.error);
        if fits {
            assert!(answer.is_ok(), "{answer:?}");
        } else {
            assert_eq!(answer, Err(KafkaError::InconsistentGroupProtocol));
        }
    }
    for (who, error) in [
        (identity(&ids[1], 0), KafkaError::IllegalGeneration),
        (identity(&ids[1], 2), KafkaError::IllegalGeneration),
        (identity("x", 1), KafkaError::UnknownMemberId),
        (Identity { instance_id: Some("i".into()), ..identity(&ids[1], 1) }, KafkaError::UnknownMemberId),
    ] {
        let sync = rig.sync(who, &[]);
        assert_eq!(rig.error(sync), error);
    }
    rig.join(consumer(&ids[0]));
    let sync = rig.sync(identity(&ids[1], 1), &[]);
    assert_eq!(rig.error(sync), KafkaError::RebalanceInProgress);
}

#[test]
fn who_does_not_sync_within_the_rebalance_timeout_is_removed() {
    let mut rig = Rig::new(&[]);
    let joins = [(); 3].map(|()| rig.join(consumer("")));
    rig.pass(6_000);
    let replies = joins.map(|id| rig.joined(id));
    let ids = replies.map(|r| r.member_id);
    // The leader assigns, one waits, one heartbeats but does not synchronise.
    let follow = rig.sync(identity(&ids[1], 1), &[]);
    let lead = rig.sync(identity(&ids[0], 1), &[(&ids[0], "all")]);
    assert_eq!((rig.assigned(lead), rig.assigned(follow)), ("all".into(), "".into()));
    for _ in 0..7 {
        for id in &ids {
            assert_eq!(rig.heartbeat(identity(id, 1)), Ok(()));
        }
        rig.pass(8_000);
    }
    assert_eq!(ids.each_ref().map(|id| rig.heartbeat(identity(id, 1))), [Ok(()); 3]);
    rig.pass(4_000);
    assert_eq!(rig.heartbeat(identity(&ids[2], 1)), Err(KafkaError::UnknownMemberId));
    assert_eq!(rig.heartbeat(identity(&ids[0], 1)), Err(KafkaError::RebalanceInProgress));
}

#[test]
fn a_leader_that_does_not_assign_is_removed_and_followers_join_again() {
    let mut rig = Rig::new(&[]);
    let joins = [rig.join(consumer("")), rig.join(consumer(""))];
    rig.pass(6_000);
    let replies = joins.map(|id| rig.joined(id));
    let follow = rig.sync(identity(&replies[1].member_id, 1), &[]);
    rig.pass(9_999);
    assert!(rig.is_waiting(follow));
    rig.pass(1);
    assert_eq!(rig.error(follow), KafkaError::RebalanceInProgress, "the leader was silent for a session time-out");
    let again = rig.join(consumer(&replies[1].member_id));
    let reply = rig.joined(again);
    assert_eq!((reply.generation, &reply.leader), (2, &replies[1].member_id));
}

#[test]
fn who_waits_for_others_is_not_silent() {
    let mut rig = Rig::new(&[]);
    let ids = stable(&mut rig, 2);
    let lead = rig.join(consumer(&ids[0]));
    // The other one heartbeats and takes its time to join again.
    for _ in 0..6 {
        rig.pass(9_000);
        assert_eq!(rig.heartbeat(identity(&ids[1], 1)), Err(KafkaError::RebalanceInProgress));
        assert!(rig.is_waiting(lead));
    }
    rig.pass(6_000);
    let reply = rig.joined(lead);
    assert_eq!((reply.generation, reply.members.len()), (2, 1), "the rebalance time-out is over");
    assert_eq!(rig.heartbeat(identity(&ids[1], 1)), Err(KafkaError::UnknownMemberId));
}

#[test]
fn a_new_member_that_is_never_answered_is_given_up() {
    let mut rig = Rig::new(&[]);
    let ids = stable(&mut rig, 1);
    let slow = JoinGroup { rebalance_timeout_ms: 1_000_000, ..consumer("") };
    let new = rig.join(slow);
    for _ in 0..60 {
        assert!(rig.is_waiting(new));
        rig.heartbeat(identity(&ids[0], 1)).unwrap_err();
        rig.pass(5_000);
    }
    assert_eq!(rig.error(new), KafkaError::UnknownMemberId);
}

#[test]
fn heartbeats_in_each_phase() {
    let mut rig = Rig::new(&[]);
    assert_eq!(rig.heartbeat(identity("x", 0)), Err(KafkaError::UnknownMemberId));
    let ids = stable(&mut rig, 2);
    for (who, expected) in [
        (identity(&ids[0], 1), Ok(())),
        (identity(&ids[0], 0), Err(KafkaError::IllegalGeneration)),
        (identity(&ids[0], -1), Err(KafkaError::IllegalGeneration)),
        (identity("x", 1), Err(KafkaError::UnknownMemberId)),
    ] {
        assert_eq!(rig.heartbeat(who), expected);
    }
    let joins = [rig.join(consumer(&ids[0])), rig.join(consumer(&ids[1]))];
    assert_eq!(rig.phase(), Phase::CompletingRebalance);
    assert_eq!(rig.heartbeat(identity(&ids[1], 2)), Ok(()));
    assert_eq!(rig.heartbeat(identity(&ids[1], 1)), Err(KafkaError::IllegalGeneration));
    assert_eq!(joins.map(|id| rig.joined(id).generation), [2, 2]);
}

#[test]
fn several_leave_at_once_and_each_has_its_result() {
    let mut rig = Rig::new(&[]);
    assert_eq!(rig.now_answered(Request::Leave(Vec::new())).unwrap_err().error, KafkaError::UnknownMemberId);
    let joins = [rig.join(fixed("a", "")), rig.join(fixed("b", "")), rig.join(consumer("")), rig.join(consumer(""))];
    rig.pass(6_000);
    let replies = joins.map(|id| rig.joined(id));
    settle(&mut rig, &replies);
    let ids = replies.map(|r| r.member_id);
    let results = rig.leave(&[
        ("", Some("a")),
        (&ids[0], Some("b")),
        ("", Some("z")),
        ("x", None),
        ("", None),
        (&ids[2], None),
        (&ids[2], None),
    ]);
    let unknown = Some(KafkaError::UnknownMemberId);
    assert_eq!(results, [None, Some(KafkaError::FencedInstanceId), unknown, unknown, unknown, None, unknown]);
    assert_eq!(rig.phase(), Phase::PreparingRebalance);
    let joins = [rig.join(fixed("b", &ids[1])), rig.join(consumer(&ids[3]))];
    assert_eq!(joins.map(|id| rig.joined(id).generation), [2, 2]);
}

#[test]
fn a_leave_that_nobody_made_changes_nothing() {
    let mut rig = Rig::new(&[]);
    stable(&mut rig, 1);
    let first = rig.join(JoinGroup { member_id_required: true, ..consumer("") });
    let pending = rig.take(first).unwrap_err().member_id.unwrap();
    assert_eq!(rig.leave(&[("x", None)]), [Some(KafkaError::UnknownMemberId)]);
    assert_eq!(rig.leave(&[(&pending, None)]), [None]);
    assert_eq!((rig.phase(), rig.changes), (Phase::Stable, 1));
}

#[test]
fn a_static_member_stays_away_for_a_session_timeout_without_a_rebalance() {
    let mut rig = Rig::new(&[]);
    let joins = [rig.join(fixed("a", "")), rig.join(fixed("b", ""))];
    rig.pass(6_000);
    let replies = joins.map(|id| rig.joined(id));
    settle(&mut rig, &replies);
    let who = Identity { instance_id: Some("a".into()), ..identity(&replies[0].member_id, 1) };
    rig.pass(9_000);
    assert_eq!(rig.heartbeat(who.clone()), Ok(()));
    rig.pass(1_000);
    assert_eq!(rig.heartbeat(who), Err(KafkaError::RebalanceInProgress));
}

#[test]
fn a_rebalance_goes_on_without_a_static_member_that_does_not_join() {
    let mut rig = Rig::new(&[]);
    let joins = [rig.join(fixed("a", "")), rig.join(consumer(""))];
    rig.pass(6_000);
    let replies = joins.map(|id| rig.joined(id));
    settle(&mut rig, &replies);
    let follower =
        rig.join(JoinGroup { protocols: vec![("range".into(), subscription(&[]))], ..consumer(&replies[1].member_id) });
    let who = Identity { instance_id: Some("a".into()), ..identity(&replies[0].member_id, 1) };
    for _ in 0..6 {
        rig.pass(9_000);
        assert_eq!(rig.heartbeat(who.clone()), Err(KafkaError::RebalanceInProgress));
    }
    rig.pass(6_000);
    let reply = rig.joined(follower);
    assert_eq!((reply.generation, &reply.leader), (2, &replies[1].member_id), "who joined leads");
    assert_eq!(reply.members.len(), 2, "the static member is still one");
}

#[test]
fn a_static_leader_that_comes_back_in_an_old_version_does_not_lead() {
    let mut rig = Rig::new(&[]);
    let first = rig.join(fixed("a", ""));
    rig.pass(6_000);
    let reply = rig.joined(first);
    settle(&mut rig, std::slice::from_ref(&reply));
    let back = rig.join(JoinGroup { skip_assignment: false, ..fixed("a", "") });
    let again = rig.joined(back);
    assert_ne!(again.member_id, reply.member_id);
    assert_eq!((&again.leader, again.skip_assignment), (&reply.member_id, false));
    assert!(again.members.is_empty());
    let sync = rig.sync(identity(&again.member_id, 1), &[]);
    assert_eq!(rig.assigned(sync), "0");
}

#[test]
fn a_static_member_that_comes_back_fences_the_old_one_in_every_phase() {
    let mut rig = Rig::new(&[]);
    let old = rig.join(fixed("a", ""));
    let new = rig.join(fixed("a", ""));
    assert_eq!(rig.error(old), KafkaError::FencedInstanceId);
    rig.pass(6_000);
    let reply = rig.joined(new);
    let sync = rig.sync(identity(&reply.member_id, 1), &[]);
    assert_eq!(rig.phase(), Phase::Stable);
    rig.assigned(sync);
    // While the leader assigns, the old id may already be in its assignment: all join again.
    let other = rig.join(fixed("b", ""));
    let lead = rig.join(fixed("a", &reply.member_id));
    let replies = [rig.joined(lead), rig.joined(other)];
    let follow = rig.sync(identity(&replies[1].member_id, 2), &[]);
    let back = rig.join(fixed("b", ""));
    assert_eq!(rig.error(follow), KafkaError::FencedInstanceId);
    assert_eq!(rig.phase(), Phase::PreparingRebalance);
    let lead = rig.join(fixed("a", &reply.member_id));
    assert_eq!([rig.joined(lead).generation, rig.joined(back).generation], [3, 3]);
    let stale = rig.join(fixed("b", &replies[1].member_id));
    assert_eq!(rig.error(stale), KafkaError::FencedInstanceId);
}

#[test]
fn a_static_member_that_comes_back_with_other_protocols_may_make_a_rebalance() {
    let protocols = |names: &[&str]| names.iter().map(|n| ((*n).to_owned(), subscription(&["t"]))).collect::<Vec<_>>();
    let mut rig = Rig::new(&[]);
    let first = rig.join(JoinGroup { protocols: protocols(&["range", "sticky"]), ..fixed("a", "") });
    rig.pass(6_000);
    let reply = rig.joined(first);
    settle(&mut rig, &[reply]);
    let same = rig.join(JoinGroup { protocols: protocols(&["range", "other"]), ..fixed("a", "") });
    assert_eq!(rig.joined(same).generation, 1, "range would be chosen again");
    let other = rig.join(JoinGroup { protocols: protocols(&["other", "range"]), ..fixed("a", "") });
    let reply = rig.joined(other);
    assert_eq!((reply.generation, reply.protocol_name.as_deref()), (2, Some("other")));
}

#[test]
fn the_protocol_is_the_one_that_most_prefer_of_those_that_all_support() {
    let chosen = |members: &[&[&str]]| {
        let mut rig = Rig::new(&[]);
        let joins: Vec<RequestId> = members
            .iter()
            .map(|names| {
                let protocols = names.iter().map(|n| ((*n).to_owned(), subscription(&["t"]))).collect();
                rig.join(JoinGroup { protocols, ..consumer("") })
            })
            .collect();
        rig.pass(6_000);
        let answers: Vec<Answer> = joins.into_iter().map(|id| rig.take(id)).collect();
        answers
            .into_iter()
            .map(|answer| match answer {
                Ok(Reply::Join(reply)) => Ok(reply.protocol_name.unwrap()),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error.error),
            })
            .collect::<Vec<_>>()
    };
    let inconsistent = Err(KafkaError::InconsistentGroupProtocol);
    let ok = |name: &str| Ok(name.to_owned());
    for (members, expected) in [
        (&[&["a", "b"][..]][..], vec![ok("a")]),
        (&[&["a", "b"], &["b", "a"], &["b", "a"]], vec![ok("b"); 3]),
        (&[&["a", "b"], &["b"]], vec![ok("b"); 2]),
        (&[&["a", "b"], &["b", "a"]], vec![ok("a"); 2]),
        (&[&["b", "a"], &["a", "b"]], vec![ok("b"); 2]),
        (&[&["a", "x", "b"], &["x", "b"], &["b"]], vec![ok("b"); 3]),
        (&[&["a"], &["b"]], vec![ok("a"), inconsistent.clone()]),
        (&[&["a", "b"], &["b"], &["a"]], vec![ok("b"), ok("b"), inconsistent.clone()]),
        (&[&["a", "a"], &["b", "b"]], vec![ok("a"), inconsistent.clone()]),
        (&[&["a", "a", "b"], &["b", "b"]], vec![ok("b"), ok("b")]),
        (&[&[]], vec![inconsistent]),
    ] {
        assert_eq!(chosen(members), expected, "{members:?}");
    }
}

#[test]
fn a_group_keeps_its_protocol_type_while_it_has_members() {
    let mut rig = Rig::new(&[]);
    let connect = |id: &str| JoinGroup { protocol_type: "connect".into(), ..consumer(id) };
    let nameless = rig.join(JoinGroup { protocol_type: String::new(), ..consumer("") });
    assert_eq!(rig.error(nameless), KafkaError::InconsistentGroupProtocol);
    let ids = stable(&mut rig, 1);
    let worker = rig.join(connect(""));
    assert_eq!(rig.error(worker), KafkaError::InconsistentGroupProtocol);
    rig.leave(&[(&ids[0], None)]);
    assert_eq!(rig.described().protocol_type, "consumer");
    let worker = rig.join(connect(""));
    rig.pass(6_000);
    assert_eq!(rig.joined(worker).protocol_type.as_deref(), Some("connect"));
}

#[test]
fn the_next_in_age_leads_after_the_leader() {
    let mut rig = Rig::new(&[]);
    let ids = stable(&mut rig, 3);
    rig.leave(&[(&ids[0], None)]);
    let joins = [rig.join(consumer(&ids[2])), rig.join(consumer(&ids[1]))];
    let leaders = joins.map(|id| rig.joined(id).leader);
    assert_eq!(leaders, [ids[1].clone(), ids[1].clone()]);
}

#[test]
fn a_group_without_members_is_a_generation_of_its_own() {
    let mut rig = Rig::new(&[]);
    let ids = stable(&mut rig, 2);
    rig.pass(5_000);
    rig.leave(&[(&ids[0], None), (&ids[1], None)]);
    let group = rig.state.group(GROUP).unwrap().clone();
    assert!(group.members.is_empty());
    let header = &group.header;
    assert_eq!((header.epoch, &header.protocol_name, &header.leader, header.since_ms), (2, &None, &None, 11_000));
    assert_eq!(header.protocol_type.as_deref(), Some("consumer"));
    let join = rig.join(consumer(""));
    rig.pass(3_000);
    assert_eq!(rig.joined(join).generation, 3);
}

#[test]
fn a_member_that_leaves_before_the_first_generation() {
    let mut rig = Rig::new(&[]);
    let first = rig.join(JoinGroup { member_id_required: true, ..consumer("") });
    let id = rig.take(first).unwrap_err().member_id.unwrap();
    let join = rig.join(consumer(&id));
    assert_eq!(rig.leave(&[(&id, None)]), [None]);
    assert_eq!(rig.error(join), KafkaError::UnknownMemberId);
    rig.pass(3_000);
    assert_eq!((rig.phase(), rig.state.group(GROUP).unwrap().header.epoch), (Phase::Empty, 1));
}

#[test]
fn who_may_commit() {
    let mut rig = Rig::new(&[]);
    let illegal = Err(KafkaError::IllegalGeneration);
    let unknown = Err(KafkaError::UnknownMemberId);
    assert_eq!(rig.commit(identity("x", 1)), illegal, "there is no such group");
    assert_eq!(rig.commit(identity("", -1)), Ok(()));
    assert_eq!(rig.commit(identity("x", -1)), Ok(()), "nobody checks who commits to a group without members");
    assert_eq!(rig.commit(identity("x", 1)), unknown);
    let ids = stable(&mut rig, 2);
    for (who, expected) in [
        (identity("", -1), unknown),
        (identity("", 1), unknown),
        (identity("x", 1), unknown),
        (identity(&ids[0], -1), illegal),
        (identity(&ids[0], 0), illegal),
        (identity(&ids[0], 1), Ok(())),
        (Identity { instance_id: Some("i".into()), ..identity("", -1) }, unknown),
    ] {
        assert_eq!(rig.commit(who.clone()), expected, "{who:?}");
    }
    // A commit is a sign of life.
    rig.pass(9_000);
    assert_eq!(rig.commit(identity(&ids[0], 1)), Ok(()));
    rig.pass(9_000);
    assert_eq!(rig.commit(identity(&ids[1], 1)), unknown);
    assert_eq!(rig.commit(identity(&ids[0], 1)), Ok(()), "also while the group prepares a rebalance");
    let join = rig.join(consumer(&ids[0]));
    assert_eq!(rig.joined(join).generation, 2);
    assert_eq!(rig.commit(identity(&ids[0], 1)), illegal);
    assert_eq!(rig.commit(identity(&ids[0], 2)), Err(KafkaError::RebalanceInProgress));
    assert_eq!(rig.commit(identity("", -1)), unknown);
}

#[test]
fn topics_of_consumers_are_known_and_those_of_others_are_not() {
    let topics = |protocol_type: &str, metadata: &[bytes::Bytes]| {
        let mut rig = Rig::new(&[]);
        for bytes in metadata {
            let protocols = vec![("range".to_owned(), bytes.clone())];
            rig.join(JoinGroup { protocol_type: protocol_type.into(), protocols, ..consumer("") });
        }
        rig.pass(6_000);
        let Members::Classic(group) = &rig.machine.members else { panic!("a classic group") };
        group.subscribed_topics().map(|topics| topics.iter().cloned().collect::<Vec<_>>())
    };
    let two = [subscription(&["b", "a"]), subscription(&["c", "a"])];
    assert_eq!(topics("consumer", &two), Some(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]));
    assert_eq!(topics("connect", &two), None);
    assert_eq!(topics("consumer", &[two[0].clone(), "?".into()]), None);
    assert_eq!(topics("consumer", &[]), Some(vec![]));
}

#[test]
fn a_description_has_subscriptions_only_while_they_are_settled() {
    let mut rig = Rig::new(&[]);
    assert_eq!(rig.described().phase, Phase::Empty);
    let ids = stable(&mut rig, 2);
    let description = rig.described();
    assert_eq!((description.phase, description.protocol_name.as_str()), (Phase::Stable, "range"));
    let member = &description.members[0];
    assert_eq!((member.client_id.as_str(), member.client_host.as_str()), ("c", "/127.0.0.1"));
    assert_eq!(member.metadata, subscription(&["t"]));
    assert_eq!(member.assignment_bytes.len(), 1);
    rig.join(consumer(&ids[0]));
    let description = rig.described();
    assert_eq!((description.phase.name(), description.protocol_name.as_str()), ("PreparingRebalance", ""));
    assert!(description.members.iter().all(|m| m.metadata.is_empty()));
}

#[test]
fn names_have_limits() {
    let mut rig = Rig::new(&[]);
    let long = "é".repeat(100);
    let instance = rig.join(fixed(&long, ""));
    assert_eq!(rig.error(instance), KafkaError::InvalidRequest);
    let kind = rig.join(JoinGroup { protocol_type: long.clone(), ..consumer("") });
    assert_eq!(rig.error(kind), KafkaError::InconsistentGroupProtocol);
    for protocols in [vec![(long.clone(), "".into())], vec![("p".to_owned(), "".into()); 65]] {
        let join = rig.join(JoinGroup { protocols, ..consumer("") });
        assert_eq!(rig.error(join), KafkaError::InconsistentGroupProtocol);
    }
    let client = rig.join(JoinGroup { client_id: long, member_id_required: true, ..consumer("") });
    let id = rig.take(client).unwrap_err().member_id.unwrap();
    assert_eq!(id.len(), 127, "128 would be within a character: {id}");
}

#[test]
fn a_generation_fits_into_a_journal_entry() {
    let mut rig = Rig::new(&[]);
    let large = |bytes: usize| vec![("range".to_owned(), vec![7; bytes].into())];
    let first = rig.join(JoinGroup { protocols: large(1 << 20), ..consumer("") });
    let second = rig.join(JoinGroup { protocols: large(2 << 20), ..consumer("") });
    assert_eq!(rig.error(second), KafkaError::GroupMaxSizeReached);
    rig.pass(6_000);
    let reply = rig.joined(first);
    let assign = |rig: &mut Rig, generation, bytes: usize| {
        let assignments = vec![(reply.member_id.clone(), vec![7; bytes].into()), ("x".into(), vec![7; 9 << 20].into())];
        let identity = identity(&reply.member_id, generation);
        rig.ask(Request::Sync(SyncGroup { identity, assignments, ..SyncGroup::default() }))
    };
    let sync = assign(&mut rig, 1, 2 << 20);
    assert_eq!(rig.error(sync), KafkaError::UnknownServerError);
    assert_eq!((rig.phase(), rig.changes), (Phase::PreparingRebalance, 0));
    let again = rig.join(JoinGroup { protocols: large(1 << 20), ..consumer(&reply.member_id) });
    assert_eq!(rig.joined(again).generation, 2);
    let sync = assign(&mut rig, 2, (2 << 20) - 1_000);
    assert_eq!(rig.assigned(sync).len(), (2 << 20) - 1_000);
    assert_eq!(rig.state.group(GROUP).unwrap().members.len(), 1);
}

#[test]
fn clients_that_only_ask_for_ids_do_not_fill_memory() {
    let mut rig = Rig::new(&[]);
    let ask = || JoinGroup { member_id_required: true, ..consumer("") };
    for _ in 0..10_000 {
        let id = rig.ask_unchecked(Request::Join(ask()));
        assert_eq!(rig.error(id), KafkaError::MemberIdRequired);
    }
    let id = rig.join(ask());
    assert_eq!(rig.error(id), KafkaError::CoordinatorNotAvailable);
    rig.pass(10_000);
    let id = rig.join(ask());
    assert_eq!(rig.error(id), KafkaError::MemberIdRequired);
}

#[test]
fn ten_thousand_members_settle_and_their_heartbeats_cost_no_scan() {
    let mut rig = Rig::new(&[]);
    let joins: Vec<RequestId> = (0..10_000).map(|_| rig.ask_unchecked(Request::Join(consumer("")))).collect();
    rig.pass(6_000);
    let replies: Vec<JoinReply> = joins.into_iter().map(|id| rig.joined(id)).collect();
    let lead = rig.sync(identity(&replies[0].member_id, 1), &[]);
    rig.assigned(lead);
    for reply in &replies {
        let sync = SyncGroup { identity: identity(&reply.member_id, 1), ..SyncGroup::default() };
        let id = rig.ask_unchecked(Request::Sync(sync));
        rig.assigned(id);
    }
    // A scan of all members per heartbeat would take minutes.
    for round in 0..3 {
        rig.pass(8_000);
        for reply in &replies {
            let id = rig.ask_unchecked(Request::Heartbeat(identity(&reply.member_id, 1)));
            assert_eq!(rig.take(id), Ok(Reply::Done), "round {round}");
        }
    }
    assert_eq!((rig.phase(), rig.changes), (Phase::Stable, 1));
}
