use super::*;

#[test]
fn a_volume_is_a_name_and_a_size() {
    assert_eq!(
        volume("demo:1GiB"),
        Ok(Volume {
            name: "demo".to_owned(),
            bytes: 1 << 30
        })
    );
    for (text, word) in [
        ("demo", "NAME:SIZE"),
        ("Demo:1G", "volume name"),
        ("demo:1GB", "two things"),
        ("demo:100", "4096"),
    ] {
        let error = volume(text).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_second_start_finds_what_the_first_has_made_and_moves_only_ports() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("cluster");
    let first = folder::open(&root).unwrap();
    let configs = first.configs(&PortOptions::default()).unwrap();
    first.write(&configs).unwrap();
    assert!(folder::open(&root).is_err(), "one quickstart at a time");
    drop(first);
    let certificate = std::fs::read(root.join("tls/a1.pem")).unwrap();
    let second = folder::open(&root).unwrap();
    assert_eq!(second.configs(&PortOptions::default()).unwrap(), configs);
    let moved = second
        .configs(&PortOptions {
            nbd_port_a: Some(20_000),
            ..PortOptions::default()
        })
        .unwrap();
    second.write(&moved).unwrap();
    drop(second);
    let third = folder::open(&root).unwrap();
    let kept = third.configs(&PortOptions::default()).unwrap();
    assert_eq!(kept[0].listen.nbd.unwrap().port(), 20_000);
    assert_eq!(kept[1].members[0].nbd_address.unwrap().port(), 20_000);
    assert_eq!(kept[0].cluster, configs[0].cluster);
    assert_eq!(std::fs::read(root.join("tls/a1.pem")).unwrap(), certificate);
    Config::load(&root.join("w1.toml")).unwrap();
}

#[test]
fn somebody_elses_folder_and_another_clusters_file_are_refused() {
    let foreign = tempfile::tempdir().unwrap();
    std::fs::write(foreign.path().join("thesis.tex"), "").unwrap();
    let error = folder::open(foreign.path())
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(error.contains("thesis.tex"), "{error}");
    assert_eq!(
        std::fs::read_dir(foreign.path()).unwrap().count(),
        1,
        "nothing was made"
    );

    let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for root in &roots {
        let folder = folder::open(root.path()).unwrap();
        folder
            .write(&folder.configs(&PortOptions::default()).unwrap())
            .unwrap();
    }
    std::fs::copy(
        roots[1].path().join("a1.toml"),
        roots[0].path().join("a1.toml"),
    )
    .unwrap();
    let error = folder::open(roots[0].path())
        .unwrap()
        .configs(&PortOptions::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("another cluster"), "{error}");
}
