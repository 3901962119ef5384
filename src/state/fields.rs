//! The fields of a protobuf message one by one, so that the long lists of a snapshot never lie in memory decoded as a
//! whole beside what is made of them.
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

struct Field<'a> {
    tag: u32,
    /// Its key and value, as they stand in the message.
    whole: &'a [u8],
    /// The value, if it has a length.
    value: &'a [u8],
}

/// Takes a field off the front of `message`; `None` if there is none that is whole.
fn take<'a>(message: &mut &'a [u8]) -> Option<Field<'a>> {
    let all = *message;
    let (tag, wire) = decode_key(message).ok()?;
    let mut value: &[u8] = &[];
    if wire == WireType::LengthDelimited {
        let len = usize::try_from(decode_varint(message).ok()?).ok()?;
        value = message.get(..len)?;
        message.advance(len);
    } else {
        skip_field(wire, tag, message, DecodeContext::default()).ok()?;
    }
    Some(Field { tag, whole: &all[..all.len() - message.len()], value })
}

/// The message without its fields of these tags; `None` if it is not a message.
pub(super) fn without(mut message: &[u8], tags: &[u32]) -> Option<Vec<u8>> {
    let mut rest = Vec::new();
    while !message.is_empty() {
        let field = take(&mut message)?;
        if !tags.contains(&field.tag) {
            rest.extend_from_slice(field.whole);
        }
    }
    Some(rest)
}

/// The values of its fields of this tag, in order, up to where it stops being a message.
pub(super) fn each(mut message: &[u8], tag: u32) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || take(&mut message)).filter(move |field| field.tag == tag).map(|field| field.value)
}
