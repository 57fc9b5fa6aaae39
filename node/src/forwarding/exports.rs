//! The volumes of the whole cluster as a diskless node's exports.

use super::places::{Places, places};
use crate::peers::Outlet;
use isthmus_catalog::{Catalog, DomainState, VolumeRecord};
use isthmus_engine::{NodeId, VolumeId};
use isthmus_nbd::{
    Agreement, BoxFuture, Connection, Elsewhere, Errno, Export, ExportEntry, ExportInfo, Exports,
    Refusal, RefusalKind, Reply, Request,
};
use isthmus_transport::Tunnel;
use isthmus_transport::forwarding::{Message, RefusedKind};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::replicas::exports::info;

/// How often a client is forwarded anew because the two nodes did not know of the same epoch, or the other one went away meanwhile.
const TRIES_MAX: usize = 40;
/// How long news of the catalog are waited for before the next of these tries.
const NEWS_WITHIN: Duration = Duration::from_millis(50);
/// How long a place may take to answer: longer than a promotion may take there.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// The newest catalog that is known here.
pub type Catalogs = watch::Sender<Arc<Catalog>>;

/// The clients that are forwarded, by the number of their connection. Clones are the same ones.
#[derive(Clone, Default)]
pub struct Clients(Arc<Mutex<BTreeMap<u64, Connection>>>);

impl Clients {
    /// Closes the connections of all of them.
    pub fn send_away(&self, reason: &str) {
        for client in self.0.lock().values() {
            client.close(reason);
        }
    }
}

/// The volumes of the cluster, each served by its primary.
pub struct ForwardedExports {
    me: NodeId,
    outlet: Outlet,
    catalogs: Arc<Catalogs>,
    clients: Clients,
}

/// Why a client was not forwarded to a place.
enum NotThere {
    /// It was refused, in words.
    Told(String),
    /// The two nodes have to hear of the same epoch first.
    OtherEpoch(String),
    /// The place is not reached, or is stopping.
    Unreached(String),
}

impl ForwardedExports {
    /// The volumes as `me` forwards them.
    pub fn new(
        me: NodeId,
        outlet: Outlet,
        catalogs: Arc<Catalogs>,
        clients: Clients,
    ) -> ForwardedExports {
        ForwardedExports {
            me,
            outlet,
            catalogs,
            clients,
        }
    }

    fn newest(&self) -> Arc<Catalog> {
        self.catalogs.borrow().clone()
    }

    /// Forwards a client to where its volume is served, or may be; or says why it can't be.
    async fn forward(
        &self,
        catalog: &Catalog,
        (volume, record): (VolumeId, &VolumeRecord),
    ) -> Result<(ExportInfo, Tunnel), NotThere> {
        let Places { first, others } = places(catalog, volume, self.me);
        let mut not_there = None;
        for place in first.into_iter().chain(others) {
            match self.ask(place, (volume, record)).await {
                Ok(opened) => return Ok(opened),
                Err(NotThere::Unreached(why)) => {
                    let reason = format!("{} is not reached: {why}", catalog.node_name(place));
                    not_there.get_or_insert(NotThere::Unreached(reason));
                }
                // Who serves it knows best; and nobody else is asked to take over before it is heard.
                Err(refused) if Some(place) == first => return Err(refused),
                Err(refused) => not_there = Some(refused),
            }
        }
        let nobody = || NotThere::Told("no replica may serve it".to_owned());
        Err(not_there.unwrap_or_else(nobody))
    }

    async fn ask(
        &self,
        place: NodeId,
        (volume, record): (VolumeId, &VolumeRecord),
    ) -> Result<(ExportInfo, Tunnel), NotThere> {
        let unreached = |error: std::io::Error| NotThere::Unreached(error.to_string());
        let Some(transport) = self.outlet.transport() else {
            return Err(NotThere::Unreached("this node is starting".to_owned()));
        };
        let mut tunnel = transport.tunnel(place).await.map_err(unreached)?;
        let epoch = record.epoch;
        let asked = Message::Attach { volume, epoch };
        asked.write(&mut tunnel).await.map_err(unreached)?;
        let answer = timeout(ANSWER_WITHIN, Message::read(&mut tunnel)).await;
        let answer = answer.map_err(|_| NotThere::Told("it took too long".to_owned()))?;
        match answer.map_err(unreached)? {
            Message::Attached {
                epoch,
                bytes,
                block_bytes,
            } => {
                tracing::debug!(%volume, %epoch, %place, "a client is forwarded");
                let info = ExportInfo {
                    bytes,
                    block_bytes_min: block_bytes,
                    ..info(record)
                };
                is_sound(&info)
                    .then_some((info, tunnel))
                    .ok_or_else(|| NotThere::Told("its answer makes no sense".to_owned()))
            }
            Message::Refused { kind, reason } => Err(match kind {
                RefusedKind::Told => NotThere::Told(reason),
                RefusedKind::OtherEpoch => NotThere::OtherEpoch(reason),
                RefusedKind::Stopping => NotThere::Unreached(reason),
            }),
            Message::Attach { .. } | Message::Begin { .. } => {
                Err(NotThere::Told("its answer makes no sense".to_owned()))
            }
        }
    }
}

/// Whether a volume may be like this: it is a peer's word.
fn is_sound(info: &ExportInfo) -> bool {
    matches!(info.block_bytes_min, 512 | 4096)
        && info.bytes.is_multiple_of(u64::from(info.block_bytes_min))
}

/// The volume of that name, if this node may forward clients of it.
fn find<'a>(
    catalog: &'a Catalog,
    me: NodeId,
    name: &str,
) -> Result<(VolumeId, &'a VolumeRecord), Refusal> {
    let policy = |message| Refusal {
        kind: RefusalKind::Policy,
        message,
    };
    let mut volumes = catalog.volumes.iter();
    let Some((volume, record)) = volumes.find(|(_, record)| record.name == name) else {
        let message = format!(
            "there is no volume {name} (as far as this node knows); `domain-ctl get volumes` lists them"
        );
        return Err(Refusal {
            kind: RefusalKind::Unknown,
            message,
        });
    };
    check_gate(catalog, me).map_err(policy)?;
    if let Some(published) = catalog.published.get(volume).filter(|now| now.node != me) {
        let node = catalog.node_name(published.node);
        return Err(policy(format!(
            "volume {name} is published to {node}, and opened there only; `domain-ctl unpublish volume {name} --node {node}` ends that"
        )));
    }
    Ok((*volume, record))
}

/// Whether this node may forward anything (I8).
///
/// # Errors
/// Why it may not.
pub fn check_gate(catalog: &Catalog, me: NodeId) -> Result<(), String> {
    let record = catalog.nodes.get(&me);
    let domain = record.and_then(|record| catalog.domains.get(&record.domain));
    match domain {
        Some(domain) if domain.state == DomainState::Active => Ok(()),
        Some(domain) => Err(format!(
            "cluster domain {} is {:?} and serves nothing; after `domain-ctl activate clusterdomain {}` it will",
            domain.name, domain.state, domain.name
        )),
        None => Err("this node has not joined the cluster yet".to_owned()),
    }
}

impl Exports for ForwardedExports {
    fn list(&self) -> Vec<ExportEntry> {
        let catalog = self.newest();
        let volumes = catalog.volumes.values();
        volumes
            .map(|record| ExportEntry {
                name: record.name.clone(),
                description: info(record).description,
            })
            .collect()
    }

    fn info<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ExportInfo, Refusal>> {
        Box::pin(async move {
            let catalog = self.newest();
            let mut volumes = catalog.volumes.values();
            match volumes.find(|record| record.name == name) {
                Some(record) => Ok(info(record)),
                None => find(&catalog, self.me, name).map(|(_, record)| info(record)),
            }
        })
    }

    fn open<'a>(
        &'a self,
        name: &'a str,
        client: Connection,
    ) -> BoxFuture<'a, Result<Arc<dyn Export>, Refusal>> {
        Box::pin(async move {
            let mut news = self.catalogs.subscribe();
            let mut tries = 0;
            loop {
                let catalog = news.borrow_and_update().clone();
                let (volume, record) = find(&catalog, self.me, name)?;
                tries += 1;
                let (reason, last) = match self.forward(&catalog, (volume, record)).await {
                    Ok((info, tunnel)) => {
                        let export = self.opened(client, info, tunnel);
                        // The domain may have been deactivated meanwhile; from here on its clients are told.
                        find(&self.newest(), self.me, name)?;
                        return Ok(export);
                    }
                    Err(NotThere::Told(reason)) => (reason, true),
                    Err(NotThere::OtherEpoch(why)) => (why, tries >= TRIES_MAX),
                    Err(NotThere::Unreached(why)) => {
                        (unreached(&catalog, record, &why), tries >= TRIES_MAX)
                    }
                };
                if last {
                    return Err(Refusal {
                        kind: RefusalKind::Policy,
                        message: reason,
                    });
                }
                // An error means that kvdb has stopped: the tries run out.
                let _ = timeout(NEWS_WITHIN, news.changed()).await;
            }
        })
    }
}

/// What a client is told where nobody who could serve the volume is reached.
fn unreached(catalog: &Catalog, record: &VolumeRecord, why: &str) -> String {
    let primary = record.primary.map(|primary| primary.node);
    let site = primary
        .and_then(|primary| catalog.nodes.get(&primary))
        .and_then(|node| catalog.domains.get(&node.domain));
    let next = site.map_or_else(String::new, |site| {
        format!(
            "; if {} is lost, `domain-ctl deactivate clusterdomain {}` lets the other site take over",
            site.name, site.name
        )
    });
    format!("volume {} can't be forwarded: {why}{next}", record.name)
}

impl ForwardedExports {
    fn opened(&self, client: Connection, info: ExportInfo, tunnel: Tunnel) -> Arc<dyn Export> {
        let number = client.number();
        self.clients.0.lock().insert(number, client);
        Arc::new(ForwardedExport {
            info,
            number,
            tunnel: Mutex::new(Some(tunnel)),
            clients: self.clients.clone(),
        })
    }
}

/// A volume as one forwarded client sees it.
struct ForwardedExport {
    info: ExportInfo,
    number: u64,
    /// Until the client and this node have agreed.
    tunnel: Mutex<Option<Tunnel>>,
    clients: Clients,
}

impl Export for ForwardedExport {
    fn info(&self) -> ExportInfo {
        self.info.clone()
    }

    fn submit(&self, _request: Request, reply: Reply) {
        reply.error(Errno::Io, "the way to the primary is gone");
    }

    fn elsewhere(&self, agreement: Agreement) -> Option<Elsewhere> {
        let tunnel = self.tunnel.lock().take()?;
        let begin = Message::Begin {
            structured: agreement.structured,
            allocation: agreement.allocation,
        };
        Some(Elsewhere {
            stream: Box::new(tunnel),
            first: begin.encode().into(),
        })
    }
}

impl Drop for ForwardedExport {
    fn drop(&mut self) {
        self.clients.0.lock().remove(&self.number);
    }
}
