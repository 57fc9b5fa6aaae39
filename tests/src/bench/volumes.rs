//! Many volumes at once: made, opened and written by several clients side by side.

use crate::bench::http;
use crate::cluster::{Cluster, Node};
use crate::nbd::Session;
use crate::nbd::endpoint::Endpoint;
use crate::patience;
use anyhow::{Context, anyhow};
use isthmus_api::{CreateVolume, Durability, OnPeerLoss, VolumeCreated};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Clients that make or open volumes side by side.
const HANDS: usize = 8;
/// Volumes after which progress is shown.
const SHOWN_EVERY: usize = 250;
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// How often a volume's making is tried.
const TRIES: usize = 5;
const PAUSE: Duration = Duration::from_millis(10);

/// The name of the volume with this number.
#[must_use]
pub fn name(number: usize) -> String {
    format!("v{number}")
}

/// Makes volumes with these numbers, of so many bytes each, thin.
///
/// # Errors
/// One is refused.
pub fn make(cluster: &Cluster, numbers: std::ops::Range<usize>, bytes: u64) -> anyhow::Result<()> {
    let at = cluster.addresses(Node::A1).api();
    in_parallel("volumes made", numbers, |number| {
        let volume = CreateVolume {
            name: name(number),
            bytes,
            block_bytes: 4096,
            on_peer_loss: OnPeerLoss::default(),
            durability: Durability::default(),
            preferred_domain: None,
            replicas_per_domain: 1,
        };
        // A new volume's files hold a node's data thread up, and many of them its votes: then kvdb says so, and is asked again.
        for tried in 1.. {
            let made = http::post::<VolumeCreated>(at, "/v1/volumes", &volume);
            let why = made
                .as_ref()
                .err()
                .map(ToString::to_string)
                .unwrap_or_default();
            match made {
                Err(_) if tried > 1 && why.contains(" 409 ") => break,
                Err(_) if tried < TRIES && why.contains(" 503 ") => {}
                Err(error) => return Err(error),
                Ok(_) => break,
            }
        }
        Ok(())
    })
    .map(drop)
}

/// Opens the volumes with these numbers at a node; one session each, in order.
///
/// # Errors
/// One can't be opened.
pub fn open(endpoint: &Endpoint, numbers: std::ops::Range<usize>) -> anyhow::Result<Vec<Session>> {
    in_parallel("volumes opened", numbers, |number| {
        open_one(endpoint, &name(number), Instant::now() + OPEN_WITHIN)
    })
}

/// Opens a volume, again and again while it is refused.
///
/// # Errors
/// It is still refused at the deadline.
pub fn open_one(endpoint: &Endpoint, name: &str, deadline: Instant) -> anyhow::Result<Session> {
    loop {
        match Session::open(endpoint, name) {
            Ok(session) => return Ok(session),
            Err(error) if Instant::now() >= deadline => {
                return Err(anyhow!(error)).with_context(|| format!("{name} can't be opened"));
            }
            // As a client does that connects again.
            Err(_) => patience::pass(PAUSE),
        }
    }
}

/// Does `act` for each number, several at a time; the results in the order of the numbers.
fn in_parallel<T: Send>(
    what: &str,
    numbers: std::ops::Range<usize>,
    act: impl Fn(usize) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    let (next, end, all) = (AtomicUsize::new(numbers.start), numbers.end, numbers.len());
    let (next, act) = (&next, &act);
    let hand = move || -> anyhow::Result<Vec<(usize, T)>> {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= end {
                return Ok(done);
            }
            done.push((number, act(number)?));
            let count = all.saturating_sub(end - number - 1);
            if count % SHOWN_EVERY == 0 {
                eprintln!("{what}: {count} of {all}");
            }
        }
    };
    let results: Vec<anyhow::Result<Vec<(usize, T)>>> = thread::scope(|scope| {
        let hands: Vec<_> = (0..HANDS.min(all.max(1)))
            .map(|_| scope.spawn(hand))
            .collect();
        let joined = hands.into_iter().map(|hand| hand.join());
        joined
            .map(|result| result.unwrap_or_else(|_| Err(anyhow!("a client panicked"))))
            .collect()
    });
    let mut done = Vec::with_capacity(all);
    for result in results {
        done.extend(result?);
    }
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, value)| value).collect())
}
