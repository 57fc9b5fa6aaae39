use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A bit more than two chunks, with a short last granule.
const BLOCKS: u64 = (2 * CHUNK_GRANULES + 130) * GRANULE_BLOCKS + 5;

#[derive(Clone, Debug)]
enum Step {
    Mark(BlockRange),
    Clear(BlockRange),
    MarkAll,
}

fn range() -> impl Strategy<Value = BlockRange> {
    let chunk = CHUNK_GRANULES * GRANULE_BLOCKS;
    let near_edges = (0u64..4, 0u64..4000)
        .prop_map(move |(edge, offset)| (edge * chunk).saturating_sub(2000) + offset);
    let start = prop_oneof![0..BLOCKS, near_edges, Just(BLOCKS - 20)]
        .prop_map(|start| start.min(BLOCKS - 1));
    let count = prop_oneof![1u64..100, 1..3 * chunk, Just(u64::MAX)];
    (start, count).prop_map(|(start, count)| BlockRange::new(start, count.min(BLOCKS - start)))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![8 => range().prop_map(Step::Mark), 8 => range().prop_map(Step::Clear), 1 => Just(Step::MarkAll)];
    proptest::collection::vec(step, 0..12)
}

fn run(steps: &[Step]) -> (RegionMap, BTreeSet<u64>) {
    let mut map = RegionMap::new(BLOCKS);
    let mut model = BTreeSet::new();
    let granules = BLOCKS.div_ceil(GRANULE_BLOCKS);
    for step in steps {
        match *step {
            Step::Mark(range) => {
                map.mark(range);
                model.extend(range.start / GRANULE_BLOCKS..=(range.end() - 1) / GRANULE_BLOCKS);
            }
            Step::Clear(range) => {
                map.clear(range);
                for granule in range.start / GRANULE_BLOCKS..=(range.end() - 1) / GRANULE_BLOCKS {
                    let end = ((granule + 1) * GRANULE_BLOCKS).min(BLOCKS);
                    if granule * GRANULE_BLOCKS >= range.start && end <= range.end() {
                        model.remove(&granule);
                    }
                }
            }
            Step::MarkAll => {
                map.mark_all();
                model.extend(0..granules);
            }
        }
    }
    (map, model)
}

fn check(map: &RegionMap, model: &BTreeSet<u64>) -> Result<(), TestCaseError> {
    prop_assert_eq!(map.count_granules(), model.len() as u64);
    prop_assert_eq!(map.is_empty(), model.is_empty());
    let mut blocks = 0;
    let mut covered = BTreeSet::new();
    let mut last_end = None;
    for run in map.iter_runs(0) {
        prop_assert!(
            run.count > 0 && run.end() <= BLOCKS && last_end.is_none_or(|end| end < run.start)
        );
        last_end = Some(run.end());
        blocks += run.count;
        covered.extend(run.start / GRANULE_BLOCKS..run.end().div_ceil(GRANULE_BLOCKS));
    }
    prop_assert_eq!(&covered, model);
    prop_assert_eq!(map.dirty_bytes(), blocks * 4096);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn marks_and_runs_are_those_of_a_plain_set(steps in steps(), probes in proptest::collection::vec(0..BLOCKS, 20)) {
        let (map, model) = run(&steps);
        check(&map, &model)?;
        for probe in probes {
            let granule = probe / GRANULE_BLOCKS;
            prop_assert_eq!(map.is_marked(probe), model.contains(&granule));
            prop_assert_eq!(map.next_marked(granule), model.range(granule..).next().copied());
            if let Some(run) = map.next_run(probe) {
                prop_assert!(run.start >= probe);
                prop_assert_eq!(Some(run.start / GRANULE_BLOCKS), model.range(granule..).next().copied());
            }
        }
    }

    #[test]
    fn a_union_has_what_either_has(left in steps(), right in steps()) {
        let (mut map, mut model) = run(&left);
        let (other, others) = run(&right);
        map.union(&other);
        model.extend(others);
        check(&map, &model)?;
    }

    #[test]
    fn a_map_comes_back_from_its_bytes(steps in steps()) {
        let (map, _) = run(&steps);
        let bytes = map.encode();
        prop_assert!(bytes.len() <= 13 + 3 * (9 + 4096));
        prop_assert_eq!(RegionMap::decode(&bytes, BLOCKS), Ok(map.clone()));
        prop_assert_eq!(RegionMap::blocks_of(&bytes), Some(BLOCKS));
        // Of a volume that has grown since; one that has shrunk there is not.
        let mut grown = map;
        grown.grow(BLOCKS + 1);
        prop_assert_eq!(RegionMap::decode(&bytes, BLOCKS + 1), Ok(grown));
        prop_assert!(RegionMap::decode(&bytes, BLOCKS - 1).is_err());
        for cut in 0..bytes.len().min(200) {
            prop_assert!(RegionMap::decode(&bytes[..cut], BLOCKS).is_err());
        }
    }

    #[test]
    fn any_bytes_give_a_sound_map_or_an_error(steps in steps(), changes in proptest::collection::vec((0usize..60, any::<u8>()), 1..6)) {
        let mut bytes = run(&steps).0.encode();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Ok(map) = RegionMap::decode(&bytes, BLOCKS) {
            let count: u64 = map.iter_runs(0).map(|run| run.end().div_ceil(GRANULE_BLOCKS) - run.start / GRANULE_BLOCKS).sum();
            prop_assert_eq!(count, map.count_granules());
            prop_assert_eq!(RegionMap::decode(&map.encode(), BLOCKS), Ok(map));
        }
    }

    #[test]
    fn growing_keeps_marks_and_adds_none(blocks in 1u64..BLOCKS, all in any::<bool>()) {
        let mut map = RegionMap::new(blocks);
        if all { map.mark_all(); } else { map.mark(BlockRange::new(blocks - 1, 1)); }
        let marked = map.count_granules();
        map.grow(BLOCKS);
        prop_assert_eq!(map.count_granules(), marked);
        prop_assert!(map.is_marked(blocks - 1));
        prop_assert_eq!(map.next_marked(blocks.div_ceil(GRANULE_BLOCKS)), None);
    }
}

#[test]
fn alternating_granules_are_the_worst_case_and_still_bounded() {
    let mut map = RegionMap::new(BLOCKS);
    for granule in (0..BLOCKS / GRANULE_BLOCKS).step_by(2) {
        map.mark(BlockRange::new(granule * GRANULE_BLOCKS, 1));
    }
    let bytes = map.encode();
    assert!(bytes.len() < 2 * 4096 + 200, "{} bytes", bytes.len());
    assert_eq!(RegionMap::decode(&bytes, BLOCKS), Ok(map));
}

#[test]
fn an_empty_and_a_full_map_of_a_large_volume_are_small() {
    let blocks = (256 << 40) / 4096;
    let mut map = RegionMap::new(blocks);
    assert!(map.memory_bytes() < 100 && map.encode().len() < 20);
    map.mark_all();
    assert!(map.memory_bytes() < 4 << 20 && map.encode().len() < 40);
    assert_eq!(map.dirty_bytes(), 256 << 40);
    map.clear(BlockRange::new(0, blocks));
    assert_eq!(map, RegionMap::new(blocks));
}
