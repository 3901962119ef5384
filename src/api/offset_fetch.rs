//! OffsetFetch (9): one group until version 7, many from version 8; by topic id from version 10. Offsets are read from
//! State after the group's owner has said that the reader may, and a read barrier (invariant 5). With `require_stable` an offset
//! is not told while an open transaction may change it (KIP-447). Rules: Kafka's `OffsetMetadataManager.fetchOffsets`.
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{ApiKey, GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::groups::{ASKED_AT_ONCE, check_group_length};
use super::offset_commit::topic_key;
use super::propose::text;
use super::resolve::{slot, topic};
use super::table::Offered;
use super::{Call, Context};
use crate::fetch::TopicKey;
use crate::group::{Reader, Request};
use crate::planted::{Defect, planted};
use crate::state::{CommittedOffset, Group, State};
use crate::types::{KafkaError, PartitionIndex, Slot, TopicId};

pub(super) const OFFERED: Offered = Offered::new(ApiKey::OffsetFetch, 1, 10);

/// What one answer may hold, in bytes; far more than the offsets of a cluster with the texts that clients add to them.
/// Groups that don't fit are answered with an error.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// One group of a request. What is named twice is answered once.
struct Asked {
    group: GroupId,
    reader: Option<Reader>,
    /// `None` asks for all.
    topics: Option<Vec<(TopicKey, Vec<i32>)>>,
}

/// Of one group: what was committed, by topic.
type Found = Result<Vec<(TopicKey, Vec<OffsetFetchResponsePartitions>)>, KafkaError>;

pub(super) async fn handle(ctx: &Context, call: &Call, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let version = call.header.version;
    let stable = version >= 7 && request.require_stable;
    let asked = if version >= 8 { many(version, request) } else { vec![one(request)] };
    let refused = readers(ctx, &asked).await;
    let state = ctx.replica.state();
    let mut room = ANSWER_BYTES_MAX;
    let mut found = Vec::with_capacity(asked.len());
    for (asked, refused) in asked.into_iter().zip(refused) {
        let result = match refused {
            Some(error) => Err(error),
            None => find(&state, (version, stable), &asked, &mut room),
        };
        found.push((asked, result));
    }
    if version >= 8 {
        let groups = found.into_iter().map(|(asked, found)| respond_group(asked.group, found));
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    found.pop().map_or_else(OffsetFetchResponse::default, |(asked, found)| respond_one(version, asked, found))
}

fn one(request: OffsetFetchRequest) -> Asked {
    let topics = request.topics.map(|topics| {
        let topics = topics.into_iter().map(|t| (topic_key(0, &t.name, uuid::Uuid::nil()), t.partition_indexes));
        once(topics)
    });
    Asked { group: request.group_id, reader: None, topics }
}

fn many(version: i16, request: OffsetFetchRequest) -> Vec<Asked> {
    let mut seen = BTreeSet::new();
    let groups = request.groups.into_iter().filter(|g| seen.insert(g.group_id.to_string()));
    let groups = groups.map(|g| {
        let reader =
            Reader { member_id: g.member_id.as_deref().unwrap_or_default().to_owned(), member_epoch: g.member_epoch };
        // An admin client is no member.
        let reader = (g.member_id.is_some() || g.member_epoch >= 0).then_some(reader);
        let topics = g.topics.map(|topics| {
            once(topics.into_iter().map(|t| (topic_key(version, &t.name, t.topic_id), t.partition_indexes)))
        });
        Asked { group: g.group_id, reader, topics }
    });
    groups.collect()
}

/// Each partition once, in the order of the request.
fn once(topics: impl Iterator<Item = (TopicKey, Vec<i32>)>) -> Vec<(TopicKey, Vec<i32>)> {
    let mut seen: BTreeMap<TopicKey, BTreeSet<i32>> = BTreeMap::new();
    let mut all = Vec::new();
    for (key, partitions) in topics {
        let again = seen.contains_key(&key);
        let named = seen.entry(key.clone()).or_default();
        let fresh: Vec<i32> = partitions.into_iter().filter(|index| named.insert(*index)).collect();
        if !again || !fresh.is_empty() {
            all.push((key, fresh));
        }
    }
    all
}

/// Asks the owners whether these readers may, while the journal is asked for its head. Afterwards State has everything
/// that was committed before the request. A group that is not there has no owner to ask, and nothing to hide.
async fn readers(ctx: &Context, asked: &[Asked]) -> Vec<Option<KafkaError>> {
    let now = ctx.replica.state();
    let is_there = |state: &State, asked: &Asked| ctx.groups.phase(state, &asked.group).is_some();
    let first: Vec<bool> = asked.iter().map(|asked| is_there(&now, asked)).collect();
    let known = asked.iter().zip(&first).map(|(asked, is_there)| may_read(ctx, asked, *is_there).boxed());
    let known: Vec<BoxFuture<'_, Option<KafkaError>>> = known.collect();
    let known = futures::stream::iter(known).buffered(ASKED_AT_ONCE).collect::<Vec<_>>();
    let barrier =
        async { if planted(Defect::StaleCommittedOffset) { Ok(now.clone()) } else { ctx.replica.barrier().await } };
    let (mut refused, state) = futures::join!(known, barrier);
    let Ok(state) = state else {
        // Consumers look for the coordinator again and come back; they don't expect COORDINATOR_NOT_AVAILABLE here.
        return vec![Some(KafkaError::NotCoordinator); asked.len()];
    };
    for ((asked, refused), known) in asked.iter().zip(&mut refused).zip(first) {
        if !known && is_there(&state, asked) {
            *refused = may_read(ctx, asked, true).await;
        }
    }
    refused
}

/// Why it may not.
async fn may_read(ctx: &Context, asked: &Asked, is_there: bool) -> Option<KafkaError> {
    if let Err(refused) = check_group_length(ctx, &asked.group) {
        return Some(refused.error);
    }
    if !ctx.members().coordinates(&asked.group) {
        return Some(KafkaError::NotCoordinator);
    }
    if !is_there {
        return None;
    }
    match ctx.groups.ask(&asked.group, Request::ReadOffsets(asked.reader.clone())).await {
        Ok(_) => None,
        Err(refused) if refused.error == KafkaError::CoordinatorNotAvailable => Some(KafkaError::NotCoordinator),
        Err(refused) => Some(refused.error),
    }
}

fn find(state: &State, (version, stable): (i16, bool), asked: &Asked, room: &mut usize) -> Found {
    let unstable = |slot: Slot| stable && state.has_pending_offset(&asked.group, slot);
    let forgotten = |g: &&Arc<Group>| g.members.is_empty() && g.version > 0 && planted(Defect::EmptyGroupForgets);
    let group = state.group(&asked.group).filter(|group| !forgotten(group));
    let found = match &asked.topics {
        None => group.map_or_else(Vec::new, |group| all(state, version, group, unstable)),
        Some(topics) => {
            let of =
                |(key, indexes): &(TopicKey, Vec<i32>)| (key.clone(), some(state, group, (key, indexes), unstable));
            topics.iter().map(of).collect()
        }
    };
    let bytes = found.iter().map(|(_, partitions)| 64 + partitions.iter().map(size).sum::<usize>()).sum();
    *room = room.checked_sub(bytes).ok_or(KafkaError::InvalidRequest)?;
    Ok(found)
}

fn size(partition: &OffsetFetchResponsePartitions) -> usize {
    24 + partition.metadata.as_ref().map_or(0, |text| text.len())
}

/// Everything that the group has committed.
fn all(
    state: &State,
    version: i16,
    group: &Group,
    unstable: impl Fn(Slot) -> bool,
) -> Vec<(TopicKey, Vec<OffsetFetchResponsePartitions>)> {
    let mut topics: BTreeMap<TopicId, Vec<OffsetFetchResponsePartitions>> = BTreeMap::new();
    for (slot, committed) in &group.offsets {
        // A partition and its offsets are deleted together.
        let Some(partition) = state.partition(*slot) else { continue };
        let response = match unstable(*slot) {
            true => respond_unstable(partition.index.0),
            false => respond(partition.index.0, Some(committed)),
        };
        topics.entry(partition.topic).or_default().push(response);
    }
    let named = topics.into_iter().filter_map(|(id, partitions)| {
        let key = if version >= 10 { TopicKey::Id(id) } else { TopicKey::Name(state.topic(id)?.name.clone()) };
        Some((key, partitions))
    });
    named.collect()
}

/// Of these partitions; -1 where nothing is committed.
fn some(
    state: &State,
    group: Option<&Arc<Group>>,
    (key, indexes): (&TopicKey, &[i32]),
    unstable: impl Fn(Slot) -> bool,
) -> Vec<OffsetFetchResponsePartitions> {
    let unknown = matches!(key, TopicKey::Id(_)) && topic(state, key).is_none();
    let one = |index: &i32| {
        if unknown {
            return respond(*index, None).with_error_code(KafkaError::UnknownTopicId.code());
        }
        let slot = slot(state, key, PartitionIndex(*index)).ok();
        match slot {
            Some(slot) if unstable(slot) => respond_unstable(*index),
            slot => respond(*index, slot.and_then(|slot| group?.offsets.get(&slot))),
        }
    };
    indexes.iter().map(one).collect()
}

fn respond(index: i32, committed: Option<&CommittedOffset>) -> OffsetFetchResponsePartitions {
    let response = OffsetFetchResponsePartitions::default().with_partition_index(index);
    match committed {
        Some(c) => response
            .with_committed_offset(c.offset.0)
            .with_committed_leader_epoch(c.leader_epoch.0)
            .with_metadata(Some(text(&*c.metadata))),
        None => {
            response.with_committed_offset(-1).with_committed_leader_epoch(-1).with_metadata(Some(StrBytes::default()))
        }
    }
}

fn respond_unstable(index: i32) -> OffsetFetchResponsePartitions {
    respond(index, None).with_error_code(KafkaError::UnstableOffsetCommit.code())
}

fn respond_group(group: GroupId, found: Found) -> OffsetFetchResponseGroup {
    let response = OffsetFetchResponseGroup::default().with_group_id(group);
    match found {
        Err(error) => response.with_error_code(error.code()),
        Ok(topics) => {
            let topics = topics.into_iter().map(|(key, partitions)| {
                let topic = OffsetFetchResponseTopics::default().with_partitions(partitions);
                match key {
                    TopicKey::Id(id) => topic.with_topic_id(id.0),
                    TopicKey::Name(name) => topic.with_name(TopicName(text(&*name))),
                }
            });
            response.with_topics(topics.collect())
        }
    }
}

/// Version 1 has no place for an error but the partitions.
fn respond_one(version: i16, asked: Asked, found: Found) -> OffsetFetchResponse {
    let response = OffsetFetchResponse::default();
    let topics = match found {
        Ok(topics) => topics,
        Err(error) if version >= 2 => return response.with_error_code(error.code()),
        Err(error) => {
            let refuse = |(key, indexes): (TopicKey, Vec<i32>)| {
                (key, indexes.into_iter().map(|i| respond(i, None).with_error_code(error.code())).collect())
            };
            asked.topics.into_iter().flatten().map(refuse).collect()
        }
    };
    let topics = topics.into_iter().filter_map(|(key, partitions)| {
        let TopicKey::Name(name) = key else { return None };
        let partitions = partitions.into_iter().map(|p| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(p.partition_index)
                .with_committed_offset(p.committed_offset)
                .with_committed_leader_epoch(p.committed_leader_epoch)
                .with_metadata(p.metadata)
                .with_error_code(p.error_code)
        });
        Some(
            OffsetFetchResponseTopic::default()
                .with_name(TopicName(text(&*name)))
                .with_partitions(partitions.collect()),
        )
    });
    response.with_topics(topics.collect())
}
