//! Whether an object holds what the logs have in it.
use bytes::Bytes;

use crate::segment::{FooterRun, ObjectKind, ObjectName, check_run, read_footer};
use crate::state::Run;
use crate::types::{PartitionIndex, TopicId};

/// A run of a log in an object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub topic: TopicId,
    pub partition: PartitionIndex,
    pub run: Run,
}

/// Checks the checksums of header, footer and batches, whose runs they are, and that offsets follow one another.
///
/// # Errors
/// What is not as it should be.
pub(super) fn check_object(content: &Bytes, name: ObjectName, runs: &[Expected]) -> Result<(), String> {
    let (header, rows) = read_footer(content).map_err(|error| error.to_string())?;
    if header.name != name {
        return Err(format!("it is object {}", header.name.key()));
    }
    for Expected { topic, partition, run } in runs {
        let bounds = run.bounds(name.kind == ObjectKind::Compacted);
        let holds = |row: &&FooterRun| {
            let is_its = (row.topic, row.partition) == (*topic, *partition);
            is_its && row.position <= run.position && bounds.end <= row.position.saturating_add(row.bytes)
        };
        let at = run.base_offset;
        if !rows.iter().any(|row| holds(&row)) {
            return Err(format!("what lies at {} is not of partition {} with offset {at}", run.position, partition.0));
        }
        let range = run.position as usize..bounds.end as usize;
        let part = content.get(range).ok_or_else(|| format!("what has offset {at} lies beyond its end"))?;
        check_run(part, &bounds).map_err(|error| format!("offset {at}: {error}"))?;
    }
    Ok(())
}
