//! The command line: `serve`, `config check`, `config default`, `group list`, `group describe`, `broker list`, `broker drain`,
//! `audit`, `bucket sweep`, `fork show`, `fork resolve`, `segment dump`, `topic describe`, `version`. Owns what the arguments are called and how errors look to the person who typed them: `strandline: FILE:LINE: key: what is wrong; what would be right`. Decides
//! nothing that the configuration decides. Tests: here, and `tests/cli.rs` on the real binary.
mod audit;
mod broker;
mod bucket;
mod client;
mod fork;
mod group;
mod segment;
mod topic;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use audit::{Audit, show_progress};
pub use broker::BrokerCommand;
pub use bucket::BucketCommand;
pub use fork::{ForkCommand, Source, Stores};
pub use group::GroupCommand;
pub use segment::SegmentCommand;
pub use topic::TopicCommand;

use crate::config::setting::Effect;
use crate::config::{Config, ConfigError, Flags, document, settings};

/// The configuration is refused, or the arguments can't be understood (clap's own code).
pub const EXIT_BAD_CONFIG: u8 = 2;
/// Anything else went wrong.
pub const EXIT_FAILED: u8 = 1;
/// An audit found that records are lost, or will be.
pub const EXIT_UNSOUND: u8 = 3;

/// Names the configuration file where `--config` does not; the only variable of its kind that is no setting.
const CONFIG_VARIABLE: &str = "STRANDLINE_CONFIG";

/// A Kafka broker without disks.
#[derive(Debug, Parser)]
#[command(name = "strandline", version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a broker until it is told to stop (SIGTERM, Ctrl-C).
    Serve(Serve),
    /// Shows and checks configurations.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Shows consumer groups of a running broker.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Shows the brokers of a running cluster, and takes one out of it.
    #[command(subcommand)]
    Broker(BrokerCommand),
    /// Proves that the logs are whole and that the bucket holds what they refer to. Brokers may run, unless the journal is an
    /// SQLite file.
    Audit(Audit),
    /// Looks at what the bucket holds and nobody needs any more.
    #[command(subcommand)]
    Bucket(BucketCommand),
    /// Looks at a forked history of the journal, and resolves it.
    #[command(subcommand)]
    Fork(ForkCommand),
    /// Looks into objects of the bucket.
    #[command(subcommand)]
    Segment(SegmentCommand),
    /// Shows where a topic's records lie.
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Prints the version.
    Version,
}

#[derive(Debug, clap::Args)]
pub struct Serve {
    /// The YAML file with the configuration; also by the variable STRANDLINE_CONFIG. Without one, the defaults and the
    /// environment count.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of what is kept on this machine; without other settings that is everything (`data_dir`).
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// The one address to listen on, in place of `listeners`.
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Says what is wrong with a file, under the environment of this command.
    Check { file: PathBuf },
    /// Prints a file with every setting, its documentation and its default.
    Default,
}

impl Serve {
    /// The checked configuration of file, environment and flags.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(&self) -> Result<Config, ConfigError> {
        load(self.config.as_deref(), &Flags { data: self.data.clone(), listen: self.listen.clone() })
    }
}

/// The configuration of the file that is named here or by the environment, of the environment and of flags.
fn load(file: Option<&Path>, flags: &Flags) -> Result<Config, ConfigError> {
    let named = || std::env::var_os(CONFIG_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
    Config::load(file.map(Path::to_owned).or_else(named).as_deref(), environment(), flags)
}

impl ConfigCommand {
    /// Does what was asked, on standard output and error.
    #[must_use]
    pub fn run(&self) -> ExitCode {
        match self {
            Self::Default => {
                print(&document::default_file());
                ExitCode::SUCCESS
            }
            Self::Check { file } => match Config::load(Some(file), environment(), &Flags::default()) {
                Ok(config) => {
                    print(&format!("{}: no objections\n{}", file.display(), notes(&config)));
                    ExitCode::SUCCESS
                }
                Err(error) => refuse(&error),
            },
        }
    }
}

/// Prints what is wrong with a configuration; the exit code for it.
#[must_use]
pub fn refuse(error: &ConfigError) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(EXIT_BAD_CONFIG)
}

/// Writes to standard output; a reader that hangs up (`| head`) is no error.
pub fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// The process's environment. Variables that are not Unicode are no settings.
fn environment() -> impl Iterator<Item = (String, String)> {
    let known = |name: &std::ffi::OsString| name != CONFIG_VARIABLE;
    std::env::vars_os()
        .filter(move |(name, _)| known(name))
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

/// A line for each given setting that does nothing in this version.
fn notes(config: &Config) -> String {
    let mut notes = String::new();
    for setting in settings().filter(|s| config.is_given(&s.path())) {
        match setting.effect {
            Effect::Works => {}
            Effect::Later(what) => notes.push_str(&format!("note: {} has no effect yet: {what}\n", setting.path())),
            Effect::None(why) => notes.push_str(&format!("note: {} has no effect: {why}\n", setting.path())),
        }
    }
    for name in config.ignored() {
        notes.push_str(&format!("note: {name} has no effect: what it tunes is not here\n"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_hang_together() {
        Arguments::command().debug_assert();
        let parsed =
            Arguments::try_parse_from(["strandline", "serve", "--data", "d", "--listen", "localhost:1"]).unwrap();
        assert!(matches!(parsed.command, Command::Serve(Serve { data: Some(_), listen: Some(_), config: None })));
        assert!(Arguments::try_parse_from(["strandline", "serve", "--prot", "1"]).is_err());
    }

    #[test]
    fn settings_without_effect_are_noted() {
        let config = Config::from_yaml("kafka:\n  min.insync.replicas: 2\n  num.io.threads: 4\n").unwrap();
        let expected = "note: kafka.min.insync.replicas has no effect: the bucket replicates\n\
                        note: kafka.num.io.threads has no effect: what it tunes is not here\n";
        assert_eq!(notes(&config), expected);
    }
}
