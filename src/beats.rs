//! Who gets a heartbeat when: all who listen, in parts, one part after the other. Whoever begins to listen
//! joins the part whose turn it was last, so that the first heartbeat comes a whole interval later.

use std::sync::{Arc, Weak};

use crate::domain::names::ListenerId;
use crate::mailbox::Mailbox;

/// See the module.
#[derive(Debug)]
pub struct Beats {
    /// At least one. Who listens no more is dropped when their part has its turn.
    parts: Vec<Vec<(ListenerId, Weak<Mailbox>)>>,
    /// Whose turn it was last.
    last: usize,
}

impl Default for Beats {
    fn default() -> Self {
        Self { parts: vec![Vec::new()], last: 0 }
    }
}

impl Beats {
    /// Someone begins to listen.
    pub fn join(&mut self, listener: ListenerId, mailbox: &Arc<Mailbox>) {
        self.parts[self.last].push((listener, Arc::downgrade(mailbox)));
    }

    /// It is the turn of one of so many parts: who is in it, as far as `listens` says that they still do.
    pub fn turn(
        &mut self,
        part: usize,
        of: usize,
        listens: impl Fn(ListenerId, &Weak<Mailbox>) -> bool,
    ) -> Vec<ListenerId> {
        if self.parts.len() != of {
            let all = std::mem::take(&mut self.parts).into_iter().flatten().collect();
            self.parts = vec![Vec::new(); of.max(1)];
            self.parts[0] = all;
        }
        self.last = part % self.parts.len();
        let present = &mut self.parts[self.last];
        present.retain(|(listener, mailbox)| listens(*listener, mailbox));
        present.iter().map(|(listener, _)| *listener).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::frame::Tick;

    #[test]
    fn everybody_has_a_turn_once_a_round_beginning_a_round_later() {
        let mailbox = Arc::new(Mailbox::new(Tick(0)));
        let mut beats = Beats::default();
        let mut heard = Vec::new();
        for step in 0..9 {
            heard.push(beats.turn(step % 3, 3, |listener, _| listener != ListenerId(2) || step < 6).len());
            if (1..3).contains(&step) {
                beats.join(ListenerId(step as u32), &mailbox);
            }
        }
        assert_eq!(heard, [0, 0, 0, 0, 1, 1, 0, 1, 0]);
        assert_eq!(beats.turn(0, 1, |_, _| true), [ListenerId(1)], "who was dropped does not come back");
    }
}
