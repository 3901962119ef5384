//! Log lines on standard error, as text for people or JSON for collectors. The level comes from the configuration;
//! the environment variable `RUST_LOG` replaces it, by room if wished (`info,strandline::journal=debug`).
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Starts logging for the whole process; `filter` is a level or a `tracing` filter.
///
/// # Errors
/// If the filter can't be understood, or logging was started before.
pub fn start(format: Format, filter: &str) -> Result<(), String> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|e| format!("RUST_LOG={text}: {e}"))?,
        _ => EnvFilter::try_new(filter).map_err(|e| format!("log filter {filter}: {e}"))?,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    }
    .map_err(|e| e.to_string())
}
