//! What every bucket promises, as one suite over a factory of handles on one bucket (several handles stand for several
//! brokers). `store_contract_*` run it on real servers, if their addresses are in the environment:
//!
//! | test | needs |
//! | --- | --- |
//! | `store_contract_s3` | `STORE_TEST_S3_ENDPOINT`, `STORE_TEST_S3_BUCKET` (there), `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` |
//! | `store_contract_gcs` | `STORE_TEST_GCS_ENDPOINT`, `STORE_TEST_GCS_BUCKET` (there); in `object/gcs_emulator.rs` |
//! | `store_contract_azure` | `STORE_TEST_AZURE_ENDPOINT` (with the account), `STORE_TEST_AZURE_CONTAINER` (there), `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY` |
use super::open::{BucketSettings, open};
use super::{Body, Bucket, CreateOutcome, Key, Listed, LocalBucket, MemoryBucket, Purpose, StoreError};
use crate::world::World;
use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use std::sync::Arc;

type Handle = Arc<dyn Bucket>;

/// Runs the suite below `base`, a prefix that nobody else uses, and leaves nothing there.
async fn suite(open: &dyn Fn() -> Handle, base: &str) {
    let bucket = Contract { bucket: open(), base: base.to_owned() };
    bucket.creates_once().await;
    bucket.one_of_many_racing_creators_wins(open).await;
    bucket.reads_exactly_the_range().await;
    bucket.keeps_big_and_empty_objects().await;
    bucket.lists_in_order_and_in_pages().await;
    bucket.keeps_odd_keys_and_refuses_bad_ones().await;
    bucket.deletes_also_what_is_not_there().await;
    bucket.deletes_many_and_says_which().await;
    bucket.removes_all().await;
}

struct Contract {
    bucket: Handle,
    base: String,
}

impl Contract {
    fn key(&self, name: &str) -> Key {
        format!("{}/{name}", self.base)
    }

    async fn create(&self, name: &str, body: Body) -> Result<CreateOutcome, StoreError> {
        self.bucket.create(&self.key(name), body, Purpose::Ingest).await
    }

    async fn put(&self, name: &str, content: &'static str) {
        assert_eq!(self.create(name, vec![Bytes::from_static(content.as_bytes())]).await, Ok(CreateOutcome::Created));
    }

    async fn read(&self, name: &str, range: Option<std::ops::Range<u64>>) -> Result<Bytes, StoreError> {
        self.bucket.read(&self.key(name), range, Purpose::Tail).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
        let after = after.map(|name| self.key(name));
        let rows = self.bucket.list(&self.key(prefix), after.as_ref(), limit, Purpose::Control).await.unwrap();
        rows.into_iter().map(|row| row.key[self.base.len() + 1..].to_owned()).collect()
    }

    async fn creates_once(&self) {
        self.put("once/a", "first").await;
        assert_eq!(self.create("once/a", vec![Bytes::from_static(b"other")]).await, Ok(CreateOutcome::Taken));
        assert_eq!(self.create("once/a", vec![Bytes::from_static(b"longer than it")]).await, Ok(CreateOutcome::Taken));
        assert_eq!(self.create("once/a", vec![]).await, Ok(CreateOutcome::Taken));
        let same = vec![Bytes::from_static(b"fir"), Bytes::new(), Bytes::from_static(b"st")];
        assert_eq!(self.create("once/a", same).await, Ok(CreateOutcome::Created), "the same bytes are ours");
        assert_eq!(self.read("once/a", None).await.unwrap(), "first");
    }

    async fn one_of_many_racing_creators_wins(&self, open: &dyn Fn() -> Handle) {
        for round in 0..8 {
            let key = self.key(&format!("race/{round}"));
            let creators = (0..16_u8).map(|n| {
                let (bucket, key) = (open(), key.clone());
                async move { bucket.create(&key, vec![Bytes::from(vec![n; 1000])], Purpose::Control).await }
            });
            let outcomes = join_all(creators).await;
            let created: Vec<_> = (0..16).filter(|n| outcomes[*n] == Ok(CreateOutcome::Created)).collect();
            assert_eq!(created.len(), 1, "round {round}: {outcomes:?}");
            assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
            let there = self.bucket.read(&key, None, Purpose::Control).await.unwrap();
            assert_eq!(there, vec![u8::try_from(created[0]).unwrap(); 1000]);
        }
    }

    async fn reads_exactly_the_range(&self) {
        self.put("range/a", "0123456789").await;
        for (range, content) in
            [(0..10, "0123456789"), (0..1, "0"), (9..10, "9"), (3..7, "3456"), (4..4, ""), (10..10, "")]
        {
            assert_eq!(self.read("range/a", Some(range.clone())).await.unwrap(), content, "{range:?}");
        }
        #[expect(clippy::reversed_empty_ranges, reason = "a caller's mistake")]
        for range in [0..11, 9..11, 10..11, 11..12, 11..11, 5..4, 0..u64::MAX] {
            let got = self.read("range/a", Some(range.clone())).await;
            assert!(matches!(got, Err(StoreError::Damaged { .. })), "{range:?}: {got:?}");
        }
        for range in [None, Some(0..1), Some(0..0)] {
            assert_eq!(self.read("range/no", range).await, Err(StoreError::NotFound { key: self.key("range/no") }));
        }
    }

    async fn keeps_big_and_empty_objects(&self) {
        let chunk = |n: usize| Bytes::from((0..128 * 1024).map(|i| ((i * 7 + n * 31) % 251) as u8).collect::<Vec<_>>());
        let body: Body = (0..64).map(chunk).collect();
        assert_eq!(self.create("big", body.clone()).await, Ok(CreateOutcome::Created));
        assert_eq!(self.create("big", body.clone()).await, Ok(CreateOutcome::Created));
        let mut other = body.clone();
        other[63] = chunk(0);
        assert_eq!(self.create("big", other).await, Ok(CreateOutcome::Taken));
        assert_eq!(self.read("big", None).await.unwrap(), body.concat());
        let at = 63 * 128 * 1024;
        assert_eq!(
            self.read("big", Some(at - 5..at + 5)).await.unwrap(),
            body.concat()[at as usize - 5..at as usize + 5]
        );

        assert_eq!(self.create("empty", vec![]).await, Ok(CreateOutcome::Created));
        assert_eq!(self.create("empty", vec![Bytes::new()]).await, Ok(CreateOutcome::Created));
        assert_eq!(self.create("empty", vec![Bytes::from_static(b"x")]).await, Ok(CreateOutcome::Taken));
        assert_eq!(self.read("empty", None).await.unwrap(), "");
    }

    async fn lists_in_order_and_in_pages(&self) {
        // '-' and '.' sort before '/', letters after: an order by directories would be another.
        let mut names = ["list/a-b", "list/a.c", "list/a/b", "list/a/c/d", "list/a0", "list/ab", "list/B", "list/b/a"];
        for name in names {
            self.put(name, "x").await;
        }
        self.put("listing", "x").await;
        names.sort_unstable();
        assert_eq!(self.list("list/", None, 100).await, names);
        assert_eq!(self.list("list/a", None, 100).await, names[1..7], "a prefix may end within a name");
        assert_eq!(self.list("list/a/", None, 100).await, ["list/a/b", "list/a/c/d"]);
        assert_eq!(self.list("list/none", None, 100).await, [""; 0]);
        assert_eq!(self.list("list/", None, 0).await, [""; 0]);
        assert_eq!(self.list("list/", Some("list/zz"), 100).await, [""; 0]);
        assert_eq!(self.list("list/", Some("a"), 100).await, names, "after a key before the prefix");
        for page in 1..4 {
            let mut paged: Vec<String> = Vec::new();
            loop {
                let after = paged.last().cloned();
                let rows = self.list("list/", after.as_deref(), page).await;
                assert!(rows.len() <= page);
                if rows.is_empty() {
                    break;
                }
                paged.extend(rows);
            }
            assert_eq!(paged, names, "pages of {page}");
        }
        let row = self.bucket.list(&self.key("big"), None, 1, Purpose::Control).await.unwrap();
        assert_eq!(row, [Listed { key: self.key("big"), bytes: 8 * 1024 * 1024 }]);
    }

    async fn keeps_odd_keys_and_refuses_bad_ones(&self) {
        let long = format!("odd/{}", "x".repeat(255));
        let mut names = ["odd/.hidden", "odd/a..b", "odd/-", "odd/_", "odd/UPPER/upper", &long];
        for name in names {
            self.put(name, "x").await;
        }
        names.sort_unstable();
        assert_eq!(self.list("odd/", None, 100).await, names);
        for name in ["odd/../x", "odd/a b", "odd//x", "odd/#x", "odd/ü"] {
            let got = self.create(name, vec![]).await;
            assert!(matches!(got, Err(StoreError::Refused { .. })), "{name}: {got:?}");
        }
    }

    async fn deletes_also_what_is_not_there(&self) {
        self.put("delete/a", "x").await;
        for _ in 0..2 {
            assert_eq!(self.bucket.delete(&self.key("delete/a"), Purpose::Control).await, Ok(()));
        }
        assert!(matches!(self.read("delete/a", None).await, Err(StoreError::NotFound { .. })));
        assert_eq!(self.list("delete/", None, 10).await, [""; 0]);
        self.put("delete/a", "again").await;
        assert_eq!(self.bucket.delete(&self.key("none/at/all"), Purpose::Control).await, Ok(()));
    }

    async fn deletes_many_and_says_which(&self) {
        for n in 0..20 {
            self.put(&format!("many/{n:02}"), "x").await;
        }
        let mut keys: Vec<Key> = (0..15).map(|n| self.key(&format!("many/{n:02}"))).collect();
        keys.insert(3, self.key("many/never-there"));
        keys.insert(7, "no//key".into());
        let results = self.bucket.delete_all(&keys, Purpose::Upkeep).await;
        let failed: Vec<usize> = (0..results.len()).filter(|at| results[*at].is_err()).collect();
        assert_eq!((results.len(), failed), (17, vec![7]), "{results:?}");
        assert_eq!(self.list("many/", None, 100).await.len(), 5);
        assert_eq!(self.bucket.delete_all(&[], Purpose::Upkeep).await, []);
    }

    async fn removes_all(&self) {
        for name in self.list("", None, 1000).await {
            self.bucket.delete(&self.key(&name), Purpose::Control).await.unwrap();
        }
        assert_eq!(self.list("", None, 1000).await, [""; 0]);
    }
}

#[tokio::test]
async fn store_contract_memory() {
    let bucket = MemoryBucket::new();
    suite(&|| Arc::new(bucket.clone()), "x").await;
    assert_eq!(bucket.bytes(), 0);
}

#[tokio::test]
async fn store_contract_local() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::real().unwrap();
    // Each handle is a process of its own to the directory.
    suite(&|| Arc::new(LocalBucket::open(dir.path(), world.clone()).unwrap()), "x").await;
}

/// Runs the suite on a server, with all handles over one set of connections, under a prefix of its own.
async fn on_a_server(mut settings: BucketSettings, url: &str) {
    settings.url = format!("{url}/contract");
    settings.allow_http = true;
    on_the_bucket(open(&settings, World::real().unwrap()).await.unwrap()).await;
}

pub(super) async fn on_the_bucket(bucket: Handle) {
    let run = format!("{:016x}", World::real().unwrap().random_u64());
    suite(&|| Arc::clone(&bucket), &run).await;
    a_listing_is_longer_than_the_store_s_pages(&bucket, &run).await;
}

/// Stores answer with 1,000 (S3, GCS) or 5,000 (Azure) names at a time.
async fn a_listing_is_longer_than_the_store_s_pages(bucket: &Handle, base: &str) {
    let names: Vec<Key> = (0..1100).map(|n| format!("{base}/many/{n:05}")).collect();
    let create = |name| async move { bucket.create(name, vec![Bytes::from_static(b"x")], Purpose::Control).await };
    let created: Vec<_> = stream::iter(&names).map(create).buffer_unordered(16).collect().await;
    assert!(created.iter().all(|c| *c == Ok(CreateOutcome::Created)));
    let list = |after: Option<Key>, limit| async move {
        let rows = bucket.list(&format!("{base}/many/"), after.as_ref(), limit, Purpose::Control).await.unwrap();
        rows.into_iter().map(|row| row.key).collect::<Vec<_>>()
    };
    assert_eq!(list(None, 2000).await, names);
    assert_eq!(list(None, 1001).await, names[..1001]);
    assert_eq!(list(Some(names[49].clone()), 2000).await, names[50..]);
    let delete = |name| async move { bucket.delete(name, Purpose::Control).await };
    let deleted: Vec<_> = stream::iter(&names).map(delete).buffer_unordered(16).collect().await;
    assert!(deleted.iter().all(Result::is_ok));
}

pub(super) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

#[tokio::test]
#[ignore = "needs a server: see the head of this file"]
async fn store_contract_s3() {
    let settings = BucketSettings { endpoint: Some(variable("STORE_TEST_S3_ENDPOINT")), ..BucketSettings::default() };
    on_a_server(settings, &format!("s3://{}", variable("STORE_TEST_S3_BUCKET"))).await;
}

#[tokio::test]
#[ignore = "needs a server: see the head of this file"]
async fn store_contract_azure() {
    let settings =
        BucketSettings { endpoint: Some(variable("STORE_TEST_AZURE_ENDPOINT")), ..BucketSettings::default() };
    on_a_server(settings, &format!("az://{}", variable("STORE_TEST_AZURE_CONTAINER"))).await;
}
