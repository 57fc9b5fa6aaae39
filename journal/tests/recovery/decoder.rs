//! Every decoder is total: any bytes give a value or an error.

use crate::world::{IDENTITY, SMALL, recover};
use bytes::Bytes;
use isthmus_journal::layout::{self, Entry, GroupHeader, HEADER_BYTES};
use isthmus_journal::{Disk, Lsn, StreamId};
use isthmus_simulated_disk::SimulatedDisk;
use proptest::prelude::*;

fn header() -> impl Strategy<Value = GroupHeader> {
    let longs = (
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
    );
    (
        longs,
        any::<u32>(),
        any::<u32>(),
        any::<u32>(),
        any::<u32>(),
    )
        .prop_map(
            |(
                (sequence, first, durable, head_sequence, head_first),
                page,
                records,
                bytes,
                table_checksum,
            )| GroupHeader {
                identity: IDENTITY,
                sequence,
                page,
                first: Lsn(first),
                durable: Lsn(durable),
                head_sequence,
                head_first: Lsn(head_first),
                records,
                bytes,
                table_checksum,
            },
        )
}

/// A header that passes every bound, with whatever else in it: the worst that a disk can make up.
fn plausible_header() -> impl Strategy<Value = GroupHeader> {
    let places = (5_u64..30, 0_u32..16, 1_u64..40, 0_u64..40);
    (places, 5_u64..30, 0_u64..40, 0_u32..300, 1_u32..16).prop_map(
        |((sequence, page, first, durable), head_sequence, head_first, records, pages)| {
            GroupHeader {
                identity: IDENTITY,
                sequence,
                page,
                first: Lsn(first),
                durable: Lsn(durable.min(first - 1)),
                head_sequence: head_sequence.min(sequence + 1),
                head_first: Lsn(head_first.min(first)),
                records,
                bytes: pages * 4096,
                table_checksum: 0,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_decode_to_a_value_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = GroupHeader::decode(&bytes);
    }

    #[test]
    fn any_header_gives_back_its_fields_or_nothing(header in header()) {
        if let Some(decoded) = GroupHeader::decode(&header.encode()) {
            prop_assert_eq!(decoded, header);
        }
    }

    #[test]
    fn any_body_is_taken_apart_without_panic(header in plausible_header(), body in proptest::collection::vec(any::<u8>(), 0..20_000)) {
        let mut header = header;
        let table_end = HEADER_BYTES + header.records as usize * layout::ENTRY_BYTES;
        // Let the table's checksum be right, so that the lengths in it are believed.
        if let Some(table) = body.get(HEADER_BYTES..table_end) {
            header.table_checksum = crc32fast::hash(table);
        }
        let _ = layout::records(&header, &Bytes::from(body));
    }

    #[test]
    fn what_was_encoded_is_decoded(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..30)) {
        let parts: Vec<Vec<Bytes>> = payloads.iter().map(|payload| payload.chunks(7).map(Bytes::copy_from_slice).collect()).collect();
        let entries: Vec<Entry> = parts.iter().zip(0..).map(|(parts, stream)| Entry::of(StreamId(stream), parts)).collect();
        let bytes = layout::group_bytes(entries.len(), payloads.iter().map(|payload| payload.len() as u64).sum());
        let header = GroupHeader {
            identity: 1, sequence: 2, page: 3, first: Lsn(4), durable: Lsn(3), head_sequence: 2, head_first: Lsn(1),
            records: 0, bytes: bytes as u32, table_checksum: 0,
        };
        let mut group = layout::front(header, &entries).to_vec();
        payloads.iter().for_each(|payload| group.extend_from_slice(payload));
        prop_assert!(group.len() as u64 <= bytes);
        group.resize(bytes as usize, 0);
        let decoded = GroupHeader::decode(&group).expect("it is a header");
        prop_assert_eq!(decoded.records as usize, payloads.len());
        let records = layout::records(&decoded, &Bytes::from(group)).expect("all is valid");
        for ((record, payload), stream) in records.iter().zip(&payloads).zip(0..) {
            prop_assert_eq!((record.0, &record.1[..]), (StreamId(stream), &payload[..]));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_disk_of_made_up_groups_opens_or_fails_without_panic(
        headers in proptest::collection::vec((plausible_header(), any::<bool>()), 0..60),
        description in proptest::collection::vec(any::<u8>(), 0..100),
        spoil in any::<bool>(),
    ) {
        let mut disk = SimulatedDisk::new(1);
        isthmus_journal::Journal::format(&mut disk, crate::world::FOLDER, SMALL, IDENTITY).expect("there is room");
        for (mut header, right_place) in headers {
            let file = if right_place { header.sequence % u64::from(SMALL.segments) } else { 0 };
            header.table_checksum = 0;
            if right_place {
                header.records = 0;
            }
            let file = disk.open(&format!("journal/segment-{file:04}")).expect("it was formatted");
            disk.write_now(file, u64::from(header.page) * 4096, &header.encode()).expect("there is room");
        }
        if spoil {
            let file = disk.open("journal/description").expect("it was formatted");
            disk.write_now(file, 0, &description).expect("there is room");
            disk.write_now(file, 4096, &description).expect("there is room");
        }
        let _ = recover(&mut disk);
    }
}
