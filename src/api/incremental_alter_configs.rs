//! IncrementalAlterConfigs (44): sets, deletes, appends to and subtracts from settings of topics and groups. Rules and messages:
//! Kafka's `ConfigAdminManager` and `ConfigurationControlManager`.
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{ApiKey, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::alter_configs::{Times, Wanted, alter, check_keys};
use super::describe_configs::GROUP;
use super::propose::{code_and_message, refusal};
use super::table::Offered;
use super::{Call, Context};
use crate::config::group;
use crate::config::topic::{Change, Op, Overrides, changed};
use crate::state::Refusal;
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::IncrementalAlterConfigs, 0, 1);

pub(super) async fn handle(
    ctx: &Context,
    _: &Call,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut times = Times::default();
    request.resources.iter().for_each(|r| times.add(r.resource_type, &r.resource_name));
    let wanted = request.resources.iter().map(|resource| {
        let (kind, name) = (resource.resource_type, resource.resource_name.as_str());
        times.check(kind, name)?;
        let changes = changes(resource)?;
        let is_set = |config: &&AlterableConfig| Op::from_kafka(config.config_operation) != Some(Op::Delete);
        let set = resource.configs.iter().filter(is_set).map(|config| config.name.as_str()).collect();
        let change = if kind == GROUP { group::changed } else { changed };
        let new = move |current: &Overrides| change(current, &changes, &ctx.config);
        Ok(Wanted { kind, name, changed: set, new: Box::new(new) })
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
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

fn changes(resource: &AlterConfigsResource) -> Result<Vec<Change>, Refusal> {
    let keys: Vec<&str> = resource.configs.iter().map(|config| config.name.as_str()).collect();
    let mut changes = Vec::with_capacity(keys.len());
    let mut nulls = Vec::new();
    for config in &resource.configs {
        let Some(op) = Op::from_kafka(config.config_operation) else {
            let message = format!("Unknown operations type {}", config.config_operation);
            return Err(refusal(KafkaError::InvalidRequest, message));
        };
        if config.value.is_none() && op != Op::Delete {
            nulls.push(config.name.as_str());
        }
        let value = config.value.as_ref().map_or_else(String::new, ToString::to_string);
        changes.push(Change { name: config.name.to_string(), op, value });
    }
    check_keys(&keys, nulls.into_iter())?;
    Ok(changes)
}
