//! Hears of what others append: from the server's notifications where there are any, and by looking in any case, since a
//! notification is a hint that may be lost. Runs for as long as the journal is open.
use std::sync::Arc;
use std::time::Duration;
use tracing::debug;

use super::checks::Engine;
use super::connect::{Connector, Unfit};
use super::schema;
use super::session::Session;

/// Between looks: beside notifications, and where there are none. What a lost notification costs, and what an idle
/// broker asks of the server.
const POLL: Duration = Duration::from_millis(500);
const POLL_WITHOUT_PUSH: Duration = Duration::from_millis(50);

pub(super) async fn run(connector: Arc<Connector>) {
    loop {
        match connector.connect().await {
            Ok(session) => {
                let reason = follow(&connector, session).await;
                debug!(reason, "the connection that hears of appends ended");
            }
            Err(unconnected) => {
                // Whoever waits for the journal to go on has to learn that it doesn't.
                if unconnected.0.iter().any(|(_, unfit)| matches!(unfit, Unfit::Forked { .. })) {
                    connector.news.renew();
                }
            }
        }
    }
}

/// Looks until the connection fails; why it did.
async fn follow(connector: &Connector, mut session: Session) -> String {
    let listens = session.listen(&schema::channel(&connector.settings.schema)).await;
    // Older YugabyteDB takes the statement, and ignores it.
    let is_told = listens && session.engine == Engine::Postgres;
    let usual = if is_told { POLL } else { POLL_WITHOUT_PUSH };
    let interval = connector.settings.poll_interval.unwrap_or(usual);
    loop {
        match connector.world.timeout(connector.settings.connect_timeout, session.head()).await {
            Some(Ok(head)) => connector.news.saw(head.position),
            Some(Err(failure)) => return format!("{failure:?}"),
            None => return "no answer in time".to_owned(),
        }
        connector.world.sleep(interval).await;
        if !session.is_fit(&connector.news) {
            return "it was of another server".to_owned();
        }
    }
}
