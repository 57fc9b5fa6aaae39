//! What a node tells Prometheus about itself and its replicas.
//!
//! What happens often (clients' requests, journal writes) is counted by the host, in plain integers on its own thread, and copied out a part
//! at a time when somebody asks. What happens rarely (commands for kvdb) goes through the `metrics` facade into one recorder for the process.
//! Each page is made from a recorder of its own, so that what is gone (a deleted volume) is gone from the next page; decision 20 has the why.
//!
//! The page is bounded: so many volumes have series of their own, the others are counted together; and it is made once a second at most,
//! whoever asks.
//!
//! Reading order: [`table`] (every series there is), [`events`], [`sample`] (what is known now), [`page`] (its text), [`listener`].

pub mod events;
pub mod listener;
pub mod page;
pub mod sample;
pub mod table;

#[cfg(test)]
mod tests;

use crate::cluster::OwnState;
use metrics_exporter_prometheus::PrometheusHandle;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// A page serves whoever asks within so long.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// Makes the page.
pub struct Metrics {
    own: Arc<OwnState>,
    events: PrometheusHandle,
    /// Volumes with series of their own.
    volumes_max: usize,
    last: Mutex<Option<(Instant, Arc<str>)>>,
}

impl Metrics {
    /// Of this node.
    pub fn new(own: Arc<OwnState>, events: PrometheusHandle, volumes_max: usize) -> Metrics {
        Metrics {
            own,
            events,
            volumes_max,
            last: Mutex::new(None),
        }
    }

    /// What is known now, in Prometheus's text format.
    pub async fn page(&self) -> Arc<str> {
        // One at a time: who comes meanwhile gets the same page.
        let mut last = self.last.lock().await;
        if let Some((_, page)) = last.as_ref().filter(|(made, _)| made.elapsed() < KEPT_FOR) {
            return Arc::clone(page);
        }
        let sample = sample::take(&self.own, self.volumes_max).await;
        let events = self.events.clone();
        let text =
            tokio::task::spawn_blocking(move || page::text(&sample) + &events.render()).await;
        let page: Arc<str> = text.unwrap_or_default().into();
        *last = Some((Instant::now(), Arc::clone(&page)));
        page
    }
}
