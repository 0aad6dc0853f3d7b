//! The oracle's state: what a store must hold, kept in plain maps and changed by plain events.
//!
//! It is written from the rules and shares no code with the engine but the types of its interface. Every
//! command that has an effect becomes one [`Event`]; the state after a crash is the state at the last
//! restart and the events that survived, applied again. So the oracle can be rolled back to any prefix.

use std::collections::BTreeMap;

use kami_engine::{
    AccountSpec, CardKind, DualControl, Exception, ExceptionNote, Flags, Kind, Leg, Lifecycle, LimitId,
    LimitSpec, Line, OrderState, Posting, PrincipalSpec, ProductSpec, Renewal, Subject, ValidFrom,
};

use super::control_rules::Proposed;
use super::money_rules::{Book, Counted, Document, LimitBook};
use super::till_rules::{Excepted, Tried};
use crate::ask::{Ask, BatchChange, LifeChange, What};

/// A card by its place: batch number and row.
pub type Place = (u32, usize);

/// Everything.
#[derive(Clone, Default)]
pub struct Oracle {
    /// Engine time: what the last group in the log says.
    pub now_ms: u64,
    pub products: BTreeMap<u32, Product>,
    pub batches: BTreeMap<u32, Batch>,
    /// Batch numbers in the order they were committed, which is the order they are sold in.
    pub committed: Vec<u32>,
    /// By tenant and code.
    pub codes: BTreeMap<(u16, String), Place>,
    /// By tenant and id.
    pub orders: BTreeMap<(u16, u128), Order>,
    pub principals: BTreeMap<u32, Principal>,
    /// But for the house.
    pub tenants: BTreeMap<u16, Tenant>,
    pub accounts: BTreeMap<u32, Book>,
    /// By tenant and id.
    pub documents: BTreeMap<(u16, u128), Document>,
    pub limits: BTreeMap<u32, LimitBook>,
    /// What was asked of limits, by tenant and name.
    pub limit_past: Vec<((u16, String), Past)>,
    /// Every purchase and redemption there ever was.
    pub counted: Vec<Counted>,
    /// Alerts that were recorded: of which limit, set off by whom, when.
    pub crossed: Vec<(LimitId, Subject, u64)>,
    /// Redemptions that were made offline and did not fit, in order of number.
    pub exceptions: Vec<Excepted>,
    /// What was proposed, in order of number.
    pub proposals: Vec<Proposed>,
    /// What of tenants takes two people, where it was set.
    pub controls: BTreeMap<u16, (DualControl, Vec<Past>)>,
    /// Until when a card is locked for whom.
    pub pin_locks: BTreeMap<Tried, u64>,
    /// Wrong PINs since the last start: how many in a row, and when the last.
    pub pin_tries: BTreeMap<Tried, (u32, u64)>,
    /// How many effects there were.
    pub effects: u64,
    /// By tenant and request id.
    pub imports: BTreeMap<(u16, u128), u32>,
}

/// What an event moved of a card's value, and what it left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    pub amount: i64,
    pub remaining: i64,
    pub held: i64,
    /// Of a hold.
    pub deadline_ms: u64,
    /// From when the card is valid then, if that follows from what happened to it.
    pub begun_ms: u64,
}

/// What orders took of a card that is sold many times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    pub sold: u32,
    pub reserved: u32,
    /// Taken back after the code was given out.
    pub returned: u32,
}

/// An open hold.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    pub amount: i64,
    pub deadline_ms: u64,
    pub merchant: kami_engine::MerchantId,
}

/// Something that happened to an object; a retry is recognised by it.
#[derive(Clone, Debug)]
pub struct Past {
    pub kind: Kind,
    /// Where it stands. `None` until a reply tells.
    pub lsn: Option<u64>,
    pub time_ms: u64,
    /// The state it left a card in.
    pub lifecycle: Lifecycle,
    pub flags: Flags,
    pub ask: Ask,
    /// The order of a sale, the original of a reversal, the hold of a capture.
    pub related: u128,
    /// What it moved of the card's value, if that is used in parts or held.
    pub moved: Moved,
    /// Whether a redemption was reversed since.
    pub reversed: bool,
}

impl Past {
    /// Whether it says to which order the card belongs.
    pub fn is_of_order(&self) -> bool {
        self.kind.is_order() || matches!(self.kind, Kind::Replace | Kind::Replacement)
    }

    /// Whether its request id belongs to the card: that of a sale is the order's, and the engine itself has none.
    pub fn has_id(&self) -> bool {
        !self.kind.is_order() && self.kind != Kind::HoldTimeout
    }
}

#[derive(Clone)]
pub struct Product {
    pub tenant: u16,
    pub spec: ProductSpec,
    pub frozen: bool,
    pub past: Vec<Past>,
}

#[derive(Clone)]
pub struct Principal {
    pub spec: PrincipalSpec,
    pub revoked: bool,
    pub past: Vec<Past>,
}

#[derive(Clone)]
pub struct Tenant {
    pub name: String,
    pub frozen: bool,
    pub past: Vec<Past>,
}

#[derive(Clone)]
pub struct Batch {
    pub tenant: u16,
    pub product: u32,
    pub label: String,
    pub import: u128,
    pub imported_by: kami_engine::PrincipalId,
    pub imported_ms: u64,
    pub import_lsn: Option<u64>,
    pub face: i64,
    pub valid_from_ms: u64,
    pub expires_ms: u64,
    pub has_expiries: bool,
    /// From what, and for how many days, where no end is said.
    pub validity: Option<(ValidFrom, u32)>,
    /// Since when each row is active, if it is.
    pub active: Vec<Option<u64>>,
    pub frozen: bool,
    pub voided: bool,
    pub extended_ms: u64,
    pub past: Vec<Past>,
    pub cards: Vec<Card>,
}

#[derive(Clone)]
pub struct Card {
    pub code: String,
    pub pin: Option<String>,
    pub face: Option<i64>,
    /// Its own end of validity; 0 is the batch's.
    pub expires_ms: u64,
    pub lifecycle: Lifecycle,
    pub flags: Flags,
    /// What it was in the system it comes from, if its import says so.
    pub origin: Option<kami_engine::Origin>,
    /// Everything but the import, oldest first.
    pub past: Vec<Past>,
    /// Those that nothing has ended yet.
    pub holds: BTreeMap<u128, Hold>,
    /// Of a card that is sold many times.
    pub uses: Uses,
}

#[derive(Clone)]
pub struct Order {
    pub id: u128,
    /// How many orders there were when it was opened.
    pub number: usize,
    pub state: OrderState,
    /// Its cards: of its sale, less what came back and with others in the place of what was replaced; or of its
    /// reservation if it was never sold.
    pub cards: Vec<Place>,
    /// How many cards it was opened with.
    pub opened_with: u32,
    /// Whether it was sold without its codes, and whether they were fetched since.
    pub sealed: bool,
    pub fetched: bool,
    pub deadline_ms: u64,
    pub account: u32,
    /// From where it was bought.
    pub ip: u64,
    pub lines: Vec<Line>,
    /// What its first entry says of money.
    pub legs: Vec<Leg>,
    /// Its entries, oldest first.
    pub past: Vec<Past>,
    /// Where its cards were given to it, and its last entry.
    pub sold_lsn: Option<u64>,
    pub last_lsn: Option<u64>,
}

/// How an order and its cards move.
#[derive(Clone)]
pub struct OrderChange {
    pub tenant: u16,
    pub order: u128,
    pub subject: u32,
    pub cards: Vec<Place>,
    /// Whether the codes are not delivered; of a RETURN, whether nobody saw them.
    pub sealed: bool,
    pub deadline_ms: u64,
    pub account: u32,
    pub ip: u64,
    pub lines: Vec<Line>,
    /// What moves, or is set aside by a reservation.
    pub legs: Vec<Leg>,
}

/// One effect. What the log must hold of it is its kind, request id, principal, time and subject.
#[derive(Clone)]
pub struct Event {
    pub kind: Kind,
    pub ask: Ask,
    pub time_ms: u64,
    pub lsn: Option<u64>,
    pub effect: Effect,
}

/// A replacement that gave its card no end of validity.
pub const NO_END: u64 = u64::MAX;

/// What an event changes.
#[derive(Clone)]
pub enum Effect {
    /// One card gets this state.
    Card {
        place: Place,
        lifecycle: Lifecycle,
        flags: Flags,
        related: u128,
        moved: Moved,
    },
    /// One of two cards that one command moves gets this state.
    Pair {
        place: Place,
        lifecycle: Lifecycle,
        flags: Flags,
        other: Place,
        /// Where the one takes the place of the other.
        order: Option<(u16, u128)>,
        /// Of a REPLACEMENT `deadline_ms` is the end of validity that it gave, [`NO_END`] if none.
        moved: Moved,
    },
    Order(Box<OrderChange>),
    /// Codes were given out again: changes nothing but stands in the log, unless they had not been delivered with
    /// this order.
    Reveal(Option<(u16, u128)>),
    ProductPut {
        id: u32,
        tenant: u16,
        spec: ProductSpec,
    },
    ProductFreeze {
        id: u32,
        frozen: bool,
    },
    Batch {
        id: u32,
        change: BatchChange,
    },
    PrincipalAdd {
        id: u32,
        spec: PrincipalSpec,
    },
    PrincipalRevoke {
        id: u32,
    },
    PrincipalRenew {
        id: u32,
        renewal: Renewal,
    },
    Import {
        id: u32,
        batch: Box<Batch>,
    },
    AccountPut {
        id: u32,
        tenant: u16,
        spec: AccountSpec,
    },
    AccountFreeze {
        id: u32,
        frozen: bool,
    },
    Post(Posting),
    LimitPut {
        id: u32,
        tenant: u16,
        spec: LimitSpec,
    },
    Exception(Box<Exception>),
    ExceptionResolve(ExceptionNote),
    TenantPut {
        id: u16,
        name: String,
    },
    TenantFreeze {
        id: u16,
        frozen: bool,
    },
    Propose {
        number: u64,
        lapse_s: u32,
    },
    /// The end of a proposal: by an approval, or not.
    End {
        number: u64,
        approved: bool,
    },
    Control {
        tenant: u16,
        control: DualControl,
    },
    PinLock {
        place: Place,
        until_ms: u64,
    },
    LimitCrossed {
        limit: LimitId,
        subject: Subject,
    },
}

impl Event {
    /// The subject of the entry in the log; `None` where it has none of its own.
    pub fn subject(&self) -> Option<u64> {
        match &self.effect {
            Effect::Card { place: (batch, row), .. }
            | Effect::Pair { place: (batch, row), .. }
            | Effect::PinLock { place: (batch, row), .. } => Some(u64::from(*batch) << 40 | *row as u64),
            Effect::Order(change) => Some(u64::from(change.subject)),
            Effect::Reveal(_) => None,
            Effect::ProductPut { id, .. }
            | Effect::ProductFreeze { id, .. }
            | Effect::Batch { id, .. }
            | Effect::PrincipalAdd { id, .. }
            | Effect::PrincipalRevoke { id }
            | Effect::PrincipalRenew { id, .. }
            | Effect::AccountPut { id, .. }
            | Effect::AccountFreeze { id, .. }
            | Effect::LimitPut { id, .. }
            | Effect::Import { id, .. } => Some(u64::from(*id)),
            Effect::TenantPut { id, .. } | Effect::TenantFreeze { id, .. } => Some(u64::from(*id)),
            Effect::Propose { number, .. } | Effect::End { number, .. } => Some(*number),
            Effect::Control { tenant, .. } => Some(u64::from(*tenant)),
            Effect::LimitCrossed { limit, .. } => Some(u64::from(limit.0)),
            Effect::Exception(exception) => Some(exception.id),
            Effect::ExceptionResolve(given) => Some(given.id),
            Effect::Post(_) => None,
        }
    }

    pub fn past(&self, lifecycle: Lifecycle, flags: Flags, related: u128) -> Past {
        let Event { kind, ask, time_ms, lsn, .. } = self.clone();
        let moved = Moved::default();
        Past { kind, lsn, time_ms, lifecycle, flags, ask, related, moved, reversed: false }
    }
}

impl Oracle {
    pub fn card(&self, place: Place) -> &Card {
        &self.batches[&place.0].cards[place.1]
    }

    pub fn card_mut(&mut self, place: Place) -> &mut Card {
        let batch = self.batches.get_mut(&place.0).expect("the event is about a known batch");
        &mut batch.cards[place.1]
    }

    pub fn find(&self, tenant: u16, code: &str) -> Option<Place> {
        self.codes.get(&(tenant, code.to_owned())).copied()
    }

    /// All cards with their tenant.
    pub fn places(&self) -> impl Iterator<Item = (u16, Place)> + '_ {
        self.batches
            .iter()
            .flat_map(|(id, batch)| (0..batch.cards.len()).map(|row| (batch.tenant, (*id, row))))
    }

    /// Makes an event's change.
    pub fn apply(&mut self, event: &Event) {
        self.now_ms = self.now_ms.max(event.time_ms);
        self.count(event);
        match &event.effect {
            &Effect::Card { place, lifecycle, flags, related, moved } => {
                let past = Past { moved, ..event.past(lifecycle, flags, related) };
                let mut unlocked = false;
                if event.kind == Kind::Reverse {
                    let (owner, at) = self.find_undone(place, related).expect("what is reversed happened");
                    self.card_mut(owner).past[at].reversed = true;
                }
                let card = self.card_mut(place);
                assert!(
                    card.lifecycle != Lifecycle::Voided || lifecycle == Lifecycle::Voided,
                    "a void card is void for good"
                );
                match event.kind {
                    Kind::Hold => {
                        let merchant = event.ask.caller.merchant;
                        let Moved { amount, deadline_ms, .. } = moved;
                        card.holds.insert(event.ask.id, Hold { amount, deadline_ms, merchant });
                    }
                    Kind::PinUnlock => unlocked = true,
                    Kind::Capture | Kind::Release | Kind::HoldTimeout | Kind::Reverse => {
                        card.holds.remove(&related);
                    }
                    _ => {}
                }
                (card.lifecycle, card.flags) = (lifecycle, flags);
                card.past.push(past);
                if unlocked {
                    self.pin_locks.retain(|(locked, ..), _| *locked != place);
                }
                if matches!(event.kind, Kind::Redeem | Kind::Hold) {
                    self.pin_tries.remove(&self.tried(&event.ask, place));
                }
            }
            Effect::Pair { .. } => self.apply_pair(event),
            Effect::AccountPut { .. }
            | Effect::AccountFreeze { .. }
            | Effect::Post(_)
            | Effect::LimitPut { .. }
            | Effect::LimitCrossed { .. } => self.apply_money(event),
            Effect::Exception(_) | Effect::ExceptionResolve(_) => self.apply_exception(event),
            Effect::Propose { .. } | Effect::End { .. } | Effect::Control { .. } => self.apply_control(event),
            &Effect::PinLock { place, until_ms } => {
                let tried = self.tried(&event.ask, place);
                self.pin_locks.insert(tried, until_ms);
                self.pin_tries.remove(&tried);
            }
            Effect::Order(change) => self.apply_order(event, change),
            Effect::Reveal(Some(key)) => self.apply_first_reveal(event, *key),
            Effect::Reveal(None) => {}
            Effect::ProductPut { id, tenant, spec } => {
                let past = event.past(Lifecycle::Available, Flags::NONE, 0);
                let fresh = Product { tenant: *tenant, spec: spec.clone(), frozen: false, past: Vec::new() };
                let product = self.products.entry(*id).or_insert(fresh);
                product.spec = spec.clone();
                product.past.push(past);
            }
            Effect::ProductFreeze { id, frozen } => {
                let past = event.past(Lifecycle::Available, Flags::NONE, 0);
                let product = self.products.get_mut(id).expect("known");
                product.frozen = *frozen;
                product.past.push(past);
            }
            Effect::Batch { id, change } => {
                let past = event.past(Lifecycle::Available, Flags::NONE, 0);
                let batch = self.batches.get_mut(id).expect("known");
                match *change {
                    BatchChange::Activate => {
                        batch.active.iter_mut().for_each(|row| *row = row.or(Some(event.time_ms)));
                    }
                    BatchChange::Deactivate => batch.active.fill(None),
                    BatchChange::Rows { from, rows, active } => {
                        for row in &mut batch.active[from as usize..(from + rows) as usize] {
                            *row = if active { row.or(Some(event.time_ms)) } else { None };
                        }
                    }
                    BatchChange::Freeze => batch.frozen = true,
                    BatchChange::Unfreeze => batch.frozen = false,
                    BatchChange::Void => batch.voided = true,
                    BatchChange::Extend(expires_ms) => batch.extended_ms = expires_ms,
                }
                batch.past.push(past);
            }
            Effect::PrincipalAdd { id, spec } => {
                let past = vec![event.past(Lifecycle::Available, Flags::NONE, 0)];
                self.principals.insert(*id, Principal { spec: spec.clone(), revoked: false, past });
            }
            Effect::PrincipalRevoke { id } => {
                let past = event.past(Lifecycle::Available, Flags::NONE, 0);
                let principal = self.principals.get_mut(id).expect("known");
                principal.revoked = true;
                principal.past.push(past);
            }
            Effect::PrincipalRenew { id, renewal } => {
                let past = event.past(Lifecycle::Available, Flags::NONE, 0);
                let principal = self.principals.get_mut(id).expect("known");
                (principal.spec.key, principal.spec.certificate) = (renewal.key, renewal.certificate);
                principal.past.push(past);
            }
            Effect::TenantPut { id, name } => {
                let past = vec![event.past(Lifecycle::Available, Flags::NONE, 0)];
                self.tenants.insert(*id, Tenant { name: name.clone(), frozen: false, past });
            }
            Effect::TenantFreeze { id, frozen } => {
                let past = event.past(Lifecycle::Available, Flags::NONE, 0);
                let tenant = self.tenants.get_mut(id).expect("known");
                tenant.frozen = *frozen;
                tenant.past.push(past);
            }
            Effect::Import { id, batch } => {
                let mut batch = Batch::clone(batch);
                batch.import_lsn = event.lsn;
                batch.imported_ms = event.time_ms;
                batch.active.iter_mut().flatten().for_each(|since_ms| *since_ms = event.time_ms);
                batch.past.push(event.past(Lifecycle::Available, Flags::NONE, 0));
                for (row, card) in batch.cards.iter().enumerate() {
                    let twin = self.codes.insert((batch.tenant, card.code.clone()), (*id, row));
                    assert!(twin.is_none(), "a code is a card once");
                }
                self.imports.insert((batch.tenant, batch.import), *id);
                self.committed.push(*id);
                self.batches.insert(*id, batch);
            }
        }
    }

    pub fn is_unsold(&self, place: Place) -> bool {
        matches!(self.card(place).lifecycle, Lifecycle::Available | Lifecycle::Reserved)
    }

    /// What a card is worth.
    pub fn face(&self, place: Place) -> i64 {
        self.card(place).face.unwrap_or(self.batches[&place.0].face)
    }

    /// When a card ends, extensions included; 0 is never.
    pub fn expires_ms(&self, place: Place) -> u64 {
        let batch = &self.batches[&place.0];
        if let Some(own) = self.own_end(place) {
            return own;
        }
        let own = match self.card(place).expires_ms {
            0 => batch.expires_ms,
            own => own,
        };
        match (own, batch.validity) {
            (0, Some((_, days))) => match self.begun_ms(place) {
                0 => 0,
                begun_ms => begun_ms + u64::from(days) * 24 * 3600 * 1000,
            },
            (0, None) => 0,
            _ => own.max(batch.extended_ms),
        }
    }

    /// The end that the card was given after its import.
    fn own_end(&self, place: Place) -> Option<u64> {
        self.card(place).past.iter().rev().find_map(|past| match (past.kind, &past.ask.what) {
            (Kind::Expire, _) => Some(past.time_ms),
            (Kind::Replacement, _) => Some(past.moved.deadline_ms).filter(|end_ms| *end_ms != NO_END),
            (_, What::Life { change: LifeChange::Extend(expires_ms), .. }) => Some(*expires_ms),
            _ => None,
        })
    }

    /// Whether it can be redeemed once it is sold.
    pub fn is_active(&self, place: Place) -> bool {
        self.is_active_once(place, self.card(place).flags)
    }

    /// The same once its flags are these.
    pub fn is_active_once(&self, place: Place, flags: Flags) -> bool {
        let by_batch = self.batches[&place.0].active[place.1].is_some();
        flags.contains(Flags::ACTIVE)
            || flags.contains(Flags::USED)
            || by_batch && !flags.contains(Flags::INACTIVE)
    }

    pub fn is_expired(&self, place: Place) -> bool {
        self.ends_by(place, self.now_ms)
    }

    pub fn ends_by(&self, place: Place, at_ms: u64) -> bool {
        let expires_ms = self.expires_ms(place);
        expires_ms != 0 && expires_ms <= at_ms
    }

    /// The lifecycle a reader sees where the log says `lifecycle`.
    pub fn effective(&self, place: Place, lifecycle: Lifecycle) -> Lifecycle {
        match lifecycle {
            Lifecycle::Available if self.batches[&place.0].voided => Lifecycle::Voided,
            // What is held does not run out.
            Lifecycle::Sold if self.held(place).1 > 0 => Lifecycle::Sold,
            Lifecycle::Available | Lifecycle::Sold if self.is_expired(place) => Lifecycle::Expired,
            lifecycle => lifecycle,
        }
    }

    pub fn is_frozen(&self, place: Place) -> bool {
        let batch = &self.batches[&place.0];
        self.card(place).flags.contains(Flags::FROZEN)
            || batch.frozen
            || self.is_product_frozen(&self.products[&batch.product])
    }

    /// By itself, or with its tenant.
    pub fn is_product_frozen(&self, product: &Product) -> bool {
        product.frozen || self.tenants.get(&product.tenant).is_some_and(|tenant| tenant.frozen)
    }

    pub fn is_shared(&self, place: Place) -> bool {
        self.kind(place) == CardKind::Shared
    }

    /// How often a card in stock can be sold.
    pub fn room(&self, place: Place) -> u64 {
        let Uses { sold, reserved, .. } = self.card(place).uses;
        let uses = self.products[&self.batches[&place.0].product].spec.terms.uses;
        if self.is_shared(place) { u64::from(uses - sold - reserved) } else { 1 }
    }

    /// Whether an order could take it, if it needs to last beyond `until_ms`.
    pub fn is_sellable(&self, place: Place, until_ms: u64) -> bool {
        let expires_ms = self.expires_ms(place);
        let batch = &self.batches[&place.0];
        let lasts = |days: u32| self.now_ms + u64::from(days) * 24 * 3600 * 1000 > until_ms;
        let lifecycle = self.card(place).lifecycle;
        (lifecycle == Lifecycle::Available || lifecycle == Lifecycle::Sold && self.is_shared(place))
            && self.room(place) > 0
            && !batch.voided
            && batch.validity.is_none_or(|(_, days)| lasts(days))
            && self.products[&batch.product].spec.terms.listed
            && !self.is_frozen(place)
            && (expires_ms == 0 || expires_ms > until_ms)
    }

    /// Cards of a batch by logged lifecycle.
    pub fn counts(&self, batch: u32) -> [u64; Lifecycle::COUNT] {
        let mut counts = [0; Lifecycle::COUNT];
        for card in &self.batches[&batch].cards {
            counts[card.lifecycle as usize] += 1;
        }
        counts
    }
}
