//! The data path of a diskless node: an NBD server that forwards, and kvdb's news by which it stops doing so.

use super::exports::{Catalogs, Clients, ForwardedExports, check_gate};
use crate::peers::Outlet;
use crate::replicas::questions::knows_this_start;
use crate::serve::{BoxFuture, DataPath, DataPathState};
use crate::store::Store;
use anyhow::Context;
use isthmus_catalog::Catalog;
use isthmus_config::Config;
use isthmus_engine::NodeId;
use isthmus_kvdb::{Detour, Kvdb};
use isthmus_nbd::{Address, Limits, Server};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::replicas::CLIENTS_MAX;

/// The data path of a node that holds no replicas and forwards its clients.
pub struct Diskless {
    server: Mutex<Option<Server>>,
    /// The catalog's revision on which it has acted.
    acted_on: Arc<AtomicU64>,
}

impl Diskless {
    /// Starts to offer the cluster's volumes over NBD. Clients and tunnels live on `data`.
    ///
    /// # Errors
    /// One line for the operator.
    pub async fn start(
        config: &Config,
        store: &Store,
        kvdb: &Kvdb,
        outlet: &Outlet,
        data: &Handle,
    ) -> anyhow::Result<Diskless> {
        let catalogs: Arc<Catalogs> = Arc::new(watch::Sender::new(Arc::default()));
        let (clients, acted_on) = (Clients::default(), Arc::new(AtomicU64::new(0)));
        follow(config, store.clone(), kvdb, outlet, &catalogs);
        tokio::spawn(act(
            store.node,
            catalogs.subscribe(),
            clients.clone(),
            Arc::clone(&acted_on),
        ));
        let exports = Arc::new(ForwardedExports::new(
            store.node,
            outlet.clone(),
            catalogs,
            clients,
        ));
        let limits = Limits {
            connections: CLIENTS_MAX,
            ..Limits::default()
        };
        let address = config
            .listen
            .nbd
            .context("listen.nbd: it is missing: clients reach the volumes there")?;
        let server = data
            .spawn(async move { Server::start(&[Address::Tcp(address)], exports, limits).await })
            .await?;
        let server = server.with_context(|| {
            format!("can't listen for NBD clients on {address}: is another program using the port?")
        })?;
        Ok(Diskless {
            server: Mutex::new(Some(server)),
            acted_on,
        })
    }
}

/// Keeps the newest catalog, by kvdb here or, while its leader can't be reached, by a peer. From when kvdb has noted this start of the node on:
/// before, the catalog may speak of what an earlier process of this node was.
fn follow(config: &Config, store: Store, kvdb: &Kvdb, outlet: &Outlet, catalogs: &Arc<Catalogs>) {
    let (mut watched, kept) = (kvdb.watch(), Arc::clone(catalogs));
    let started = store.clone();
    tokio::spawn(async move {
        loop {
            let catalog = watched.newest();
            if knows_this_start(&catalog, &started) {
                keep(&kept, catalog);
            }
            if watched.changed().await.is_err() {
                return;
            }
        }
    });
    let peers = config
        .members
        .iter()
        .map(|member| NodeId(member.id))
        .filter(|peer| *peer != store.node);
    let bypass = Arc::new(outlet.clone());
    let detour = Detour::new(kvdb.clone(), bypass, peers.collect());
    let kept = Arc::clone(catalogs);
    tokio::spawn(detour.follow(
        move |catalog| knows_this_start(catalog, &store),
        move |catalog| keep(&kept, catalog),
    ));
}

fn keep(catalogs: &Catalogs, newer: Arc<Catalog>) {
    catalogs.send_if_modified(|kept| {
        let is_newer = newer.revision > kept.revision;
        if is_newer {
            *kept = newer;
        }
        is_newer
    });
}

/// Sends all clients away while this node may forward none, and notes up to where the catalog was acted on.
async fn act(
    me: NodeId,
    mut catalogs: watch::Receiver<Arc<Catalog>>,
    clients: Clients,
    acted_on: Arc<AtomicU64>,
) {
    loop {
        let catalog = catalogs.borrow_and_update().clone();
        if let Err(reason) = check_gate(&catalog, me) {
            clients.send_away(&reason);
        }
        acted_on.store(catalog.revision, Ordering::Release);
        // Its sender goes with the node.
        if catalogs.changed().await.is_err() {
            return;
        }
    }
}

impl DataPath for Diskless {
    // Tunnels end with their session by themselves: nothing is to be done about sessions.

    fn state(&self) -> BoxFuture<'_, DataPathState> {
        let acted_on_revision = self.acted_on.load(Ordering::Acquire);
        Box::pin(async move {
            DataPathState {
                acted_on_revision,
                volumes: Vec::new(),
            }
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        let server = self.server.lock().take();
        Box::pin(async move {
            if let Some(server) = server {
                server.stop().await;
            }
        })
    }
}
