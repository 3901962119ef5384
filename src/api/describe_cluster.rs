//! DescribeCluster (60): the cluster's id and its brokers, as Metadata has them. There are no controllers to describe:
//! every broker is one, and names itself.
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{ApiKey, BrokerId, DescribeClusterRequest, DescribeClusterResponse};

use super::propose::text;
use super::table::Offered;
use super::{Call, Context};
use crate::state::Standing;
use crate::types::KafkaError;

pub(super) const OFFERED: Offered = Offered::new(ApiKey::DescribeCluster, 0, 2);

/// Kafka's numbers for what a client wants to be told of (`EndpointType`).
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// Everything that can be done to a cluster, as bits by Kafka's `AclOperation`: create, alter, describe, cluster action,
/// describe and alter configs, idempotent write. Without an authorizer everybody may do all of it.
pub(super) const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

pub(super) async fn handle(ctx: &Context, call: &Call, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let version = call.header.version;
    if version >= 1 && request.endpoint_type != BROKERS {
        return refuse(request.endpoint_type);
    }
    let members = ctx.members();
    let state = ctx.replica.state();
    let left = state.brokers().filter(|broker| matches!(broker.standing, Standing::Draining | Standing::Fenced));
    let left = left.filter(|_| version >= 2 && request.include_fenced_brokers).filter_map(|broker| {
        let endpoint = broker.profile.endpoint(&call.entrance.listener)?;
        let told = DescribeClusterBroker::default()
            .with_broker_id(BrokerId(broker.id.0))
            .with_host(text(endpoint.host.clone()))
            .with_port(i32::try_from(endpoint.port).unwrap_or(0))
            .with_rack(Some(text(broker.profile.zone.clone())).filter(|zone| !zone.is_empty()))
            .with_is_fenced(true);
        // A broker that is alone is listed whatever it does.
        (members.has_others() || broker.id != members.me()).then_some(told)
    });
    let brokers = members.brokers(&call.entrance.listener, &call.entrance.advertised).map(|(id, at, zone)| {
        DescribeClusterBroker::default()
            .with_broker_id(BrokerId(id.0))
            .with_host(text(at.host))
            .with_port(i32::from(at.port))
            .with_rack(zone.map(text))
    });
    let cluster_id = state.cluster_id().map_or_else(String::new, ToString::to_string);
    let response = DescribeClusterResponse::default()
        .with_cluster_id(text(cluster_id))
        .with_controller_id(BrokerId(members.me().0))
        .with_brokers(brokers.chain(left).collect())
        .with_error_message(None);
    if request.include_cluster_authorized_operations {
        response.with_cluster_authorized_operations(CLUSTER_OPERATIONS)
    } else {
        response
    }
}

fn refuse(endpoint_type: i8) -> DescribeClusterResponse {
    let (error, message) = match endpoint_type {
        CONTROLLERS => (
            KafkaError::MismatchedEndpointType,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER"
                .to_owned(),
        ),
        other => (KafkaError::UnsupportedEndpointType, format!("Unsupported endpoint type {other}")),
    };
    DescribeClusterResponse::default().with_error_code(error.code()).with_error_message(Some(text(message)))
}
