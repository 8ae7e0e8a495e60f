//! Operations: what back ends ask for. Each says what it needs in memory, decides its events, and
//! tells its outcome once they are applied.

mod change_state;
mod configure;
mod connect;
mod delete;
mod edit;
mod forget;
mod post;
mod subscribe;
mod sweep;
mod unsubscribe;

use super::draft::{Draft, Undecided};
use super::router::{Needs, Router};
use super::timestamp::Moment;

pub use change_state::{ChangeState, StateReport};
pub use configure::Configure;
pub use connect::{Connect, Connected};
pub use delete::{Delete, DeleteOne};
pub use edit::{EditMessages, Receipt};
pub use forget::ForgetIdleUsers;
pub use post::{Post, PostOne, Posted};
pub use subscribe::{Subscribe, Subscribed};
pub use sweep::Sweep;
pub use unsubscribe::{Unsubscribe, Unsubscribed};

/// One request that changes something: all of it happens, or nothing.
pub trait Operation: Send + 'static {
    /// What the back end is told.
    type Outcome: Send + 'static;

    /// Adds what must be in memory before this can be decided.
    fn needs(&self, router: &Router, needs: &mut Needs);

    /// Adds the events that this leads to, as things stand in `router`. May be asked again after
    /// [`Undecided::Later`].
    fn decide(&mut self, router: &Router, draft: &mut Draft) -> Result<(), Undecided>;

    /// What came of it, right after its events were applied.
    fn outcome(self, router: &Router, moment: Moment) -> Self::Outcome;
}
