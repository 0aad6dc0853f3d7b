//! What the body of each request holds.
//!
//! The bodies are declared once, as fields in order (`wire!`); the two that carry rows stand in
//! `rows.rs`. Codes and PINs are borrowed from the frame and go no further than the door, where
//! the engine takes their digest.

use bytes::BytesMut;
use kami_engine::{
    AccountPut, BatchId, CardKind, CertificateNote, Confirmation, DocumentId, ExceptionNote, FeedSpec,
    Grounds, ImportSpec, LimitSpec, MerchantId, Money, OrderId, Posting, PrincipalId, PrincipalSpec,
    ProductId, ProductSpec, ProductTerms, Purchase, Renewal, RequestId, Role, TenantId, TenantSpec, TotalKey,
    TotalsQuery, ValidFrom,
};

pub use super::feed::{FeedAck, FeedOpen};
use super::money::{AccountList, AccountQuery, AccountStatement, OneAccount};
pub use super::order::{GiveBack, OneOrder};
use super::rows::ROW_FIELDS;
pub use super::rows::{BATCH_ITEMS_MAX, Chunk, ChunkRows, Columns, Item, Items};
use super::wire::{Field, Malformed, Reader, Secret, Wire, wire};
use super::{Opcode, RequestHead, close_frame};

/// Bits of a request head's flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestFlags(pub u8);

impl RequestFlags {
    /// No flag.
    pub const NONE: RequestFlags = RequestFlags(0);
    /// All items of a batch frame or none of them. Assigned; this version answers UNSUPPORTED.
    pub const ATOMIC: RequestFlags = RequestFlags(1);
    /// A redemption or hold of more than what is left takes what is left, and is answered OK_PARTIAL.
    pub const PARTIAL: RequestFlags = RequestFlags(2);

    /// The body begins with the [`Grounds`] of what is asked: why, and under whose approval.
    pub const GROUNDS: RequestFlags = RequestFlags(4);

    /// Whether no unassigned bit is set.
    #[must_use]
    pub const fn is_assigned(self) -> bool {
        self.0 & !7 == 0
    }
}

/// A request's body, by what it asks.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Request<'a> {
    /// HELLO.
    Hello,
    /// PING.
    Ping,
    /// OUTCOME_QUERY.
    OutcomeQuery(OutcomeQuery<'a>),
    /// REDEEM.
    Redeem(Redeem<'a>),
    /// REVERSE.
    Reverse(Reverse<'a>),
    /// QUERY.
    Query(OneCard<'a>),
    /// HISTORY.
    History(OneCard<'a>),
    /// FREEZE.
    Freeze(OneCard<'a>),
    /// UNFREEZE.
    Unfreeze(OneCard<'a>),
    /// VOID.
    Void(OneCard<'a>),
    /// ACTIVATE.
    Activate(OneCard<'a>),
    /// DEACTIVATE.
    Deactivate(OneCard<'a>),
    /// EXTEND.
    Extend(Extend<'a>),
    /// EXPIRE.
    Expire(OneCard<'a>),
    /// RESTOCK.
    Restock(Restock<'a>),
    /// HOLD.
    Hold(Hold<'a>),
    /// CAPTURE.
    Capture(Capture<'a>),
    /// RELEASE.
    Release(Release<'a>),
    /// LOAD.
    Load(Load<'a>),
    /// REFUND_VALUE.
    RefundValue(RefundValue<'a>),
    /// SETTLE.
    Settle(OneCard<'a>),
    /// ADVICE.
    Advice(Advice<'a>),
    /// PIN_UNLOCK.
    PinUnlock(OneCard<'a>),
    /// EXCEPTION_LIST.
    ExceptionList(ExceptionList),
    /// EXCEPTION_RESOLVE.
    ExceptionResolve(Box<ExceptionNote>),
    /// REDEEM_BATCH.
    RedeemBatch(Items<'a>),
    /// SELL.
    Sell(Sell),
    /// ORDER_FETCH.
    OrderFetch(OrderFetch),
    /// SELL_LINES.
    SellLines(Box<Purchase>),
    /// RESERVE.
    Reserve(Box<Purchase>),
    /// CONFIRM.
    Confirm(Box<Confirmation>),
    /// CANCEL.
    Cancel(OneOrder),
    /// RETURN.
    Return(Box<GiveBack<'a>>),
    /// ORDER_STATUS.
    OrderStatus(OneOrder),
    /// BATCH_ACTIVATE.
    BatchActivate(OneBatch),
    /// BATCH_DEACTIVATE.
    BatchDeactivate(OneBatch),
    /// BATCH_FREEZE.
    BatchFreeze(OneBatch),
    /// BATCH_UNFREEZE.
    BatchUnfreeze(OneBatch),
    /// BATCH_VOID.
    BatchVoid(OneBatch),
    /// BATCH_EXTEND.
    BatchExtend(BatchExtend),
    /// BATCH_ACTIVATE_ROWS.
    BatchActivateRows(BatchRows),
    /// BATCH_DEACTIVATE_ROWS.
    BatchDeactivateRows(BatchRows),
    /// BATCH_LIST.
    BatchList(OfProduct),
    /// PRODUCT_ADD.
    ProductAdd(Box<ProductSpec>),
    /// PRODUCT_SET.
    ProductSet(Box<ProductSpec>),
    /// PRODUCT_FREEZE.
    ProductFreeze(OneProduct),
    /// PRODUCT_UNFREEZE.
    ProductUnfreeze(OneProduct),
    /// PRODUCT_LIST.
    ProductList,
    /// STOCK.
    Stock(OfProduct),
    /// RECONCILE.
    Reconcile(TotalsQuery),
    /// IMPORT_BEGIN.
    ImportBegin(Box<ImportSpec>),
    /// IMPORT_CHUNK.
    ImportChunk(Chunk<'a>),
    /// IMPORT_STATUS.
    ImportStatus(OneImport),
    /// IMPORT_COMMIT.
    ImportCommit(OneImport),
    /// IMPORT_ABORT.
    ImportAbort(OneImport),
    /// IMPORT_DUPLICATES.
    ImportDuplicates(DuplicatesOf),
    /// PRINCIPAL_ADD.
    PrincipalAdd(Box<PrincipalSpec>),
    /// PRINCIPAL_REVOKE.
    PrincipalRevoke(OnePrincipal),
    /// PRINCIPAL_RENEW.
    PrincipalRenew(Box<Renewal>),
    /// PRINCIPAL_LIST.
    PrincipalList,
    /// TENANT_PUT.
    TenantPut(Box<TenantSpec>),
    /// TENANT_FREEZE.
    TenantFreeze(OneTenant),
    /// TENANT_UNFREEZE.
    TenantUnfreeze(OneTenant),
    /// TENANT_LIST.
    TenantList,
    /// ACCOUNT_PUT.
    AccountPut(Box<AccountPut>),
    /// ACCOUNT_FREEZE.
    AccountFreeze(OneAccount),
    /// ACCOUNT_UNFREEZE.
    AccountUnfreeze(OneAccount),
    /// POST.
    Post(Box<Posting>),
    /// ACCOUNT_QUERY.
    AccountQuery(AccountQuery),
    /// ACCOUNT_LIST.
    AccountList(AccountList),
    /// LIMIT_PUT.
    LimitPut(Box<LimitSpec>),
    /// LIMIT_LIST.
    LimitList,
    /// ACCOUNT_STATEMENT.
    AccountStatement(AccountStatement),
    /// FEED_OPEN.
    FeedOpen(FeedOpen),
    /// FEED_ACK.
    FeedAck(FeedAck),
    /// STATS.
    Stats,
    /// CHECKPOINT.
    Checkpoint,
    /// KEY_ROTATE.
    KeyRotate,
    /// SIGNED_CHECKPOINT.
    SignedCheckpoint,
    /// PROOF.
    Proof(ProofOf<'a>),
    /// CONSISTENCY.
    Consistency(ConsistencyOf),
}

macro_rules! dispatch {
    (plain: $($plain:ident)*; fields: $($name:ident($type:ty))*;) => {
        impl<'a> Request<'a> {
            /// The opcode of this body.
            #[must_use]
            pub const fn opcode(&self) -> Opcode {
                match self {
                    $(Request::$plain => Opcode::$plain,)*
                    $(Request::$name(_) => Opcode::$name,)*
                }
            }

            /// Reads a body.
            ///
            /// # Errors
            /// If it is not exactly what the opcode calls for, or this version has no such body.
            #[inline]
            pub fn decode(opcode: Opcode, body: &'a [u8]) -> Result<Request<'a>, Malformed> {
                let mut reader = Reader::new(body);
                let request = match opcode {
                    $(Opcode::$plain => Request::$plain,)*
                    $(Opcode::$name => Request::$name(Wire::take(&mut reader)?),)*
                    _ => return Err(Malformed { field: "opcode" }),
                };
                reader.end()?;
                Ok(request)
            }

            /// Reads a body that begins with the grounds of what is asked.
            ///
            /// # Errors
            /// As [`Request::decode`].
            pub fn decode_on(
                opcode: Opcode,
                body: &'a [u8],
            ) -> Result<(Box<Grounds>, Request<'a>), Malformed> {
                let mut reader = Reader::new(body);
                let grounds = reader.field("grounds")?;
                Request::decode(opcode, reader.rest()).map(|request| (grounds, request))
            }

            fn put(&self, out: &mut BytesMut) {
                match self {
                    $(Request::$plain => {})*
                    $(Request::$name(body) => body.put(out),)*
                }
            }

            /// Which layout the body of an opcode has; an empty name is an empty body.
            #[must_use]
            pub const fn layout(opcode: Opcode) -> Option<&'static str> {
                match opcode {
                    $(Opcode::$plain => Some(""),)*
                    $(Opcode::$name => Some(<$type as Wire<'static>>::TYPE),)*
                    _ => None,
                }
            }
        }
    };
}

dispatch! {
    plain: Hello Ping ProductList PrincipalList TenantList LimitList Stats Checkpoint KeyRotate SignedCheckpoint;
    fields:
        Redeem(Redeem<'static>) Reverse(Reverse<'static>) Query(OneCard<'static>) History(OneCard<'static>)
        Freeze(OneCard<'static>) Unfreeze(OneCard<'static>) Void(OneCard<'static>)
        Activate(OneCard<'static>) Deactivate(OneCard<'static>) Extend(Extend<'static>) Expire(OneCard<'static>)
        Restock(Restock<'static>)
        Hold(Hold<'static>) Capture(Capture<'static>) Release(Release<'static>) Load(Load<'static>)
        RefundValue(RefundValue<'static>) Settle(OneCard<'static>)
        OutcomeQuery(OutcomeQuery<'static>) PinUnlock(OneCard<'static>) Advice(Advice<'static>)
        ExceptionList(ExceptionList) ExceptionResolve(Box<ExceptionNote>)
        RedeemBatch(Items<'static>) Sell(Sell) OrderFetch(OrderFetch)
        SellLines(Box<Purchase>) Reserve(Box<Purchase>) Confirm(Box<Confirmation>) Cancel(OneOrder)
        Return(Box<GiveBack<'static>>) OrderStatus(OneOrder)
        BatchActivate(OneBatch) BatchDeactivate(OneBatch) BatchFreeze(OneBatch) BatchUnfreeze(OneBatch)
        BatchVoid(OneBatch) BatchExtend(BatchExtend) BatchList(OfProduct)
        BatchActivateRows(BatchRows) BatchDeactivateRows(BatchRows)
        ProductAdd(Box<ProductSpec>) ProductSet(Box<ProductSpec>) ProductFreeze(OneProduct)
        ProductUnfreeze(OneProduct) Stock(OfProduct) Reconcile(TotalsQuery)
        FeedOpen(FeedOpen) FeedAck(FeedAck)
        ImportBegin(Box<ImportSpec>) ImportChunk(Chunk<'static>) ImportStatus(OneImport)
        ImportCommit(OneImport) ImportAbort(OneImport) ImportDuplicates(DuplicatesOf)
        PrincipalAdd(Box<PrincipalSpec>) PrincipalRevoke(OnePrincipal) PrincipalRenew(Box<Renewal>)
        TenantPut(Box<TenantSpec>) TenantFreeze(OneTenant) TenantUnfreeze(OneTenant)
        Proof(ProofOf<'static>) Consistency(ConsistencyOf)
        AccountPut(Box<AccountPut>) AccountFreeze(OneAccount) AccountUnfreeze(OneAccount) Post(Box<Posting>)
        AccountQuery(AccountQuery) AccountList(AccountList) LimitPut(Box<LimitSpec>)
        AccountStatement(AccountStatement);
}

/// A frame that would be longer than its opcode allows, or a value that does not fit its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request does not fit a frame bytes=`{bytes}`, at most `{bytes_max}`")]
pub struct DoesNotFit {
    /// How long it would be.
    pub bytes: usize,
    /// How long it may be.
    pub bytes_max: usize,
}

impl Request<'_> {
    /// Appends the whole frame; the head's opcode is set from the body.
    ///
    /// # Errors
    /// If the frame would be too long; nothing is appended then.
    #[inline]
    pub fn encode(&self, head: &RequestHead, out: &mut BytesMut) -> Result<(), DoesNotFit> {
        self.encode_on(head, None, out)
    }

    /// The same with the grounds of what is asked; the head's flags are set from them.
    ///
    /// # Errors
    /// As [`Request::encode`].
    #[inline]
    pub fn encode_on(
        &self,
        head: &RequestHead,
        grounds: Option<&Grounds>,
        out: &mut BytesMut,
    ) -> Result<(), DoesNotFit> {
        let start = out.len();
        let flags = if grounds.is_some() { RequestFlags::GROUNDS } else { head.flags };
        RequestHead { flags, opcode: self.opcode().number(), ..*head }.put(out);
        if let Some(grounds) = grounds {
            grounds.put(out);
        }
        self.put(out);
        let (bytes, bytes_max) = (out.len() - start, self.opcode().frame_bytes_max());
        if bytes > bytes_max {
            out.truncate(start);
            return Err(DoesNotFit { bytes, bytes_max });
        }
        close_frame(out, start);
        Ok(())
    }
}

/// The body of REDEEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redeem<'a> {
    /// How much, in minor units; 0 is all of it.
    pub amount: Money,
    /// The code.
    pub code: Secret<'a>,
    /// The PIN, if the card has one.
    pub pin: Option<Secret<'a>>,
}

wire!(Redeem<'a>: "REDEEM" {
    amount: Money, "how much, in minor units of the card's currency, or uses of a MULTI_USE card; 0: one use of that, and all that is left of another";
    code: Secret<'_>, "the code as typed";
    pin: Option<Secret<'_>>, "the PIN; empty: none";
});

/// The body of REVERSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reverse<'a> {
    /// The id of the redemption.
    pub original: RequestId,
    /// The code.
    pub code: Secret<'a>,
}

wire!(Reverse<'a>: "REVERSE" {
    original: RequestId, "the request id of the redemption, capture, load or hold to undo";
    code: Secret<'_>, "the code as typed";
});

/// The body of HOLD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold<'a> {
    /// How much; 0 as in [`Redeem`].
    pub amount: Money,
    /// How long it stands, in seconds; 0 is as long as the product says, and never longer.
    pub seconds: u32,
    /// The code.
    pub code: Secret<'a>,
    /// The PIN, if the card has one.
    pub pin: Option<Secret<'a>>,
}

wire!(Hold<'a>: "HOLD" {
    amount: Money, "how much, as in REDEEM";
    seconds: u32, "how long it stands; 0 or more than the product says: as long as the product says";
    code: Secret<'_>, "the code as typed";
    pin: Option<Secret<'_>>, "the PIN; empty: none";
});

/// The body of CAPTURE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capture<'a> {
    /// The request id of the hold.
    pub hold: RequestId,
    /// How much of it; 0 is all. What is not captured is free again.
    pub amount: Money,
    /// The code.
    pub code: Secret<'a>,
}

wire!(Capture<'a>: "CAPTURE" {
    hold: RequestId, "the request id of the hold";
    amount: Money, "how much of it, at most all; 0: all. The rest is free again";
    code: Secret<'_>, "the code as typed";
});

/// The body of RELEASE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release<'a> {
    /// The request id of the hold.
    pub hold: RequestId,
    /// The code.
    pub code: Secret<'a>,
}

wire!(Release<'a>: "RELEASE" {
    hold: RequestId, "the request id of the hold";
    code: Secret<'_>, "the code as typed";
});

/// The body of LOAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load<'a> {
    /// How much; more than 0.
    pub amount: Money,
    /// The code.
    pub code: Secret<'a>,
}

wire!(Load<'a>: "LOAD" {
    amount: Money, "how much, more than 0, in minor units of the card's currency";
    code: Secret<'_>, "the code as typed";
});

/// The body of REFUND_VALUE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefundValue<'a> {
    /// The request id of the redemption or capture.
    pub original: RequestId,
    /// How much; 0 is all of it that was not refunded yet.
    pub amount: Money,
    /// The code.
    pub code: Secret<'a>,
}

wire!(RefundValue<'a>: "REFUND_VALUE" {
    original: RequestId, "the request id of the redemption or capture";
    amount: Money, "how much; 0: all of it that was not refunded yet";
    code: Secret<'_>, "the code as typed";
});

/// The body of the commands about one card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneCard<'a> {
    /// The code.
    pub code: Secret<'a>,
}

wire!(OneCard<'a>: "ONE_CARD" {
    code: Secret<'_>, "the code as typed";
});

/// The body of ADVICE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice<'a> {
    /// How much, as in [`Redeem`].
    pub amount: Money,
    /// When it was made, by the till's clock.
    pub made_ms: u64,
    /// The code.
    pub code: Secret<'a>,
    /// The PIN, if the card has one.
    pub pin: Option<Secret<'a>>,
}

wire!(Advice<'a>: "ADVICE" {
    amount: Money, "how much was redeemed, as in REDEEM";
    made_ms: u64, "when, by the till's clock, ms since 1970, not 0";
    code: Secret<'_>, "the code as typed";
    pin: Option<Secret<'_>>, "the PIN; empty: none";
});

/// The body of EXCEPTION_LIST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExceptionList {
    /// Those with higher numbers only.
    pub after: u64,
    /// How many at most.
    pub count: u32,
    /// Whether those that were resolved are listed, too.
    pub all: bool,
}

wire!(ExceptionList: "EXCEPTION_LIST" {
    after: u64, "only those with higher numbers; 0: from the first";
    count: u32, "how many at most, 1 to 500";
    all: bool, "1: those that were resolved, too";
});

wire!(ExceptionNote: "EXCEPTION_NOTE" {
    id: u64, "the exception's number";
    note: String, "what was done about it: 1 to 200 bytes, no control characters";
});

/// The body of OUTCOME_QUERY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutcomeQuery<'a> {
    /// The request that is asked about.
    pub asked: RequestId,
    /// What it was about: [`OutcomeQuery::CARD`], [`OutcomeQuery::ORDER`] or [`OutcomeQuery::DOCUMENT`].
    pub target: u8,
    /// The order or document; 0 of a card.
    pub id: u128,
    /// The code; empty of an order or document.
    pub code: Secret<'a>,
}

impl OutcomeQuery<'_> {
    /// A card, named by its code.
    pub const CARD: u8 = 1;
    /// An order.
    pub const ORDER: u8 = 2;
    /// The document of a posting.
    pub const DOCUMENT: u8 = 3;
}

wire!(OutcomeQuery<'a>: "OUTCOME_QUERY" {
    asked: RequestId, "the request id that is asked about";
    target: u8, "what that request was about: 1 a card, 2 an order, 3 the document of a posting";
    id: u128, "the order or document; 0 of a card";
    code: Secret<'_>, "of a card the code as typed; else empty";
});

/// The body of EXTEND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extend<'a> {
    /// The new end of validity.
    pub expires_ms: u64,
    /// The code.
    pub code: Secret<'a>,
}

wire!(Extend<'a>: "EXTEND" {
    expires_ms: u64, "the new end of validity, ms since 1970; later than the old one";
    code: Secret<'_>, "the code as typed";
});

/// The body of RESTOCK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restock<'a> {
    /// The supplier's document.
    pub reference: DocumentId,
    /// The code.
    pub code: Secret<'a>,
}

wire!(Restock<'a>: "RESTOCK" {
    reference: DocumentId, "the supplier's credit note or return document, of the caller's choosing, never 0";
    code: Secret<'_>, "the code as typed";
});

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

/// The body of the commands about one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneBatch {
    /// The batch.
    pub batch: BatchId,
}

wire!(OneBatch: "ONE_BATCH" {
    batch: BatchId, "the batch";
});

/// The body of BATCH_EXTEND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchExtend {
    /// The batch.
    pub batch: BatchId,
    /// The new end of validity.
    pub expires_ms: u64,
}

wire!(BatchExtend: "BATCH_EXTEND" {
    batch: BatchId, "the batch";
    expires_ms: u64, "the new end of validity, ms since 1970; cards whose own end is later, or was set by EXTEND or EXPIRE, keep it";
});

/// The body of the commands about some rows of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRows {
    /// The batch.
    pub batch: BatchId,
    /// The first row.
    pub from: u64,
    /// How many.
    pub rows: u64,
}

wire!(BatchRows: "BATCH_ROWS" {
    batch: BatchId, "the batch";
    from: u64, "the first row, counted from 0 in the order of the import";
    rows: u64, "how many rows; the batch must have all of them";
});

/// The body of lists that may be narrowed to one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfProduct {
    /// Only this product's.
    pub product: Option<ProductId>,
}

wire!(OfProduct: "OF_PRODUCT" {
    product: Option<ProductId>, "only this product's; 0xffffffff: all";
});

/// The body of the commands about one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneProduct {
    /// The product.
    pub product: ProductId,
}

wire!(OneProduct: "ONE_PRODUCT" {
    product: ProductId, "the product";
});

/// The body of PRINCIPAL_REVOKE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnePrincipal {
    /// The principal.
    pub principal: PrincipalId,
}

wire!(OnePrincipal: "ONE_PRINCIPAL" {
    principal: PrincipalId, "the principal";
});

/// The body of the commands about one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneTenant {
    /// The tenant.
    pub tenant: TenantId,
}

wire!(OneTenant: "ONE_TENANT" {
    tenant: TenantId, "the tenant, not the house";
});

wire!(TenantSpec: "TENANT_SPEC" {
    name: String, "1 to 64 bytes, unique";
});

/// The body of the commands about an import that was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneImport {
    /// The request id of its IMPORT_BEGIN.
    pub import: RequestId,
}

wire!(OneImport: "ONE_IMPORT" {
    import: RequestId, "the request id of its IMPORT_BEGIN";
});

/// The body of IMPORT_DUPLICATES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DuplicatesOf {
    /// The request id of its IMPORT_BEGIN.
    pub import: RequestId,
    /// The first one wanted.
    pub from: u64,
}

wire!(DuplicatesOf: "DUPLICATES_OF" {
    import: RequestId, "the request id of its IMPORT_BEGIN";
    from: u64, "how many of the duplicates are left out: those that were listed before";
});

/// The body of PROOF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProofOf<'a> {
    /// 0 for a new proof; the size that the first part came with for the parts behind it.
    pub size: u64,
    /// Where in the text the wanted part begins.
    pub from: u64,
    /// The code.
    pub code: Secret<'a>,
}

wire!(ProofOf<'a>: "PROOF_OF" {
    size: u64, "0: a new proof, up to now; for the parts behind the first: the size that came with the first";
    from: u64, "where in the text the wanted part begins";
    code: Secret<'_>, "the code as typed";
});

/// The body of CONSISTENCY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsistencyOf {
    /// The size of the older checkpoint, at least 1.
    pub old: u64,
    /// The size of the newer.
    pub new: u64,
}

wire!(ConsistencyOf: "CONSISTENCY_OF" {
    old: u64, "the size of the older checkpoint, at least 1";
    new: u64, "the size of the newer checkpoint, at least the older's";
});

wire!(ProductSpec: "PRODUCT_SPEC" {
    face: Money, "face value in minor units, not negative";
    valid_days: u32, "days from import until a card expires; 0: never";
    reversal_s: u32, "how long after a redemption it may be reversed, in seconds";
    kind: CardKind, "1 SINGLE, 2 MULTI_USE, 3 STORED_VALUE, 4 SHARED";
    currency: [u8; 3], "ISO 4217, upper case";
    name: String, "1 to 64 bytes, unique in the tenant";
    terms: ProductTerms, "what else is agreed about its cards";
});

wire!(ProductTerms: "PRODUCT_TERMS" {
    valid_from: ValidFrom, "from when the days of validity count: 0 import, 1 activation, 2 sale, 3 first use";
    reserve_s: u32, "how long cards stay reserved for an order that is not paid, in seconds";
    hold_s: u32, "how long a hold stands, in seconds";
    uses: u32, "MULTI_USE: how often a card can be used; SHARED: how often it can be sold, 0: without end";
    value_max: Money, "STORED_VALUE: the most a card can hold; 0: its face value";
    partial: bool, "whether a redemption for more than what is left takes what is left";
    listed: bool, "whether it can be sold";
    class: u8, "its class, 0 to 63";
    merchants: Vec<MerchantId>, "the merchants that may redeem it, at most 64; none: all";
    stores: Vec<u32>, "the stores that may redeem it, at most 64; none: all";
    attributes: String, "what the merchant keeps with it; at most 255 bytes";
});

wire!(PrincipalSpec: "PRINCIPAL_SPEC" {
    key: [u8; 32], "SHA-256 of its public key's DER SubjectPublicKeyInfo";
    merchant: MerchantId, "the merchant it redeems for, or 0";
    tenant: TenantId, "its tenant; 0: the house. A tenant's own admin adds principals of that tenant alone";
    role: Role, "1 admin, 2 issuer, 3 seller, 4 redeemer, 5 operator, 6 finance, 7 auditor";
    certificate: CertificateNote, "the certificate that was issued for the key";
    misses_per_minute: u32, "wrong codes a minute it may send on average; 0: the server's usual";
    store: u32, "the store it stands in, or 0";
    classes: u64, "the classes of products its commands about cards may be about, a bit each; 0: all";
    products: Vec<ProductId>, "the products it may touch, at most 64; none: all";
    name: String, "1 to 64 bytes, unique";
});

wire!(CertificateNote: "CERTIFICATE_NOTE" {
    serial: u128, "its serial number; 0: none was noted";
    expires_ms: u64, "when it expires, ms since 1970; 0: none was noted";
});

wire!(Renewal: "RENEWAL" {
    principal: PrincipalId, "the principal";
    key: [u8; 32], "SHA-256 of its public key from now on, as in PRINCIPAL_SPEC";
    certificate: CertificateNote, "its new certificate";
});

wire!(ImportSpec: "IMPORT_SPEC" {
    content: u128, "a digest of what is imported, of the importer's choosing; 0: none. Another one is another import";
    rows: u64, "how many rows will come, duplicates included";
    face: Option<Money>, "face value of the batch's cards; the lowest i64: the product's";
    valid_from_ms: u64, "from when the batch's cards can be redeemed, ms since 1970; 0: at once";
    expires_ms: u64, "when the batch's cards expire, ms since 1970; 0: the product's rule";
    product: ProductId, "the product";
    code_bytes_max: u8, "the longest normalised code, 4 to 128";
    pins: bool, "1: rows carry a PIN";
    faces: bool, "1: rows carry a face value";
    expiries: bool, "1: rows carry an end of validity";
    active: bool, "1: redeemable once sold, without a later activation";
    skip_duplicates: bool, "1: rows whose card is there already are left out; 0: one such row refuses the commit";
    label: String, "the importer's label, 0 to 128 bytes, no control characters";
});

/// Every layout of a request, for the document and the golden tests: name and fields.
#[must_use]
pub fn layouts() -> Vec<(&'static str, &'static [Field])> {
    fn of<T: Wire<'static>>() -> (&'static str, &'static [Field]) {
        (T::TYPE, T::FIELDS)
    }
    vec![
        of::<Redeem<'_>>(),
        of::<Reverse<'_>>(),
        of::<Hold<'_>>(),
        of::<Capture<'_>>(),
        of::<Release<'_>>(),
        of::<Load<'_>>(),
        of::<RefundValue<'_>>(),
        of::<OutcomeQuery<'_>>(),
        of::<Advice<'_>>(),
        of::<ExceptionList>(),
        of::<ExceptionNote>(),
        of::<OneCard<'_>>(),
        of::<Extend<'_>>(),
        of::<Restock<'_>>(),
        of::<Items<'_>>(),
        of::<Item<'_>>(),
        of::<Sell>(),
        of::<OrderFetch>(),
        of::<OneBatch>(),
        of::<BatchExtend>(),
        of::<BatchRows>(),
        of::<OfProduct>(),
        of::<OneProduct>(),
        of::<ProductSpec>(),
        of::<ProductTerms>(),
        of::<ImportSpec>(),
        of::<Chunk<'_>>(),
        ("ROW", ROW_FIELDS),
        of::<OneImport>(),
        of::<DuplicatesOf>(),
        of::<OnePrincipal>(),
        of::<OneTenant>(),
        of::<TenantSpec>(),
        of::<PrincipalSpec>(),
        of::<CertificateNote>(),
        of::<Renewal>(),
        of::<TotalsQuery>(),
        of::<TotalKey>(),
        of::<FeedOpen>(),
        of::<FeedSpec>(),
        of::<FeedAck>(),
        of::<ProofOf<'_>>(),
        of::<ConsistencyOf>(),
        of::<Grounds>(),
    ]
    .into_iter()
    .chain(super::money::request_layouts())
    .chain(super::order::request_layouts())
    .collect()
}
