//! Every call of the controller and the identity service: good, repeated, at once, and wrong.

use isthmus_csi_interface::v1::volume_capability::access_mode::Mode;
use isthmus_csi_interface::v1::volume_capability::{AccessType, BlockVolume, MountVolume};
use isthmus_csi_interface::v1::*;
use std::collections::HashMap;
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::csi::{self, Driver};
use tonic::Code;

const MIB: i64 = 1 << 20;

fn wanted(name: &str, bytes: i64) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.to_owned(),
        volume_capabilities: vec![csi::mounted("")],
        capacity_range: Some(CapacityRange {
            required_bytes: bytes,
            limit_bytes: 0,
        }),
        ..Default::default()
    }
}

fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn create(driver: &Driver, request: CreateVolumeRequest) -> Volume {
    let answer = driver.done(driver.controller().create_volume(request));
    answer.volume.expect("a volume")
}

fn delete(driver: &Driver, id: &str) {
    let volume_id = id.to_owned();
    driver.done(driver.controller().delete_volume(DeleteVolumeRequest {
        volume_id,
        ..Default::default()
    }));
}

#[test]
fn every_call_of_the_controller_answers_as_the_specification_says() {
    let cluster = Cluster::start(&Options::with_volume(64 << 20));
    let driver = Driver::start(&cluster, Node::A1);
    it_says_who_it_is(&driver);
    what_is_advertised_is_what_there_is(&driver);
    volumes_are_made_once(&driver);
    what_can_not_be_is_refused(&driver);
    many_calls_at_once_make_one_volume(&driver);
    volumes_are_listed_in_pages(&driver);
    a_volume_is_published_to_one_node(&driver);
    a_volume_grows_and_changes_its_policy(&driver);
    capabilities_are_validated(&driver);
    capacity_is_told(&driver);
}

fn it_says_who_it_is(driver: &Driver) {
    let info = driver.done(driver.identity().get_plugin_info(GetPluginInfoRequest {}));
    assert_eq!(info.name, "csi.isthmus.dev");
    let node = driver.done(driver.node().node_get_info(NodeGetInfoRequest {}));
    assert_eq!(node.node_id, "a1");
    let topology = node.accessible_topology.unwrap();
    assert_eq!(
        topology.segments,
        map(&[("topology.csi.isthmus.dev/domain", "site-a")])
    );
}

fn what_is_advertised_is_what_there_is(driver: &Driver) {
    use isthmus_csi_interface::v1::controller_service_capability as controller;
    use isthmus_csi_interface::v1::node_service_capability as node;
    let request = ControllerGetCapabilitiesRequest {};
    let told = driver.done(driver.controller().controller_get_capabilities(request));
    let names: Vec<&str> = told
        .capabilities
        .iter()
        .map(|capability| match &capability.r#type {
            Some(controller::Type::Rpc(rpc)) => rpc.r#type().as_str_name(),
            None => "",
        })
        .collect();
    assert_eq!(
        names,
        [
            "CREATE_DELETE_VOLUME",
            "PUBLISH_UNPUBLISH_VOLUME",
            "LIST_VOLUMES",
            "LIST_VOLUMES_PUBLISHED_NODES",
            "GET_VOLUME",
            "VOLUME_CONDITION",
            "GET_CAPACITY",
            "EXPAND_VOLUME",
            "SINGLE_NODE_MULTI_WRITER",
            "MODIFY_VOLUME",
        ]
    );
    let told = driver.done(
        driver
            .node()
            .node_get_capabilities(NodeGetCapabilitiesRequest {}),
    );
    let names: Vec<&str> = told
        .capabilities
        .iter()
        .map(|capability| match &capability.r#type {
            Some(node::Type::Rpc(rpc)) => rpc.r#type().as_str_name(),
            None => "",
        })
        .collect();
    assert_eq!(
        names,
        [
            "STAGE_UNSTAGE_VOLUME",
            "GET_VOLUME_STATS",
            "EXPAND_VOLUME",
            "VOLUME_CONDITION",
            "SINGLE_NODE_MULTI_WRITER",
            "VOLUME_MOUNT_GROUP",
        ]
    );
}

fn volumes_are_made_once(driver: &Driver) {
    let request = CreateVolumeRequest {
        parameters: map(&[
            ("onPeerLoss", "suspend"),
            ("preferredDomain", "site-a"),
            ("blockSize", "512"),
            ("fsType", "xfs"),
            ("csi.storage.k8s.io/pvc/name", "claim"),
        ]),
        ..wanted("pvc-1", 10 * MIB + 1)
    };
    let made = create(driver, request.clone());
    assert_eq!(made.volume_id, "pvc-1");
    assert_eq!(made.capacity_bytes, 11 * MIB);
    assert_eq!(made.volume_context, map(&[("fsType", "xfs")]));
    let mut domains: Vec<_> = made
        .accessible_topology
        .iter()
        .flat_map(|topology| topology.segments.values())
        .collect();
    domains.sort();
    assert_eq!(domains, ["site-a", "site-b"]);
    assert_eq!(create(driver, request.clone()), made);

    for other in [
        wanted("pvc-1", 20 * MIB),
        CreateVolumeRequest {
            parameters: map(&[("onPeerLoss", "degrade"), ("blockSize", "512")]),
            ..request.clone()
        },
        CreateVolumeRequest {
            parameters: map(&[("onPeerLoss", "suspend")]),
            ..request
        },
    ] {
        driver.refused(
            Code::AlreadyExists,
            driver.controller().create_volume(other),
        );
    }
    delete(driver, "pvc-1");
    delete(driver, "pvc-1");
    for nonsense in ["never", "No/Such Volume", &"x".repeat(4000)] {
        delete(driver, nonsense);
    }

    // What an orchestrator may call a volume is more than what the cluster takes.
    let long = "a".repeat(128);
    for name in [&long, "Sanity-CONTROLLER-1", "日本", "with space"] {
        let made = create(driver, wanted(name, MIB));
        assert_eq!(create(driver, wanted(name, MIB)), made);
        delete(driver, &made.volume_id);
    }
}

fn what_can_not_be_is_refused(driver: &Driver) {
    let refused = |code: Code, change: &dyn Fn(&mut CreateVolumeRequest)| {
        let mut request = wanted("pvc-refused", MIB);
        change(&mut request);
        driver.refused(code, driver.controller().create_volume(request))
    };
    refused(Code::InvalidArgument, &|request| request.name.clear());
    refused(Code::InvalidArgument, &|request| {
        request.name = "a".repeat(129)
    });
    refused(Code::InvalidArgument, &|request| {
        request.volume_capabilities.clear();
    });
    let mount = || AccessType::Mount(MountVolume::default());
    for mode in [
        Mode::Unknown,
        Mode::MultiNodeReaderOnly,
        Mode::MultiNodeSingleWriter,
        Mode::MultiNodeMultiWriter,
    ] {
        refused(Code::InvalidArgument, &|request| {
            request.volume_capabilities = vec![csi::capability(mount(), mode)];
        });
    }
    let said = refused(Code::InvalidArgument, &|request| {
        request.parameters = map(&[("replicas", "3")]);
    });
    assert!(said.contains("replicas"), "{said}");
    let said = refused(Code::InvalidArgument, &|request| {
        request.mutable_parameters = map(&[("blockSize", "512")]);
    });
    assert!(said.contains("blockSize"), "{said}");
    refused(Code::InvalidArgument, &|request| {
        request.parameters = map(&[("preferredDomain", "witness")]);
    });
    refused(Code::InvalidArgument, &|request| {
        request.volume_content_source = Some(VolumeContentSource::default());
    });
    refused(Code::OutOfRange, &|request| {
        request.capacity_range = Some(CapacityRange {
            required_bytes: 2,
            limit_bytes: 1,
        });
    });
    refused(Code::ResourceExhausted, &|request| {
        request.accessibility_requirements = Some(TopologyRequirement {
            requisite: vec![Topology {
                segments: map(&[("topology.csi.isthmus.dev/domain", "site-z")]),
            }],
            preferred: Vec::new(),
        });
    });
    let listed = driver.done(
        driver
            .controller()
            .list_volumes(ListVolumesRequest::default()),
    );
    assert_eq!(listed.entries.len(), 1, "only the cluster's own volume");
}

fn many_calls_at_once_make_one_volume(driver: &Driver) {
    let answers = driver.run(async {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let mut controller = driver.controller();
            calls.spawn(async move { controller.create_volume(wanted("pvc-many", MIB)).await });
        }
        calls.join_all().await
    });
    for answer in answers {
        let volume = answer.unwrap().into_inner().volume.unwrap();
        assert_eq!(volume.volume_id, "pvc-many");
    }
    delete(driver, "pvc-many");
}

fn volumes_are_listed_in_pages(driver: &Driver) {
    let names = ["page-1", "page-2", "page-3", "page-4"];
    for name in names {
        create(driver, wanted(name, MIB));
    }
    let page = |max_entries, starting_token: &str| {
        driver.done(driver.controller().list_volumes(ListVolumesRequest {
            max_entries,
            starting_token: starting_token.to_owned(),
        }))
    };
    let ids = |page: &ListVolumesResponse| -> Vec<String> {
        let volumes = page
            .entries
            .iter()
            .map(|entry| entry.volume.as_ref().unwrap());
        volumes.map(|volume| volume.volume_id.clone()).collect()
    };
    let all = page(0, "");
    assert_eq!(ids(&all), ["demo", "page-1", "page-2", "page-3", "page-4"]);
    assert!(all.next_token.is_empty());
    let first = page(3, "");
    assert_eq!(ids(&first), ["demo", "page-1", "page-2"]);
    // The volume after which the next page begins may go meanwhile.
    delete(driver, "page-2");
    let second = page(3, &first.next_token);
    assert_eq!(ids(&second), ["page-3", "page-4"]);
    assert!(second.next_token.is_empty());
    for (max_entries, token, code) in [
        (0, "nonsense", Code::Aborted),
        (-1, "", Code::InvalidArgument),
    ] {
        let request = ListVolumesRequest {
            max_entries,
            starting_token: token.to_owned(),
        };
        driver.refused(code, driver.controller().list_volumes(request));
    }

    let get = |id: &str| ControllerGetVolumeRequest {
        volume_id: id.to_owned(),
    };
    let found = driver.done(driver.controller().controller_get_volume(get("page-1")));
    assert_eq!(found.volume.unwrap().capacity_bytes, MIB);
    assert!(found.status.unwrap().volume_condition.is_some());
    for (id, code) in [
        ("", Code::InvalidArgument),
        ("page-2", Code::NotFound),
        ("../x", Code::NotFound),
    ] {
        driver.refused(code, driver.controller().controller_get_volume(get(id)));
    }
    for name in ["page-1", "page-3", "page-4"] {
        delete(driver, name);
    }
}

fn publish(volume: &str, node: &str, readonly: bool) -> ControllerPublishVolumeRequest {
    ControllerPublishVolumeRequest {
        volume_id: volume.to_owned(),
        node_id: node.to_owned(),
        volume_capability: Some(csi::mounted("")),
        readonly,
        ..Default::default()
    }
}

fn unpublish(volume: &str, node: &str) -> ControllerUnpublishVolumeRequest {
    ControllerUnpublishVolumeRequest {
        volume_id: volume.to_owned(),
        node_id: node.to_owned(),
        ..Default::default()
    }
}

fn a_volume_is_published_to_one_node(driver: &Driver) {
    create(driver, wanted("pvc-pub", MIB));
    let controller = || driver.controller();
    let refused = |code, request| {
        driver.refused(code, async move {
            controller().controller_publish_volume(request).await
        })
    };
    refused(Code::InvalidArgument, publish("", "a1", false));
    refused(Code::InvalidArgument, publish("pvc-pub", "", false));
    refused(
        Code::InvalidArgument,
        ControllerPublishVolumeRequest {
            volume_capability: None,
            ..publish("pvc-pub", "a1", false)
        },
    );
    refused(Code::NotFound, publish("pvc-none", "a1", false));
    refused(Code::NotFound, publish("No Such", "a1", false));
    refused(Code::NotFound, publish("pvc-pub", "some-node", false));
    for _ in 0..2 {
        let request = publish("pvc-pub", "a1", false);
        driver.done(async { controller().controller_publish_volume(request).await });
    }
    refused(Code::AlreadyExists, publish("pvc-pub", "a1", true));
    let said = refused(Code::FailedPrecondition, publish("pvc-pub", "b1", false));
    assert!(said.contains("a1"), "{said}");
    let listed = driver.done(async {
        let request = ListVolumesRequest::default();
        controller().list_volumes(request).await
    });
    let entry = listed.entries.into_iter().find(|entry| {
        entry
            .volume
            .as_ref()
            .is_some_and(|volume| volume.volume_id == "pvc-pub")
    });
    assert_eq!(entry.unwrap().status.unwrap().published_node_ids, ["a1"]);
    let request = DeleteVolumeRequest {
        volume_id: "pvc-pub".to_owned(),
        ..Default::default()
    };
    driver.refused(Code::FailedPrecondition, async {
        controller().delete_volume(request).await
    });
    // From the one, from all, from none, from where it never was.
    for (volume, node) in [
        ("pvc-pub", "a1"),
        ("pvc-pub", ""),
        ("pvc-pub", "b1"),
        ("pvc-pub", "some-node"),
        ("pvc-none", "a1"),
    ] {
        let request = unpublish(volume, node);
        driver.done(async { controller().controller_unpublish_volume(request).await });
    }
    let request = unpublish("", "a1");
    driver.refused(Code::InvalidArgument, async {
        controller().controller_unpublish_volume(request).await
    });
    delete(driver, "pvc-pub");
}

fn a_volume_grows_and_changes_its_policy(driver: &Driver) {
    create(driver, wanted("pvc-grow", 4 * MIB));
    let expand = |id: &str, range: Option<(i64, i64)>| ControllerExpandVolumeRequest {
        volume_id: id.to_owned(),
        capacity_range: range.map(|(required_bytes, limit_bytes)| CapacityRange {
            required_bytes,
            limit_bytes,
        }),
        ..Default::default()
    };
    for (required, expected) in [(8 * MIB, 8 * MIB), (8 * MIB, 8 * MIB), (5 * MIB, 8 * MIB)] {
        let request = expand("pvc-grow", Some((required, 0)));
        let answer = driver.done(driver.controller().controller_expand_volume(request));
        assert_eq!(answer.capacity_bytes, expected);
        assert!(answer.node_expansion_required);
    }
    for (code, request) in [
        (Code::InvalidArgument, expand("", Some((MIB, 0)))),
        (Code::InvalidArgument, expand("pvc-grow", None)),
        (Code::NotFound, expand("pvc-none", Some((MIB, 0)))),
        (Code::OutOfRange, expand("pvc-grow", Some((MIB, 2 * MIB)))),
    ] {
        driver.refused(code, driver.controller().controller_expand_volume(request));
    }

    let modify = |id: &str, pairs: &[(&str, &str)]| ControllerModifyVolumeRequest {
        volume_id: id.to_owned(),
        mutable_parameters: map(pairs),
        ..Default::default()
    };
    for pairs in [
        &[][..],
        &[("onPeerLoss", "suspend"), ("preferredDomain", "site-b")],
        &[("preferredDomain", "")],
    ] {
        driver.done(
            driver
                .controller()
                .controller_modify_volume(modify("pvc-grow", pairs)),
        );
    }
    for (code, request) in [
        (Code::InvalidArgument, modify("", &[])),
        (Code::NotFound, modify("pvc-none", &[])),
        (
            Code::InvalidArgument,
            modify("pvc-grow", &[("preferredDomain", "site-z")]),
        ),
        (
            Code::InvalidArgument,
            modify("pvc-grow", &[("preferredDomain", "witness")]),
        ),
        (Code::InvalidArgument, modify("pvc-grow", &[("size", "1")])),
        (
            Code::InvalidArgument,
            modify("pvc-grow", &[("fsType", "xfs")]),
        ),
    ] {
        driver.refused(code, driver.controller().controller_modify_volume(request));
    }
    delete(driver, "pvc-grow");
}

fn capabilities_are_validated(driver: &Driver) {
    create(driver, wanted("pvc-valid", MIB));
    let request =
        |id: &str, capabilities: Vec<VolumeCapability>| ValidateVolumeCapabilitiesRequest {
            volume_id: id.to_owned(),
            volume_capabilities: capabilities,
            ..Default::default()
        };
    let block = |mode| csi::capability(AccessType::Block(BlockVolume {}), mode);
    let good = vec![csi::mounted("xfs"), block(Mode::SingleNodeMultiWriter)];
    let asked = request("pvc-valid", good.clone());
    let answer = driver.done(driver.controller().validate_volume_capabilities(asked));
    assert_eq!(answer.confirmed.unwrap().volume_capabilities, good);
    for bad in [block(Mode::MultiNodeMultiWriter), csi::mounted("btrfs")] {
        let asked = request("pvc-valid", vec![bad]);
        let answer = driver.done(driver.controller().validate_volume_capabilities(asked));
        assert!(answer.confirmed.is_none() && !answer.message.is_empty());
    }
    for (code, asked) in [
        (Code::InvalidArgument, request("", good.clone())),
        (Code::InvalidArgument, request("pvc-valid", Vec::new())),
        (Code::NotFound, request("pvc-none", good)),
    ] {
        driver.refused(
            code,
            driver.controller().validate_volume_capabilities(asked),
        );
    }
    delete(driver, "pvc-valid");
}

fn capacity_is_told(driver: &Driver) {
    let request = |domain: Option<&str>| GetCapacityRequest {
        accessible_topology: domain.map(|domain| Topology {
            segments: map(&[("topology.csi.isthmus.dev/domain", domain)]),
        }),
        ..Default::default()
    };
    let told = |domain| {
        let answer = driver.done(driver.controller().get_capacity(request(domain)));
        answer.available_capacity
    };
    assert!(told(None) > 0);
    assert!(told(Some("site-a")) > 0);
    assert_eq!(told(Some("witness")), 0, "a witness holds no replicas");
}
