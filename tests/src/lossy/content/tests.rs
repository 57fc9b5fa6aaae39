use super::*;

fn sectors(byte: u8, count: usize) -> Vec<u8> {
    vec![byte; count * SECTOR_BYTES as usize]
}

/// What each sector is full of.
fn look(content: &Content) -> Vec<u8> {
    let bytes = content.read(0, content.length());
    bytes
        .chunks(SECTOR_BYTES as usize)
        .map(|sector| {
            assert!(
                sector.iter().all(|byte| *byte == sector[0]),
                "a sector is whole"
            );
            sector[0]
        })
        .collect()
}

/// What is left in many power cuts of the same file.
fn outcomes(content: &Content) -> std::collections::BTreeSet<Vec<u8>> {
    (0..400)
        .map(|seed| {
            let mut cut = content.clone();
            cut.cut(&mut Random::new(seed));
            look(&cut)
        })
        .collect()
}

fn synced() -> Content {
    let mut content = Content::default();
    content.write(1, 0, &sectors(1, 3));
    content.sync(1);
    content
}

#[test]
fn what_was_synced_survives_every_cut() {
    assert_eq!(outcomes(&synced()), [vec![1, 1, 1]].into());
}

#[test]
fn of_what_was_not_synced_any_sector_in_any_version_may_be_left() {
    let mut content = synced();
    content.write(2, 0, &sectors(2, 2));
    content.write(3, 512, &sectors(3, 1));
    let left = outcomes(&content);
    let all: std::collections::BTreeSet<Vec<u8>> = [1, 2]
        .into_iter()
        .flat_map(|first| [1, 2, 3].map(|second| vec![first, second, 1]))
        .collect();
    assert_eq!(left, all);
}

#[test]
fn a_synced_range_is_there_and_nothing_older_comes_over_it() {
    let mut content = synced();
    content.write(2, 0, &sectors(2, 3));
    content.write(3, 0, &sectors(3, 1));
    content.sync_range(&(0..512), 3);
    let left = outcomes(&content);
    assert!(left.iter().all(|sectors| sectors[0] == 3), "{left:?}");
    assert_eq!(left.len(), 4, "the others may be lost or not: {left:?}");
}

#[test]
fn a_write_that_came_after_the_sync_began_is_not_covered_by_it() {
    let mut content = synced();
    content.write(2, 0, &sectors(2, 1));
    content.write(3, 0, &sectors(3, 1));
    content.sync(2);
    let left: Vec<Vec<u8>> = outcomes(&content).into_iter().collect();
    assert_eq!(left, [[2, 1, 1], [3, 1, 1]]);
}

#[test]
fn a_length_is_lost_or_not_like_everything_else() {
    let mut content = synced();
    content.write(2, 3 * 512, &sectors(2, 1));
    let left = outcomes(&content);
    assert!(left.contains(&vec![1, 1, 1]) && left.contains(&vec![1, 1, 1, 2]));
    assert!(
        left.contains(&vec![1, 1, 1, 0]),
        "a length without its bytes"
    );
    content.sync(2);
    assert_eq!(outcomes(&content), [vec![1, 1, 1, 2]].into());
}

#[test]
fn a_hole_reads_as_zeroes_gives_its_space_back_and_may_be_lost() {
    let mut content = Content::default();
    content.write(1, 0, &sectors(1, 16));
    content.sync(1);
    assert_eq!(content.pages(), 2);
    content.punch(2, &(0..4096));
    assert_eq!((content.pages(), look(&content)[7]), (1, 0));
    assert_eq!(look(&content)[8], 1);
    let left = outcomes(&content);
    assert!(left.contains(&vec![1; 16]) && left.len() > 10);
}

#[test]
fn a_shorter_file_loses_its_end_for_good_once_synced() {
    let mut content = synced();
    content.set_length(2, 512);
    assert_eq!(content.length(), 512);
    content.set_length(3, 1536);
    assert_eq!(
        look(&content),
        [1, 0, 0],
        "nothing comes back when it grows"
    );
    content.sync(3);
    assert_eq!(outcomes(&content), [vec![1, 0, 0]].into());
}
