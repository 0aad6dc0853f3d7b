//! The calls about what is on a card: parts of it, holds, loads, refunds, settlements, and what goes to another card.

use crate::command::Command;
use crate::identity::RequestId;
use crate::pair::{Replace, Transfer};
use crate::product::Money;
use crate::reply::{CardReport, HoldReport, ReplyBody};

use super::{Call, Receipt, Session, moved, receipt};

/// How much of a card is taken. The default is all of it without a PIN, and one use of a MULTI_USE card.
#[derive(Clone, Copy, Default)]
pub struct Part<'a> {
    /// Minor units of the product's currency, or uses; 0 is all, or one use.
    pub amount: Money,
    /// The PIN, if the card has one.
    pub pin: Option<&'a str>,
    /// Whether what is left will do if it is less.
    pub partial: bool,
}

impl Session {
    /// Redeems a part of a card. `id` is new for every redemption and the same for its retries. What was taken stands
    /// in the receipt: with [`Part::partial`] it may be less.
    pub fn redeem_part(&self, id: RequestId, code: &str, part: Part<'_>) -> Call<Receipt> {
        let command = self.digest(code).map(|card| {
            let pin = part.pin.map(|pin| self.engine.pin_digest(card, pin.as_bytes()));
            Command::Redeem { card, pin, amount: part.amount, partial: part.partial }
        });
        self.call(id, command, |_, reply| moved(reply))
    }

    /// Holds a part of a card for a payment that is not decided yet. `id` names the hold: [`Session::capture`] and
    /// [`Session::release`] end it, and so does its deadline. `seconds` shortens the product's time; 0 is all of it.
    pub fn hold(&self, id: RequestId, code: &str, part: Part<'_>, seconds: u32) -> Call<Receipt<HoldReport>> {
        let command = self.digest(code).map(|card| {
            let pin = part.pin.map(|pin| self.engine.pin_digest(card, pin.as_bytes()));
            Command::Hold { card, pin, amount: part.amount, partial: part.partial, seconds }
        });
        self.call(id, command, |_, reply| {
            receipt(reply, |body| match body {
                ReplyBody::Hold(hold) => Some(hold),
                _ => None,
            })
        })
    }

    /// Redeems what is held, or `amount` of it; 0 is all. The hold is over then.
    pub fn capture(&self, id: RequestId, code: &str, hold: RequestId, amount: Money) -> Call<Receipt> {
        let command = self.digest(code).map(|card| Command::Capture { card, hold, amount });
        self.call(id, command, |_, reply| moved(reply))
    }

    /// Gives up what is held.
    pub fn release(&self, id: RequestId, code: &str, hold: RequestId) -> Call<Receipt> {
        let command = self.digest(code).map(|card| Command::Release { card, hold });
        self.call(id, command, |_, reply| moved(reply))
    }

    /// Loads value onto a card.
    pub fn load(&self, id: RequestId, code: &str, amount: Money) -> Call<Receipt> {
        let command = self.digest(code).map(|card| Command::Load { card, amount });
        self.call(id, command, |_, reply| moved(reply))
    }

    /// Gives value of the redemption `original` back that can be reversed no more; 0 is all that was not refunded yet.
    pub fn refund_value(
        &self,
        id: RequestId,
        code: &str,
        original: RequestId,
        amount: Money,
    ) -> Call<Receipt> {
        let command = self.digest(code).map(|card| Command::RefundValue { card, original, amount });
        self.call(id, command, |_, reply| moved(reply))
    }

    /// Makes a sold card void and puts another in its place in its order: that with code `with`, or the next in stock.
    /// Tells the card that took the place; the buyer fetches its code with [`Session::order`].
    pub fn replace(&self, id: RequestId, code: &str, with: Option<&str>) -> Call<CardReport> {
        let with = with.map(|with| self.digest(with)).transpose();
        let command = self
            .digest(code)
            .and_then(|card| with.map(|with| Command::Replace(Box::new(Replace { card, with }))));
        self.call(id, command, |_, reply| super::card(reply))
    }

    /// Moves value from one card to another; 0 is all of it, and makes the first card void. Tells what moved and what is
    /// left on the first.
    pub fn transfer(&self, id: RequestId, from: &str, to: &str, amount: Money) -> Call<Receipt> {
        let to = self.digest(to);
        let command = self
            .digest(from)
            .and_then(|from| to.map(|to| Command::Transfer(Box::new(Transfer { from, to, amount }))));
        self.call(id, command, |_, reply| moved(reply))
    }

    /// Settles what was redeemed of a card so far: it can be reversed no more.
    pub fn settle(&self, id: RequestId, code: &str) -> Call<CardReport> {
        self.call(id, self.digest(code).map(|card| Command::Settle { card }), |_, reply| super::card(reply))
    }
}
