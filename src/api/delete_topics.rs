//! DeleteTopics (20), by name and by id. Rules and messages: Kafka's `ControllerApis.deleteTopics`.
use bytes::Bytes;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{ApiKey, DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::propose::{code_and_message, deadline, propose_all, refusal, state};
use super::table::Offered;
use super::{Call, Context};
use crate::state::{DeleteTopic, Refusal, State, Topic};
use crate::types::{KafkaError, TopicId, Uuid};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::DeleteTopics, 1, 6);

/// One topic as the client named it: by name or by id, and in a bad request by both or neither.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    name: Option<StrBytes>,
    id: Uuid,
}

pub(super) async fn handle(ctx: &Context, call: &Call, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let deadline = deadline(ctx, request.timeout_ms);
    let version = call.header.version;
    let by_name = request.topic_names.iter().map(|name| Named { name: Some(name.0.clone()), id: Uuid::nil() });
    let by_either = request.topics.iter().map(|t| Named { name: t.name.as_ref().map(|n| n.0.clone()), id: t.topic_id });
    let asked: Vec<Named> = by_name.chain(by_either).collect();
    let mut results = match allowed(ctx, version) {
        Ok(()) => match state(ctx, deadline).await {
            Ok(state) => resolve(&state, asked),
            Err(error) => asked.into_iter().map(|named| (named, Err(error.clone()))).collect(),
        },
        Err(error) => asked.into_iter().map(|named| (named, Err(error.clone()))).collect(),
    };
    let command = |id: &TopicId| DeleteTopic { topic_id: Bytes::copy_from_slice(id.0.as_bytes()) }.into();
    let commands = results.iter().filter_map(|(_, found)| found.as_ref().ok().map(command)).collect();
    let mut outcomes = propose_all(ctx, deadline, commands).await.into_iter();
    for (_, found) in results.iter_mut().filter(|(_, found)| found.is_ok()) {
        if let Some(Err(error)) = outcomes.next() {
            *found = Err(error);
        }
    }
    let responses = results.into_iter().map(|(named, result)| respond(version, named, &result));
    DeleteTopicsResponse::default().with_responses(responses.collect())
}

fn allowed(ctx: &Context, version: i16) -> Result<(), Refusal> {
    if ctx.config.kafka.delete_topic_enable {
        return Ok(());
    }
    // Clients of the time before version 3 don't know the error.
    let error = if version < 3 { KafkaError::InvalidRequest } else { KafkaError::TopicDeletionDisabled };
    Err(refusal(error, "Topic deletion is disabled."))
}

/// What each topic that was asked for is, or why it can't be deleted. One that is named twice is not deleted at all.
fn resolve(state: &State, asked: Vec<Named>) -> Vec<(Named, Result<TopicId, Refusal>)> {
    let (mut names, mut ids) = (Tally::default(), Tally::default());
    for named in &asked {
        match (&named.name, named.id.is_nil()) {
            (Some(name), true) => names.add(name.clone()),
            (None, false) => ids.add(named.id),
            _ => {}
        }
    }
    let mut results = Vec::with_capacity(asked.len());
    let mut answered = BTreeSet::new();
    for named in asked {
        match (&named.name, named.id.is_nil()) {
            (None, true) => results.push((named, Err(invalid("Neither topic name nor id were specified.")))),
            (Some(_), false) => {
                results.push((named, Err(invalid("You may not specify both topic name and topic id."))));
            }
            _ if !answered.insert(named.clone()) => {}
            (Some(name), true) => {
                let known = state.topic_by_name(name);
                let found = by_name(known, name, &names, &ids);
                let id = known.filter(|_| !names.twice.contains(name)).map_or(named.id, |topic| topic.id.0);
                results.push((Named { id, ..named }, found));
            }
            (None, false) => {
                let known = state.topic(TopicId(named.id));
                let name = known.map(|topic| StrBytes::from_string(topic.name.to_string()));
                if name.as_ref().is_some_and(|name| names.once.contains(name)) && !ids.twice.contains(&named.id) {
                    // It is answered where it is named.
                    continue;
                }
                let found = by_id(known, named.id, &ids);
                let name = name.filter(|_| found.is_ok());
                results.push((Named { name, ..named }, found));
            }
        }
    }
    results
}

fn by_name(
    known: Option<&Arc<Topic>>,
    name: &StrBytes,
    names: &Tally<StrBytes>,
    ids: &Tally<Uuid>,
) -> Result<TopicId, Refusal> {
    if names.twice.contains(name) {
        return Err(invalid("Duplicate topic name."));
    }
    let Some(topic) = known else {
        let message = "This server does not host this topic-partition.";
        return Err(refusal(KafkaError::UnknownTopicOrPartition, message));
    };
    if ids.once.contains(&topic.id.0) {
        return Err(invalid("The provided topic name maps to an ID that was already supplied."));
    }
    Ok(topic.id)
}

fn by_id(known: Option<&Arc<Topic>>, id: Uuid, ids: &Tally<Uuid>) -> Result<TopicId, Refusal> {
    if ids.twice.contains(&id) {
        return Err(invalid("Duplicate topic id."));
    }
    match known {
        Some(topic) => Ok(topic.id),
        None => Err(refusal(KafkaError::UnknownTopicId, "This server does not host this topic ID.")),
    }
}

/// What a request names, and what it names more than once.
#[derive(Default)]
struct Tally<T> {
    once: BTreeSet<T>,
    twice: BTreeSet<T>,
}

impl<T: Ord + Clone> Tally<T> {
    fn add(&mut self, item: T) {
        if !self.once.insert(item.clone()) {
            self.twice.insert(item);
        }
    }
}

fn invalid(message: &str) -> Refusal {
    refusal(KafkaError::InvalidRequest, message)
}

fn respond(version: i16, named: Named, result: &Result<TopicId, Refusal>) -> DeletableTopicResult {
    let (code, message) = code_and_message(result);
    let mut response = DeletableTopicResult::default().with_name(named.name.map(TopicName)).with_error_code(code);
    if version >= 5 {
        response.error_message = message;
    }
    if version >= 6 {
        response.topic_id = named.id;
    }
    response
}
