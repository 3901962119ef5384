//! The real binary's command line: what it prints, and its exit codes.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
use std::path::Path;
use std::process::{Command, Output};

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strandline"));
    command.args(arguments).env_clear().envs(variables.iter().copied());
    command.output().unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

fn file(directory: &Path, text: &str) -> String {
    let path = directory.join("strandline.yaml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn the_documented_file_passes_its_own_check() {
    let directory = tempfile::tempdir().unwrap();
    let (default, _) = texts(&run(&["config", "default"], &[]));
    let path = file(directory.path(), &default);
    let output = run(&["config", "check", &path], &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(texts(&output).0.starts_with(&format!("{path}: no objections\n")));
}

#[test]
fn a_bad_file_is_refused_with_line_and_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "kafka:\n  num.partition: 3\n");
    let expected =
        format!("strandline: {path}:2: kafka.num.partition: there is no such key; did you mean `num.partitions`?\n");
    for arguments in [["config", "check", path.as_str()], ["serve", "--config", path.as_str()]] {
        let output = run(&arguments, &[]);
        assert_eq!((output.status.code(), texts(&output).1), (Some(2), expected.clone()));
    }
}

#[test]
fn flags_and_environment_are_refused_by_name() {
    let output = run(&["serve", "--listen", "0.0.0.0:9092"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        texts(&output)
            .1
            .starts_with("strandline: --listen: listeners.0.address: 0.0.0.0:9092 can be reached by other machines")
    );
    let output = run(&["serve"], &[("STRANDLINE_CONFIG", "/no/such.yaml")]);
    assert!(texts(&output).1.starts_with("strandline: /no/such.yaml: can't be read"), "{output:?}");
    let output = run(&["serve"], &[("STRANDLINE_KAFKA__NUM_PARTITIONS", "none")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(texts(&output).1.starts_with("strandline: environment variable STRANDLINE_KAFKA__NUM_PARTITIONS: kafka.num.partitions: \"none\" is not a whole number"));
}

#[test]
fn the_version_is_printed() {
    let output = run(&["version"], &[]);
    assert_eq!(
        (output.status.code(), texts(&output).0),
        (Some(0), format!("strandline {}\n", env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(run(&["sevre"], &[]).status.code(), Some(2));
}

#[test]
fn a_group_of_a_broker_that_is_not_there_is_refused_with_the_remedy() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap().to_string();
    drop(listener);
    for arguments in
        [["group", "list", "--server", &server].as_slice(), &["group", "describe", "g", "--server", &server]]
    {
        let output = run(arguments, &[]);
        assert_eq!(output.status.code(), Some(1));
        let error = texts(&output).1;
        assert!(error.starts_with(&format!("strandline: no broker answers at {server}: ")), "{error}");
        assert!(error.ends_with("; name one with --server HOST:PORT\n"), "{error}");
    }
}
