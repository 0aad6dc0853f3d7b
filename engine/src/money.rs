//! Commands about accounts, postings and limits.
//!
//! They run in the sequencer like all others. Accounts and limits are objects, whose entries chain as those of
//! products do. A posting is found by its document as a sale is by its order: the same document under another
//! request is refused, the same request again has the first effect.

use std::sync::atomic::Ordering;

use crate::account::{AccountPut, AccountSpec, MONEY_MAX, NOTE_BYTES_MAX, Posting};
use crate::accounts::{AccountState, LegsRefused};
use crate::admin::{Change, NAME_BYTES_MAX};
use crate::command::{ACCOUNTS_PER_LIST, Command, Request};
use crate::identity::{AccountId, Caller, LimitId, PrincipalId, Role, TenantId};
use crate::limit::{LimitScope, LimitSpec};
use crate::limits::LIMITS_MAX;
use crate::record::{HEAD_BYTES, Kind, PostedDocument};
use crate::reply::{Reply, ReplyBody, ReplyFlags};
use crate::sequencer::{Detail, Turn, Work};
use crate::state::State;
use crate::status::Status;

impl Turn<'_> {
    pub(crate) fn put_account(&mut self, work: &Work, at: usize) -> Option<Reply> {
        let request = &work.requests[at];
        let tenant = request.caller.tenant;
        let Command::AccountPut(put) = &request.command else {
            unreachable!("the caller matched the command")
        };
        let AccountPut { spec, new } = &**put;
        let known = self.state.accounts.named(tenant, &spec.name);
        let id = known.map_or_else(|| self.state.accounts.next(), |state| state.account.id);
        let refusal = match known.map(|state| &state.account) {
            _ if !is_sane(spec) => Some(Status::Malformed),
            _ if !self.state.is_principal_of(spec.owner, tenant) => Some(Status::NotFound),
            Some(_) if *new => Some(Status::AlreadyExists),
            None if !new => Some(Status::NotFound),
            Some(known) if known.spec.kind != spec.kind || known.spec.currency != spec.currency => {
                Some(Status::IllegalTransition)
            }
            // Credit that is in use cannot be taken away.
            Some(known) if known.available() < known.spec.credit_limit.saturating_sub(spec.credit_limit) => {
                Some(Status::InsufficientFunds)
            }
            _ => None,
        };
        let spec = spec.clone();
        let change = Change {
            kind: Kind::AccountPut,
            subject: u64::from(id.0),
            refusal,
            apply: &|state, lsn| state.accounts.put(id, tenant, spec.clone(), lsn),
            show: &|state| state.show_account(id, tenant),
        };
        self.change(work, at, &change)
    }

    pub(crate) fn set_account_frozen(
        &mut self,
        work: &Work,
        at: usize,
        id: AccountId,
        frozen: bool,
    ) -> Option<Reply> {
        let tenant = work.requests[at].caller.tenant;
        let refusal = match self.state.accounts.find(id, tenant) {
            None => Some(Status::NotFound),
            Some(state) if state.account.frozen == frozen => Some(Status::IllegalTransition),
            Some(_) => None,
        };
        let change = Change {
            kind: if frozen { Kind::AccountFreeze } else { Kind::AccountUnfreeze },
            subject: u64::from(id.0),
            refusal,
            apply: &|state, lsn| state.accounts.set_frozen(id, frozen, lsn),
            show: &|state| state.show_account(id, tenant),
        };
        self.change(work, at, &change)
    }

    /// The reads of accounts.
    pub(crate) fn read_accounts(&self, work: &mut Work, at: usize) -> Reply {
        let request = &work.requests[at];
        let (caller, tenant) = (request.caller, request.caller.tenant);
        let accounts = &self.state.accounts;
        let found = match &request.command {
            Command::AccountList { after, count } => {
                let own = accounts.all().iter().skip(after.0 as usize).map(|state| &state.account);
                let mut own = own.filter(|account| account.tenant == tenant);
                let count = (*count).min(ACCOUNTS_PER_LIST) as usize;
                let listed = ReplyBody::Accounts(own.by_ref().take(count).cloned().collect());
                let mut reply = self.reply(request, Status::Ok, None, listed);
                if own.next().is_some() {
                    reply.flags = ReplyFlags::PARTIAL;
                }
                return reply;
            }
            Command::AccountQuery { account: AccountId(0), name } => accounts.named(tenant, name),
            Command::AccountQuery { account, .. } | Command::AccountStatement { account, .. } => {
                accounts.find(*account, tenant)
            }
            _ => unreachable!("the caller matched the command"),
        };
        // Whose account it is, is not told either.
        let Some(AccountState { account, .. }) = found.filter(|state| may_read(&caller, state)) else {
            return self.refuse(request, Status::NotFound);
        };
        let body = match (&request.command, std::mem::take(&mut work.prepared[at].detail)) {
            (Command::AccountStatement { .. }, Detail::Statement(Some(statement))) => {
                ReplyBody::Statement(statement)
            }
            (Command::AccountStatement { .. }, Detail::Statement(None)) => {
                return self.refuse(request, Status::Malformed);
            }
            // It was added since it was looked for.
            (Command::AccountStatement { .. }, _) => return self.refuse(request, Status::NotFound),
            _ => ReplyBody::Accounts(vec![account.clone()]),
        };
        self.reply(request, Status::Ok, None, body)
    }

    /// Moves money. `None` if the document has to be read first.
    pub(crate) fn post(&mut self, work: &mut Work, at: usize) -> Option<Reply> {
        let request = &work.requests[at];
        let Command::Post(posting) = &request.command else { unreachable!("the caller matched the command") };
        let Posting { document, legs, note } = &**posting;
        let key = (request.caller.tenant, *document);
        if self.state.documents.get(&key).is_some() {
            let Detail::Posted(earlier) = &work.prepared[at].detail else { return None };
            if earlier.request != request.id {
                return Some(self.refuse(request, Status::AlreadyExists));
            }
            let effect = earlier.effect;
            if effect.body != work.prepared[at].body || effect.principal != request.caller.principal {
                return Some(self.refuse(request, Status::IdReused));
            }
            let body = ReplyBody::Posted(earlier.legs.clone());
            let reply = self.reply(request, Status::Ok, Some(effect.lsn), body);
            return Some(Reply { flags: ReplyFlags::REPLAYED, time_ms: effect.time_ms, ..reply });
        }
        let sane = document.0 != 0
            && !legs.is_empty()
            && note.len() <= NOTE_BYTES_MAX
            && !note.chars().any(char::is_control);
        if !sane {
            return Some(self.refuse(request, Status::Malformed));
        }
        let checked =
            self.state.accounts.check(key.0, legs, &[], |account| request.caller.may_debit(account));
        if let Err(refused) = checked {
            return Some(self.refuse_legs(request, refused));
        }
        if !self.has_credit() {
            return Some(self.refuse(request, self.short()));
        }
        let posted = &mut work.posted;
        self.state.accounts.posted(legs, posted);
        let head = request.head(Kind::Post, work.prepared[at].body);
        let tail_bytes = PostedDocument::tail_bytes(posted.len(), note.len());
        let lsn = self.append(HEAD_BYTES + tail_bytes.next_multiple_of(8), |group| {
            group.push(&head, tail_bytes, |tail| PostedDocument::encode(*document, posted, note, tail))
        });
        self.state.accounts.post(posted, lsn).expect("they continue their accounts");
        self.state.documents.insert(key, lsn);
        Some(self.reply(request, Status::Ok, Some(lsn), ReplyBody::Posted(posted.clone())))
    }

    /// Says that legs were refused, and which account stands against them.
    pub(crate) fn refuse_legs(&self, request: &Request, refused: LegsRefused) -> Reply {
        let body = match refused.account {
            AccountId(0) => ReplyBody::None,
            account => ReplyBody::Account(account),
        };
        self.reply(request, refused.status, None, body)
    }

    pub(crate) fn put_limit(&mut self, work: &Work, at: usize) -> Option<Reply> {
        let request = &work.requests[at];
        let tenant = request.caller.tenant;
        let Command::LimitPut(spec) = &request.command else {
            unreachable!("the caller matched the command")
        };
        let limits = &self.state.limits;
        let known = limits.named(tenant, &spec.name).filter(|state| !state.limit.spec.ended);
        let id = known.map_or_else(|| limits.next(), |state| state.limit.id);
        let meant = |spec: &LimitSpec| (spec.scope, spec.product, spec.window);
        let refusal = match known.map(|state| &state.limit.spec) {
            _ if !spec.is_sane() => Some(Status::Malformed),
            None if spec.ended => Some(Status::NotFound),
            Some(known) if meant(known) != meant(spec) => Some(Status::IllegalTransition),
            None if limits.standing(tenant) >= LIMITS_MAX => Some(Status::TooLarge),
            None if !self.state.has_parts_of(spec, tenant) => Some(Status::NotFound),
            _ => None,
        };
        let spec = (**spec).clone();
        let change = Change {
            kind: Kind::LimitPut,
            subject: u64::from(id.0),
            refusal,
            apply: &|state, lsn| state.limits.put(id, tenant, spec.clone(), lsn),
            show: &|state| state.show_limit(id, tenant),
        };
        let reply = self.change(work, at, &change);
        let counts_tills = self.state.limits.any_terminal();
        self.sequencer.counts_tills.store(counts_tills, Ordering::Relaxed);
        reply
    }
}

/// Whether the caller may look at the account: a seller at those that it may pay from.
fn may_read(caller: &Caller, state: &AccountState) -> bool {
    caller.role != Role::Seller || caller.may_debit(&state.account)
}

fn is_sane(spec: &AccountSpec) -> bool {
    (1..=NAME_BYTES_MAX).contains(&spec.name.len())
        && !spec.name.chars().any(char::is_control)
        && spec.currency.iter().all(u8::is_ascii_uppercase)
        && (0..=MONEY_MAX).contains(&spec.credit_limit)
}

impl State {
    /// Whether the principal may own an account of the tenant; 0 is nobody in particular.
    fn is_principal_of(&self, id: PrincipalId, tenant: TenantId) -> bool {
        let known = self.principals.get((id.0 as usize).wrapping_sub(1));
        id == PrincipalId(0) || known.is_some_and(|state| state.principal.spec.tenant == tenant)
    }

    /// Whether the product and the account that a limit names are there.
    fn has_parts_of(&self, spec: &LimitSpec, tenant: TenantId) -> bool {
        let account = match spec.scope {
            LimitScope::Account(Some(id)) => self.accounts.find(id, tenant).is_some(),
            _ => true,
        };
        account && spec.product.is_none_or(|id| self.product(id, tenant).is_some())
    }

    fn show_account(&self, id: AccountId, tenant: TenantId) -> ReplyBody {
        let account = self.accounts.find(id, tenant).map(|state| state.account.clone());
        ReplyBody::Accounts(account.into_iter().collect())
    }

    fn show_limit(&self, id: LimitId, tenant: TenantId) -> ReplyBody {
        let limit = self.limits.find(id, tenant).map(|state| state.limit.clone());
        ReplyBody::Limits(limit.into_iter().collect())
    }
}
