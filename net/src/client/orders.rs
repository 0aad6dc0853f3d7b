//! The typed calls about orders: what is bought, reserved, paid, given up, given back, and its codes.

use kami_engine::{
    Confirmation, Leg, OrderId, OrderPage, OrderQuery, OrderReport, ProductId, Purchase, RequestId,
};

use super::Client;
use super::receipt::Receipt;
use crate::error::ClientError;
use crate::frame::order::{GiveBack, OneOrder};
use crate::frame::reply::Codes;
use crate::frame::request::{OrderFetch, Sell};
use crate::frame::{Body, Request, Secret, SoldCard};

/// Options of [`Client::sell`].
#[derive(Clone, Copy, Debug, Default)]
pub struct SellOptions {
    /// Cards that expire sooner than this many seconds from now are not sold.
    pub validity_s_min: u32,
    /// The request id; a new one if absent.
    pub request: Option<RequestId>,
}

/// What an order bought. `Debug` shows no code.
#[derive(Clone, Debug)]
pub struct Sold {
    /// The cards with their codes.
    pub cards: Vec<SoldCard>,
}

/// What a sale brought.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// The codes.
    Codes(Sold),
    /// The order was asked to be sealed: [`Client::order`] gives out its codes.
    Sealed(Box<OrderReport>),
}

/// Codes asked for in one ORDER_FETCH: what fits a frame whatever their length.
const FETCH_COUNT: u32 = 7000;

/// The id of a command about an order. Whoever keeps it before the first attempt can send the same command again
/// after a restart.
fn id_or_new(request: Option<RequestId>) -> RequestId {
    request.unwrap_or_else(RequestId::random)
}

fn report(body: Body) -> Option<OrderReport> {
    match body {
        Body::Order(report) => Some(*report),
        _ => None,
    }
}

impl Client {
    /// Sells cards and collects all their codes, however many replies that takes.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if nothing was sold. After any other error the order may stand: the same
    /// call with the same request id, or [`Client::order`], brings its codes.
    pub async fn sell(
        &self,
        order: OrderId,
        product: ProductId,
        count: u32,
        options: SellOptions,
    ) -> Result<Receipt<Sold>, ClientError> {
        let body = Sell { order, product, count, validity_s_min: options.validity_s_min };
        let id = options.request.unwrap_or_else(RequestId::random);
        let receipt = self.call(id, &Request::Sell(body), codes).await?;
        self.collect(order, receipt).await
    }

    /// Collects all codes of an order again. Only the principal that bought it may.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn order(&self, order: OrderId) -> Result<Receipt<Sold>, ClientError> {
        let body = OrderFetch { order, from: 0, count: FETCH_COUNT };
        let receipt = self.call(RequestId::random(), &Request::OrderFetch(body), codes).await?;
        self.collect(order, receipt).await
    }

    /// Sells cards of one or more products under one order id, all or nothing.
    ///
    /// # Errors
    /// As [`Client::redeem`]; [`Body::Exceeded`] in a refusal names the limit, [`Body::Account`] the account that
    /// stands against it.
    pub async fn sell_lines(
        &self,
        purchase: Purchase,
        request: Option<RequestId>,
    ) -> Result<Receipt<Delivery>, ClientError> {
        let order = purchase.order;
        self.deliver(order, id_or_new(request), Request::SellLines(Box::new(purchase))).await
    }

    /// Takes cards for an order that is to be paid in time; see [`OrderReport::deadline_ms`].
    ///
    /// # Errors
    /// As [`Client::sell_lines`].
    pub async fn reserve(
        &self,
        purchase: Purchase,
        request: Option<RequestId>,
    ) -> Result<Receipt<OrderReport>, ClientError> {
        self.call(id_or_new(request), &Request::Reserve(Box::new(purchase)), report).await
    }

    /// Completes a reservation that was paid.
    ///
    /// # Errors
    /// As [`Client::sell_lines`]; RESERVATION_EXPIRED if it is over and no cards are to be, or can be, taken again.
    pub async fn confirm(
        &self,
        confirmation: Confirmation,
        request: Option<RequestId>,
    ) -> Result<Receipt<Delivery>, ClientError> {
        let order = confirmation.order;
        self.deliver(order, id_or_new(request), Request::Confirm(Box::new(confirmation))).await
    }

    /// Gives a reservation up: its cards are in stock again.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn cancel(
        &self,
        order: OrderId,
        request: Option<RequestId>,
    ) -> Result<Receipt<OrderReport>, ClientError> {
        self.call(id_or_new(request), &Request::Cancel(OneOrder { order }), report).await
    }

    /// Takes cards of an order back, at most 64 by their codes, or all that still belong to it if `codes` is empty.
    /// Cards whose codes nobody saw go into stock again.
    ///
    /// # Errors
    /// As [`Client::sell_lines`].
    pub async fn give_back(
        &self,
        order: OrderId,
        codes: &[&[u8]],
        legs: Vec<Leg>,
        request: Option<RequestId>,
    ) -> Result<Receipt<OrderReport>, ClientError> {
        let codes = codes.iter().map(|code| Secret(code)).collect();
        let body = GiveBack { order, legs, codes };
        self.call(id_or_new(request), &Request::Return(Box::new(body)), report).await
    }

    /// Reads an order without its codes.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn order_status(&self, order: OrderId) -> Result<Receipt<OrderReport>, ClientError> {
        self.call(RequestId::random(), &Request::OrderStatus(OneOrder { order }), report).await
    }

    /// Reads a page of orders, newest first. A page may have none and still not be the last: see
    /// [`OrderPage::next`].
    ///
    /// # Errors
    /// As [`Client::redeem`]; MALFORMED if it was to begin where no order was opened.
    pub async fn order_list(&self, query: OrderQuery) -> Result<Receipt<OrderPage>, ClientError> {
        self.call(RequestId::random(), &Request::OrderList(Box::new(query)), |body| match body {
            Body::Orders(page) => Some(page),
            _ => None,
        })
        .await
    }

    async fn deliver(
        &self,
        order: OrderId,
        id: RequestId,
        request: Request<'_>,
    ) -> Result<Receipt<Delivery>, ClientError> {
        let receipt =
            self.call(id, &request, |body| matches!(body, Body::Codes(_) | Body::Order(_)).then_some(body));
        let receipt = receipt.await?;
        let head = receipt.clone_head(());
        match receipt.value {
            Body::Codes(codes) => {
                let sold = self.collect(order, head.clone_head(codes)).await?;
                let head = sold.clone_head(());
                Ok(head.clone_head(Delivery::Codes(sold.value)))
            }
            Body::Order(report) => Ok(head.clone_head(Delivery::Sealed(report))),
            _ => unreachable!("only these two were let through"),
        }
    }

    async fn collect(&self, order: OrderId, first: Receipt<Codes>) -> Result<Receipt<Sold>, ClientError> {
        let mut receipt = first.clone_head(Sold { cards: Vec::new() });
        let mut page = first.value;
        loop {
            let next = page.from.saturating_add(u32::try_from(page.cards.len()).unwrap_or(u32::MAX));
            let nothing = page.cards.is_empty();
            receipt.value.cards.append(&mut page.cards);
            if next >= page.total {
                return Ok(receipt);
            }
            if nothing {
                let read = u32::try_from(receipt.value.cards.len()).unwrap_or(u32::MAX);
                return Err(ClientError::CodesUnreadable { read, total: page.total });
            }
            let body = OrderFetch { order, from: next, count: FETCH_COUNT.min(page.total - next) };
            page = self.call(RequestId::random(), &Request::OrderFetch(body), codes).await?.value;
        }
    }
}

fn codes(body: Body) -> Option<Codes> {
    match body {
        Body::Codes(codes) => Some(codes),
        _ => None,
    }
}
