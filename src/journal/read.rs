//! Reading what memory lacks, between two commits: it then stands exactly at the head.

use std::collections::VecDeque;

use tracing::{debug, warn};

use super::request::{Failure, Pending};
use super::writer::Writer;
use crate::domain::channel::Channel;
use crate::domain::draft::Found;
use crate::domain::names::ChannelName;
use crate::domain::position::Position;
use crate::domain::router::Needs;
use crate::domain::tail::Place;
use crate::lock::Purpose;
use crate::store::StoreError;

/// Most entries of one tail that are read at a time.
const TAIL_ENTRIES: u32 = 1_000;
/// Most bytes of bodies in one tail that are read at a time: no tail has room for more.
const TAIL_BYTES: u32 = 256 << 10;
/// Log entries that are read for tails between two batches, about: what comes waits meanwhile.
const TAILS_STEP: usize = 2_000;

impl Writer {
    /// What requests need and memory does not hold.
    pub(super) fn needs<'a>(&self, requests: impl IntoIterator<Item = &'a Box<dyn Pending>>) -> Needs {
        let mut needs = Needs::default();
        let mut live = self.live.lock(Purpose::Need);
        for request in requests {
            live = self.give_way(live, Purpose::Need);
            request.needs(&live.router, &mut needs);
        }
        live = self.give_way(live, Purpose::Need);
        live.router.retain_missing(&mut needs, self.clock.now());
        needs
    }

    /// Brings into memory what is needed. Nothing is being committed meanwhile, so what is read
    /// stands exactly at the head. If the store cannot be read, the requests that need something
    /// fail.
    pub(super) async fn load(&self, needs: &Needs, requests: &mut VecDeque<Box<dyn Pending>>) -> Found {
        if needs.is_empty() {
            return Found::default();
        }
        let asked = self.health.ask();
        let read = self.read(needs).await;
        drop(asked);
        read.unwrap_or_else(|error| {
            self.health.set_failed(true);
            warn!(%error, "nothing can be read from the store");
            let (able, unable): (VecDeque<_>, VecDeque<_>) =
                requests.drain(..).partition(|request| self.needs([request]).is_empty());
            *requests = able;
            self.fail(unable.into_iter(), Failure::Unavailable);
            Found::default()
        })
    }

    async fn read(&self, needs: &Needs) -> Result<Found, StoreError> {
        let (mut channels, mut users, held, positions) = tokio::try_join!(
            self.store.channels(&needs.channels),
            self.store.users(&needs.users),
            self.store.held(&needs.uuids),
            self.store.positions_at(&needs.times),
        )?;
        let moment = self.clock.now();
        let mut live = self.live.lock(Purpose::Load);
        for name in &needs.channels {
            live = self.give_way(live, Purpose::Load);
            live.router.load_channel(name, channels.remove(name), moment);
        }
        for name in &needs.users {
            live = self.give_way(live, Purpose::Load);
            live.router.load_user(name, users.remove(name), moment);
        }
        Ok(Found { held, positions })
    }

    /// Reads histories anew that may show older messages again after this batch.
    pub(super) async fn reload(&self, names: Vec<ChannelName>) -> Vec<(ChannelName, Channel)> {
        if names.is_empty() {
            return Vec::new();
        }
        match self.store.channels(&names.into_iter().collect()).await {
            Ok(channels) => channels.into_iter().collect(),
            Err(error) => {
                warn!(%error, "a history could not be read again: it is shorter than it could be for now");
                Vec::new()
            }
        }
    }

    /// Lets some tails reach further back that listeners wait for. Nothing is being committed
    /// meanwhile, so that what is read stands exactly at the head.
    pub(super) async fn read_tails(&self) {
        let wanted = self.live.lock(Purpose::Tails).next_tails(TAILS_STEP, TAIL_ENTRIES as usize);
        if wanted.is_empty() {
            return;
        }
        let places: Vec<(Place, Position)> = wanted.iter().map(|one| (one.place.clone(), one.before)).collect();
        let asked = self.health.ask();
        let read = self.store.tails(&places, TAIL_ENTRIES, TAIL_BYTES).await;
        drop(asked);
        let mut live = self.live.lock(Purpose::Tails);
        self.metrics.replay_reads.inc();
        match read {
            Ok(parts) => {
                for ((place, before), part) in places.into_iter().zip(parts) {
                    live.router.extend_tail(&place, before, part);
                }
            }
            // They ask the store themselves, and say so if they cannot.
            Err(error) => debug!(%error, "tails cannot be read from the store"),
        }
    }
}
