//! Runs every target of the fuzzer. Alone (`make check`) each runs its corpus: libFuzzer mutates nothing where it sees no
//! coverage. `FUZZ_SECONDS=n` (`make fuzz`, which builds with coverage) runs each for so long, from a seed that is printed; with `FUZZ_GROW=1` what reached new code is added to the corpus. `TARGET=name` runs one.
//!
//! A corpus is a text: a line of hexadecimal for each input. An input that fails is left in `target/fuzz/NAME/failed-…`;
//! `TARGET=NAME target/release/fuzz FILE` runs it again.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
#![allow(clippy::disallowed_methods, reason = "it shows how long it took")]
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Name, longest input in bytes.
const TARGETS: &[(&str, u32)] = &[
    ("frame", 512),
    ("request", 4096),
    ("batch", 4096),
    ("codec", 4096),
    ("journal", 4096),
    ("runs", 1024),
    ("snapshot", 8192),
    ("object", 4096),
    ("marker", 256),
    ("names", 800),
    ("yaml", 8192),
    ("environment", 1024),
    ("settings", 1024),
    ("group", 2048),
    ("broker", 4096),
];

/// Targets that run beside each other.
const WORKERS: usize = 2;

fn corpus_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(format!("{name}.txt"))
}

/// An empty directory for what a target reads or leaves.
fn place(name: &str, what: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fuzz").join(name).join(what);
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place).unwrap();
    place
}

fn unhex(line: &str) -> Vec<u8> {
    (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect()
}

/// Writes a corpus out as libFuzzer wants it, a file for each input.
fn unpack(name: &str) -> PathBuf {
    let place = place(name, "corpus");
    let text = std::fs::read_to_string(corpus_file(name)).unwrap_or_default();
    for (at, line) in text.lines().enumerate() {
        std::fs::write(place.join(format!("{at:05}")), unhex(line)).unwrap();
    }
    place
}

fn fuzzer(name: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fuzz"));
    command.env("TARGET", name).env("RUST_BACKTRACE", "0").args([
        "-timeout=10",
        "-rss_limit_mb=1024",
        "-len_control=0",
    ]);
    command
}

/// Runs one target; what it said last if it found something.
fn run(name: &str, longest: u32, seconds: Option<u64>) -> Result<String, String> {
    let corpus = unpack(name);
    let found = place(name, "found");
    let mut command = fuzzer(name);
    command
        .arg(format!("-max_len={longest}"))
        .arg(format!("-artifact_prefix={}/failed-", found.parent().unwrap().display()));
    match seconds {
        None => command.args(std::fs::read_dir(&corpus).unwrap().map(|file| file.unwrap().path())),
        Some(seconds) => {
            command.args(["-use_value_profile=1", "-print_final_stats=1"]).arg(format!("-max_total_time={seconds}"));
            command.arg(&found).arg(&corpus)
        }
    };
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains("# Uses:")).collect();
    if !output.status.success() {
        return Err(format!("{name}:\n{}", lines[lines.len().saturating_sub(60)..].join("\n")));
    }
    if std::env::var_os("FUZZ_GROW").is_some() {
        grow(name, &found, &corpus);
    }
    let told = ["DONE", "INITED", "stat::number_of_executed_units", "Seed:"];
    let last = lines.iter().filter(|line| told.iter().any(|t| line.contains(t))).copied();
    Ok(format!("{name}: {}", last.collect::<Vec<_>>().join("\n    ")))
}

/// Adds to the corpus what reached code that it did not reach.
fn grow(name: &str, found: &Path, corpus: &Path) {
    let merged = place(name, "merged");
    std::fs::remove_dir_all(&merged).unwrap();
    std::fs::rename(corpus, &merged).unwrap();
    assert!(fuzzer(name).arg("-merge=1").arg(&merged).arg(found).output().unwrap().status.success());
    let files = std::fs::read_dir(&merged).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    let mut lines: Vec<String> =
        files.map(|input| input.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n").collect();
    lines.sort_by_key(|line| (line.len(), line.clone()));
    lines.dedup();
    std::fs::write(corpus_file(name), lines.concat()).unwrap();
}

#[test]
fn every_decoder_withstands_hostile_bytes() {
    let seconds = std::env::var("FUZZ_SECONDS").ok().map(|text| text.parse().unwrap());
    let chosen = std::env::var("TARGET").ok();
    let targets: Vec<_> = TARGETS.iter().filter(|(name, ..)| chosen.as_deref().is_none_or(|c| c == *name)).collect();
    assert!(!targets.is_empty(), "TARGET is no target");
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failures = Vec::new();
        while let Some((name, longest)) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
            let began = std::time::Instant::now();
            match run(name, *longest, seconds) {
                Ok(said) => println!("{said}\n    {:.1} s", began.elapsed().as_secs_f64()),
                Err(said) => failures.push(said),
            }
        }
        failures
    };
    let failures: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
