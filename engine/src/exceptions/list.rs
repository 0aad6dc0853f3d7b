//! EXCEPTION_LIST and EXCEPTION_RESOLVE: an operator looks through what did not fit, and notes what was done about it.
//!
//! # Invariants
//! * A call looks through a bounded number, under the lock that redemptions wait for, and says how far it came.
//! * An exception is shown, and can be resolved, only where its tenant, merchant and product may be seen.

use super::{
    EXCEPTIONS_PER_LIST, Exception, ExceptionPage, ExceptionState, LOOKED_AT_MAX, RESOLUTION_BYTES_MAX,
    Resolution,
};
use crate::admin::Change;
use crate::command::{Command, Request};
use crate::identity::{Caller, MerchantId, Role};
use crate::record::Kind;
use crate::reply::{Reply, ReplyBody, ReplyFlags};
use crate::sequencer::{Turn, Work};
use crate::state::Scope;
use crate::status::Status;
use crate::table::Table;

impl Turn<'_> {
    /// Lists exceptions.
    pub(crate) fn list_exceptions(&self, request: &Request) -> Reply {
        let &Command::ExceptionList { after, count, all } = &request.command else {
            unreachable!("the caller matched the command")
        };
        let count = count.clamp(1, EXCEPTIONS_PER_LIST) as usize;
        let mut page = ExceptionPage { rows: Vec::new(), reached: after };
        let mut more = false;
        for (looked_at, state) in self.state.exceptions.after(request.caller.tenant, after, all).enumerate() {
            let is_shown = self.shows_exception(request, state);
            if looked_at == LOOKED_AT_MAX || is_shown && page.rows.len() == count {
                more = true;
                break;
            }
            page.reached = state.exception.id;
            if is_shown {
                page.rows.push(state.exception.clone());
            }
        }
        let mut reply = self.reply(request, Status::Ok, None, ReplyBody::Exceptions(page));
        if more {
            reply.flags = ReplyFlags::PARTIAL;
        }
        reply
    }

    fn shows_exception(&self, request: &Request, state: &ExceptionState) -> bool {
        let scope = self.state.scope(request.caller.principal).unwrap_or_default();
        is_shown(&self.sequencer.table, scope, &request.caller, state)
    }

    /// Notes what was done about an exception.
    pub(crate) fn resolve_exception(&mut self, work: &Work, at: usize) -> Option<Reply> {
        let request = &work.requests[at];
        let Command::ExceptionResolve(given) = &request.command else {
            unreachable!("the caller matched the command")
        };
        let (id, tenant) = (given.id, request.caller.tenant);
        let known =
            self.state.exceptions.find(id, tenant).filter(|state| self.shows_exception(request, state));
        let refusal = match known.map(|state| &state.exception) {
            _ if !is_note(&given.note) => Some(Status::Malformed),
            None => Some(Status::NotFound),
            Some(Exception { resolution: Some(_), .. }) => Some(Status::IllegalTransition),
            Some(_) => None,
        };
        let (principal, note) = (request.caller.principal, given.note.clone());
        let change = Change {
            kind: Kind::ExceptionResolve,
            subject: id,
            refusal,
            apply: &|state, lsn| {
                let time_ms = state.now_ms;
                let resolution = Resolution { principal, time_ms, note: note.clone() };
                state.exceptions.resolve(id, resolution, lsn);
            },
            show: &|state| {
                let shown = state.exceptions.find(id, tenant).map(|state| state.exception.clone());
                ReplyBody::Exceptions(ExceptionPage { rows: shown.into_iter().collect(), reached: id })
            },
        };
        self.change(work, at, &change)
    }
}

fn is_note(note: &str) -> bool {
    (1..=RESOLUTION_BYTES_MAX).contains(&note.len()) && !note.chars().any(char::is_control)
}

/// Whether a caller may be told of another merchant's exceptions.
const fn sees(role: Role, own: MerchantId, merchant: MerchantId) -> bool {
    matches!(role, Role::Admin) || own.0 == 0 || own.0 == merchant.0
}

/// Whether an exception is told to a caller with this scope: it is of the tenant, of the merchant if the caller belongs to
/// one, and of a product in the scope if there is one.
pub(crate) fn is_shown(table: &Table, scope: Scope<'_>, caller: &Caller, state: &ExceptionState) -> bool {
    state.tenant == caller.tenant
        && sees(caller.role, caller.merchant, state.exception.merchant)
        && (scope.is_all()
            || state
                .exception
                .card
                .and_then(|card| table.batch_of(card))
                .is_some_and(|batch| scope.covers(batch.product)))
}
