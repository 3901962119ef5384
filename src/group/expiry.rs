//! Expiry of committed offsets: every `offsets.retention.check.interval.ms` each group that may have something to forget is
//! asked to. Whether it does is the machine's to say, which knows its members; a change that comes between spares what it
//! has touched (the deletion names what it saw).
use std::sync::Weak;
use std::time::Duration;

use super::message::Request;
use super::router::{Groups, Table, Tools};
use crate::state::{CommittedOffset, Group, GroupName, State};
use crate::types::TimestampMs;
use crate::world::World;

/// Time between two groups: a hundred in a second leave the owners and the journal to those who wait for them.
const PACE: Duration = Duration::from_millis(10);

/// Asks until the last handle to the groups is gone.
pub(super) async fn run(world: World, tools: Weak<Tools>, table: Weak<Table>) {
    loop {
        let Some(every) = tools.upgrade().map(|tools| tools.settings.kafka.offsets_retention_check_interval_ms) else {
            return;
        };
        world.sleep(Duration::from_millis(every.unsigned_abs())).await;
        let Some(groups) = Groups::upgrade(&tools, &table) else { return };
        let Some(now) = groups.agreed_wall_ms() else { continue };
        let mut names = due(&groups.state(), now, groups.settings().kafka.offsets_retention_minutes);
        // The others' coordinators do the same.
        names.retain(|name| groups.check_coordinator(name).is_ok());
        drop(groups);
        for name in names {
            let Some(groups) = Groups::upgrade(&tools, &table) else { return };
            // What failed is asked again next time.
            let _ = groups.ask(&name, Request::Expire).await;
            world.sleep(PACE).await;
        }
    }
}

/// Groups with an offset that is old enough, and groups with nothing in them.
fn due(state: &State, now: TimestampMs, retention_minutes: i32) -> Vec<GroupName> {
    let old = |group: &Group| {
        let mut offsets = group.offsets.iter();
        offsets.any(|(_, c)| is_old(c, Some(c.committed_ms), now, retention_minutes))
    };
    let due = state.groups().filter(|(_, group)| group.is_blank() || old(group));
    due.map(|(name, _)| name.clone()).collect()
}

/// Whether an offset may be forgotten: where the client gave a time, then; else so long after `since`, and never for
/// `None`.
pub(super) fn is_old(
    committed: &CommittedOffset,
    since: Option<TimestampMs>,
    now: TimestampMs,
    retention_minutes: i32,
) -> bool {
    let kept_ms = i64::from(retention_minutes) * 60_000;
    match committed.expires_ms {
        Some(expires) => now >= expires,
        None => since.is_some_and(|since| now.0.saturating_sub(since.0) >= kept_ms),
    }
}
