//! `group list` and `group describe`: what `kafka-consumer-groups` prints, asked of a running broker as any client asks.
use kafka_protocol::messages::consumer_group_describe_response::Assignment;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    BrokerId, ConsumerGroupDescribeRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId, ListGroupsRequest,
    ListOffsetsRequest, MetadataRequest, MetadataResponse, OffsetFetchRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use super::client::{Cluster, Failed, check, show};
use crate::types::KafkaError;

#[derive(Debug, clap::Subcommand)]
pub enum GroupCommand {
    /// Lists the groups of the cluster.
    List {
        #[command(flatten)]
        server: Server,
    },
    /// Prints a group's state, its members, and how far each partition is behind.
    Describe {
        /// The group's id.
        group: String,
        #[command(flatten)]
        server: Server,
    },
}

#[derive(Debug, clap::Args)]
pub struct Server {
    /// A broker of the cluster.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub server: String,
}

type Partition = (String, i32);

/// What is known of a group.
#[derive(Debug, Default)]
struct Group {
    state: String,
    /// `classic` or `consumer`.
    kind: &'static str,
    assignor: String,
    members: Vec<Member>,
    committed: BTreeMap<Partition, i64>,
}

#[derive(Clone, Debug, Default)]
struct Member {
    id: String,
    host: String,
    client: String,
    owned: Vec<Partition>,
}

impl GroupCommand {
    /// Does what was asked, on standard output and error.
    #[must_use]
    pub fn run(&self) -> ExitCode {
        let text = match self {
            Self::List { server } => list(&mut Cluster::new(&server.server)),
            Self::Describe { group, server } => describe(&mut Cluster::new(&server.server), group),
        };
        show(text)
    }
}

fn list(cluster: &mut Cluster) -> Result<String, Failed> {
    let metadata = cluster.ask(9, &MetadataRequest::default().with_topics(Some(Vec::new())))?;
    let mut rows = BTreeSet::new();
    // Each broker lists the groups that it coordinates.
    for broker in addresses(&metadata).into_values() {
        let response = cluster.ask_at(&broker, 5, &ListGroupsRequest::default())?;
        check("the groups can't be listed", response.error_code)?;
        let row = |g: kafka_protocol::messages::list_groups_response::ListedGroup| {
            [g.group_id.to_string(), g.group_type.to_string(), g.protocol_type.to_string(), g.group_state.to_string()]
        };
        rows.extend(response.groups.into_iter().map(row));
    }
    Ok(table(&["GROUP", "TYPE", "PROTOCOL", "STATE"], &rows.into_iter().map(Vec::from).collect::<Vec<_>>()))
}

fn describe(cluster: &mut Cluster, name: &str) -> Result<String, Failed> {
    let id = GroupId(StrBytes::from_string(name.to_owned()));
    let found = cluster.ask(3, &FindCoordinatorRequest::default().with_key(id.0.clone()))?;
    check("the group's coordinator is not known", found.error_code)?;
    let coordinator = address(&found.host, found.port);
    let mut group = members(cluster, &coordinator, &id)?;
    group.committed = committed(cluster, &coordinator, &id)?;
    if group.state == "Dead" && group.committed.is_empty() {
        return Err(Failed(format!("there is no group {}", clean(name))));
    }
    let owned = group.members.iter().flat_map(|m| m.owned.iter().cloned());
    let partitions: BTreeSet<Partition> = group.committed.keys().cloned().chain(owned).collect();
    let ends = ends(cluster, &partitions)?;
    Ok(report(name, &group, &ends))
}

/// State and members, by whichever protocol the group has.
fn members(cluster: &mut Cluster, coordinator: &str, id: &GroupId) -> Result<Group, Failed> {
    let not_found = KafkaError::GroupIdNotFound.code();
    if cluster.offers::<ConsumerGroupDescribeRequest>() {
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![id.clone()]);
        let response = cluster.ask_at(coordinator, 1, &request)?;
        let found = response.groups.into_iter().find(|g| g.error_code != not_found);
        if let Some(found) = found {
            check("the group can't be described", found.error_code)?;
            let member = |m: kafka_protocol::messages::consumer_group_describe_response::Member| Member {
                id: m.member_id.to_string(),
                host: m.client_host.to_string(),
                client: m.client_id.to_string(),
                owned: owned(m.assignment),
            };
            return Ok(Group {
                state: found.group_state.to_string(),
                kind: "consumer",
                assignor: found.assignor_name.to_string(),
                members: found.members.into_iter().map(member).collect(),
                ..Group::default()
            });
        }
    }
    let request = DescribeGroupsRequest::default().with_groups(vec![id.clone()]);
    let response = cluster.ask_at(coordinator, 5, &request)?;
    let Some(found) = response.groups.into_iter().next() else {
        return Err(Failed("the broker says nothing of the group".to_owned()));
    };
    if found.error_code != not_found {
        check("the group can't be described", found.error_code)?;
    }
    let member = |m: kafka_protocol::messages::describe_groups_response::DescribedGroupMember| Member {
        id: m.member_id.to_string(),
        host: m.client_host.to_string(),
        client: m.client_id.to_string(),
        owned: classic_assignment(&m.member_assignment).unwrap_or_default(),
    };
    Ok(Group {
        state: if found.error_code == not_found { "Dead".to_owned() } else { found.group_state.to_string() },
        kind: "classic",
        assignor: found.protocol_data.to_string(),
        members: found.members.into_iter().map(member).collect(),
        ..Group::default()
    })
}

fn owned(assignment: Assignment) -> Vec<Partition> {
    let topics = assignment.topic_partitions.into_iter();
    topics.flat_map(|t| t.partitions.into_iter().map(move |p| (t.topic_name.to_string(), p))).collect()
}

/// The partitions in an assignment as consumers write it (`ConsumerProtocolAssignment`); `None` of what else may be in
/// its place, since only consumers have partitions. The members wrote it, so no length in it is believed.
fn classic_assignment(bytes: &[u8]) -> Option<Vec<Partition>> {
    fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
        let (head, rest) = input.split_first_chunk::<N>()?;
        *input = rest;
        Some(*head)
    }
    let mut input = bytes.get(2..)?;
    let mut owned = Vec::new();
    for _ in 0..i32::from_be_bytes(take(&mut input)?) {
        let length = usize::try_from(i16::from_be_bytes(take(&mut input)?)).ok()?;
        let (topic, rest) = input.split_at_checked(length)?;
        input = rest;
        let topic = std::str::from_utf8(topic).ok()?;
        for _ in 0..i32::from_be_bytes(take(&mut input)?) {
            owned.push((topic.to_owned(), i32::from_be_bytes(take(&mut input)?)));
        }
    }
    Some(owned)
}

fn committed(cluster: &mut Cluster, coordinator: &str, id: &GroupId) -> Result<BTreeMap<Partition, i64>, Failed> {
    let all = OffsetFetchRequestGroup::default().with_group_id(id.clone()).with_topics(None);
    let response = cluster.ask_at(coordinator, 8, &OffsetFetchRequest::default().with_groups(vec![all]))?;
    let mut committed = BTreeMap::new();
    for group in response.groups {
        check("the group's offsets can't be read", group.error_code)?;
        for topic in group.topics {
            for partition in topic.partitions {
                check("an offset can't be read", partition.error_code)?;
                committed.insert((topic.name.to_string(), partition.partition_index), partition.committed_offset);
            }
        }
    }
    // -1 is what Kafka answers where there is none.
    committed.retain(|_, offset| *offset >= 0);
    Ok(committed)
}

/// The log end offsets, each from the partition's leader. Partitions that are gone have none.
fn ends(cluster: &mut Cluster, partitions: &BTreeSet<Partition>) -> Result<BTreeMap<Partition, i64>, Failed> {
    let topics: BTreeSet<&str> = partitions.iter().map(|(topic, _)| topic.as_str()).collect();
    let named = |topic: &str| MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
    let request = MetadataRequest::default()
        .with_topics(Some(topics.into_iter().map(named).collect()))
        .with_allow_auto_topic_creation(false);
    let metadata = cluster.ask(9, &request)?;
    let addresses = addresses(&metadata);
    let mut asked: BTreeMap<&String, BTreeMap<String, Vec<ListOffsetsPartition>>> = BTreeMap::new();
    for topic in &metadata.topics {
        let Some(name) = &topic.name else { continue };
        for partition in &topic.partitions {
            let known = partitions.contains(&(name.to_string(), partition.partition_index));
            let (true, Some(leader)) = (known, addresses.get(&partition.leader_id)) else { continue };
            let latest = ListOffsetsPartition::default()
                .with_partition_index(partition.partition_index)
                .with_current_leader_epoch(-1)
                .with_timestamp(-1);
            asked.entry(leader).or_default().entry(name.to_string()).or_default().push(latest);
        }
    }
    let mut ends = BTreeMap::new();
    for (leader, topics) in asked {
        let topic =
            |(name, of): (String, _)| ListOffsetsTopic::default().with_name(topic_name(&name)).with_partitions(of);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(topics.into_iter().map(topic).collect());
        for topic in cluster.ask_at(leader, 7, &request)?.topics {
            let found = topic.partitions.iter().filter(|p| p.error_code == 0);
            ends.extend(found.map(|p| ((topic.name.to_string(), p.partition_index), p.offset)));
        }
    }
    Ok(ends)
}

fn report(name: &str, group: &Group, ends: &BTreeMap<Partition, i64>) -> String {
    let assignor = if group.assignor.is_empty() { String::new() } else { format!(", assignor {}", group.assignor) };
    let count = match group.members.len() {
        0 => "no members".to_owned(),
        1 => "1 member".to_owned(),
        n => format!("{n} members"),
    };
    let heading = clean(&format!("{name}: {} ({} protocol{assignor}, {count})", group.state, group.kind));
    let mut owners: BTreeMap<&Partition, &Member> = BTreeMap::new();
    for member in &group.members {
        owners.extend(member.owned.iter().map(|partition| (partition, member)));
    }
    let number = |n: Option<i64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let all: BTreeSet<&Partition> = group.committed.keys().chain(owners.keys().copied()).collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for partition in all {
        let (committed, end) = (group.committed.get(partition).copied(), ends.get(partition).copied());
        let lag = committed.zip(end).map(|(committed, end)| end.saturating_sub(committed));
        let owner = owners.get(partition);
        let of = |field: fn(&Member) -> &String| owner.map_or_else(|| "-".to_owned(), |m| field(m).clone());
        rows.push(vec![
            name.to_owned(),
            partition.0.clone(),
            partition.1.to_string(),
            number(committed),
            number(end),
            number(lag),
            of(|m| &m.id),
            of(|m| &m.host),
            of(|m| &m.client),
        ]);
    }
    for member in group.members.iter().filter(|m| m.owned.is_empty()) {
        let none = || "-".to_owned();
        let [id, host, client] = [&member.id, &member.host, &member.client].map(Clone::clone);
        rows.push(vec![name.to_owned(), none(), none(), none(), none(), none(), id, host, client]);
    }
    let columns =
        ["GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG", "CONSUMER-ID", "HOST", "CLIENT-ID"];
    format!("{heading}\n{}", table(&columns, &rows))
}

/// Columns as wide as what is in them.
pub(super) fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
    let rows: Vec<Vec<String>> =
        std::iter::once(&heading).chain(rows).map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns.len()).map(|at| width(at).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Clients choose these texts; none of them rules the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn addresses(metadata: &MetadataResponse) -> BTreeMap<BrokerId, String> {
    metadata.brokers.iter().map(|b| (b.node_id, address(&b.host, b.port))).collect()
}

pub(super) fn address(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_every_partition_and_every_member() {
        let part = |p| ("plums".to_owned(), p);
        let member = |id: &str, owned| Member { id: id.into(), host: "/h".into(), client: "c\x1b[2J".into(), owned };
        let group = Group {
            state: "Stable".into(),
            kind: "classic",
            assignor: "range".into(),
            members: vec![member("m-1", vec![part(0), part(1)]), member("m-2", vec![])],
            committed: [(part(0), 3), (part(10), 7), (part(2), 7)].into(),
        };
        let ends = [(part(0), 5), (part(1), 9), (part(10), 6)].into();
        let expected = "g: Stable (classic protocol, assignor range, 2 members)\n\
            GROUP  TOPIC  PARTITION  CURRENT-OFFSET  LOG-END-OFFSET  LAG  CONSUMER-ID  HOST  CLIENT-ID\n\
            g      plums  0          3               5               2    m-1          /h    c\u{fffd}[2J\n\
            g      plums  1          -               9               -    m-1          /h    c\u{fffd}[2J\n\
            g      plums  2          7               -               -    -            -     -\n\
            g      plums  10         7               6               -1   -            -     -\n\
            g      -      -          -               -               -    m-2          /h    c\u{fffd}[2J\n";
        assert_eq!(report("g", &group, &ends), expected);
    }

    #[test]
    fn assignments_are_read_and_not_believed() {
        let bytes = b"\0\x03\0\0\0\x01\0\x05plums\0\0\0\x02\0\0\0\0\0\0\0\x07\xff\xff\xff\xff";
        let owned = vec![("plums".to_owned(), 0), ("plums".to_owned(), 7)];
        assert_eq!(classic_assignment(bytes), Some(owned));
        for length in 0..bytes.len() - 4 {
            assert_eq!(classic_assignment(&bytes[..length]), None, "{length}");
        }
        assert_eq!(classic_assignment(b"\0\x03\x7f\xff\xff\xff\x7f\xff"), None);
        assert_eq!(classic_assignment(b"\0\x03\xff\xff\xff\xff"), Some(vec![]));
    }

    #[test]
    fn addresses_of_ipv6_have_brackets() {
        assert_eq!((address("::1", 9092), address("h", 1)), ("[::1]:9092".to_owned(), "h:1".to_owned()));
    }
}
