//! What the fuzzer (`integration-tests/fuzz`) begins with.
use super::*;

/// Keeps the seeds short: mutations of long ones hit what matters less often.
const SEED_BYTES_MAX: usize = 300;

/// Each API and version has a seed, the key and the version before it; `UPDATE_CORPUS=1` adds those that lack one.
#[test]
fn the_fuzzer_has_a_request_of_every_api_and_version() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("integration-tests/fuzz/corpus/request.txt");
    let mut corpus = std::fs::read_to_string(&path).unwrap_or_default();
    let mut missing = Vec::new();
    for (api, version) in all() {
        let head = format!("{:02x}{version:02x}", api.key);
        if corpus.lines().any(|line| line.starts_with(&head)) {
            continue;
        }
        missing.push((api.key, version));
        let samples = (0..40).map(|seed| Sample::of(api, version, seed)).filter(|body| body.len() <= SEED_BYTES_MAX);
        let body = samples.max_by_key(Vec::len).expect("some are short");
        let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
        corpus.push_str(&format!("{head}{hex}\n"));
    }
    if std::env::var_os("UPDATE_CORPUS").is_some() {
        std::fs::write(&path, corpus).unwrap();
        return;
    }
    assert!(missing.is_empty(), "no request of {missing:?} in {}: run with UPDATE_CORPUS=1", path.display());
}
