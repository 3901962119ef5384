//! `strandline-load`: loads a Kafka broker and checks what it kept. It is its own package so that nothing of the broker
//! is in it; it speaks to any broker that serves the usual APIs, and prints one JSON object.

mod admin;
mod batch;
mod consume;
mod fetch;
mod frame;
mod group;
mod group_load;
mod identity;
mod measure;
mod produce;
mod trip;
mod verify_check;
mod verify_load;
mod wire;

use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};

use crate::wire::Wire;

#[derive(Parser)]
#[command(about = "Loads a Kafka broker and checks what it kept; prints JSON")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write as fast as the broker acknowledges, or at a rate.
    Produce(produce::Produce),
    /// Read from the beginning to the end.
    Consume(consume::Consume),
    /// Measure single records on a quiet broker: until acknowledged, until consumed.
    Trip(trip::Trip),
    /// Wait for the first record that a starting broker acknowledges.
    First(trip::First),
    /// Write through crashes of the broker, and note what was acknowledged.
    VerifyLoad(verify_load::VerifyLoad),
    /// Read everything and hold it against what was acknowledged.
    VerifyCheck(verify_check::VerifyCheck),
    /// Commit offsets from many consumers.
    GroupCommit(group_load::GroupCommit),
    /// Form a large group, take a member away, restart it member by member.
    GroupRebalance(group_load::GroupRebalance),
    /// Create the topics and nothing else.
    Create(Target),
    /// Delete the topics.
    Delete(Target),
}

/// Where to write and read. Topic `t` is one name, or `t-0`, `t-1` … where there are several.
#[derive(Args, Clone)]
struct Target {
    /// Addresses; connections are spread over them. Any broker is expected to serve any partition.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:9092")]
    bootstrap: Vec<String>,
    #[arg(long, default_value = "load")]
    topic: String,
    #[arg(long, default_value_t = 1)]
    topics: u32,
    /// Partitions of each topic.
    #[arg(long, default_value_t = 16)]
    partitions: i32,
    /// Create the topics first.
    #[arg(long)]
    create: bool,
    /// A setting of the topics that are created: key=value.
    #[arg(long = "config", value_parser = key_value)]
    configs: Vec<(String, String)>,
}

impl Target {
    async fn connect(&self, index: usize) -> Result<Wire> {
        Wire::connect(&self.bootstrap[index % self.bootstrap.len()]).await
    }

    fn names(&self) -> Vec<String> {
        match self.topics {
            1 => vec![self.topic.clone()],
            many => (0..many).map(|index| format!("{}-{index}", self.topic)).collect(),
        }
    }

    /// Every (topic, partition).
    fn places(&self) -> Vec<(String, i32)> {
        let partitions = |name: String| (0..self.partitions).map(move |partition| (name.clone(), partition));
        self.names().into_iter().flat_map(partitions).collect()
    }

    /// Creates the topics if that was asked for.
    async fn create_topics(&self) -> Result<()> {
        if self.create {
            let mut wire = self.connect(0).await?;
            for name in self.names() {
                admin::create_topic(&mut wire, &name, self.partitions, &self.configs).await?;
            }
        }
        Ok(())
    }

    async fn delete_topics(&self) -> Result<()> {
        let mut wire = self.connect(0).await?;
        for name in self.names() {
            admin::delete_topic(&mut wire, &name).await?;
        }
        Ok(())
    }
}

/// A number of bytes: plain, or with KiB, MiB, GiB.
#[derive(Clone, Copy, Debug)]
struct Bytes(u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("", 0)];
        let unit = units.into_iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
        let (digits, shift) = unit.unwrap_or((text, 0));
        let number: u64 = digits.parse().map_err(|error| format!("{error}; write 4096, 4KiB, 1MiB or 2GiB"))?;
        number.checked_shl(shift).filter(|bytes| bytes >> shift == number).map(Bytes).ok_or_else(|| "too large".into())
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

async fn dispatch(command: Command) -> Result<Value> {
    match command {
        Command::Produce(args) => produce::run(args).await,
        Command::Consume(args) => consume::run(args).await,
        Command::Trip(args) => trip::run(args).await,
        Command::First(args) => trip::first(args).await,
        Command::VerifyLoad(args) => verify_load::run(args).await,
        Command::VerifyCheck(args) => verify_check::run(args).await,
        Command::GroupCommit(args) => group_load::commit(args).await,
        Command::GroupRebalance(args) => group_load::rebalance(args).await,
        Command::Create(target) => Target { create: true, ..target }.create_topics().await.map(|()| json!({})),
        Command::Delete(target) => target.delete_topics().await.map(|()| json!({})),
    }
}

/// One thread: it has to leave the machine to the broker.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match dispatch(Cli::parse().command).await {
        Ok(result) => {
            println!("{result}");
            match result["violations"].as_array().is_none_or(Vec::is_empty) {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            eprintln!("strandline-load: {error:#}");
            ExitCode::from(2)
        }
    }
}
