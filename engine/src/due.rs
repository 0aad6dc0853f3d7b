//! What time brings: commands that nobody asks for, but the engine itself.
//!
//! They run in the sequencer as all others do, found in order of their deadline. No decision depends on whether
//! they ran: what is over is over at its deadline. They only say so in the log, and give the room back.

use crate::command::{Command, Request};
use crate::engine::Engine;
use crate::identity::{BatchId, Caller, ChannelId, RequestId, TerminalId};
use crate::sequencer::Work;
use crate::word::CardRef;

impl Engine {
    /// Ends the holds whose deadline has passed, up to 64 of them, and returns how many were ended. Whoever
    /// drives the engine calls this about every 100 ms, again at once when it returns 64. Never waits for the
    /// disk but for log records that are no longer in memory.
    pub fn run_due(&self) -> usize {
        let mut work = Work::default();
        {
            let state = self.sequencer().state();
            // A turn moves engine time: what is over by the running clock is over when it is decided.
            let now_ms = self.sequencer().running_ms().max(state.now_ms);
            work.requests.extend(state.holds.due(now_ms).take(Work::REQUESTS_MAX).map(|(card, hold)| {
                let card = CardRef::from_bits(card);
                let tenant = state.stock(BatchId(card.batch())).tenant;
                Request {
                    id: RequestId::default(),
                    caller: Caller { tenant, ..Caller::LOCAL },
                    terminal: TerminalId(0),
                    channel: ChannelId(0),
                    deadline: None,
                    command: Command::HoldTimeout { card, hold },
                }
            }));
        }
        if work.requests.is_empty() {
            return 0;
        }
        self.execute(&mut work);
        work.replies.iter().filter(|reply| reply.status.is_done()).count()
    }

    /// How many holds are open.
    #[must_use]
    pub fn open_holds(&self) -> usize {
        self.sequencer().state().holds.count()
    }
}
