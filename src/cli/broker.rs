//! `broker list` and `broker drain`, asked of a running broker as any client asks.
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, UnregisterBrokerRequest};
use std::process::ExitCode;

use super::client::{Cluster, Failed, check, show};
use super::group::{Server, address, table};

#[derive(Debug, clap::Subcommand)]
pub enum BrokerCommand {
    /// Lists the brokers of the cluster.
    List {
        #[command(flatten)]
        server: Server,
    },
    /// Takes a broker out of the cluster: it hands over what it leads and coordinates, finishes what it has taken, and ends.
    Drain {
        /// The broker's id.
        broker: i32,
        #[command(flatten)]
        server: Server,
    },
}

impl BrokerCommand {
    /// Does what was asked, on standard output and error.
    #[must_use]
    pub fn run(&self) -> ExitCode {
        let text = match self {
            Self::List { server } => list(&mut Cluster::new(&server.server)),
            Self::Drain { broker, server } => drain(&mut Cluster::new(&server.server), *broker),
        };
        show(text)
    }
}

fn list(cluster: &mut Cluster) -> Result<String, Failed> {
    let request = DescribeClusterRequest::default().with_endpoint_type(1).with_include_fenced_brokers(true);
    let response = cluster.ask(2, &request)?;
    check("the brokers can't be listed", response.error_code)?;
    let row = |b: &kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker| {
        let zone = b.rack.as_ref().map_or("-", |rack| rack.as_str()).to_owned();
        let standing = if b.is_fenced { "leaving" } else { "active" };
        vec![b.broker_id.0.to_string(), address(&b.host, b.port), zone, standing.to_owned()]
    };
    let rows: Vec<Vec<String>> = response.brokers.iter().map(row).collect();
    Ok(table(&["BROKER", "ADDRESS", "ZONE", "STATE"], &rows))
}

fn drain(cluster: &mut Cluster, broker: i32) -> Result<String, Failed> {
    let response = cluster.ask(0, &UnregisterBrokerRequest::default().with_broker_id(BrokerId(broker)))?;
    check(&format!("broker {broker} can't be drained"), response.error_code)?;
    Ok(format!("broker {broker} hands over and ends\n"))
}
