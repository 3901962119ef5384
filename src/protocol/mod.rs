//! Bytes ⇄ requests. `parse_header` tells what a frame asks for, `decode` verifies its body and gives the message
//! crate's struct, `encode_response` makes the answer's frame, with record bytes spliced in uncopied (`Splices`). No
//! input makes it panic or allocate more than a fixed multiple of the frame. It knows no topic, no record and no socket.
//! Tests: beside each file; frames of real clients and of a real Kafka in `tests/wire/`.
mod by_id;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod verify;
mod versions;

pub use by_id::{ById, ByIdResponse, decode_by_id, encode_by_id};
pub use kafka_protocol::messages::ApiKey;
pub use request::{FrameError, RequestHeader, decode, decoded_bytes, parse_header};
pub use response::{EncodeError, Frame, Splices, encode_response, records_of};
pub use versions::{is_decodable, unsupported_api_versions};
