//! The limits of all tenants, and what counts against them.
//!
//! A pure data structure under the sequencer's lock, exact to the unit: a command asks [`Limits::check`] (for
//! purchases) or [`Limits::check_till`] (for redemptions) under the same lock under which it then takes, so
//! nothing can come in between. Once its entry is published it calls [`Limits::take`]; a reservation that is
//! cancelled or timed out calls [`Limits::give_back`]. What open reservations count is kept by
//! [`Limits::open`] and [`Limits::close`].
//!
//! # Invariants
//! * What was taken is kept by subject, each with the position of its last entry, by which replay over a
//!   fuzzy snapshot skips what the snapshot has. A subject with nothing in any window is forgotten; that it
//!   was there makes no difference to anything, [`Limits::hash`] included.
//! * A limit counts what was taken after it was set. So replaying an entry under limits that came later, as a
//!   snapshot may have them, counts what the first execution counted.
//! * Scope, product and window of a limit never change: what was counted would mean something else.
//! * What is open is derived from the orders, never stored.

mod open;
mod stored;
mod subject;
#[cfg(test)]
mod tests;
mod tills;

use std::collections::{BTreeSet, HashMap};

use kami_wal::Lsn;

use self::open::Open;
use crate::identity::{LimitId, ProductId, TenantId};
use crate::limit::{Exceeded, Limit, LimitAction, LimitScope, LimitSpec, LimitWindow, Subject};
use crate::sharded::Sharded;
use crate::window::Window;

pub use stored::{LimitRow, StoredLimit, UsageRow};
pub use subject::{Buyer, Till};
pub(crate) use tills::{CROSSING_ENTRY_BYTES, CROSSINGS_PER_REQUEST, Tills};

/// The most limits that stand in one tenant at a time.
pub const LIMITS_MAX: usize = 64;
/// The most crossings that one command records; what is over is recorded by the next that crosses.
pub const CROSSED_MAX: usize = 4;

/// Subjects looked at for forgetting with each command that counts.
const FORGOTTEN_PER_TAKE: usize = 2;
/// How long after its first unit a subject is looked at for forgetting.
const LOOK_AGAIN_MS: u64 = 3_600_000;

/// A limit with its places in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitState {
    /// The limit.
    pub limit: Limit,
    /// The entry that set it first: what was taken before does not count.
    pub since: Lsn,
    /// Its last entry.
    pub lsn: Lsn,
}

/// A limit that a command crosses whose action is [`LimitAction::Alert`]: what its LIMIT_CROSSED entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossed {
    /// The limit.
    pub limit: LimitId,
    /// Who crossed it.
    pub subject: Subject,
    /// What is in its window with this command.
    pub units: u64,
}

type Key = (TenantId, Subject);

/// What one subject took.
struct Usage {
    /// The last entry that changed it.
    lsn: Option<Lsn>,
    windows: Vec<(LimitId, Window)>,
}

impl Usage {
    fn window(&self, limit: LimitId) -> Option<&Window> {
        self.windows.iter().find(|(id, _)| *id == limit).map(|(_, window)| window)
    }

    fn window_mut(&mut self, limit: LimitId) -> &mut Window {
        let at = self.windows.iter().position(|(id, _)| *id == limit).unwrap_or_else(|| {
            self.windows.push((limit, Window::default()));
            self.windows.len() - 1
        });
        &mut self.windows[at].1
    }
}

/// The limits.
#[derive(Default)]
pub struct Limits {
    /// By number, those that are taken away included; number 1 is the first.
    limits: Vec<LimitState>,
    /// By name the last one that was set, be it taken away or not: a retry is found by it.
    names: HashMap<(TenantId, String), LimitId>,
    /// Those that stand, by tenant, in order of number.
    standing: HashMap<TenantId, Vec<LimitId>>,
    /// How many of them count redemptions.
    of_redemptions: usize,
    usage: Sharded<Key, Usage>,
    /// When to look whether a subject can be forgotten: each is there once, at the latest when it can.
    due: BTreeSet<(u64, Key)>,
    open: HashMap<Key, Open>,
    /// When something last counted. What lies in the windows of that moment is what is kept and compared: time
    /// goes on by itself, and forgets at its own pace.
    counted_ms: u64,
}

impl Limits {
    /// The limit with this number, if it is the tenant's.
    #[must_use]
    pub fn find(&self, id: LimitId, tenant: TenantId) -> Option<&LimitState> {
        self.at(id).filter(|state| state.limit.tenant == tenant)
    }

    /// The last limit of this name, be it taken away or not.
    #[must_use]
    pub fn named(&self, tenant: TenantId, name: &str) -> Option<&LimitState> {
        self.names.get(&(tenant, name.to_owned())).and_then(|id| self.at(*id))
    }

    /// All that were ever set, in order of number.
    #[must_use]
    pub fn all(&self) -> &[LimitState] {
        &self.limits
    }

    /// How many stand in a tenant.
    #[must_use]
    pub fn standing(&self, tenant: TenantId) -> usize {
        self.standing.get(&tenant).map_or(0, Vec::len)
    }

    /// The number of the next new limit.
    #[must_use]
    pub fn next(&self) -> LimitId {
        LimitId(self.limits.len() as u32 + 1)
    }

    /// Whether any limit counts redemptions: one look for the many that have none.
    #[inline]
    #[must_use]
    pub fn any_terminal(&self) -> bool {
        self.of_redemptions > 0
    }

    fn at(&self, id: LimitId) -> Option<&LimitState> {
        self.limits.get((id.0 as usize).checked_sub(1)?)
    }

    /// Sets a limit, or changes one. `id` is known, or [`Limits::next`].
    pub fn put(&mut self, id: LimitId, tenant: TenantId, spec: LimitSpec, lsn: Lsn) {
        self.place(LimitState { limit: Limit { id, tenant, spec }, since: lsn, lsn });
    }

    fn place(&mut self, state: LimitState) {
        let Limit { id, tenant, spec } = &state.limit;
        let (id, tenant, ended) = (*id, *tenant, spec.ended);
        let key = (tenant, spec.name.clone());
        let was = self.at(id).is_some_and(|state| !state.limit.spec.ended);
        let standing = self.standing.entry(tenant).or_default();
        let of_redemptions = usize::from(spec.is_of_redemptions());
        match (was, !ended) {
            (false, true) => {
                standing.push(id);
                self.of_redemptions += of_redemptions;
            }
            (true, false) => {
                standing.retain(|other| *other != id);
                self.of_redemptions -= of_redemptions;
            }
            _ => {}
        }
        self.names.insert(key, id);
        let index = id.0 as usize - 1;
        match self.limits.get_mut(index) {
            Some(known) => *known = LimitState { since: known.since, ..state },
            None => self.limits.push(state),
        }
    }

    fn standing_in(&self, tenant: TenantId) -> impl Iterator<Item = &LimitState> + '_ {
        let ids = self.standing.get(&tenant).map_or(&[][..], Vec::as_slice);
        ids.iter().map(|id| &self.limits[id.0 as usize - 1])
    }

    fn used(&self, key: &Key, limit: &Limit, now_ms: u64) -> u64 {
        let open = || self.open.get(key).copied().unwrap_or_default();
        match limit.spec.window {
            LimitWindow::OpenCards => open().cards,
            LimitWindow::OpenOrders => open().orders,
            kind => {
                let window = self.usage.get(key).and_then(|usage| usage.window(limit.id));
                window.map_or(0, |window| window.units(kind, now_ms))
            }
        }
    }

    /// Whether `buyer` may buy `lines` (product and cards) now. `reserves` says that they are not paid at
    /// once. `crossed` is overwritten with the alerts that the command is to record in its own group, at most
    /// [`CROSSED_MAX`].
    ///
    /// # Errors
    /// The limit that stands against it; of several, the one that opens last.
    pub fn check(
        &self,
        buyer: &Buyer,
        lines: &[(ProductId, u64)],
        reserves: bool,
        now_ms: u64,
        crossed: &mut Vec<Crossed>,
    ) -> Result<(), Exceeded> {
        crossed.clear();
        let mut worst: Option<Exceeded> = None;
        for state in self.standing_in(buyer.tenant) {
            let limit = &state.limit;
            let spec = &limit.spec;
            let wanted = match spec.window {
                LimitWindow::OpenCards | LimitWindow::OpenOrders if !reserves => 0,
                LimitWindow::OpenOrders => 1,
                _ => units_of(lines, spec.product),
            };
            if wanted == 0 {
                continue;
            }
            let Some(subject) = buyer.subject(spec) else {
                if spec.scope == LimitScope::Order && wanted > spec.max {
                    let status = limit.status();
                    worse(
                        &mut worst,
                        Exceeded { limit: limit.id, status, left: spec.max, opens_ms: u64::MAX },
                    );
                }
                continue;
            };
            let found = self.weigh(limit, subject, wanted, 0, now_ms, crossed);
            found.into_iter().for_each(|exceeded| worse(&mut worst, exceeded));
        }
        crossed.truncate(CROSSED_MAX);
        if reserves {
            let found = self.weigh_caps(buyer, units_of(lines, None));
            found.into_iter().for_each(|exceeded| worse(&mut worst, exceeded));
        }
        worst.map_or(Ok(()), Err)
    }

    /// Whether a card of `product` may be redeemed at `till` now; `pending` are redemptions that were decided
    /// before in the same record. `crossed` is as for [`Limits::check`], but added to.
    ///
    /// # Errors
    /// See [`Limits::check`].
    pub fn check_till(
        &self,
        till: &Till,
        product: ProductId,
        pending: &[(Till, ProductId)],
        now_ms: u64,
        crossed: &mut Vec<Crossed>,
    ) -> Result<(), Exceeded> {
        let mut worst: Option<Exceeded> = None;
        for state in self.standing_in(till.tenant) {
            let (limit, spec) = (&state.limit, &state.limit.spec);
            let counts = |other: ProductId| spec.product.is_none_or(|own| own == other);
            let of_redemptions = spec.is_of_redemptions();
            let subject = till.subject(spec.scope).filter(|_| of_redemptions && counts(product));
            let Some(subject) = subject else { continue };
            let same = |(other, product): &&(Till, ProductId)| {
                other.tenant == till.tenant && other.subject(spec.scope) == Some(subject) && counts(*product)
            };
            let before = pending.iter().filter(same).count() as u64;
            let found = self.weigh(limit, subject, 1, before, now_ms, crossed);
            found.into_iter().for_each(|exceeded| worse(&mut worst, exceeded));
        }
        worst.map_or(Ok(()), Err)
    }

    /// One limit and one of its subjects. `pending` units are taken already, but not installed.
    fn weigh(
        &self,
        limit: &Limit,
        subject: Subject,
        wanted: u64,
        pending: u64,
        now_ms: u64,
        crossed: &mut Vec<Crossed>,
    ) -> Option<Exceeded> {
        let (spec, kind) = (&limit.spec, limit.spec.window);
        let key = (limit.tenant, subject);
        let used = self.used(&key, limit, now_ms).saturating_add(pending);
        let units = used.saturating_add(wanted);
        if units <= spec.max {
            return None;
        }
        let window = self.usage.get(&key).and_then(|usage| usage.window(limit.id));
        if spec.action == LimitAction::Alert {
            let known = window.is_some_and(|window| window.is_crossed(kind, now_ms))
                || crossed.iter().any(|other| other.limit == limit.id && other.subject == subject);
            if !known {
                crossed.push(Crossed { limit: limit.id, subject, units });
            }
            return None;
        }
        let is_open = kind.is_open();
        // Of what is in the window, so much may stay; what is not installed yet stays for a whole window.
        let stays = spec.max.checked_sub(wanted).filter(|_| !is_open);
        let opens_ms = match stays.map(|stays| stays.checked_sub(pending)) {
            None => u64::MAX,
            Some(None) => kind.lasts_ms(now_ms),
            Some(Some(stays)) => window.map_or(0, |window| window.opens_ms(kind, now_ms, stays)),
        };
        let left = spec.max.saturating_sub(used);
        Some(Exceeded { limit: limit.id, status: limit.status(), left, opens_ms })
    }

    /// Counts what the entry at `lsn` bought, when it is executed and when it is replayed.
    pub fn take(&mut self, buyer: &Buyer, lines: &[(ProductId, u64)], now_ms: u64, lsn: Lsn) {
        for subject in buyer.subjects() {
            let applies = |state: &LimitState| units_of(lines, state.limit.spec.product) > 0;
            self.change((buyer.tenant, subject), now_ms, lsn, true, applies, |window, spec| {
                window.take(spec.window, now_ms, units_of(lines, spec.product));
            });
        }
        self.forget(FORGOTTEN_PER_TAKE);
    }

    /// Counts one redemption of `product`, as [`Limits::take`].
    pub fn take_till(&mut self, till: &Till, product: ProductId, now_ms: u64, lsn: Lsn) {
        for subject in till.subjects() {
            let applies = |state: &LimitState| state.limit.spec.product.is_none_or(|own| own == product);
            self.change((till.tenant, subject), now_ms, lsn, true, applies, |window, spec| {
                window.take(spec.window, now_ms, 1);
            });
        }
        self.forget(FORGOTTEN_PER_TAKE);
    }

    /// Takes back what the entry at `taken` counted at `taken_ms`, by the entry at `lsn`: a reservation was
    /// cancelled, or timed out. Units that left their window by themselves are not given back, nor is
    /// anything to limits that were set after they were taken.
    pub fn give_back(
        &mut self,
        buyer: &Buyer,
        lines: &[(ProductId, u64)],
        (taken, taken_ms): (Lsn, u64),
        now_ms: u64,
        lsn: Lsn,
    ) {
        for subject in buyer.subjects() {
            let applies = |state: &LimitState| state.since < taken;
            self.change((buyer.tenant, subject), now_ms, lsn, false, applies, |window, spec| {
                window.give_back(spec.window, taken_ms, units_of(lines, spec.product));
            });
        }
    }

    /// Notes that the entry at `lsn`, written at `now_ms`, recorded a crossing.
    pub fn mark_crossed(&mut self, tenant: TenantId, crossed: &Crossed, now_ms: u64, lsn: Lsn) {
        let applies = |state: &LimitState| state.limit.id == crossed.limit;
        self.change((tenant, crossed.subject), now_ms, lsn, true, applies, |window, spec| {
            window.set_crossed(spec.window, now_ms);
        });
    }

    /// Changes what one subject took of every limit that counts it and applies, unless it has the entry
    /// already.
    fn change(
        &mut self,
        key: Key,
        now_ms: u64,
        lsn: Lsn,
        creates: bool,
        applies: impl Fn(&LimitState) -> bool,
        mut each: impl FnMut(&mut Window, &LimitSpec),
    ) {
        let Limits { limits, standing, usage, due, counted_ms, .. } = self;
        let ids = standing.get(&key.0).map_or(&[][..], Vec::as_slice);
        let states = ids.iter().map(|id| &limits[id.0 as usize - 1]);
        let counts =
            |state: &&LimitState| state.since < lsn && state.limit.spec.counts(key.1) && applies(state);
        let mut counted = states.filter(counts).peekable();
        if counted.peek().is_none() {
            return;
        }
        *counted_ms = now_ms.max(*counted_ms);
        if usage.get(&key).is_none() {
            if !creates {
                return;
            }
            usage.insert(key, Usage { lsn: None, windows: Vec::new() });
            due.insert((now_ms + LOOK_AGAIN_MS, key));
        }
        let usage = usage.get_mut(&key).expect("put there if it was not");
        if usage.lsn >= Some(lsn) {
            return;
        }
        usage.lsn = Some(lsn);
        for state in counted {
            each(usage.window_mut(state.limit.id), &state.limit.spec);
        }
    }

    /// Forgets subjects that have nothing in any window, looking at up to `count` that it is time to look at.
    fn forget(&mut self, count: usize) {
        let now_ms = self.counted_ms;
        for _ in 0..count {
            let Some(&(at_ms, key)) = self.due.first().filter(|(at_ms, _)| *at_ms <= now_ms) else { return };
            self.due.remove(&(at_ms, key));
            match self.ends_ms(&key, now_ms) {
                0 => self.usage.remove(&key),
                // A limit may be taken away meanwhile, so nothing is put off for good.
                ends_ms => {
                    let again_ms = ends_ms.clamp(now_ms + 1, now_ms + 24 * LOOK_AGAIN_MS);
                    self.due.insert((again_ms, key));
                }
            }
        }
    }

    /// When a subject will have nothing in any window; 0 is already so.
    fn ends_ms(&self, key: &Key, now_ms: u64) -> u64 {
        let windows = self.usage.get(key).map_or(&[][..], |usage| usage.windows.as_slice());
        let of = |(id, window): &(LimitId, Window)| {
            let spec = &self.at(*id)?.limit.spec;
            (!spec.ended).then(|| window.ends_ms(spec.window, now_ms))
        };
        windows.iter().filter_map(of).max().unwrap_or(0)
    }

    /// How many subjects are remembered.
    #[must_use]
    #[cfg(test)]
    pub fn subjects(&self) -> u64 {
        self.usage.count()
    }
}

/// The units of a product, or of all.
fn units_of(lines: &[(ProductId, u64)], product: Option<ProductId>) -> u64 {
    let counts = |line: &&(ProductId, u64)| product.is_none_or(|own| own == line.0);
    lines.iter().filter(counts).map(|(_, units)| units).sum()
}

/// Keeps the one that opens last.
fn worse(worst: &mut Option<Exceeded>, found: Exceeded) {
    if worst.is_none_or(|worst| worst.opens_ms < found.opens_ms) {
        *worst = Some(found);
    }
}
