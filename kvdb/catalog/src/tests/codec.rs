use super::*;
use crate::codec::{self, CodecError, Kind};
use proptest::prelude::*;

#[test]
fn a_catalog_comes_back_as_it_was() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    cluster.done(Cluster::deactivate(A, &[2]));
    let bytes = cluster.catalog.encode().unwrap();
    assert_eq!(Catalog::decode(&bytes).unwrap(), cluster.catalog);
}

#[test]
fn one_thing_is_never_read_as_another() {
    let bytes = Catalog::default().encode().unwrap();
    assert_eq!(
        Request::decode(&bytes),
        Err(CodecError::Kind { ours: 2, theirs: 1 })
    );
}

#[test]
fn every_cut_and_every_flipped_bit_is_found() {
    let bytes = Cluster::with_volume().catalog.encode().unwrap();
    for length in 0..bytes.len() {
        assert!(Catalog::decode(&bytes[..length]).is_err());
    }
    for bit in 0..bytes.len() * 8 {
        let mut broken = bytes.clone();
        broken[bit / 8] ^= 1 << (bit % 8);
        assert!(Catalog::decode(&broken).is_err(), "bit {bit}");
    }
}

#[test]
fn a_length_that_claims_more_than_there_is_takes_no_memory() {
    // A vector's length of 2^62, in an envelope whose checksum is right.
    let bytes = codec::seal(Kind::REQUEST, &(1_u64 << 62, 0_u8)).unwrap();
    assert!(codec::unseal::<Vec<u64>>(Kind::REQUEST, &bytes).is_err());
    assert!(codec::unseal::<String>(Kind::REQUEST, &bytes).is_err());
}

#[test]
fn a_request_that_is_too_large_is_refused() {
    let cause = Cause {
        who: "x".repeat(codec::REQUEST_BYTES_MAX),
        why: String::new(),
        at_ms: 0,
    };
    let request = Request {
        id: RequestId {
            client: 1,
            number: 1,
        },
        cause,
        command: Command::Nothing,
    };
    assert!(matches!(request.encode(), Err(CodecError::Length(_))));
}

proptest! {
    #[test]
    fn any_bytes_give_a_value_or_an_error(payload in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = codec::seal(Kind::REQUEST, &()).unwrap();
        bytes.extend(&payload);
        let _ = Request::decode(&bytes);
        let _ = Request::decode(&payload);
        let _ = Catalog::decode(&payload);
    }
}

/// The catalog as an earlier schema would have written it: without its last `added` bytes, each of which is an empty map or list.
fn as_of(catalog: &Catalog, schema: u16, added: usize) -> Vec<u8> {
    let bytes = catalog.encode().unwrap();
    let payload = &bytes[codec::ENVELOPE_BYTES..bytes.len() - added];
    assert_eq!(
        bytes[bytes.len() - added..],
        vec![0; added],
        "nothing of it is in use"
    );
    let (schema, kind) = (schema.to_le_bytes(), 1_u16.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    for part in [&schema[..], &kind, payload] {
        hasher.update(part);
    }
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    let crc = hasher.finalize().to_le_bytes();
    [&bytes[..4], &schema, &kind, &length, &crc, payload].concat()
}

#[test]
fn catalogs_of_earlier_schemas_are_read() {
    let whole = Cluster::with_volume().catalog;
    let mut catalog = whole.clone();
    catalog.audit_digests.clear();
    for (schema, added) in [(2, 10), (3, 8), (4, 4)] {
        let older = as_of(&catalog, schema, added);
        assert_eq!(Catalog::decode(&older).unwrap(), whole, "schema {schema}");
        assert!(Catalog::decode(&older[..older.len() - 1]).is_err());
    }
    assert!(matches!(
        Catalog::decode(&as_of(&catalog, 6, 0)),
        Err(CodecError::Schema { ours: 5, theirs: 6 })
    ));
}
