//! A whole broker without sockets: requests go to the API table as the network would hand them over, for what depends
//! on State and can't be seen from outside in every version.
mod cleaning;
mod compaction;
mod groups;
mod members;
mod neighbours;
mod produce;
mod silence;
mod slow_bucket;
mod transactions;
mod trio;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request, StrBytes};
use std::collections::BTreeSet;
use std::sync::Arc;

use super::build;
use crate::api::{Answer, Call, Context, OFFERED, serve};
use crate::config::{Config, Entrance, HostPort};
use crate::protocol::RequestHeader;
use crate::telemetry::Metrics;
use crate::types::{ConnectionId, KafkaError, TimestampMs, Uuid};
use crate::world::World;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// The configuration of a broker on memory alone, with these settings more.
fn config(settings: &str) -> Arc<Config> {
    let directory = tempfile::tempdir().unwrap();
    let yaml = format!(
        "data_dir: {}\njournal:\n  kind: memory\nbucket:\n  url: \"memory:\"\n{settings}",
        directory.path().display()
    );
    Arc::new(Config::from_yaml(&yaml).unwrap())
}

async fn broker(settings: &str) -> Arc<Context> {
    let config = config(settings);
    let metrics = Arc::new(Metrics::new(TimestampMs(0)));
    build::broker(&config, &World::seeded(1), &metrics, &[entrance(1)]).await.unwrap().context
}

/// How clients come to a broker.
fn entrance(id: i32) -> Entrance {
    let advertised = HostPort::parse(&format!("broker-{id}.example:909{id}")).unwrap();
    Entrance { listener: "plain".to_owned(), advertised, zone: None }
}

/// Asks as a client would, over the bytes of request and response.
async fn ask<R: Request>(ctx: &Context, version: i16, request: R) -> R::Response
where
    R::Response: Decodable + HeaderVersion,
{
    let mut body = BytesMut::new();
    request.encode(&mut body, version).unwrap();
    let api_key = ApiKey::try_from(R::KEY).unwrap();
    let call = Call {
        header: RequestHeader { api_key, version, correlation_id: 7, client_id: None },
        frame_bytes: body.len(),
        body: body.freeze(),
        permit: None,
        connection: ConnectionId(1),
        peer: None,
        entrance: Arc::new(entrance(ctx.config.broker_id)),
        received: ctx.world.now(),
    };
    let reply = match serve(ctx, call).await {
        Answer::Now(reply) => Some(reply),
        Answer::Later(reply) => reply.await,
        Answer::Close(_) => None,
    };
    let reply = reply.unwrap_or_else(|| panic!("{api_key:?} {version} is answered"));
    let mut frame =
        reply.frame.iter().flat_map(|piece| piece.in_memory().unwrap()).copied().collect::<Bytes>().slice(4..);
    let header = ResponseHeader::decode(&mut frame, R::Response::header_version(version)).unwrap();
    assert_eq!(header.correlation_id, 7);
    let response = R::Response::decode(&mut frame, version).unwrap();
    assert!(frame.is_empty(), "{api_key:?} {version} has nothing after its end");
    response
}

fn creation(topic: &str, partitions: i32, configs: &[(&str, &str)]) -> CreateTopicsRequest {
    use create_topics_request::{CreatableTopic, CreatableTopicConfig};
    let config = |c: &(&str, &str)| CreatableTopicConfig::default().with_name(text(c.0)).with_value(Some(text(c.1)));
    let topic = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(-1)
        .with_configs(configs.iter().map(config).collect());
    CreateTopicsRequest::default().with_timeout_ms(5000).with_topics(vec![topic])
}

async fn create(ctx: &Context, topic: &str, partitions: i32) -> Result<Uuid, i16> {
    let made = ask(ctx, 7, creation(topic, partitions, &[])).await.topics.remove(0);
    if made.error_code == 0 { Ok(made.topic_id) } else { Err(made.error_code) }
}

/// Asks in every version that is offered, and notes that it did.
macro_rules! each_version {
    ($seen:ident, $key:ident, |$version:ident| $body:expr) => {
        let offered = OFFERED.iter().find(|o| o.key == ApiKey::$key).unwrap();
        for $version in offered.min..=offered.max {
            $body
        }
        $seen.insert(ApiKey::$key as i16);
    };
}

#[tokio::test(start_paused = true)]
async fn admin_apis_answer_in_every_version_that_is_offered() {
    let ctx = &*broker("").await;
    let mut seen = BTreeSet::new();
    each_version!(seen, CreateTopics, |v| {
        let mut made = ask(ctx, v, creation(&format!("t{v}"), 2, &[("retention.ms", "5")])).await.topics;
        let made = made.remove(0);
        assert_eq!((made.error_code, made.num_partitions), (0, if v >= 5 { 2 } else { -1 }));
        assert_eq!(made.topic_id.is_nil(), v < 7);
        let again = ask(ctx, v, creation(&format!("t{v}"), 2, &[])).await.topics.remove(0);
        assert_eq!(again.error_code, KafkaError::TopicAlreadyExists.code());
        assert!(again.error_message.unwrap().contains("already exists"));
    });
    each_version!(seen, Metadata, |v| {
        let topic = metadata_request::MetadataRequestTopic::default().with_name(Some(name("t7")));
        let mut request = MetadataRequest::default().with_topics(Some(vec![topic]));
        request.include_topic_authorized_operations = v >= 8;
        request.include_cluster_authorized_operations = (8..=10).contains(&v);
        let found = ask(ctx, v, request).await;
        assert_eq!((found.topics[0].error_code, found.topics[0].partitions.len()), (0, 2));
        assert_eq!(found.topics[0].topic_authorized_operations != i32::MIN, v >= 8);
        assert_eq!(found.cluster_authorized_operations != i32::MIN, (8..=10).contains(&v));
    });
    each_version!(seen, CreatePartitions, |v| {
        use create_partitions_request::CreatePartitionsTopic;
        let grown =
            |count| CreatePartitionsTopic::default().with_name(name("t7")).with_count(count).with_assignments(None);
        let request = |count| CreatePartitionsRequest::default().with_topics(vec![grown(count)]);
        assert_eq!(ask(ctx, v, request(3 + i32::from(v))).await.results[0].error_code, 0);
        assert_eq!(ask(ctx, v, request(1)).await.results[0].error_code, KafkaError::InvalidPartitions.code());
    });
    each_version!(seen, DescribeConfigs, |v| {
        use describe_configs_request::DescribeConfigsResource;
        let of = |kind, name| {
            DescribeConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(text(name))
                .with_configuration_keys(None)
        };
        let mut request = DescribeConfigsRequest::default()
            .with_resources(vec![of(2, "t7"), of(4, "1"), of(2, "none"), of(8, "1")])
            .with_include_synonyms(true);
        request.include_documentation = v >= 3;
        let results = ask(ctx, v, request).await.results;
        let errors: Vec<i16> = results.iter().map(|r| r.error_code).collect();
        assert_eq!(errors, [0, 0, KafkaError::UnknownTopicOrPartition.code(), KafkaError::InvalidRequest.code()]);
        let retention = results[0].configs.iter().find(|c| c.name.as_str() == "retention.ms").unwrap();
        assert_eq!((retention.value.as_deref(), retention.config_source), (Some("5"), 1));
        assert_eq!(retention.documentation.as_ref().is_some_and(|doc| !doc.is_empty()), v >= 3);
        assert!(retention.synonyms.len() >= 2);
    });
    each_version!(seen, AlterConfigs, |v| {
        use alter_configs_request::{AlterConfigsResource, AlterableConfig};
        let config =
            |value: &str| AlterableConfig::default().with_name(text("retention.ms")).with_value(Some(text(value)));
        let of = |kind, name, value| {
            AlterConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(text(name))
                .with_configs(vec![config(value)])
        };
        let request =
            AlterConfigsRequest::default().with_resources(vec![of(2, "t7", "6"), of(2, "t6", "x"), of(4, "1", "1")]);
        let errors: Vec<i16> = ask(ctx, v, request).await.responses.iter().map(|r| r.error_code).collect();
        assert_eq!(errors, [0, KafkaError::InvalidConfig.code(), KafkaError::InvalidRequest.code()]);
    });
    each_version!(seen, IncrementalAlterConfigs, |v| {
        let request = IncrementalAlterConfigsRequest::default()
            .with_resources(vec![setting("t7", "retention.bytes", "7"), setting("none", "retention.bytes", "7")]);
        let errors: Vec<i16> = ask(ctx, v, request).await.responses.iter().map(|r| r.error_code).collect();
        assert_eq!(errors, [0, KafkaError::UnknownTopicOrPartition.code()]);
    });
    each_version!(seen, ListConfigResources, |v| {
        let found = ask(ctx, v, ListConfigResourcesRequest::default()).await.config_resources;
        assert_eq!(found.len(), if v == 0 { 0 } else { 7 }, "six topics and a broker");
    });
    each_version!(seen, DeleteRecords, |v| {
        use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
        let upto = |index, offset| DeleteRecordsPartition::default().with_partition_index(index).with_offset(offset);
        let topic = DeleteRecordsTopic::default().with_name(name("t7")).with_partitions(vec![
            upto(0, -1),
            upto(1, 1),
            upto(99, 0),
        ]);
        let found = ask(ctx, v, DeleteRecordsRequest::default().with_topics(vec![topic])).await.topics.remove(0);
        let found: Vec<_> = found.partitions.iter().map(|p| (p.error_code, p.low_watermark)).collect();
        let (beyond, unknown) = (KafkaError::OffsetOutOfRange, KafkaError::UnknownTopicOrPartition);
        assert_eq!(found, [(0, 0), (beyond.code(), -1), (unknown.code(), -1)]);
    });
    each_version!(seen, DescribeLogDirs, |v| {
        let dirs = ask(ctx, v, DescribeLogDirsRequest::default().with_topics(None)).await.results;
        assert_eq!((dirs.len(), dirs[0].error_code, &*dirs[0].log_dir, dirs[0].topics.len()), (1, 0, "memory:", 6));
    });
    each_version!(seen, DescribeCluster, |v| {
        let mut request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
        if v >= 1 {
            request.endpoint_type = 1;
        }
        let found = ask(ctx, v, request).await;
        assert_eq!((found.error_code, &*found.brokers[0].host), (0, "broker-1.example"));
        assert_eq!(found.cluster_id.as_str(), &**ctx.replica.state().cluster_id().unwrap());
        if v >= 1 {
            let controllers = ask(ctx, v, DescribeClusterRequest::default().with_endpoint_type(2)).await;
            assert_eq!(controllers.error_code, KafkaError::MismatchedEndpointType.code());
        }
    });
    each_version!(seen, UpdateFeatures, |v| {
        let update = |feature: &str, level| {
            let update = update_features_request::FeatureUpdateKey::default().with_feature(text(feature));
            let request = UpdateFeaturesRequest::default().with_timeout_ms(5000);
            request.with_feature_updates(vec![update.with_max_version_level(level)])
        };
        let invalid = KafkaError::InvalidUpdateVersion.code();
        let newest = i16::try_from(crate::state::FEATURE_LEVEL_MAX).unwrap();
        for (feature, level, code) in [
            ("strandline.version", newest, 0),
            ("strandline.version", 1, invalid),
            ("strandline.version", 99, invalid),
            ("metadata.version", 1, invalid),
        ] {
            let told = ask(ctx, v, update(feature, level)).await;
            let found = if v <= 1 { told.results[0].error_code } else { told.error_code };
            assert_eq!(found, code, "{feature} {level}");
        }
    });
    each_version!(seen, UnregisterBroker, |v| {
        let told = ask(ctx, v, UnregisterBrokerRequest::default().with_broker_id(9.into())).await;
        assert_eq!(told.error_code, KafkaError::BrokerIdNotRegistered.code());
    });
    each_version!(seen, DescribeTopicPartitions, |v| {
        use describe_topic_partitions_request::{Cursor, TopicRequest};
        let asked = |names: &[&str]| names.iter().map(|n| TopicRequest::default().with_name(name(n))).collect();
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(asked(&["t6", "t7", "none"]))
            .with_response_partition_limit(1);
        let page = ask(ctx, v, request.clone().with_cursor(None)).await;
        assert_eq!(page.topics[0].error_code, KafkaError::UnknownTopicOrPartition.code());
        assert_eq!((page.topics[1].partitions.len(), page.topics.len()), (1, 2));
        let next = page.next_cursor.unwrap();
        assert_eq!((next.topic_name.as_str(), next.partition_index), ("t6", 1));
        let cursor = Cursor::default().with_topic_name(next.topic_name).with_partition_index(next.partition_index);
        let rest = ask(ctx, v, request.with_response_partition_limit(2000).with_cursor(Some(cursor))).await;
        assert_eq!(rest.topics[0].partitions[0].partition_index, 1);
        assert!(rest.next_cursor.is_none());
    });
    each_version!(seen, DescribeProducers, |v| {
        use describe_producers_request::TopicRequest;
        let topic = TopicRequest::default().with_name(name("t7")).with_partition_indexes(vec![0, 99]);
        let found = ask(ctx, v, DescribeProducersRequest::default().with_topics(vec![topic])).await.topics.remove(0);
        let errors: Vec<i16> = found.partitions.iter().map(|p| p.error_code).collect();
        assert_eq!(errors, [0, KafkaError::UnknownTopicOrPartition.code()]);
    });
    each_version!(seen, ElectLeaders, |v| {
        use elect_leaders_request::TopicPartitions;
        let topic = TopicPartitions::default().with_topic(name("t7")).with_partitions(vec![0, 99]);
        let found = ask(ctx, v, ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic]))).await;
        let found = &found.replica_election_results[0].partition_result;
        let errors: Vec<i16> = found.iter().map(|p| p.error_code).collect();
        assert_eq!(errors, [KafkaError::ElectionNotNeeded.code(), KafkaError::UnknownTopicOrPartition.code()]);
    });
    each_version!(seen, AlterPartitionReassignments, |v| {
        use alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
        let to = |replicas: Option<Vec<i32>>| {
            ReassignablePartition::default().with_replicas(replicas.map(|ids| ids.into_iter().map(BrokerId).collect()))
        };
        let topic = ReassignableTopic::default().with_name(name("t7")).with_partitions(vec![
            to(Some(vec![1])),
            to(Some(vec![2])),
            to(None),
        ]);
        let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
        let found = ask(ctx, v, request).await.responses.remove(0).partitions;
        let errors: Vec<i16> = found.iter().map(|p| p.error_code).collect();
        let (invalid, none) = (KafkaError::InvalidReplicaAssignment, KafkaError::NoReassignmentInProgress);
        assert_eq!(errors, [0, invalid.code(), none.code()]);
    });
    each_version!(seen, ListPartitionReassignments, |v| {
        let found = ask(ctx, v, ListPartitionReassignmentsRequest::default().with_topics(None)).await;
        assert_eq!((found.error_code, found.topics.len()), (0, 0));
    });
    let disabled = KafkaError::SecurityDisabled.code();
    each_version!(seen, DescribeAcls, |v| {
        let request = DescribeAclsRequest::default().with_pattern_type_filter(3);
        assert_eq!(ask(ctx, v, request).await.error_code, disabled);
    });
    each_version!(seen, CreateAcls, |v| {
        let acl = create_acls_request::AclCreation::default().with_resource_pattern_type(3);
        let found = ask(ctx, v, CreateAclsRequest::default().with_creations(vec![acl; 2])).await.results;
        assert_eq!(found.iter().map(|r| r.error_code).collect::<Vec<_>>(), [disabled; 2]);
    });
    each_version!(seen, DeleteAcls, |v| {
        let filter = delete_acls_request::DeleteAclsFilter::default().with_pattern_type_filter(3);
        let found = ask(ctx, v, DeleteAclsRequest::default().with_filters(vec![filter; 2])).await.filter_results;
        assert_eq!(found.iter().map(|r| r.error_code).collect::<Vec<_>>(), [disabled; 2]);
    });
    each_version!(seen, FindCoordinator, |v| {
        let keys = vec![StrBytes::from_static_str("a"), StrBytes::from_static_str("b")];
        let request = match v {
            0..=3 => FindCoordinatorRequest::default().with_key(keys[0].clone()),
            _ => FindCoordinatorRequest::default().with_coordinator_keys(keys),
        };
        let found = ask(ctx, v, request).await;
        let codes: Vec<_> = found.coordinators.iter().map(|c| c.error_code).chain([found.error_code]).collect();
        assert_eq!(codes, if v < 4 { vec![0] } else { vec![0; 3] });
    });
    each_version!(seen, DeleteTopics, |v| {
        use delete_topics_request::DeleteTopicState;
        let topic = format!("t{}", v + 1);
        let mut request = DeleteTopicsRequest::default().with_timeout_ms(5000);
        if v >= 6 {
            let state = DeleteTopicState::default().with_name(Some(name(&topic)));
            let unknown = DeleteTopicState::default().with_name(None).with_topic_id(Uuid::from_u128(5));
            request.topics = vec![state, unknown];
        } else {
            request.topic_names = vec![name(&topic), name("none")];
        }
        let found = ask(ctx, v, request).await.responses;
        let unknown = if v >= 6 { KafkaError::UnknownTopicId } else { KafkaError::UnknownTopicOrPartition };
        assert_eq!(found.iter().map(|r| r.error_code).collect::<Vec<_>>(), [0, unknown.code()]);
    });
    assert_eq!(ctx.replica.state().topic_count(), 0, "the six topics are gone");
    // Of groups: `tests/groups.rs`; of transactions: `tests/transactions.rs`.
    let others = [0, 1, 2, 8, 9, 11, 12, 13, 14, 15, 16, 18, 22, 23, 24, 25, 26, 27, 28, 42, 47, 65, 66, 68, 69];
    let rest: Vec<_> =
        OFFERED.iter().filter(|o| !others.contains(&(o.key as i16)) && !seen.contains(&(o.key as i16))).collect();
    assert!(rest.is_empty(), "offered, and not asked here: {rest:?}");
}

fn setting(topic: &str, key: &str, value: &str) -> incremental_alter_configs_request::AlterConfigsResource {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = AlterableConfig::default().with_name(text(key)).with_value(Some(text(value)));
    AlterConfigsResource::default().with_resource_type(2).with_resource_name(text(topic)).with_configs(vec![config])
}

#[tokio::test(start_paused = true)]
async fn changes_of_settings_that_race_are_all_made() {
    let ctx = &*broker("").await;
    create(ctx, "t", 1).await.unwrap();
    let keys = ["retention.ms", "retention.bytes", "segment.ms", "max.message.bytes"];
    let change = |key| {
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![setting("t", key, "77")]);
        ask(ctx, 1, request)
    };
    let answers = futures::future::join_all(keys.map(change)).await;
    assert!(answers.iter().all(|answer| answer.responses[0].error_code == 0), "{answers:?}");
    let state = ctx.replica.state();
    assert_eq!(state.topic_by_name("t").unwrap().configs.len(), keys.len());
}

#[tokio::test(start_paused = true)]
async fn limits_are_told_with_kafkas_errors() {
    let limits = "limits:\n  topics_max: 3\n  partitions_max: 12\n  partitions_per_topic_max: 8\n  partitions_per_request_max: 9\n";
    let ctx = &*broker(limits).await;
    let (policy, partitions) = (KafkaError::PolicyViolation.code(), KafkaError::InvalidPartitions.code());
    assert_eq!(create(ctx, "a", 10).await, Err(policy), "more than one request may make");
    assert_eq!(create(ctx, "a", 9).await, Err(partitions), "more than a topic may have");
    assert!(create(ctx, "a", 8).await.is_ok());
    assert_eq!(create(ctx, "b", 5).await, Err(policy), "more than the cluster may have");
    let dry = ask(ctx, 7, creation("b", 5, &[]).with_validate_only(true)).await;
    assert_eq!(dry.topics[0].error_code, policy, "validate_only tells the same");
    assert!(create(ctx, "b", 1).await.is_ok());
    assert!(create(ctx, "c", 1).await.is_ok());
    assert_eq!(create(ctx, "d", 1).await, Err(policy), "more topics than the cluster may have");
    let long = "x".repeat(ctx.config.limits.config_value_bytes_max + 1);
    let made = ask(ctx, 7, creation("d", 1, &[("compression.type", &long)])).await;
    assert_eq!(made.topics[0].error_code, KafkaError::InvalidConfig.code());
}

#[tokio::test(start_paused = true)]
async fn many_topics_are_made_by_one_append() {
    let ctx = &*broker("limits:\n  partitions_per_request_max: 100\n").await;
    let topic = |n| metadata_request::MetadataRequestTopic::default().with_name(Some(name(&format!("t{n}"))));
    let ask_for = |names: Vec<_>| ask(ctx, 12, MetadataRequest::default().with_topics(Some(names)));
    let before = ctx.metrics.journal.appends.get();
    let mut names: Vec<_> = (0..120).map(topic).collect();
    names.push(metadata_request::MetadataRequestTopic::default().with_name(Some(name("not/good"))));
    let found = ask_for(names.clone()).await.topics;
    let errors: Vec<i16> = found.iter().map(|topic| topic.error_code).collect();
    let (unknown, bad) = (KafkaError::UnknownTopicOrPartition.code(), KafkaError::InvalidTopicException.code());
    assert_eq!(errors, [vec![0; 100], vec![unknown; 20], vec![bad]].concat(), "as many as one request may make");
    assert_eq!(ctx.metrics.journal.appends.get() - before, 1);
    names.pop();
    assert!(ask_for(names).await.topics.iter().all(|topic| topic.error_code == 0), "the rest when asked again");
}

#[tokio::test(start_paused = true)]
async fn deletion_can_be_off() {
    let ctx = &*broker("kafka:\n  delete.topic.enable: false\n").await;
    create(ctx, "t", 1).await.unwrap();
    let request = || DeleteTopicsRequest::default().with_topic_names(vec![name("t")]);
    assert_eq!(ask(ctx, 5, request()).await.responses[0].error_code, KafkaError::TopicDeletionDisabled.code());
    assert_eq!(ask(ctx, 1, request()).await.responses[0].error_code, KafkaError::InvalidRequest.code());
    assert_eq!(ctx.replica.state().topic_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_small_request_gets_no_large_answer() {
    let ctx = &*broker("").await;
    create(ctx, "t", 1).await.unwrap();
    let resource = describe_configs_request::DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("t"));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource; 1000]);
    assert_eq!(ask(ctx, 4, request).await.results.len(), 1);
    let topic = metadata_request::MetadataRequestTopic::default().with_name(Some(name("t")));
    let request = MetadataRequest::default().with_topics(Some(vec![topic; 1000]));
    assert_eq!(ask(ctx, 12, request).await.topics.len(), 1);
    let topic =
        describe_producers_request::TopicRequest::default().with_name(name("t")).with_partition_indexes(vec![0; 1000]);
    let found = ask(ctx, 0, DescribeProducersRequest::default().with_topics(vec![topic; 3])).await.topics;
    assert_eq!(found.iter().map(|topic| topic.partitions.len()).sum::<usize>(), 1);
}
