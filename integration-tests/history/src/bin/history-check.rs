//! `history-check [OPTION…] FILE…`: checks the histories that clients of one run wrote as JSON lines, prints the report,
//! and exits with 1 at an anomaly, with 2 where the files are no history. Options are those of `check::Options`:
//! `--poll-lag-us N`, `--end-lag-us N`, `--own-lag-us N`, `--liveness-us N`, `--retention`, `--holes-legal`,
//! `--log-append-time`, `--authorization`, `--final-reads`, `--lenient-no`, `--many-epochs`.
use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

use strandline_history::json::Reader;
use strandline_history::{Options, check};

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(clean) => ExitCode::from(u8::from(!clean)),
        Err(problem) => {
            eprintln!("history-check: {problem}");
            ExitCode::from(2)
        }
    }
}

fn run(mut arguments: impl Iterator<Item = String>) -> Result<bool, String> {
    let (mut options, mut reader, mut files) = (Options::default(), Reader::default(), 0);
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let text = arguments.next().unwrap_or_default();
            text.parse().map_err(|_| format!("{argument} needs a number, not {text:?}"))
        };
        match argument.as_str() {
            "--poll-lag-us" => options.poll_lag_us = number()?,
            "--end-lag-us" => options.end_lag_us = number()?,
            "--own-lag-us" => options.own_lag_us = number()?,
            "--liveness-us" => options.liveness_us = number()?,
            "--retention" => options.retention = true,
            "--holes-legal" => options.holes_legal = true,
            "--log-append-time" => options.log_append_time = true,
            "--authorization" => options.authorization = true,
            "--final-reads" => options.final_reads = true,
            "--lenient-no" => options.strict_no = false,
            "--many-epochs" => options.one_epoch = false,
            option if option.starts_with("--") => return Err(format!("no option {option}")),
            path => {
                let file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
                reader.add(BufReader::new(file)).map_err(|error| format!("{path}: {error}"))?;
                files += 1;
            }
        }
    }
    if files == 0 {
        return Err("no file; usage: history-check [OPTION…] FILE…".into());
    }
    let history = reader.finish().map_err(|error| error.to_string())?;
    let report = check(&history, &options);
    println!("{report}");
    Ok(report.is_clean())
}
