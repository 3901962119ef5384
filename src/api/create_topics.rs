//! CreateTopics (19): any replication factor is accepted, and manual assignments only count partitions, of brokers that
//! need not exist, since the bucket replicates. Auto-creation for Metadata is here too. Rules and messages: Kafka's
//! `ReplicationControlManager`.
use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{ApiKey, CreateTopicsRequest, CreateTopicsResponse, TopicName};
use std::collections::{BTreeMap, BTreeSet};

use super::propose::{deadline, default_deadline, propose_all, refusal, state, text};
use super::resolve::check_topic_name;
use super::table::Offered;
use super::{Call, Context};
use crate::config::describe::Describer;
use crate::config::topic::{Overrides, validate_all};
use crate::group::create_offsets_topic;
use crate::state::{ConfigChange, CreateTopic, OFFSETS_TOPIC, Outcome, Refusal, State};
use crate::types::{KafkaError, Uuid};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::CreateTopics, 2, 7);

/// Kafka's own log of metadata, which nobody may create.
const CLUSTER_METADATA: &str = "__cluster_metadata";

pub(super) async fn handle(ctx: &Context, call: &Call, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let deadline = deadline(ctx, request.timeout_ms);
    let mut seen = BTreeMap::<&str, u32>::new();
    request.topics.iter().for_each(|topic| *seen.entry(topic.name.as_str()).or_default() += 1);
    let mut planned: Vec<(TopicName, Result<CreateTopic, Refusal>)> = Vec::with_capacity(seen.len());
    match state(ctx, deadline).await.and_then(|state| check_size(ctx, &request.topics).map(|()| state)) {
        Ok(state) => {
            for topic in &request.topics {
                match seen.insert(topic.name.as_str(), 0) {
                    Some(1) => planned.push((topic.name.clone(), plan(ctx, &state, topic))),
                    Some(2..) => planned.push((topic.name.clone(), Err(duplicate()))),
                    _ => {}
                }
            }
            if !request.validate_only {
                create(ctx, deadline, &mut planned).await;
            }
        }
        Err(error) => {
            let all = request.topics.iter().filter(|topic| seen.remove(topic.name.as_str()).is_some());
            planned.extend(all.map(|topic| (topic.name.clone(), Err(error.clone()))));
        }
    }
    let describer = Describer::new(&ctx.config);
    let respond = |(name, result)| respond(&describer, call.header.version, name, result);
    CreateTopicsResponse::default().with_topics(planned.into_iter().map(respond).collect())
}

fn duplicate() -> Refusal {
    refusal(KafkaError::InvalidRequest, "Duplicate topic name.")
}

/// Kafka bounds the work of one request, and refuses all of it.
fn check_size(ctx: &Context, topics: &[CreatableTopic]) -> Result<(), Refusal> {
    let count = |topic: &CreatableTopic| match (topic.assignments.len(), topic.num_partitions) {
        (0, -1) => usize::try_from(ctx.config.kafka.num_partitions).unwrap_or(0),
        (0, asked) => usize::try_from(asked).unwrap_or(0),
        (assigned, _) => assigned,
    };
    let all = topics.iter().map(count).fold(0, usize::saturating_add);
    if all <= ctx.config.limits.partitions_per_request_max {
        return Ok(());
    }
    Err(refusal(KafkaError::PolicyViolation, "Excessively large number of partitions per request."))
}

/// The command that creates the topic, after every check that a proposer can make.
fn plan(ctx: &Context, state: &State, topic: &CreatableTopic) -> Result<CreateTopic, Refusal> {
    let name = topic.name.as_str();
    if name == CLUSTER_METADATA {
        let message = format!("Creation of internal topic {CLUSTER_METADATA} is prohibited.");
        return Err(refusal(KafkaError::InvalidRequest, message));
    }
    check_topic_name(name).map_err(|why| refusal(KafkaError::InvalidTopicException, why))?;
    state.check_topic_name(name)?;
    let overrides = overrides(ctx, topic)?;
    let (partitions, replication_factor) = size(ctx, topic)?;
    let configs = overrides.into_iter().map(|(name, value)| ConfigChange { name, value: Some(value) }).collect();
    let command =
        CreateTopic { name: name.to_owned(), id: fresh_topic_id(ctx), partitions, replication_factor, configs };
    state.check_create_topic(&command)?;
    Ok(command)
}

fn overrides(ctx: &Context, topic: &CreatableTopic) -> Result<Overrides, Refusal> {
    let invalid = |why: String| refusal(KafkaError::InvalidConfig, why);
    let nulls: Vec<&str> = topic.configs.iter().filter(|c| c.value.is_none()).map(|c| c.name.as_str()).collect();
    if !nulls.is_empty() {
        return Err(invalid(format!("Null value not supported for topic configs: {}", nulls.join(","))));
    }
    let given = topic.configs.iter().filter_map(|c| Some((c.name.to_string(), c.value.as_ref()?.to_string())));
    let overrides: Overrides = given.collect();
    validate_all(&overrides, &ctx.config).map_err(invalid)?;
    Ok(overrides)
}

/// Partitions and replication factor that the request asks for.
fn size(ctx: &Context, topic: &CreatableTopic) -> Result<(u32, u32), Refusal> {
    if !topic.assignments.is_empty() {
        return assigned(topic);
    }
    let chosen = |asked: i32, default: i32| u32::try_from(if asked == -1 { default } else { asked }).unwrap_or(0);
    let replicas = chosen(topic.replication_factor.into(), ctx.config.kafka.default_replication_factor);
    let partitions = chosen(topic.num_partitions, ctx.config.kafka.num_partitions);
    if replicas == 0 {
        let message = "Replication factor must be larger than 0, or -1 to use the default value.";
        return Err(refusal(KafkaError::InvalidReplicationFactor, message));
    }
    if partitions == 0 {
        let message = "Number of partitions was set to an invalid non-positive value.";
        return Err(refusal(KafkaError::InvalidPartitions, message));
    }
    Ok((partitions, replicas))
}

fn assigned(topic: &CreatableTopic) -> Result<(u32, u32), Refusal> {
    let invalid = |why: String| Err(refusal(KafkaError::InvalidReplicaAssignment, why));
    for (what, is_set) in
        [("replication factor", topic.replication_factor != -1), ("numPartitions", topic.num_partitions != -1)]
    {
        if is_set {
            let message = format!("A manual partition assignment was specified, but {what} was not set to -1.");
            return Err(refusal(KafkaError::InvalidRequest, message));
        }
    }
    let mut indexes = BTreeSet::new();
    let mut replicas = None;
    for CreatableReplicaAssignment { partition_index, broker_ids, .. } in &topic.assignments {
        if !indexes.insert(*partition_index) {
            return invalid(format!("Found multiple manual partition assignments for partition {partition_index}"));
        }
        let brokers: Vec<i32> = broker_ids.iter().map(|id| id.0).collect();
        replicas = Some(check_assignment(&brokers, replicas)?);
    }
    if !indexes.iter().copied().eq(0..i32::try_from(indexes.len()).unwrap_or(i32::MAX)) {
        return invalid("partitions should be a consecutive 0-based integer sequence".to_owned());
    }
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Ok((count(indexes.len()), count(replicas.unwrap_or(1))))
}

/// Kafka's rules for the replicas of one partition, `expected` of them if partitions before it have so many.
pub(super) fn check_assignment(brokers: &[i32], expected: Option<usize>) -> Result<usize, Refusal> {
    let invalid = |why: String| Err(refusal(KafkaError::InvalidReplicaAssignment, why));
    if brokers.is_empty() {
        return invalid("The manual partition assignment includes an empty replica list.".to_owned());
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = brokers.iter().find(|broker| !seen.insert(**broker)) {
        return invalid(format!("The manual partition assignment includes the broker {twice} more than once."));
    }
    match expected {
        Some(expected) if expected != brokers.len() => invalid(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is not consistent with \
             previous partitions, which have {expected} replica(s).",
            brokers.len()
        )),
        _ => Ok(brokers.len()),
    }
}

/// Creates what was planned; a plan that State refuses after all becomes its error.
async fn create(
    ctx: &Context,
    deadline: crate::world::Instant,
    planned: &mut [(TopicName, Result<CreateTopic, Refusal>)],
) {
    let commands = planned.iter().filter_map(|(_, plan)| plan.as_ref().ok().cloned().map(Into::into)).collect();
    let mut outcomes = propose_all(ctx, deadline, commands).await.into_iter();
    for (_, plan) in planned.iter_mut().filter(|(_, plan)| plan.is_ok()) {
        if let Some(Err(error)) = outcomes.next() {
            *plan = Err(error);
        }
    }
}

fn respond(
    describer: &Describer<'_>,
    version: i16,
    name: TopicName,
    result: Result<CreateTopic, Refusal>,
) -> CreatableTopicResult {
    let response = CreatableTopicResult::default().with_name(name);
    let command = match result {
        Ok(command) => command,
        Err(refused) => {
            return response.with_error_code(refused.error.code()).with_error_message(Some(text(refused.message)));
        }
    };
    let response = response.with_error_message(None);
    if version < 5 {
        return response;
    }
    let set = command.configs.iter().filter_map(|c| Some((c.name.clone(), c.value.clone()?)));
    let configs = describer.topic(&set.collect()).into_iter().map(|described| {
        CreatableTopicConfigs::default()
            .with_name(text(described.name))
            .with_value(described.value.filter(|_| !described.sensitive).map(text))
            .with_read_only(described.read_only)
            .with_config_source(described.source as i8)
            .with_is_sensitive(described.sensitive)
    });
    let response = response
        .with_num_partitions(i32::try_from(command.partitions).unwrap_or(i32::MAX))
        .with_replication_factor(i16::try_from(command.replication_factor).unwrap_or(i16::MAX))
        .with_configs(Some(configs.collect()));
    if version < 7 { response } else { response.with_topic_id(Uuid::from_slice(&command.id).unwrap_or_default()) }
}

/// Creates topics that a client asked metadata for, with the broker's defaults, in one append where there is room; gives
/// those that were refused. What is beyond the partitions that one request may make stays unknown, until it is asked for
/// again.
pub(super) async fn auto_create<'a>(ctx: &Context, names: &[&'a str]) -> BTreeMap<&'a str, KafkaError> {
    let partitions = usize::try_from(ctx.config.kafka.num_partitions).unwrap_or(1).max(1);
    let names = &names[..names.len().min(ctx.config.limits.partitions_per_request_max / partitions)];
    let command = |name: &&str| match *name {
        OFFSETS_TOPIC => create_offsets_topic(&ctx.world, &ctx.config.kafka),
        name => CreateTopic {
            name: name.to_owned(),
            id: fresh_topic_id(ctx),
            partitions: u32::try_from(partitions).unwrap_or(u32::MAX),
            replication_factor: u32::try_from(ctx.config.kafka.default_replication_factor).unwrap_or(1),
            configs: Vec::new(),
        },
    };
    let commands = names.iter().map(|name| command(name).into()).collect();
    let outcomes = propose_all(ctx, default_deadline(ctx), commands).await;
    let refused = |(name, outcome): (&&'a str, Result<Outcome, Refusal>)| match outcome.err()?.error {
        // Another request was faster.
        KafkaError::TopicAlreadyExists => None,
        KafkaError::NotController | KafkaError::RequestTimedOut => Some((*name, KafkaError::LeaderNotAvailable)),
        error => Some((*name, error)),
    };
    names.iter().zip(outcomes).filter_map(refused).collect()
}

/// 16 random bytes in the form of a version 4 UUID, never nil.
pub(super) fn fresh_topic_id(ctx: &Context) -> Bytes {
    let mut bytes = [0; 16];
    ctx.world.fill(&mut bytes);
    let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
    Bytes::copy_from_slice(id.as_bytes())
}
