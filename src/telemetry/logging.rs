//! Log lines on standard error, as text for people or JSON for collectors. The level comes from the configuration;
//! the environment variable `RUST_LOG` replaces it, by room if wished (`info,strandline::journal=debug`).
use std::io::IsTerminal;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Starts logging for the whole process; `filter` is a level, or levels by room as in `RUST_LOG`.
///
/// # Errors
/// If the filter can't be understood, or logging was started before.
pub fn start(format: Format, filter: &str) -> Result<(), String> {
    let parse = |what: &str, text: &str| text.parse::<Targets>().map_err(|e| format!("{what}{text}: {e}"));
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => parse("RUST_LOG=", &text)?,
        _ => parse("log filter ", filter)?,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        Format::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).try_init().map_err(|e| e.to_string())
}
