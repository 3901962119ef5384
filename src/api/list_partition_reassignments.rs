//! ListPartitionReassignments (46): none, since partitions have no replicas that could move.
use kafka_protocol::messages::{ApiKey, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use super::table::Offered;
use super::{Call, Context};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::ListPartitionReassignments, 0, 0);

pub(super) async fn handle(
    _: &Context,
    _: &Call,
    _: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default().with_error_message(None)
}
