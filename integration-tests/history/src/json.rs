//! Histories as JSON lines, which clients in any language write with hand-made formatting. Each operation is two lines:
//! what was asked, and what came of it. They are matched by `process` and `op`; the fields of the answer stand in the
//! second (it does no harm to say more than needed in either). An operation without a second line is one whose end
//! nobody knows. Processes write to files of their own or share one, as they like: lines may come in any order, and an
//! operation whose extent is only known afterwards (a poll that turns out to have read four partitions is four
//! operations) is written as two lines at once. A last line that was cut off (a client was killed) is passed over.
//!
//! Times are microseconds of one clock that all processes of the machine share and that does not jump
//! (`CLOCK_MONOTONIC`: `System.nanoTime()/1000` on Linux, `time.monotonic_ns()//1000` in Python; Go needs
//! `unix.ClockGettime`).
//!
//! ```text
//! {"run":77}
//! {"invoke":{"process":3,"op":17,"time_us":5000100,"kind":"send","topic":"t","partition":0,"once":true,"acked":true,"values":["77|3|9|t|0|1700000000000|xx|a1b2c3d4"]}}
//! {"complete":{"process":3,"op":17,"time_us":5007200,"end":"ok","offset":41,"broker":1}}
//! {"invoke":{"process":4,"op":2,"time_us":5001000,"kind":"poll","topic":"t","partition":0,"position_of":1,"from":41}}
//! {"complete":{"process":4,"op":2,"time_us":5009000,"end":"ok","next":42,"records":[[41,1700000000000,"77|3|9|t|0|1700000000000|xx|a1b2c3d4","3-2","9"]],"high_watermark":42,"last_stable_offset":42,"log_start_offset":0}}
//! {"complete":{"process":3,"op":18,"time_us":9007200,"end":"info","error":"REQUEST_TIMED_OUT"}}
//! {"healed_us":90000000}
//! ```
//!
//! - `run`, on a line of its own at least once: the run that the values name. `healed_us`: when the last fault was over.
//! - `process`: a number of the logical client, unlike every other one in all files. `op`: unlike the process' others.
//! - `end`: `ok`, `fail` (it certainly did not and will not happen) or `info`; `error`: Kafka's name of it.
//! - `records`: offset, timestamp and value of each; then, if the client shows them, key and header `counter`, which are
//!   compared with what the value says they are, and the leader epoch. Bytes that are no UTF-8 are written with replacement characters.
//! - `high_watermark`, `last_stable_offset`, `log_start_offset`: left out where the library does not show them.
//! - `topic_id`: only where the request or its answer named it.
//!
//! | kind | asked | answered |
//! |---|---|---|
//! | `send` | topic, partition, values, once, acked, transaction | offset |
//! | `poll` | topic, partition, position_of, from, read_committed | next, records, high_watermark, last_stable_offset, log_start_offset |
//! | `list_offsets` | topic, partition, timestamp | offset, found_timestamp |
//! | `epoch_end` | topic, partition, epoch | offset |
//! | `delete_records` | topic, partition, before | low_watermark |
//! | `create_topic`, `grow` | topic, partitions | topic_id |
//! | `delete_topic` | topic | |
//! | `describe` | topic | topic_id and partitions, or neither where there is no such topic |
//! | `alter_config` | name, key, value | |
//! | `init_producer` | transactional_id, timeout_ms | producer_id, epoch |
//! | `send_offsets` | transaction, group, member, generation, offsets as `commit` has them | |
//! | `end_transaction` | transaction, commit | |
//! | `assigned` | group, member, instance, protocol (`Classic` or `Consumer`) | generation, logs: `[["t",0],…]`, member |
//! | `left` | group, member | |
//! | `heartbeat` | group, member, generation | |
//! | `commit` | group, member, generation, offsets: `[["t",0,42],…]`, or with their text `["t",0,42,"text"]` | |
//! | `committed` | group | the same; no offset is `null` |
//! | `delete_group` | group | |
//! | `note` | text | |
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use std::collections::HashMap;
use std::io::BufRead;

use super::operation::{Broken, Commit, End, GroupProtocol, History, Log, Operation, Seen, What};
use super::payload::Value;

/// Why a file is no history.
#[derive(Debug)]
pub enum Error {
    Io(std::io::Error),
    /// The line, counted from 1 in its file, and what is wrong with it.
    Line(u64, String),
    /// No line names the run.
    NoRun,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "can't be read: {error}"),
            Self::Line(line, what) => write!(f, "line {line}: {what}"),
            Self::NoRun => f.write_str("no line {\"run\":…} says which run it is"),
        }
    }
}

impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;

/// The history that one file holds.
///
/// # Errors
/// As `Reader::add` and `Reader::finish`.
pub fn read(input: impl BufRead) -> Result<History> {
    let mut reader = Reader::default();
    reader.add(input)?;
    reader.finish()
}

/// Puts together what several processes wrote into several files.
#[derive(Default)]
pub struct Reader {
    run: Option<u64>,
    healed_us: Option<u64>,
    /// Halves of operations whose other half was not read yet.
    open: HashMap<(u32, u64), (Half, Map<String, Json>)>,
    operations: Vec<Operation>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Invoke,
    Complete,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    run: Option<u64>,
    healed_us: Option<u64>,
    invoke: Option<Map<String, Json>>,
    complete: Option<Map<String, Json>>,
}

impl Reader {
    /// Takes in one file.
    ///
    /// # Errors
    /// A file that can't be read, or a line (other than a last one that was cut off) that is not as the module says.
    pub fn add(&mut self, mut input: impl BufRead) -> Result<()> {
        let mut text = Vec::new();
        for number in 1.. {
            text.clear();
            if input.read_until(b'\n', &mut text).map_err(Error::Io)? == 0 {
                break;
            }
            let whole = text.ends_with(b"\n");
            if text.trim_ascii().is_empty() {
                continue;
            }
            match serde_json::from_slice::<Line>(&text) {
                Ok(line) => self.line(line).map_err(|what| Error::Line(number, what))?,
                Err(_) if !whole => break,
                Err(error) => return Err(Error::Line(number, error.to_string())),
            }
        }
        Ok(())
    }

    fn line(&mut self, line: Line) -> std::result::Result<(), String> {
        if let Some(run) = line.run {
            if self.run.is_some_and(|known| known != run) {
                return Err(format!("the run is {run}, and was another before"));
            }
            self.run = Some(run);
        }
        self.healed_us = line.healed_us.or(self.healed_us);
        for (half, fields) in [(Half::Invoke, line.invoke), (Half::Complete, line.complete)] {
            let Some(mut fields) = fields else { continue };
            let number = |name: &str| fields.get(name).and_then(Json::as_u64).ok_or(format!("no number {name}"));
            let process = u32::try_from(number("process")?).map_err(|_| "process is too large")?;
            let key = (process, number("op")?);
            let time = number("time_us")?;
            fields.insert(if half == Half::Invoke { "start_us" } else { "end_us" }.into(), time.into());
            match self.open.remove(&key) {
                None => {
                    self.open.insert(key, (half, fields));
                }
                Some((other, _)) if other == half => {
                    return Err(format!("process {} has a second operation {}", key.0, key.1));
                }
                Some((Half::Invoke, mut asked)) => {
                    asked.append(&mut fields);
                    self.operations.push(operation(asked)?);
                }
                Some((Half::Complete, mut answered)) => {
                    fields.append(&mut answered);
                    self.operations.push(operation(fields)?);
                }
            }
        }
        Ok(())
    }

    /// All that was read, in the order of the beginnings; ids are given anew.
    ///
    /// # Errors
    /// No run, or an operation that only ended.
    pub fn finish(mut self) -> Result<History> {
        let run = self.run.ok_or(Error::NoRun)?;
        let mut open: Vec<_> = self.open.into_iter().collect();
        open.sort_by_key(|(key, _)| *key);
        for ((process, op), (half, fields)) in open {
            let broken = |what: String| Error::Line(0, format!("operation {op} of process {process}: {what}"));
            if half == Half::Complete {
                return Err(broken("it ended, and nothing says that it began".into()));
            }
            self.operations.push(operation(fields).map_err(broken)?);
        }
        self.operations.sort_by_key(|operation| (operation.start_us, operation.process));
        for (id, operation) in (0..).zip(&mut self.operations) {
            operation.id = id;
        }
        Ok(History { run, operations: self.operations, healed_us: self.healed_us })
    }
}

/// All that either line may have.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    process: u32,
    start_us: u64,
    end_us: Option<u64>,
    broker: Option<i32>,
    end: Option<String>,
    error: Option<String>,
    kind: String,
    topic: Option<String>,
    topic_id: Option<String>,
    partition: Option<i32>,
    values: Vec<String>,
    once: bool,
    acked: Option<bool>,
    offset: Option<i64>,
    position_of: u64,
    from: i64,
    next: i64,
    records: Vec<Record>,
    high_watermark: Option<i64>,
    last_stable_offset: Option<i64>,
    log_start_offset: Option<i64>,
    read_committed: bool,
    timestamp: i64,
    found_timestamp: Option<i64>,
    epoch: i32,
    before: i64,
    low_watermark: Option<i64>,
    partitions: Option<i32>,
    name: String,
    key: String,
    value: String,
    transactional_id: Option<String>,
    transaction: Option<u64>,
    commit: Option<bool>,
    timeout_ms: Option<i32>,
    producer_id: Option<i64>,
    group: String,
    member: String,
    instance: Option<String>,
    protocol: GroupProtocol,
    generation: Option<i32>,
    logs: Vec<(String, i32)>,
    offsets: Vec<Offset>,
    text: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Record {
    Bare(i64, i64, String),
    Whole(i64, i64, String, String, String),
    WithEpoch(i64, i64, String, String, String, i32),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Offset {
    Bare(String, i32, Option<i64>),
    WithText(String, i32, Option<i64>, String),
}

impl Record {
    fn seen(self) -> Seen {
        let (offset, timestamp_ms, text, key, header, leader_epoch) = match self {
            Self::Bare(offset, time, text) => (offset, time, text, None, None, None),
            Self::Whole(offset, time, text, key, header) => (offset, time, text, Some(key), Some(header), None),
            Self::WithEpoch(offset, time, text, key, header, epoch) => {
                (offset, time, text, Some(key), Some(header), Some(epoch))
            }
        };
        let value = match Value::decode(text.as_bytes()) {
            None => Err(Broken(format!("not a whole value: {:.80}", text))),
            Some(value) if key.as_ref().is_some_and(|key| *key != value.key()) => Err(Broken(format!("key {key:?}"))),
            Some(value) if header.as_ref().is_some_and(|header| *header != value.header()) => {
                Err(Broken(format!("header {header:?}")))
            }
            Some(value) => Ok(value),
        };
        Seen { offset, timestamp_ms, leader_epoch, value }
    }
}

fn operation(fields: Map<String, Json>) -> std::result::Result<Operation, String> {
    let mut fields: Fields = serde_json::from_value(Json::Object(fields)).map_err(|error| error.to_string())?;
    let text = fields.error.take().unwrap_or_default();
    let end = match fields.end.as_deref() {
        Some("ok") => End::Ok,
        Some("fail") => End::Fail(text),
        Some("info") => End::Info(text),
        Some(other) => return Err(format!("an end is ok, fail or info, not {other}")),
        None if fields.end_us.is_some() => return Err("it ended, and nothing says how".into()),
        None => End::Info("no end".into()),
    };
    let (process, start_us, end_us, broker) = (fields.process, fields.start_us, fields.end_us, fields.broker);
    if end_us.is_some_and(|end| end < start_us) {
        return Err("it ended before it began".into());
    }
    Ok(Operation { id: 0, process, start_us, end_us, broker, end, what: what(fields)? })
}

fn what(fields: Fields) -> std::result::Result<What, String> {
    let topic = || fields.topic.clone().ok_or("no topic".to_owned());
    let log = || {
        let partition = fields.partition.ok_or("no partition")?;
        Ok::<_, String>(Log { topic: topic()?, id: fields.topic_id.clone(), partition })
    };
    let by_name = |topic: String, partition| Log { topic, id: None, partition };
    let commit = |offset| match offset {
        Offset::Bare(topic, partition, offset) => Commit { log: by_name(topic, partition), offset, metadata: None },
        Offset::WithText(topic, partition, offset, text) => {
            Commit { log: by_name(topic, partition), offset, metadata: Some(text) }
        }
    };
    let commits = |offsets: Vec<Offset>| offsets.into_iter().map(commit).collect();
    let generation = fields.generation.unwrap_or(-1);
    let partitions = fields.partitions.unwrap_or(-1);
    let transaction = fields.transaction.ok_or("no transaction".to_owned());
    Ok(match fields.kind.as_str() {
        "send" => {
            let decode = |text: &String| Value::decode(text.as_bytes()).ok_or(format!("not a value: {text:.80}"));
            let values = fields.values.iter().map(decode).collect::<std::result::Result<_, _>>()?;
            let (once, acked) = (fields.once, fields.acked.unwrap_or(true));
            What::Send { log: log()?, values, once, acked, offset: fields.offset, transaction: fields.transaction }
        }
        "poll" => What::Poll {
            log: log()?,
            position_of: fields.position_of,
            from: fields.from,
            next: fields.next,
            records: fields.records.into_iter().map(Record::seen).collect(),
            high_watermark: fields.high_watermark.unwrap_or(-1),
            last_stable_offset: fields.last_stable_offset.unwrap_or(-1),
            log_start_offset: fields.log_start_offset.unwrap_or(-1),
            read_committed: fields.read_committed,
        },
        "list_offsets" => What::ListOffsets {
            log: log()?,
            timestamp: fields.timestamp,
            offset: fields.offset.unwrap_or(-1),
            found_timestamp: fields.found_timestamp.unwrap_or(-1),
        },
        "epoch_end" => What::EpochEnd { log: log()?, epoch: fields.epoch, end_offset: fields.offset.unwrap_or(-1) },
        "delete_records" => What::DeleteRecords {
            log: log()?,
            before: fields.before,
            low_watermark: fields.low_watermark.unwrap_or(-1),
        },
        "create_topic" => What::CreateTopic { topic: topic()?, id: fields.topic_id, partitions },
        "delete_topic" => What::DeleteTopic { topic: topic()?, id: fields.topic_id },
        "grow" => What::Grow { topic: topic()?, partitions },
        "describe" => {
            let found = fields.partitions.map(|count| (fields.topic_id.clone().unwrap_or_default(), count));
            What::Describe { topic: topic()?, found }
        }
        "alter_config" => What::AlterConfig { name: fields.name, key: fields.key, value: fields.value },
        "init_producer" => What::InitProducer {
            transactional_id: fields.transactional_id,
            producer_id: fields.producer_id.unwrap_or(-1),
            epoch: i16::try_from(fields.epoch).map_err(|_| "epoch is too large")?,
            timeout_ms: fields.timeout_ms.unwrap_or(-1),
        },
        "send_offsets" => What::SendOffsets {
            transaction: transaction?,
            group: fields.group,
            member: fields.member,
            generation,
            offsets: commits(fields.offsets),
        },
        "end_transaction" => {
            What::EndTransaction { transaction: transaction?, commit: fields.commit.ok_or("no commit")? }
        }
        "assigned" => What::Assigned {
            group: fields.group,
            member: fields.member,
            instance: fields.instance,
            protocol: fields.protocol,
            generation,
            logs: fields.logs.into_iter().map(|(topic, partition)| by_name(topic, partition)).collect(),
        },
        "left" => What::Left { group: fields.group, member: fields.member },
        "heartbeat" => What::Heartbeat { group: fields.group, member: fields.member, generation },
        "commit" => {
            let offsets = commits(fields.offsets);
            What::Commit { group: fields.group, member: fields.member, generation, offsets }
        }
        "committed" => What::Committed { group: fields.group, offsets: commits(fields.offsets) },
        "delete_group" => What::DeleteGroup { group: fields.group },
        "note" => What::Note(fields.text),
        other => return Err(format!("no kind {other}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(counter: u64) -> String {
        let value = Value {
            run: 77,
            process: 3,
            counter,
            topic: "t".into(),
            partition: 0,
            timestamp_ms: 5,
            source: None,
            deletes: false,
        };
        String::from_utf8(value.encode(0)).unwrap()
    }

    #[test]
    fn halves_are_matched_in_any_order_over_several_files() {
        let first = format!(
            "{{\"run\":77}}\n{}\n{}\n",
            format_args!(
                r#"{{"invoke":{{"process":3,"op":1,"time_us":50,"kind":"send","topic":"t","partition":0,"once":true,"acked":true,"values":["{}"]}}}}"#,
                value(1)
            ),
            r#"{"invoke":{"process":3,"op":2,"time_us":60,"kind":"committed","group":"g"}}"#,
        );
        let second = format!(
            "{}\n{}\n{}\n{}",
            r#"{"complete":{"process":3,"op":1,"time_us":55,"end":"ok","offset":9,"broker":2}}"#,
            format_args!(
                r#"{{"complete":{{"process":4,"op":1,"time_us":45,"end":"ok","next":11,"records":[[9,5,"{0}","3-1","1"],[10,5,"{0}","3-1","x"]]}}}}"#,
                value(1)
            ),
            r#"{"invoke":{"process":4,"op":1,"time_us":40,"kind":"poll","topic":"t","partition":0,"position_of":1,"from":9}}"#,
            r#"{"complete":{"process":3,"op":2,"ti"#,
        );
        let mut reader = Reader::default();
        reader.add(first.as_bytes()).unwrap();
        reader.add(second.as_bytes()).unwrap();
        let history = reader.finish().unwrap();
        assert_eq!(history.run, 77);
        let [poll, send, open] = &history.operations[..] else { panic!("{history:?}") };
        assert_eq!((poll.id, poll.start_us, poll.end_us, poll.end.clone()), (0, 40, Some(45), End::Ok));
        let What::Poll { records, next: 11, from: 9, high_watermark: -1, .. } = &poll.what else { panic!("{poll:?}") };
        assert_eq!(records[0].value.as_ref().unwrap().counter, 1);
        assert_eq!(records[1].value, Err(Broken("header Some(\"x\")".into())));
        assert!(matches!(&send.what, What::Send { values, offset: Some(9), once: true, .. } if values.len() == 1));
        assert_eq!((send.broker, open.end_us, open.end.clone()), (Some(2), None, End::Info("no end".into())));
    }

    #[test]
    fn what_is_no_history_says_where() {
        for (text, at) in [
            ("{\"run\":1}\n{\"invoke\":{\"process\":1,\"op\":1}}\n", "line 2: no number time_us"),
            ("{\"run\":1}\nnonsense\n", "line 2: expected"),
            ("{\"run\":1}\n{\"complete\":{\"process\":1,\"op\":1,\"time_us\":1}}\n", "nothing says that it began"),
            ("", "no line {\"run\":…}"),
        ] {
            let error = read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(at), "{error}");
        }
    }
}
