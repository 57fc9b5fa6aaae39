//! kvdb against etcd, three members each on this machine and disk: puts a second with 1, 16 and 64 clients, and how long a put takes at most
//! when the leader is killed (`kill -9`) while it is under way. Prints tables in Markdown. Without etcd (Debian: `etcd-server
//! etcd-client`), kvdb alone.
//!
//! `bench-kvdb [SECONDS [REPETITIONS]]`: how long each number of clients puts (4), and how often all is done, in turn (3).

use anyhow::Context;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tests::bench::kvdb_member::{self, Role};
use tests::bench::kvdb_rivals::{Api, EtcdGroup, Figures, KvdbGroup};

const CLIENTS: [usize; 3] = [1, 16, 64];
/// Heartbeat and election time-out in ms: as both are by default, and shorter.
const TIMINGS: [(u64, u64); 3] = [(100, 1000), (100, 500), (20, 100)];
const KILL_TIME: Duration = Duration::from_secs(12);

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [member, number, folder, port, heartbeat, election] = &words[..]
        && member == "member"
    {
        return kvdb_member::live(Role {
            number: number.parse()?,
            folder: Path::new(folder),
            port: port.parse()?,
            heartbeat: Duration::from_millis(heartbeat.parse()?),
            election: Duration::from_millis(election.parse()?),
        });
    }
    let number = |index: usize, usual: u64| match words.get(index) {
        None => Ok(usual),
        Some(word) => word
            .parse()
            .ok()
            .filter(|number| *number > 0)
            .with_context(|| format!("{word} is no count")),
    };
    let (time, repetitions) = (Duration::from_secs(number(0, 4)?), number(1, 3)?);
    let has_etcd = ["etcd", "etcdctl"].into_iter().all(installed);
    if !has_etcd {
        eprintln!("etcd is not installed (Debian: etcd-server etcd-client): kvdb alone");
    }
    rates(time, repetitions, has_etcd)?;
    println!();
    deaths(repetitions, has_etcd)
}

/// One kind of client.
struct Column {
    name: &'static str,
    /// By number of clients; a figure a repetition.
    runs: [Vec<Figures>; 3],
}

fn rates(time: Duration, repetitions: u64, has_etcd: bool) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    kvdb_member::prepare(folder.path())?;
    let (heartbeat, election) = timing(TIMINGS[1]);
    let mut kvdb = KvdbGroup::start(folder.path(), heartbeat, election)?;
    let etcd = has_etcd
        .then(|| EtcdGroup::start(folder.path(), heartbeat, election))
        .transpose()?;
    let mut names = vec![
        "kvdb, clients in the leader",
        "kvdb, clients in another member",
    ];
    if has_etcd {
        names.extend([
            "etcd v3, clients of the leader",
            "etcd v2, clients of the leader",
        ]);
    }
    let mut columns: Vec<Column> = names
        .into_iter()
        .map(|name| Column {
            name,
            runs: Default::default(),
        })
        .collect();
    for repetition in 1..=repetitions {
        for (index, clients) in CLIENTS.into_iter().enumerate() {
            eprintln!("{clients} clients, {repetition} of {repetitions}");
            let (leader, other) = kvdb.leader()?;
            columns[0].runs[index].push(kvdb.put(leader, clients, time)?);
            columns[1].runs[index].push(kvdb.put(other, clients, time)?);
            if let Some(etcd) = &etcd {
                let (leader, _) = etcd.leader()?;
                columns[2].runs[index].push(etcd.put(leader, Api::V3, clients, time)?);
                columns[3].runs[index].push(etcd.put(leader, Api::V2, clients, time)?);
            }
        }
    }
    println!(
        "| puts | 1 client: puts/s | p50 µs | p99 µs | 16: puts/s | p50 µs | p99 µs | 64: puts/s | p50 µs | p99 µs |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for Column { name, runs } in &columns {
        print!("| {name} |");
        for runs in runs {
            print!(
                " {:.0} | {:.0} | {:.0} |",
                median(runs, |figures| figures.count) / time.as_secs_f64(),
                median(runs, |figures| figures.median_us),
                median(runs, |figures| figures.high_us)
            );
        }
        println!();
    }
    Ok(())
}

fn deaths(repetitions: u64, has_etcd: bool) -> anyhow::Result<()> {
    println!(
        "| heartbeat, election ms | kvdb: longest put, ms | of runs | etcd: longest put, ms | of runs |"
    );
    println!("| --- | ---: | --- | ---: | --- |");
    for setting in TIMINGS {
        let (heartbeat, election) = timing(setting);
        let (mut kvdb, mut etcd) = (Vec::new(), Vec::new());
        for repetition in 1..=repetitions {
            eprintln!("the leader dies, heartbeat {heartbeat:?}: {repetition} of {repetitions}");
            let folder = tempfile::tempdir()?;
            kvdb_member::prepare(folder.path())?;
            let mut group = KvdbGroup::start(folder.path(), heartbeat, election)?;
            kvdb.push(group.put_while_the_leader_dies(KILL_TIME)?);
            drop(group);
            if has_etcd {
                let mut group = EtcdGroup::start(folder.path(), heartbeat, election)?;
                etcd.push(group.put_while_the_leader_dies(KILL_TIME)?);
            }
        }
        let each = |runs: &[Figures]| {
            let all: Vec<String> = runs
                .iter()
                .map(|run| format!("{:.0}", run.longest_us / 1000.0))
                .collect();
            all.join(" ")
        };
        let longest = |runs: &[Figures]| {
            if runs.is_empty() {
                String::new()
            } else {
                format!("{:.0}", median(runs, |run| run.longest_us) / 1000.0)
            }
        };
        println!(
            "| {}, {} | {} | {} | {} | {} |",
            setting.0,
            setting.1,
            longest(&kvdb),
            each(&kvdb),
            longest(&etcd),
            each(&etcd)
        );
    }
    Ok(())
}

fn timing((heartbeat, election): (u64, u64)) -> (Duration, Duration) {
    (
        Duration::from_millis(heartbeat),
        Duration::from_millis(election),
    )
}

fn median(runs: &[Figures], figure: impl Fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(figure).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder: PathBuf| folder.join(program))
        .any(|file| file.exists())
}
