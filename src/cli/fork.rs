//! `fork show` and `fork resolve`: arguments of what is done without a broker, on the journal and the bucket themselves.
use clap::ValueEnum;
use std::path::PathBuf;

use super::load;
use crate::config::{Config, ConfigError, Flags};

#[derive(Debug, clap::Subcommand)]
pub enum ForkCommand {
    /// Tells what the journal lacks of what was seen of its history, and which States the bucket has.
    Show {
        #[command(flatten)]
        stores: Stores,
    },
    /// Lets the cluster go on after a fork. No broker may run.
    Resolve {
        /// What to go on from, where the journal lacks something.
        #[arg(long, value_name = "WHAT")]
        from: Option<Source>,
        #[command(flatten)]
        stores: Stores,
    },
}

/// What to go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// The furthest State in the bucket.
    Bucket,
    /// The journal as it is.
    Journal,
}

/// A broker's configuration, of which the journal and the bucket count.
#[derive(Debug, clap::Args)]
pub struct Stores {
    /// The YAML file of a broker; also by the variable STRANDLINE_CONFIG.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The broker's data directory, where the file does not say.
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
}

impl Stores {
    /// The checked configuration of file, environment and flags.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(&self) -> Result<Config, ConfigError> {
        load(self.config.as_deref(), &Flags { data: self.data.clone(), ..Flags::default() })
    }
}
