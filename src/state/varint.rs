//! LEB128 integers for the packed parts of entries and snapshots.

/// Appends `value`, 7 bits a byte, lowest first.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed value in zigzag form, so that small negatives stay short.
pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, zigzag(value));
}

/// The zigzag form of `value`: 0, -1, 1, -2 … as 0, 1, 2, 3 ….
pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Bytes that [`put`] appends for `value`.
pub(super) fn len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Takes a value off the front of `input`; `None` if it ends early or exceeds 64 bits.
pub(super) fn take(input: &mut &[u8]) -> Option<u64> {
    // Most values are small.
    if let Some((&byte, rest)) = input.split_first()
        && byte < 0x80
    {
        *input = rest;
        return Some(u64::from(byte));
    }
    let mut value = 0_u64;
    for (i, &byte) in input.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if i == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * i);
        if byte & 0x80 == 0 {
            *input = &input[i + 1..];
            return Some(value);
        }
    }
    None
}

/// Takes a zigzag value off the front of `input`.
pub(super) fn take_signed(input: &mut &[u8]) -> Option<i64> {
    let raw = take(input)?;
    Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

/// Takes a value that must fit `u32`.
pub(super) fn take_u32(input: &mut &[u8]) -> Option<u32> {
    take(input).and_then(|v| u32::try_from(v).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_value_comes_back(value: u64, signed: i64) {
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert_eq!(out.len(), len(value));
            put_signed(&mut out, signed);
            let mut input = out.as_slice();
            prop_assert_eq!(take(&mut input), Some(value));
            prop_assert_eq!(take_signed(&mut input), Some(signed));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let mut input = bytes.as_slice();
            while take_signed(&mut input).is_some() {}
        }
    }
}
