//! Frames of clients: the header first, then the body by the schema of its API and version.
use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::{Message, Request, StrBytes};

use super::verify::{self, Flaw};

/// What stands in front of every request. The client id is a slice of the frame: copy it to keep it longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    pub api_key: ApiKey,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<StrBytes>,
}

/// Why a frame is no request. Kafka closes the connection on each of them without an answer, but for one case of
/// [`FrameError::Unsupported`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// An API or a version of it that nobody serves. If the key is that of ApiVersions, the answer is
    /// [`super::unsupported_api_versions`] and the connection lives on.
    #[error("API {api_key} version {version} is not supported")]
    Unsupported { api_key: i16, version: i16, correlation_id: i32 },
    /// The bytes are not what the API and version prescribe.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// Well-formed, but it would take far more memory decoded than its bytes account for.
    #[error("too large: its decoded form is over the limit")]
    TooLarge,
}

impl From<Flaw> for FrameError {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Malformed(what) => Self::Malformed(what),
            Flaw::TooLarge => Self::TooLarge,
        }
    }
}

/// Reads a frame's header (the frame is without its four bytes of size); the second is the body. After it has
/// returned, the version is one that [`decode`] knows for this API.
pub fn parse_header(frame: &Bytes) -> Result<(RequestHeader, Bytes), FrameError> {
    const SHORT: FrameError = FrameError::Malformed("the header ends early");
    let (&[k0, k1, v0, v1, c0, c1, c2, c3], rest) = frame.split_first_chunk().ok_or(SHORT)?;
    let key = i16::from_be_bytes([k0, k1]);
    let version = i16::from_be_bytes([v0, v1]);
    let correlation_id = i32::from_be_bytes([c0, c1, c2, c3]);
    let unsupported = FrameError::Unsupported { api_key: key, version, correlation_id };
    let (Some(api), Ok(api_key)) = (verify::api(key), ApiKey::try_from(key)) else { return Err(unsupported) };
    if !api.has(version) {
        return Err(unsupported);
    }
    // The header has a schema as well: a client id and, in flexible versions, tagged fields. The id's length is in
    // the classic form in every version, so that a broker can read the header of a version that it does not know.
    let (length, rest) = rest.split_first_chunk().ok_or(SHORT)?;
    let (id, rest) = match i16::from_be_bytes(*length) {
        -1 => (None, rest),
        length => {
            let length = usize::try_from(length).map_err(|_| FrameError::Malformed("a length is negative"))?;
            let (id, rest) = rest.split_at_checked(length).ok_or(SHORT)?;
            (Some(id), rest)
        }
    };
    let client_id = id.map(|id| match StrBytes::from_utf8(frame.slice_ref(id)) {
        Ok(id) => id,
        // As in Kafka: whatever a client calls itself is no reason to turn it away.
        Err(_) => String::from_utf8_lossy(id).into_owned().into(),
    });
    let rest = if api.is_flexible(version) { verify::skip_tagged(rest)? } else { rest };
    Ok((RequestHeader { api_key, version, correlation_id, client_id }, frame.slice(frame.len() - rest.len()..)))
}

/// Decodes the body of a request of `M`'s API. As in Kafka, bytes after its end are ignored. Strings and bytes in it are slices of `body`, and hold its allocation.
/// An error means that the bytes are not such a request, or would take too much memory; retrying is no use.
pub fn decode<M: Request>(version: i16, body: Bytes) -> Result<M, FrameError> {
    decoded_bytes(M::KEY, version, &body)?;
    let mut rest = body;
    M::decode(&mut rest, wire_version::<M>(version)).map_err(|_| FrameError::Malformed("the message crate refused it"))
}

/// How much memory the body's message takes once it is decoded, in bytes beside the frame itself: for budgets.
/// Its errors are those of [`decode`], which need not be called when there is one.
pub fn decoded_bytes(api_key: i16, version: i16, body: &[u8]) -> Result<usize, FrameError> {
    match verify::api(api_key) {
        Some(api) if api.has(version) => Ok(verify::request(api, version, body)?),
        _ => Err(FrameError::Malformed("no such API and version")),
    }
}

/// The version that the message crate knows for a newer one with the same layout: ListOffsets 11 is laid out as 10.
/// The table ends before the first version whose layout the crate does not know, and a test holds it to that.
pub(super) fn wire_version<M: Message>(version: i16) -> i16 {
    version.min(M::VERSIONS.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8]) -> Bytes {
        Bytes::copy_from_slice(bytes)
    }

    #[test]
    fn a_classic_header_ends_after_the_client_id() {
        let (header, body) = parse_header(&frame(b"\0\x03\0\x01\0\0\0\x07\0\x02meBODY")).unwrap();
        assert_eq!((header.api_key, header.version, header.correlation_id), (ApiKey::Metadata, 1, 7));
        assert_eq!(header.client_id.as_deref(), Some("me"));
        assert_eq!(body, "BODY");
    }

    #[test]
    fn a_flexible_header_ends_after_its_tagged_fields() {
        let (header, body) = parse_header(&frame(b"\0\x03\0\x09\0\0\0\x07\xff\xff\x01\x05\x02xyBODY")).unwrap();
        assert_eq!(header.client_id, None);
        assert_eq!(body, "BODY");
    }

    #[test]
    fn an_unknown_version_is_told_with_its_correlation_id() {
        let error = parse_header(&frame(b"\0\x12\0\x63\0\0\0\x07")).unwrap_err();
        assert_eq!(error, FrameError::Unsupported { api_key: 18, version: 99, correlation_id: 7 });
        for (key, version) in [(3, 14), (1, 3), (0, 2), (11, 10), (200, 0), (4, 0), (52, 0), (-1, 0), (3, -1)] {
            let bytes = [i16::to_be_bytes(key).as_slice(), &i16::to_be_bytes(version), b"\0\0\0\x07\xff\xff"].concat();
            assert!(matches!(parse_header(&frame(&bytes)), Err(FrameError::Unsupported { correlation_id: 7, .. })));
        }
    }

    #[test]
    fn a_client_may_call_itself_what_it_likes() {
        let (header, _) = parse_header(&frame(b"\0\x03\0\x01\0\0\0\x07\0\x02\xffeBODY")).unwrap();
        assert_eq!(header.client_id.as_deref(), Some("\u{fffd}e"));
    }

    #[test]
    fn every_prefix_of_a_header_is_refused() {
        let whole = b"\0\x03\0\x09\0\0\0\x07\0\x02me\x01\x05\x02xy";
        assert!(parse_header(&frame(whole)).is_ok());
        for end in 0..whole.len() {
            assert!(matches!(parse_header(&frame(&whole[..end])), Err(FrameError::Malformed(_))), "{end} bytes");
        }
    }
}
