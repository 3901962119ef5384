//! `audit`: its arguments, and how far it is.
use std::io::{IsTerminal, Write};

use super::Stores;

#[derive(Debug, clap::Args)]
pub struct Audit {
    /// Only this topic.
    #[arg(long, value_name = "NAME")]
    pub topic: Option<String>,
    /// Only lists objects, and does not read them.
    #[arg(long)]
    pub fast: bool,
    #[command(flatten)]
    pub stores: Stores,
}

/// Width of the bar, in characters.
const BAR: u64 = 40;

/// Shows on a terminal's standard error that `done` of `all` objects were looked at, one line that is written over.
pub fn show_progress(done: u64, all: u64) {
    let mut out = std::io::stderr();
    if !out.is_terminal() {
        return;
    }
    let filled = (done * BAR).checked_div(all).unwrap_or(BAR).min(BAR);
    let bar = "#".repeat(filled as usize) + &"-".repeat((BAR - filled) as usize);
    let end = if done >= all { "\n" } else { "" };
    // Who does not see it misses nothing.
    let _ = write!(out, "\r[{bar}] {done} of {all} objects{end}").and_then(|()| out.flush());
}
