//! `topic describe`: where a topic's records lie.
use super::Stores;

#[derive(Debug, clap::Subcommand)]
pub enum TopicCommand {
    /// Shows a topic's partitions: log start and end, bytes and objects by level (0 for flushes, 1 and 2 for what compaction
    /// made of them), oldest record. Brokers may run, unless the journal is an SQLite file.
    Describe {
        topic: String,
        #[command(flatten)]
        stores: Stores,
    },
}
