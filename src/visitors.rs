//! Visitors: a few tasks that write to all the websockets whose tasks sleep. Whoever has mail waits in one
//! line, so that nobody is visited twice before everybody was visited once, and what comes meanwhile is
//! written at the same visit.

use std::collections::VecDeque;
use std::future::ready;
use std::sync::Arc;
use std::thread::available_parallelism;

use parking_lot::Mutex;

use crate::mailbox::Visit;

/// Visits after which others get their turn.
const VISITS_IN_A_ROW: usize = 32;
/// So many may wait for each visitor before there is another one: sockets that one thread writes to are
/// cheaper than the same on two.
const PER_VISITOR: usize = 1_024;

/// See the module.
#[derive(Debug)]
pub struct Visitors {
    line: Mutex<Line>,
    /// Most visitors at a time.
    most: usize,
}

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Visit>,
    /// Visitors that are at work.
    at_work: usize,
}

impl Visitors {
    /// As many as the machine can run at the same time.
    pub fn new() -> Arc<Self> {
        let most = available_parallelism().map_or(1, usize::from);
        Arc::new(Self { line: Mutex::default(), most })
    }

    /// All these are to be visited; nobody waits until that is done.
    pub fn visit(self: &Arc<Self>, visits: Vec<Visit>) {
        let mut line = self.line.lock();
        line.waiting.extend(visits);
        while line.at_work < self.most && line.waiting.len() > line.at_work * PER_VISITOR {
            line.at_work += 1;
            tokio::spawn(self.clone().work());
            // What a task spawns last waits for that task to pause, and no idle thread takes it: that
            // had better not be the visitor.
            tokio::spawn(ready(()));
        }
    }

    /// Visits all who wait.
    async fn work(self: Arc<Self>) {
        let (mut visits, mut again) = (Vec::with_capacity(VISITS_IN_A_ROW), Vec::new());
        while self.next(&mut visits, &mut again) {
            again.extend(visits.drain(..).filter_map(Visit::write));
            tokio::task::yield_now().await;
        }
    }

    /// Lets those wait in line who have mail `again`, and takes the next few; false: nobody waits, and
    /// the visitor goes.
    fn next(&self, visits: &mut Vec<Visit>, again: &mut Vec<Visit>) -> bool {
        let mut line = self.line.lock();
        line.waiting.extend(again.drain(..));
        let count = line.waiting.len().min(VISITS_IN_A_ROW);
        visits.extend(line.waiting.drain(..count));
        if visits.is_empty() {
            line.at_work -= 1;
            // A burst must not keep its room for ever.
            line.waiting.shrink_to(PER_VISITOR);
        }
        !visits.is_empty()
    }
}
