//! The typed calls: one per command, a refusal as an error that says what to do.

use kami_engine::Lsn;
use kami_engine::{
    BatchId, BatchReport, CardReport, Checkpoint, DocumentId, HistoryEvent, HoldReport, KeyRotation, Money,
    OrderId, Principal, PrincipalId, PrincipalSpec, Product, ProductId, ProductSpec, ProofPart, Renewal,
    ReplyFlags, RequestId, SignedNote, Stats, Status, StockLine, ValueReport,
};

use super::Client;
use crate::error::ClientError;
use crate::frame::reply::Codes;
use crate::frame::request::{
    BatchExtend, BatchRows, Capture, ConsistencyOf, Extend, Hold, Item, Items, Load, OfProduct, OneBatch,
    OneCard, OnePrincipal, OneProduct, OrderFetch, ProofOf, Redeem, RefundValue, Release, Replace, Restock,
    Reverse, Sell, Transfer,
};
use crate::frame::{Answer, Body, ItemReport, Listing, ReplyHead, Request, RequestFlags, Secret, SoldCard};

/// What a command brought, and the proof of it.
#[derive(Clone, Debug)]
pub struct Receipt<T> {
    /// What was asked for.
    pub value: T,
    /// The request id: the same again is the same request, and REVERSE names it.
    pub request: RequestId,
    /// Where the effect stands in the log.
    pub lsn: Option<Lsn>,
    /// Engine time of the decision, milliseconds since 1970.
    pub time_ms: u64,
    /// OK, OK_PARTIAL or TOMBSTONED.
    pub status: Status,
    /// REPLAYED, PARTIAL, REVERSED.
    pub flags: ReplyFlags,
}

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

/// Codes asked for in one ORDER_FETCH: what fits a frame whatever their length.
const FETCH_COUNT: u32 = 7000;

/// The proof of a card as the server gave it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The text, to be handed on.
    pub text: String,
    /// The key that the server signs with. Who checks the proof takes it from where it is published.
    pub key: String,
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

    pub(super) async fn collect(
        &self,
        order: OrderId,
        first: Receipt<Codes>,
    ) -> Result<Receipt<Sold>, ClientError> {
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

    /// Makes all cards of a batch redeemable.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn batch_activate(&self, batch: BatchId) -> Result<Receipt<BatchReport>, ClientError> {
        self.batch(&Request::BatchActivate(OneBatch { batch })).await
    }

    /// Makes the unused cards of a batch not redeemable.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn batch_deactivate(&self, batch: BatchId) -> Result<Receipt<BatchReport>, ClientError> {
        self.batch(&Request::BatchDeactivate(OneBatch { batch })).await
    }

    /// Freezes all cards of a batch.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn batch_freeze(&self, batch: BatchId) -> Result<Receipt<BatchReport>, ClientError> {
        self.batch(&Request::BatchFreeze(OneBatch { batch })).await
    }

    /// Ends the freeze of a batch.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn batch_unfreeze(&self, batch: BatchId) -> Result<Receipt<BatchReport>, ClientError> {
        self.batch(&Request::BatchUnfreeze(OneBatch { batch })).await
    }

    /// Makes the unsold cards of a batch void for good.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn batch_void(&self, batch: BatchId) -> Result<Receipt<BatchReport>, ClientError> {
        self.batch(&Request::BatchVoid(OneBatch { batch })).await
    }

    /// Moves the end of validity of a batch to a later time.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn batch_extend(
        &self,
        batch: BatchId,
        expires_ms: u64,
    ) -> Result<Receipt<BatchReport>, ClientError> {
        self.batch(&Request::BatchExtend(BatchExtend { batch, expires_ms })).await
    }

    /// Makes the rows of a range redeemable, counted from 0 in the order of the import.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn batch_activate_rows(
        &self,
        batch: BatchId,
        rows: std::ops::Range<u64>,
    ) -> Result<Receipt<BatchReport>, ClientError> {
        let (from, rows) = (rows.start, rows.end.saturating_sub(rows.start));
        self.batch(&Request::BatchActivateRows(BatchRows { batch, from, rows })).await
    }

    /// Makes the unused cards in a range of rows not redeemable.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn batch_deactivate_rows(
        &self,
        batch: BatchId,
        rows: std::ops::Range<u64>,
    ) -> Result<Receipt<BatchReport>, ClientError> {
        let (from, rows) = (rows.start, rows.end.saturating_sub(rows.start));
        self.batch(&Request::BatchDeactivateRows(BatchRows { batch, from, rows })).await
    }

    /// Lists the batches, of one product or all.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn batch_list(
        &self,
        product: Option<ProductId>,
    ) -> Result<Receipt<Listing<BatchReport>>, ClientError> {
        self.list(&Request::BatchList(OfProduct { product }), batches).await
    }

    /// Adds a product.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn product_add(&self, spec: ProductSpec) -> Result<Receipt<Product>, ClientError> {
        self.product(&Request::ProductAdd(Box::new(spec))).await
    }

    /// Changes a product.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn product_set(&self, spec: ProductSpec) -> Result<Receipt<Product>, ClientError> {
        self.product(&Request::ProductSet(Box::new(spec))).await
    }

    /// Freezes all cards of a product.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn product_freeze(&self, product: ProductId) -> Result<Receipt<Product>, ClientError> {
        self.product(&Request::ProductFreeze(OneProduct { product })).await
    }

    /// Ends the freeze of a product.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn product_unfreeze(&self, product: ProductId) -> Result<Receipt<Product>, ClientError> {
        self.product(&Request::ProductUnfreeze(OneProduct { product })).await
    }

    /// Lists the products.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn product_list(&self) -> Result<Receipt<Listing<Product>>, ClientError> {
        self.list(&Request::ProductList, products).await
    }

    /// Counts the stock by product and batch.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn stock(
        &self,
        product: Option<ProductId>,
    ) -> Result<Receipt<Listing<StockLine>>, ClientError> {
        self.list(&Request::Stock(OfProduct { product }), |body| match body {
            Body::Stock(rows) => Some(rows),
            _ => None,
        })
        .await
    }

    /// Adds a principal.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn principal_add(&self, spec: PrincipalSpec) -> Result<Receipt<Principal>, ClientError> {
        let receipt = self.list(&Request::PrincipalAdd(Box::new(spec)), principals).await?;
        receipt.one()
    }

    /// Withdraws a principal for good and closes its connections.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn principal_revoke(&self, principal: PrincipalId) -> Result<Receipt<Principal>, ClientError> {
        self.list(&Request::PrincipalRevoke(OnePrincipal { principal }), principals).await?.one()
    }

    /// Notes a new certificate of a principal. If its key is new, connections with the old one are closed.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn principal_renew(&self, renewal: Renewal) -> Result<Receipt<Principal>, ClientError> {
        self.list(&Request::PrincipalRenew(Box::new(renewal)), principals).await?.one()
    }

    /// Lists the principals.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn principal_list(&self) -> Result<Receipt<Listing<Principal>>, ClientError> {
        self.list(&Request::PrincipalList, principals).await
    }

    /// Reads the engine's own figures.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn stats(&self) -> Result<Receipt<Stats>, ClientError> {
        self.call(RequestId::random(), &Request::Stats, |body| match body {
            Body::Stats(stats) => Some(stats),
            _ => None,
        })
        .await
    }

    /// Has a snapshot written.
    ///
    /// # Errors
    /// As [`Client::redeem`]; BUSY if one is being written.
    pub async fn checkpoint(&self) -> Result<Receipt<Checkpoint>, ClientError> {
        self.call(RequestId::random(), &Request::Checkpoint, |body| match body {
            Body::Checkpoint(checkpoint) => Some(checkpoint),
            _ => None,
        })
        .await
    }

    /// Has the keys of all batches wrapped with a new master key. `request` makes it repeatable: the same again is the
    /// same rotation, as long as the server runs.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn rotate_keys(&self, request: RequestId) -> Result<Receipt<KeyRotation>, ClientError> {
        self.call(request, &Request::KeyRotate, |body| match body {
            Body::Keys(rotation) => Some(rotation),
            _ => None,
        })
        .await
    }

    /// Has a checkpoint of the log signed, or gets the last again if nothing happened since.
    ///
    /// # Errors
    /// As [`Client::redeem`]; BUSY while the server takes in a log that was never signed, a second at a time.
    pub async fn signed_checkpoint(&self) -> Result<Receipt<SignedNote>, ClientError> {
        self.call(RequestId::random(), &Request::SignedCheckpoint, |body| match body {
            Body::SignedNote(note) => Some(note),
            _ => None,
        })
        .await
    }

    /// Gets the proof of a card, up to now, and the key that the server says it can be checked with. Nothing of it is
    /// checked here: see [`CardProof`](kami_engine::CardProof).
    ///
    /// # Errors
    /// As [`Client::signed_checkpoint`].
    pub async fn prove(&self, code: &[u8]) -> Result<Receipt<Proof>, ClientError> {
        let (mut size, mut text) = (0, Vec::new());
        loop {
            let from = text.len() as u64;
            let request = Request::Proof(ProofOf { size, from, code: Secret(code) });
            let part = self
                .call(RequestId::random(), &request, |body| match body {
                    Body::ProofPart(part) => Some(part),
                    _ => None,
                })
                .await?;
            let ProofPart { total, from: begins, bytes, .. } = &part.value;
            if *begins != from || bytes.is_empty() {
                return Err(ClientError::BadReply);
            }
            text.extend_from_slice(bytes);
            if *total <= text.len() as u64 {
                let text = String::from_utf8(text).map_err(|_| ClientError::BadReply)?;
                return Ok(part.map(|part| Proof { text, key: part.key }));
            }
            size = part.value.size;
        }
    }

    /// Gets the hashes that prove that the checkpoint of `new` entries continues that of `old`.
    ///
    /// # Errors
    /// As [`Client::signed_checkpoint`].
    pub async fn consistency(&self, old: u64, new: u64) -> Result<Receipt<Vec<[u8; 32]>>, ClientError> {
        let request = Request::Consistency(ConsistencyOf { old, new });
        self.call(RequestId::random(), &request, |body| match body {
            Body::Path(path) => Some(path.rows.into_iter().map(|row| row.hash).collect()),
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

    async fn batch(&self, request: &Request<'_>) -> Result<Receipt<BatchReport>, ClientError> {
        self.list(request, batches).await?.one()
    }

    async fn product(&self, request: &Request<'_>) -> Result<Receipt<Product>, ClientError> {
        self.list(request, products).await?.one()
    }

    pub(super) async fn list<T>(
        &self,
        request: &Request<'_>,
        rows: fn(Body) -> Option<Listing<T>>,
    ) -> Result<Receipt<Listing<T>>, ClientError> {
        self.call(RequestId::random(), request, rows).await
    }

    pub(super) async fn call<T>(
        &self,
        id: RequestId,
        request: &Request<'_>,
        body: impl FnOnce(Body) -> Option<T>,
    ) -> Result<Receipt<T>, ClientError> {
        receipt(self.send_as(id, request).await?, body)
    }
}

/// A reply as a receipt, if it says done and carries what it should.
pub(super) fn receipt<T>(
    answer: Answer,
    body: impl FnOnce(Body) -> Option<T>,
) -> Result<Receipt<T>, ClientError> {
    let head = answer.head;
    if !head.status.is_done() {
        return Err(ClientError::Refused { status: head.status, answer: Box::new(answer) });
    }
    let value = body(answer.body).ok_or(ClientError::BadReply)?;
    let ReplyHead { request, lsn, time_ms, status, flags, .. } = head;
    Ok(Receipt { value, request, lsn, time_ms, status, flags })
}

impl<T> Receipt<T> {
    fn map<U>(self, map: impl FnOnce(T) -> U) -> Receipt<U> {
        let Receipt { value, request, lsn, time_ms, status, flags } = self;
        Receipt { value: map(value), request, lsn, time_ms, status, flags }
    }

    pub(super) const fn clone_head<U>(&self, value: U) -> Receipt<U> {
        Receipt {
            value,
            request: self.request,
            lsn: self.lsn,
            time_ms: self.time_ms,
            status: self.status,
            flags: self.flags,
        }
    }
}

impl<T> Receipt<Listing<T>> {
    /// The one row of a list that must have one.
    pub(super) fn one(mut self) -> Result<Receipt<T>, ClientError> {
        let row = self.value.rows.pop().ok_or(ClientError::BadReply)?;
        Ok(self.map(|_| row))
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

pub(super) fn batches(body: Body) -> Option<Listing<BatchReport>> {
    match body {
        Body::Batches(rows) => Some(rows),
        _ => None,
    }
}

fn products(body: Body) -> Option<Listing<Product>> {
    match body {
        Body::Products(rows) => Some(rows),
        _ => None,
    }
}

fn principals(body: Body) -> Option<Listing<Principal>> {
    match body {
        Body::Principals(rows) => Some(rows),
        _ => None,
    }
}

fn codes(body: Body) -> Option<Codes> {
    match body {
        Body::Codes(codes) => Some(codes),
        _ => None,
    }
}
