//! Produce, compaction and log compaction of a topic with `cleanup.policy=compact`: readers come to the same table, at the
//! offsets that there were.
use std::collections::BTreeMap;
use std::time::Duration;

use super::compaction::{offset_at_time, read_all, runs};
use super::transactions::{Me, end, init, send_records};
use super::*;
use crate::records::{BatchHeader, walk};
use crate::types::Offset;

/// Flushes are compacted every ten seconds, and logs soon after.
const SETTINGS: &str = "compaction:\n  objects_per_job: 4096\n  rest_ms: 0\n  age_ms_max: 10000\n\
                        kafka:\n  log.cleaner.backoff.ms: 5000\n";
const COMPACTED: &[(&str, &str)] =
    &[("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0"), ("delete.retention.ms", "60000")];

type Records = BTreeMap<i64, (String, Option<String>)>;

async fn started(settings: &str, configs: &[(&str, &str)]) -> Arc<Context> {
    let ctx = broker(settings).await;
    let made = ask(&ctx, 7, creation("t", 2, configs)).await.topics.remove(0);
    assert_eq!(made.error_code, 0);
    ctx
}

/// Records with their offsets, as readers of committed records get them, and the ends of transactions that they see.
async fn read(ctx: &Context, end: i64, bytes: i32) -> (Records, usize) {
    let (mut records, mut ends) = (Records::new(), 0);
    for (batch, aborted) in read_all(ctx, 0, end, bytes).await {
        let header = BatchHeader::parse(&batch).unwrap();
        if header.is_control() || aborted {
            ends += usize::from(header.is_control());
            continue;
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        walk(&batch, 1 << 20, |record| {
            let offset = header.base_offset.0 + i64::from(record.offset_delta);
            let seen = records.insert(offset, (text(record.key.unwrap()), record.value.map(text)));
            assert!(seen.is_none());
        })
        .unwrap();
    }
    (records, ends)
}

fn table(records: &Records) -> BTreeMap<&str, &str> {
    let mut table = BTreeMap::new();
    for (key, value) in records.values() {
        match value {
            Some(value) => table.insert(key.as_str(), value.as_str()),
            None => table.remove(key.as_str()),
        };
    }
    table
}

fn partition(ctx: &Context) -> crate::state::Partition {
    let state = ctx.replica.state();
    (**state.partition(state.topic_by_name("t").unwrap().slots[0]).unwrap()).clone()
}

/// Twenty rounds: plain records, tombstones, transactions of which every third is aborted.
async fn filled(ctx: &Context) -> (Me, i64) {
    let mut me = init(ctx, 5, "x").await.unwrap();
    for round in 0..20 {
        let value = format!("plain {round}");
        write(ctx, &[(&format!("k{}", round % 7), Some(&value)), ("often", Some(&value))]).await;
        if round % 5 == 4 {
            write(ctx, &[(&format!("k{}", round % 7), None)]).await;
        }
        let value = format!("transaction {round}");
        send_records(
            ctx,
            12,
            Some("x"),
            &mut me,
            &[("often", Some(&value)), (&format!("x{}", round % 3), Some(&value))],
        )
        .await
        .unwrap();
        assert_eq!(end(ctx, 5, "x", &mut me, round % 3 != 2).await, 0);
    }
    (me, partition(ctx).end.0)
}

async fn write(ctx: &Context, records: &[(&str, Option<&str>)]) {
    send_records(ctx, 9, None, &mut Me::nobody(), records).await.unwrap();
}

async fn rest(ctx: &Context, seconds: u64) {
    ctx.world.sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn readers_come_to_the_same_table_at_the_same_offsets() {
    let ctx = &*started(SETTINGS, COMPACTED).await;
    let (_, end) = filled(ctx).await;
    let (before, _) = read(ctx, end, 1 << 20).await;
    let producers = ctx.replica.state().producer_count();
    let wanted: BTreeMap<String, String> =
        table(&before).into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let is_same =
        |records: &Records| table(records).iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).eq(wanted.clone());
    rest(ctx, 40).await;
    assert_eq!(partition(ctx).cleaned, Offset(end), "{:?}", ctx.metrics.render(ctx.world.wall_ms()));
    assert_eq!((partition(ctx).log_start, partition(ctx).end.0), (Offset(0), end));
    let last: BTreeMap<&String, i64> = before.iter().map(|(offset, (key, _))| (key, *offset)).collect();
    for bytes in [1, 200, 1 << 20] {
        let (after, _) = read(ctx, end, bytes).await;
        assert!(is_same(&after), "{after:?}");
        assert!(after.iter().all(|(offset, record)| before[offset] == *record), "{after:?}");
        assert!(after.keys().eq(last.values().collect::<BTreeSet<_>>()), "{after:?}");
    }
    assert!(partition(ctx).transactions().is_none(), "no record is left of aborted transactions");
    assert_eq!(ctx.replica.state().producer_count(), producers);
    assert!(runs(ctx, 0).len() <= 2, "{:?}", runs(ctx, 0));
    // Tombstones and the ends of transactions of which nothing is left go when they are old, with what comes later.
    for _ in 0..3 {
        rest(ctx, 70).await;
        write(ctx, &[("later", Some("v"))]).await;
        rest(ctx, 40).await;
    }
    let end = partition(ctx).end.0;
    assert_eq!(partition(ctx).cleaned, Offset(end));
    let (after, ends) = read(ctx, end, 1 << 20).await;
    assert_eq!(after.len(), wanted.len() + 1, "{after:?}");
    assert!(after.values().all(|(_, value)| value.is_some()));
    assert!((1..=6).contains(&ends), "{ends} ends of transactions");
}

#[tokio::test(start_paused = true)]
async fn what_an_open_transaction_may_decide_is_left_alone() {
    let ctx = &*started(SETTINGS, COMPACTED).await;
    let mut me = init(ctx, 5, "x").await.unwrap();
    write(ctx, &[("a", Some("1"))]).await;
    write(ctx, &[("a", Some("2"))]).await;
    rest(ctx, 40).await;
    send_records(ctx, 12, Some("x"), &mut me, &[("a", Some("3"))]).await.unwrap();
    write(ctx, &[("a", Some("4"))]).await;
    rest(ctx, 40).await;
    assert_eq!(partition(ctx).cleaned, Offset(2));
    let end_offset = partition(ctx).end.0;
    assert_eq!(end(ctx, 5, "x", &mut me, true).await, 0);
    rest(ctx, 40).await;
    let (after, _) = read(ctx, end_offset + 1, 1 << 20).await;
    assert_eq!(after, Records::from([(3, ("a".to_owned(), Some("4".to_owned())))]));
    assert_eq!(offset_at_time(ctx, 0).await, 3);
}

#[tokio::test(start_paused = true)]
async fn lags_and_ratios_say_when() {
    let late = [("min.compaction.lag.ms", "100000"), COMPACTED[0], COMPACTED[1]];
    let ctx = &*started(SETTINGS, &late).await;
    write(ctx, &[("a", Some("1"))]).await;
    write(ctx, &[("a", Some("2"))]).await;
    rest(ctx, 60).await;
    assert_eq!(partition(ctx).cleaned, Offset(0), "too young");
    rest(ctx, 60).await;
    assert_eq!(partition(ctx).cleaned, Offset(2));
    let rarely = [COMPACTED[0], ("min.cleanable.dirty.ratio", "0.6"), ("max.compaction.lag.ms", "200000")];
    let ctx = &*started(SETTINGS, &rarely).await;
    write(ctx, &[("a", Some("1"))]).await;
    rest(ctx, 40).await;
    assert_eq!(partition(ctx).cleaned, Offset(1), "all of it is dirty");
    write(ctx, &[("a", Some("2"))]).await;
    rest(ctx, 100).await;
    assert_eq!(partition(ctx).cleaned, Offset(1), "half of it");
    rest(ctx, 150).await;
    assert_eq!(partition(ctx).cleaned, Offset(2), "late");
}

#[tokio::test(start_paused = true)]
async fn nobody_cleans_a_topic_that_deletes_nor_when_told_not_to() {
    let ctx = &*started(SETTINGS, &[("cleanup.policy", "delete")]).await;
    filled(ctx).await;
    rest(ctx, 100).await;
    assert_eq!(partition(ctx).cleaned, Offset(0));
    let off = format!("{SETTINGS}  log.cleaner.enable: false\n");
    let ctx = &*started(&off, COMPACTED).await;
    filled(ctx).await;
    rest(ctx, 100).await;
    assert_eq!(partition(ctx).cleaned, Offset(0));
}
