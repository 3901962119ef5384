//! What consumers put into the metadata of their protocols: a version, then topics, then what newer versions added.
//! The coordinator needs the topics only, and those stand in the same place in every version.

/// The topics of a subscription in the format of Kafka's `ConsumerProtocolSubscription`; `None` if it is not one.
#[must_use]
pub fn topics(metadata: &[u8]) -> Option<Vec<&str>> {
    let mut rest = metadata;
    let version = i16::from_be_bytes(*take(&mut rest)?);
    let count = usize::try_from(i32::from_be_bytes(*take(&mut rest)?)).ok()?;
    // A topic takes two bytes at least, so a count that can't be true ends before it costs anything.
    if version < 0 || count > rest.len() / 2 {
        return None;
    }
    let mut topics = Vec::with_capacity(count);
    for _ in 0..count {
        let length = usize::try_from(i16::from_be_bytes(*take(&mut rest)?)).ok()?;
        let (topic, after) = rest.split_at_checked(length)?;
        topics.push(std::str::from_utf8(topic).ok()?);
        rest = after;
    }
    Some(topics)
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::topics;

    #[test]
    fn topics_are_read_whatever_follows_them() {
        let old = b"\0\0\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff";
        assert_eq!(topics(old), Some(vec!["a", "bc"]));
        let mut newer = old.to_vec();
        newer[1] = 3;
        newer.extend_from_slice(b"\0\0\0\0whatever");
        assert_eq!(topics(&newer), Some(vec!["a", "bc"]));
        assert_eq!(topics(b"\0\0\0\0\0\0"), Some(vec![]));
    }

    #[test]
    fn what_is_no_subscription_is_none() {
        for bytes in [
            &b""[..],
            b"\0",
            b"\xff\xff\0\0\0\0",
            b"\0\0\xff\xff\xff\xff",
            b"\0\0\x7f\xff\xff\xff\0\0",
            b"\0\0\0\0\0\x01\0\x05ab",
            b"\0\0\0\0\0\x01\xff\xff",
            b"\0\0\0\0\0\x01\0\x01\xff",
        ] {
            assert_eq!(topics(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_wild(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = topics(&bytes);
        }
    }
}
