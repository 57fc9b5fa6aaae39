//! The command line's grammar.

use clap::{Args, Parser, Subcommand, ValueEnum};
use isthmus_api::size;
use std::time::Duration;

/// Where quickstart's nodes have their admin API.
const API_DEFAULT: &str = "http://127.0.0.1:9440,http://127.0.0.1:9441,http://127.0.0.1:9442";

/// Operates an Isthmus cluster: cluster domains, volumes, nodes.
#[derive(Debug, Parser)]
#[command(name = "domain-ctl", version, propagate_version = true)]
pub struct Arguments {
    /// Admin API addresses of the cluster's nodes, tried in this order until one answers.
    #[arg(long, global = true, env = "ISTHMUS_API", default_value = API_DEFAULT, value_delimiter = ',', value_name = "URL")]
    pub api: Vec<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show cluster domains, their updates, volumes or nodes
    Get {
        /// What to show.
        #[command(subcommand)]
        what: Get,
    },
    /// Let a cluster domain serve again
    Activate {
        /// What to activate.
        #[command(subcommand)]
        what: Activate,
    },
    /// Make a cluster domain serve nothing: the switch for a failover
    Deactivate {
        /// What to deactivate.
        #[command(subcommand)]
        what: Deactivate,
    },
    /// Create a volume
    Create {
        /// What to create.
        #[command(subcommand)]
        what: Create,
    },
    /// Show everything about a volume
    Describe {
        /// What to describe.
        #[command(subcommand)]
        what: Describe,
    },
    /// Let a node hold a replica of a volume, too: a second one in a site, or one that replaces another
    #[command(
        after_help = "Example: domain-ctl add replica volume vm1 --node a2 --wait\nTo move a replica to another node of its site: add the new one, wait until it is in sync, remove the old one."
    )]
    Add {
        /// What to add.
        #[command(subcommand)]
        what: Add,
    },
    /// Take a replica of a volume, or a node, out of the cluster
    #[command(
        after_help = "Examples: domain-ctl remove replica volume vm1 --node a1\n          domain-ctl remove node a1"
    )]
    Remove {
        /// What to remove.
        #[command(subcommand)]
        what: Remove,
    },
    /// Delete a volume
    Delete {
        /// What to delete.
        #[command(subcommand)]
        what: Delete,
    },
    /// Make a volume larger, on both sites in one step, while it is in use
    #[command(
        after_help = "Example: domain-ctl expand volume vm1 --size 20GiB\nClients see the new size when they open the volume again."
    )]
    Expand {
        /// What to expand.
        #[command(subcommand)]
        what: Expand,
    },
    /// Change what was chosen for a volume
    #[command(after_help = "Example: domain-ctl set volume vm1 --on-peer-loss suspend")]
    Set {
        /// What to change.
        #[command(subcommand)]
        what: Set,
    },
    /// Move primaries to another site by plan: without data loss, and with a pause of some milliseconds
    #[command(
        after_help = "Examples: domain-ctl relocate volume vm1 --to site-b --wait\n          domain-ctl relocate clusterdomain site-a"
    )]
    Relocate {
        /// What to move.
        #[command(subcommand)]
        what: Move,
    },
    /// Say that an orchestrator uses a volume on a node: clients are let in there only
    Publish {
        /// What to publish.
        #[command(subcommand)]
        what: Publish,
    },
    /// Say that an orchestrator uses a volume on a node no more
    Unpublish {
        /// What to unpublish.
        #[command(subcommand)]
        what: Unpublish,
    },
    /// What a failover meant for each volume: who was in sync, and whether anything was lost
    Report {
        /// What to report.
        #[command(subcommand)]
        what: Report,
    },
    /// kvdb, which agrees on who may serve: saving it, and going on where it has lost its majority for good
    Kvdb {
        /// What to do.
        #[command(subcommand)]
        what: Kvdb,
    },
    /// Name the replica of a volume that counts, after a new generation was forced
    #[command(
        after_help = "Examples: domain-ctl recover volume vm1\n          domain-ctl recover volume vm1 --from b1\n          domain-ctl recover volume --all --from b1"
    )]
    Recover {
        /// What to recover.
        #[command(subcommand)]
        what: Recover,
    },
    /// The cluster at one glance: would any data be lost if a site failed now?
    Status {
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
        /// Show it again every second, until interrupted
        #[arg(short, long)]
        watch: bool,
    },
    /// Why a volume or a cluster domain is in its state, which rule holds it, and what would change it
    Explain {
        /// What to explain.
        #[command(subcommand)]
        what: Explain,
    },
    /// Write what a shell needs to complete this program's command lines
    #[command(
        after_help = "Example: domain-ctl completion bash > /etc/bash_completion.d/domain-ctl"
    )]
    Completion {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual page of this program, or of one of its commands, in roff
    #[command(after_help = "Example: domain-ctl manual deactivate clusterdomain | man -l -")]
    Manual {
        /// The words of a command
        command: Vec<String>,
    },
}

/// What to do with kvdb.
#[derive(Debug, Subcommand)]
pub enum Kvdb {
    /// Its members, its leader, what it can lose, and the cluster's generation
    Status {
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// A copy of it in a file
    Snapshot {
        /// What to do with it.
        #[command(subcommand)]
        what: Snapshot,
    },
    /// Go on from a surviving data node without the majority that kvdb has lost for good
    #[command(
        after_help = "Examples: domain-ctl --api http://127.0.0.1:9441 kvdb recover --force-new-cluster --dry-run\n          domain-ctl --api http://127.0.0.1:9441 kvdb recover --force-new-cluster --others-are-off --reason 'site-a and the witness burnt down'\nThe node starts anew in a new generation. Nodes of the one before follow when they meet it.\nThen name the replica that counts of each volume: domain-ctl recover volume --all --from NODE"
    )]
    Recover {
        /// Say that this is what is wanted: a new generation of the cluster, begun by this node alone
        #[arg(long, required = true)]
        force_new_cluster: bool,
        /// How to go on.
        #[command(flatten)]
        word: Word,
    },
}

/// What to do with a copy of kvdb.
#[derive(Debug, Subcommand)]
pub enum Snapshot {
    /// Save it to a file
    #[command(after_help = "Example: domain-ctl kvdb snapshot save /var/backups/kvdb.json")]
    Save {
        /// The file, which must not be there yet
        file: std::path::PathBuf,
    },
    /// What a file holds, and whether it is whole
    Status {
        /// The file
        file: std::path::PathBuf,
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Go on from a data node with what a file holds, in a new generation: all that kvdb has agreed on since is given up
    Restore {
        /// The file
        file: std::path::PathBuf,
        /// How to go on.
        #[command(flatten)]
        word: Word,
    },
}

/// The operator's word for going on without others.
#[derive(Debug, Args)]
pub struct Word {
    /// No other node serves anything, nor will before it has met this one
    #[arg(long)]
    pub others_are_off: bool,
    /// Change nothing; say what would happen
    #[arg(long)]
    pub dry_run: bool,
    /// Why, for the audit trail
    #[arg(long, default_value = "")]
    pub reason: String,
    /// How long to wait until the node is up again, e.g. 60s or 5m
    #[arg(long, value_parser = duration, default_value = "60s")]
    pub timeout: Duration,
}

/// What to recover.
#[derive(Debug, Subcommand)]
pub enum Recover {
    /// A volume: without --from, shows what its replicas hold
    Volume {
        /// The volume's name
        #[arg(required_unless_present = "all")]
        name: Option<String>,
        /// All volumes for which no replica was named yet
        #[arg(short, long, conflicts_with = "name", requires = "from")]
        all: bool,
        /// The node whose replica counts from now on
        #[arg(long, value_name = "NODE")]
        from: Option<String>,
        /// Go on even where other replicas may hold acknowledged writes that this one does not
        #[arg(long)]
        accept_data_loss: bool,
        /// Why, for the audit trail
        #[arg(long, default_value = "")]
        reason: String,
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// What to explain.
#[derive(Debug, Subcommand)]
pub enum Explain {
    /// A volume: why its I/O waits, or is at risk
    Volume(About),
    /// A cluster domain
    #[command(name = "clusterdomain", visible_alias = "cd", alias = "domain")]
    ClusterDomain(About),
}

/// One thing.
#[derive(Debug, Args)]
pub struct About {
    /// Its name
    pub name: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// A selection of things to show.
#[derive(Debug, Args)]
pub struct Selection {
    /// Show only this one
    pub name: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// What to show.
#[derive(Debug, Subcommand)]
pub enum Get {
    /// Which domains are active, and whether their replicas are in sync
    #[command(name = "clusterdomainsstatus", visible_alias = "cds")]
    ClusterDomainsStatus(Selection),
    /// Activations and deactivations
    #[command(
        name = "clusterdomainupdate",
        visible_alias = "cdu",
        alias = "clusterdomainupdates"
    )]
    ClusterDomainUpdate(Selection),
    /// Cluster domains one a line, the witness too
    #[command(name = "clusterdomains", visible_alias = "cd", aliases = ["clusterdomain", "domain", "domains"])]
    ClusterDomains(Selection),
    /// Volumes
    #[command(alias = "volume")]
    Volumes(Selection),
    /// Nodes
    #[command(alias = "node")]
    Nodes(Selection),
    /// The links between the data domains: round trips, losses, and what is done about one that is too slow
    #[command(alias = "link")]
    Links(Showing),
    /// Who changed what, when and why
    #[command(alias = "event")]
    Events(Events),
}

/// How to show it.
#[derive(Debug, Args)]
pub struct Showing {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Which events.
#[derive(Debug, Args)]
pub struct Events {
    /// Go on with those that come, one a line, until interrupted
    #[arg(short, long)]
    pub follow: bool,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// How to wait for a change.
#[derive(Debug, Args)]
pub struct Waiting {
    /// Wait until it is done; exit code 1 if it fails or takes longer than --timeout
    #[arg(short, long)]
    pub wait: bool,
    /// How long --wait waits, e.g. 60s or 5m
    #[arg(long, value_parser = duration, default_value = "60s")]
    pub timeout: Duration,
    /// Why, for the audit trail
    #[arg(long, default_value = "")]
    pub reason: String,
}

/// What to activate.
#[derive(Debug, Subcommand)]
pub enum Activate {
    /// Let a cluster domain serve again
    #[command(name = "clusterdomain", visible_alias = "cd", alias = "domain")]
    ClusterDomain {
        /// The cluster domain's name
        name: Option<String>,
        /// Activate all inactive cluster domains
        #[arg(short, long)]
        all: bool,
        /// How to wait.
        #[command(flatten)]
        waiting: Waiting,
    },
}

/// What to deactivate.
#[derive(Debug, Subcommand)]
pub enum Deactivate {
    /// Make a cluster domain serve nothing
    #[command(name = "clusterdomain", visible_alias = "cd", alias = "domain")]
    ClusterDomain {
        /// The cluster domain's name
        name: Option<String>,
        /// Change nothing; say what would happen, and what would be lost
        #[arg(long)]
        dry_run: bool,
        /// Go on even where a volume's only in-sync replica is in this domain: its latest writes may be lost
        #[arg(long)]
        accept_data_loss: bool,
        /// How to wait.
        #[command(flatten)]
        waiting: Waiting,
    },
}

/// What to create.
#[derive(Debug, Subcommand)]
pub enum Create {
    /// A thin volume with a replica in each data domain
    Volume {
        /// 1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit
        name: String,
        /// Its size, e.g. 10GiB, 512MiB or plain bytes
        #[arg(long, value_parser = size::parse)]
        size: u64,
        /// Its logical block size in bytes
        #[arg(long, default_value = "512", value_parser = ["512", "4096"])]
        block_size: String,
        /// What happens when a replica is lost
        #[arg(long, value_enum, default_value_t)]
        on_peer_loss: OnPeerLoss,
        /// What an acknowledged write survives
        #[arg(long, value_enum, default_value_t)]
        durability: Durability,
        /// The domain that goes on when only the link between the sites is cut
        #[arg(long, value_name = "DOMAIN")]
        preferred_domain: Option<String>,
        /// Replicas in each data domain, each on a node of its own
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3), value_name = "1..3")]
        replicas: u8,
    },
}

/// What to add.
#[derive(Debug, Subcommand)]
pub enum Add {
    /// A replica
    Replica {
        /// Of what.
        #[command(subcommand)]
        of: AddReplica,
    },
}

/// Of what a replica is added.
#[derive(Debug, Subcommand)]
pub enum AddReplica {
    /// Of a volume
    Volume {
        /// The volume's name
        name: String,
        /// The node that shall hold it: one with a store, in a data domain
        #[arg(long)]
        node: String,
        /// Wait until it is in sync; exit code 1 if it takes longer than --timeout
        #[arg(short, long)]
        wait: bool,
        /// How long --wait waits, e.g. 60s or 5m
        #[arg(long, value_parser = duration, default_value = "10m")]
        timeout: Duration,
    },
}

/// What to remove.
#[derive(Debug, Subcommand)]
pub enum Remove {
    /// A replica, with all that it holds; another one in its site must be in sync
    Replica {
        /// Of what.
        #[command(subcommand)]
        of: RemoveReplica,
    },
    /// A node that holds no replica any more; stop it first
    Node {
        /// The node's name
        name: String,
    },
}

/// Of what a replica is removed.
#[derive(Debug, Subcommand)]
pub enum RemoveReplica {
    /// Of a volume
    Volume {
        /// The volume's name
        name: String,
        /// The node that shall hold none any more
        #[arg(long)]
        node: String,
    },
}

/// What to expand.
#[derive(Debug, Subcommand)]
pub enum Expand {
    /// A volume
    Volume {
        /// The volume's name
        name: String,
        /// Its size from now on, e.g. 20GiB or plain bytes: not less than now
        #[arg(long, value_parser = size::parse)]
        size: u64,
    },
}

/// What to change.
#[derive(Debug, Subcommand)]
pub enum Set {
    /// A volume's policy
    #[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
    Volume {
        /// The volume's name
        name: String,
        /// What happens when a replica is lost
        #[arg(long, value_enum, group = "change")]
        on_peer_loss: Option<OnPeerLoss>,
        /// What an acknowledged write survives; flush can't be taken back
        #[arg(long, value_enum, group = "change")]
        durability: Option<Durability>,
        /// The domain that goes on when only the link between the sites is cut; none for no such domain
        #[arg(long, value_name = "DOMAIN|none", group = "change")]
        preferred_domain: Option<String>,
    },
}

/// What to move.
#[derive(Debug, Subcommand)]
pub enum Move {
    /// A volume's primary; its clients are sent away and connect at the goal
    Volume {
        /// The volume's name
        name: String,
        /// The cluster domain, or the node, that shall serve it
        #[arg(long)]
        to: String,
        /// Wait until it is served there; exit code 1 if it takes longer than --timeout
        #[arg(short, long)]
        wait: bool,
        /// How long --wait waits, e.g. 60s or 5m
        #[arg(long, value_parser = duration, default_value = "60s")]
        timeout: Duration,
    },
    /// All primaries in a cluster domain, before it is taken down by plan
    #[command(name = "clusterdomain", visible_alias = "cd", alias = "domain")]
    ClusterDomain {
        /// The cluster domain's name
        name: String,
        /// The cluster domain, or the node, that shall serve them; by default wherever an in-sync replica is
        #[arg(long)]
        to: Option<String>,
    },
}

/// What to publish.
#[derive(Debug, Subcommand)]
pub enum Publish {
    /// A volume
    Volume {
        /// The volume's name
        name: String,
        /// The node's name
        #[arg(long)]
        node: String,
        /// It is only read there
        #[arg(long)]
        read_only: bool,
    },
}

/// What to unpublish.
#[derive(Debug, Subcommand)]
pub enum Unpublish {
    /// A volume
    Volume {
        /// The volume's name
        name: String,
        /// The node's name
        #[arg(long)]
        node: String,
    },
}

/// What to report.
#[derive(Debug, Subcommand)]
pub enum Report {
    /// Failovers: the last ones, or the one of this name (see `get clusterdomainupdate`)
    #[command(alias = "failovers")]
    Failover(Selection),
}

/// What happens when a replica is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnPeerLoss {
    /// Go on without it once kvdb agreed
    #[default]
    Degrade,
    /// Hold I/O until it is back or its domain is deactivated
    Suspend,
}

impl OnPeerLoss {
    /// As the API says it.
    pub fn wire(self) -> isthmus_api::OnPeerLoss {
        match self {
            OnPeerLoss::Degrade => isthmus_api::OnPeerLoss::Degrade,
            OnPeerLoss::Suspend => isthmus_api::OnPeerLoss::Suspend,
        }
    }
}

impl Durability {
    /// As the API says it.
    pub fn wire(self) -> isthmus_api::Durability {
        match self {
            Durability::Acknowledged => isthmus_api::Durability::Acknowledged,
            Durability::Flush => isthmus_api::Durability::Flush,
        }
    }
}

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// The loss of power everywhere: it is on stable storage at every site
    #[default]
    Acknowledged,
    /// The loss of power everywhere once it was flushed, and of either site before: like a disk's write cache
    Flush,
}

/// What to describe.
#[derive(Debug, Subcommand)]
pub enum Describe {
    /// A volume, its replicas, and what to do about it
    Volume {
        /// The volume's name
        name: String,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// What to delete.
#[derive(Debug, Subcommand)]
pub enum Delete {
    /// A volume that no client uses, with all its data
    Volume {
        /// The volume's name
        name: String,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(format!("'{text}' is no duration: write e.g. 60s or 5m")),
    };
    let seconds = number
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(scale))
        .filter(|seconds| (1..=86_400).contains(seconds));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| format!("'{text}' is no duration between 1s and 24h"))
}
