//! The rules of the classic protocol, one by one, in virtual time.
use super::rig::*;
use crate::group::machine::{Phase, RequestId};
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
