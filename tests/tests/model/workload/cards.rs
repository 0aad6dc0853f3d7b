//! What is asked about cards: used, stopped, replaced, asked about, reported from offline.

use kami_engine::{Caller, ExceptionNote, Kind, Lifecycle};

use super::{ADMIN, FINANCE, OPERATOR, SELLERS, TILLS};
use crate::ask::{LifeChange, What};
use crate::model::world::World;

impl World {
    pub(super) fn redeem(&mut self) -> What {
        let code = self.code();
        let place = self.oracle.find(0, &code);
        let pin = place.and_then(|place| self.oracle.card(place).pin.clone());
        let pin = match self.random.below(10) {
            0 => None,
            1 => Some("0000".to_owned()),
            _ => pin,
        };
        let face = place.map_or(100, |place| self.oracle.face(place));
        let amount = match self.random.below(20) {
            0 => face + 1,
            1 => face - 1,
            2..5 => face,
            _ => 0,
        };
        What::Redeem { code, pin, amount, partial: self.random.percent(15) }
    }

    /// A part of what is on a card, or about that.
    pub(super) fn part(&mut self, code: &str) -> i64 {
        let left = self.oracle.find(0, code).map_or(100, |place| self.oracle.left(place));
        match self.random.below(12) {
            0..4 => 0,
            4 => left,
            5 => left + 1,
            6 => -1,
            _ => 1 + self.random.below(1 + left.max(0) as u64 / 2) as i64,
        }
    }

    /// A hold of a card: most often one that is open.
    pub(super) fn some_hold(&mut self, code: &str) -> u128 {
        let card = self.oracle.find(0, code).map(|place| self.oracle.card(place));
        let open: Vec<u128> = card.map(|card| card.holds.keys().copied().collect()).unwrap_or_default();
        let all = card.map(|card| card.past.iter().filter(|past| past.kind == Kind::Hold));
        let all: Vec<u128> = all.map(|all| all.map(|past| past.ask.id).collect()).unwrap_or_default();
        if !open.is_empty() && self.random.percent(70) {
            *self.random.pick(&open)
        } else if !all.is_empty() && self.random.percent(80) {
            *self.random.pick(&all)
        } else {
            self.id()
        }
    }

    /// What is done with a card's value beside redeeming it.
    pub(super) fn about_value(&mut self) -> (Caller, What) {
        let held = self.oracle.places().filter(|(_, place)| !self.oracle.card(*place).holds.is_empty());
        let held: Vec<String> = held.map(|(_, place)| self.oracle.card(place).code.clone()).collect();
        let roll = self.random.below(100);
        let ends = (40..80).contains(&roll) && !held.is_empty() && self.random.percent(80);
        let code = if ends { self.random.pick(&held).clone() } else { self.code() };
        let amount = self.part(&code);
        let till = *self.random.pick(&TILLS);
        match roll {
            0..40 => {
                let pin = self.oracle.find(0, &code).and_then(|place| self.oracle.card(place).pin.clone());
                let pin = if self.random.percent(95) { pin } else { None };
                let (partial, seconds) = (self.random.percent(20), *self.random.pick(&[0, 0, 1, 100]));
                (till, What::Hold { code, pin, amount, partial, seconds })
            }
            40..65 => (till, What::Capture { hold: self.some_hold(&code), code, amount }),
            65..80 => (till, What::Release { hold: self.some_hold(&code), code }),
            80..88 => (SELLERS[0], What::Load { code, amount }),
            88..94 => {
                let What::Reverse { code, original } = self.reverse() else { unreachable!("made as one") };
                let amount = self.part(&code);
                (OPERATOR, What::Refund { code, original, amount })
            }
            _ => (FINANCE, What::Settle { code }),
        }
    }

    /// A redemption that was reversed before it came.
    pub(super) fn late_original(&mut self, code: &str) -> Option<u128> {
        let card = self.oracle.card(self.oracle.find(0, code)?);
        let tombstones = card.past.iter().filter(|past| past.kind == Kind::Tombstone);
        let originals: Vec<u128> = tombstones.map(|past| past.related).collect();
        (!originals.is_empty()).then(|| *self.random.pick(&originals))
    }

    pub(super) fn reverse(&mut self) -> What {
        let code = self.code();
        let done: Vec<u128> = self
            .oracle
            .find(0, &code)
            .map(|place| {
                let before = self.oracle.card_before(place).into_iter();
                let past = before.chain([place]).flat_map(|place| &self.oracle.card(place).past);
                past.map(|past| past.ask.id).collect()
            })
            .unwrap_or_default();
        let original =
            if self.random.percent(70) && !done.is_empty() { *self.random.pick(&done) } else { self.id() };
        // A load is undone, too, and rarely: others are asked about more often.
        let card = self.oracle.find(0, &code).map(|place| self.oracle.card(place));
        let load = card.and_then(|card| card.past.iter().rfind(|past| past.kind == Kind::Load));
        let original = match load.map(|past| past.ask.id) {
            Some(load) if self.random.percent(30) => load,
            _ => original,
        };
        What::Reverse { code, original }
    }

    /// When a card may be used.
    pub(super) fn life(&mut self) -> (Caller, What) {
        let gone = self
            .oracle
            .places()
            .filter(|(_, place)| self.oracle.card(*place).lifecycle == Lifecycle::Returned);
        let gone: Vec<String> = gone.map(|(_, place)| self.oracle.card(place).code.clone()).collect();
        if self.random.percent(12) {
            let some = !gone.is_empty() && self.random.percent(80);
            let code = if some { self.random.pick(&gone).clone() } else { self.code() };
            let reference = 1 + u128::from(self.random.below(3));
            return (ADMIN, What::Life { code, change: LifeChange::Restock(reference) });
        }
        let code = self.code();
        let change = match self.random.below(10) {
            0..4 => LifeChange::Activate,
            4..6 => LifeChange::Deactivate,
            6..9 => LifeChange::Extend(self.soon()),
            _ => LifeChange::Expire,
        };
        let caller = if self.random.percent(80) { OPERATOR } else { SELLERS[0] };
        (caller, What::Life { code, change })
    }

    /// What moves two cards: mostly some that are sold, and others of their product.
    pub(super) fn pair(&mut self) -> (Caller, What) {
        let code = self.code();
        let product = self.oracle.find(0, &code).map(|place| self.oracle.batches[&place.0].product);
        let replaces = self.random.percent(55);
        let wanted = if replaces { Lifecycle::Available } else { Lifecycle::Sold };
        let like = self.oracle.places().filter(|(tenant, place)| {
            *tenant == 0
                && Some(self.oracle.batches[&place.0].product) == product
                && self.oracle.card(*place).lifecycle == wanted
        });
        let like: Vec<String> = like.map(|(_, place)| self.oracle.card(place).code.clone()).collect();
        let fits = !like.is_empty() && self.random.percent(85);
        let other = if fits { self.random.pick(&like).clone() } else { self.code() };
        let what = if replaces {
            What::Replace { code, with: Some(other).filter(|_| self.random.percent(40)) }
        } else {
            let amount = self.part(&code);
            What::Transfer { from: code, to: other, amount }
        };
        (*self.random.pick(&[OPERATOR, OPERATOR, ADMIN]), what)
    }

    /// A request whose answer may not have come, and what it was about.
    pub(super) fn outcome(&mut self) -> What {
        let some = if self.asked.is_empty() { None } else { Some(self.random.pick(&self.asked).clone()) };
        let asked = if self.random.percent(80) { some.as_ref().map_or(0, |ask| ask.id) } else { self.id() };
        match some.map(|ask| ask.what) {
            Some(What::Post(posting)) => What::OutcomeOfDocument { document: posting.document.0, asked },
            Some(what) if what.order().is_some() => {
                What::OutcomeOfOrder { order: what.order().unwrap_or(0), asked }
            }
            _ => {
                if self.random.percent(20) && !self.oracle.exceptions.is_empty() {
                    let known = self.random.pick(&self.oracle.exceptions);
                    return What::OutcomeOf { code: known.code.clone(), asked: known.exception.request.0 };
                }
                let (code, roll) = (self.code(), self.random.below(4));
                let place = self.oracle.find(0, &code);
                let past = place.map(|place| self.oracle.card(place).past.clone()).unwrap_or_default();
                let asked = match roll {
                    0 => asked,
                    1 if !past.is_empty() => self.random.pick(&past).related,
                    _ if !past.is_empty() => self.random.pick(&past).ask.id,
                    _ => asked,
                };
                What::OutcomeOf { code, asked }
            }
        }
    }

    /// A redemption that was made offline, some time ago or long ago, new or under the id of one that may have arrived.
    pub(super) fn advice(&mut self) -> What {
        let What::Redeem { code, pin, amount, .. } = self.redeem() else { unreachable!("made as one") };
        let ago_ms = *self.random.pick(&[0, 0, 1_000, 100_000, 400_000, 3_600_000, 31 * 24 * 3_600_000]);
        let made_ms = match self.random.below(40) {
            0 => 0,
            1 => self.oracle.now_ms + 1_000_000,
            _ => self.oracle.now_ms - ago_ms,
        };
        // Where the product takes what is left, there is often less left than that.
        let amount = if self.random.percent(25) { self.part(&code) } else { amount };
        What::Advice { code, pin, amount, made_ms }
    }

    pub(super) fn about_exceptions(&mut self) -> What {
        let count = self.oracle.exceptions.len() as u64;
        if self.random.percent(40) {
            let (after, all) = (self.random.below(count + 1), self.random.percent(50));
            return What::ExceptionList { after, count: *self.random.pick(&[0, 1, 3, 1000]), all };
        }
        let note = match self.random.below(10) {
            0 => String::new(),
            1 => "x".repeat(201),
            _ => "the shop bears it".to_owned(),
        };
        What::ExceptionResolve(ExceptionNote { id: self.random.below(count + 2), note })
    }
}
