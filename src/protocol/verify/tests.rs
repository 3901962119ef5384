mod corpus;
mod hostile;

use bytes::Bytes;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::schema::{Field, Kind, Struct};
use super::*;
use crate::protocol::parse_header;
use crate::protocol::tests::messages::{decode_encode, newest};

#[test]
fn decoded_structs_take_no_more_than_the_table_says() {
    for (believed, actual) in table::sizes() {
        assert!(believed >= actual, "{believed} {actual}");
    }
}

/// Writes a body that the schema allows, with lengths and counts from chance.
struct Sample {
    out: Vec<u8>,
    random: StdRng,
    version: u8,
    flexible: bool,
    /// Whether there are tagged fields that we know: they may hold the default, which nobody would write.
    with_tagged: bool,
}

impl Sample {
    fn of(api: &Api, version: i16, seed: u64) -> Vec<u8> {
        let flexible = api.is_flexible(version);
        let (random, version, with_tagged) = (StdRng::seed_from_u64(seed), version as u8, seed % 2 == 1);
        let mut sample = Self { out: Vec::new(), random, version, flexible, with_tagged };
        sample.fields(api.request);
        sample.out
    }

    fn fields(&mut self, of: &Struct) {
        let version = self.version;
        of.fields.iter().filter(|field| field.is_in(version)).for_each(|field| self.field(field));
        if self.flexible {
            self.tagged(of);
        }
    }

    fn tagged(&mut self, of: &Struct) {
        let known: Vec<_> = of.tagged.iter().filter(|(_, field)| field.is_in(self.version)).collect();
        let known: Vec<_> = known.into_iter().filter(|_| self.with_tagged && self.random.random_bool(0.5)).collect();
        let unknown = if self.random.random_bool(0.1) { self.random.random_range(1..3) } else { 0 };
        self.varint(known.len() as u32 + unknown);
        for (tag, field) in known {
            let mut inner = std::mem::take(&mut self.out);
            self.field(field);
            std::mem::swap(&mut inner, &mut self.out);
            self.varint(*tag);
            self.varint(inner.len() as u32);
            self.out.extend(inner);
        }
        for tag in 0..unknown {
            self.varint(100 + tag);
            self.varint(3);
            self.out.extend(b"new");
        }
    }

    fn field(&mut self, field: &Field) {
        let null = field.may_be_null(self.version) && self.random.random_bool(0.3);
        let count = (!null).then(|| self.random.random_range(0..3));
        match field.kind {
            Kind::Fixed(width) => self.fixed(width),
            Kind::Str => self.string(count),
            Kind::Bytes | Kind::Records => {
                self.length(count, 4);
                self.fixed(count.unwrap_or(0));
            }
            Kind::Numbers(width) => {
                self.length(count, 4);
                (0..count.unwrap_or(0)).for_each(|_| self.fixed(width));
            }
            Kind::Strs => {
                self.length(count, 4);
                (0..count.unwrap_or(0)).for_each(|at| self.string(Some(at)));
            }
            Kind::One(_) if null => self.out.push(0xff),
            Kind::One(of) => {
                self.out.extend(field.may_be_null(self.version).then_some(1));
                self.fields(of);
            }
            Kind::Many(of) => {
                self.length(count, 4);
                (0..count.unwrap_or(0)).for_each(|_| self.fields(of));
            }
        }
    }

    fn fixed(&mut self, width: usize) {
        // Below 0x80, so that negative enum values and counts stay out of the way; 1 for booleans.
        self.out.extend(std::iter::repeat_n(1, width));
    }

    fn string(&mut self, count: Option<usize>) {
        self.length(count, 2);
        self.out.extend("é".repeat(count.unwrap_or(0)).bytes().take(count.unwrap_or(0) / 2 * 2));
        self.out.extend(std::iter::repeat_n(b'a', count.unwrap_or(0) % 2));
    }

    fn length(&mut self, length: Option<usize>, width: usize) {
        match length {
            length if self.flexible => self.varint(length.map_or(0, |length| length as u32 + 1)),
            Some(length) => self.out.extend(&(length as u32).to_be_bytes()[4 - width..]),
            None => self.out.extend(std::iter::repeat_n(0xff, width)),
        }
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }
}

/// Every API in every version of the table.
fn all() -> impl Iterator<Item = (&'static Api, i16)> {
    APIS.iter().flat_map(|api| (api.first..=api.last).map(move |version| (api, version)))
}

#[test]
fn the_table_ends_where_the_message_crate_does() {
    for api in &APIS {
        let (request, response) = newest(api.key);
        assert!(api.layout <= request && api.layout <= response, "{}", api.key);
    }
}

#[test]
fn what_the_table_allows_the_message_crate_decodes() {
    for (api, version) in all() {
        for seed in 0..100 {
            let body = Bytes::from(Sample::of(api, version, seed));
            assert_eq!(Walk::new(&body, version as u8, api.is_flexible(version), 1 << 20).rest(api.request), Ok(0));
            let again = decode_encode(api.key, version, body.clone());
            assert!(again.is_ok(), "{} version {version} seed {seed}: {again:?}", api.key);
            assert!(seed % 2 == 1 || again == Ok(body), "{} version {version} seed {seed}", api.key);
        }
    }
}

/// What mutations put in: lengths of all widths that promise too much, and bytes that end a varint or do not.
const POISON: [&[u8]; 9] = [
    &[0x7f, 0xff, 0xff, 0xff],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x80, 0, 0, 0],
    &[0x7f, 0xff],
    &[0x80],
    &[0],
    &[2],
    &[0xc3],
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Never a panic; and what the walk lets through, the crate decodes.
    #[test]
    fn mutated_requests_are_refused_or_decoded(
        at in any::<prop::sample::Index>(),
        seed in any::<u64>(),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..POISON.len(), any::<bool>()), 0..4),
        end in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (api, version) = at.get(&all().collect::<Vec<_>>()).to_owned();
        let mut body = Sample::of(api, version, seed);
        for (place, poison, insert) in cuts {
            let (place, poison) = (place.index(body.len() + 1), POISON[poison]);
            let until = if insert { place } else { (place + poison.len()).min(body.len()) };
            body.splice(place..until, poison.iter().copied());
        }
        if let Some(end) = end {
            body.truncate(end.index(body.len() + 1));
        }
        let verdict = request(api, version, &body);
        let decoded = decode_encode(api.key, version, body.into());
        prop_assert_eq!(verdict.is_ok(), decoded.is_ok(), "{} version {}: {:?}", api.key, version, decoded);
    }

    #[test]
    fn random_bytes_are_refused_or_decoded(
        at in any::<prop::sample::Index>(),
        body in prop::collection::vec(prop_oneof![any::<u8>(), 0..4_u8], 0..200),
    ) {
        let (api, version) = at.get(&all().collect::<Vec<_>>()).to_owned();
        let verdict = request(api, version, &body);
        prop_assert_eq!(verdict.is_ok(), decode_encode(api.key, version, body.into()).is_ok());
    }

    #[test]
    fn random_frames_have_a_header_or_not(key in -1..95_i16, version in -1..20_i16, rest: Vec<u8>) {
        let frame = [&key.to_be_bytes(), &version.to_be_bytes(), rest.as_slice()].concat().into();
        if let Ok((header, body)) = parse_header(&frame) {
            prop_assert_eq!((header.api_key as i16, header.version), (key, version));
            prop_assert!(frame.ends_with(&body));
        }
    }
}

/// `cargo test --release --lib protocol::verify -- --ignored --nocapture`
#[test]
#[ignore = "prints times"]
#[allow(clippy::disallowed_methods)]
fn time_of_a_walk() {
    use kafka_protocol::messages::ProduceRequest;
    for (partitions, version) in [(1_u8, 13), (1, 9), (1, 7), (100, 13), (100, 7)] {
        let sample = |out: &mut Vec<u8>, count: u8| match version {
            ..9 => out.extend([0, 0, 0, count]),
            _ => out.push(count + 1),
        };
        let mut body = if version < 9 { vec![0xff, 0xff] } else { vec![0] };
        body.extend([0xff, 0xff, 0, 0, 0, 0]);
        sample(&mut body, 1);
        match version {
            13 => body.extend([7; 16]),
            9 => body.extend(b"\x0dorders-topic"),
            _ => body.extend(b"\0\x0corders-topic"),
        }
        sample(&mut body, partitions);
        for _ in 0..partitions {
            body.extend([0; 4]);
            body.extend(if version < 9 { vec![0, 0, 4, 0] } else { vec![0x81, 8] });
            body.extend([0; 1024]);
            body.extend((version >= 9).then_some(0));
        }
        body.extend((version >= 9).then_some([0, 0]).into_iter().flatten());
        let (body, api, rounds) = (Bytes::from(body), api(0).unwrap(), 1_000_000 / u32::from(partitions));
        let start = std::time::Instant::now();
        for _ in 0..rounds {
            request(api, version, std::hint::black_box(&body)).unwrap();
        }
        let walk = start.elapsed() / rounds;
        let start = std::time::Instant::now();
        for _ in 0..rounds {
            drop(std::hint::black_box(crate::protocol::decode::<ProduceRequest>(version, body.clone()).unwrap()));
        }
        println!(
            "Produce {version}, {partitions} partitions: walk {walk:?}, with decoding {:?}",
            start.elapsed() / rounds
        );
    }
}
