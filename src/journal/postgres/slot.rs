//! One kind of call's own connection, made when it is needed and again when it was lost.
use std::sync::Arc;
use tokio::sync::Mutex;

use super::connect::Connector;
use super::failure::Failure;
use super::session::Session;

pub(super) struct Slot {
    connector: Arc<Connector>,
    /// A mutex and not an owner task: calls of one kind wait for each other anyway, and who gives up a call takes its
    /// connection along.
    session: Mutex<Option<Session>>,
}

impl Slot {
    pub(super) fn new(connector: Arc<Connector>) -> Self {
        Self { connector, session: Mutex::new(None) }
    }

    /// Runs `call` on the connection. Dropping the future before it has ended cuts the connection; so does a call that
    /// ends in doubt, so that the next one finds out on a fresh one (H17).
    pub(super) async fn with<T>(
        &self,
        call: impl AsyncFnOnce(&mut Session) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut held = self.session.lock().await;
        let mut session = match held.take() {
            Some(session) if session.is_fit(&self.connector.news) => session,
            _ => self.connector.connect().await?,
        };
        let result = call(&mut session).await;
        if result.as_ref().err().is_none_or(Failure::leaves_connection) {
            *held = Some(session);
        }
        result
    }
}
