use super::rig::Rig;
use isthmus_engine::BlockRange;

/// Reads and writes as they come, many at once, overlapping: each read has what was submitted before it.
#[test]
fn operations_take_effect_in_the_order_of_their_submission_where_they_overlap() {
    for seed in 0..18 {
        let mut rig = Rig::new(seed, 256 * 3 + 77);
        let depth = [4, 40, 400][seed as usize % 3];
        for _ in 0..600 {
            let range = rig.range(if seed % 2 == 0 { 12 } else { 500 });
            match rig.random.below(20) {
                0..=6 => rig.write(range),
                7 | 8 => rig.clear(range),
                9 => rig.status(range),
                10 if rig.random.chance(1, 6) => rig.checkpoint(),
                11 => rig.clear(BlockRange::new(
                    range.start / 256 * 256,
                    (rig.blocks - range.start / 256 * 256).min(256),
                )),
                _ => rig.read(range),
            }
            if rig.random.chance(1, 2) {
                rig.step();
            }
            while rig.expected.len() > depth {
                rig.step();
                rig.tick();
            }
        }
        rig.settle();
        rig.check_all();
        rig.restart();
        rig.check_all();
        assert!(rig.failed.is_empty());
    }
}

#[test]
fn a_block_read_with_its_header_in_memory_is_one_disk_operation() {
    let mut rig = Rig::new(1, 1024);
    rig.write(BlockRange::new(300, 8));
    rig.settle();
    rig.read(BlockRange::new(303, 1));
    rig.step();
    assert_eq!(rig.store.jobs.len(), 1);
    rig.settle();
    rig.read(BlockRange::new(310, 1));
    rig.step();
    assert!(rig.store.is_idle(), "an absent block takes none");
}

#[test]
fn a_read_of_absent_blocks_waits_for_a_write_to_them_under_way() {
    let mut rig = Rig::new(1, 1024);
    rig.write(BlockRange::new(0, 300));
    rig.read(BlockRange::new(0, 600));
    rig.clear(BlockRange::new(0, 256));
    rig.read(BlockRange::new(100, 300));
    rig.settle();
}

#[test]
fn many_writes_of_one_block_are_all_answered() {
    let mut rig = Rig::new(3, 1024);
    for _ in 0..1000 {
        rig.write(BlockRange::new(5, 1));
        rig.read(BlockRange::new(4, 3));
    }
    rig.settle();
    rig.check_all();
}

#[test]
fn a_status_of_a_long_range_answers_for_a_prefix() {
    let mut rig = Rig::new(4, 256 * 400);
    for extent in 0..400 {
        rig.write(BlockRange::new(extent * 256 + 9, 2));
    }
    rig.settle();
    let mut events = Vec::new();
    let op = crate::store::StoreOp(0);
    rig.store.status(op, BlockRange::new(0, 256 * 400));
    rig.store.step(&mut rig.disk, &mut events);
    let [crate::store::StoreEvent::Status { runs, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(runs[..3], [(9, false), (2, true), (254, false)]);
    assert_eq!(runs.iter().map(|run| run.0).sum::<u64>(), 256 * 256);
}
