//! Time-outs: ending what nobody ended in time.
//!
//! A reservation that was not paid gives its cards back when its deadline has passed. The end is a command of the
//! engine itself and goes through the sequencer like any other, so it is an entry of the log like any other, and
//! a payment that arrives at the same moment is decided before it or after it. No decision rests on whether the
//! time-out ran already: a confirmation asks for the deadline, not for this.
//!
//! What is due is found in tables ordered by deadline; nothing is scanned. Whoever embeds the engine calls
//! [`Engine::run_due`] a few times a second, as the server does.

use crate::command::{Command, Request};
use crate::engine::Engine;
use crate::identity::{Caller, ChannelId, RequestId, TerminalId};
use crate::sequencer::Work;

impl Engine {
    /// Ends every reservation whose time is over, and returns how many that were. Takes microseconds if there
    /// are none. Those for which the log has no room are ended by a later call. Nobody hears of it here, so
    /// nothing waits for the disk.
    pub fn run_due(&self, work: &mut Work) -> usize {
        let mut ended = 0;
        loop {
            work.requests.clear();
            self.due_requests(work);
            if work.requests.is_empty() {
                return ended;
            }
            self.execute(work);
            let done = work.replies.iter().filter(|reply| reply.status.is_done()).count();
            ended += done;
            if done == 0 {
                return ended;
            }
        }
    }

    fn due_requests(&self, work: &mut Work) {
        let sequencer = self.sequencer();
        let now_ms = sequencer.running.at(sequencer.clock.boot_ms());
        let state = sequencer.state();
        work.requests.extend(state.orders.due(now_ms).take(Work::REQUESTS_MAX).map(|(tenant, order)| {
            Request {
                id: RequestId::default(),
                caller: Caller { tenant, ..Caller::LOCAL },
                terminal: TerminalId(0),
                channel: ChannelId(0),
                deadline: None,
                command: Command::ReserveTimeout(order),
            }
        }));
    }
}
