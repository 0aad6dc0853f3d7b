//! How orders lie on the wire, and the bodies of the commands about them.

use bytes::BytesMut;
use kami_engine::{
    AccountId, Confirmation, Leg, Line, Lsn, Money, OrderId, OrderLine, OrderPage, OrderQuery, OrderReport,
    OrderState, PrincipalId, ProductId, Purchase, RETURN_CARDS_MAX,
};

use super::wire::{Field, Malformed, Reader, Secret, Wire, wire};

/// The body of SELL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sell {
    /// The order, chosen by the buyer.
    pub order: OrderId,
    /// What to sell.
    pub product: ProductId,
    /// How many.
    pub count: u32,
    /// Cards that expire sooner than this many seconds from now are not sold.
    pub validity_s_min: u32,
}

wire!(Sell: "SELL" {
    order: OrderId, "order id, chosen by the buyer, never 0; the target of the request id";
    product: ProductId, "what to sell";
    count: u32, "how many cards, 1 to 100,000";
    validity_s_min: u32, "cards that expire sooner than this many seconds from now are not sold";
});

/// The body of ORDER_FETCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderFetch {
    /// The order.
    pub order: OrderId,
    /// The first card wanted.
    pub from: u32,
    /// How many at most.
    pub count: u32,
}

wire!(OrderFetch: "ORDER_FETCH" {
    order: OrderId, "the order";
    from: u32, "the first card wanted, counted from 0 in the order's own sequence";
    count: u32, "how many cards at most";
});

/// The body of CANCEL and ORDER_STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneOrder {
    /// The order.
    pub order: OrderId,
}

wire!(OneOrder: "ONE_ORDER" {
    order: OrderId, "the order";
});

wire!(Line: "LINE" {
    product: ProductId, "the product";
    count: u32, "how many cards, at least 1";
    face: Option<Money>, "only cards of this face value in minor units; the lowest i64: any";
});

wire!(Purchase: "PURCHASE" {
    order: OrderId, "the order's id, chosen by the buyer, never 0; the target of the request id";
    validity_s_min: u32, "cards that expire sooner than this many seconds from now are not sold";
    account: Option<AccountId>, "whose purchase it is, for limits and money; 0: nobody's in particular";
    ip: u64, "a keyed hash of the address the buyer came from, for limits; 0: unknown";
    reserve_s: u32, "of RESERVE: how many seconds it stands; 0, or more than the products allow: what they allow";
    sealed: bool, "1: the codes are not delivered; ORDER_FETCH gives them out";
    lines: Vec<Line>, "1 to 64 lines, together at most 100,000 cards, all or none; a product once, or each time with another face value";
    legs: Vec<Leg>, "how money moves: they sum to zero in each currency. RESERVE sets aside what the debits take";
});

wire!(Confirmation: "CONFIRMATION" {
    order: OrderId, "the order";
    realloc: bool, "1: if the reservation is over, take the same cards if they are all free, else equal ones";
    sealed: bool, "1: the codes are not delivered; ORDER_FETCH gives them out";
    legs: Vec<Leg>, "how money moves; none: as it was set aside";
});

/// The body of RETURN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GiveBack<'a> {
    /// The order.
    pub order: OrderId,
    /// How the money goes back.
    pub legs: Vec<Leg>,
    /// The cards; none is all that still belong to the order.
    pub codes: Vec<Secret<'a>>,
}

wire!(GiveBack<'a>: "GIVE_BACK" {
    order: OrderId, "the order";
    legs: Vec<Leg>, "how the money goes back; none: no money moves";
    codes: Vec<Secret<'_>>, "the codes of at most 64 cards; none: all that still belong to the order";
});

impl<'a> Wire<'a> for Vec<Secret<'a>> {
    const TYPE: &'static str = "list8 of bytes8";
    fn put(&self, out: &mut BytesMut) {
        // The client refuses more.
        let length = self.len().min(usize::from(u8::MAX));
        (length as u8).put(out);
        self[..length].iter().for_each(|code| code.put(out));
    }
    fn take(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let length = usize::from(u8::take(reader)?);
        if length > RETURN_CARDS_MAX {
            return Err(reader.malformed());
        }
        (0..length).map(|_| Secret::take(reader)).collect()
    }
}

wire!(OrderReport: "ORDER" {
    order: OrderId, "the order";
    state: OrderState, "0 SOLD, 1 RESERVED, 2 CANCELLED, 3 TIMED_OUT, 4 MIGRATED: of the system before";
    fetched: bool, "1: codes of it were fetched that were not delivered with the sale";
    buyer: PrincipalId, "who opened it";
    account: AccountId, "whose purchase it is; 0: nobody's in particular";
    cards: u32, "of a command that moved cards, how many; else how many are in it: those that came back are not";
    deadline_ms: u64, "until when it was to be paid, ms since 1970; 0: it was sold at once";
    lines: Vec<Line>, "what was asked for; none: a plain sale of one product";
});

wire!(OrderQuery: "ORDER_LIST" {
    from: Option<Lsn>, "where the page before said that it goes on; 0: the newest order";
    count: u32, "how many at most: 1 to 100";
    buyer: Option<PrincipalId>, "only those that this principal opened; 0: all. A seller sees its own";
    account: Option<AccountId>, "only those of this account; 0: all";
    product: Option<ProductId>, "only those of this product alone; 0xffffffff: all";
    state: Option<OrderState>, "only those that stand so now, as in ORDER; 0xff: all";
});

wire!(OrderLine: "ORDER_LINE" {
    order: OrderId, "the order";
    state: OrderState, "where it stands now, as in ORDER";
    fetched: bool, "1: codes of it were fetched that were not delivered with the sale";
    buyer: PrincipalId, "who opened it";
    account: AccountId, "whose purchase it is; 0: nobody's in particular";
    product: Option<ProductId>, "its product; 0xffffffff: several";
    cards: u32, "how many cards it was opened with";
    opened_ms: u64, "when, ms since 1970";
    lsn: Lsn, "where the entry stands that opened it";
});

wire!(OrderPage: "ORDERS" {
    lines: Vec<OrderLine>, "orders, newest first; a page may have none and still not be the last";
    next: Option<Lsn>, "where the next page begins; 0: this was all";
});

/// The layouts of requests.
pub(super) fn request_layouts() -> Vec<(&'static str, &'static [Field])> {
    vec![
        (Purchase::TYPE, Purchase::FIELDS),
        (Line::TYPE, Line::FIELDS),
        (Confirmation::TYPE, Confirmation::FIELDS),
        (OneOrder::TYPE, OneOrder::FIELDS),
        (GiveBack::TYPE, GiveBack::FIELDS),
        (OrderQuery::TYPE, OrderQuery::FIELDS),
    ]
}
