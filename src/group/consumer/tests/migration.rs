//! Groups that move between the protocols with their members, and members of the classic protocol on their way.
use super::*;
use crate::config::Migration;
use crate::group::embedded::{EmbeddedAssignment, EmbeddedSubscription, write_assignment};

/// A subscription of version 1.
pub(super) fn subscription(topics: &[&str], owned: &[(&str, &[i32])]) -> Bytes {
    let mut out = vec![0, 1];
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend((text.len() as i16).to_be_bytes());
        out.extend(text.as_bytes());
    };
    out.extend((topics.len() as i32).to_be_bytes());
    topics.iter().for_each(|topic| text(&mut out, topic));
    out.extend((-1_i32).to_be_bytes());
    out.extend((owned.len() as i32).to_be_bytes());
    for (topic, partitions) in owned {
        text(&mut out, topic);
        out.extend((partitions.len() as i32).to_be_bytes());
        partitions.iter().for_each(|p| out.extend(p.to_be_bytes()));
    }
    Bytes::from(out)
}

fn assignment(partitions: &[i32]) -> Bytes {
    write_assignment(1, [("t", partitions.to_vec())].into_iter())
}

fn partitions_in(bytes: &[u8]) -> Vec<i32> {
    EmbeddedAssignment::read(bytes).unwrap().partitions.into_iter().flat_map(|(_, p)| p).collect()
}

fn guest(member: &str, owned: &[i32]) -> JoinGroup {
    let owned: &[(&str, &[i32])] = &[("t", owned)];
    JoinGroup {
        member_id: member.into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 20_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), subscription(&["t"], owned))],
        ..JoinGroup::default()
    }
}

fn identity(member: &str, generation: i32) -> Identity {
    Identity { member_id: member.into(), instance_id: None, generation }
}

impl Bench {
    /// Asks without waiting.
    fn send(&mut self, request: Request) -> u64 {
        self.counter += 1;
        let id = self.counter;
        self.event(Event::Request(RequestId(id), request));
        id
    }

    fn joined(&mut self, id: u64) -> JoinReply {
        match self.replies.remove(&id) {
            Some(Ok(Reply::Join(reply))) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn rejoin(&mut self, member: &str, owned: &[i32]) -> JoinReply {
        let id = self.send(Request::Join(guest(member, owned)));
        self.joined(id)
    }

    fn sync(&mut self, member: &str, generation: i32) -> Result<Vec<i32>, KafkaError> {
        let sync = SyncGroup { identity: identity(member, generation), ..SyncGroup::default() };
        match self.ask(Request::Sync(sync)) {
            Ok(Reply::Sync(reply)) => Ok(partitions_in(&reply.assignment)),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.error),
        }
    }

    fn pulse(&mut self, member: &str, generation: i32) -> Result<(), KafkaError> {
        self.ask(Request::Heartbeat(identity(member, generation))).map(drop).map_err(|e| e.error)
    }

    /// A classic group of two, who have 0, 1 and 2, 3 of `t`; gives their names, the leader's first.
    fn classic(&mut self) -> (String, String) {
        let (a, b) = (self.send(Request::Join(guest("", &[]))), self.send(Request::Join(guest("", &[]))));
        self.pass_ms(6_000);
        let (a, b) = (self.joined(a), self.joined(b));
        let (leader, other) = if a.leader == a.member_id { (a, b) } else { (b, a) };
        let assignments =
            vec![(leader.member_id.clone(), assignment(&[0, 1])), (other.member_id.clone(), assignment(&[2, 3]))];
        let sync =
            SyncGroup { identity: identity(&leader.member_id, leader.generation), assignments, ..SyncGroup::default() };
        self.ask(Request::Sync(sync)).unwrap();
        assert_eq!(self.sync(&other.member_id, other.generation), Ok(vec![2, 3]));
        (leader.member_id, other.member_id)
    }
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.topic("t", 4);
    bench
}

#[test]
fn a_group_moves_up_and_down_with_its_members() {
    let mut bench = bench();
    let (a, b) = bench.classic();
    // The first member of the new protocol takes the others along.
    let n = bench.ok(join("n", &["t"]));
    assert_eq!((n.member_epoch, partitions(&n)), (2, Some(vec![])));
    assert_eq!(bench.state.group("g").unwrap().members.len(), 3);
    assert_eq!(bench.commit(&a, 1, bench.state.topic_by_name("t").unwrap().id, 0), Ok(()));
    // They are told to join again, and get what stays theirs.
    assert_eq!(bench.pulse(&a, 1), Err(KafkaError::RebalanceInProgress));
    assert_eq!(bench.sync(&a, 1), Err(KafkaError::RebalanceInProgress));
    assert_eq!(bench.pulse(&b, 7), Err(KafkaError::IllegalGeneration));
    let mut had = Vec::new();
    for member in [&a, &b] {
        let reply = bench.rejoin(member, &[]);
        assert_eq!((reply.generation, reply.protocol_name.as_deref()), (2, Some("range")));
        had.extend(bench.sync(member, 2).unwrap());
        assert_eq!(bench.pulse(member, 2), Ok(()));
    }
    bench.crash();
    let n = partitions(&bench.ok(beat("n", 2))).unwrap();
    had.extend(&n);
    had.sort_unstable();
    assert_eq!((had, n.len()), (vec![0, 1, 2, 3], 1));
    assert_eq!(bench.machine.phase(), Phase::Stable);
    // When the last of the new protocol goes, the others go on by themselves.
    bench.ok(beat("n", -1));
    assert!(matches!(bench.machine.members, Members::Classic(_)));
    let group = bench.state.group("g").unwrap();
    assert_eq!((group.members.len(), group.targets.len(), group.protocol()), (2, 0, GroupProtocol::Classic));
    assert_eq!(bench.pulse(&a, 3), Err(KafkaError::RebalanceInProgress));
    let (x, y) = (bench.send(Request::Join(guest(&a, &[]))), bench.send(Request::Join(guest(&b, &[]))));
    assert_eq!((bench.joined(x).generation, bench.joined(y).generation), (4, 4));
}

#[test]
fn cooperative_guests_give_up_what_goes_to_others() {
    let mut bench = bench();
    let (a, b) = bench.classic();
    bench.ok(join("n", &["t"]));
    // `a` still has what it had; it may lose one and keeps its generation until it gave it up.
    let reply = bench.rejoin(&a, &[0, 1]);
    let kept = bench.sync(&a, reply.generation).unwrap();
    let reply = bench.rejoin(&b, &[2, 3]);
    let kept_b = bench.sync(&b, reply.generation).unwrap();
    assert_eq!(kept.len() + kept_b.len(), 3);
    let (loser, kept) = if kept.len() == 1 { (&a, kept) } else { (&b, kept_b) };
    assert_eq!(partitions(&bench.ok(beat("n", 2))), None);
    assert_eq!(bench.pulse(loser, 1), Err(KafkaError::RebalanceInProgress));
    assert_eq!(bench.rejoin(loser, &kept).generation, 2);
    assert_eq!(bench.sync(loser, 2), Ok(kept));
    assert_eq!(partitions(&bench.ok(beat("n", 2))).unwrap().len(), 1);
}

#[test]
fn guests_are_fenced_when_they_do_not_join_or_sync_in_time() {
    let mut bench = bench();
    let (a, b) = bench.classic();
    bench.ok(join("n", &["t"]));
    assert_eq!(bench.pulse(&a, 1), Err(KafkaError::RebalanceInProgress));
    let generation = bench.rejoin(&b, &[]).generation;
    for _ in 0..4 {
        bench.pass_ms(5_001);
        let _ = bench.pulse(&a, 1);
        let _ = bench.pulse(&b, generation);
    }
    // `a` did not join again, `b` did not sync: both went, although they sent heartbeats.
    assert_eq!(bench.pulse(&a, 1), Err(KafkaError::UnknownMemberId));
    assert_eq!(bench.pulse(&b, generation), Err(KafkaError::UnknownMemberId));
    assert_eq!(partitions(&bench.ok(beat("n", 2))), Some(vec![0, 1, 2, 3]));
}

#[test]
fn the_policy_rules_who_may_move() {
    for (policy, up, down) in [
        (Migration::Disabled, false, false),
        (Migration::Upgrade, true, false),
        (Migration::Downgrade, false, true),
        (Migration::Bidirectional, true, true),
    ] {
        let mut bench = Bench::with(|kafka| kafka.group_consumer_migration_policy = policy);
        bench.topic("t", 4);
        bench.classic();
        let message = "Cannot upgrade classic group g to consumer group because online upgrade is disabled.";
        if up {
            bench.ok(join("n", &["t"]));
        } else {
            assert_eq!(bench.error(join("n", &["t"])), (KafkaError::GroupIdNotFound, message.into()));
            assert_eq!(bench.machine.phase(), Phase::Stable);
        }
        let mut bench = Bench::with(|kafka| kafka.group_consumer_migration_policy = policy);
        bench.topic("t", 4);
        bench.ok(join("n", &["t"]));
        let id = bench.send(Request::Join(guest("", &[])));
        if policy == Migration::Disabled {
            let error = bench.replies.remove(&id).unwrap().unwrap_err();
            assert_eq!(error.error, KafkaError::InconsistentGroupProtocol);
            continue;
        }
        bench.joined(id);
        bench.ok(beat("n", -1));
        assert_eq!(matches!(bench.machine.members, Members::Classic(_)), down, "{policy:?}");
    }
}

#[test]
fn what_can_not_be_taken_along_is_refused() {
    let mut bench = bench();
    bench.ok(join("n", &["t"]));
    let mut refused = |change: fn(&mut JoinGroup)| {
        let mut join = guest("", &[]);
        change(&mut join);
        bench.ask(Request::Join(join)).map(drop).map_err(|e| e.error)
    };
    assert_eq!(refused(|j| j.protocol_type = "connect".into()), Err(KafkaError::InconsistentGroupProtocol));
    assert_eq!(refused(|j| j.protocols.clear()), Err(KafkaError::InconsistentGroupProtocol));
    assert_eq!(refused(|j| j.protocols[0].1 = Bytes::from_static(b"\0")), Err(KafkaError::InconsistentGroupProtocol));
    assert_eq!(refused(|j| j.session_timeout_ms = 1), Err(KafkaError::InvalidSessionTimeout));
    assert_eq!(refused(|j| j.member_id_required = true), Err(KafkaError::MemberIdRequired));
    assert_eq!(refused(|_| ()), Ok(()));
    // All guests must have an assignor in common.
    assert_eq!(refused(|j| j.protocols[0].0 = "other".into()), Err(KafkaError::InconsistentGroupProtocol));
    // Another protocol type does not move up.
    let mut bench = self::bench();
    let id = bench.send(Request::Join(JoinGroup { protocol_type: "connect".into(), ..guest("", &[]) }));
    bench.pass_ms(3_000);
    bench.joined(id);
    let message = "Cannot upgrade classic group g to consumer group because the group does not use the consumer embedded protocol.";
    assert_eq!(bench.error(join("n", &["t"])), (KafkaError::GroupIdNotFound, message.into()));
}

#[test]
fn who_waits_in_the_classic_group_is_told() {
    let mut bench = bench();
    let waiting = bench.send(Request::Join(guest("", &[])));
    bench.ok(join("n", &["t"]));
    let error = bench.replies.remove(&waiting).unwrap().unwrap_err();
    assert_eq!(error.error, KafkaError::RebalanceInProgress);
}

#[test]
fn guests_leave_by_leave_group() {
    let mut bench = bench();
    let (a, _) = bench.classic();
    bench.ok(join("n", &["t"]));
    let leaving = [a.as_str(), "n", "x"].map(|id| LeavingMember { member_id: id.into(), instance_id: None });
    let Ok(Reply::Leave(reply)) = bench.ask(Request::Leave(leaving.to_vec())) else { panic!("refused") };
    let errors: Vec<_> = reply.members.into_iter().map(|(_, error)| error).collect();
    assert_eq!(errors, [None, Some(KafkaError::UnknownMemberId), Some(KafkaError::UnknownMemberId)]);
    assert_eq!(bench.group().members.len(), 2);
}

proptest::proptest! {
    #[test]
    fn no_embedded_bytes_are_too_wild(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
        let _ = EmbeddedSubscription::read(&bytes);
        let _ = EmbeddedAssignment::read(&bytes);
    }
}
