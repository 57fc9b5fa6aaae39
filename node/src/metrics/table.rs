//! Every series that a node has: what the page is written by, what `docs/metrics.md` is made from, and what alerts and dashboards may name.

use std::fmt::Write as _;

/// What kind of series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rises from the node's start.
    Counter,
    /// The same, with fractions.
    FractionalCounter,
    /// Goes up and down.
    Gauge,
    /// Buckets, a sum and a count, from the node's start.
    Histogram,
}

impl Kind {
    /// Prometheus's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter | Kind::FractionalCounter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    /// Its name, base unit last.
    pub name: &'static str,
    /// What kind.
    pub kind: Kind,
    /// Its labels, in the order in which their values are given.
    pub labels: &'static [&'static str],
    /// What it says.
    pub meaning: &'static str,
}

macro_rules! series {
    ($($constant:ident = $kind:ident $name:literal $labels:expr, $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub const $constant: Series = Series { name: $name, kind: Kind::$kind, labels: &$labels, meaning: $meaning };
        )*
        /// All of them.
        pub const ALL: &[Series] = &[$($constant),*];
    };
}

const NODE: [&str; 1] = ["node"];
const VOLUME: [&str; 2] = ["volume", "node"];
const REPLICA: [&str; 3] = ["volume", "node", "replica"];
const LINK: [&str; 2] = ["node", "peer"];

series! {
    NODE_INFO = Gauge "isthmus_node_info" ["node", "domain", "version"], "Always 1; says which node, where, and which version.";
    NODE_UPTIME = Gauge "isthmus_node_uptime_seconds" NODE, "Since the node was started.";
    STORE_TOTAL = Gauge "isthmus_store_size_bytes" NODE, "Bytes of the file system that holds the data directory.";
    STORE_FREE = Gauge "isthmus_store_free_bytes" NODE, "Of these, how many the node may still fill.";
    VOLUMES = Gauge "isthmus_volumes" ["node", "role"], "Replicas on this node, by what they do.";
    VOLUMES_TOGETHER = Gauge "isthmus_volumes_counted_together" NODE, "Volumes without series of their own: they are in those with volume=\"(others)\".";

    READS = Counter "isthmus_volume_reads_total" VOLUME, "Reads of clients that were answered.";
    WRITES = Counter "isthmus_volume_writes_total" VOLUME, "Writes of clients that were answered.";
    TRIMS = Counter "isthmus_volume_trims_total" VOLUME, "Trims and writes of zeroes that were answered.";
    FLUSHES = Counter "isthmus_volume_flushes_total" VOLUME, "Flushes that were answered.";
    FAILED = Counter "isthmus_volume_failed_requests_total" VOLUME, "Requests of clients that were answered with an error.";
    READ_BYTES = Counter "isthmus_volume_read_bytes_total" VOLUME, "Bytes that clients read.";
    WRITTEN_BYTES = Counter "isthmus_volume_written_bytes_total" VOLUME, "Bytes that clients wrote.";
    TRIMMED_BYTES = Counter "isthmus_volume_trimmed_bytes_total" VOLUME, "Bytes that clients trimmed or zeroed.";
    READ_SECONDS = Histogram "isthmus_volume_read_seconds" VOLUME, "How long reads took, from when the host saw them to their answers.";
    WRITE_SECONDS = Histogram "isthmus_volume_write_seconds" VOLUME, "How long writes took, the same way: local journal and peer are worked on at the same time.";
    FLUSH_SECONDS = Histogram "isthmus_volume_flush_seconds" VOLUME, "How long flushes took, the same way.";
    JOURNAL_SECONDS = Histogram "isthmus_volume_journal_seconds" VOLUME, "How long this node's journal took to make a record durable, as primary and as secondary. With durability flush that is when somebody asks for it.";
    WIRE_SECONDS = Histogram "isthmus_volume_wire_seconds" VOLUME, "Only at the primary: of the way of a write to a secondary and back, what was not spent in the secondary's journal. One sample for each acknowledgement that brings news.";
    PEER_JOURNAL_SECONDS = Histogram "isthmus_volume_peer_journal_seconds" VOLUME, "Only at the primary: what was spent in the secondary's journal, as that says. The same samples.";
    IN_FLIGHT = Gauge "isthmus_volume_requests_in_flight" VOLUME, "Requests of clients under way.";
    OLDEST = Gauge "isthmus_volume_oldest_request_seconds" VOLUME, "For how long the oldest of them has been under way.";
    CLIENTS = Gauge "isthmus_volume_clients" VOLUME, "Clients attached here.";
    USED = Gauge "isthmus_volume_used_bytes" VOLUME, "Bytes that this replica takes.";
    FROZEN_TOTAL = FractionalCounter "isthmus_volume_frozen_seconds_total" VOLUME, "For how long requests could not be answered here, in all. Looked at ten times a second.";
    FROZEN = Gauge "isthmus_volume_frozen_seconds" VOLUME, "For how long requests can't be answered now; 0 when they can.";
    UNPROTECTED = Gauge "isthmus_volume_unprotected_seconds" VOLUME, "For how long a domain that holds replicas has had none in the in-sync set; 0 while each has one. As kvdb says here.";
    AT_RISK = Gauge "isthmus_volume_at_risk_bytes" VOLUME, "Only at the primary: what would be lost with its site, counted in granules of 64 KiB. 0 while another site holds everything acknowledged.";
    DIRTY = Gauge "isthmus_volume_dirty_bytes" REPLICA, "Only at the primary: what a replica outside the in-sync set may lack.";
    RESYNC_LEFT = Gauge "isthmus_volume_resync_left_bytes" REPLICA, "Only at the primary: what is still to be compared or copied.";
    RESYNC_RATE = Gauge "isthmus_volume_resync_bytes_per_second" REPLICA, "Only at the primary: how fast a replica is brought back.";
    RESYNC_SECONDS_LEFT = Gauge "isthmus_volume_resync_seconds_left" REPLICA, "Only at the primary: at that speed. Not there while the speed is not known.";
    RESYNC_MOVED = Counter "isthmus_volume_resync_moved_bytes_total" VOLUME, "Bytes of blocks that travelled for resync, to or from this replica.";
    EPOCH_CHANGES = Counter "isthmus_volume_epoch_changes_total" ["volume", "node", "reason"], "How often the epoch rose, as this replica heard it.";
    CHECKSUM_ERRORS = Counter "isthmus_volume_checksum_errors_total" VOLUME, "Blocks found bad here.";
    REPAIRED = Counter "isthmus_volume_repaired_blocks_total" VOLUME, "Of these, repaired from a peer.";
    BAD_BLOCKS = Gauge "isthmus_volume_bad_blocks" VOLUME, "Blocks found bad here, and neither repaired nor overwritten since.";
    FAULT = Gauge "isthmus_volume_fault" VOLUME, "1 while the disk does not let this replica take part, or something stopped it.";
    SHORT_OF_SPACE = Gauge "isthmus_volume_short_of_space" VOLUME, "1 while writes that need space are refused here.";

    LINK_UP = Gauge "isthmus_link_up" LINK, "1 while the peer answers probes.";
    LINK_EXCEEDED = Gauge "isthmus_link_latency_exceeded" LINK, "1 while the median round trip is over max_rtt.";
    LINK_KEPT_OUT = Gauge "isthmus_link_replicas_kept_out" LINK, "1 while replicas behind the link stay out of the in-sync sets because it is too slow, or was until a moment ago (`[link] action = degrade`).";
    LINK_HOLD_DOWN = Gauge "isthmus_link_hold_down_seconds_left" LINK, "For how long the link has to stay good before they come back; 0 while none stay out. Not there while the link is not good.";
    LINK_RTT = Gauge "isthmus_link_rtt_seconds" ["node", "peer", "quantile"], "The round trip of the probes of the last 60 s: its median and 99th percentile.";
    LINK_TRANSPORT_RTT = Gauge "isthmus_link_transport_rtt_seconds" LINK, "The round trip as the control connection estimates it.";
    LINK_PROBES = Counter "isthmus_link_probes_total" LINK, "Probes sent, one a second.";
    LINK_PROBES_LOST = Counter "isthmus_link_probes_lost_total" LINK, "Of these, not answered within a second.";
    LINK_LOST_PACKETS = Counter "isthmus_link_lost_packets_total" LINK, "Packets that QUIC sent again, of the present session.";
    LINK_RETRANSMITS = Counter "isthmus_link_retransmits_total" LINK, "Segments that TCP sent again, of the present session.";
    LINK_SENT = Counter "isthmus_link_sent_bytes_total" LINK, "Bytes of frames taken for sending.";
    LINK_RECEIVED = Counter "isthmus_link_received_bytes_total" LINK, "Bytes of frames that came.";
    LINK_QUEUED = Gauge "isthmus_link_queued_bytes" LINK, "Bytes that wait to be sent.";
    LINK_SESSIONS = Counter "isthmus_link_sessions_total" LINK, "Sessions that came up.";

    KVDB_COMMIT_SECONDS = Histogram "isthmus_kvdb_commit_seconds" NODE, "How long commands of this node took to be committed.";
    KVDB_COMMITS_FAILED = Counter "isthmus_kvdb_commits_failed_total" NODE, "Commands of this node that no majority answered in time.";
    KVDB_TERM = Gauge "isthmus_kvdb_term" NODE, "Raft's term, as this node knows.";
    KVDB_ELECTIONS = Counter "isthmus_kvdb_elections_total" NODE, "How often the term rose, as this node saw it, looking once a second.";
    KVDB_HAS_LEADER = Gauge "isthmus_kvdb_has_leader" NODE, "1 while this node knows a leader.";
    KVDB_LEADS = Gauge "isthmus_kvdb_is_leader" NODE, "1 while this node believes to lead.";
    KVDB_VOTERS = Gauge "isthmus_kvdb_voters" NODE, "Voters, as this node knows.";
    KVDB_REVISION = Gauge "isthmus_kvdb_revision" NODE, "The catalog's revision that this node has applied.";

    LOG_LEFT_OUT = Counter "isthmus_log_lines_left_out_total" NODE, "Lines that were not written because one like them had just been.";
}

/// All series, as Markdown.
pub fn document() -> String {
    let mut text = "# What a node tells Prometheus\n\n\
        Made by `isthmusd metrics`. A node answers `GET /metrics` at its admin API, and at `[metrics] listen` of its configuration where that is\n\
        given. Each node tells of itself and of its own replicas. Units are base units; counters and histograms begin with the node's start.\n\
        `[metrics] volumes` (128) says how many volumes have series of their own: those with the lowest ids. The others are counted together,\n\
        with `volume=\"(others)\"`: counters, histograms and sizes as sums, ages (frozen, unprotected, oldest request) as the worst of them.\n\
        The buckets of the volumes' histograms are the powers of two from 8 µs to 34 s. The page is made anew once a second at most.\n\n\
        | series | kind | labels | what it says |\n| --- | --- | --- | --- |\n"
        .to_owned();
    for series in ALL {
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            series.name,
            series.kind.as_str(),
            series.labels.join(", "),
            series.meaning
        );
    }
    text
}
