//! Deletes what was trimmed, a piece at a time, on a connection of its own that is there only meanwhile. What is left when
//! the process ends is deleted after the next start, or by another broker.
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

use super::connect::Connector;

/// Deleted in one transaction: it holds no lock that an append waits for, and should not be a burst on the server's disk.
const ROWS: i64 = 256;
const BETWEEN: Duration = Duration::from_millis(5);

/// After a failure.
const AGAIN: Duration = Duration::from_secs(5);

pub(super) async fn run(connector: Arc<Connector>, trimmed: Arc<Notify>) {
    loop {
        while !everything(&connector).await {
            connector.world.sleep(AGAIN).await;
        }
        trimmed.notified().await;
    }
}

/// False if it failed on the way.
async fn everything(connector: &Connector) -> bool {
    let Ok(mut session) = connector.connect().await else { return false };
    loop {
        match session.sweep(ROWS).await {
            Ok(0) => return true,
            Ok(_) => connector.world.sleep(BETWEEN).await,
            Err(_) => return false,
        }
    }
}
