//! Dirty maps: of checkpoints and of peers.

use isthmus_engine::BlockRange;
use isthmus_volume::{BLOCKS_MAX, RegionMap};

use crate::random::Random;
use crate::target::{Expect, Target, Verdict};

/// Runs of a map that are looked at.
const RUNS_MAX: usize = 10_000;

/// [`RegionMap::decode`].
pub struct RegionMaps;

impl Target for RegionMaps {
    fn name(&self) -> &'static str {
        "region-map"
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let blocks_max = 1 << (4 + random.below(22));
        let blocks = 1 + random.below(blocks_max);
        let mut map = RegionMap::new(blocks);
        if random.once_in(8) {
            map.mark_all();
        }
        for _ in 0..random.below(24) {
            let start = random.below(blocks);
            let count_max = (blocks - start).min(1 << random.below(24));
            let count = 1 + random.below(count_max);
            let range = BlockRange::new(start, count);
            if random.once_in(4) {
                map.clear(range);
            } else {
                map.mark(range);
            }
        }
        map.encode()
    }

    fn input_bytes_max(&self) -> usize {
        16 << 10
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        // A run costs eleven bytes and may need a chunk of 4 KiB; "all marked" costs ten and may be 131,072 chunks without bits.
        // Twice, since it is decoded again.
        2 * ((16 << 20) + 512 * input_bytes)
    }

    fn refuses_prefixes(&self) -> bool {
        true
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        // The volume's size is known beforehand; the map must name the same, or less.
        let named = input.get(1..9).and_then(|bytes| bytes.try_into().ok());
        let blocks = named.map_or(1, u64::from_le_bytes).min(BLOCKS_MAX);
        let Ok(map) = RegionMap::decode(input, blocks) else {
            return Verdict::Refused;
        };
        let again = map.encode();
        assert_eq!(RegionMap::decode(&again, blocks).as_ref(), Ok(&map));
        assert_eq!(RegionMap::blocks_of(input), Some(blocks));
        assert!(
            blocks == 0 || RegionMap::decode(input, blocks - 1).is_err(),
            "a map of a larger volume"
        );
        let mut grown = map.clone();
        grown.grow(blocks + 1);
        assert_eq!(
            RegionMap::decode(input, blocks + 1),
            Ok(grown),
            "a map of the volume before it has grown"
        );
        let (mut at, mut marked) = (0, 0);
        for _ in 0..RUNS_MAX {
            let Some(run) = map.next_run(at) else {
                assert_eq!(
                    marked * 4096,
                    map.dirty_bytes(),
                    "the runs are all there is"
                );
                break;
            };
            assert!(
                run.start >= at && run.count > 0 && run.fits(blocks),
                "{run:?}"
            );
            marked += run.count;
            at = run.end();
        }
        Verdict::Accepted
    }
}
