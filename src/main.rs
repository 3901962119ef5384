//! Arguments, logging, runtime, exit code; everything else is in the library.
use clap::Parser;
use std::process::ExitCode;
use strandline::cli::{self, Arguments, Command};
use strandline::config::{Config, Log, LogFormat, LogLevel};
use strandline::{server, telemetry::logging};

/// Buffers of many sizes come and go on other threads than they were made on; the system's allocator keeps what they
/// leave behind.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Version => {
            cli::print(concat!("strandline ", env!("CARGO_PKG_VERSION"), "\n"));
            ExitCode::SUCCESS
        }
        Command::Config(command) => command.run(),
        Command::Group(command) => command.run(),
        Command::Broker(command) => command.run(),
        Command::Serve(arguments) => match arguments.load() {
            Ok(config) => serve(config),
            Err(error) => cli::refuse(&error),
        },
    }
}

fn serve(config: Config) -> ExitCode {
    if let Err(error) = logging::start(format(&config.log), &filter(&config.log)) {
        eprintln!("strandline: {error}");
        return ExitCode::from(cli::EXIT_BAD_CONFIG);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("strandline").build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the runtime can't be started: {error}")),
    };
    match runtime.block_on(server::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(what: &str) -> ExitCode {
    eprintln!("strandline: {what}");
    ExitCode::from(cli::EXIT_FAILED)
}

fn format(log: &Log) -> logging::Format {
    match log.format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    }
}

/// The level is that of our own lines; libraries never say more than `info`.
fn filter(log: &Log) -> String {
    match log.level {
        LogLevel::Debug | LogLevel::Trace => format!("info,strandline={}", log.level.name()),
        level => level.name().to_owned(),
    }
}
