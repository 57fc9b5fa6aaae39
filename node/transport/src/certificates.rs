//! The cluster's certificate authority and the nodes' certificates: made once, kept as PEM files, loaded at start.
//!
//! A node's certificate carries its identity as its only name: `n<node>.<cluster>.isthmus`, the cluster as 16 hexadecimal digits.

use isthmus_engine::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long certificates are valid from when they were made. The start of their validity lies far back: a node whose
/// clock is wrong still finds its peers.
const VALIDITY: Duration = Duration::from_secs(3650 * 24 * 3600);

/// The name by which a node's certificate is known.
pub(crate) fn node_name(cluster: u64, node: NodeId) -> String {
    format!("n{}.{cluster:016x}.isthmus", node.0)
}

/// The files by which a node proves itself and checks others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The cluster authority's certificate.
    pub authority: PathBuf,
    /// The node's certificate.
    pub certificate: PathBuf,
    /// The node's private key.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// The files of the node `name` as [`Authority::issue`] names them in `folder`.
    #[must_use]
    pub fn in_folder(folder: &Path, name: &str) -> CertificateFiles {
        CertificateFiles {
            authority: folder.join("ca.pem"),
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}-key.pem")),
        }
    }
}

/// The authority that issues the certificates of one cluster.
pub struct Authority {
    cluster: u64,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes the authority of the cluster `cluster` and writes `ca.pem` and `ca-key.pem` (readable by the owner only)
    /// into `folder`, which is made when absent.
    ///
    /// # Errors
    /// `AlreadyExists` when one of the files is there, which is then kept; else what the file system said.
    pub fn create(folder: &Path, cluster: u64) -> io::Result<Authority> {
        fs::create_dir_all(folder)?;
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let parameters = authority_parameters(cluster)?;
        let certificate = parameters.self_signed(&key).map_err(io::Error::other)?;
        write_new(&folder.join("ca-key.pem"), &key.serialize_pem(), 0o600)?;
        write_new(&folder.join("ca.pem"), &certificate.pem(), 0o644)?;
        Ok(Authority {
            cluster,
            issuer: Issuer::new(parameters, key),
        })
    }

    /// Loads the authority that [`Authority::create`] wrote for the same `cluster`.
    ///
    /// # Errors
    /// What the file system said, or `InvalidData` when `ca-key.pem` is no key.
    pub fn load(folder: &Path, cluster: u64) -> io::Result<Authority> {
        let path = folder.join("ca-key.pem");
        let key = KeyPair::from_pem(&fs::read_to_string(&path)?)
            .map_err(|error| invalid(&path, &error))?;
        Ok(Authority {
            cluster,
            issuer: Issuer::new(authority_parameters(cluster)?, key),
        })
    }

    /// Issues the certificate of a node: writes `<name>.pem` and `<name>-key.pem` (readable by the owner only) into `folder`.
    ///
    /// # Errors
    /// `AlreadyExists` when one of the files is there, which is then kept; `InvalidInput` for a name that is no plain
    /// file name; else what the file system said.
    pub fn issue(&self, folder: &Path, name: &str, node: NodeId) -> io::Result<CertificateFiles> {
        let plain = name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
        if !plain || name.is_empty() || name.starts_with('.') || name == "ca" {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name:?} can't name a node's files"),
            ));
        }
        let subject = node_name(self.cluster, node);
        let mut parameters =
            CertificateParams::new(vec![subject.clone()]).map_err(io::Error::other)?;
        parameters
            .distinguished_name
            .push(DnType::CommonName, subject);
        parameters.not_after = (SystemTime::now() + VALIDITY).into();
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = parameters
            .signed_by(&key, &self.issuer)
            .map_err(io::Error::other)?;
        let files = CertificateFiles::in_folder(folder, name);
        write_new(&files.key, &key.serialize_pem(), 0o600)?;
        write_new(&files.certificate, &certificate.pem(), 0o644)?;
        Ok(files)
    }
}

fn authority_parameters(cluster: u64) -> io::Result<CertificateParams> {
    let mut parameters = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
    parameters.distinguished_name.push(
        DnType::CommonName,
        format!("Isthmus cluster {cluster:016x}"),
    );
    parameters.not_after = (SystemTime::now() + VALIDITY).into();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(parameters)
}

fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file: File = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn invalid(path: &Path, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{}: {error}", path.display()),
    )
}

/// What a node shows and trusts, as loaded from its files.
pub(crate) struct Credentials {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) roots: Arc<RootCertStore>,
}

impl Credentials {
    /// Loads the files; each error names its file.
    pub(crate) fn load(files: &CertificateFiles) -> io::Result<Credentials> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.authority)? {
            roots
                .add(certificate)
                .map_err(|error| invalid(&files.authority, &error))?;
        }
        let chain = certificates(&files.certificate)?;
        let text = read(&files.key)?;
        let key =
            PrivateKeyDer::from_pem_slice(&text).map_err(|error| invalid(&files.key, &error))?;
        Ok(Credentials {
            chain,
            key,
            roots: Arc::new(roots),
        })
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| invalid(path, &error))?;
    if found.is_empty() {
        return Err(invalid(path, &"holds no certificate"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_for_their_owner_only_and_no_file_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path(), 5).unwrap();
        let files = authority.issue(folder.path(), "a1", NodeId(1)).unwrap();
        assert_eq!(files, CertificateFiles::in_folder(folder.path(), "a1"));
        for key in [&files.key, &folder.path().join("ca-key.pem")] {
            assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let again = Authority::create(folder.path(), 5).err().unwrap();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        let again = authority.issue(folder.path(), "a1", NodeId(1)).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        for name in ["", "../a1", ".a", "a/b", "ca"] {
            let refused = authority.issue(folder.path(), name, NodeId(1)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }

    #[test]
    fn broken_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let files = Authority::create(folder.path(), 5)
            .unwrap()
            .issue(folder.path(), "a1", NodeId(1))
            .unwrap();
        Credentials::load(&files).unwrap();
        fs::write(&files.certificate, "nothing").unwrap();
        let error = Credentials::load(&files).err().unwrap();
        assert!(error.to_string().contains("a1.pem"), "{error}");
        fs::remove_file(&files.certificate).unwrap();
        assert_eq!(
            Credentials::load(&files).err().unwrap().kind(),
            io::ErrorKind::NotFound
        );
    }
}
