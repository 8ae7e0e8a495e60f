//! `/info`

use axum::extract::State;
use axum::response::Response;

use crate::http::answer::{Parts, in_parts};
use crate::http::body::RawBody;
use crate::http::error::ApiError;
use crate::http::state::AppState;
use crate::hub::Look;
use crate::journal::Failure;
use crate::wire::long::LongAnswer;
use crate::wire::request;

/// Tells about channels and who is in them.
pub async fn info(State(state): State<AppState>, RawBody(body): RawBody) -> Result<Response, ApiError> {
    let look = state.hub.look(request::info(&body)?);
    in_parts(Info { look, answer: LongAnswer::info(state.hub.epoch().clone()), next: Next::Channels }).await
}

/// What comes next.
enum Next {
    Channels,
    Users,
    Nothing,
}

struct Info {
    look: Look,
    answer: LongAnswer,
    next: Next,
}

impl Parts for Info {
    async fn next(&mut self) -> Result<Option<String>, Failure> {
        match self.next {
            Next::Channels => match self.look.channels().await? {
                Some(channels) => self.answer.channels(&channels),
                None => {
                    self.answer.begin_users();
                    self.next = Next::Users;
                }
            },
            Next::Users => match self.look.people() {
                Some(people) => self.answer.people(&people, self.look.options().return_public_state),
                None => {
                    self.answer.end();
                    self.next = Next::Nothing;
                }
            },
            Next::Nothing => return Ok(None),
        }
        Ok(Some(self.answer.take()))
    }
}
