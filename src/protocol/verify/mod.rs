//! The guard in front of the message crate, which believes lengths on the wire: a body of four bytes can make it ask
//! for 150 GB and abort the process. `walk` goes over every frame first, by the table that `generate.py` makes of
//! Kafka's message specifications. What it lets through, the crate decodes without error, allocating about what the
//! walk counted and never more than the limit. It reads no record bytes, allocates nothing, and never looks at what a
//! field means. Tests: `tests.rs`.
mod schema;
#[rustfmt::skip]
mod table;
#[cfg(test)]
mod tests;
mod walk;

use kafka_protocol::messages::ApiKey;

pub(super) use schema::Api;
use table::APIS;
use walk::Walk;
pub(super) use walk::{Flaw, Records};

/// A message may decode into this much, and so many times its own size. What clients send in earnest takes at most seven
/// times its size, and only arrays of nearly empty structs take more than ten (a hostile one could reach 140).
const DECODED_BYTES_FREE: usize = 60 << 10;
const DECODED_RATIO_MAX: usize = 16;
/// The same for what a client may ask before it has said who it is: nothing there is a list of anything.
const STRANGER_RATIO_MAX: usize = 4;
const STRANGER_APIS: [i16; 3] =
    [ApiKey::SaslHandshake as i16, ApiKey::ApiVersions as i16, ApiKey::SaslAuthenticate as i16];
/// No message may take more than this, in bytes beside its frame: 800,000 partitions of a Fetch.
const DECODED_BYTES_MAX: usize = 64 << 20;

/// The API's schema, if it is one of the client listener's.
pub(super) fn api(key: i16) -> Option<&'static Api> {
    const NONE: Option<&Api> = None;
    static BY_KEY: [Option<&Api>; 93] = {
        let mut by_key = [NONE; 93];
        let mut at = 0;
        while at < APIS.len() {
            by_key[APIS[at].key as usize] = Some(&APIS[at]);
            at += 1;
        }
        by_key
    };
    usize::try_from(key).ok().and_then(|key| *BY_KEY.get(key)?)
}

/// Walks a request's body; how many bytes it will take when it is decoded, beside the frame that it points into.
pub(super) fn request(api: &'static Api, version: i16, body: &[u8]) -> Result<usize, Flaw> {
    let ratio = if STRANGER_APIS.contains(&api.key) { STRANGER_RATIO_MAX } else { DECODED_RATIO_MAX };
    let budget = body.len().saturating_mul(ratio).saturating_add(DECODED_BYTES_FREE).min(DECODED_BYTES_MAX);
    let left = Walk::new(body, small(version)?, api.is_flexible(version), budget).message(api.request)?;
    Ok(budget - left)
}

/// The places of the records in a response of our own, in order.
pub(super) fn records_in(key: ApiKey, version: i16, body: &[u8]) -> Result<Vec<Records>, Flaw> {
    let Some((api, response)) = api(key as i16).and_then(|api| Some((api, api.response?))) else {
        return Err(Flaw::Malformed("a response without records"));
    };
    let mut found = Vec::new();
    Walk::new(body, small(version)?, api.is_flexible(version), usize::MAX).collecting(&mut found).message(response)?;
    Ok(found)
}

fn small(version: i16) -> Result<u8, Flaw> {
    u8::try_from(version).map_err(|_| Flaw::Malformed("no such version"))
}

/// Goes past the tagged fields of a header, of which there are none that we know.
pub(super) fn skip_tagged(bytes: &[u8]) -> Result<&[u8], Flaw> {
    Walk::new(bytes, 0, true, usize::MAX).past_tagged()
}
