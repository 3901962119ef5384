//! Batches of a transaction on their way to one partition: one after the other, each again until it is known to be there or
//! cannot be. No later one is sent when one was not.
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, TransactionalId};
use std::time::Duration;
use strandline_history::{End, Value, What};

use super::client::{Client, Lane, error_name, text, topic_name};
use super::connection::Fault;
use super::producer::is_certain;
use super::reader::At;
use super::records::{self, Form, Numbered};
use super::transaction::{Over, Version, over};

/// One of them.
pub(super) struct Batch {
    /// The transactional id.
    pub(super) id: String,
    pub(super) version: Version,
    pub(super) transaction: u64,
    pub(super) values: Vec<Value>,
    pub(super) form: Form,
    pub(super) numbered: Numbered,
}

/// What became of the batches of one partition.
pub(super) enum Sent {
    All,
    /// One was not accepted, or nobody knows.
    Not(Over),
}

const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;

/// Sends them; one is tried for as long as `patience`.
pub(super) async fn send(client: Client, at: At, batches: Vec<Batch>, patience: Duration) -> Sent {
    for batch in batches {
        let site = client.site().clone();
        let (values, transaction) = (batch.values.clone(), Some(batch.transaction));
        let log = client.log_by_name(&at);
        let what = |offset| What::Send { log, values, once: true, acked: true, offset, transaction };
        let begun = site.recorder.begin(site.process, what.clone()(None));
        let (node, end, answered) = settle(&client, &at, &batch, patience).await;
        let offset = answered.as_ref().ok().copied().filter(|offset| *offset >= 0);
        site.recorder.end(begun, node, end, what(offset));
        if let Err(over) = answered {
            return Sent::Not(over);
        }
    }
    Sent::All
}

/// Which broker said what became of it, and its offset.
async fn settle(client: &Client, at: &At, batch: &Batch, patience: Duration) -> (Option<i32>, End, Result<i64, Over>) {
    let (until, mut doubt) = (client.now() + patience, false);
    loop {
        let leader = client.view().topics.get(&at.0).and_then(|topic| topic.leaders.get(&at.1).copied());
        let node = leader.map(|leader| client.route(leader.node));
        let answer = match node {
            Some(node) => attempt(client, node, at, batch).await,
            None => Err(Fault { sent: false, why: "no leader is known".into() }),
        };
        let why = match answer {
            Ok((0 | DUPLICATE_SEQUENCE_NUMBER, offset)) => return (node, End::Ok, Ok(offset)),
            Ok((code, _)) => {
                doubt |= !is_certain(code);
                let why = error_name(code);
                if !ResponseError::try_from_code(code).is_some_and(|error| error.is_retriable()) {
                    let end = if doubt { End::Info(why) } else { End::Fail(why) };
                    return (node, end, Err(over(code)));
                }
                why
            }
            Err(fault) => {
                doubt |= fault.sent;
                fault.why
            }
        };
        if client.now() > until {
            let end = if doubt { End::Info(why) } else { End::Fail(why) };
            return (node, end, Err(Over::Abort));
        }
        client.back_off().await;
        client.want_refresh();
        client.refresh_if_due();
    }
}

/// One attempt: the error code and the offset.
async fn attempt(client: &Client, node: i32, at: &At, batch: &Batch) -> Result<(i16, i64), Fault> {
    let usable = if batch.version == Version::Two { 12..=13 } else { 3..=11 };
    let connection = client.node(node, Lane::Data).await?;
    let topic_id = client.view().topics.get(&at.0).and_then(|topic| topic.id);
    let usable = if topic_id.is_some() { usable } else { *usable.start()..=(*usable.end()).min(12) };
    let bytes = records::make_transactional(&batch.values, batch.form, batch.numbered);
    let answer = connection.ask(usable, |_| {
        let data = PartitionProduceData::default().with_index(at.1).with_records(Some(bytes));
        let data = TopicProduceData::default().with_name(topic_name(&at.0)).with_partition_data(vec![data]);
        let data = data.with_topic_id(topic_id.unwrap_or_default());
        let timeout_ms = i32::try_from(client.request_timeout().as_millis()).unwrap_or(i32::MAX);
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(timeout_ms).with_topic_data(vec![data]);
        request.with_transactional_id(Some(TransactionalId(text(batch.id.clone()))))
    });
    let answer = answer.await?;
    let part = answer.responses.first().and_then(|topic| topic.partition_responses.first());
    let part = part.map(|part| (part.error_code, part.base_offset));
    part.ok_or_else(|| Fault { sent: true, why: "Produce answers nothing".into() })
}
