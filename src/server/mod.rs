//! (being built)
use crate::config::Config;

/// Why a broker could not be started, or stopped other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("not built yet")]
    NotBuilt,
}

/// Runs a broker until it is told to stop.
///
/// # Errors
/// Why it could not be started.
#[expect(clippy::unused_async, reason = "being built")]
pub async fn run(_config: Config) -> Result<(), ServerError> {
    Err(ServerError::NotBuilt)
}
