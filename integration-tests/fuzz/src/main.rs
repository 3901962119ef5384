//! Hostile bytes for every decoder that faces the network, stored objects or a configuration. libFuzzer makes the inputs,
//! `TARGET` names the decoder; `tests/run.rs` runs all of them, shortly or for long. Each target says what must hold
//! beside not panicking; a run also ends at an input that takes ten seconds or a gigabyte.
#![no_main]
mod batches;
mod broker;
mod config;
mod groups;
mod heap;
mod objects;
mod requests;
mod state;

use libfuzzer_sys::{Corpus, fuzz_target};
use std::sync::OnceLock;

/// What is done with one input. False where it is too far from what the decoder reads to be worth keeping.
type Target = fn(&[u8]) -> bool;

const TARGETS: &[(&str, Target)] = &[
    ("frame", requests::frame),
    ("request", requests::request),
    ("batch", batches::batch),
    ("codec", batches::codec),
    ("journal", state::journal),
    ("runs", state::runs),
    ("snapshot", state::snapshot),
    ("object", objects::object),
    ("marker", objects::marker),
    ("names", objects::names),
    ("yaml", config::yaml),
    ("environment", config::environment),
    ("settings", config::settings),
    ("group", groups::group),
    ("broker", broker::broker),
];

fn target() -> Target {
    static CHOSEN: OnceLock<Target> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("TARGET").unwrap_or_default();
        let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        let found = TARGETS.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("TARGET must be one of {}", names.join(" "))).1
    })
}

fuzz_target!(|data: &[u8]| -> Corpus { if target()(data) { Corpus::Keep } else { Corpus::Reject } });
