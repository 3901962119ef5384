//! What State and bucket hold in the end, for the checker to compare with what clients saw.
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use strandline::segment::{COMPACTED_PREFIX, DATA_PREFIX, read_footer};
use strandline::state::{OFFSETS_TOPIC, State};
use strandline::types::Position;
use strandline_history::Log;
use strandline_history::check::{Inventory, LogInventory, Object, Run};

/// What may be in the bucket though nobody needs it.
#[derive(Default)]
pub struct Spared {
    /// The keys of objects that came late; `None`: all may be.
    pub objects: Option<BTreeSet<String>>,
    /// Objects that died after this may be; `None`: all may be.
    pub dead_until: Option<Position>,
}

/// See the module.
#[must_use]
pub fn take(state: &State, bucket: &BTreeMap<String, Bytes>, spared: &Spared) -> Inventory {
    let mut logs = Vec::new();
    // Offsets of groups lie in State itself.
    for topic in state.topics().filter(|topic| &*topic.name != OFFSETS_TOPIC) {
        for partition in topic.slots.iter().filter_map(|slot| state.partition(*slot)) {
            let id = Some(topic.id.0.to_string());
            let log = Log { topic: topic.name.to_string(), id, partition: partition.index.0 };
            let runs = partition.tail.iter().map(|run| Run {
                base_offset: run.base_offset.0,
                count: run.end_offset.0 - run.base_offset.0,
                object: match run.marker {
                    Some(_) => String::new(),
                    None => state.object(run.object).map_or_else(|| "no object".to_owned(), |meta| meta.name.key()),
                },
                at: u64::from(run.position),
                bytes: u64::from(run.bytes),
            });
            let runs = runs.collect();
            logs.push(LogInventory { log, log_start: partition.log_start.0, end: partition.end.0, runs });
        }
    }
    let is_data = |key: &str| [DATA_PREFIX, COMPACTED_PREFIX].iter().any(|prefix| key.starts_with(prefix));
    let object = |(key, content): (&String, &Bytes)| Object {
        key: key.clone(),
        bytes: content.len() as u64,
        young: spared.objects.as_ref().is_none_or(|young| young.contains(key)),
        problem: is_data(key).then(|| read_footer(content).err()).flatten().map(|e| e.to_string()),
    };
    let objects = bucket.iter().map(object).collect();
    let snapshots = state.snapshots().iter().map(|snapshot| snapshot.key.clone());
    // Others than data have owners of their own.
    let owned = bucket.keys().filter(|key| !is_data(key)).cloned();
    let dying = state.dead_objects().filter(|(_, death, _)| spared.dead_until.is_none_or(|until| death.since > until));
    let others =
        snapshots.chain(owned).chain(dying.map(|(_, _, meta)| meta.name.key()).filter(|key| bucket.contains_key(key)));
    let others = others.collect();
    Inventory { logs, objects, others }
}
