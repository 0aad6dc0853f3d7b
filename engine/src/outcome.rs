//! What became of a request: asked by who heard no answer, without doing it.
//!
//! The answer is read from the chain of the target as a retry is recognised, so it cannot differ from what a retry
//! would be told. It is given to whoever sent the request, and to those who look after all. To everybody else, and
//! of a target that they may not know of, it is what is said of a request that never came: nobody learns from it
//! which codes, orders or documents there are.
//!
//! What was reported from offline and noted as an exception is EXCEPTION_NOTED: the id is used up, though no chain holds
//! it (`exceptions.rs`).

use crate::card::{Effect, Past};
use crate::command::{Command, Request};
use crate::identity::{Caller, PrincipalId, ProductId, Role};
use crate::product::Money;
use crate::record::Kind;
use crate::reply::{Reply, ReplyBody, ReplyFlags};
use crate::sequencer::{Detail, OrderPast, Turn, Work};
use crate::status::Status;

/// The effect that a request had. Where it stands and when it happened is in the reply's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutcomeReport {
    /// What it did: a record kind's number, see [`record::Kind`](crate::record::Kind).
    pub kind: Kind,
    /// Who asked for it.
    pub principal: PrincipalId,
    /// The card's product; `None` of what is about no card.
    pub product: Option<ProductId>,
    /// What it moved of the card's value, in minor units or uses; else 0.
    pub amount: Money,
    /// What was left on the card afterwards; else 0.
    pub remaining: Money,
    /// Of a hold, until when it stood or stands, in milliseconds since 1970; else 0.
    pub deadline_ms: u64,
}

/// The answer about a request, but for what the caller adds to a reply.
pub(crate) enum Outcome {
    /// It had this effect.
    Had(Effect),
    /// It had none so far, or will have none, or that is not told.
    Status(Status),
}

/// What the past of a target, searched for the request that is asked about, says to this caller.
pub(crate) fn told(past: &Past, caller: &Caller) -> Outcome {
    match past.same {
        Some(effect) if !may_know(&effect, caller) => Outcome::Status(Status::NoEffect),
        // Where it stands would tell that the card exists, as with the answer of the first time.
        Some(effect) if effect.kind == Kind::Tombstone => Outcome::Status(Status::Tombstoned),
        Some(effect) => Outcome::Had(effect),
        None if past.tombstone => Outcome::Status(Status::ReversedBeforeArrival),
        None => Outcome::Status(Status::NoEffect),
    }
}

/// Whether the caller did it or looks after all.
fn may_know(effect: &Effect, caller: &Caller) -> bool {
    effect.principal == caller.principal || looks_after_all(caller.role)
}

/// Whether it is told what became of everybody's requests.
pub(crate) const fn looks_after_all(role: Role) -> bool {
    matches!(role, Role::Admin | Role::Operator | Role::Finance | Role::Auditor)
}

impl Turn<'_> {
    /// What became of a request about an order.
    pub(crate) fn outcome_of_order(&self, request: &Request, past: Option<&OrderPast>) -> Reply {
        let same = past.and_then(|past| past.same);
        self.outcome(request, &Past { same, ..Past::NONE })
    }

    /// What became of the posting of a document. `None` if that has to be read first.
    pub(crate) fn outcome_of_document(&self, work: &Work, at: usize) -> Option<Reply> {
        let request = &work.requests[at];
        let Command::OutcomeOfDocument { document, request: asked } = &request.command else {
            unreachable!("the caller matched the command")
        };
        let mut past = Past::NONE;
        if self.state.documents.get(&(request.caller.tenant, *document)).is_some() {
            let Detail::Posted(earlier) = &work.prepared[at].detail else { return None };
            past.same = (earlier.request == *asked).then_some(earlier.effect);
        }
        Some(self.outcome(request, &past))
    }

    fn outcome(&self, request: &Request, past: &Past) -> Reply {
        match told(past, &request.caller) {
            Outcome::Status(status) => self.refuse(request, status),
            Outcome::Had(effect) => {
                let reply = self.reply(request, Status::Ok, Some(effect.lsn), report(&effect, None));
                Reply { flags: flags(&effect), time_ms: effect.time_ms, ..reply }
            }
        }
    }
}

pub(crate) fn flags(effect: &Effect) -> ReplyFlags {
    let reversed = if effect.reversed { ReplyFlags::REVERSED } else { ReplyFlags::default() };
    ReplyFlags::REPLAYED.with(reversed)
}

pub(crate) fn report(effect: &Effect, product: Option<ProductId>) -> ReplyBody {
    let Effect { kind, principal, amount, remaining, .. } = *effect;
    let deadline_ms = if kind == Kind::Hold { effect.deadline_ms } else { 0 };
    ReplyBody::Outcome(OutcomeReport { kind, principal, product, amount, remaining, deadline_ms })
}
