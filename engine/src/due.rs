//! Time-outs: ending what nobody ended in time.
//!
//! A reservation that was not paid gives its cards back when its deadline has passed, and a hold that was neither
//! captured nor released its value. The end is a command of the engine itself and goes through the sequencer like any
//! other, so it is an entry of the log like any other, and a payment that arrives at the same moment is decided
//! before it or after it. No decision rests on whether the time-out ran already: a confirmation and a capture ask for
//! the deadline, not for this.
//!
//! What is due is found in tables ordered by deadline; nothing is scanned. Whoever embeds the engine calls
//! [`Engine::run_due`] a few times a second, as the server does.

use crate::command::{Command, Request};
use crate::engine::Engine;
use crate::identity::{BatchId, Caller, ChannelId, RequestId, TenantId, TerminalId};
use crate::sequencer::Work;
use crate::word::CardRef;

impl Engine {
    /// Ends every reservation and every hold whose time is over, and returns how many that were. Takes microseconds
    /// if there are none. Those for which the log has no room are ended by a later call. Nobody hears of it here,
    /// so nothing waits for the disk, but for log records of held cards that are no longer in memory.
    pub fn run_due(&self, work: &mut Work) -> usize {
        self.end_all(work, Engine::due_reservations) + self.end_all(work, Engine::due_holds)
    }

    fn end_all(&self, work: &mut Work, due: fn(&Engine, &mut Work)) -> usize {
        let mut ended = 0;
        loop {
            work.requests.clear();
            due(self, work);
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

    /// How many holds are open.
    #[must_use]
    pub fn open_holds(&self) -> usize {
        self.sequencer().state().holds.count()
    }

    fn due_reservations(&self, work: &mut Work) {
        let state = self.sequencer().state();
        let due = state.orders.due(self.sequencer().running_ms()).take(Work::REQUESTS_MAX);
        work.requests.extend(due.map(|(tenant, order)| own(tenant, Command::ReserveTimeout(order))));
    }

    fn due_holds(&self, work: &mut Work) {
        let state = self.sequencer().state();
        let due = state.holds.due(self.sequencer().running_ms()).take(Work::REQUESTS_MAX);
        work.requests.extend(due.map(|(card, hold)| {
            let card = CardRef::from_bits(card);
            own(state.stock(BatchId(card.batch())).tenant, Command::HoldTimeout { card, hold })
        }));
    }
}

fn own(tenant: TenantId, command: Command) -> Request {
    Request {
        id: RequestId::default(),
        caller: Caller { tenant, ..Caller::LOCAL },
        terminal: TerminalId(0),
        channel: ChannelId(0),
        deadline: None,
        command,
        grounds: None,
    }
}
