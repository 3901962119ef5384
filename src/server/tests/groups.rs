//! The APIs of groups in every version that the message crate can speak; version 10 of OffsetCommit and OffsetFetch, for
//! which it has no codec, in `protocol/tests/` and by real clients.
use super::*;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};

pub(super) fn versions(key: ApiKey) -> impl Iterator<Item = i16> {
    let offered = OFFERED.iter().find(|o| o.key == key).unwrap();
    let newest = if [ApiKey::OffsetCommit, ApiKey::OffsetFetch].contains(&key) { 9 } else { offered.max };
    offered.min..=newest
}

pub(super) fn group(id: &str) -> GroupId {
    GroupId(text(id))
}

/// One member comes, is assigned to, commits, beats and leaves.
#[tokio::test(start_paused = true)]
async fn a_member_lives_in_every_version_that_is_offered() {
    let ctx = &*broker("kafka:\n  group.initial.rebalance.delay.ms: 0\n").await;
    for v in versions(ApiKey::JoinGroup) {
        let protocol = join_group_request::JoinGroupRequestProtocol::default().with_name(text("range"));
        let join = JoinGroupRequest::default()
            .with_group_id(group("g"))
            .with_session_timeout_ms(10_000)
            .with_rebalance_timeout_ms(if v >= 1 { 10_000 } else { -1 })
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let told = ask(ctx, v, join.clone()).await;
        let joined = match v {
            ..4 => told,
            _ => {
                assert_eq!(told.error_code, KafkaError::MemberIdRequired.code());
                ask(ctx, v, join.with_member_id(told.member_id)).await
            }
        };
        assert_eq!((joined.error_code, joined.leader), (0, joined.member_id.clone()), "version {v}");
        let (me, generation) = (joined.member_id, joined.generation_id);
        for v in versions(ApiKey::SyncGroup) {
            let sync = SyncGroupRequest::default().with_group_id(group("g")).with_member_id(me.clone());
            let kind = (v >= 5).then(|| text("consumer"));
            let sync = sync.with_protocol_name(kind.as_ref().map(|_| text("range"))).with_protocol_type(kind);
            assert_eq!(ask(ctx, v, sync.with_generation_id(generation)).await.error_code, 0, "version {v}");
        }
        for v in versions(ApiKey::Heartbeat) {
            let beat = HeartbeatRequest::default().with_group_id(group("g")).with_member_id(me.clone());
            assert_eq!(ask(ctx, v, beat.with_generation_id(generation)).await.error_code, 0, "version {v}");
        }
        let v = v.min(5);
        let leave = LeaveGroupRequest::default().with_group_id(group("g"));
        let leave = match v {
            ..3 => leave.with_member_id(me),
            _ => leave.with_members(vec![leave_group_request::MemberIdentity::default().with_member_id(me)]),
        };
        let left = ask(ctx, v, leave).await;
        assert_eq!((left.error_code, left.members.iter().all(|m| m.error_code == 0)), (0, true), "version {v}");
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_are_committed_and_read_in_every_version_that_is_offered() {
    let ctx = &*broker("").await;
    create(ctx, "t", 2).await.unwrap();
    for v in versions(ApiKey::OffsetCommit) {
        let partition = |index| {
            OffsetCommitRequestPartition::default().with_partition_index(index).with_committed_offset(i64::from(v))
        };
        let topic =
            OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition(1), partition(2)]);
        let request = OffsetCommitRequest::default().with_group_id(group("g")).with_topics(vec![topic]);
        let found = ask(ctx, v, request).await.topics.remove(0).partitions;
        let codes: Vec<_> = found.iter().map(|p| p.error_code).collect();
        assert_eq!(codes, [0, KafkaError::UnknownTopicOrPartition.code()], "version {v}");
    }
    for v in versions(ApiKey::OffsetFetch) {
        let request = OffsetFetchRequest::default();
        let offsets: Vec<i64> = if v >= 8 {
            let of = |id| {
                offset_fetch_request::OffsetFetchRequestGroup::default().with_group_id(group(id)).with_topics(None)
            };
            let found = ask(ctx, v, request.with_groups(vec![of("g"), of("none"), of("g")])).await.groups;
            assert_eq!(found.len(), 2, "each group once");
            found.iter().flat_map(|g| &g.topics).flat_map(|t| &t.partitions).map(|p| p.committed_offset).collect()
        } else {
            let topic = offset_fetch_request::OffsetFetchRequestTopic::default().with_name(name("t"));
            let topic = topic.with_partition_indexes(vec![1, 1]);
            let found = ask(ctx, v, request.with_group_id(group("g")).with_topics(Some(vec![topic]))).await.topics;
            found.iter().flat_map(|t| &t.partitions).map(|p| p.committed_offset).collect()
        };
        assert_eq!(offsets, [9], "version {v}");
    }
    for _ in versions(ApiKey::OffsetDelete) {
        let partition = offset_delete_request::OffsetDeleteRequestPartition::default().with_partition_index(1);
        let topic = offset_delete_request::OffsetDeleteRequestTopic::default().with_name(name("t"));
        let topics = vec![topic.with_partitions(vec![partition])];
        let request = OffsetDeleteRequest::default().with_group_id(group("g")).with_topics(topics);
        assert_eq!(ask(ctx, 0, request).await.topics[0].partitions[0].error_code, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn tools_see_groups_in_every_version_that_is_offered() {
    let ctx = &*broker("").await;
    create(ctx, "t", 1).await.unwrap();
    let beat = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group("new"))
        .with_rebalance_timeout_ms(10_000)
        .with_subscribed_topic_names(Some(vec![name("t")]))
        .with_topic_partitions(Some(Vec::new()));
    for v in versions(ApiKey::ConsumerGroupHeartbeat) {
        let beat = if v == 0 { beat.clone() } else { beat.clone().with_member_id(text("me")) };
        assert_eq!(ask(ctx, v, beat).await.error_code, 0, "version {v}");
    }
    let absent = KafkaError::GroupIdNotFound.code();
    for v in versions(ApiKey::ConsumerGroupDescribe) {
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group("new"), group("none")]);
        let found = ask(ctx, v, request).await.groups;
        assert_eq!((found[0].error_code, found[0].members.len(), found[1].error_code), (0, 2, absent), "version {v}");
    }
    for v in versions(ApiKey::DescribeGroups) {
        let request = DescribeGroupsRequest::default().with_groups(vec![group("none"), group("new"), group("none")]);
        let found = ask(ctx, v, request).await.groups;
        let found: Vec<_> = found.iter().map(|g| (g.error_code, g.group_state.as_str())).collect();
        assert_eq!(found, [(if v >= 6 { absent } else { 0 }, "Dead"); 2], "version {v}");
    }
    for v in versions(ApiKey::ListGroups) {
        let types = if v >= 5 { vec![text("Consumer")] } else { Vec::new() };
        let found = ask(ctx, v, ListGroupsRequest::default().with_types_filter(types)).await.groups;
        let found: Vec<_> = found.iter().map(|g| (g.group_id.as_str(), g.protocol_type.as_str())).collect();
        assert_eq!(found, [("new", "consumer")], "version {v}");
    }
    for v in versions(ApiKey::DeleteGroups) {
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group("new"), group("none")]);
        let found = ask(ctx, v, request).await.results;
        let found: Vec<_> = found.iter().map(|g| g.error_code).collect();
        assert_eq!(found, [KafkaError::NonEmptyGroup.code(), absent], "version {v}");
    }
}

/// The client of an old version says how long its offset is kept; a group that has none left goes with it.
#[tokio::test(start_paused = true)]
async fn old_offsets_are_forgotten_by_the_loop() {
    let ctx = &*broker("kafka:\n  offsets.retention.check.interval.ms: 1000\n").await;
    create(ctx, "t", 1).await.unwrap();
    for (id, v) in [("short", 2), ("long", 5)] {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(7);
        let topic = OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default().with_group_id(group(id)).with_topics(vec![topic]);
        let kept_ms = if v == 2 { 0 } else { -1 };
        let found = ask(ctx, v, request.with_retention_time_ms(kept_ms)).await;
        assert_eq!(found.topics[0].partitions[0].error_code, 0);
    }
    ctx.world.sleep(std::time::Duration::from_secs(3)).await;
    let groups = ask(ctx, 5, ListGroupsRequest::default()).await.groups;
    assert_eq!(groups.iter().map(|g| g.group_id.as_str()).collect::<Vec<_>>(), ["long"]);
}
