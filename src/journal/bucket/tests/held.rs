//! A bucket that stands still at a request, so that a test can let others go on meanwhile, and that counts requests.
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

use crate::store::{Body, Bucket, CreateOutcome, Key, Listed, Operation, Purpose, StoreError};

/// Where a request stands still.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// Before it reaches the store.
    Asking,
    /// When the store has done it.
    Answering,
}

/// The requests so far, by operation.
pub(super) type Requests = BTreeMap<Operation, u64>;

struct Hold {
    operation: Operation,
    /// Requests of this kind that pass before.
    skipped: u64,
    at: At,
    reached: oneshot::Sender<()>,
    released: oneshot::Receiver<()>,
}

#[derive(Clone)]
pub(super) struct Held {
    bucket: Arc<dyn Bucket>,
    hold: Arc<Mutex<Option<Hold>>>,
    requests: Arc<Mutex<Requests>>,
}

/// A request that is to stand still.
pub(super) struct Standing {
    reached: oneshot::Receiver<()>,
    release: oneshot::Sender<()>,
}

impl Held {
    pub(super) fn new(bucket: Arc<dyn Bucket>) -> Self {
        Self { bucket, hold: Arc::default(), requests: Arc::default() }
    }

    /// The next request of this kind stands still there.
    pub(super) fn hold(&self, operation: Operation, at: At) -> Standing {
        self.hold_after(operation, 0, at)
    }

    /// The request of this kind that comes after `skipped` others stands still there.
    pub(super) fn hold_after(&self, operation: Operation, skipped: u64, at: At) -> Standing {
        let (reached, was_reached) = oneshot::channel();
        let (release, released) = oneshot::channel();
        *self.hold.lock().unwrap() = Some(Hold { operation, skipped, at, reached, released });
        Standing { reached: was_reached, release }
    }

    /// The requests since this was last asked.
    pub(super) fn take_requests(&self) -> Requests {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }

    async fn run<T>(
        &self,
        operation: Operation,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        *self.requests.lock().unwrap().entry(operation).or_default() += 1;
        let hold = self.hold.lock().unwrap().take_if(|hold| {
            let is_it = hold.operation == operation && hold.skipped == 0;
            if hold.operation == operation {
                hold.skipped = hold.skipped.saturating_sub(1);
            }
            is_it
        });
        let Some(Hold { at, reached, released, .. }) = hold else { return request.await };
        let stand = async {
            let _ = reached.send(());
            let _ = released.await;
        };
        if at == At::Asking {
            stand.await;
            return request.await;
        }
        let result = request.await;
        stand.await;
        result
    }
}

impl Standing {
    /// Lets `others` happen while the request stands still, and then lets it go on.
    pub(super) async fn while_it_stands(self, others: impl Future<Output = ()>) {
        self.reached.await.unwrap();
        others.await;
        self.release.send(()).unwrap();
    }
}

#[async_trait]
impl Bucket for Held {
    async fn create(&self, key: &Key, body: Body, purpose: Purpose) -> Result<CreateOutcome, StoreError> {
        self.run(Operation::Create, self.bucket.create(key, body, purpose)).await
    }

    async fn read(&self, key: &Key, range: Option<Range<u64>>, purpose: Purpose) -> Result<Bytes, StoreError> {
        self.run(Operation::Read, self.bucket.read(key, range, purpose)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
        purpose: Purpose,
    ) -> Result<Vec<Listed>, StoreError> {
        self.run(Operation::List, self.bucket.list(prefix, after, limit, purpose)).await
    }

    async fn delete(&self, key: &Key, purpose: Purpose) -> Result<(), StoreError> {
        self.run(Operation::Delete, self.bucket.delete(key, purpose)).await
    }
}
