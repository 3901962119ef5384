//! What members of groups say inside requests: subscriptions, assignments, expressions.
use strandline::group::{
    EmbeddedAssignment, EmbeddedSubscription, compile_pattern, subscribed_topics, write_assignment,
};

use crate::heap;

/// A byte for the kind, the rest is it.
pub(crate) fn group(data: &[u8]) -> bool {
    match data.split_first() {
        Some((0, bytes)) => subscription(bytes),
        Some((1, bytes)) => assignment(bytes),
        Some((2, bytes)) => return std::str::from_utf8(bytes).is_ok_and(pattern),
        _ => return false,
    }
    true
}

/// Two readers, of which the coordinators use one each, agree on the topics wherever both can read.
pub(crate) fn subscription(bytes: &[u8]) {
    let most = 64 * bytes.len() + 1024;
    let topics = heap::within("a subscription", most, || subscribed_topics(bytes));
    let read = heap::within("a subscription", most, || EmbeddedSubscription::read(bytes));
    if let Some(read) = read {
        assert_eq!(topics, Some(read.topics.iter().map(String::as_str).collect()));
        assert!(read.version >= 0);
    }
}

/// What is read is read again from what we write.
pub(crate) fn assignment(bytes: &[u8]) {
    let read = heap::within("an assignment", 64 * bytes.len() + 1024, || EmbeddedAssignment::read(bytes));
    let Some(read) = read else { return };
    let partitions = read.partitions.iter().map(|(topic, partitions)| (topic.as_str(), partitions.clone()));
    let again = EmbeddedAssignment::read(&write_assignment(3, partitions)).expect("what we write is read");
    assert_eq!(again.partitions, read.partitions);
}

fn pattern(text: &str) -> bool {
    // The library's limit is on what it compiles; parsing and translating an expression comes before.
    let compiled = heap::within("an expression", 32 << 20, || compile_pattern(text));
    match compiled {
        Ok(regex) => {
            let _ = regex.is_match("orders.2024-x_y");
            true
        }
        Err(what) => {
            assert!(!what.is_empty() && what.len() < 1 << 20);
            false
        }
    }
}
