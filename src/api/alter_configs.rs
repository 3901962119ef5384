//! AlterConfigs (33): replaces the settings of topics. What it shares with IncrementalAlterConfigs is here too. A
//! broker's settings stand in its configuration file, so they are refused with a word on where to set them. Rules and
//! messages: Kafka's `ConfigAdminManager`.
use bytes::Bytes;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse, ApiKey};
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, BTreeSet};

use super::describe_configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use super::propose::{code_and_message, default_deadline, propose, refusal, state};
use super::resolve::check_topic_name;
use super::table::Offered;
use super::{Call, Context};
use crate::config::topic::{Overrides, validate_all};
use crate::state::{AlterTopicConfigs, ConfigChange, Refusal};
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::AlterConfigs, 0, 2);

/// Times that a change is worked out again because another one came between.
const ATTEMPTS_MAX: usize = 5;

pub(super) async fn handle(ctx: &Context, _: &Call, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut times = Times::default();
    request.resources.iter().for_each(|r| times.add(r.resource_type, &r.resource_name));
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let (kind, name) = (resource.resource_type, &resource.resource_name);
        let given: Vec<(&StrBytes, Option<&StrBytes>)> =
            resource.configs.iter().map(|c| (&c.name, c.value.as_ref())).collect();
        let keys: Vec<&str> = given.iter().map(|(name, _)| name.as_str()).collect();
        let wanted: Overrides =
            given.iter().filter_map(|(name, value)| Some((name.to_string(), value.as_ref()?.to_string()))).collect();
        let nulls = given.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name.as_str());
        let result = match times.check(kind, name).and_then(|()| check_keys(&keys, nulls)) {
            Ok(()) => {
                alter(ctx, (kind, name), &keys, request.validate_only, |_| {
                    validate_all(&wanted, &ctx.config).map(|()| wanted.clone())
                })
                .await
            }
            Err(error) => Err(error),
        };
        let (code, message) = code_and_message(&result);
        responses.push(
            AlterConfigsResourceResponse::default()
                .with_error_code(code)
                .with_error_message(message)
                .with_resource_type(kind)
                .with_resource_name(name.clone()),
        );
    }
    AlterConfigsResponse::default().with_responses(responses)
}

/// How often a request names each resource: more than once is an error.
#[derive(Default)]
pub(super) struct Times(BTreeMap<(i8, String), u32>);

impl Times {
    pub(super) fn add(&mut self, kind: i8, name: &str) {
        *self.0.entry((kind, name.to_owned())).or_default() += 1;
    }

    pub(super) fn check(&self, kind: i8, name: &str) -> Result<(), Refusal> {
        match self.0.get(&(kind, name.to_owned())) {
            Some(2..) => Err(invalid("Each resource must appear at most once.")),
            _ => Ok(()),
        }
    }
}

/// No key twice, and a value where one is needed.
pub(super) fn check_keys<'a>(keys: &[&str], nulls: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    if !keys.iter().all(|key| seen.insert(*key)) {
        return Err(invalid("Error due to duplicate config keys"));
    }
    let nulls: Vec<&str> = nulls.collect();
    if nulls.is_empty() { Ok(()) } else { Err(invalid(format!("Null value not supported for : {}", nulls.join(", ")))) }
}

/// Alters one resource. `wanted` gives what a topic is to have from what it has, or why that is wrong; `changed` are
/// the keys that would get another value.
pub(super) async fn alter(
    ctx: &Context,
    (kind, name): (i8, &str),
    changed: &[&str],
    validate_only: bool,
    wanted: impl Fn(&Overrides) -> Result<Overrides, String>,
) -> Result<(), Refusal> {
    match kind {
        TOPIC if name.is_empty() => Err(invalid("Default topic resources are not allowed.")),
        TOPIC => {
            check_topic_name(name).map_err(|why| refusal(KafkaError::InvalidTopicException, why))?;
            alter_topic(ctx, name, validate_only, wanted).await
        }
        BROKER => check_broker(ctx, name, changed),
        BROKER_LOGGER => Err(invalid("Log levels stand in the configuration file, as `log.level`.")),
        CLIENT_METRICS => Err(invalid("Client metrics are not collected.")),
        GROUP => Err(invalid("Groups have no settings of their own.")),
        other => Err(invalid(format!("Unknown resource type {other}"))),
    }
}

async fn alter_topic(
    ctx: &Context,
    name: &str,
    validate_only: bool,
    wanted: impl Fn(&Overrides) -> Result<Overrides, String>,
) -> Result<(), Refusal> {
    let deadline = default_deadline(ctx);
    for _ in 0..ATTEMPTS_MAX {
        let state = state(ctx, deadline).await?;
        let topic = state.topic_by_name(name);
        let nothing = Overrides::new();
        let current = topic.map_or(&nothing, |topic| &topic.configs);
        // As in Kafka, bad settings are told before a topic that is not there.
        let wanted = wanted(current).map_err(|why| refusal(KafkaError::InvalidConfig, why))?;
        let Some(topic) = topic else {
            return Err(refusal(KafkaError::UnknownTopicOrPartition, format!("The topic '{name}' does not exist.")));
        };
        let changes = difference(current, &wanted);
        if validate_only || changes.is_empty() {
            return Ok(());
        }
        let command = AlterTopicConfigs {
            topic_id: Bytes::copy_from_slice(topic.id.0.as_bytes()),
            changes,
            from_version: topic.config_version,
        };
        match propose(ctx, deadline, command).await {
            Err(refused) if refused.error == KafkaError::ConcurrentTransactions => {}
            outcome => return outcome.map(drop),
        }
    }
    // It did not happen, and a client that tries again is in the right.
    Err(refusal(KafkaError::NotController, "Others keep changing the topic's configuration."))
}

fn difference(current: &Overrides, wanted: &Overrides) -> Vec<ConfigChange> {
    let gone = current.keys().filter(|name| !wanted.contains_key(*name));
    let gone = gone.map(|name| ConfigChange { name: name.clone(), value: None });
    let set = wanted.iter().filter(|(name, value)| current.get(*name) != Some(*value));
    gone.chain(set.map(|(name, value)| ConfigChange { name: name.clone(), value: Some(value.clone()) })).collect()
}

/// Brokers have no dynamic settings: to take one away changes nothing, to set one is refused.
fn check_broker(ctx: &Context, name: &str, changed: &[&str]) -> Result<(), Refusal> {
    let me = ctx.config.broker_id;
    match name.parse::<i32>() {
        _ if name.is_empty() => {}
        Ok(id) if id == me => {}
        Ok(_) => return Err(invalid(format!("Unexpected broker id, expected {me}, but received {name}"))),
        Err(_) => return Err(invalid(format!("Node id must be an integer, but it is: {name}"))),
    }
    let Some(key) = changed.first() else { return Ok(()) };
    let setting = crate::config::settings().find(|setting| setting.section == "kafka" && setting.key == *key);
    let place = match setting {
        Some(setting) => format!("as {key} under `kafka:`, or in the environment as {}", setting.variable()),
        None => "where `strandline config default` shows what there is".to_owned(),
    };
    Err(invalid(format!(
        "Cannot update these configs dynamically: [{}]. Brokers read their settings from the configuration file at \
         start: set it there, {place}.",
        changed.join(", ")
    )))
}

fn invalid(message: impl Into<String>) -> Refusal {
    refusal(KafkaError::InvalidRequest, message)
}
