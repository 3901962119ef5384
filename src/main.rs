//! Arguments, logging, runtime, exit code; everything else is in the library.
use clap::Parser;
use std::process::ExitCode;
use strandline::cli::{
    self, Arguments, Audit, BucketCommand, Command, ForkCommand, SegmentCommand, Source, TopicCommand,
};
use strandline::config::{Config, ConfigError, Log, LogFormat, LogLevel};
use strandline::metadata::Choice;
use strandline::server::{self, ServerError};
use strandline::telemetry::logging;

/// Buffers of many sizes come and go on other threads than they were made on; the system's allocator keeps what they
/// leave behind.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Where the kernel gives memory in huge pages it clears 2 MiB for the first byte of each, and counts them for the last
    // one that is in use: memory that comes and goes gains nothing by them. Without leave to say so it only costs more.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    match Arguments::parse().command {
        Command::Version => {
            cli::print(concat!("strandline ", env!("CARGO_PKG_VERSION"), "\n"));
            ExitCode::SUCCESS
        }
        Command::Config(command) => command.run(),
        Command::Group(command) => command.run(),
        Command::Broker(command) => command.run(),
        Command::Audit(Audit { topic, fast, stores }) => {
            tool(stores.load(), async move |config| server::audit(&config, topic.as_deref(), fast).await)
        }
        Command::Bucket(BucketCommand::Sweep { stores, .. }) => {
            tool(stores.load(), async |config| server::show_garbage(&config).await)
        }
        Command::Fork(ForkCommand::Show { stores }) => {
            tool(stores.load(), async |config| server::show_fork(&config).await)
        }
        Command::Fork(ForkCommand::Resolve { from, stores }) => {
            let choice = from.map(|from| match from {
                Source::Bucket => Choice::Bucket,
                Source::Journal => Choice::Journal,
            });
            tool(stores.load(), async move |config| server::resolve_fork(&config, choice).await)
        }
        Command::Segment(SegmentCommand::Dump { object, records, stores }) => {
            tool(stores.load(), async move |config| server::dump_segment(&config, &object, records).await)
        }
        Command::Topic(TopicCommand::Describe { topic, stores }) => {
            tool(stores.load(), async move |config| server::describe_topic(&config, &topic).await)
        }
        Command::Serve(arguments) => match arguments.load() {
            Ok(config) => on_runtime(&config.log.clone(), async { server::run(config).await.map(|()| String::new()) }),
            Err(error) => cli::refuse(&error),
        },
    }
}

/// Does something on the stores of a configuration, and prints what came of it.
fn tool(config: Result<Config, ConfigError>, run: impl AsyncFnOnce(Config) -> Result<String, ServerError>) -> ExitCode {
    match config {
        Ok(config) => on_runtime(&config.log.clone(), run(config)),
        Err(error) => cli::refuse(&error),
    }
}

fn on_runtime(log: &Log, run: impl Future<Output = Result<String, ServerError>>) -> ExitCode {
    if let Err(error) = logging::start(format(log), &filter(log)) {
        eprintln!("strandline: {error}");
        return ExitCode::from(cli::EXIT_BAD_CONFIG);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("strandline").build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the runtime can't be started: {error}")),
    };
    match runtime.block_on(run) {
        Ok(text) => {
            cli::print(&text);
            ExitCode::SUCCESS
        }
        Err(ServerError::Unsound(report)) => {
            cli::print(&report);
            ExitCode::from(cli::EXIT_UNSOUND)
        }
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
