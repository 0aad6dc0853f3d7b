//! The calls about orders that are more than a plain sale.

use crate::account::Leg;
use crate::command::Command;
use crate::engine::Engine;
use crate::identity::{OrderId, RequestId};
use crate::order::{Confirmation, GivenBack, Purchase};
use crate::reply::{OrderReport, Reply, ReplyBody};

use super::{Call, Failure, Receipt, Session, Sold, receipt, sold, told};

/// What a sale brought.
pub enum Delivery {
    /// The codes.
    Codes(Sold),
    /// The order was asked to be sealed: [`Session::order`] gives out its codes.
    Sealed(Receipt<OrderReport>),
}

impl Session {
    /// Sells cards of one or more products under one order id, all or nothing, and moves the money for them in the
    /// same entry.
    pub fn sell_lines(&self, id: RequestId, purchase: Purchase) -> Call<Delivery> {
        self.call(id, Ok(Command::SellLines(Box::new(purchase))), delivery)
    }

    /// Takes cards for an order that is to be paid in time; see [`OrderReport::deadline_ms`].
    pub fn reserve(&self, id: RequestId, purchase: Purchase) -> Call<Receipt<OrderReport>> {
        self.call(id, Ok(Command::Reserve(Box::new(purchase))), |_, reply| receipt(reply, report))
    }

    /// Completes a reservation that was paid.
    pub fn confirm(&self, id: RequestId, confirmation: Confirmation) -> Call<Delivery> {
        self.call(id, Ok(Command::Confirm(Box::new(confirmation))), delivery)
    }

    /// Gives a reservation up: its cards are in stock again.
    pub fn cancel(&self, id: RequestId, order: OrderId) -> Call<Receipt<OrderReport>> {
        self.call(id, Ok(Command::Cancel(order)), |_, reply| receipt(reply, report))
    }

    /// Takes cards of an order back, at most [`RETURN_CARDS_MAX`](crate::RETURN_CARDS_MAX) by their codes, or all that
    /// still belong to it if `codes` is empty; `legs` is how the money goes back. Cards whose codes nobody saw go into
    /// stock again.
    pub fn give_back(
        &self,
        id: RequestId,
        order: OrderId,
        codes: &[&str],
        legs: Vec<Leg>,
    ) -> Call<Receipt<OrderReport>> {
        let cards: Result<Vec<_>, _> = codes.iter().map(|code| self.digest(code)).collect();
        let command = cards.map(|cards| Command::Return(Box::new(GivenBack { order, cards, legs })));
        self.call(id, command, |_, reply| receipt(reply, report))
    }

    /// Reads an order without its codes.
    pub fn order_status(&self, order: OrderId) -> Call<OrderReport> {
        self.call(RequestId::default(), Ok(Command::OrderStatus(order)), |_, reply| told(reply, report))
    }
}

fn report(body: ReplyBody) -> Option<OrderReport> {
    match body {
        ReplyBody::Order(report) => Some(*report),
        _ => None,
    }
}

fn delivery(engine: &Engine, reply: Reply) -> Result<Delivery, Failure> {
    match reply.body {
        ReplyBody::Order(_) => receipt(reply, report).map(Delivery::Sealed),
        _ => sold(engine, reply).map(Delivery::Codes),
    }
}
