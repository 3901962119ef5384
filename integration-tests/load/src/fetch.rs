//! Reading partitions over one connection, with or without a fetch session (KIP-227).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{FetchRequest, FetchResponse};

use crate::admin::{error_name, topic_name};
use crate::wire::Wire;

/// The last version that names topics instead of giving their ids.
const VERSION: i16 = 12;
const SESSION_ERRORS: [i16; 2] = [70, 71];

/// A topic's name and a partition of it.
pub type Place = (String, i32);

/// How much to ask for, and how long to wait for it.
#[derive(Clone, Copy)]
pub struct Appetite {
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub partition_bytes: i32,
}

/// A reader of some partitions, and the offset that it wants next of each.
pub struct Fetcher {
    wire: Wire,
    appetite: Appetite,
    positions: BTreeMap<Place, i64>,
    session: Option<Session>,
}

/// What the broker knows of our positions already.
#[derive(Default)]
struct Session {
    id: i32,
    epoch: i32,
    known: BTreeSet<Place>,
}

impl Fetcher {
    pub fn new(wire: Wire, appetite: Appetite, positions: BTreeMap<Place, i64>, session: bool) -> Self {
        Self { wire, appetite, positions, session: session.then(Session::default) }
    }

    /// Sends one request and gives each partition's record bytes and error. Move the positions with
    /// `advance` before the next call.
    pub async fn fetch(&mut self) -> Result<Vec<Portion>> {
        let request = self.request();
        let response = self.wire.call(&request, VERSION).await?;
        if let Some(session) = &mut self.session {
            if SESSION_ERRORS.contains(&response.error_code) {
                *session = Session::default();
                return Ok(Vec::new());
            }
            session.id = response.session_id;
            session.epoch = if session.epoch == i32::MAX { 1 } else { session.epoch + 1 };
            session.known = self.positions.keys().cloned().collect();
        }
        if response.error_code != 0 {
            bail!("fetch: {}", error_name(response.error_code));
        }
        Ok(portions(response))
    }

    /// From now on, reads the partition from `offset`.
    pub fn advance(&mut self, place: &Place, offset: i64) {
        if let Some(position) = self.positions.get_mut(place) {
            *position = offset;
        }
        if let Some(session) = &mut self.session {
            session.known.remove(place);
        }
    }

    /// Leaves the partition out from now on. Only without a session.
    pub fn forget(&mut self, place: &Place) {
        self.positions.remove(place);
    }

    pub fn position(&self, place: &Place) -> Option<i64> {
        self.positions.get(place).copied()
    }

    fn request(&self) -> FetchRequest {
        let asked = self.positions.iter().filter(|(place, _)| match &self.session {
            Some(session) => !session.known.contains(place),
            None => true,
        });
        let mut topics: Vec<FetchTopic> = Vec::new();
        for ((topic, partition), offset) in asked {
            let partition = FetchPartition::default()
                .with_partition(*partition)
                .with_current_leader_epoch(-1)
                .with_last_fetched_epoch(-1)
                .with_log_start_offset(-1)
                .with_fetch_offset(*offset)
                .with_partition_max_bytes(self.appetite.partition_bytes);
            match topics.last_mut().filter(|last| last.topic.as_str() == topic) {
                Some(last) => last.partitions.push(partition),
                None => {
                    topics.push(FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition]))
                }
            }
        }
        let (id, epoch) = self.session.as_ref().map_or((0, -1), |session| (session.id, session.epoch));
        FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(self.appetite.max_wait_ms)
            .with_min_bytes(self.appetite.min_bytes)
            .with_max_bytes(self.appetite.max_bytes)
            .with_session_id(id)
            .with_session_epoch(epoch)
            .with_topics(topics)
    }
}

/// What a fetch gave of one partition.
pub struct Portion {
    pub place: Place,
    pub error: i16,
    pub records: Bytes,
}

fn portions(response: FetchResponse) -> Vec<Portion> {
    let mut portions = Vec::new();
    for topic in response.responses {
        for partition in topic.partitions {
            portions.push(Portion {
                place: (topic.topic.to_string(), partition.partition_index),
                error: partition.error_code,
                records: partition.records.unwrap_or_default(),
            });
        }
    }
    portions
}
