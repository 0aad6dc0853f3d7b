//! Commands about batches, products and principals, and the reads over many of them. Those about accounts and
//! limits stand in `money.rs`.
//!
//! They run in the sequencer like all others. Each changes one object, whose entries chain as a card's
//! do, so that a retry is recognised by the same means.

use std::ops::Range;

use kami_wal::Lsn;

use crate::card::Effect;
use crate::command::{Command, Request};
use crate::figures;
use crate::identity::{
    BatchId, MISSES_PER_MINUTE_MAX, Principal, PrincipalId, PrincipalSpec, ProductId, Renewal, Role,
    SCOPE_PRODUCTS_MAX, TenantId,
};
use crate::limit::Limit;
use crate::product::{CardKind, ProductSpec, ProductTerms, SHARED_USES_MAX, ValidFrom};
use crate::record::{HEAD_BYTES, Head, Kind};
use crate::reply::{BatchReport, Reply, ReplyBody, ReplyFlags};
use crate::sequencer::{Retry, Turn, Work};
use crate::state::State;
use crate::status::Status;
use crate::table::Batch;

/// The longest name of a product or principal, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 64;
/// The longest note that a merchant keeps with a product, in bytes.
const ATTRIBUTES_BYTES_MAX: usize = 255;
/// The longest reservation or hold, in seconds: a month.
const TERM_S_MAX: u32 = 31 * 24 * 3600;

/// A change of one object, ready to be recorded.
pub(crate) struct Change<'a> {
    /// What is recorded.
    pub(crate) kind: Kind,
    /// The object's number.
    pub(crate) subject: u64,
    /// Why it cannot be made.
    pub(crate) refusal: Option<Status>,
    /// What it does, given where its entry stands.
    pub(crate) apply: &'a dyn Fn(&mut State, Lsn),
    /// The object as the reply shows it.
    pub(crate) show: &'a dyn Fn(&State) -> ReplyBody,
}

impl Turn<'_> {
    /// One command that is not about a card. `None` if something has to be read first.
    pub(crate) fn object(&mut self, work: &mut Work, at: usize) -> Option<Reply> {
        if let Err(status) = self.standing(&work.requests[at]) {
            return Some(self.refuse(&work.requests[at], status));
        }
        if self.is_beyond_tenant(&work.requests[at]) {
            return Some(self.refuse(&work.requests[at], Status::Forbidden));
        }
        match &work.requests[at].command {
            command if command.order().is_some() => self.order(work, at),
            Command::HoldTimeout { .. } => self.hold_timeout(work, at),
            Command::Replace(_) | Command::Transfer(_) => self.pair(work, at),
            Command::ProductAdd(_) | Command::ProductSet(_) => self.put_product(work, at),
            Command::ProductFreeze(id) => self.set_product_frozen(work, at, *id, true),
            Command::ProductUnfreeze(id) => self.set_product_frozen(work, at, *id, false),
            Command::PrincipalAdd(_) => self.add_principal(work, at),
            Command::PrincipalRevoke(id) => self.revoke_principal(work, at, *id),
            Command::PrincipalRenew(renewal) => self.renew_principal(work, at, **renewal),
            Command::AccountPut(_) => self.put_account(work, at),
            Command::AccountFreeze(id) => self.set_account_frozen(work, at, *id, true),
            Command::AccountUnfreeze(id) => self.set_account_frozen(work, at, *id, false),
            Command::AccountQuery { .. } | Command::AccountList { .. } | Command::AccountStatement { .. } => {
                Some(self.read_accounts(work, at))
            }
            Command::Post(_) => self.post(work, at),
            Command::LimitPut(_) => self.put_limit(work, at),
            Command::TenantPut(_) => self.put_tenant(work, at),
            Command::TenantFreeze(id) => self.set_tenant_frozen(work, at, *id, true),
            Command::TenantUnfreeze(id) => self.set_tenant_frozen(work, at, *id, false),
            Command::TenantList => Some(self.list_tenants(&work.requests[at])),
            Command::TenantControl { .. } => self.set_control(work, at),
            // Codes leave in a heap only with a second person.
            Command::Export { .. } => Some(self.refuse(&work.requests[at], Status::ApprovalRequired)),
            Command::Propose(_) => self.propose(work, at),
            Command::Approve(_) => self.approve(work, at),
            Command::ProposalWithdraw(_) => Some(self.withdraw(work, at)),
            Command::ProposalList { .. } => Some(self.list_proposals(&work.requests[at])),
            Command::OutcomeOfDocument { .. } => self.outcome_of_document(work, at),
            Command::OrderList(_) => Some(self.list_orders(work, at)),
            Command::ExceptionList { .. } => Some(self.list_exceptions(&work.requests[at])),
            Command::ExceptionResolve(_) => self.resolve_exception(work, at),
            command if command.batch().is_some() => self.change_batch(work, at),
            _ => Some(self.list(&work.requests[at])),
        }
    }

    /// Whether the caller may do this: not once it is revoked, nor outside of its scope. Asked under the
    /// lock, so nothing that a revoked principal sent is decided behind its revocation.
    fn standing(&self, request: &Request) -> Result<(), Status> {
        let scope = self.state.scope(request.caller.principal).ok_or(Status::Unauthenticated)?;
        let covered = scope.is_all()
            || match &request.command {
                Command::Sell { product, .. }
                | Command::ProductFreeze(product)
                | Command::ProductUnfreeze(product) => scope.covers(*product),
                Command::SellLines(purchase) | Command::Reserve(purchase) => {
                    purchase.lines.iter().all(|line| scope.covers(line.product))
                }
                // One's own is of products that one could buy; whether another's is in the scope, is asked there.
                command if command.order().is_some() => true,
                // The engine's own.
                Command::HoldTimeout { .. } => true,
                // Of which product the cards are, is asked there.
                Command::Replace(_) | Command::Transfer(_) => true,
                // These show no more than is in the scope.
                Command::ProductList | Command::BatchList { .. } | Command::Stock { .. } => true,
                // Money is of no product; whose account it is, is asked there.
                Command::AccountPut(_)
                | Command::AccountFreeze(_)
                | Command::AccountUnfreeze(_)
                | Command::AccountQuery { .. }
                | Command::AccountList { .. }
                | Command::AccountStatement { .. }
                | Command::Post(_)
                | Command::LimitList
                | Command::OutcomeOfDocument { .. } => true,
                // Which ones, is asked there.
                Command::ExceptionList { .. } | Command::ExceptionResolve(_) | Command::OrderList(_) => true,
                // So is it with what was proposed, and by whom.
                Command::Export { .. }
                | Command::Propose(_)
                | Command::Approve(_)
                | Command::ProposalWithdraw(_)
                | Command::ProposalList { .. } => true,
                Command::LimitPut(spec) => spec.product.is_some_and(|product| scope.covers(product)),
                // A batch that is not there is not found.
                command => command
                    .batch()
                    .is_some_and(|id| self.sequencer.table.batch(id).is_none_or(|b| scope.covers(b.product))),
            };
        if covered { Ok(()) } else { Err(Status::ScopeDenied) }
    }

    /// Records a change of one object and makes it, unless the request is a retry or cannot be recorded.
    /// `None` if the object changed since its entries were read.
    pub(crate) fn change(&mut self, work: &Work, at: usize, change: &Change<'_>) -> Option<Reply> {
        let request = &work.requests[at];
        let replay = match self.object_retry(work, at, change.kind) {
            Retry::Stale => return None,
            Retry::Reused => return Some(self.refuse(request, Status::IdReused)),
            Retry::Replay(effect) => Some(effect),
            Retry::New => None,
        };
        if let Some(Effect { lsn, time_ms, .. }) = replay {
            let mut reply = self.reply(request, Status::Ok, Some(lsn), (change.show)(&self.state));
            reply.flags = ReplyFlags::REPLAYED;
            reply.time_ms = time_ms;
            return Some(reply);
        }
        if let Some(status) = change.refusal {
            return Some(self.refuse(request, status));
        }
        if !self.has_credit() {
            return Some(self.refuse(request, self.short()));
        }
        let prev = self.state.object_lsn(&request.command, request.caller.tenant);
        let prev = prev.map_or(0, |lsn| lsn.units() << 16);
        let head =
            Head { subject: change.subject, prev, ..request.head(change.kind, self.object_body(work, at)) };
        let (extension, tail) = (extension(&request.command), self.object_tail(work, at));
        let tail: &[u8] = extension.as_ref().map_or(tail, |bytes| bytes.as_slice());
        let grounds = request.grounds.as_deref();
        let lsn = self.append(HEAD_BYTES + tail.len() + request.grounds_bytes(), |group| {
            group.push_on(&head, grounds, tail.len(), |place| place.copy_from_slice(tail))
        });
        (change.apply)(&mut self.state, lsn);
        Some(self.reply(request, Status::Ok, Some(lsn), (change.show)(&self.state)))
    }

    fn put_product(&mut self, work: &Work, at: usize) -> Option<Reply> {
        let request = &work.requests[at];
        let tenant = request.caller.tenant;
        let (spec, adds) = match &request.command {
            Command::ProductAdd(spec) => (spec, true),
            Command::ProductSet(spec) => (spec, false),
            _ => unreachable!("the caller matched the command"),
        };
        let known = self.state.product_names.get(&(tenant, spec.name.clone())).copied();
        let id = known.unwrap_or(ProductId(self.state.products.len() as u32 + 1));
        let present = known.and_then(|id| self.state.product(id, tenant)).map(|state| &state.product.spec);
        let refusal = match present {
            _ if !is_sane(spec) => Some(Status::Malformed),
            Some(_) if adds => Some(Status::AlreadyExists),
            None if !adds => Some(Status::NotFound),
            // What was sold stays what it was: a card's uses are not written down before the first, and how often
            // a code is sold was promised to its buyers.
            Some(old)
                if old.kind != spec.kind
                    || old.currency != spec.currency
                    || counts_uses(spec.kind) && old.terms.uses != spec.terms.uses =>
            {
                Some(Status::IllegalTransition)
            }
            _ => None,
        };
        let spec = (**spec).clone();
        let change = Change {
            kind: Kind::ProductPut,
            subject: u64::from(id.0),
            refusal,
            apply: &|state, lsn| state.put_product(id, tenant, spec.clone(), lsn),
            show: &|state| state.show_product(id, tenant),
        };
        self.change(work, at, &change)
    }

    fn set_product_frozen(&mut self, work: &Work, at: usize, id: ProductId, frozen: bool) -> Option<Reply> {
        let tenant = work.requests[at].caller.tenant;
        let refusal = match self.state.product(id, tenant) {
            None => Some(Status::NotFound),
            Some(state) if state.product.frozen == frozen => Some(Status::IllegalTransition),
            Some(_) => None,
        };
        let kind = if frozen { Kind::ProductFreeze } else { Kind::ProductUnfreeze };
        let change = Change {
            kind,
            subject: u64::from(id.0),
            refusal,
            apply: &|state, lsn| state.set_product_frozen(id, frozen, lsn),
            show: &|state| state.show_product(id, tenant),
        };
        self.change(work, at, &change)
    }

    fn add_principal(&mut self, work: &Work, at: usize) -> Option<Reply> {
        let Command::PrincipalAdd(spec) = &work.requests[at].command else {
            unreachable!("the caller matched the command")
        };
        let named = self.state.principals.iter().map(|state| &state.principal);
        // A tenant's people have names of their own.
        let is_same = |known: &PrincipalSpec| known.name == spec.name && known.tenant == spec.tenant;
        let present = named.filter(|principal| is_same(&principal.spec)).map(|principal| principal.id).next();
        let id = present.unwrap_or(PrincipalId(self.state.principals.len() as u32 + 1));
        let own = |product: &ProductId| self.state.product(*product, spec.tenant).is_some();
        let refusal = if !is_sane_principal(spec) {
            Some(Status::Malformed)
        } else if !self.state.tenants.knows(spec.tenant) || !spec.products.iter().all(own) {
            Some(Status::NotFound)
        } else if present.is_some() || self.state.principal_keys.contains_key(&spec.key) {
            Some(Status::AlreadyExists)
        } else {
            None
        };
        let principal = Principal { id, spec: PrincipalSpec::clone(spec), revoked: false };
        let change = Change {
            kind: Kind::PrincipalPut,
            subject: u64::from(id.0),
            refusal,
            apply: &|state, lsn| state.put_principal(principal.clone(), lsn),
            show: &|state| state.show_principal(id),
        };
        self.change(work, at, &change)
    }

    fn revoke_principal(&mut self, work: &Work, at: usize, id: PrincipalId) -> Option<Reply> {
        let index = (id.0 as usize).wrapping_sub(1);
        let refusal = match self.state.principals.get(index) {
            None => Some(Status::NotFound),
            Some(state) if state.principal.revoked => Some(Status::IllegalTransition),
            // Nobody can lock everyone out by a slip.
            Some(_) if work.requests[at].caller.principal == id => Some(Status::Forbidden),
            Some(_) => None,
        };
        let change = Change {
            kind: Kind::PrincipalRevoke,
            subject: u64::from(id.0),
            refusal,
            apply: &|state, lsn| state.revoke_principal(id, lsn),
            show: &|state| state.show_principal(id),
        };
        self.change(work, at, &change)
    }

    fn renew_principal(&mut self, work: &Work, at: usize, renewal: Renewal) -> Option<Reply> {
        let id = renewal.principal;
        let known = self.state.principals.get((id.0 as usize).wrapping_sub(1));
        let owner = self.state.principal_keys.get(&renewal.key);
        let refusal = match known {
            None => Some(Status::NotFound),
            Some(state) if state.principal.revoked => Some(Status::IllegalTransition),
            Some(_) if owner.is_some_and(|owner| *owner != id) => Some(Status::AlreadyExists),
            Some(_) => None,
        };
        let renewed = known
            .map(|state| Principal { spec: renewal.applied_to(&state.principal.spec), ..state.principal });
        let change = Change {
            kind: Kind::PrincipalPut,
            subject: u64::from(id.0),
            refusal,
            apply: &|state, lsn| state.put_principal(renewed.clone().expect("refused otherwise"), lsn),
            show: &|state| state.show_principal(id),
        };
        self.change(work, at, &change)
    }

    fn change_batch(&mut self, work: &Work, at: usize) -> Option<Reply> {
        let request = &work.requests[at];
        let id = request.command.batch().expect("the caller matched the command");
        let table = &self.sequencer.table;
        let batch = self.state.batch_stock(id, request.caller.tenant).and_then(|_| table.batch(id));
        let Some(batch) = batch else { return Some(self.refuse(request, Status::NotFound)) };
        let all = 0..batch.rows().max(1);
        let rows = match request.command {
            Command::BatchRows { from, rows, .. } => range(from, rows, batch.rows()),
            _ => None,
        };
        let activity = self.state.stock(id).activity();
        let (kind, changes) = match request.command {
            Command::BatchActivate(_) => (Kind::BatchActivate, activity.would_change(&all, true)),
            Command::BatchDeactivate(_) => (Kind::BatchDeactivate, activity.would_change(&all, false)),
            Command::BatchRows { active, .. } => {
                let kind = if active { Kind::BatchActivate } else { Kind::BatchDeactivate };
                (kind, rows.as_ref().is_some_and(|rows| activity.would_change(rows, active)))
            }
            Command::BatchFreeze(_) => (Kind::BatchFreeze, !batch.is_frozen()),
            Command::BatchUnfreeze(_) => (Kind::BatchUnfreeze, batch.is_frozen()),
            Command::BatchVoid(_) => (Kind::BatchVoid, !batch.is_voided()),
            Command::BatchExtend { expires_ms, .. } => {
                let ends = batch.expires_ms != 0 || !batch.columns.expiries.is_empty();
                (Kind::BatchExtend, ends && expires_ms > batch.extended_ms().max(batch.expires_ms))
            }
            _ => unreachable!("the caller matched the command"),
        };
        let expires_ms = match request.command {
            Command::BatchExtend { expires_ms, .. } => expires_ms,
            _ => 0,
        };
        let change = Change {
            kind,
            subject: u64::from(id.0),
            refusal: match &rows {
                None if matches!(request.command, Command::BatchRows { .. }) => Some(Status::NotFound),
                _ if !changes => Some(Status::IllegalTransition),
                Some(rows) if !activity.has_room(rows, kind == Kind::BatchActivate) => {
                    Some(Status::PiecesExhausted)
                }
                _ => None,
            },
            apply: &|state, lsn| {
                let now_ms = state.now_ms;
                state.change_batch(batch, kind, &BatchMove { expires_ms, rows: rows.clone(), now_ms }, lsn);
            },
            show: &|state| ReplyBody::Batches(vec![state.batch_report(batch)]),
        };
        self.change(work, at, &change)
    }

    /// The reads over many objects.
    fn list(&mut self, request: &Request) -> Reply {
        let tenant = request.caller.tenant;
        let sequencer = self.sequencer;
        let state = &*self.state;
        let scope = state.scope(request.caller.principal).unwrap_or_default();
        let wanted = |product: Option<ProductId>| {
            sequencer.table.batches().filter(move |batch| {
                state.stock(batch.id).tenant == tenant
                    && product.is_none_or(|id| batch.product == id)
                    && scope.covers(batch.product)
            })
        };
        let body = match request.command {
            Command::ProductList => {
                let own = state
                    .products
                    .iter()
                    .filter(|state| state.tenant == tenant && scope.covers(state.product.id));
                ReplyBody::Products(own.map(|state| state.product.clone()).collect())
            }
            Command::BatchList { product } => {
                ReplyBody::Batches(wanted(product).map(|batch| state.batch_report(batch)).collect())
            }
            Command::Stock { product } => {
                let batches: Vec<_> = wanted(product).collect();
                let state = &mut *self.state;
                ReplyBody::Stock(batches.into_iter().map(|batch| state.stock_line(batch)).collect())
            }
            Command::PrincipalList => {
                let all = state.principals.iter().map(|state| &state.principal);
                let own = all.filter(|principal| tenant == TenantId(0) || principal.spec.tenant == tenant);
                ReplyBody::Principals(own.cloned().collect())
            }
            Command::LimitList => {
                let own = state.limits.all().iter().map(|state| &state.limit);
                let stands = |limit: &&Limit| limit.tenant == tenant && !limit.spec.ended;
                ReplyBody::Limits(own.filter(stands).cloned().collect())
            }
            _ => ReplyBody::Stats(Box::new(figures::stats(self.sequencer, state))),
        };
        self.reply(request, Status::Ok, None, body)
    }
}

/// What an entry about a batch says beside its kind.
pub(crate) struct BatchMove {
    /// Of BATCH_EXTEND the new end, milliseconds.
    pub(crate) expires_ms: u64,
    /// Of BATCH_ACTIVATE and BATCH_DEACTIVATE the rows, if not all.
    pub(crate) rows: Option<Range<u64>>,
    /// When it happens, milliseconds.
    pub(crate) now_ms: u64,
}

/// A range of rows, if the batch has all of them.
fn range(from: u64, rows: u64, of: u64) -> Option<Range<u64>> {
    from.checked_add(rows).filter(|to| from < *to && *to <= of).map(|to| from..to)
}

/// The tail of BATCH_EXTEND, and of what is about a range of rows.
fn extension(command: &Command) -> Option<Vec<u8>> {
    match command {
        Command::BatchExtend { expires_ms, .. } => Some(expires_ms.to_le_bytes().to_vec()),
        Command::BatchRows { from, rows, .. } => Some([from.to_le_bytes(), rows.to_le_bytes()].concat()),
        _ => None,
    }
}

fn is_sane(spec: &ProductSpec) -> bool {
    (1..=NAME_BYTES_MAX).contains(&spec.name.len())
        && !spec.name.chars().any(char::is_control)
        && spec.currency.iter().all(u8::is_ascii_uppercase)
        && spec.face >= 0
        && (spec.kind != CardKind::MultiUse || spec.terms.uses > 0)
        && (spec.kind != CardKind::Shared || is_sane_shared(&spec.terms))
        && are_sane(&spec.terms)
}

/// What a code that is sold many times is sold for must not begin, or end, with one of its buyers.
fn is_sane_shared(terms: &ProductTerms) -> bool {
    (1..=SHARED_USES_MAX).contains(&terms.uses) && terms.valid_from == ValidFrom::Import
}

const fn counts_uses(kind: CardKind) -> bool {
    matches!(kind, CardKind::MultiUse | CardKind::Shared)
}

fn are_sane(terms: &ProductTerms) -> bool {
    (1..=TERM_S_MAX).contains(&terms.reserve_s)
        && (1..=TERM_S_MAX).contains(&terms.hold_s)
        && terms.value_max >= 0
        && terms.class < 64
        && terms.merchants.len() <= SCOPE_PRODUCTS_MAX
        && terms.stores.len() <= SCOPE_PRODUCTS_MAX
        && terms.attributes.len() <= ATTRIBUTES_BYTES_MAX
        && !terms.attributes.chars().any(char::is_control)
}

fn is_sane_principal(spec: &PrincipalSpec) -> bool {
    (1..=NAME_BYTES_MAX).contains(&spec.name.len())
        && !spec.name.chars().any(char::is_control)
        && spec.products.len() <= SCOPE_PRODUCTS_MAX
        && spec.misses_per_minute <= MISSES_PER_MINUTE_MAX
        // Whoever adds principals could give itself another scope.
        && (spec.role != Role::Admin || spec.products.is_empty() && spec.classes == 0)
}

impl State {
    /// Freezes a product or ends its freeze.
    pub fn set_product_frozen(&mut self, id: ProductId, frozen: bool, lsn: Lsn) {
        let state = &mut self.products[id.0 as usize - 1];
        state.product.frozen = frozen;
        state.lsn = lsn;
    }

    /// Withdraws a principal.
    pub fn revoke_principal(&mut self, id: PrincipalId, lsn: Lsn) {
        let state = &mut self.principals[id.0 as usize - 1];
        state.principal.revoked = true;
        state.lsn = lsn;
    }

    /// Changes a batch as an entry of `kind` says.
    pub(crate) fn change_batch(&mut self, batch: &Batch, kind: Kind, change: &BatchMove, lsn: Lsn) {
        match kind {
            Kind::BatchActivate | Kind::BatchDeactivate => {
                let rows = change.rows.clone().unwrap_or(0..batch.rows());
                let active = kind == Kind::BatchActivate;
                self.stock_mut(batch.id).activate(batch, &rows, active, change.now_ms);
            }
            Kind::BatchFreeze => batch.set_frozen(true),
            Kind::BatchUnfreeze => batch.set_frozen(false),
            Kind::BatchVoid => batch.set_voided(),
            Kind::BatchExtend => batch.set_extended_ms(change.expires_ms),
            _ => unreachable!("no change of a batch"),
        }
        let stock = self.stock_mut(batch.id);
        stock.lsn = lsn;
        if kind == Kind::BatchExtend {
            // Rows that had expired were passed over and are for sale again.
            stock.rewind();
        }
        self.note_stock(batch);
    }

    fn show_product(&self, id: ProductId, tenant: TenantId) -> ReplyBody {
        let product = self.product(id, tenant).map(|state| state.product.clone());
        ReplyBody::Products(product.into_iter().collect())
    }

    fn show_principal(&self, id: PrincipalId) -> ReplyBody {
        let principal = self.principals.get(id.0 as usize - 1).map(|state| state.principal.clone());
        ReplyBody::Principals(principal.into_iter().collect())
    }

    /// A batch, to be shown.
    #[must_use]
    pub fn batch_report(&self, batch: &Batch) -> BatchReport {
        BatchReport {
            id: batch.id,
            product: batch.product,
            label: batch.label.clone(),
            imported_ms: batch.imported_ms,
            counts: self.stock(batch.id).counts,
            active: batch.is_active(),
            active_rows: self.stock(batch.id).activity().count(),
            frozen: batch.is_frozen(),
            voided: batch.is_voided(),
            expires_ms: if batch.expires_ms == 0 { 0 } else { batch.expires_ms.max(batch.extended_ms()) },
        }
    }

    /// The batch numbers in use, for a new one.
    #[must_use]
    pub fn next_batch(&self) -> BatchId {
        BatchId((self.stocks.len() as u32).max(1))
    }
}
