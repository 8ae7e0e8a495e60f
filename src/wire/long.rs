//! Long answers, written part by part: `/info` and `/admin/admin.json` list all that there is.

use serde::Serialize;
use uuid::Uuid;

use super::reply::{ChannelReply, UserReply};
use crate::domain::names::{ConnectionId, Username};
use crate::domain::position::Epoch;
use crate::domain::state::Profile;
use crate::domain::view::{ChannelView, ConnectedUser, Report};
use crate::json::{Json, PublicState, to_text};

/// An answer that is being written: an object with an object of channels and a list of users.
pub struct LongAnswer {
    epoch: Epoch,
    text: String,
    /// Whether the object or list that is being written has no elements yet.
    is_empty: bool,
}

impl LongAnswer {
    /// An answer to `/info` begins.
    pub fn info(epoch: Epoch) -> Self {
        Self { epoch, text: r#"{"channels":{"#.to_owned(), is_empty: true }
    }

    /// The answer of `/admin/admin.json` begins.
    pub fn admin(report: &Report, epoch: Epoch) -> Self {
        let mut text = to_text(&AdminReply {
            remembered_user_count: report.users,
            unique_user_count: report.connected.len(),
            total_connections: report.connections,
            total_channels: report.channels,
            total_messages: report.totals.delivered,
            total_unique_messages: report.totals.posted,
        });
        // The object goes on.
        text.pop();
        text.push_str(r#","channels":{"#);
        Self { epoch, text, is_empty: true }
    }

    /// More channels.
    pub fn channels(&mut self, channels: &[ChannelView]) {
        for channel in channels {
            self.separate();
            self.text.push_str(&to_text(&channel.name.as_str()));
            self.text.push(':');
            self.text.push_str(&to_text(&ChannelReply::of(channel, &self.epoch)));
        }
    }

    /// There are no more channels: users come.
    pub fn begin_users(&mut self) {
        self.text.push_str(r#"},"users":["#);
        self.is_empty = true;
    }

    /// More users, for `/info`.
    pub fn people(&mut self, people: &[(Username, Profile)], public_state_only: bool) {
        for person in people {
            self.separate();
            self.text.push_str(&to_text(&UserReply::of(person, public_state_only)));
        }
    }

    /// More users, for the panel.
    pub fn connected(&mut self, users: &[ConnectedUser]) {
        for user in users {
            self.separate();
            self.text.push_str(&to_text(&ConnectedUserReply {
                state: PublicState(&user.profile),
                user: Json(&user.name),
                uuid: user.uuid,
                connections: Json(&user.connections),
            }));
        }
    }

    /// The end of an answer to `/info`.
    pub fn end(&mut self) {
        self.text.push_str("]}");
    }

    /// The end of the answer of `/admin/admin.json`.
    pub fn end_admin(&mut self, report: &Report) {
        let rest = to_text(&AdminEnd { uptime: uptime(report.uptime.as_secs()), version: env!("CARGO_PKG_VERSION") });
        self.text.push_str("],");
        self.text.push_str(&rest[1..]);
    }

    /// What was written since this was asked for.
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    fn separate(&mut self) {
        if !std::mem::take(&mut self.is_empty) {
            self.text.push(',');
        }
    }
}

#[derive(Serialize)]
struct ConnectedUserReply<'a> {
    state: PublicState<'a>,
    user: Json<'a, Username>,
    uuid: Uuid,
    connections: Json<'a, [ConnectionId]>,
}

#[derive(Serialize)]
struct AdminReply {
    remembered_user_count: u64,
    unique_user_count: usize,
    total_connections: usize,
    total_channels: u64,
    total_messages: u64,
    total_unique_messages: u64,
}

#[derive(Serialize)]
struct AdminEnd {
    uptime: String,
    version: &'static str,
}

/// `[D day(s), ]H:MM:SS`
fn uptime(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    match days {
        0 => clock,
        1 => format!("1 day, {clock}"),
        days => format!("{days} days, {clock}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_reads_like_a_clock() {
        assert_eq!([uptime(3), uptime(90_061), uptime(172_800)], ["0:00:03", "1 day, 1:01:01", "2 days, 0:00:00"]);
    }
}
