//! DescribeConfigs (32): topics, groups and this broker. Broker settings stand in its configuration file, so none of them is
//! dynamic. Loggers and client metrics have no settings here. Rules and messages: Kafka's `ConfigHelper`.
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{ApiKey, DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeSet;

use super::propose::{default_deadline, refusal, state, text};
use super::resolve::check_topic_name;
use super::table::Offered;
use super::{Call, Context};
use crate::config::describe::{Described, Describer};
use crate::config::group;
use crate::config::topic::Overrides;
use crate::state::{Refusal, State};
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::DescribeConfigs, 1, 4);

/// Kafka's numbers for what has settings (`ConfigResource.Type`).
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;

pub(super) async fn handle(ctx: &Context, call: &Call, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let state = state(ctx, default_deadline(ctx)).await;
    let describer = Describer::new(&ctx.config);
    let shape = Shape {
        synonyms: request.include_synonyms,
        documentation: request.include_documentation,
        version: call.header.version,
    };
    // A resource that is asked for many times is answered once: what a small request can make large is bounded by what
    // there is.
    let mut seen = BTreeSet::new();
    let fresh = |r: &DescribeConfigsResource| seen.insert((r.resource_type, r.resource_name.to_string()));
    let results = request.resources.into_iter().filter(fresh).map(|resource| {
        let found = state.as_ref().map_err(Clone::clone).and_then(|s| describe(ctx, s, &describer, &resource));
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name);
        match found {
            Ok(all) => {
                // No keys are all keys, as null is.
                let keys = resource.configuration_keys.filter(|keys| !keys.is_empty());
                let wanted = |described: &Described| {
                    keys.as_ref().is_none_or(|keys| keys.iter().any(|key| key.as_str() == described.name))
                };
                let configs = all.into_iter().filter(wanted).map(|described| shape.respond(described));
                result.with_error_message(Some(StrBytes::default())).with_configs(configs.collect())
            }
            Err(refused) => {
                result.with_error_code(refused.error.code()).with_error_message(Some(text(refused.message)))
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe(
    ctx: &Context,
    state: &State,
    describer: &Describer<'_>,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Described>, Refusal> {
    let name = resource.resource_name.as_str();
    let invalid = |message: String| Err(refusal(KafkaError::InvalidRequest, message));
    match resource.resource_type {
        TOPIC => {
            check_topic_name(name).map_err(|why| refusal(KafkaError::InvalidTopicException, why))?;
            match state.topic_by_name(name) {
                Some(topic) => Ok(describer.topic(&topic.configs)),
                None => Err(refusal(KafkaError::UnknownTopicOrPartition, "")),
            }
        }
        // The defaults of all brokers that were set while they run: there are none.
        BROKER if name.is_empty() => Ok(Vec::new()),
        BROKER => {
            let me = ctx.config.broker_id;
            match name.parse::<i32>() {
                Ok(id) if id == me => Ok(describer.broker()),
                Ok(_) => invalid(format!("Unexpected broker id, expected {me} or empty string, but received {name}")),
                Err(_) => invalid(format!("Broker id must be an integer, but it is: {name}")),
            }
        }
        BROKER_LOGGER => invalid("Log levels stand in the configuration file, as `log.level`.".to_owned()),
        CLIENT_METRICS => invalid("Client metrics are not collected.".to_owned()),
        GROUP if name.is_empty() => invalid("Group name must not be empty".to_owned()),
        // Settings may be made before the group is.
        GROUP => {
            let nothing = Overrides::new();
            let own = state.group_configs(name).map_or(&nothing, |configs| configs);
            Ok(group::describe(own, &ctx.config))
        }
        other => invalid(format!("Unexpected resource type {other} for resource {name}")),
    }
}

/// What the client wants to know of each setting, in a version that can carry it.
struct Shape {
    synonyms: bool,
    documentation: bool,
    version: i16,
}

impl Shape {
    fn respond(&self, described: Described) -> DescribeConfigsResourceResult {
        let Described { name, value, source, kind, read_only, sensitive, synonyms, doc } = described;
        let shown = |value: Option<String>| value.filter(|_| !sensitive).map(text);
        let synonyms = synonyms.into_iter().filter(|_| self.synonyms).map(|synonym| {
            DescribeConfigsSynonym::default()
                .with_name(text(synonym.name))
                .with_value(shown(synonym.value))
                .with_source(synonym.source as i8)
        });
        let result = DescribeConfigsResourceResult::default()
            .with_name(text(name))
            .with_value(shown(value))
            .with_read_only(read_only)
            .with_config_source(source as i8)
            .with_is_sensitive(sensitive)
            .with_synonyms(synonyms.collect());
        if self.version < 3 {
            return result;
        }
        result.with_config_type(kind.kafka_type()).with_documentation(self.documentation.then(|| text(doc)))
    }
}
