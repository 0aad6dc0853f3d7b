//! What the body of each request holds.
//!
//! The bodies are declared once, as fields in order (`wire!`), by what they are about: `card.rs`, `order.rs`, `stock.rs`,
//! `principal.rs`, `money.rs`, `control.rs`, `feed.rs`; the two that carry rows stand in `rows.rs`. Codes and PINs are
//! borrowed from the frame and go no further than the door, where the engine takes their digest.

pub use super::card::{
    Advice, Capture, ExceptionList, Extend, Hold, Load, OneCard, OutcomeQuery, Redeem, RefundValue, Release,
    Replace, Restock, Reverse, Transfer,
};
pub use super::feed::{FeedAck, FeedOpen};
pub use super::order::{GiveBack, OneOrder, OrderFetch, Sell};
pub use super::principal::{OnePrincipal, OneTenant};
pub use super::rows::{BATCH_ITEMS_MAX, Chunk, ChunkRows, Columns, Item, Items};
pub use super::stock::{BatchExtend, BatchRows, DuplicatesOf, OfProduct, OneBatch, OneImport, OneProduct};

use bytes::BytesMut;
use kami_engine::{
    AccountPut, CertificateNote, Confirmation, ExceptionNote, FeedSpec, Grounds, ImportSpec, LimitSpec,
    OrderQuery, Origin, Posting, PrincipalSpec, ProductSpec, ProductTerms, Purchase, Renewal, TenantSpec,
    TotalKey, TotalsQuery,
};

use super::control::{Asked, Export, OneProposal, ProposalList, TenantControl};
use super::money::{AccountList, AccountQuery, AccountStatement, OneAccount};
use super::rows::ROW_FIELDS;
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
    /// REPLACE.
    Replace(Replace<'a>),
    /// TRANSFER.
    Transfer(Transfer<'a>),
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
    /// See [`Opcode::OrderList`].
    OrderList(Box<OrderQuery>),
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
    /// TENANT_CONTROL.
    TenantControl(TenantControl),
    /// EXPORT.
    Export(Export),
    /// PROPOSE.
    Propose(Box<Asked<'a>>),
    /// APPROVE.
    Approve(OneProposal),
    /// PROPOSAL_WITHDRAW.
    ProposalWithdraw(OneProposal),
    /// PROPOSAL_LIST.
    ProposalList(ProposalList),
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

            pub(super) fn put(&self, out: &mut BytesMut) {
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
        Restock(Restock<'static>) Replace(Replace<'static>) Transfer(Transfer<'static>)
        Hold(Hold<'static>) Capture(Capture<'static>) Release(Release<'static>) Load(Load<'static>)
        RefundValue(RefundValue<'static>) Settle(OneCard<'static>)
        OutcomeQuery(OutcomeQuery<'static>) PinUnlock(OneCard<'static>) Advice(Advice<'static>)
        ExceptionList(ExceptionList) ExceptionResolve(Box<ExceptionNote>)
        RedeemBatch(Items<'static>) Sell(Sell) OrderFetch(OrderFetch)
        SellLines(Box<Purchase>) Reserve(Box<Purchase>) Confirm(Box<Confirmation>) Cancel(OneOrder)
        Return(Box<GiveBack<'static>>) OrderStatus(OneOrder) OrderList(Box<OrderQuery>)
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
        TenantControl(TenantControl) Export(Export) Propose(Box<Asked<'static>>) Approve(OneProposal)
        ProposalWithdraw(OneProposal) ProposalList(ProposalList)
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

/// Every layout of a request, for the document and the golden tests: name and fields.
#[must_use]
pub fn layouts() -> Vec<(&'static str, &'static [Field])> {
    fn of<T: Wire<'static>>() -> (&'static str, &'static [Field]) {
        (T::TYPE, T::FIELDS)
    }
    let others = [
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
        of::<Origin>(),
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
    ];
    super::card::request_layouts()
        .into_iter()
        .chain(others)
        .chain(super::money::request_layouts())
        .chain(super::order::request_layouts())
        .chain(super::control::request_layouts())
        .collect()
}
