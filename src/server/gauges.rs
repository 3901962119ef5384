//! Numbers that are looked up rather than counted, brought up to date once a second.
use std::sync::Arc;
use std::time::Duration;

use crate::api::Context;
use crate::group::lags;
use crate::net::Budget;
use crate::state::Standing;
use crate::telemetry::lags::GroupLags;

const EVERY: Duration = Duration::from_secs(1);

/// Scrapes show the lags of the broker behind `context`, for as long as it is there.
pub(super) fn show_lags(context: &Arc<Context>) {
    // Metrics outlive the broker, and must not keep it.
    let weak = Arc::downgrade(context);
    context.metrics.lags.come_from(move || match weak.upgrade() {
        Some(context) => lags(&context.replica.state(), &context.members()),
        None => GroupLags::default(),
    });
}

/// Sets the gauges until `context` is the last one that holds the broker.
pub(super) async fn run(context: Arc<Context>, budget: Arc<Budget>) {
    let (world, metrics, replica) = (context.world.clone(), context.metrics.clone(), context.replica.clone());
    // The gauges must not keep a stopping broker alive. A shadowed argument would: it lives until the end.
    let weak = Arc::downgrade(&context);
    drop(context);
    while weak.strong_count() > 0 {
        let state = replica.state();
        metrics.state.topics.set(count(state.topic_count()));
        metrics.state.partitions.set(i64::from(state.partition_count()));
        metrics.state.runs.set(i64::try_from(state.run_count()).unwrap_or(i64::MAX));
        metrics.state.objects.set(count(state.object_count()));
        metrics.state.producers.set(count(state.producer_count()));
        metrics.state.groups.set(count(state.group_count()));
        metrics.state.group_offsets.set(i64::try_from(state.group_offset_count()).unwrap_or(i64::MAX));
        metrics.state.group_bytes.set(i64::try_from(state.group_bytes()).unwrap_or(i64::MAX));
        metrics.state.transactional_ids.set(count(state.transactional_producers().count()));
        let open = || state.transactional_producers().filter_map(|(_, t)| t.open.as_ref());
        metrics.state.open_transactions.set(count(open().count()));
        let longest_ms = open().map(|open| world.wall_ms().0.saturating_sub(open.since_ms.0)).max().unwrap_or(0);
        metrics.state.longest_transaction_seconds.set(longest_ms.max(0) as f64 / 1000.0);
        metrics.upkeep.dead_objects.set(count(state.dead_object_count()));
        metrics.upkeep.dead_bytes.set(i64::try_from(state.dead_bytes()).unwrap_or(i64::MAX));
        metrics.upkeep.horizon_position.set(i64::try_from(state.orphan_horizon().0).unwrap_or(i64::MAX));
        metrics.cluster.members.set(count(state.brokers().filter(|broker| broker.is_member()).count()));
        let fenced = state.brokers().filter(|broker| broker.standing == Standing::Fenced);
        metrics.cluster.fenced_brokers.set(count(fenced.count()));
        metrics.cluster.clock_apart_ms.set(replica.clock_apart_ms(&world));
        metrics.net.frame_bytes.set(count(budget.used()));
        if let Some(context) = weak.upgrade() {
            metrics.fetch.answer_bytes.set(count(context.answers.used()));
            metrics.cluster.serves.set(i64::from(context.members().serves()));
        }
        drop(state);
        world.sleep(EVERY).await;
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
