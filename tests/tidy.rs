//! The house rules that a compiler does not check: who may import whom (`docs/architecture.md`), determinism, names,
//! sizes, licences. A rule that is in the way is changed here or in the table, with a reason, not worked around.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Lines of a file that is no test, at most; beyond it ask what the second subject is.
const LINES_MAX: usize = 600;
/// Longer files, with the reason.
const LONG_FILES: &[(&str, &str)] = &[("src/protocol/verify/table.rs", "a generated table")];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files below `folder` whose names end so, as paths from the root, sorted.
fn files(folder: &str, ends: &[&str]) -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            if path.is_dir()
                && !matches!(&*name, "target" | "node_modules" | "data" | "__pycache__")
                && !name.starts_with('.')
            {
                walk(&path, found);
            } else if path.is_file() {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    let names = found.iter().map(|p| p.strip_prefix(root()).unwrap().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|n| ends.iter().any(|end| n.ends_with(end))).collect();
    names.sort();
    names
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_default()
}

/// A source's lines without comments, with their numbers. A `//` in a string cuts the line too, which hides at most a
/// violation beside a URL.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, line)| (i + 1, line.split("//").next().unwrap_or_default()))
}

/// `src/produce/batcher.rs` → `produce`.
fn room_of(path: &str) -> Option<&str> {
    path.strip_prefix("src/")?.split_once('/').map(|(room, _)| room)
}

/// The rows of the table that follows `heading` in `docs/architecture.md`: the room, and what is in the other column.
fn rows(heading: &str) -> Vec<(String, String)> {
    let text = read("docs/architecture.md");
    let (_, after) = text.split_once(heading).expect("the heading is there");
    let lines = after.lines().skip_while(|l| !l.starts_with('|')).take_while(|l| l.starts_with('|')).skip(2);
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            (cells[1].trim_matches('`').to_owned(), cells[2].to_owned())
        })
        .collect()
}

fn fail_if_any(problems: &[String], rule: &str) {
    assert!(problems.is_empty(), "{rule}:\n{}", problems.join("\n"));
}

#[test]
fn imports_follow_the_table() {
    let mut allowed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut problems = Vec::new();
    for (room, others) in rows("## What may import what") {
        let others: BTreeSet<String> =
            others.split(',').map(|o| o.trim().trim_matches('`').to_owned()).filter(|o| !o.is_empty()).collect();
        for other in others.iter().filter(|o| !allowed.contains_key(*o)) {
            problems.push(format!("docs/architecture.md: {room} may import {other}, which does not stand above it"));
        }
        allowed.insert(room, others);
    }
    for path in files("src", &[".rs"]) {
        let Some(room) = room_of(&path) else { continue };
        let Some(may) = allowed.get(room) else {
            problems.push(format!("{path}: the room {room} is not in the table"));
            continue;
        };
        for (line, text) in code(&read(&path)) {
            for after in text.split("crate::").skip(1) {
                let names = after.strip_prefix('{').map_or_else(|| vec![after], |list| list.split(',').collect());
                for name in names {
                    let name: String =
                        name.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                    if allowed.contains_key(&name) && name != room && !may.contains(&name) {
                        problems.push(format!("{path}:{line}: {room} may not import {name}"));
                    }
                }
            }
        }
    }
    fail_if_any(&problems, "imports go up the table in docs/architecture.md");
}

#[test]
fn every_room_is_on_the_map_and_says_what_it_owns() {
    let on_the_map: BTreeSet<String> = rows("## Rooms").into_iter().map(|(room, _)| room).collect();
    let in_the_table: BTreeSet<String> = rows("## What may import what").into_iter().map(|(room, _)| room).collect();
    let there: BTreeSet<String> = files("src", &[".rs"]).iter().filter_map(|p| room_of(p)).map(str::to_owned).collect();
    assert_eq!((&on_the_map, &in_the_table), (&there, &there));
    let plan = read("src/lib.rs");
    let silent: Vec<String> = there
        .iter()
        .filter(|room| {
            !plan.contains(&format!("pub mod {room};")) || !read(&format!("src/{room}/mod.rs")).starts_with("//!")
        })
        .cloned()
        .collect();
    fail_if_any(&silent, "rooms that are not in lib.rs, or whose mod.rs does not begin with what they own");
}

#[test]
fn packages_stay_in_their_rooms() {
    let homes = [
        ("serde_yaml::", "config"),
        ("object_store::", "store"),
        ("rusqlite::", "journal"),
        ("tokio_postgres::", "journal"),
        ("prometheus_client::", "telemetry"),
        ("axum::", "telemetry"),
        ("clap::", "cli"),
    ];
    let mut problems = Vec::new();
    for path in files("src", &[".rs"]).iter().filter(|p| *p != "src/main.rs") {
        for (line, text) in code(&read(path)) {
            for (package, home) in homes {
                if text.contains(package) && room_of(path) != Some(home) {
                    problems.push(format!("{path}:{line}: {package} belongs to {home}"));
                }
            }
        }
    }
    fail_if_any(&problems, "a package that others could replace is known to one room");
}

#[test]
fn what_has_a_name_has_a_room() {
    let bad = ["utils", "util", "helpers", "helper", "common", "misc", "shared"];
    let stem = |part: &str| part.split('.').next().unwrap_or_default().to_owned();
    let problems: Vec<String> = files("src", &[".rs"])
        .into_iter()
        .filter(|p| p.split('/').any(|part| bad.contains(&stem(part).as_str())))
        .collect();
    fail_if_any(&problems, "names that say nothing");
}

#[test]
fn select_is_biased() {
    let mut problems = Vec::new();
    for path in files("src", &[".rs"]) {
        let text: String = code(&read(&path)).map(|(_, line)| format!("{line}\n")).collect();
        for (at, _) in text.match_indices("select!") {
            let body = text[at..].split_once('{').map_or("", |(_, body)| body.trim_start());
            if !body.starts_with("biased;") {
                problems.push(format!("{path}:{}", text[..at].lines().count().max(1)));
            }
        }
    }
    fail_if_any(&problems, "a select! without `biased;` asks a random number that no seed rules");
}

#[test]
fn agreement_does_not_depend_on_hash_seeds() {
    let rooms = ["state", "group", "txn", "metadata"];
    let mut problems = Vec::new();
    for path in files("src", &[".rs"]) {
        if !room_of(&path).is_some_and(|room| rooms.contains(&room)) {
            continue;
        }
        for (line, text) in code(&read(&path)) {
            if ["HashMap", "HashSet", "RandomState", "DefaultHasher"].iter().any(|word| text.contains(word)) {
                problems.push(format!("{path}:{line}: {}", text.trim()));
            }
        }
    }
    fail_if_any(&problems, "maps with random order give each broker another State: use BTreeMap or imbl::OrdMap");
}

#[test]
fn files_stay_short() {
    let listed = |path: &str| LONG_FILES.iter().any(|(long, _)| *long == path);
    let is_test = |path: &str| path.ends_with("tests.rs") || path.contains("/tests/");
    let mut problems: Vec<String> = Vec::new();
    for path in files("src", &[".rs"]) {
        let lines = read(&path).lines().count();
        if lines > LINES_MAX && !listed(&path) && !is_test(&path) {
            problems.push(format!("{path}: {lines} lines"));
        }
    }
    problems.extend(
        LONG_FILES
            .iter()
            .filter(|(p, _)| read(p).lines().count() <= LINES_MAX)
            .map(|(p, _)| format!("{p} is listed, and is not long")),
    );
    fail_if_any(&problems, "files over the limit that are not listed in tests/tidy.rs");
}

#[test]
fn the_repository_stands_by_itself() {
    let outside =
        [concat!("../", "shared"), concat!("/work/", "shared"), concat!("/work/", "main"), concat!("/tmp/", "cache")];
    let mut problems = Vec::new();
    for path in
        files("", &[".rs", ".md", ".toml", ".py", ".sh", ".java", ".go", ".js", ".yaml", ".yml", ".json", "Makefile"])
    {
        for (i, line) in read(&path).lines().enumerate() {
            if outside.iter().any(|word| line.contains(word)) {
                problems.push(format!("{path}:{}: {}", i + 1, line.trim()));
            }
        }
    }
    fail_if_any(&problems, "nothing may refer to what is not in the repository");
}

#[test]
fn settings_name_metrics_that_exist() {
    let known = |metric: &str| strandline::telemetry::metrics::names().any(|name| name == metric);
    let settings = strandline::config::settings().filter(|s| !s.metric.is_empty() && !known(s.metric));
    let problems: Vec<String> = settings.map(|s| format!("{}: {}", s.path(), s.metric)).collect();
    fail_if_any(&problems, "settings that name a metric which is not there");
}

#[test]
fn licences_are_those_of_deny_toml() {
    let deny = read("deny.toml");
    let (_, list) = deny.split_once("allow = [").unwrap();
    let allowed: Vec<&str> = list.split_once(']').unwrap().0.split('"').skip(1).step_by(2).collect();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = std::process::Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let refused =
        packages.iter().filter(|package| !licence_fits(package["license"].as_str().unwrap_or_default(), &allowed));
    let problems: Vec<String> = refused.map(|p| format!("{} {}: {}", p["name"], p["version"], p["license"])).collect();
    assert!(packages.len() > 100, "cargo metadata lists the dependencies");
    fail_if_any(&problems, "licences that deny.toml does not allow");
}

/// Whether the SPDX expression can be met with the allowed licences. `/` is an old spelling of OR.
fn licence_fits(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ").replace(" WITH ", "_WITH_");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let (fits, used) = any_of(&tokens, allowed);
    fits && used == tokens.len()
}

/// `a OR b …`; whether it fits, and how many tokens it took.
fn any_of(tokens: &[&str], allowed: &[&str]) -> (bool, usize) {
    let (mut fits, mut used) = all_of(tokens, allowed);
    while tokens.get(used) == Some(&"OR") {
        let (also, more) = all_of(&tokens[used + 1..], allowed);
        (fits, used) = (fits || also, used + 1 + more);
    }
    (fits, used)
}

fn all_of(tokens: &[&str], allowed: &[&str]) -> (bool, usize) {
    let (mut fits, mut used) = one(tokens, allowed);
    while tokens.get(used) == Some(&"AND") {
        let (also, more) = one(&tokens[used + 1..], allowed);
        (fits, used) = (fits && also, used + 1 + more);
    }
    (fits, used)
}

fn one(tokens: &[&str], allowed: &[&str]) -> (bool, usize) {
    match tokens.first() {
        None => (false, 0),
        Some(&"(") => {
            let (fits, used) = any_of(&tokens[1..], allowed);
            (fits && tokens.get(used + 1) == Some(&")"), used + 2)
        }
        Some(name) => {
            let name = name.trim_end_matches('+').replace("_WITH_", " WITH ");
            (allowed.contains(&name.as_str()), 1)
        }
    }
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"];
    for (expression, fits) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("ISC AND (GPL-3.0 OR MIT)", true),
        ("ISC AND (GPL-3.0 AND MIT)", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("", false),
    ] {
        assert_eq!(licence_fits(expression, &allowed), fits, "{expression}");
    }
}
