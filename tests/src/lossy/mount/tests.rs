use super::*;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

fn mounted() -> (tempfile::TempDir, LossyDisk) {
    let folder = tempfile::tempdir().unwrap();
    let disk = LossyDisk::mount(&folder.path().join("disk"), 64 << 20).unwrap();
    (folder, disk)
}

/// What is left of two files' names and bytes in many cuts.
fn cuts(disk: &LossyDisk, look: impl Fn() -> Vec<u8>) -> std::collections::BTreeSet<Vec<u8>> {
    let before = disk.served.state().model.clone();
    (0..60)
        .map(|seed| {
            disk.served.state().model = before.clone();
            disk.power_on(seed);
            look()
        })
        .collect()
}

#[test]
fn the_kernel_sees_a_file_system() {
    let (folder, disk) = mounted();
    let root = folder.path().join("disk");
    fs::create_dir(root.join("f")).unwrap();
    let data: Vec<u8> = (0..3_000_000_u32).map(|byte| (byte % 251) as u8).collect();
    fs::write(root.join("f/a"), &data).unwrap();
    assert_eq!(fs::read(root.join("f/a")).unwrap(), data);
    assert_eq!(disk.read("f/a"), data);
    fs::rename(root.join("f/a"), root.join("f/b")).unwrap();
    let names: Vec<String> = fs::read_dir(root.join("f"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, ["b"]);
    let file = File::options().write(true).open(root.join("f/b")).unwrap();
    file.set_len(5).unwrap();
    assert_eq!(fs::read(root.join("f/b")).unwrap(), data[..5]);
    assert_eq!(
        fs::remove_dir(root.join("f")).unwrap_err().kind(),
        io::ErrorKind::DirectoryNotEmpty
    );
    fs::remove_file(root.join("f/b")).unwrap();
    fs::remove_dir(root.join("f")).unwrap();
    assert!(disk.paths().is_empty());
    fs::write(root.join("full"), vec![1; 65 << 20]).unwrap_err();
}

#[test]
fn fdatasync_keeps_bytes_and_a_synced_folder_keeps_names() {
    let (folder, disk) = mounted();
    let path = folder.path().join("disk/a");
    let file = File::create(&path).unwrap();
    file.write_all_at(&[1; 512], 0).unwrap();
    file.sync_data().unwrap();
    let gone = cuts(&disk, || u8::from(path.exists()).to_le_bytes().to_vec());
    assert_eq!(gone.len(), 2, "its folder was not synced");

    let file = File::create(&path).unwrap();
    file.write_all_at(&[1; 512], 0).unwrap();
    file.sync_data().unwrap();
    File::open(path.parent().unwrap())
        .unwrap()
        .sync_all()
        .unwrap();
    assert_eq!(
        cuts(&disk, || fs::read(&path).unwrap()),
        [vec![1; 512]].into()
    );
    file.write_all_at(&[2; 512], 0).unwrap();
    let left = cuts(&disk, || fs::read(&path).unwrap());
    assert_eq!(left, [vec![1; 512], vec![2; 512]].into());
}

#[test]
fn a_write_with_o_dsync_makes_durable_what_it_wrote_and_nothing_else() {
    let (folder, disk) = mounted();
    let path = folder.path().join("disk/a");
    let file = File::create(&path).unwrap();
    file.write_all_at(&[1; 8192], 0).unwrap();
    file.sync_all().unwrap();
    File::open(path.parent().unwrap())
        .unwrap()
        .sync_all()
        .unwrap();
    let flags = OFlags::DIRECT | OFlags::DSYNC;
    let direct = File::options()
        .write(true)
        .custom_flags(flags.bits().cast_signed())
        .open(&path)
        .unwrap();
    file.write_all_at(&[2; 512], 0).unwrap();
    let memory = vec![3; 8192];
    let start = memory.as_ptr().align_offset(4096);
    direct
        .write_all_at(&memory[start..start + 4096], 4096)
        .unwrap();
    let left = cuts(&disk, || {
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes[4096..], [3; 4096]);
        vec![bytes[0]]
    });
    assert_eq!(left, [vec![1], vec![2]].into());
}

#[test]
fn faults_are_the_programs_errors_and_end_when_they_are_taken_back() {
    let (folder, disk) = mounted();
    let path = folder.path().join("disk/a");
    fs::write(&path, [1; 512]).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let error = |result: io::Result<()>| result.unwrap_err().raw_os_error().unwrap();
    disk.set_faults(Faults {
        writes_fail: true,
        syncs_fail: true,
        ..Faults::none()
    });
    assert_eq!(
        error(file.write_all_at(&[2; 512], 0)),
        Errno::IO.raw_os_error()
    );
    assert_eq!(error(file.sync_data()), Errno::IO.raw_os_error());
    disk.set_faults(Faults {
        read_only: true,
        ..Faults::none()
    });
    assert_eq!(
        error(file.write_all_at(&[2; 512], 0)),
        Errno::ROFS.raw_os_error()
    );
    disk.set_faults(Faults::none());
    file.write_all_at(&[2; 512], 0).unwrap();
    disk.set_free(0);
    assert_eq!(
        error(file.write_all_at(&[2; 512], 1 << 20)),
        Errno::NOSPC.raw_os_error()
    );
    disk.flip("a", 7, 0);
    assert_eq!(fs::read(&path).unwrap()[..9], [2, 2, 2, 2, 2, 2, 2, 3, 2]);
}
