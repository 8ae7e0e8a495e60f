//! What people and operators look at: the panel, the API explorer, health.

mod assets;
mod health;
mod metrics;
mod pages;
mod report;
mod session;

pub use assets::asset;
pub use health::{alive, healthz, not_ready, readyz};
pub use metrics::{metrics, standby_metrics};
pub use pages::{explorer, openapi, panel};
pub use report::report;
pub use session::{sign_in, sign_in_page, sign_out};
