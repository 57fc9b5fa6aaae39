//! The driver without a cluster: what it says then, what it serves, and what it never says.

#![allow(
    clippy::unwrap_used,
    reason = "a test may fail loudly in its helpers, too"
)]

use isthmus_csi_interface::v1::controller_client::ControllerClient;
use isthmus_csi_interface::v1::identity_client::IdentityClient;
use isthmus_csi_interface::v1::node_client::NodeClient;
use isthmus_csi_interface::v1::plugin_capability::{Type, service};
use isthmus_csi_interface::v1::volume_capability::access_mode::Mode;
use isthmus_csi_interface::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use isthmus_csi_interface::v1::*;
use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

const PROGRAM: &str = env!("CARGO_BIN_EXE_isthmus-csi");
const READY_WITHIN: Duration = Duration::from_secs(10);

struct Driver {
    child: Child,
    folder: tempfile::TempDir,
    runtime: Runtime,
    channel: Channel,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Driver {
    fn start(more: &[&str]) -> Driver {
        Driver::start_over("http://127.0.0.1:1", more)
    }

    fn start_over(api: &str, more: &[&str]) -> Driver {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("csi.sock");
        // A socket that a driver left behind is in nobody's way.
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(PROGRAM)
            .arg("run")
            .arg("--endpoint")
            .arg(format!("unix://{}", socket.display()))
            .arg("--attach-dir")
            .arg(folder.path().join("attached"))
            .args(["--api", api])
            .args(more)
            .stderr(log)
            .spawn()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let channel = {
            let _inside = runtime.enter();
            let address = format!("unix://{}", socket.display());
            Endpoint::try_from(address).unwrap().connect_lazy()
        };
        let driver = Driver {
            child,
            folder,
            runtime,
            channel,
        };
        let end = Instant::now() + READY_WITHIN;
        while driver
            .run(driver.identity().probe(ProbeRequest {}))
            .is_err()
        {
            assert!(Instant::now() < end, "{}", driver.log());
            std::thread::park_timeout(Duration::from_millis(20));
        }
        driver
    }

    fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.channel.clone())
    }

    fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }

    fn run<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Status> {
        self.runtime.block_on(call).map(tonic::Response::into_inner)
    }

    fn code<T>(&self, call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Code {
        self.run(call)
            .map_or_else(|status| status.code(), |_| Code::Ok)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

fn wanted() -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: "pvc-1".to_owned(),
        volume_capabilities: vec![VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume {
                mount_flags: vec!["password=hunter2".to_owned()],
                ..MountVolume::default()
            })),
            access_mode: Some(AccessMode {
                mode: Mode::SingleNodeWriter.into(),
            }),
        }],
        secrets: HashMap::from([("password".to_owned(), "hunter2".to_owned())]),
        ..CreateVolumeRequest::default()
    }
}

/// An admin API that knows no volume and makes none, for this reason. Its address.
fn api_that_refuses_volumes(reason: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let read = stream.read(&mut head).unwrap();
            let status = match head[..read].starts_with(b"POST") {
                true => 409,
                false => 404,
            };
            let text = format!("{{\"error\":\"no\",\"reason\":\"{reason}\",\"next\":\"\"}}");
            let length = text.len();
            // Who has asked may have gone.
            let _ = write!(
                stream,
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}"
            );
        }
    });
    format!("http://{address}")
}

#[test]
fn a_volume_that_the_cluster_does_not_make_now_is_a_failed_precondition_with_its_reason() {
    let api = api_that_refuses_volumes("the link between them is too slow for new volumes");
    let driver = Driver::start_over(&api, &[]);
    let refused = driver.run(driver.controller().create_volume(wanted()));
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(
        refused.message().contains("too slow for new volumes"),
        "{refused}"
    );
}

#[test]
fn without_a_cluster_it_is_not_ready_and_says_so() {
    let driver = Driver::start(&[]);
    let probe = driver.run(driver.identity().probe(ProbeRequest {}));
    assert_eq!(probe.unwrap().ready, Some(false));
    let calls = [
        driver.code(driver.controller().create_volume(wanted())),
        driver.code(
            driver
                .controller()
                .list_volumes(ListVolumesRequest::default()),
        ),
        driver.code(
            driver
                .controller()
                .get_capacity(GetCapacityRequest::default()),
        ),
        driver.code(driver.node().node_get_info(NodeGetInfoRequest {})),
    ];
    assert_eq!(calls, [Code::Unavailable; 4]);
    // What needs no cluster works, and what makes no sense is told without one.
    let nothing = CreateVolumeRequest::default();
    assert_eq!(
        driver.code(driver.controller().create_volume(nothing)),
        Code::InvalidArgument
    );
    let unpublish = NodeUnpublishVolumeRequest {
        volume_id: "pvc-1".to_owned(),
        target_path: "/no/such/path".to_owned(),
    };
    assert_eq!(
        driver.code(driver.node().node_unpublish_volume(unpublish)),
        Code::Ok
    );
}

#[test]
fn it_serves_what_it_was_asked_to_serve() {
    let services = |driver: &Driver| -> Vec<service::Type> {
        let request = GetPluginCapabilitiesRequest {};
        let answer = driver.run(driver.identity().get_plugin_capabilities(request));
        let all = answer.unwrap().capabilities.into_iter();
        all.filter_map(|capability| match capability.r#type {
            Some(Type::Service(service)) => Some(service.r#type()),
            _ => None,
        })
        .collect()
    };
    let controller = Driver::start(&["--controller", "--driver-name", "csi.example.org"]);
    let info = controller.run(
        controller
            .identity()
            .get_plugin_info(GetPluginInfoRequest {}),
    );
    assert_eq!(info.unwrap().name, "csi.example.org");
    assert!(services(&controller).contains(&service::Type::ControllerService));
    let request = NodeGetCapabilitiesRequest {};
    assert_eq!(
        controller.code(controller.node().node_get_capabilities(request)),
        Code::Unimplemented
    );

    let node = Driver::start(&["--node"]);
    assert!(!services(&node).contains(&service::Type::ControllerService));
    assert!(services(&node).contains(&service::Type::VolumeAccessibilityConstraints));
    assert_eq!(
        node.code(node.controller().create_volume(wanted())),
        Code::Unimplemented
    );
    let request = NodeGetCapabilitiesRequest {};
    let answer = node
        .run(node.node().node_get_capabilities(request))
        .unwrap();
    assert_eq!(answer.capabilities.len(), 6);
}

#[test]
fn each_call_is_counted_and_logged_and_no_secret_is_said() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let driver = Driver::start(&["--metrics-listen", &address.to_string()]);
    assert_eq!(
        driver.code(driver.controller().create_volume(wanted())),
        Code::Unavailable
    );
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(READY_WITHIN)).unwrap();
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).unwrap();
    let counted = r#"isthmus_csi_calls_total{call="CreateVolume",code="UNAVAILABLE"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    assert!(
        metrics.contains(r#"isthmus_csi_call_seconds_count{call="CreateVolume"} 1"#),
        "{metrics}"
    );
    let log = driver.log();
    let line = log.lines().find(|line| line.contains("CreateVolume"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    assert!(
        line.contains("UNAVAILABLE") && line.contains("pvc-1"),
        "{line}"
    );
    for text in [&log, &metrics] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

fn refused(arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = Command::new(PROGRAM)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!status.success(), "{arguments:?}");
    String::from_utf8(stderr).unwrap()
}

#[test]
fn what_it_can_not_begin_with_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let path = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let file = path(&file);
    assert!(refused(&["run", "--endpoint", "csi.sock"]).contains("absolute path"));
    assert!(refused(&["run", "--controller", "--endpoint", &file]).contains("no socket"));
    let api = [
        "run",
        "--endpoint",
        "/x/csi.sock",
        "--api",
        "127.0.0.1:9440",
    ];
    assert!(refused(&api).contains("http://HOST:PORT"));
    let name = [
        "run",
        "--endpoint",
        "/x/csi.sock",
        "--driver-name",
        "No_Name",
    ];
    assert!(refused(&name).contains("domain name"));

    let driver = Driver::start(&["--controller"]);
    let socket = path(&driver.folder.path().join("csi.sock"));
    let second = refused(&["run", "--controller", "--endpoint", &socket]);
    assert!(second.contains("another process"), "{second}");
}
