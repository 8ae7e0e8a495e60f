//! A channel's settings and how requests change them.

/// Largest history or replay that a channel keeps; larger sizes are accepted and cut.
pub const MAX_HISTORY: u32 = 100_000;

/// What a channel does with what is said in it. Defaults are the stock server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelSettings {
    /// Tell the members who comes and goes.
    pub notify_presence: bool,
    /// Log messages, so that they survive a restart and can be listed and replayed.
    pub store_history: bool,
    /// Newest messages shown as history; 0 stores nothing.
    pub history_size: u32,
    /// List all members in every presence frame.
    pub broadcast_presence_with_user_lists: bool,
    /// Tell the members when the state of one of them changes.
    pub notify_state: bool,
    /// Keep recent frames for listeners that come back.
    pub store_frames: bool,
    /// Messages kept in the log, where more than `history_size`.
    pub replay_size: u32,
    /// Seconds after which a message leaves history and log, by commit time.
    pub history_ttl: Option<u32>,
}

impl Default for ChannelSettings {
    fn default() -> Self {
        Self {
            notify_presence: false,
            store_history: false,
            history_size: 10,
            broadcast_presence_with_user_lists: false,
            notify_state: false,
            store_frames: true,
            replay_size: 100,
            history_ttl: None,
        }
    }
}

impl ChannelSettings {
    /// Whether messages said now are logged.
    pub fn logs(&self) -> bool {
        self.store_history && self.history_size > 0
    }

    /// What was committed at or before this time is past its time at `now` (microseconds since
    /// 1970).
    pub fn over_by(&self, now: i64) -> i64 {
        self.history_ttl.map_or(i64::MIN, |seconds| now - i64::from(seconds) * 1_000_000)
    }

    /// How many messages the log keeps.
    pub fn kept(&self) -> u32 {
        self.history_size.max(self.replay_size)
    }
}

/// The settings that a request named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettingsPatch {
    /// See [`ChannelSettings::notify_presence`].
    pub notify_presence: Option<bool>,
    /// See [`ChannelSettings::store_history`].
    pub store_history: Option<bool>,
    /// See [`ChannelSettings::history_size`].
    pub history_size: Option<u32>,
    /// See [`ChannelSettings::broadcast_presence_with_user_lists`].
    pub broadcast_presence_with_user_lists: Option<bool>,
    /// See [`ChannelSettings::notify_state`].
    pub notify_state: Option<bool>,
    /// See [`ChannelSettings::store_frames`].
    pub store_frames: Option<bool>,
    /// See [`ChannelSettings::replay_size`].
    pub replay_size: Option<u32>,
    /// See [`ChannelSettings::history_ttl`]; `Some(None)` takes the limit away.
    pub history_ttl: Option<Option<u32>>,
}

impl SettingsPatch {
    /// The settings after this request: stock keys that were not named go back to their
    /// defaults, ours stay as they are.
    pub fn applied_to(&self, current: &ChannelSettings) -> ChannelSettings {
        let default = ChannelSettings::default();
        ChannelSettings {
            notify_presence: self.notify_presence.unwrap_or(default.notify_presence),
            store_history: self.store_history.unwrap_or(default.store_history),
            history_size: self.history_size.unwrap_or(default.history_size).min(MAX_HISTORY),
            broadcast_presence_with_user_lists: self
                .broadcast_presence_with_user_lists
                .unwrap_or(default.broadcast_presence_with_user_lists),
            notify_state: self.notify_state.unwrap_or(default.notify_state),
            store_frames: self.store_frames.unwrap_or(default.store_frames),
            replay_size: self.replay_size.unwrap_or(current.replay_size).min(MAX_HISTORY),
            history_ttl: self.history_ttl.unwrap_or(current.history_ttl),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stock_keys_reset_and_ours_stay() {
        let first = SettingsPatch {
            notify_state: Some(true),
            history_size: Some(u32::MAX),
            replay_size: Some(7),
            history_ttl: Some(Some(60)),
            ..SettingsPatch::default()
        }
        .applied_to(&ChannelSettings::default());
        assert_eq!((first.history_size, first.replay_size, first.history_ttl), (MAX_HISTORY, 7, Some(60)));
        let second = SettingsPatch { history_ttl: Some(None), ..SettingsPatch::default() }.applied_to(&first);
        assert_eq!(second, ChannelSettings { replay_size: 7, ..ChannelSettings::default() });
    }
}
