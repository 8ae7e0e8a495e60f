//! Committing, and finding out what became of a commit that failed or is unclear.

use std::time::Duration;

use tracing::{error, info, warn};

use super::request::Failure;
use super::writer::{Lost, Writer};
use crate::store::{Batch, StoreError};

/// Pauses between attempts to settle an unclear commit: the first, and the longest.
const SETTLE_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

impl Writer {
    /// Commits, and finds out what happened if that is not clear: the journal stands still until
    /// it knows, so that nothing can overtake the batch. There is no time limit: whoever waits has
    /// one of its own, and giving up on a commit would only make it unclear.
    pub(super) async fn commit(&self, batch: &Batch) -> Result<Result<(), Failure>, Lost> {
        let asked = self.health.ask();
        let committed = self.store.commit(batch).await;
        drop(asked);
        let count = |outcome| self.metrics.commits.of(outcome).inc();
        match committed {
            Ok(()) => {
                count("kept");
                self.health.set_failed(false);
                return Ok(Ok(()));
            }
            Err(StoreError::Refused(error)) => {
                count("refused");
                error!(%error, "the store refuses a batch");
                return Ok(Err(Failure::Rejected));
            }
            Err(StoreError::NotOurs) => return Err(Lost),
            Err(error) => error!(%error, "a commit failed or is unclear"),
        }
        count("unclear");
        self.health.set_failed(true);
        let mut pause = SETTLE_PAUSE.0;
        loop {
            match self.store.settle(batch.id).await {
                Ok(committed) => {
                    info!(committed, "the commit is settled");
                    self.metrics.settles.of(if committed { "kept" } else { "not_kept" }).inc();
                    self.health.set_failed(false);
                    return Ok(if committed { Ok(()) } else { Err(Failure::Unavailable) });
                }
                Err(StoreError::NotOurs) => return Err(Lost),
                Err(error) => {
                    warn!(%error, "the store is still unavailable");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(SETTLE_PAUSE.1);
                }
            }
        }
    }

    /// Notices that the store is gone, or back, when nothing is asked of it.
    pub(super) async fn check(&self) -> Result<(), Lost> {
        let asked = self.health.ask();
        let checked = self.store.check().await;
        drop(asked);
        match checked {
            Ok(()) if self.health.has_failed() => {
                info!("the store is available again");
                self.health.set_failed(false);
            }
            Ok(()) => {}
            Err(StoreError::NotOurs) => return Err(Lost),
            Err(error) => {
                warn!(%error, "the store is unavailable");
                self.health.set_failed(true);
            }
        }
        Ok(())
    }
}
