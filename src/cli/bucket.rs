//! `bucket sweep`: arguments of what is looked at without a broker, on the journal and the bucket themselves.
use super::Stores;

#[derive(Debug, clap::Subcommand)]
pub enum BucketCommand {
    /// Shows what brokers delete from the bucket by themselves: objects that nothing refers to any more, and those that no
    /// entry of the journal ever named.
    Sweep {
        /// Only shows it, and changes nothing. Required: brokers do the rest.
        #[arg(long, required = true)]
        dry_run: bool,
        #[command(flatten)]
        stores: Stores,
    },
}
