//! News of the catalog.

use isthmus_catalog::Catalog;
use std::sync::Arc;

use crate::error::KvdbError;
use crate::runtime::{Runtime, Tokio, WatchReceiver as _, WatchReceiverOf};

/// Shows each new state of the applied catalog; states that come fast may be skipped, the last one never is.
pub struct CatalogWatch<R: Runtime = Tokio>(pub(crate) WatchReceiverOf<R, Arc<Catalog>>);

impl<R: Runtime> CatalogWatch<R> {
    /// The newest state, which counts as seen now.
    pub fn newest(&mut self) -> Arc<Catalog> {
        self.0.borrow_and_update().clone()
    }

    /// Returns once there is a state that was not seen yet.
    ///
    /// # Errors
    /// `Stopped`, when there will be none.
    pub async fn changed(&mut self) -> Result<(), KvdbError> {
        let stopped = |_| KvdbError::Stopped("it was told to".to_owned());
        self.0.changed().await.map_err(stopped)
    }
}
