//! Clients that write all the time, one request each, and note when and for how long: what something else costs those who work meanwhile.

use crate::nbd::endpoint::Endpoint;
use crate::random::Random;
use crate::verify;
use anyhow::{Context, anyhow};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
const OPEN_WITHIN: Duration = Duration::from_secs(20);

/// The clients, until they are told to end.
pub struct Foreground {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<anyhow::Result<Vec<Done>>>>,
}

/// One request: when it was sent, and how long it took.
type Done = (Instant, Duration);

/// All requests.
pub struct Times(Vec<Done>);

/// What clients saw in a while.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Requests a second.
    pub per_second: f64,
    /// The median, in microseconds.
    pub median_us: f64,
    /// The 99th percentile, in microseconds.
    pub high_us: f64,
}

impl Foreground {
    /// Starts a client for each of these names of volumes, each a connection, that writes random blocks among the first `blocks`.
    #[must_use]
    pub fn start(endpoint: &Endpoint, volumes: &[String], blocks: u64) -> Foreground {
        let over = Arc::new(AtomicBool::new(false));
        let clients = volumes
            .iter()
            .cloned()
            .enumerate()
            .map(|(number, volume)| {
                let (over, endpoint) = (over.clone(), endpoint.clone());
                thread::spawn(move || {
                    let mut session = verify::open(&endpoint, &volume, OPEN_WITHIN);
                    let mut random = Random::new(number as u64 + 1);
                    let (mut done, mut block) = (Vec::new(), vec![0; BLOCK]);
                    while !over.load(Ordering::Relaxed) {
                        block[..8].copy_from_slice(&random.number().to_le_bytes());
                        let at = random.below(blocks) * BLOCK as u64;
                        let start = Instant::now();
                        session.write(at, &block)?;
                        done.push((start, start.elapsed()));
                    }
                    session.close();
                    Ok(done)
                })
            })
            .collect();
        Foreground { over, clients }
    }

    /// Ends the clients.
    ///
    /// # Errors
    /// One of them had a request failed.
    pub fn end(self) -> anyhow::Result<Times> {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for client in self.clients {
            let done = client.join().map_err(|_| anyhow!("a client panicked"))?;
            all.extend(done.context("a client's write failed")?);
        }
        Ok(Times(all))
    }
}

impl Times {
    /// What clients saw between these two moments.
    ///
    /// # Errors
    /// Nothing was done then.
    pub fn seen(&self, when: &Range<Instant>) -> anyhow::Result<Seen> {
        let within = self.0.iter().filter(|(start, _)| when.contains(start));
        let mut times: Vec<Duration> = within.map(|(_, time)| *time).collect();
        times.sort();
        let place = |part: f64| {
            let index = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
            times.get(index).map(|time| time.as_secs_f64() * 1e6)
        };
        let nothing = "the clients got nothing done in that time";
        Ok(Seen {
            per_second: times.len() as f64 / when.end.duration_since(when.start).as_secs_f64(),
            median_us: place(0.5).context(nothing)?,
            high_us: place(0.99).context(nothing)?,
        })
    }
}
