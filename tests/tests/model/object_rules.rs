//! The oracle's rules for products, batches and principals, and for the reads over many of them.

use kami_engine::{
    BatchId, BatchReport, CardKind, Kind, Principal, PrincipalId, Product, ProductId, ProductSpec, Renewal,
    ReplyFlags, Role, Stats, Status, StockLine,
};

use super::expected::{At, Body, Expected};
use super::oracle::{Effect, Oracle, Past};
use super::rules::Verdict;
use crate::ask::{Ask, BatchChange, What};

/// The longest name of a product or principal.
const NAME_BYTES_MAX: usize = 64;

impl Oracle {
    pub fn on_object(&self, ask: &Ask, payload_bytes: u64) -> Verdict {
        let tenant = ask.caller.tenant.0;
        if !self.covers_object(ask) {
            return self.refuse(Status::ScopeDenied);
        }
        if self.is_beyond_tenant(ask) {
            return self.refuse(Status::Forbidden);
        }
        match &ask.what {
            What::ProductPut { spec, adds } => self.put_product(ask, spec, *adds),
            &What::ProductFreeze { product, frozen } => self.freeze_product(ask, product, frozen),
            &What::Batch { batch, change } => self.change_batch(ask, batch, change),
            What::PrincipalAdd(_) => self.add_principal(ask),
            &What::PrincipalRevoke(id) => self.revoke_principal(ask, id),
            &What::PrincipalRenew(renewal) => self.renew_principal(ask, renewal),
            What::ProductList => self.listed(Body::Products(
                self.products
                    .iter()
                    .filter(|(_, product)| product.tenant == tenant)
                    .filter(|(id, _)| self.covers(ask.caller.principal, **id))
                    .map(|(id, _)| self.product_report(*id))
                    .collect(),
            )),
            &What::BatchList { product } => self.listed(Body::Batches(
                self.batches_of(ask, product).map(|id| self.batch_report(id)).collect(),
            )),
            &What::Stock { product } => self
                .listed(Body::Stock(self.batches_of(ask, product).map(|id| self.stock_line(id)).collect())),
            What::PrincipalList => {
                let own = self.principals.iter();
                let own = own.filter(|(_, known)| tenant == 0 || known.spec.tenant.0 == tenant);
                self.listed(Body::Principals(own.map(|(id, _)| self.principal_report(*id)).collect()))
            }
            What::TenantPut(name) => self.put_tenant(ask, name),
            &What::TenantFreeze { tenant, frozen } => self.freeze_tenant(ask, tenant, frozen),
            What::TenantList => self.listed(self.tenant_report(None)),
            What::Stats => self.listed(Body::Stats(self.stats())),
            What::OrderList(query) => self.list_orders(ask, query),
            &What::ExceptionList { after, count, all } => self.list_exceptions(ask, after, count, all),
            What::ExceptionResolve(_) => self.resolve_exception(ask),
            What::TenantControl { .. } => self.set_control(ask),
            // Codes leave in a heap only with a second person.
            What::Export { .. } => self.refuse(Status::ApprovalRequired),
            What::Propose(_) => self.propose(ask, payload_bytes),
            &What::Approve(id) => self.approve(ask, id, payload_bytes),
            &What::Withdraw(id) => self.withdraw(ask, id),
            &What::ProposalList { after, count, all } => self.list_proposals(ask, after, count, all),
            what if what.is_money() => self.on_money(ask),
            _ => unreachable!("about a card or an order"),
        }
    }

    fn listed(&self, body: Body) -> Verdict {
        (Expected { body, ..Expected::plain(Status::Ok, self.now_ms) }, None)
    }

    /// Tenants, the store and the principals of others are none of a tenant's business.
    fn is_beyond_tenant(&self, ask: &Ask) -> bool {
        let own = ask.caller.tenant;
        let strange = |id: u32| self.principals.get(&id).is_some_and(|known| known.spec.tenant != own);
        own.0 != 0
            && match &ask.what {
                What::TenantPut(_) | What::TenantFreeze { .. } | What::TenantList | What::Stats => true,
                What::TenantControl { tenant, .. } => *tenant != own.0,
                What::PrincipalAdd(spec) => spec.tenant != own,
                What::PrincipalRevoke(id) => strange(*id),
                What::PrincipalRenew(renewal) => strange(renewal.principal.0),
                _ => false,
            }
    }

    fn put_tenant(&self, ask: &Ask, name: &str) -> Verdict {
        let known = self.tenants.iter().find(|(_, tenant)| tenant.name == name);
        let refusal = match known {
            _ if name.is_empty() => Some(Status::Malformed),
            Some(_) => Some(Status::AlreadyExists),
            None => None,
        };
        let id = known.map_or(self.tenants.len() as u16 + 1, |(id, _)| *id);
        let past = known.map_or(&[][..], |(_, tenant)| &tenant.past);
        let effect = Effect::TenantPut { id, name: name.to_owned() };
        self.change(ask, past, Kind::TenantPut, refusal, effect, |oracle| oracle.tenant_report(Some(id)))
    }

    fn freeze_tenant(&self, ask: &Ask, id: u16, frozen: bool) -> Verdict {
        let Some(tenant) = self.tenants.get(&id) else { return self.refuse(Status::NotFound) };
        let refusal = (tenant.frozen == frozen).then_some(Status::IllegalTransition);
        let kind = if frozen { Kind::TenantFreeze } else { Kind::TenantUnfreeze };
        let effect = Effect::TenantFreeze { id, frozen };
        self.change(ask, &tenant.past, kind, refusal, effect, |oracle| oracle.tenant_report(Some(id)))
    }

    fn tenant_report(&self, only: Option<u16>) -> Body {
        let wanted = self.tenants.iter().filter(|(id, _)| only.is_none_or(|only| only == **id));
        let report = |(id, tenant): (&u16, &super::oracle::Tenant)| kami_engine::Tenant {
            id: kami_engine::TenantId(*id),
            spec: kami_engine::TenantSpec { name: tenant.name.clone() },
            frozen: tenant.frozen,
        };
        Body::Tenants(wanted.map(report).collect())
    }

    /// A principal with a scope sees and changes nothing else.
    fn covers_object(&self, ask: &Ask) -> bool {
        let principal = ask.caller.principal;
        let scoped = self.principals.get(&principal.0).is_some_and(|known| !known.spec.products.is_empty());
        !scoped
            || match &ask.what {
                What::LimitPut(spec) => spec.product.is_some_and(|product| self.covers(principal, product.0)),
                what if what.is_money() => true,
                What::ProductFreeze { product, .. } => self.covers(principal, *product),
                What::Batch { batch, .. } => {
                    self.batches.get(batch).is_none_or(|batch| self.covers(principal, batch.product))
                }
                What::ProductList | What::BatchList { .. } | What::Stock { .. } => true,
                What::ExceptionList { .. } | What::ExceptionResolve(_) | What::OrderList(_) => true,
                What::Export { .. }
                | What::Propose(_)
                | What::Approve(_)
                | What::Withdraw(_)
                | What::ProposalList { .. } => true,
                _ => false,
            }
    }

    fn batches_of(&self, ask: &Ask, product: Option<u32>) -> impl Iterator<Item = u32> + '_ {
        let (tenant, principal) = (ask.caller.tenant.0, ask.caller.principal);
        let wanted = self.batches.iter().filter(move |(_, batch)| {
            batch.tenant == tenant
                && product.is_none_or(|product| batch.product == product)
                && self.covers(principal, batch.product)
        });
        wanted.map(|(id, _)| *id)
    }

    /// A change of an object whose earlier changes are `past`: a retry, a reused id, a refusal or new.
    /// `show` gives the reply's body in a given state.
    pub fn change(
        &self,
        ask: &Ask,
        past: &[Past],
        kind: Kind,
        refusal: Option<Status>,
        effect: Effect,
        show: impl Fn(&Oracle) -> Body,
    ) -> Verdict {
        if let Some(same) = past.iter().find(|past| past.ask.id == ask.id) {
            let is_retry = same.kind == kind
                && same_object_body(&same.ask.what, &ask.what)
                && same.ask.why == ask.why
                && same.ask.caller.principal == ask.caller.principal;
            if !is_retry {
                return self.refuse(Status::IdReused);
            }
            let expected = Expected {
                flags: ReplyFlags::REPLAYED,
                lsn: At::Known(same.lsn),
                body: show(self),
                ..Expected::plain(Status::Ok, same.time_ms)
            };
            return (expected, None);
        }
        if let Some(status) = refusal {
            return self.refuse(status);
        }
        let event = self.event(ask, kind, effect);
        let mut after = self.clone();
        after.apply(&event);
        let expected =
            Expected { lsn: At::New, body: show(&after), ..Expected::plain(Status::Ok, self.now_ms) };
        (expected, Some(event))
    }

    fn put_product(&self, ask: &Ask, spec: &ProductSpec, adds: bool) -> Verdict {
        let tenant = ask.caller.tenant.0;
        let known = self
            .products
            .iter()
            .find(|(_, product)| product.tenant == tenant && product.spec.name == spec.name);
        let is_sane = (1..=NAME_BYTES_MAX).contains(&spec.name.len())
            && !spec.name.chars().any(char::is_control)
            && spec.currency.iter().all(u8::is_ascii_uppercase)
            && spec.face >= 0
            && spec.terms.attributes.len() <= 255
            && spec.terms.class < 64
            && (spec.kind != CardKind::MultiUse || spec.terms.uses > 0);
        let refusal = match known {
            _ if !is_sane => Some(Status::Malformed),
            _ if spec.kind == CardKind::Shared => Some(Status::Unsupported),
            Some(_) if adds => Some(Status::AlreadyExists),
            None if !adds => Some(Status::NotFound),
            Some((_, product))
                if product.spec.currency != spec.currency
                    || product.spec.kind != spec.kind
                    || spec.kind == CardKind::MultiUse && product.spec.terms.uses != spec.terms.uses =>
            {
                Some(Status::IllegalTransition)
            }
            _ => None,
        };
        let id = known.map_or(self.products.len() as u32 + 1, |(id, _)| *id);
        let past = known.map_or(&[][..], |(_, product)| &product.past);
        let effect = Effect::ProductPut { id, tenant, spec: spec.clone() };
        self.change(ask, past, Kind::ProductPut, refusal, effect, |oracle| {
            Body::Products(vec![oracle.product_report(id)])
        })
    }

    fn freeze_product(&self, ask: &Ask, id: u32, frozen: bool) -> Verdict {
        let known = self.products.get(&id).filter(|product| product.tenant == ask.caller.tenant.0);
        let Some(product) = known else { return self.refuse(Status::NotFound) };
        let refusal = (product.frozen == frozen).then_some(Status::IllegalTransition);
        let kind = if frozen { Kind::ProductFreeze } else { Kind::ProductUnfreeze };
        self.change(ask, &product.past, kind, refusal, Effect::ProductFreeze { id, frozen }, |oracle| {
            Body::Products(vec![oracle.product_report(id)])
        })
    }

    fn change_batch(&self, ask: &Ask, id: u32, change: BatchChange) -> Verdict {
        let known = self.batches.get(&id).filter(|batch| batch.tenant == ask.caller.tenant.0);
        let Some(batch) = known else { return self.refuse(Status::NotFound) };
        let (kind, changes) = match change {
            BatchChange::Activate => (Kind::BatchActivate, batch.active.iter().any(Option::is_none)),
            BatchChange::Deactivate => (Kind::BatchDeactivate, batch.active.iter().any(Option::is_some)),
            BatchChange::Rows { from, rows, active } => {
                let kind = if active { Kind::BatchActivate } else { Kind::BatchDeactivate };
                let ends = from.saturating_add(rows);
                match batch.active.get(from as usize..ends as usize) {
                    None => return self.change_refused(ask, &batch.past, kind, Status::NotFound),
                    Some([]) => return self.change_refused(ask, &batch.past, kind, Status::NotFound),
                    Some(some) => (kind, some.iter().any(|row| row.is_some() != active)),
                }
            }
            BatchChange::Freeze => (Kind::BatchFreeze, !batch.frozen),
            BatchChange::Unfreeze => (Kind::BatchUnfreeze, batch.frozen),
            BatchChange::Void => (Kind::BatchVoid, !batch.voided),
            BatchChange::Extend(expires_ms) => {
                let ends = batch.expires_ms != 0 || batch.has_expiries;
                (Kind::BatchExtend, ends && batch.expires_ms.max(batch.extended_ms) < expires_ms)
            }
        };
        let refusal = (!changes).then_some(Status::IllegalTransition);
        self.change(ask, &batch.past, kind, refusal, Effect::Batch { id, change }, |oracle| {
            Body::Batches(vec![oracle.batch_report(id)])
        })
    }

    /// What cannot be made of an object, unless the request was one that could.
    fn change_refused(&self, ask: &Ask, past: &[Past], kind: Kind, status: Status) -> Verdict {
        let nothing = Effect::Reveal(None);
        self.change(ask, past, kind, Some(status), nothing, |_| Body::None)
    }

    fn add_principal(&self, ask: &Ask) -> Verdict {
        let What::PrincipalAdd(spec) = &ask.what else { unreachable!("adds a principal") };
        let is_same =
            |known: &kami_engine::PrincipalSpec| known.name == spec.name && known.tenant == spec.tenant;
        let known = self.principals.iter().find(|(_, principal)| is_same(&principal.spec));
        let key_known = self.principals.values().any(|principal| principal.spec.key == spec.key);
        let own = |id: &ProductId| self.products.get(&id.0).is_some_and(|p| p.tenant == spec.tenant.0);
        let no_tenant = spec.tenant.0 != 0 && !self.tenants.contains_key(&spec.tenant.0);
        let refusal = if !(1..=NAME_BYTES_MAX).contains(&spec.name.len())
            || spec.role == Role::Admin && (!spec.products.is_empty() || spec.classes != 0)
            || spec.misses_per_minute > 1_000_000
        {
            Some(Status::Malformed)
        } else if no_tenant || !spec.products.iter().all(own) {
            Some(Status::NotFound)
        } else if known.is_some() || key_known {
            Some(Status::AlreadyExists)
        } else {
            None
        };
        let id = known.map_or(self.principals.len() as u32 + 1, |(id, _)| *id);
        let past = known.map_or(&[][..], |(_, principal)| &principal.past);
        let effect = Effect::PrincipalAdd { id, spec: spec.clone() };
        self.change(ask, past, Kind::PrincipalPut, refusal, effect, |oracle| {
            Body::Principals(vec![oracle.principal_report(id)])
        })
    }

    fn revoke_principal(&self, ask: &Ask, id: u32) -> Verdict {
        let Some(principal) = self.principals.get(&id) else { return self.refuse(Status::NotFound) };
        let refusal = if principal.revoked {
            Some(Status::IllegalTransition)
        } else if ask.caller.principal.0 == id {
            Some(Status::Forbidden)
        } else {
            None
        };
        let effect = Effect::PrincipalRevoke { id };
        self.change(ask, &principal.past, Kind::PrincipalRevoke, refusal, effect, |oracle| {
            Body::Principals(vec![oracle.principal_report(id)])
        })
    }

    fn renew_principal(&self, ask: &Ask, renewal: Renewal) -> Verdict {
        let id = renewal.principal.0;
        let Some(principal) = self.principals.get(&id) else { return self.refuse(Status::NotFound) };
        let others = self.principals.iter().filter(|(other, _)| **other != id);
        let refusal = if principal.revoked {
            Some(Status::IllegalTransition)
        } else if others.into_iter().any(|(_, other)| other.spec.key == renewal.key) {
            Some(Status::AlreadyExists)
        } else {
            None
        };
        let effect = Effect::PrincipalRenew { id, renewal };
        self.change(ask, &principal.past, Kind::PrincipalPut, refusal, effect, |oracle| {
            Body::Principals(vec![oracle.principal_report(id)])
        })
    }

    fn product_report(&self, id: u32) -> Product {
        let product = &self.products[&id];
        Product { id: ProductId(id), spec: product.spec.clone(), frozen: product.frozen }
    }

    fn principal_report(&self, id: u32) -> Principal {
        let principal = &self.principals[&id];
        Principal { id: PrincipalId(id), spec: principal.spec.clone(), revoked: principal.revoked }
    }

    pub fn batch_report(&self, id: u32) -> BatchReport {
        let batch = &self.batches[&id];
        BatchReport {
            id: BatchId(id),
            product: ProductId(batch.product),
            label: batch.label.clone(),
            imported_ms: batch.imported_ms,
            counts: self.counts(id),
            active: batch.active.iter().all(Option::is_some),
            active_rows: batch.active.iter().flatten().count() as u64,
            frozen: batch.frozen,
            voided: batch.voided,
            expires_ms: if batch.expires_ms == 0 { 0 } else { batch.expires_ms.max(batch.extended_ms) },
        }
    }

    fn stock_line(&self, id: u32) -> StockLine {
        let batch = &self.batches[&id];
        let sellable = (0..batch.cards.len()).filter(|row| self.is_sellable((id, *row), self.now_ms));
        StockLine {
            product: ProductId(batch.product),
            batch: BatchId(id),
            imported: batch.cards.len() as u64,
            sellable: sellable.count() as u64,
            counts: self.counts(id),
        }
    }

    /// The figures but for those of the log and of the commands, which the world counts.
    fn stats(&self) -> Stats {
        let mut stats = Stats {
            batches: self.batches.len() as u64,
            products: self.products.len() as u64,
            orders: self.orders.len() as u64,
            time_ms: self.now_ms,
            ..Stats::default()
        };
        for (id, batch) in &self.batches {
            stats.cards += batch.cards.len() as u64;
            stats.counts.iter_mut().zip(self.counts(*id)).for_each(|(sum, count)| *sum += count);
        }
        stats
    }
}

/// Whether two changes of one kind ask the same.
fn same_object_body(first: &What, second: &What) -> bool {
    match (first, second) {
        // An addition and a change of a product record the same thing.
        (What::ProductPut { spec: first, .. }, What::ProductPut { spec: second, .. }) => first == second,
        _ => first == second,
    }
}
