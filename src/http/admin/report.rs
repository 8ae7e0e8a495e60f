//! `/admin/admin.json`: the figures of the panel.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::session::{Admin, Anonymous, SIGN_IN, redirect};
use crate::domain::view::{InfoOptions, Report};
use crate::http::answer::{Parts, in_parts};
use crate::http::error::ApiError;
use crate::http::state::AppState;
use crate::hub::{Hub, Look};
use crate::journal::Failure;
use crate::wire::long::LongAnswer;

/// Users in one part of the answer.
const PAGE: usize = 500;

/// Everything that there is.
pub async fn report(
    State(state): State<AppState>,
    headers: HeaderMap,
    admin: Result<Admin, Anonymous>,
) -> Result<Response, ApiError> {
    let Ok(Admin) = admin else { return Ok(redirect(&state, &headers, SIGN_IN)) };
    let hub = state.hub.clone();
    let report = hub.report().await?;
    let answer = LongAnswer::admin(&report, hub.epoch().clone());
    let look = hub.look(InfoOptions::default());
    in_parts(Everything { hub, report, look, answer, next: Next::Channels }).await
}

/// What comes next.
enum Next {
    Channels,
    /// The users from this one on.
    Users(usize),
    Nothing,
}

struct Everything {
    hub: Arc<Hub>,
    report: Report,
    look: Look,
    answer: LongAnswer,
    next: Next,
}

impl Parts for Everything {
    async fn next(&mut self) -> Result<Option<String>, Failure> {
        match self.next {
            Next::Channels => match self.look.channels().await? {
                Some(channels) => self.answer.channels(&channels),
                None => {
                    self.answer.begin_users();
                    self.next = Next::Users(0);
                }
            },
            Next::Users(from) => {
                let page: Vec<_> = self.report.connected.iter().skip(from).take(PAGE).cloned().collect();
                self.answer.connected(&self.hub.connected(&page));
                self.next = Next::Users(from + page.len());
                if page.is_empty() {
                    self.answer.end_admin(&self.report);
                    self.next = Next::Nothing;
                }
            }
            Next::Nothing => return Ok(None),
        }
        Ok(Some(self.answer.take()))
    }
}
