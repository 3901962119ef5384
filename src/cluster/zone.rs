//! Where a client is: from a tag in its client id, as people set them for brokers like this one.

/// Tags that name a zone in a client id: ours, and those of AutoMQ, Inkless and WarpStream.
const TAGS: [&str; 4] = ["zone=", "automq_az=", "diskless_az=", "ws_az="];

/// The zone in a client id like `orders,zone=a`. What follows a `|` was put there by MirrorMaker, and is none of it.
#[must_use]
pub fn zone_of_client_id(client_id: &str) -> Option<&str> {
    let own = client_id.split('|').next().unwrap_or_default();
    let parts = || own.split(|c: char| matches!(c, ',' | ';' | '&') || c.is_whitespace());
    TAGS.iter().find_map(|tag| parts().find_map(|part| part.strip_prefix(tag))).filter(|zone| !zone.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_in_client_ids() {
        for (id, zone) in [
            ("zone=a", Some("a")),
            ("orders,zone=eu-1a", Some("eu-1a")),
            ("automq_type=producer&automq_az=us-east-1a&x=1", Some("us-east-1a")),
            ("app;diskless_az=b", Some("b")),
            ("app ws_az=c more", Some("c")),
            ("ws_az=c,zone=a", Some("a")),
            ("zone=a|source->target|connector", Some("a")),
            ("mine|zone=a", None),
            ("timezone=utc", None),
            ("zone=", None),
            ("", None),
        ] {
            assert_eq!(zone_of_client_id(id), zone, "{id}");
        }
    }
}
