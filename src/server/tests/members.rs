//! Two brokers over one journal and bucket, that know of each other.
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

use super::groups::{group, versions};
use super::slow_bucket::{fetch, write};
use super::*;
use crate::journal::{Journal, MemoryJournal};
use crate::metadata::tests::troubled::{End, Troubled};
use crate::net::attach;
use crate::peers::Tcp;
use crate::store::MemoryBucket;

/// The brokers 1 and 2, and topic `t`.
async fn two(partitions: i32) -> [Arc<Context>; 2] {
    let (world, journal, bucket) = (World::seeded(1), Arc::new(MemoryJournal::default()), MemoryBucket::new());
    let mut brokers = Vec::new();
    for id in [1, 2] {
        let metrics = Arc::new(Metrics::new(TimestampMs(0)));
        let config = config(&format!("broker_id: {id}\nkafka:\n  group.initial.rebalance.delay.ms: 0\n"));
        let bucket = Arc::new(bucket.clone());
        let broker =
            build::assemble(&config, &world, &metrics, journal.clone(), bucket, Arc::new(Tcp), &[entrance(id)])
                .await
                .unwrap();
        brokers.push(broker.context);
    }
    create(&brokers[0], "t", partitions).await.unwrap();
    brokers.try_into().unwrap_or_else(|_| unreachable!())
}

/// The leaders of `t`, as broker `ctx` tells them.
async fn leaders(ctx: &Context) -> BTreeSet<i32> {
    let told = ask(ctx, 12, MetadataRequest::default().with_topics(None)).await;
    let topic = told.topics.iter().find(|topic| topic.name.as_ref().is_some_and(|name| name.as_str() == "t")).unwrap();
    topic.partitions.iter().map(|p| p.leader_id.0).collect()
}

/// A group that broker 1 coordinates, and one of broker 2.
fn one_of_each(ctx: &Context) -> [String; 2] {
    [1, 2].map(|id| (0..).map(|n| format!("g{n}")).find(|name| ctx.members().coordinator(name).0 == id).unwrap())
}

#[tokio::test(start_paused = true)]
async fn both_say_the_same_of_brokers_and_leaders() {
    let brokers = two(16).await;
    let mut metadata = Vec::new();
    for ctx in &brokers {
        let mut told = ask(ctx, 12, MetadataRequest::default().with_topics(None)).await;
        let brokers: Vec<_> = told.brokers.iter().map(|b| (b.node_id.0, b.host.to_string(), b.port)).collect();
        assert_eq!(brokers, [(1, "broker-1.example".into(), 9091), (2, "broker-2.example".into(), 9092)]);
        let cluster = ask(ctx, 0, DescribeClusterRequest::default()).await.brokers;
        let cluster: Vec<_> = cluster.iter().map(|b| (b.broker_id.0, b.host.to_string(), b.port)).collect();
        assert_eq!(cluster, brokers);
        metadata.push(told.topics.remove(0));
    }
    assert_eq!(metadata[0], metadata[1]);
    let leaders: Vec<i32> = metadata[0].partitions.iter().map(|p| p.leader_id.0).collect();
    assert_eq!(leaders.iter().collect::<BTreeSet<_>>().len(), 2, "{leaders:?}");
    assert!(metadata[0].partitions.iter().all(|p| p.isr_nodes == [p.leader_id] && p.replica_nodes == [p.leader_id]));
    let asked = describe_topic_partitions_request::TopicRequest::default().with_name(name("t"));
    let request = DescribeTopicPartitionsRequest::default().with_topics(vec![asked]).with_cursor(None);
    let paged = ask(&brokers[1], 0, request.with_response_partition_limit(99)).await.topics.remove(0);
    assert_eq!(paged.partitions.iter().map(|p| p.leader_id.0).collect::<Vec<_>>(), leaders);
    for ctx in &brokers {
        let shown = ask(ctx, 1, DescribeLogDirsRequest::default().with_topics(None)).await.results.remove(0).topics;
        let shown: Vec<i32> = shown[0].partitions.iter().map(|p| leaders[p.partition_index as usize]).collect();
        assert!(!shown.is_empty() && shown.iter().all(|leader| *leader == ctx.membership.me().0), "each shows its own");
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_takes_the_other_gives() {
    let [a, b] = two(2).await;
    write(&a, 0).await;
    write(&b, 1).await;
    for ctx in [&a, &b] {
        let (first, second, _) = fetch(ctx).await;
        for data in [first, second] {
            assert_eq!((data.error_code, data.high_watermark), (0, 1));
            assert!(data.records.is_some_and(|records| !records.is_empty()));
        }
    }
}

fn commit(id: &str) -> OffsetCommitRequest {
    use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(7);
    let topic = OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]);
    OffsetCommitRequest::default().with_group_id(group(id)).with_topics(vec![topic])
}

/// The error of OffsetFetch, wherever the version has it, and the committed offsets.
async fn committed(ctx: &Context, v: i16, id: &str) -> (i16, Vec<i64>) {
    let topic = offset_fetch_request::OffsetFetchRequestTopic::default().with_name(name("t"));
    let request = OffsetFetchRequest::default().with_group_id(group(id));
    if v >= 8 {
        let asked = offset_fetch_request::OffsetFetchRequestGroup::default().with_group_id(group(id)).with_topics(None);
        let found = ask(ctx, v, OffsetFetchRequest::default().with_groups(vec![asked])).await;
        let found = found.groups.into_iter().next().unwrap();
        let offsets = found.topics.iter().flat_map(|t| &t.partitions).map(|p| p.committed_offset);
        return (found.error_code, offsets.collect());
    }
    let found = ask(ctx, v, request.with_topics(Some(vec![topic.with_partition_indexes(vec![0])]))).await;
    let partitions: Vec<_> = found.topics.iter().flat_map(|t| &t.partitions).collect();
    let code = if v >= 2 { found.error_code } else { partitions[0].error_code };
    (code, partitions.iter().map(|p| p.committed_offset).filter(|offset| *offset >= 0).collect())
}

#[tokio::test(start_paused = true)]
async fn a_group_is_served_by_its_coordinator() {
    let brokers = two(1).await;
    let names = one_of_each(&brokers[0]);
    for ctx in &brokers {
        for v in versions(ApiKey::FindCoordinator) {
            let keys: Vec<StrBytes> = names.iter().map(|name| text(name)).collect();
            let found: Vec<(i32, i32)> = if v < 4 {
                let request = |key| FindCoordinatorRequest::default().with_key(key);
                let found = [ask(ctx, v, request(keys[0].clone())).await, ask(ctx, v, request(keys[1].clone())).await];
                found.iter().map(|f| (f.node_id.0, f.port)).collect()
            } else {
                let found = ask(ctx, v, FindCoordinatorRequest::default().with_coordinator_keys(keys)).await;
                found.coordinators.iter().map(|c| (c.node_id.0, c.port)).collect()
            };
            assert_eq!(found, [(1, 9091), (2, 9092)], "version {v}");
        }
    }
    for (ctx, id) in brokers.iter().zip(&names) {
        let done = ask(ctx, 8, commit(id)).await;
        assert_eq!(done.topics[0].partitions[0].error_code, 0);
        let listed = ask(ctx, 5, ListGroupsRequest::default()).await.groups;
        assert_eq!(listed.iter().map(|g| g.group_id.as_str()).collect::<Vec<_>>(), [id]);
        for v in versions(ApiKey::OffsetFetch) {
            assert_eq!(committed(ctx, v, id).await, (0, vec![7]), "version {v}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_others_send_clients_of_a_group_away_in_every_version() {
    let [a, b] = two(1).await;
    let [_, id] = one_of_each(&a);
    ask(&b, 8, commit(&id)).await;
    let (ctx, id, away) = (&*a, id.as_str(), KafkaError::NotCoordinator.code());
    let me = || text("me");
    for v in versions(ApiKey::JoinGroup) {
        let join = JoinGroupRequest::default().with_group_id(group(id)).with_protocol_type(text("consumer"));
        let told = ask(ctx, v, join.with_session_timeout_ms(10_000)).await;
        assert_eq!((told.error_code, told.generation_id), (away, -1), "version {v}");
    }
    for v in versions(ApiKey::SyncGroup) {
        let kind = (v >= 5).then(|| text("consumer"));
        let sync = SyncGroupRequest::default().with_group_id(group(id)).with_member_id(me()).with_generation_id(1);
        let told = ask(ctx, v, sync.with_protocol_name(kind.clone()).with_protocol_type(kind)).await;
        assert_eq!(told.error_code, away, "version {v}");
    }
    for v in versions(ApiKey::Heartbeat) {
        let told = ask(ctx, v, HeartbeatRequest::default().with_group_id(group(id)).with_member_id(me())).await;
        assert_eq!(told.error_code, away, "version {v}");
    }
    for v in versions(ApiKey::LeaveGroup) {
        let leave = LeaveGroupRequest::default().with_group_id(group(id));
        let leave = match v {
            ..3 => leave.with_member_id(me()),
            _ => leave.with_members(vec![leave_group_request::MemberIdentity::default().with_member_id(me())]),
        };
        let told = ask(ctx, v, leave).await;
        assert_eq!((told.error_code, told.members.len()), (away, 0), "version {v}");
    }
    for v in versions(ApiKey::OffsetCommit) {
        // Of a member, and of somebody who only commits.
        for generation in [-1, 3] {
            let commit = commit(id).with_generation_id_or_member_epoch(generation);
            let told = ask(ctx, v, commit).await;
            assert_eq!(told.topics[0].partitions[0].error_code, away, "version {v}");
        }
    }
    for v in versions(ApiKey::OffsetFetch) {
        assert_eq!(committed(ctx, v, id).await, (away, vec![]), "version {v}");
    }
    for v in versions(ApiKey::OffsetDelete) {
        assert_eq!(ask(ctx, v, OffsetDeleteRequest::default().with_group_id(group(id))).await.error_code, away);
    }
    for v in versions(ApiKey::DeleteGroups) {
        let told = ask(ctx, v, DeleteGroupsRequest::default().with_groups_names(vec![group(id)])).await;
        assert_eq!(told.results[0].error_code, away, "version {v}");
    }
    for v in versions(ApiKey::DescribeGroups) {
        let told = ask(ctx, v, DescribeGroupsRequest::default().with_groups(vec![group(id)])).await;
        assert_eq!(told.groups[0].error_code, away, "version {v}");
    }
    for v in versions(ApiKey::ConsumerGroupDescribe) {
        let told = ask(ctx, v, ConsumerGroupDescribeRequest::default().with_group_ids(vec![group(id)])).await;
        assert_eq!(told.groups[0].error_code, away, "version {v}");
    }
    for v in versions(ApiKey::ConsumerGroupHeartbeat) {
        let beat = ConsumerGroupHeartbeatRequest::default().with_group_id(group(id)).with_member_id(me());
        assert_eq!(ask(ctx, v, beat.with_rebalance_timeout_ms(1000)).await.error_code, away, "version {v}");
    }
    for v in versions(ApiKey::ListGroups) {
        assert!(ask(ctx, v, ListGroupsRequest::default()).await.groups.is_empty(), "version {v}");
    }
    assert_eq!(committed(&b, 8, id).await, (0, vec![7]), "nothing of all that has happened");
}

#[tokio::test(start_paused = true)]
async fn who_drains_sends_its_clients_to_the_others() {
    let [a, b] = two(16).await;
    let [id, _] = one_of_each(&a);
    assert_eq!(ask(&a, 8, commit(&id)).await.topics[0].partitions[0].error_code, 0);
    assert_eq!(leaders(&b).await, BTreeSet::from([1, 2]));
    let drained = ask(&b, 0, UnregisterBrokerRequest::default().with_broker_id(1.into())).await;
    assert_eq!(drained.error_code, 0);
    let clock = a.world.now();
    while a.members().serves() {
        a.world.sleep(std::time::Duration::from_millis(10)).await;
        assert!((a.world.now() - clock).as_secs() < 5, "it learns of it");
    }
    for ctx in [&a, &b] {
        assert_eq!(leaders(ctx).await, BTreeSet::from([2]));
        let found = ask(ctx, 3, FindCoordinatorRequest::default().with_key(text(&id))).await;
        assert_eq!(found.node_id.0, 2);
    }
    assert_eq!(committed(&a, 8, &id).await.0, KafkaError::NotCoordinator.code());
    assert_eq!(committed(&b, 8, &id).await, (0, vec![7]), "no offset is lost");
    let listed = |fenced| DescribeClusterRequest::default().with_endpoint_type(1).with_include_fenced_brokers(fenced);
    let told = ask(&b, 2, listed(true)).await.brokers;
    assert_eq!(told.iter().map(|b| (b.broker_id.0, b.is_fenced)).collect::<Vec<_>>(), [(2, false), (1, true)]);
    assert_eq!(ask(&b, 2, listed(false)).await.brokers.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn h11_leader_epochs_are_served_up_to_the_newest() {
    let [a, b] = two(1).await;
    write(&a, 0).await;
    let told = ask(&b, 12, MetadataRequest::default().with_topics(None)).await;
    let epoch = told.topics[0].partitions[0].leader_epoch;
    assert!(epoch > 0);
    use offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
    let newest = crate::state::epochs(&a.replica.state()).1.0;
    for (asked, current, expected) in [
        (0, -1, (0, 0, 1)),
        (0, epoch, (0, 0, 1)),
        (newest, newest, (0, newest, 1)),
        (newest + 1, newest, (0, -1, -1)),
        (0, newest + 1, (KafkaError::UnknownLeaderEpoch.code(), -1, -1)),
    ] {
        let partition = OffsetForLeaderPartition::default().with_leader_epoch(asked).with_current_leader_epoch(current);
        let topic = OffsetForLeaderTopic::default().with_topic(name("t")).with_partitions(vec![partition]);
        let told = ask(&b, 4, OffsetForLeaderEpochRequest::default().with_topics(vec![topic])).await;
        let end = &told.topics[0].partitions[0];
        assert_eq!((end.error_code, end.leader_epoch, end.end_offset), expected, "{asked} {current}");
    }
}

/// What is sent over it may have been asked from another broker since (H8).
#[tokio::test(start_paused = true)]
async fn a_connection_ends_with_the_life_that_it_was_made_in() {
    let (world, journal, bucket) = (World::seeded(1), Arc::new(MemoryJournal::default()), MemoryBucket::new());
    let troubled = Arc::new(Troubled::new(journal.clone(), world.clone()));
    let often = "cluster: {heartbeat_interval_ms: 200, fencing_timeout_ms: 1000, journal_staleness_max_ms: 800}";
    let mut brokers = Vec::new();
    for id in [1, 2] {
        let config = config(&format!("broker_id: {id}\n{often}\n"));
        let metrics = Arc::new(Metrics::new(TimestampMs(0)));
        let journal: Arc<dyn Journal> = if id == 1 { journal.clone() } else { troubled.clone() };
        let (bucket, entrances) = (Arc::new(bucket.clone()), [entrance(id)]);
        brokers.push(
            build::assemble(&config, &world, &metrics, journal, bucket, Arc::new(Tcp), &entrances).await.unwrap(),
        );
    }
    let silent = &brokers[1];
    let life = || silent.context.replica.identity().incarnation;
    let connect = || {
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        let (read, write) = tokio::io::split(theirs);
        let (context, limits, entrance) = (silent.context.clone(), silent.limits.clone(), Arc::new(entrance(2)));
        let (stop, stopping) = watch::channel(false);
        world.spawn("connection", async move {
            attach(context, limits, read, write, None, entrance, stopping).await;
            drop(stop);
        });
        ours
    };
    // ApiVersions 0, without a client id.
    let request = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    let answer = async |connection: &mut DuplexStream| {
        connection.write_all(&request).await?;
        let size = connection.read_u32().await?;
        connection.read_exact(&mut vec![0; size as usize]).await
    };
    let mut first = connect();
    answer(&mut first).await.unwrap();
    let before = life();
    troubled.script([End::Silent; 3]);
    for _ in 0..100 {
        world.sleep(Duration::from_secs(1)).await;
    }
    assert_ne!(life(), before, "it was given up, and has begun again");
    answer(&mut connect()).await.unwrap();
    assert!(answer(&mut first).await.is_err(), "it is closed without an answer");
}
