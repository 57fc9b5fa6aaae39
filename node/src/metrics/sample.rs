//! What is known now: asked of the host, of kvdb, of the links and of the disk.

use crate::api::access::now_ms;
use crate::cluster::OwnState;
use crate::links::LinkFigures;
use crate::store::space::Space;
use isthmus_catalog::{Catalog, VolumeRecord};
use isthmus_engine::{NodeId, Standing, VolumeId};
use isthmus_host::{Figures, VolumeFigures};
use isthmus_kvdb::KvdbMetrics;
use isthmus_transport::PeerStats;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Volumes that the host is asked for at a time: some tenths of a millisecond of the thread that serves.
const AT_A_TIME: usize = 128;

/// The name under which volumes without series of their own are counted.
pub const OTHERS: &str = "(others)";

/// What is known now.
#[derive(Debug, Default)]
pub struct Sample {
    /// This node's name.
    pub node: String,
    /// Its domain's.
    pub domain: String,
    /// Since it was started.
    pub uptime: Duration,
    /// Its file system.
    pub space: Option<Space>,
    /// Replicas, by what they do.
    pub roles: BTreeMap<&'static str, u64>,
    /// Volumes with series of their own, and the others together.
    pub rows: Vec<Row>,
    /// How many are counted together.
    pub together: u64,
    /// Links, by the peer's name.
    pub links: Vec<(String, LinkFigures, PeerStats)>,
    /// kvdb as it is seen here.
    pub kvdb: KvdbMetrics,
    /// The catalog's revision.
    pub revision: u64,
}

/// A volume, or several together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// The volume's name.
    pub volume: String,
    /// What was counted and timed.
    pub figures: Figures,
    /// Requests under way.
    pub in_flight: u64,
    /// The age of the oldest.
    pub oldest: Duration,
    /// For how long it has been frozen.
    pub frozen_for: Duration,
    /// Clients attached.
    pub clients: u64,
    /// Bytes that it takes.
    pub used_bytes: u64,
    /// For how long its set has lacked a domain.
    pub unprotected: Duration,
    /// What would be lost with this site; none from who is not primary.
    pub at_risk_bytes: Option<u64>,
    /// What replicas may lack, by their nodes' names.
    pub dirty: BTreeMap<String, u64>,
    /// What is still to be copied, and how fast that goes.
    pub resyncs: BTreeMap<String, (u64, u64)>,
    /// Bytes that travelled for resync.
    pub moved_bytes: u64,
    /// Blocks found bad, repaired, and bad still.
    pub blocks: (u64, u64, u64),
    /// Replicas that can't take part.
    pub faults: u64,
    /// Replicas that lack space.
    pub short_of_space: u64,
}

impl Row {
    /// Counts another volume in: sums, and of ages the worst.
    fn add(&mut self, other: Row) {
        self.figures.add(&other.figures);
        self.in_flight += other.in_flight;
        self.oldest = self.oldest.max(other.oldest);
        self.frozen_for = self.frozen_for.max(other.frozen_for);
        self.clients += other.clients;
        self.used_bytes += other.used_bytes;
        self.unprotected = self.unprotected.max(other.unprotected);
        if let Some(bytes) = other.at_risk_bytes {
            *self.at_risk_bytes.get_or_insert(0) += bytes;
        }
        for (node, bytes) in other.dirty {
            *self.dirty.entry(node).or_default() += bytes;
        }
        for (node, (left, rate)) in other.resyncs {
            let ours = self.resyncs.entry(node).or_default();
            *ours = (ours.0 + left, ours.1 + rate);
        }
        self.moved_bytes += other.moved_bytes;
        let (ours, theirs) = (self.blocks, other.blocks);
        self.blocks = (ours.0 + theirs.0, ours.1 + theirs.1, ours.2 + theirs.2);
        self.faults += other.faults;
        self.short_of_space += other.short_of_space;
    }
}

/// Asks for all of it.
pub async fn take(own: &OwnState, volumes_max: usize) -> Sample {
    let catalog = own.kvdb.catalog();
    let me = catalog.nodes.get(&own.store.node);
    let domain = me.and_then(|node| catalog.domains.get(&node.domain));
    let mut sample = Sample {
        node: own.name.clone(),
        domain: domain.map_or_else(String::new, |domain| domain.name.clone()),
        uptime: own.since.elapsed(),
        space: own.space.now(),
        kvdb: own.kvdb.metrics(),
        revision: catalog.revision,
        ..Sample::default()
    };
    for (peer, figures) in own.links.list() {
        let stats = own
            .outlet
            .transport()
            .and_then(|transport| transport.stats(peer));
        let name = node_name(&catalog, peer);
        sample
            .links
            .push((name, figures, stats.unwrap_or_default()));
    }
    let mut after: Option<VolumeId> = None;
    loop {
        let page = own.data_path.figures(after, AT_A_TIME).await;
        if after.is_none() {
            sample.roles.insert("stopped", page.closed);
        }
        let is_last = page.rows.len() < AT_A_TIME;
        after = page.rows.last().map(|figures| figures.status.volume);
        for figures in page.rows {
            sample.count(&catalog, figures, volumes_max, now_ms());
        }
        if is_last {
            return sample;
        }
    }
}

fn node_name(catalog: &Catalog, node: NodeId) -> String {
    let known = catalog.nodes.get(&node);
    known.map_or_else(|| node.to_string(), |record| record.name.clone())
}

fn role(standing: &Standing) -> &'static str {
    match standing {
        Standing::Idle | Standing::Releasing => "idle",
        Standing::Following { .. } => "secondary",
        Standing::Promoting { .. } => "opening",
        Standing::Serving { frozen: None } => "primary",
        Standing::Serving { frozen: Some(_) } => "frozen",
        Standing::Unable(_) => "unable",
        Standing::Damaged(_) => "stopped",
    }
}

impl Sample {
    /// Counts a volume: by itself while there is room, else with the others.
    pub fn count(
        &mut self,
        catalog: &Catalog,
        figures: VolumeFigures,
        volumes_max: usize,
        now_ms: u64,
    ) {
        *self
            .roles
            .entry(role(&figures.status.standing))
            .or_default() += 1;
        self.count_row(row(catalog, figures, now_ms), volumes_max);
    }

    /// The same, once it is a row.
    pub fn count_row(&mut self, mut row: Row, volumes_max: usize) {
        if self.together == 0 && self.rows.len() < volumes_max {
            self.rows.push(row);
            return;
        }
        if self.together == 0 {
            row.volume = OTHERS.to_owned();
            self.rows.push(row);
        } else if let Some(others) = self.rows.last_mut() {
            others.add(row);
        }
        self.together += 1;
    }
}

fn row(catalog: &Catalog, measured: VolumeFigures, now_ms: u64) -> Row {
    let VolumeFigures {
        status, figures, ..
    } = measured;
    let record = catalog.volumes.get(&status.volume);
    let since = record.and_then(|record| record.unprotected_since_ms);
    let is_primary = matches!(
        status.standing,
        Standing::Serving { .. } | Standing::Promoting { .. }
    );
    let resyncs = status.joiners.iter().map(|(node, progress)| {
        let done = (progress.left_bytes, progress.bytes_per_second);
        (node_name(catalog, *node), done)
    });
    let dirty = status
        .dirty
        .iter()
        .map(|(replica, bytes)| (node_name(catalog, replica.node), *bytes));
    let dirty: BTreeMap<String, u64> = dirty.collect();
    let alone = record.is_some_and(|record| is_on_one_site(catalog, record));
    // Of the replicas that the other site has, the best one counts.
    let own_site = |node| record.and(catalog.domain_of(node));
    let elsewhere = status.dirty.iter().filter(|(replica, _)| {
        let primary = record.and_then(|record| record.primary);
        primary.is_none_or(|primary| own_site(primary.node) != own_site(replica.node))
    });
    let at_risk = elsewhere.map(|(_, bytes)| *bytes).min().filter(|_| alone);
    Row {
        volume: record.map_or_else(|| status.volume.to_string(), |record| record.name.clone()),
        figures,
        in_flight: measured.in_flight as u64,
        oldest: measured.oldest,
        frozen_for: measured.frozen_for,
        clients: status.clients as u64,
        used_bytes: status.used_bytes,
        unprotected: Duration::from_millis(since.map_or(0, |since| now_ms.saturating_sub(since))),
        at_risk_bytes: is_primary.then(|| at_risk.unwrap_or(0)),
        dirty,
        resyncs: resyncs.collect(),
        moved_bytes: status.moved_bytes,
        blocks: (
            status.checksum_errors,
            status.repaired_blocks,
            status.bad_blocks,
        ),
        faults: u64::from(matches!(
            status.standing,
            Standing::Unable(_) | Standing::Damaged(_)
        )),
        short_of_space: u64::from(status.short_of_space_since.is_some()),
    }
}

/// Whether all that holds everything acknowledged is in one domain.
fn is_on_one_site(catalog: &Catalog, record: &VolumeRecord) -> bool {
    let domains = record
        .in_sync
        .iter()
        .filter_map(|replica| Some(catalog.nodes.get(&replica.node)?.domain));
    domains.collect::<BTreeSet<_>>().len() == 1
}
