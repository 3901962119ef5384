//! `group-commit`: many consumers that commit all the time. `group-rebalance`: a large group that forms, loses a member,
//! and is restarted member by member; how long each takes until every partition has one owner again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::Target;
use crate::admin::topic_name;
use crate::group::{Board, Group, Member, Protocol};
use crate::measure::{Latency, cpu_seconds};
use crate::wire::Wire;

#[derive(Args, Clone)]
pub struct GroupCommit {
    #[command(flatten)]
    target: Target,
    /// Consumers, each the only member of its group.
    #[arg(long, default_value_t = 500)]
    consumers: usize,
    /// Milliseconds between two commits of a consumer.
    #[arg(long, default_value_t = 100)]
    every_ms: u64,
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

#[derive(Args, Clone)]
pub struct GroupRebalance {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 300)]
    members: usize,
    #[arg(long, value_enum, default_value_t = Protocol::Classic)]
    protocol: Protocol,
    /// Milliseconds between two heartbeats of a member.
    #[arg(long, default_value_t = 3000)]
    heartbeat_ms: u64,
    /// The group's name; a new one for each run.
    #[arg(long)]
    group: String,
}

pub async fn commit(args: GroupCommit) -> Result<Value> {
    args.target.create_topics().await?;
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for number in 0..args.consumers {
        let mut group = group(&args.target, number, Protocol::Classic, Uuid::nil());
        group.name = format!("{}-committers-{number}", args.target.topic);
        let args = args.clone();
        tasks.spawn(async move { commit_often(group, number, &args).await });
    }
    let (mut latency, mut commits) = (Latency::new(), 0);
    while let Some(done) = tasks.join_next().await {
        let (one, count) = done??;
        latency.merge(&one);
        commits += count;
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(json!({ "commits": commits, "seconds": seconds, "commit": latency.to_json(), "cpu_seconds": cpu_seconds() }))
}

/// Commits at fixed times, each after the answer to the one before; the latency counts from when it was due.
async fn commit_often(group: Group, number: usize, args: &GroupCommit) -> Result<(Latency, u64)> {
    let mut member = Member::connect(group, number).await?;
    member.join().await?;
    let every = Duration::from_millis(args.every_ms);
    // Not all at the same moment.
    tokio::time::sleep(every.mul_f64(number as f64 / args.consumers as f64)).await;
    let (mut latency, mut count) = (Latency::new(), 0);
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut due = Instant::now();
    while due < end {
        tokio::time::sleep_until(due.into()).await;
        member.commit(i64::try_from(count)?).await?;
        latency.record(due.elapsed());
        count += 1;
        due += every;
    }
    Ok((latency, count))
}

pub async fn rebalance(args: GroupRebalance) -> Result<Value> {
    args.target.create_topics().await?;
    let mut wire = args.target.connect(0).await?;
    let topic_id = topic_id(&mut wire, &args.target.topic).await?;
    let mut crowd =
        Crowd { args: args.clone(), topic_id, board: Board::default(), tasks: JoinSet::new(), leave: vec![] };
    let all = args.members;
    let begun = Instant::now();
    for number in 0..all {
        crowd.enter(number);
    }
    let joined = crowd.settle(all, begun).await.context("mass join")?;
    let begun = Instant::now();
    crowd.dismiss(0);
    let left = crowd.settle(all - 1, begun).await.context("one leaves")?;
    let begun = Instant::now();
    crowd.enter(0);
    let back = crowd.settle(all, begun).await.context("one joins")?;
    let begun = Instant::now();
    for number in 0..all.min(20) {
        crowd.dismiss(number);
        tokio::time::sleep(Duration::from_millis(100)).await;
        crowd.enter(number);
    }
    let rolled = crowd.settle(all, begun).await.context("rolling restart")?;
    crowd.close().await?;
    Ok(json!({ "mass_join_s": joined, "one_leaves_s": left, "one_joins_s": back, "rolling_restart_of_20_s": rolled }))
}

/// The members that run.
struct Crowd {
    args: GroupRebalance,
    topic_id: Uuid,
    board: Board,
    tasks: JoinSet<Result<()>>,
    leave: Vec<(usize, watch::Sender<bool>)>,
}

impl Crowd {
    fn enter(&mut self, number: usize) {
        let mut group = group(&self.args.target, number, self.args.protocol, self.topic_id);
        group.name = self.args.group.clone();
        group.heartbeat = Duration::from_millis(self.args.heartbeat_ms);
        group.board = self.board.clone();
        let (leave, told) = watch::channel(false);
        self.leave.push((number, leave));
        self.tasks.spawn(async move { Member::connect(group, number).await?.run(told).await });
    }

    fn dismiss(&mut self, number: usize) {
        for (_, leave) in self.leave.iter().filter(|(n, _)| *n == number) {
            leave.send_replace(true);
        }
        self.leave.retain(|(n, _)| *n != number);
    }

    /// Seconds since `begun` until every partition has one owner among `members`.
    async fn settle(&mut self, members: usize, begun: Instant) -> Result<f64> {
        while !self.board.is_settled(members, self.args.target.partitions) {
            ensure!(begun.elapsed() < Duration::from_secs(180), "not settled after three minutes");
            if let Some(Ok(Err(error))) = self.tasks.try_join_next() {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(begun.elapsed().as_secs_f64())
    }

    async fn close(mut self) -> Result<()> {
        self.leave.iter().for_each(|(_, leave)| {
            leave.send_replace(true);
        });
        let all = async {
            while let Some(done) = self.tasks.join_next().await {
                done??;
            }
            Ok(())
        };
        tokio::time::timeout(Duration::from_secs(120), all).await.context("members that do not leave")?
    }
}

fn group(target: &Target, number: usize, protocol: Protocol, topic_id: Uuid) -> Group {
    Group {
        bootstrap: target.bootstrap[number % target.bootstrap.len()].clone(),
        name: String::new(),
        topic: target.topic.clone(),
        topic_id,
        partitions: target.partitions,
        protocol,
        heartbeat: Duration::from_secs(3),
        board: Board::default(),
    }
}

async fn topic_id(wire: &mut Wire, topic: &str) -> Result<Uuid> {
    let request = MetadataRequest::default()
        .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(topic_name(topic)))]));
    match wire.call(&request, 12).await?.topics.first() {
        Some(topic) if topic.error_code == 0 => Ok(topic.topic_id),
        _ => bail!("no topic {topic}"),
    }
}
