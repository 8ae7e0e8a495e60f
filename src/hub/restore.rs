//! Bringing the connections that were alive at the stop back into memory, with all they refer to.

use hashbrown::HashSet;

use crate::clock::Clock;
use crate::domain::names::{ChannelName, Username};
use crate::domain::router::Router;
use crate::store::{Store, StoreError};

/// Connections restored in one go.
const PAGE: usize = 500;

/// Reads all connections from the store.
///
/// # Errors
/// If it cannot be read.
pub async fn restore(router: &mut Router, store: &dyn Store, clock: &Clock) -> Result<(), StoreError> {
    let connections = store.connections().await?;
    for page in connections.chunks(PAGE) {
        let users: HashSet<Username> =
            page.iter().map(|connection| connection.user.clone()).filter(|user| !router.knows_user(user)).collect();
        let channels: HashSet<ChannelName> = page
            .iter()
            .flat_map(|connection| connection.channels.iter().cloned())
            .filter(|channel| !router.knows_channel(channel))
            .collect();
        let (mut stored_users, mut stored_channels) = tokio::try_join!(store.users(&users), store.channels(&channels))?;
        let moment = clock.now();
        for name in &users {
            router.load_user(name, stored_users.remove(name), moment);
        }
        for name in &channels {
            router.load_channel(name, stored_channels.remove(name), moment);
        }
        for connection in page {
            router.restore(connection.id, &connection.user, &connection.channels, moment);
        }
    }
    Ok(())
}
