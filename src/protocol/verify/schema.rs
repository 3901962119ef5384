//! What the table is made of: the shape of a message's fields over its versions.

/// As a last version: the newest. As a first one: never.
pub(super) const ANY: u8 = u8::MAX;

/// One API of the client listener.
pub(in crate::protocol) struct Api {
    pub(super) key: i16,
    /// The versions that can be decoded and answered; the listener may serve fewer.
    pub(super) first: i16,
    pub(super) last: i16,
    /// The last of them that changed the layout of the request or the response.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test compares it with the message crate"))]
    pub(super) layout: i16,
    /// The first version with compact lengths and tagged fields (KIP-482).
    pub(super) flexible: u8,
    pub(super) request: &'static Struct,
    /// Only of those responses that carry records.
    pub(super) response: Option<&'static Struct>,
}

pub(super) struct Struct {
    /// What the message crate's struct takes, without what it points to. At least its true size (tested).
    pub(super) decoded_bytes: usize,
    pub(super) fields: &'static [Field],
    /// By tag.
    pub(super) tagged: &'static [(u32, Field)],
}

pub(super) struct Field {
    first: u8,
    last: u8,
    null_first: u8,
    null_last: u8,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    /// A number, boolean or UUID of so many bytes.
    Fixed(usize),
    Str,
    Bytes,
    /// Bytes that hold record batches.
    Records,
    /// An array of numbers of so many bytes each.
    Numbers(usize),
    /// An array of strings.
    Strs,
    One(&'static Struct),
    /// An array of structs.
    Many(&'static Struct),
}

/// A field of the versions `first` to `last` that is never null.
pub(super) const fn field(first: u8, last: u8, kind: Kind) -> Field {
    Field { first, last, null_first: ANY, null_last: 0, kind }
}

impl Field {
    /// The same field, but it may be null in the versions `first` to `last`.
    pub(super) const fn null(self, first: u8, last: u8) -> Self {
        Self { null_first: first, null_last: last, ..self }
    }

    pub(super) fn is_in(&self, version: u8) -> bool {
        self.first <= version && version <= self.last
    }

    pub(super) fn may_be_null(&self, version: u8) -> bool {
        self.null_first <= version && version <= self.null_last
    }
}

impl Api {
    pub(in crate::protocol) fn has(&self, version: i16) -> bool {
        self.first <= version && version <= self.last
    }

    pub(in crate::protocol) fn is_flexible(&self, version: i16) -> bool {
        version >= i16::from(self.flexible)
    }
}
