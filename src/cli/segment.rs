//! `segment dump`: what an object of the bucket holds.
use super::Stores;

#[derive(Debug, clap::Subcommand)]
pub enum SegmentCommand {
    /// Shows an object's runs and batches, as `kafka-dump-log` shows a log file's.
    Dump {
        /// The object's key in the bucket: `data/…` or `compacted/…`.
        object: String,
        /// Shows the records too.
        #[arg(long)]
        records: bool,
        #[command(flatten)]
        stores: Stores,
    },
}
