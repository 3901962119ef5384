//! ListConfigResources (74): what has settings. In version 0 it lists client metrics only, of which there are none.
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ApiKey, ListConfigResourcesRequest, ListConfigResourcesResponse};

use super::describe_configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use super::propose::{default_deadline, state, text};
use super::table::Offered;
use super::{Call, Context};
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::ListConfigResources, 0, 1);

pub(super) async fn handle(
    ctx: &Context,
    call: &Call,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let response = ListConfigResourcesResponse::default();
    let known = |kind: &i8| [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP].contains(kind);
    if call.header.version == 0 {
        return response;
    }
    if !request.resource_types.iter().all(known) {
        return response.with_error_code(KafkaError::UnsupportedVersion.code());
    }
    let state = match state(ctx, default_deadline(ctx)).await {
        Ok(state) => state,
        Err(refused) => return response.with_error_code(refused.error.code()),
    };
    let wanted = |kind: i8| request.resource_types.is_empty() || request.resource_types.contains(&kind);
    let resource =
        |kind: i8, name: &str| ConfigResource::default().with_resource_type(kind).with_resource_name(text(name));
    let mut resources = Vec::new();
    if wanted(TOPIC) {
        resources.extend(state.topics().map(|topic| resource(TOPIC, &topic.name)));
    }
    if wanted(BROKER) {
        let (members, entrance) = (ctx.members(), &call.entrance);
        let brokers = members.brokers(&entrance.listener, &entrance.advertised);
        resources.extend(brokers.map(|(id, ..)| resource(BROKER, &id.to_string())));
    }
    if wanted(GROUP) {
        resources.extend(state.configured_groups().map(|group| resource(GROUP, group)));
    }
    response.with_config_resources(resources)
}
