//! The typed calls about cards: using them, stopping them, asking about them.

use kami_engine::{CardReport, DocumentId, HistoryEvent, HoldReport, Money, RequestId, ValueReport};

use super::Client;
use super::receipt::{Receipt, receipt};
use crate::error::ClientError;
use crate::frame::request::{
    Capture, Extend, Hold, Item, Items, Load, OneCard, Redeem, RefundValue, Release, Replace, Restock,
    Reverse, Transfer,
};
use crate::frame::{Body, ItemReport, Listing, Request, RequestFlags, Secret};

/// Options of [`Client::redeem`]. The default takes all of a card without a PIN.
#[derive(Clone, Debug, Default)]
pub struct RedeemOptions<'a> {
    /// How much, in minor units; 0 is all of it.
    pub amount: Money,
    /// The PIN, if the card has one.
    pub pin: Option<&'a [u8]>,
    /// Whether what is left will do if it is less; the status is OK_PARTIAL then.
    pub partial: bool,
    /// The request id; a new one if absent.
    pub request: Option<RequestId>,
}

/// Options of [`Client::hold`]. The default holds all of a card without a PIN as long as its product says.
#[derive(Clone, Debug, Default)]
pub struct HoldOptions<'a> {
    /// How much, in minor units or uses; 0 is all of it, and one use of a MULTI_USE card.
    pub amount: Money,
    /// The PIN, if the card has one.
    pub pin: Option<&'a [u8]>,
    /// Whether what is left will do if it is less; the status is OK_PARTIAL then.
    pub partial: bool,
    /// How long it stands, in seconds, if that is less than the product's time; 0 is the product's.
    pub seconds: u32,
    /// The request id, which names the hold; a new one if absent.
    pub request: Option<RequestId>,
}

/// Options of [`Client::reverse`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ReverseOptions {
    /// The request id of the reversal itself; a new one if absent. Whoever keeps it before the first attempt can
    /// ask for the outcome again after a restart.
    pub request: Option<RequestId>,
}

impl Client {
    /// Redeems a card.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the card cannot be redeemed; [`ClientError::Unknown`] if no reply came.
    pub async fn redeem(
        &self,
        code: &[u8],
        options: RedeemOptions<'_>,
    ) -> Result<Receipt<ValueReport>, ClientError> {
        let body = Redeem { amount: options.amount, code: Secret(code), pin: options.pin.map(Secret) };
        let id = options.request.unwrap_or_else(RequestId::random);
        let answer = self.send_flagged(id, flags(options.partial), &Request::Redeem(body)).await?;
        receipt(answer, value)
    }

    /// Holds a card's value, or part of it, for a payment that is not decided yet. The receipt's request id names
    /// the hold: [`Client::capture`] and [`Client::release`] end it, and so does its deadline. Whoever hears
    /// nothing sends the same again, or undoes it with [`Client::reverse`].
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn hold(
        &self,
        code: &[u8],
        options: HoldOptions<'_>,
    ) -> Result<Receipt<HoldReport>, ClientError> {
        let HoldOptions { amount, seconds, .. } = options;
        let body = Hold { amount, seconds, code: Secret(code), pin: options.pin.map(Secret) };
        let id = options.request.unwrap_or_else(RequestId::random);
        let answer = self.send_flagged(id, flags(options.partial), &Request::Hold(body)).await?;
        receipt(answer, |body| match body {
            Body::Hold(hold) => Some(hold),
            _ => None,
        })
    }

    /// Redeems what is held, or `amount` of it; 0 is all. The hold is over then.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn capture(
        &self,
        code: &[u8],
        hold: RequestId,
        amount: Money,
        request: RequestId,
    ) -> Result<Receipt<ValueReport>, ClientError> {
        self.call(request, &Request::Capture(Capture { hold, amount, code: Secret(code) }), value).await
    }

    /// Gives up what is held.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn release(
        &self,
        code: &[u8],
        hold: RequestId,
        request: RequestId,
    ) -> Result<Receipt<ValueReport>, ClientError> {
        self.call(request, &Request::Release(Release { hold, code: Secret(code) }), value).await
    }

    /// Loads value onto a card.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn load(
        &self,
        code: &[u8],
        amount: Money,
        request: RequestId,
    ) -> Result<Receipt<ValueReport>, ClientError> {
        self.call(request, &Request::Load(Load { amount, code: Secret(code) }), value).await
    }

    /// Gives value of a redemption back that can be reversed no more; 0 is all that was not refunded yet.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn refund_value(
        &self,
        code: &[u8],
        original: RequestId,
        amount: Money,
        request: RequestId,
    ) -> Result<Receipt<ValueReport>, ClientError> {
        let body = RefundValue { original, amount, code: Secret(code) };
        self.call(request, &Request::RefundValue(body), value).await
    }

    /// Settles what was redeemed of a card so far.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn settle(&self, code: &[u8], request: RequestId) -> Result<Receipt<CardReport>, ClientError> {
        self.call(request, &Request::Settle(OneCard { code: Secret(code) }), |body| match body {
            Body::Card(card) => Some(card),
            _ => None,
        })
        .await
    }

    /// Redeems many cards in one frame, each under its own id; a report per item, in order.
    ///
    /// # Errors
    /// If the frame as a whole is refused or has no reply. Refused items are in their reports.
    pub async fn redeem_batch(&self, items: &[Item<'_>]) -> Result<Receipt<Vec<ItemReport>>, ClientError> {
        self.list(&Request::RedeemBatch(Items::new(items)), |body| match body {
            Body::Items(rows) => Some(rows),
            _ => None,
        })
        .await
        .map(|receipt| receipt.map(|listing| listing.rows))
    }

    /// Undoes a redemption. TOMBSTONED, for one never seen, counts as done.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn reverse(
        &self,
        code: &[u8],
        original: RequestId,
        options: ReverseOptions,
    ) -> Result<Receipt<Option<ValueReport>>, ClientError> {
        let body = Reverse { original, code: Secret(code) };
        let id = options.request.unwrap_or_else(RequestId::random);
        self.call(id, &Request::Reverse(body), |body| match body {
            Body::Value(value) => Some(Some(value)),
            Body::None => Some(None),
            _ => None,
        })
        .await
    }

    /// Reads a card's state.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn query(&self, code: &[u8]) -> Result<Receipt<CardReport>, ClientError> {
        self.card(&Request::Query(OneCard { code: Secret(code) })).await
    }

    /// Freezes a card.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn freeze(&self, code: &[u8]) -> Result<Receipt<CardReport>, ClientError> {
        self.card(&Request::Freeze(OneCard { code: Secret(code) })).await
    }

    /// Ends the freeze of a card.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn unfreeze(&self, code: &[u8]) -> Result<Receipt<CardReport>, ClientError> {
        self.card(&Request::Unfreeze(OneCard { code: Secret(code) })).await
    }

    /// Makes a card void for good.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn void(&self, code: &[u8]) -> Result<Receipt<CardReport>, ClientError> {
        self.card(&Request::Void(OneCard { code: Secret(code) })).await
    }

    /// Makes a card redeemable, whatever its batch says. A seller may do so for cards that are sold.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn activate(&self, code: &[u8]) -> Result<Receipt<CardReport>, ClientError> {
        self.card(&Request::Activate(OneCard { code: Secret(code) })).await
    }

    /// Makes an unused card not redeemable, whatever its batch says.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn deactivate(&self, code: &[u8]) -> Result<Receipt<CardReport>, ClientError> {
        self.card(&Request::Deactivate(OneCard { code: Secret(code) })).await
    }

    /// Moves the end of a card's validity to a later time, in milliseconds since 1970.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn extend(&self, code: &[u8], expires_ms: u64) -> Result<Receipt<CardReport>, ClientError> {
        self.card(&Request::Extend(Extend { expires_ms, code: Secret(code) })).await
    }

    /// Ends a card's validity now. What is held of it can still be captured.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn expire(&self, code: &[u8]) -> Result<Receipt<CardReport>, ClientError> {
        self.card(&Request::Expire(OneCard { code: Secret(code) })).await
    }

    /// Makes a returned card void because it went back to its supplier; the one that comes for it is imported.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn restock(
        &self,
        code: &[u8],
        reference: DocumentId,
    ) -> Result<Receipt<CardReport>, ClientError> {
        self.card(&Request::Restock(Restock { reference, code: Secret(code) })).await
    }

    /// Makes a sold card void and puts another in its place in its order: that with code `with`, or the next in stock.
    /// Tells the card that took the place; the buyer fetches its code with [`Client::order`].
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn replace(
        &self,
        code: &[u8],
        with: Option<&[u8]>,
        request: RequestId,
    ) -> Result<Receipt<CardReport>, ClientError> {
        let asked = Replace { code: Secret(code), with: with.map(Secret) };
        self.call(request, &Request::Replace(asked), |body| match body {
            Body::Card(card) => Some(card),
            _ => None,
        })
        .await
    }

    /// Moves value from one card to another of its product; 0 is all, and makes the first card void. Tells what moved
    /// and what is left on the first.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn transfer(
        &self,
        from: &[u8],
        to: &[u8],
        amount: Money,
        request: RequestId,
    ) -> Result<Receipt<ValueReport>, ClientError> {
        let asked = Transfer { amount, code: Secret(from), to: Secret(to) };
        self.call(request, &Request::Transfer(asked), value).await
    }

    /// Reads all that ever happened to a card, newest first.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn history(&self, code: &[u8]) -> Result<Receipt<Listing<HistoryEvent>>, ClientError> {
        self.list(&Request::History(OneCard { code: Secret(code) }), |body| match body {
            Body::History(rows) => Some(rows),
            _ => None,
        })
        .await
    }

    pub(super) async fn card(&self, request: &Request<'_>) -> Result<Receipt<CardReport>, ClientError> {
        self.call(RequestId::random(), request, |body| match body {
            Body::Card(card) => Some(card),
            _ => None,
        })
        .await
    }
}

fn value(body: Body) -> Option<ValueReport> {
    match body {
        Body::Value(value) => Some(value),
        _ => None,
    }
}

const fn flags(partial: bool) -> RequestFlags {
    if partial { RequestFlags::PARTIAL } else { RequestFlags::NONE }
}
