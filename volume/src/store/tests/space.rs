use super::rig::{FOLDER, Rig};
use crate::store::{VolumeSpec, VolumeStore};
use isthmus_engine::{BlockRange, VolumeId};
use isthmus_simulated_disk::SimulatedDisk;

#[test]
fn clears_give_slots_and_space_back() {
    let mut rig = Rig::new(1, 256 * 8);
    rig.write(BlockRange::new(0, 256 * 8));
    rig.settle();
    rig.checkpoint();
    rig.settle();
    let data = format!("{FOLDER}/data");
    assert_eq!(rig.disk.page_offsets(&data).len(), 256 * 8);
    assert_eq!(rig.store.slots_used(), 8);
    rig.clear(BlockRange::new(0, 255));
    rig.settle();
    assert_eq!(rig.store.slots_used(), 8, "a block is left");
    rig.clear(BlockRange::new(255, 1));
    rig.settle();
    assert_eq!(rig.store.slots_used(), 7);
    rig.clear(BlockRange::new(0, 256 * 8));
    rig.checkpoint();
    rig.settle();
    assert_eq!(rig.store.slots_used(), 0);
    assert_eq!(rig.disk.page_offsets(&data), [0; 0], "all is punched");
    rig.restart();
    rig.check_all();
    assert_eq!(rig.store.slots_used(), 0);
}

#[test]
fn a_slot_goes_to_another_extent_only_after_the_checkpoint_that_records_its_return() {
    let mut rig = Rig::new(2, 256 * 64);
    rig.write(BlockRange::new(0, 256));
    rig.restart();
    assert_eq!(rig.store.map.get(0).unwrap().slot, 0);
    rig.clear(BlockRange::new(0, 256));
    rig.write(BlockRange::new(256, 1));
    rig.settle();
    assert_ne!(
        rig.store.map.get(1).unwrap().slot,
        0,
        "the durable checkpoint still refers to it"
    );
    rig.checkpoint();
    // While the checkpoint runs, too.
    rig.step();
    rig.write(BlockRange::new(512, 1));
    rig.step();
    assert_ne!(rig.store.map.get(2).unwrap().slot, 0);
    rig.settle();
    rig.write(BlockRange::new(1024, 1));
    rig.settle();
    assert_eq!(rig.store.map.get(4).unwrap().slot, 0);
}

#[test]
fn writing_and_clearing_again_and_again_needs_no_more_slots() {
    let mut rig = Rig::new(3, 256 * 64);
    for _ in 0..100 {
        rig.write(BlockRange::new(256, 256));
        rig.clear(BlockRange::new(200, 400));
    }
    rig.settle();
    assert_eq!(
        (rig.store.slots_used(), rig.store.slots.capacity()),
        (0, 16)
    );
}

#[test]
fn an_idle_thin_volume_costs_little() {
    let mut disk = SimulatedDisk::new(1);
    let spec = VolumeSpec {
        volume: VolumeId(1),
        blocks: (1 << 40) / 4096,
    };
    VolumeStore::format(&mut disk, "v", spec).unwrap();
    let (mut store, ..) = VolumeStore::open(&mut disk, "v", 1).unwrap();
    assert!(
        store.memory_bytes() < 4096,
        "{} bytes",
        store.memory_bytes()
    );
    store.clear(crate::store::StoreOp(1), BlockRange::new(0, spec.blocks));
    let mut events = Vec::new();
    store.step(&mut disk, &mut events);
    assert_eq!(events.len(), 1, "nothing to wait for: {events:?}");
    assert!(
        disk.allocated_bytes() < 200 << 10,
        "{} bytes",
        disk.allocated_bytes()
    );
}

#[test]
fn headers_in_memory_are_bounded_once_they_are_durable() {
    let mut rig = Rig::new(4, 256 * 9000);
    for extent in 0..9000 {
        rig.write(BlockRange::new(extent * 256 + extent % 256, 1));
        rig.step();
        while rig.expected.len() > 64 {
            rig.tick();
        }
    }
    rig.settle();
    assert!(rig.store.wants_checkpoint());
    rig.checkpoint();
    rig.settle();
    assert!(!rig.store.wants_checkpoint());
    assert!(
        rig.store.memory_bytes() < 7 << 20,
        "{} bytes",
        rig.store.memory_bytes()
    );
    for extent in (0..9000).step_by(37) {
        rig.read(BlockRange::new(extent * 256, 256));
    }
    rig.settle();
    assert!(rig.bad.is_empty());
}

#[test]
fn a_grown_volume_takes_writes_in_its_new_blocks() {
    let mut rig = Rig::new(5, 300);
    rig.write(BlockRange::new(0, 300));
    rig.store.grow(700);
    rig.blocks = 700;
    rig.model.resize(700, 0);
    rig.check_all();
    rig.write(BlockRange::new(290, 400));
    rig.restart();
    rig.check_all();
}
