//! kvdb's state and copies of it, going on without its majority, and naming the replica that counts.

use crate::arguments::{Format, Kvdb, Recover, Snapshot, Word};
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::output::{self, Colour, coloured};
use crate::{table, timestamp};
use isthmus_api::{
    ApiError, KvdbSnapshot, KvdbStatus, RecoverKvdb, RecoverVolume, Recovery, ReplicaEvidence,
    Status, VolumeList, VolumeRecovery,
};
use serde::Serialize;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use ureq::http::Method;

const POLL_PERIOD: Duration = Duration::from_millis(200);
/// Bytes of a file that can hold a copy of kvdb, at most.
const FILE_BYTES_MAX: u64 = KvdbSnapshot::CATALOG_BYTES_MAX as u64 * 2 + 4096;

/// `kvdb …`.
pub fn kvdb(client: &Client, what: &Kvdb) -> Result<(), Failure> {
    match what {
        Kvdb::Status { output } => status(client, *output),
        Kvdb::Snapshot { what } => match what {
            Snapshot::Save { file } => save(client, file),
            Snapshot::Status { file, output } => file_status(file, *output),
            Snapshot::Restore { file, word } => go_on(client, word, Some(read(file)?)),
        },
        Kvdb::Recover {
            force_new_cluster: _,
            word,
        } => go_on(client, word, None),
    }
}

/// kvdb alone, of all that the cluster's status says.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    kvdb: KvdbStatus,
    confirmed: bool,
}

fn status(client: &Client, format: Format) -> Result<(), Failure> {
    let status: Status = client.get("/v1/status")?;
    let shown = Shown {
        kvdb: status.kvdb,
        confirmed: status.observed.confirmed,
    };
    output::print(format, &shown, |shown| {
        let kvdb = &shown.kvdb;
        let quorum = match (shown.confirmed, kvdb.quorum_margin) {
            (true, Some(margin)) => format!("yes, {margin} more may be lost"),
            _ => coloured("NO: nothing can be committed", Colour::Red),
        };
        let all = |names: &[String]| match names {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        let mut text = format!(
            "Leader:      {}\nVoters:      {} (answering: {})\nMajority:    {quorum}\nMay lose:    {}\nGeneration:  {}\n",
            kvdb.leader.as_deref().unwrap_or("unknown"),
            all(&kvdb.voters),
            all(&kvdb.voters_answering),
            all(&kvdb.tolerates_loss_of),
            kvdb.generation
        );
        if !kvdb.strangers.is_empty() {
            text.push_str(&strangers(kvdb));
        }
        text
    })
}

/// What to do about nodes that went another way.
pub fn strangers(kvdb: &KvdbStatus) -> String {
    format!(
        "{}: {} went on apart from this generation ({}): decide which one counts, and empty the data directories of the others\n",
        coloured("Strangers", Colour::Red),
        kvdb.strangers.join(", "),
        kvdb.generation
    )
}

fn save(client: &Client, file: &Path) -> Result<(), Failure> {
    let snapshot: KvdbSnapshot = client.get("/v1/kvdb/snapshot")?;
    snapshot.bytes().map_err(|why| wrong(file, &why))?;
    if !snapshot.confirmed {
        output::complain(
            "warning: no majority of kvdb's voters confirmed this: it is what one node knew last, and may be old",
        );
    }
    let text =
        serde_json::to_vec(&snapshot).map_err(|error| Failure::Plain(format!("error: {error}")))?;
    let write = || -> std::io::Result<()> {
        let mut out = File::create_new(file)?;
        out.write_all(&text)?;
        out.sync_all()
    };
    write().map_err(|error| {
        Failure::Refused(
            ApiError::new(format!("can't write {}", file.display())).because(error.to_string()),
        )
    })?;
    output::say(&format!(
        "Saved revision {} of kvdb (generation {}, {} volumes) to {}\n",
        snapshot.revision,
        snapshot.generation,
        snapshot.volumes,
        file.display()
    ));
    Ok(())
}

fn read(file: &Path) -> Result<KvdbSnapshot, Failure> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(file)?
            .take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| wrong(file, &error.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(file, "it is longer than any copy of kvdb"));
    }
    let snapshot: KvdbSnapshot = serde_json::from_slice(&bytes).map_err(|error| {
        wrong(
            file,
            &format!("it is no copy of kvdb, or damaged ({error})"),
        )
    })?;
    snapshot.bytes().map_err(|why| wrong(file, &why))?;
    Ok(snapshot)
}

fn wrong(file: &Path, why: &str) -> Failure {
    Failure::Refused(
        ApiError::new(format!("can't use {}", file.display()))
            .because(why)
            .next("take a file that domain-ctl kvdb snapshot save has written"),
    )
}

/// What a file holds, without the copy itself.
#[derive(Serialize)]
struct FileStatus {
    cluster: String,
    cluster_id: String,
    generation: String,
    revision: u64,
    taken_ms: u64,
    nodes: u32,
    volumes: u32,
    confirmed: bool,
    catalog_bytes: usize,
}

fn file_status(file: &Path, format: Format) -> Result<(), Failure> {
    let snapshot = read(file)?;
    let shown = FileStatus {
        catalog_bytes: snapshot.catalog.len() / 2,
        cluster: snapshot.cluster,
        cluster_id: snapshot.cluster_id,
        generation: snapshot.generation,
        revision: snapshot.revision,
        taken_ms: snapshot.taken_ms,
        nodes: snapshot.nodes,
        volumes: snapshot.volumes,
        confirmed: snapshot.confirmed,
    };
    output::print(format, &shown, |shown| {
        let whole = match shown.confirmed {
            true => "yes",
            false => "yes, but no majority had confirmed that it was the newest",
        };
        format!(
            "Cluster:     {} (id {})\nTaken:       {}\nGeneration:  {}\nRevision:    {}\nNodes:       {}\nVolumes:     {}\nBytes:       {}\nWhole:       {whole}\n",
            shown.cluster,
            shown.cluster_id,
            timestamp::to_the_second(shown.taken_ms),
            shown.generation,
            shown.revision,
            shown.nodes,
            shown.volumes,
            shown.catalog_bytes
        )
    })
}

/// Forces a new generation at the first node that can, and waits until it is there.
fn go_on(client: &Client, word: &Word, snapshot: Option<KvdbSnapshot>) -> Result<(), Failure> {
    const PATH: &str = "/v1/kvdb/recover";
    let mut wanted = RecoverKvdb {
        dry_run: true,
        reason: word.reason.clone(),
        snapshot,
        ..RecoverKvdb::default()
    };
    let planned: Recovery = client.change(Method::POST, PATH, Some(&wanted))?;
    output::say(&plan(&planned, wanted.snapshot.is_some()));
    if word.dry_run {
        return Ok(());
    }
    wanted.dry_run = false;
    wanted.others_are_off = word.others_are_off;
    // At that node alone: two that did it would go apart.
    let begun: Recovery = client.change_there(Method::POST, PATH, Some(&wanted))?;
    let generation = begun.generation.unwrap_or_default();
    let since = Instant::now();
    loop {
        if let Ok(status) = client.look::<Status>("/v1/status")
            && status.kvdb.generation == generation
            && status.observed.confirmed
        {
            break;
        }
        if since.elapsed() >= word.timeout {
            return Err(Failure::Refused(
                ApiError::new(format!(
                    "node {} was told to go on in generation {generation}, and has not said that it does",
                    begun.node
                ))
                .next("look at its log; repeat nothing before it is clear that it did not"),
            ));
        }
        std::thread::sleep(POLL_PERIOD);
    }
    output::say(&format!(
        "Node {} goes on in generation {generation}\nNext: domain-ctl recover volume NAME shows what the replicas of a volume hold, --from NODE names the one that counts\n",
        begun.node
    ));
    Ok(())
}

fn plan(planned: &Recovery, from_file: bool) -> String {
    let all = |names: &[String]| match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    };
    format!(
        "Survivor:    {} in {}\nBegins with: revision {} {}\nVolumes:     {}, none served before a replica is named for it\nFollow now:  {}\nMust be off: {}\n",
        planned.node,
        planned.domain,
        planned.revision,
        match from_file {
            true => "of the file",
            false => "of kvdb, as this node holds it",
        },
        planned.volumes,
        all(&planned.answering),
        all(&planned.silent)
    )
}

/// `recover volume …`.
pub fn recover(client: &Client, what: &Recover) -> Result<(), Failure> {
    let Recover::Volume {
        name,
        all: _,
        from,
        accept_data_loss,
        reason,
        output,
    } = what;
    let wanted = RecoverVolume {
        from: from.clone(),
        accept_data_loss: *accept_data_loss,
        reason: reason.clone(),
    };
    match name {
        Some(name) => {
            let answer = recover_one(client, name, &wanted)?;
            output::print(*output, &answer, text)
        }
        None => recover_all(client, &wanted, *output),
    }
}

fn recover_one(
    client: &Client,
    name: &str,
    wanted: &RecoverVolume,
) -> Result<VolumeRecovery, Failure> {
    let path = format!("/v1/volumes/{}/recover", segment(name));
    client.change(Method::POST, &path, Some(wanted))
}

/// Every volume for which no replica was named yet; goes on where one is refused, and says so at the end.
fn recover_all(client: &Client, wanted: &RecoverVolume, format: Format) -> Result<(), Failure> {
    let volumes: VolumeList = client.get("/v1/volumes")?;
    let (mut answers, mut refused) = (Vec::new(), Vec::new());
    for volume in &volumes.items {
        let shown = recover_one(client, &volume.name, &RecoverVolume::default())?;
        if !shown.unproven {
            continue;
        }
        match recover_one(client, &volume.name, wanted) {
            Ok(answer) => answers.push(answer),
            Err(Failure::Refused(error)) => refused.push(format!("{}: {error}", volume.name)),
            Err(error) => return Err(error),
        }
    }
    output::print(format, &answers, |answers| {
        let texts: Vec<String> = answers.iter().map(text).collect();
        texts.concat()
    })?;
    match refused.as_slice() {
        [] => Ok(()),
        refused => Err(Failure::Refused(
            ApiError::new(format!("{} volumes were left as they are", refused.len()))
                .because(refused.join("; ")),
        )),
    }
}

fn text(answer: &VolumeRecovery) -> String {
    if let Some(node) = &answer.named {
        return format!(
            "Volume {}: the replica on {node} counts; the others are copied over\n",
            answer.volume
        );
    }
    let mut text = match answer.unproven {
        true => format!(
            "Volume {}: nobody has said which replica counts in this generation\n",
            answer.volume
        ),
        false => format!(
            "Volume {}: its in-sync set counts; there is nothing to say\n",
            answer.volume
        ),
    };
    let rows: Vec<Vec<String>> = answer.replicas.iter().map(row).collect();
    text.push_str(&table::render(
        &[
            "NODE",
            "DOMAIN",
            "LAST SET",
            "WHOLE",
            "EPOCH",
            "LAST",
            "COMMITTED",
            "HEARD",
            "REASON",
        ],
        &rows,
    ));
    text
}

fn row(replica: &ReplicaEvidence) -> Vec<String> {
    let yes = |is_so: bool| if is_so { "yes" } else { "no" }.to_owned();
    let number = |seq: Option<u64>| seq.map_or_else(|| "?".to_owned(), |seq| seq.to_string());
    vec![
        replica.node.clone(),
        replica.domain.clone(),
        yes(replica.was_in_sync),
        replica.whole.map_or_else(|| "?".to_owned(), yes),
        match replica.epoch.as_str() {
            "" => "?".to_owned(),
            epoch => epoch.to_owned(),
        },
        number(replica.last_seq),
        number(replica.committed_seq),
        match (replica.answers, replica.heard_at_ms) {
            (true, _) => "now".to_owned(),
            (false, Some(ms)) => timestamp::to_the_second(ms),
            (false, None) => "never".to_owned(),
        },
        replica.reason.clone(),
    ]
}
