//! One file per Kafka API: its key, the versions that are offered, what is left out on purpose. An API resolves names,
//! asks a room, and answers with Kafka's errors; it holds no state and takes no decision that `apply` has to take.
//! What cannot be served is answered in the version that was asked (invariant 8); only what Kafka itself closes a
//! connection for is `Close`. Tests: `tests/wire/`, and every client in `integration-tests/`.
mod add_offsets_to_txn;
mod add_partitions_to_txn;
mod alter_configs;
mod alter_partition_reassignments;
mod api_versions;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod create_acls;
mod create_partitions;
mod create_topics;
mod delete_acls;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_acls;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_topic_partitions;
mod describe_transactions;
mod elect_leaders;
mod end_txn;
mod fetch;
mod fetch_snapshot;
mod find_coordinator;
mod groups;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod list_transactions;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod propose;
mod resolve;
mod sync_group;
mod table;
mod topic_settings;
mod transactions;
mod txn_offset_commit;
mod unplaced;
mod unregister_broker;
mod update_features;
mod write_txn_markers;

use bytes::Bytes;
use futures::future::BoxFuture;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

pub use init_producer_id::ProducerIds;
pub use table::{API_VERSIONS_RANGE, OFFERED, Offered, serve};
pub use topic_settings::TopicSettingsCache;
pub use unplaced::Unplaced;

use crate::cluster::{Members, Membership, zone_of_client_id};
use crate::config::zones::AddressZones;
use crate::config::{Config, Entrance};
use crate::fetch::{AnswerBudget, CachedObject, Fetcher, Reserved, Sessions};
use crate::group::Groups;
use crate::metadata::Replica;
use crate::produce::Producer;
use crate::protocol::{Frame, RequestHeader};
use crate::telemetry::Metrics;
use crate::txn::Pace;
use crate::types::ConnectionId;
use crate::world::{Instant, World};

/// What APIs work with.
pub struct Context {
    pub replica: Replica,
    pub producer: Producer,
    pub fetcher: Fetcher,
    pub sessions: Sessions,
    pub answers: AnswerBudget,
    pub producer_ids: ProducerIds,
    pub topic_settings: TopicSettingsCache,
    pub unplaced: Unplaced,
    pub groups: Groups,
    /// Requests about transactions wait for it.
    pub transactions: Pace,
    pub membership: Membership,
    pub address_zones: AddressZones,
    pub config: Arc<Config>,
    pub world: World,
    pub metrics: Arc<Metrics>,
}

/// One request: what it asks, and where it came from.
pub struct Call {
    pub header: RequestHeader,
    /// The request after its header.
    pub body: Bytes,
    /// The frame's size in bytes: what slices of it keep allocated.
    pub frame_bytes: usize,
    /// The frame's share of the request budget.
    pub permit: Option<OwnedSemaphorePermit>,
    pub connection: ConnectionId,
    /// The client's address; `None` of a connection without a network.
    pub peer: Option<IpAddr>,
    /// The listener that the client came by.
    pub entrance: Arc<Entrance>,
    /// When the request's last byte had come.
    pub received: Instant,
}

impl Context {
    /// The brokers as they are now. One request looks once, so that its answer does not contradict itself.
    #[must_use]
    pub fn members(&self) -> Arc<Members> {
        self.membership.now()
    }

    /// Where the client is: by its listener, by its address, or by what it says in its client id.
    #[must_use]
    pub fn zone_of<'a>(&'a self, call: &'a Call) -> Option<&'a str> {
        let by_address = || call.peer.and_then(|peer| self.address_zones.zone_of(peer));
        let by_client_id = || call.header.client_id.as_deref().and_then(zone_of_client_id);
        call.entrance.zone.as_deref().or_else(by_address).or_else(by_client_id)
    }
}

/// A response on its way to the socket, and what its bytes hold until they are written.
#[derive(Debug)]
pub struct Reply {
    pub frame: Frame,
    /// The objects that its records are part of.
    pub holds: Vec<Arc<CachedObject>>,
    /// Its memory of the answers' budget.
    pub reserved: Option<Reserved>,
}

impl From<Frame> for Reply {
    /// A response that holds nothing but itself.
    fn from(frame: Frame) -> Self {
        Self { frame, holds: Vec::new(), reserved: None }
    }
}

/// What becomes of a request.
pub enum Answer {
    Now(Reply),
    /// The request is on its way and the next of its connection may be read; the reply, if there is one, comes when it
    /// is done. Only Produce is answered so (H17).
    Later(BoxFuture<'static, Option<Reply>>),
    /// The connection is closed, as Kafka does for this.
    Close(String),
}
