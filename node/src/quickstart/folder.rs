//! The folder of a quickstart cluster. Its file `quickstart` holds the cluster's id and is made first: a folder without it that
//! is not empty is somebody else's. All that follows is made where it is missing, so a crash at any point is resumed.

use crate::quickstart::ports::{PortOptions, Ports};
use crate::random;
use anyhow::{Context, bail, ensure};
use isthmus_config::{
    Cluster, ClusterId, Config, Domain, Failover, Journal, Link, Listen, Member, Metrics, Role,
    Scrub, Timing, Tls,
};
use isthmus_disk::DirectoryLock;
use isthmus_engine::NodeId;
use isthmus_transport::{Authority, CertificateFiles};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Name, domain, role.
const NODES: [(&str, &str, Role); 3] = [
    ("a1", "site-a", Role::Data),
    ("b1", "site-b", Role::Data),
    ("w1", "witness", Role::Witness),
];

/// The folder, held by this process.
pub struct Folder {
    root: PathBuf,
    cluster: ClusterId,
    _lock: DirectoryLock,
}

/// Opens a quickstart folder, or makes it.
///
/// # Errors
/// One line: the folder is somebody else's, in use, or can't be written. Nothing was changed then.
pub fn open(root: &Path) -> anyhow::Result<Folder> {
    let marker = root.join("quickstart");
    let is_new = !marker.exists();
    if is_new && root.exists() {
        for entry in fs::read_dir(root).with_context(|| format!("can't read {}", root.display()))? {
            let name = entry
                .with_context(|| format!("can't read {}", root.display()))?
                .file_name();
            // What a crash of the first start can have left.
            ensure!(
                name == "lock" || name == "quickstart.new",
                "{} is not empty and not a quickstart folder (it has '{}'): choose another one with --data-dir",
                root.display(),
                name.to_string_lossy()
            );
        }
    }
    let lock = DirectoryLock::acquire(root)
        .map_err(|error| anyhow::anyhow!("can't use the folder {}: {error}", root.display()))?;
    if is_new {
        replace(&marker, &format!("{}\n", ClusterId(random::number()?)))?;
    }
    let text =
        fs::read_to_string(&marker).with_context(|| format!("can't read {}", marker.display()))?;
    let cluster = ClusterId::try_from(text.trim().to_owned())
        .map_err(|error| anyhow::anyhow!("{}: {error}", marker.display()))?;
    Ok(Folder {
        root: root.to_path_buf(),
        cluster,
        _lock: lock,
    })
}

impl Folder {
    /// The configurations of the three nodes, with the folder's paths as in the files.
    ///
    /// # Errors
    /// One line: a configuration that is not sound, or is another cluster's.
    pub fn configs(&self, options: &PortOptions) -> anyhow::Result<Vec<Config>> {
        let mut had = Vec::new();
        for (name, ..) in NODES {
            had.push(self.existing(name)?);
        }
        let ports: Vec<Ports> = (0..)
            .zip(&had)
            .map(|(index, config)| {
                let before = config.as_ref().map(|config| Ports {
                    peer: config.listen.peer.port(),
                    api: config.listen.api.port(),
                    nbd: config.listen.nbd.map(|address| address.port()),
                });
                options.of(index, before)
            })
            .collect();
        let members: Vec<Member> = (1..)
            .zip(NODES)
            .zip(&ports)
            .map(|((id, (name, domain, _)), ports)| member(id, name, domain, *ports))
            .collect();
        let mut configs = Vec::new();
        for ((had, (name, ..)), ports) in had.into_iter().zip(NODES).zip(&ports) {
            let mut config = had.unwrap_or_else(|| self.fresh(name));
            config.members.clone_from(&members);
            config.listen = Listen {
                peer: local(ports.peer),
                api: local(ports.api),
                nbd: ports.nbd.map(local),
            };
            config
                .check()
                .map_err(|error| anyhow::anyhow!("{}: {error}", self.toml(name).display()))?;
            configs.push(config);
        }
        Ok(configs)
    }

    fn toml(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.toml"))
    }

    fn existing(&self, name: &str) -> anyhow::Result<Option<Config>> {
        let path = self.toml(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("can't read {}", path.display()));
            }
        };
        let config =
            Config::parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        if config.cluster.id != self.cluster || config.node != name {
            bail!(
                "{} is node {} of another cluster (id {}, this folder has {}): choose another folder with --data-dir",
                path.display(),
                config.node,
                config.cluster.id,
                self.cluster
            );
        }
        Ok(Some(config))
    }

    fn fresh(&self, name: &str) -> Config {
        let files = CertificateFiles::in_folder(Path::new("tls"), name);
        Config {
            node: name.to_owned(),
            data_dir: PathBuf::from(name),
            bootstrap: name == NODES[0].0,
            cluster: Cluster {
                name: "quickstart".to_owned(),
                id: self.cluster,
            },
            listen: Listen {
                peer: local(0),
                api: local(0),
                nbd: None,
            },
            tls: Tls {
                authority: files.authority,
                certificate: files.certificate,
                key: files.key,
            },
            link: Link::default(),
            timing: Timing::default(),
            failover: Failover::default(),
            journal: Journal::default(),
            scrub: Scrub::default(),
            metrics: Metrics::default(),
            domains: (1..)
                .zip(NODES)
                .map(|(id, (_, domain, role))| Domain {
                    id,
                    name: domain.to_owned(),
                    role,
                })
                .collect(),
            members: Vec::new(),
        }
    }

    /// Makes certificates and configuration files where they are missing, and changes those whose ports have changed.
    ///
    /// # Errors
    /// One line that names the file.
    pub fn write(&self, configs: &[Config]) -> anyhow::Result<()> {
        let folder = self.root.join("tls");
        let authority = if folder.join("ca.pem").exists() {
            Authority::load(&folder, self.cluster.0)
        } else {
            remove(&folder.join("ca-key.pem"))?; // A crash came between the two.
            Authority::create(&folder, self.cluster.0)
        };
        let authority = authority.with_context(|| {
            format!(
                "can't make or load the certificate authority in {}",
                folder.display()
            )
        })?;
        for (config, (name, ..)) in configs.iter().zip(NODES) {
            let files = CertificateFiles::in_folder(&folder, name);
            if !files.certificate.exists() {
                remove(&files.key)?;
                authority
                    .issue(&folder, name, NodeId(config.this_member().id))
                    .with_context(|| format!("can't make the certificate of {name}"))?;
            }
            if self.existing(name)?.as_ref() != Some(config) {
                let text = toml::to_string(config).context("can't write a configuration")?;
                let text = format!(
                    "# Made by isthmusd quickstart; run this node alone: isthmusd run --config {name}.toml\n{text}"
                );
                replace(&self.toml(name), &text)?;
            }
        }
        Ok(())
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn member(id: u32, name: &str, domain: &str, ports: Ports) -> Member {
    Member {
        id,
        name: name.to_owned(),
        domain: domain.to_owned(),
        peer_address: local(ports.peer),
        api_address: local(ports.api),
        role: None,
        nbd_address: ports.nbd.map(local),
    }
}

/// Writes a file whole or not at all.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("can't write {}", path.display()))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
