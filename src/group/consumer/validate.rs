//! What a heartbeat must look like, whatever the group is (Kafka's `throwIfConsumerGroupHeartbeatRequestIsInvalid`), and
//! what it may be large.
use super::member::EPOCH_AWAY;
use super::target::Assignor;
use crate::group::message::{ConsumerHeartbeat, GroupError};
use crate::group::router::GroupSettings;
use crate::types::KafkaError;

/// Bytes of the names that a member is subscribed to. One member's record must fit into a change.
pub(super) const SUBSCRIPTION_BYTES_MAX: usize = 512 << 10;

/// That the group was named, and that clients of version 1 named themselves, is the API's to check.
///
/// # Errors
/// `INVALID_REQUEST` and `UNSUPPORTED_ASSIGNOR`, with Kafka's words.
pub(crate) fn validate(request: &ConsumerHeartbeat, settings: &GroupSettings) -> Result<(), GroupError> {
    let invalid = |message: &str| Err(GroupError::new(KafkaError::InvalidRequest, message));
    let is_empty = |text: &Option<String>| text.as_ref().is_some_and(String::is_empty);
    if request.member_id.is_empty() && (request.member_epoch > 0 || request.member_epoch == -1) {
        return invalid("MemberId can't be empty.");
    }
    if is_empty(&request.instance_id) {
        return invalid("InstanceId can't be empty.");
    }
    if is_empty(&request.rack) {
        return invalid("RackId can't be empty.");
    }
    if request.member_epoch == 0 {
        if request.rebalance_timeout_ms == -1 {
            return invalid("RebalanceTimeoutMs must be provided in first request.");
        }
        if request.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
            return invalid("TopicPartitions must be empty when (re-)joining.");
        }
        if request.subscribed_topics.is_none() && request.subscribed_regex.is_none() {
            let message = "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.";
            return invalid(message);
        }
    } else if request.member_epoch == EPOCH_AWAY && request.instance_id.is_none() {
        return invalid("InstanceId can't be null.");
    } else if request.member_epoch < EPOCH_AWAY {
        return invalid("MemberEpoch is invalid.");
    }
    check_assignor(request, settings)?;
    check_sizes(request, settings)
}

fn check_assignor(request: &ConsumerHeartbeat, settings: &GroupSettings) -> Result<(), GroupError> {
    let Some(name) = &request.assignor else { return Ok(()) };
    let offered: Vec<&str> = Assignor::offered(settings).map(Assignor::name).collect();
    if offered.contains(&name.as_str()) {
        return Ok(());
    }
    let message = format!("ServerAssignor {name} is not supported. Supported assignors: {}.", offered.join(", "));
    Err(GroupError::new(KafkaError::UnsupportedAssignor, message))
}

/// Limits of ours; Kafka's is the size of a request.
fn check_sizes(request: &ConsumerHeartbeat, settings: &GroupSettings) -> Result<(), GroupError> {
    let max = settings.id_bytes_max;
    let ids = [
        ("MemberId", Some(&request.member_id)),
        ("InstanceId", request.instance_id.as_ref()),
        ("RackId", request.rack.as_ref()),
    ];
    for (what, id) in ids {
        if id.is_some_and(|id| id.len() > max) {
            let message = format!("{what} is longer than {max} bytes (limits.group_id_bytes_max).");
            return Err(GroupError::new(KafkaError::InvalidRequest, message));
        }
    }
    let names = request.subscribed_topics.iter().flatten();
    if names.map(|name| name.len() + 4).sum::<usize>() > SUBSCRIPTION_BYTES_MAX {
        let message = format!("SubscribedTopicNames are more than {SUBSCRIPTION_BYTES_MAX} bytes.");
        return Err(GroupError::new(KafkaError::InvalidRequest, message));
    }
    Ok(())
}
