//! What the APIs of groups share: which ids are taken, how a client's address is shown, and which groups there are.
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use kafka_protocol::messages::GroupId;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use super::{Call, Context};
use crate::group::{Description, GroupError, Identity, Phase, Reply, Request};
use crate::types::KafkaError;

/// Everything that can be done to a group, as bits by Kafka's `AclOperation`: read, delete, describe, describe and alter
/// configs. Without an authorizer everybody may do all of it.
pub(super) const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// Groups of one request that are asked at the same time.
pub(super) const ASKED_AT_ONCE: usize = 64;

/// A group that members come to needs a name. Kafka has no limit for it; ours is for the memory of the metadata.
pub(super) fn check_group_id(ctx: &Context, group: &str) -> Result<(), GroupError> {
    if group.is_empty() { Err(KafkaError::InvalidGroupId.into()) } else { check_group_length(ctx, group) }
}

/// For the APIs in which Kafka still takes an empty name: those about offsets, and those of admin clients.
pub(super) fn check_group_length(ctx: &Context, group: &str) -> Result<(), GroupError> {
    match group.len() > ctx.config.limits.group_id_bytes_max {
        true => Err(KafkaError::InvalidGroupId.into()),
        false => Ok(()),
    }
}

/// The client's address as Kafka shows it: `/127.0.0.1`.
pub(super) fn client_host(call: &Call) -> String {
    call.peer.map_or_else(|| "/".to_owned(), |ip| format!("/{}", java_form(ip)))
}

/// IPv6 addresses are written out in full by Java.
fn java_form(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => full(ip),
    }
}

fn full(ip: Ipv6Addr) -> String {
    ip.segments().map(|segment| format!("{segment:x}")).join(":")
}

pub(super) fn client_id(call: &Call) -> String {
    call.header.client_id.as_deref().unwrap_or_default().to_owned()
}

pub(super) fn identity(member_id: &str, instance_id: Option<&str>, generation: i32) -> Identity {
    Identity { member_id: member_id.to_owned(), instance_id: instance_id.map(str::to_owned), generation }
}

/// Whether there is such a group: asked before a request that can't make one wakes its owner, so that names out of thin
/// air cost nothing. A "no" comes after a read barrier (invariant 5).
///
/// # Errors
/// `NOT_COORDINATOR`, if it is another broker's; `COORDINATOR_NOT_AVAILABLE`, while the journal does not answer.
pub(super) async fn exists(ctx: &Context, group: &str) -> Result<bool, KafkaError> {
    ctx.groups.check_coordinator(group).map_err(|refused| refused.error)?;
    if ctx.groups.phase(&ctx.replica.state(), group).is_some() {
        return Ok(true);
    }
    let state = ctx.replica.barrier().await.map_err(|_| KafkaError::CoordinatorNotAvailable)?;
    Ok(ctx.groups.phase(&state, group).is_some())
}

/// A group that nobody has heard of has no members.
pub(super) async fn check_exists(ctx: &Context, group: &str) -> Result<(), GroupError> {
    if exists(ctx, group).await? { Ok(()) } else { Err(KafkaError::UnknownMemberId.into()) }
}

/// KIP-848 may be turned off.
pub(super) fn check_consumer_protocol(ctx: &Context) -> Result<(), GroupError> {
    let protocols = &ctx.config.kafka.group_coordinator_rebalance_protocols;
    match protocols.iter().any(|protocol| protocol == "consumer") {
        true => Ok(()),
        false => Err(GroupError::new(KafkaError::UnsupportedVersion, "The version of API is not supported.")),
    }
}

/// Names in their order, each once: what a small request can make large is bounded by what there is.
pub(super) fn each_once(groups: Vec<GroupId>) -> Vec<GroupId> {
    let mut seen = BTreeSet::new();
    groups.into_iter().filter(|group| seen.insert(group.as_str().to_owned())).collect()
}

/// Every group as it is, each once, in the order of the request.
pub(super) async fn describe_all(
    ctx: &Context,
    groups: Vec<GroupId>,
) -> Vec<(GroupId, Result<Description, GroupError>)> {
    if groups.is_empty() {
        return Vec::new();
    }
    // What another broker has made is here after this; its failure is told by each owner.
    let known = ctx.replica.barrier().await;
    let describe = |name: GroupId| {
        let known = known.as_ref().map(|state| ctx.groups.phase(state, &name).is_some());
        let described = async move {
            let described = match known {
                _ if !ctx.members().coordinates(&name) => Err(KafkaError::NotCoordinator.into()),
                Err(_) => Err(KafkaError::CoordinatorNotAvailable.into()),
                Ok(false) => Err(not_found(&name)),
                Ok(true) => describe(ctx, &name).await,
            };
            (name, described)
        };
        described.boxed()
    };
    let described: Vec<BoxFuture<'_, _>> = each_once(groups).into_iter().map(describe).collect();
    futures::stream::iter(described).buffered(ASKED_AT_ONCE).collect().await
}

async fn describe(ctx: &Context, name: &GroupId) -> Result<Description, GroupError> {
    match ctx.groups.ask(name, Request::Describe).await? {
        // An owner that was asked about a group that never was lingers for a while.
        Reply::Described(group) if group.phase == Phase::Empty && ctx.replica.state().group(name).is_none() => {
            Err(not_found(name))
        }
        Reply::Described(group) => Ok(*group),
        _ => Err(KafkaError::UnknownServerError.into()),
    }
}

fn not_found(name: &GroupId) -> GroupError {
    GroupError::new(KafkaError::GroupIdNotFound, format!("Group {} not found.", name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_java_does() {
        let form = |text: &str| java_form(text.parse().unwrap());
        assert_eq!(form("10.0.0.1"), "10.0.0.1");
        assert_eq!(form("::1"), "0:0:0:0:0:0:0:1");
        assert_eq!(form("fe80::ab:1"), "fe80:0:0:0:0:0:ab:1");
        assert_eq!(form("::ffff:10.0.0.1"), "10.0.0.1");
    }
}
