//! Groups over a journal in memory, in a seeded world on a paused clock: what the owner and the gatherer promise. The
//! machines have their own scripts.
use std::time::Duration;

use super::machine::{Action, Event, Machine, RequestId, View};
use super::*;
use crate::cluster::Membership;
use crate::config::KafkaSettings;
use crate::metadata::tests::troubled::End;
use crate::metadata::tests::{Site, topic};
use crate::metadata::{Replica, Started};
use crate::state::{ChangeGroup, OffsetSpec, Outcome};
use crate::types::{KafkaError, Slot};

fn settings() -> GroupSettings {
    let kafka = KafkaSettings { offsets_retention_minutes: 60, ..KafkaSettings::default() };
    GroupSettings { kafka, id_bytes_max: 1024 }
}

async fn broker(site: &Site) -> (Replica, Groups) {
    let Started { replica, .. } = site.start(1).await;
    serve(site, replica).await
}

async fn serve(site: &Site, replica: Replica) -> (Replica, Groups) {
    replica.propose(topic("orders", 1)).await.unwrap();
    let membership = Membership::new(site.world.clone(), replica.clone(), Duration::from_secs(60));
    (replica.clone(), Groups::start(&site.world, replica, membership, settings()))
}

/// A commit of somebody who is no member.
fn commit(slot: u32, offset: i64) -> Request {
    let offsets = vec![OffsetSpec { slot, offset, leader_epoch: -1, metadata: String::new() }];
    let identity = Identity { generation: -1, ..Identity::default() };
    Request::Commit(CommitRequest { identity, offsets, ..CommitRequest::default() })
}

fn offset_of(replica: &Replica, group: &str) -> i64 {
    replica.state().group(group).unwrap().offsets.get(&Slot(0)).unwrap().offset.0
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_in_state_when_it_is_answered_and_the_next_read_sees_it() {
    let site = Site::new(1);
    let (replica, groups) = broker(&site).await;
    assert_eq!(groups.ask("g", commit(0, 7)).await, Ok(Reply::Committed(vec![])));
    assert_eq!(offset_of(&replica, "g"), 7);
    let (late, read) = tokio::join!(groups.ask("g", commit(0, 8)), groups.ask("g", Request::ReadOffsets(None)));
    assert_eq!((late, read), (Ok(Reply::Committed(vec![])), Ok(Reply::Done)));
    assert_eq!(offset_of(&replica, "g"), 8);
}

#[tokio::test(start_paused = true)]
async fn commits_of_many_groups_are_appended_together() {
    let site = Site::new(2);
    let (replica, groups) = broker(&site).await;
    let before = replica.applied().position.0;
    let begun = site.world.now();
    let rounds = 20;
    let committers = (0..90).map(|number| {
        let (groups, world) = (groups.clone(), site.world.clone());
        async move {
            world.sleep(Duration::from_micros(1100 * number)).await;
            for round in 0..rounds {
                let due = begun + Duration::from_millis(100 * (round + 1));
                let answer = groups.ask(&format!("g-{number}"), commit(0, round as i64)).await;
                assert_eq!(answer, Ok(Reply::Committed(vec![])));
                world.sleep_until(due).await;
            }
        }
    });
    futures::future::join_all(committers).await;
    let appends = replica.applied().position.0 - before;
    let seconds = begun.elapsed().as_secs_f64();
    assert!(appends as f64 <= 100.0 * seconds + 1.0, "{appends} appends in {seconds} s");
    assert!((0..90).all(|n| offset_of(&replica, &format!("g-{n}")) == i64::try_from(rounds).unwrap() - 1));
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_is_not_one_any_more_says_so_and_learns_it() {
    let site = Site::new(3);
    let (replica, groups) = broker(&site).await;
    groups.ask("g", commit(0, 1)).await.unwrap();
    // Somebody else coordinates the group now.
    let change = ChangeGroup { group: "g".into(), from_version: 0, ..ChangeGroup::default() };
    replica.propose(change).await.unwrap();
    assert_eq!(groups.ask("g", commit(0, 2)).await, Err(KafkaError::NotCoordinator.into()));
    assert_eq!(offset_of(&replica, "g"), 1);
    groups.ask("g", commit(0, 2)).await.unwrap();
    assert_eq!(offset_of(&replica, "g"), 2);
}

#[tokio::test(start_paused = true)]
async fn who_is_no_coordinator_any_more_does_not_say_that_a_member_is_none() {
    let site = Site::new(7);
    let (replica, groups) = broker(&site).await;
    groups.ask("g", commit(0, 1)).await.unwrap();
    let identity = Identity { generation: 1, member_id: "m".into(), ..Identity::default() };
    let heartbeat = || Request::Heartbeat(identity.clone());
    assert_eq!(groups.ask("g", heartbeat()).await, Err(KafkaError::UnknownMemberId.into()));
    // Somebody else coordinates the group now, and may know the member.
    let change = ChangeGroup { group: "g".into(), from_version: 0, ..ChangeGroup::default() };
    replica.propose(change).await.unwrap();
    assert_eq!(groups.ask("g", heartbeat()).await, Err(KafkaError::NotCoordinator.into()));
    assert_eq!(groups.ask("g", heartbeat()).await, Err(KafkaError::UnknownMemberId.into()));
}

/// What one builds on its own first change must not be taken to build on the other's.
#[tokio::test(start_paused = true)]
async fn two_coordinators_do_not_come_to_the_same_version() {
    let site = Site::new(9);
    let (replica, _) = broker(&site).await;
    let (state, settings) = (replica.state(), settings());
    let view = || View {
        now: site.world.now(),
        wall_ms: site.world.wall_ms(),
        state: &state,
        settings: &settings,
        random: u128::from(site.world.random_u64()),
    };
    let joins = |members: [&str; 2]| {
        let mut machine = Machine::load("g".into(), view());
        let join = |member: &str| {
            let heartbeat = ConsumerHeartbeat {
                member_id: member.to_owned(),
                rebalance_timeout_ms: 1_000,
                subscribed_topics: Some(vec!["orders".into()]),
                owned: Some(vec![]),
                ..ConsumerHeartbeat::default()
            };
            let mut actions = machine.on(Event::Request(RequestId(0), Request::ConsumerHeartbeat(heartbeat)), view());
            match actions.swap_remove(0) {
                Action::Change(change) => change,
                other => panic!("{other:?}"),
            }
        };
        members.map(join)
    };
    let ([a, b], [c, _]) = (joins(["a", "b"]), joins(["c", "d"]));
    assert_eq!(replica.propose(c).await, Ok(Outcome::Done));
    for late in [a, b] {
        let Ok(Outcome::Refused(refusal)) = replica.propose(late).await else { panic!("it was taken") };
        assert_eq!(refusal.error, KafkaError::NotCoordinator);
    }
    let state = replica.state();
    let members: Vec<&str> = state.group("g").unwrap().members.keys().map(|id| &**id).collect();
    assert_eq!(members, ["c"]);
}

/// Its client may have given it up and done the opposite at the other coordinator.
#[tokio::test(start_paused = true)]
async fn what_came_before_a_coordinator_was_one_again_is_not_carried_out_late() {
    let site = Site::new(8);
    let (started, journal) = site.start_troubled(1).await;
    let (replica, groups) = serve(&site, started.replica).await;
    groups.ask("g", commit(0, 1)).await.unwrap();
    // Somebody else coordinates the group now, which is noticed while the journal is slow.
    let change = ChangeGroup { group: "g".into(), from_version: 0, ..ChangeGroup::default() };
    replica.propose(change).await.unwrap();
    journal.script([End::Done.after(Duration::from_secs(5))]);
    let late = async {
        site.world.sleep(Duration::from_secs(3)).await;
        groups.ask("g", commit(0, 3)).await
    };
    let (first, late) = tokio::join!(groups.ask("g", commit(0, 2)), late);
    assert_eq!(first, Err(KafkaError::NotCoordinator.into()));
    assert_eq!(late, Err(KafkaError::NotCoordinator.into()));
    assert_eq!(offset_of(&replica, "g"), 1);
}

#[tokio::test(start_paused = true)]
async fn offsets_of_a_deleted_partition_are_named_and_the_others_committed() {
    let site = Site::new(4);
    let (_, groups) = broker(&site).await;
    let Request::Commit(mut request) = commit(0, 5) else { unreachable!() };
    request.offsets.push(OffsetSpec { slot: 77, ..request.offsets[0].clone() });
    assert_eq!(groups.ask("g", Request::Commit(request)).await, Ok(Reply::Committed(vec![Slot(77)])));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_rests_is_dropped_and_comes_back() {
    let site = Site::new(5);
    let (replica, groups) = broker(&site).await;
    groups.ask("g", commit(0, 5)).await.unwrap();
    site.world.sleep(Duration::from_secs(60)).await;
    assert_eq!(groups.running_count(), 0);
    groups.ask("g", commit(0, 6)).await.unwrap();
    assert_eq!(offset_of(&replica, "g"), 6);
}

#[tokio::test(start_paused = true)]
async fn offsets_are_forgotten_when_the_commit_is_old() {
    let site = Site::new(6);
    let (replica, groups) = broker(&site).await;
    groups.ask("g", commit(0, 5)).await.unwrap();
    site.world.sleep(Duration::from_secs(3_600 - 60)).await;
    groups.ask("g", commit(1, 5)).await.unwrap();
    site.world.sleep(Duration::from_secs(61)).await;
    groups.ask("g", Request::Expire).await.unwrap();
    let slots: Vec<Slot> = replica.state().group("g").unwrap().offsets.keys().copied().collect();
    assert_eq!(slots, [Slot(1)]);
    site.world.sleep(Duration::from_secs(3_600)).await;
    groups.ask("g", Request::Expire).await.unwrap();
    assert!(replica.state().group("g").is_none(), "nobody would miss it");
}

/// The journal holds nothing that a commit of nothing would add.
#[tokio::test(start_paused = true)]
async fn an_empty_commit_appends_nothing() {
    let site = Site::new(7);
    let (replica, groups) = broker(&site).await;
    let before = replica.applied();
    let identity = Identity { generation: -1, ..Identity::default() };
    let request = Request::Commit(CommitRequest { identity, ..CommitRequest::default() });
    groups.ask("g", request).await.unwrap();
    assert_eq!(replica.applied(), before);
}
