//! Topics made at the beginning.
use kafka_protocol::messages::CreateTopicsRequest;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use strandline_history::{End, What};

use super::client::{Client, FLEETING, LASTING, TABLES, text, topic_name};

const TOPIC_ALREADY_EXISTS: i16 = 36;

/// How long records of the topic whose records go by time are kept.
pub const KEPT_MS: i64 = 15_000;
/// How long tombstones are kept of the topic that keeps the last record of each key.
pub const TOMBSTONES_KEPT_MS: i64 = 5_000;

/// Makes the topics that stay, and does not rest before they are there.
pub(super) async fn make_lasting(client: Client) {
    for topic in LASTING {
        let partitions = i32::try_from(client.between(2, 5)).unwrap_or(2);
        while !client.is_stopping() {
            if let None | Some(0 | TOPIC_ALREADY_EXISTS) = create(&client, topic, partitions).await
                && client.refresh().await
                && client.view().topics.contains_key(topic)
            {
                break;
            }
            client.back_off().await;
        }
    }
}

/// What a topic of that name is made with.
fn settings(topic: &str) -> Vec<CreatableTopicConfig> {
    let setting =
        |name: &str, value: String| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)));
    match topic {
        FLEETING => vec![setting("retention.ms", KEPT_MS.to_string())],
        TABLES => vec![
            setting("cleanup.policy", "compact".to_owned()),
            setting("min.cleanable.dirty.ratio", "0.1".to_owned()),
            setting("delete.retention.ms", TOMBSTONES_KEPT_MS.to_string()),
        ],
        _ => Vec::new(),
    }
}

/// Creates a topic, once; gives the error code that was answered.
pub(super) async fn create(client: &Client, name: &str, partitions: i32) -> Option<i16> {
    let site = client.site();
    let what = |id| What::CreateTopic { topic: name.to_owned(), id, partitions };
    let begun = site.recorder.begin(site.process, what(None));
    let answer = client.ask_any(2..=7, |_| {
        let one = CreatableTopic::default().with_name(topic_name(name)).with_num_partitions(partitions);
        let one = one.with_configs(settings(name));
        let request = CreateTopicsRequest::default().with_topics(vec![one.with_replication_factor(1)]);
        request.with_timeout_ms(5_000)
    });
    let answer = answer.await;
    let answered = answer.as_ref().ok().and_then(|answer| answer.topics.first());
    let id = answered.map(|topic| topic.topic_id).filter(|id| !id.is_nil()).map(|id| id.to_string());
    let code = answered.map(|topic| topic.error_code);
    let end = match (code, answer) {
        (Some(0), _) => End::Ok,
        (Some(code), _) => super::admin_end(code),
        (None, Err(fault)) if !fault.sent => End::Fail(fault.why),
        (None, Err(fault)) => End::Info(fault.why),
        (None, Ok(_)) => End::Info("no answer for the topic".into()),
    };
    site.recorder.end(begun, None, end, what(id));
    code
}
