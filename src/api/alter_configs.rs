//! AlterConfigs (33): replaces the settings of topics and groups. What it shares with IncrementalAlterConfigs is here too. A
//! broker's settings stand in its configuration file, so they are refused with a word on where to set them. Rules and
//! messages: Kafka's `ConfigAdminManager`.
use bytes::Bytes;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse, ApiKey};
use std::collections::{BTreeMap, BTreeSet};

use super::describe_configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use super::groups::check_group_length;
use super::propose::{code_and_message, default_deadline, propose_all, refusal, state};
use super::resolve::check_topic_name;
use super::table::Offered;
use super::{Call, Context};
use crate::config::group;
use crate::config::topic::{Overrides, validate_all};
use crate::state::{AlterGroupConfigs, AlterTopicConfigs, Command, ConfigChange, Refusal, State};
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::AlterConfigs, 0, 2);

/// Times that a change is worked out again because another one came between.
const ATTEMPTS_MAX: usize = 5;

pub(super) async fn handle(ctx: &Context, _: &Call, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut times = Times::default();
    request.resources.iter().for_each(|r| times.add(r.resource_type, &r.resource_name));
    let wanted = request.resources.iter().map(|resource| {
        let (kind, name) = (resource.resource_type, resource.resource_name.as_str());
        let keys: Vec<&str> = resource.configs.iter().map(|config| config.name.as_str()).collect();
        let nulls = resource.configs.iter().filter(|config| config.value.is_none()).map(|config| config.name.as_str());
        times.check(kind, name).and_then(|()| check_keys(&keys, nulls))?;
        let given = resource.configs.iter();
        let given = given.filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?.to_string())));
        let given: Overrides = given.collect();
        let validate = if kind == GROUP { group::validate_all } else { validate_all };
        let new = move |_: &Overrides| validate(&given, &ctx.config).map(|()| given.clone());
        Ok(Wanted { kind, name, changed: keys, new: Box::new(new) })
    });
    let results = alter(ctx, request.validate_only, wanted.collect()).await;
    let responses = request.resources.iter().zip(&results).map(|(resource, result)| {
        let (code, message) = code_and_message(result);
        AlterConfigsResourceResponse::default()
            .with_error_code(code)
            .with_error_message(message)
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}

/// What a topic or group is to have, from what it has, or why that is wrong.
pub(super) type NewSettings<'a> = Box<dyn Fn(&Overrides) -> Result<Overrides, String> + Send + Sync + 'a>;

/// What a client wants of one resource.
pub(super) struct Wanted<'a> {
    pub(super) kind: i8,
    pub(super) name: &'a str,
    /// The keys that would get another value.
    pub(super) changed: Vec<&'a str>,
    pub(super) new: NewSettings<'a>,
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

/// Makes the changes, all together, and says of each how it went. What a change in between has overtaken is worked out
/// again from the new settings.
pub(super) async fn alter(
    ctx: &Context,
    validate_only: bool,
    wanted: Vec<Result<Wanted<'_>, Refusal>>,
) -> Vec<Result<(), Refusal>> {
    let deadline = default_deadline(ctx);
    // It did not happen, and a client that tries again is in the right.
    let overtaken = || refusal(KafkaError::NotController, "Others keep changing the configuration.");
    let mut results: Vec<Result<(), Refusal>> =
        wanted.iter().map(|wanted| wanted.as_ref().map_or_else(|e| Err(e.clone()), |_| Err(overtaken()))).collect();
    let mut open: Vec<(usize, Wanted<'_>)> =
        wanted.into_iter().enumerate().filter_map(|(at, wanted)| Some((at, wanted.ok()?))).collect();
    for _ in 0..ATTEMPTS_MAX {
        if open.is_empty() {
            break;
        }
        let state = state(ctx, deadline).await;
        let (mut commands, mut proposed) = (Vec::new(), Vec::new());
        for (at, wanted) in open.drain(..) {
            match state.as_ref().map_err(Clone::clone).and_then(|state| plan(ctx, state, &wanted)) {
                Ok(Some(command)) if !validate_only => {
                    commands.push(command);
                    proposed.push((at, wanted));
                }
                Ok(_) => results[at] = Ok(()),
                Err(refused) => results[at] = Err(refused),
            }
        }
        for ((at, wanted), outcome) in proposed.into_iter().zip(propose_all(ctx, deadline, commands).await) {
            match outcome {
                Err(refused) if refused.error == KafkaError::ConcurrentTransactions => open.push((at, wanted)),
                outcome => results[at] = outcome.map(drop),
            }
        }
    }
    results
}

/// The command that makes the change; none if there is nothing to change.
fn plan(ctx: &Context, state: &State, wanted: &Wanted<'_>) -> Result<Option<Command>, Refusal> {
    let name = wanted.name;
    match wanted.kind {
        TOPIC if name.is_empty() => Err(invalid("Default topic resources are not allowed.")),
        TOPIC => {
            check_topic_name(name).map_err(|why| refusal(KafkaError::InvalidTopicException, why))?;
            Ok(plan_topic(state, wanted)?.map(Command::from))
        }
        BROKER => check_broker(ctx, name, &wanted.changed).map(|()| None),
        BROKER_LOGGER => Err(invalid("Log levels stand in the configuration file, as `log.level`.")),
        CLIENT_METRICS => Err(invalid("Client metrics are not collected.")),
        GROUP if name.is_empty() => Err(invalid("Default group resources are not allowed.")),
        GROUP => plan_group(ctx, state, wanted),
        other => Err(invalid(format!("Unknown resource type {other}"))),
    }
}

fn plan_topic(state: &State, wanted: &Wanted<'_>) -> Result<Option<AlterTopicConfigs>, Refusal> {
    let nothing = Overrides::new();
    let topic = state.topic_by_name(wanted.name);
    let current = topic.map_or(&nothing, |topic| &topic.configs);
    // As in Kafka, bad settings are told before a topic that is not there.
    let new = (wanted.new)(current).map_err(|why| refusal(KafkaError::InvalidConfig, why))?;
    let Some(topic) = topic else {
        let message = format!("The topic '{}' does not exist.", wanted.name);
        return Err(refusal(KafkaError::UnknownTopicOrPartition, message));
    };
    let changes = difference(current, &new);
    let topic_id = Bytes::copy_from_slice(topic.id.0.as_bytes());
    let command = AlterTopicConfigs { topic_id, changes, from_version: topic.config_version };
    Ok(Some(command).filter(|command| !command.changes.is_empty()))
}

fn plan_group(ctx: &Context, state: &State, wanted: &Wanted<'_>) -> Result<Option<Command>, Refusal> {
    check_group_length(ctx, wanted.name).map_err(|e| refusal(e.error, "The group id is too long."))?;
    let nothing = Overrides::new();
    let current = state.group_configs(wanted.name).map_or(&nothing, |configs| configs);
    let new = (wanted.new)(current).map_err(|why| refusal(KafkaError::InvalidConfig, why))?;
    let command = AlterGroupConfigs { group: wanted.name.to_owned(), changes: difference(current, &new) };
    Ok(Some(command).filter(|command| !command.changes.is_empty()).map(Command::from))
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
