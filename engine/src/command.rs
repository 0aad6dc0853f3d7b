//! What may be asked of the engine.
//!
//! A [`Request`] is small and owns no heap memory for the commands of the hot path. Codes do not
//! appear here: the caller turns the typed code into a [`CardDigest`] with
//! [`Engine::digest`](crate::Engine::digest) at the door, and the plaintext ends there.
//!
//! Here is what a command says, and what follows from its kind alone. Who asks is in `request.rs`, what it is about in
//! `target.rs`, how it is told from another under the same id in `body.rs`, how much of the log it may take in `room.rs`.

mod body;
mod request;
mod room;
mod target;

pub use request::Request;
pub(crate) use room::order_bytes_max;

use kami_wal::Lsn;

use crate::account::{AccountPut, Posting};
use crate::control::DualControl;
use crate::exceptions::{Advice, ExceptionNote};
use crate::identity::{
    AccountId, BatchId, CardDigest, DocumentId, OrderId, PinDigest, PrincipalId, PrincipalSpec, ProductId,
    ProposalId, Renewal, RequestId, Role, TenantId,
};
use crate::limit::LimitSpec;
use crate::order::{Confirmation, GivenBack, Purchase};
use crate::orders::OrderState;
use crate::pair::{Replace, Transfer};
use crate::product::{Money, ProductSpec};
use crate::status::Status;
use crate::tenants::TenantSpec;
use crate::word::{CardRef, Word};

/// What is asked. `docs/wire-protocol.md` has one opcode for each.
#[derive(Clone, Debug)]
pub enum Command {
    /// Uses a sold card. `amount` is minor units, or uses of a MULTI_USE card; 0 means one use of that, and all
    /// that is left of another. A SINGLE card takes nothing else but its face value.
    Redeem {
        /// The card.
        card: CardDigest,
        /// Its PIN, where the batch has PINs.
        pin: Option<PinDigest>,
        /// How much.
        amount: Money,
        /// Whether what is left will do if it is less; the product's terms may say so for all.
        partial: bool,
    },
    /// Undoes a redemption by its request id; unseen, the id is refused from then on.
    Reverse {
        /// The card.
        card: CardDigest,
        /// The id of the redemption.
        original: RequestId,
    },
    /// Reads a card's state.
    Query {
        /// The card.
        card: CardDigest,
    },
    /// Reads all that ever happened to a card, newest first.
    History {
        /// The card.
        card: CardDigest,
    },
    /// Freezes one card.
    Freeze {
        /// The card.
        card: CardDigest,
    },
    /// Ends the freeze of one card.
    Unfreeze {
        /// The card.
        card: CardDigest,
    },
    /// Makes one card void for good.
    Void {
        /// The card.
        card: CardDigest,
    },
    /// Lifts the locks that wrong PINs put on one card.
    PinUnlock {
        /// The card.
        card: CardDigest,
    },
    /// Holds a card's value, or part of it, for a payment that is not decided yet. The request's id names the
    /// hold.
    Hold {
        /// The card.
        card: CardDigest,
        /// Its PIN, where the batch has PINs.
        pin: Option<PinDigest>,
        /// How much; 0 as in a redemption.
        amount: Money,
        /// As in a redemption.
        partial: bool,
        /// How long it stands, in seconds, if that is less than the product's time; 0 is the product's.
        seconds: u32,
    },
    /// Redeems what is held, or part of it; the hold is over then.
    Capture {
        /// The card.
        card: CardDigest,
        /// The hold.
        hold: RequestId,
        /// How much of it; 0 is all.
        amount: Money,
    },
    /// Gives up what is held.
    Release {
        /// The card.
        card: CardDigest,
        /// The hold.
        hold: RequestId,
    },
    /// Ends a hold whose deadline has passed. The engine asks for this itself, see
    /// [`Engine::run_due`](crate::Engine::run_due); nothing depends on when.
    HoldTimeout {
        /// The card.
        card: CardRef,
        /// The hold.
        hold: RequestId,
    },
    /// Loads value onto a STORED_VALUE card.
    Load {
        /// The card.
        card: CardDigest,
        /// How much; more than 0.
        amount: Money,
    },
    /// Gives value of a redemption back that can be reversed no more, because its window is over or it is
    /// settled.
    RefundValue {
        /// The card.
        card: CardDigest,
        /// The id of the redemption or capture.
        original: RequestId,
        /// How much; 0 is all that was not refunded yet.
        amount: Money,
    },
    /// Settles all that was redeemed of a card so far: it cannot be reversed any more.
    Settle {
        /// The card.
        card: CardDigest,
    },
    /// Makes a card redeemable, whatever its batch says.
    Activate {
        /// The card.
        card: CardDigest,
    },
    /// Makes an unused card not redeemable, whatever its batch says.
    Deactivate {
        /// The card.
        card: CardDigest,
    },
    /// Moves the end of a card's validity to a later time; one that had expired is valid again.
    Extend {
        /// The card.
        card: CardDigest,
        /// The new end, in milliseconds since 1970.
        expires_ms: u64,
    },
    /// Ends a card's validity now. What is held of it can still be captured.
    Expire {
        /// The card.
        card: CardDigest,
    },
    /// Makes a returned card void because it went back to its supplier; the one that comes for it is imported.
    Restock {
        /// The card.
        card: CardDigest,
        /// The supplier's credit note or return document, of the caller's choosing.
        reference: DocumentId,
    },
    /// Makes a sold card void and puts another in its place in its order.
    Replace(Box<Replace>),
    /// Moves value of one card to another.
    Transfer(Box<Transfer>),
    /// Sells `count` cards of a product under an order id: all or nothing. The reply carries the codes.
    Sell {
        /// The order, chosen by the buyer; the target of the request id.
        order: OrderId,
        /// What to sell.
        product: ProductId,
        /// How many; 1 to [`ORDER_CARDS_MAX`].
        count: u32,
        /// Cards that expire sooner than this many seconds from now are not sold.
        validity_s_min: u32,
    },
    /// Sells cards of one or more products under an order id: all or nothing.
    SellLines(Box<Purchase>),
    /// Takes cards for an order that is to be paid until a deadline.
    Reserve(Box<Purchase>),
    /// Completes a reservation that was paid.
    Confirm(Box<Confirmation>),
    /// Gives a reservation up.
    Cancel(OrderId),
    /// Ends a reservation whose time is over; asked by the engine itself.
    ReserveTimeout(OrderId),
    /// Takes sold cards back.
    Return(Box<GivenBack>),
    /// Reads an order, without its codes.
    OrderStatus(OrderId),
    /// Fetches the codes of an order again. Only the principal that bought it may.
    OrderFetch {
        /// The order.
        order: OrderId,
        /// The first card wanted, counted from 0 in the order's card sequence.
        from: u32,
        /// How many cards at most.
        count: u32,
    },
    /// Makes all cards of a batch redeemable.
    BatchActivate(BatchId),
    /// Makes the unused cards of a batch not redeemable.
    BatchDeactivate(BatchId),
    /// Makes a range of a batch's rows redeemable, or the unused cards among them not redeemable.
    BatchRows {
        /// The batch.
        batch: BatchId,
        /// The first row.
        from: u64,
        /// How many.
        rows: u64,
        /// Which of the two.
        active: bool,
    },
    /// Freezes all cards of a batch.
    BatchFreeze(BatchId),
    /// Ends the freeze of a batch.
    BatchUnfreeze(BatchId),
    /// Makes the unsold cards of a batch void for good.
    BatchVoid(BatchId),
    /// Moves the end of validity of all cards of a batch to a later time, in milliseconds since 1970.
    BatchExtend {
        /// The batch.
        batch: BatchId,
        /// The new end; cards whose own end is later keep it.
        expires_ms: u64,
    },
    /// Lists the batches, of one product or all.
    BatchList {
        /// Only this product's.
        product: Option<ProductId>,
    },
    /// Adds a product. Its name is new.
    ProductAdd(Box<ProductSpec>),
    /// Changes a product of the same name; kind and currency cannot change.
    ProductSet(Box<ProductSpec>),
    /// Freezes all cards of a product.
    ProductFreeze(ProductId),
    /// Ends the freeze of a product.
    ProductUnfreeze(ProductId),
    /// Lists the products.
    ProductList,
    /// Counts the stock by product and batch.
    Stock {
        /// Only this product's.
        product: Option<ProductId>,
    },
    /// Adds a principal: who may connect, and as what.
    PrincipalAdd(Box<PrincipalSpec>),
    /// Withdraws a principal for good.
    PrincipalRevoke(PrincipalId),
    /// Notes a new certificate of a principal, and its key if that is new.
    PrincipalRenew(Box<Renewal>),
    /// Lists the principals of the caller's tenant; to the house, all.
    PrincipalList,
    /// Adds a tenant. Only the house may, as with the next three.
    TenantPut(Box<TenantSpec>),
    /// Freezes all cards of a tenant.
    TenantFreeze(TenantId),
    /// Ends the freeze of a tenant.
    TenantUnfreeze(TenantId),
    /// Lists the tenants but for the house.
    TenantList,
    /// Sets what of a tenant takes two people.
    TenantControl {
        /// The tenant; the caller's own, unless that is the house.
        tenant: TenantId,
        /// What from now on.
        control: DualControl,
    },
    /// Sells unsold cards of a batch to an order through which their codes leave; only as a proposal.
    Export {
        /// The batch.
        batch: BatchId,
        /// How many cards at most; 1 to [`ORDER_CARDS_MAX`].
        count: u32,
    },
    /// Proposes a command that a second person must approve: VOID, REFUND_VALUE, ORDER_FETCH, EXPORT or
    /// TENANT_CONTROL. The request's id names the proposal; its grounds must say why.
    Propose(Box<Command>),
    /// Approves what somebody else proposed: it is done with that.
    Approve(ProposalId),
    /// Withdraws what the caller proposed.
    ProposalWithdraw(ProposalId),
    /// Lists proposals, in order of number.
    ProposalList {
        /// Those with higher numbers only.
        after: u64,
        /// How many at most; at least 1 and never more than [`PROPOSALS_PER_LIST`](crate::PROPOSALS_PER_LIST).
        count: u32,
        /// Whether those that are not open any more are listed, too.
        all: bool,
    },
    /// Adds an account, or changes its credit limit or owner.
    AccountPut(Box<AccountPut>),
    /// Freezes an account: nothing is paid from it.
    AccountFreeze(AccountId),
    /// Ends the freeze of an account.
    AccountUnfreeze(AccountId),
    /// Reads one account.
    AccountQuery {
        /// Its number; 0 looks for the name.
        account: AccountId,
        /// Its name.
        name: String,
    },
    /// Lists the accounts, in order of number.
    AccountList {
        /// Those with higher numbers only.
        after: AccountId,
        /// How many at most; never more than [`ACCOUNTS_PER_LIST`].
        count: u32,
    },
    /// Reads what happened to an account's money, newest first.
    AccountStatement {
        /// The account.
        account: AccountId,
        /// Where the statement before said that it goes on; `None` is the newest.
        from: Option<Lsn>,
        /// How many entries at most; at least 1 and never more than [`STATEMENT_LINES_MAX`].
        count: u32,
    },
    /// Moves money between accounts.
    Post(Box<Posting>),
    /// Sets, changes or takes away a limit.
    LimitPut(Box<LimitSpec>),
    /// Lists the limits that stand.
    LimitList,
    /// Reports a redemption that was made offline: it is one now if it fits the card, else an exception.
    Advice(Box<Advice>),
    /// Lists exceptions, in order of number.
    ExceptionList {
        /// Those with higher numbers only.
        after: u64,
        /// How many at most; at least 1 and never more than [`EXCEPTIONS_PER_LIST`](crate::EXCEPTIONS_PER_LIST).
        count: u32,
        /// Whether those that were resolved are listed, too.
        all: bool,
    },
    /// Notes what was done about an exception.
    ExceptionResolve(Box<ExceptionNote>),
    /// Asks what became of a request about a card, without doing it.
    OutcomeOf {
        /// The card.
        card: CardDigest,
        /// The request.
        request: RequestId,
    },
    /// Asks what became of a request about an order.
    OutcomeOfOrder {
        /// The order.
        order: OrderId,
        /// The request.
        request: RequestId,
    },
    /// Asks what became of the posting of a document.
    OutcomeOfDocument {
        /// The document.
        document: DocumentId,
        /// The request.
        request: RequestId,
    },
    /// Lists orders, newest first.
    OrderList(Box<OrderQuery>),
    /// Reads the engine's own figures.
    Stats,
}

/// Which orders are listed, and from where on. The default is all that the caller may see, from the newest on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderQuery {
    /// Where the page before said that it goes on; `None` is the newest.
    pub from: Option<Lsn>,
    /// How many at most: 1 to [`ORDERS_PER_LIST`](crate::ORDERS_PER_LIST).
    pub count: u32,
    /// Only those that this principal opened.
    pub buyer: Option<PrincipalId>,
    /// Only those of this account.
    pub account: Option<AccountId>,
    /// Only those of this product alone.
    pub product: Option<ProductId>,
    /// Only those that stand so now.
    pub state: Option<OrderState>,
}

/// The most cards one order may hold.
pub const ORDER_CARDS_MAX: u32 = 100_000;

/// The most accounts that one reply lists.
pub const ACCOUNTS_PER_LIST: u32 = 500;
/// The most lines of a statement in one reply. Each may cost a read of the disk.
pub const STATEMENT_LINES_MAX: u32 = 100;

impl Command {
    /// Whether it asks for the PIN: what is behind that is told to nobody who does not know it.
    pub(crate) const fn is_behind_pin(&self) -> bool {
        matches!(self, Command::Redeem { .. } | Command::Hold { .. } | Command::Advice(_))
    }

    /// Whether it is about a card's value, however the card is used.
    pub(crate) const fn is_about_value(&self) -> bool {
        matches!(
            self,
            Command::Hold { .. }
                | Command::Capture { .. }
                | Command::Release { .. }
                | Command::HoldTimeout { .. }
                | Command::Load { .. }
                | Command::RefundValue { .. }
                | Command::Settle { .. }
                | Command::Advice(_)
        )
    }

    /// What is said to `role` when there is no such card. To a reversal the answer is that of a card which
    /// is there, and to a till's read that of a card which is not sold, so that nobody can ask with them
    /// which codes exist.
    pub(crate) fn unknown_card(&self, role: Role) -> Status {
        match self {
            Command::Redeem { .. }
            | Command::Hold { .. }
            | Command::Advice(_)
            | Command::Capture { .. }
            | Command::Release { .. } => Status::CardNotValid,
            Command::Query { .. } | Command::History { .. } if role == Role::Redeemer => Status::CardNotValid,
            Command::Reverse { .. } => Status::Tombstoned,
            Command::OutcomeOf { .. } => Status::NoEffect,
            _ => Status::NotFound,
        }
    }

    /// Whether a card with this word is as good as unknown to a caller of `role`, whatever happened to it
    /// before: then its past need not be read, and the answer takes no longer than for an unknown code.
    pub(crate) fn is_hidden(&self, word: Word, role: Role) -> bool {
        word.is_unsold()
            && match self {
                Command::Redeem { .. }
                | Command::Hold { .. }
                | Command::Advice(_)
                | Command::Capture { .. }
                | Command::Release { .. } => true,
                // Those who may not ask for the card itself.
                Command::OutcomeOf { .. } => matches!(role, Role::Redeemer | Role::Issuer),
                Command::Query { .. } | Command::History { .. } => role == Role::Redeemer,
                _ => false,
            }
    }

    /// Whether it changes a batch, product, principal, account or limit, or is about a proposal.
    pub(crate) fn changes_object(&self) -> bool {
        self.card().is_none()
            && !self.is_read()
            && self.order().is_none()
            && !self.is_of_pair()
            && !matches!(self, Command::Post(_) | Command::HoldTimeout { .. })
    }

    /// Whether it may say why, and name an approval: every change that people make to what is for sale, to who may
    /// do what, and to cards by hand.
    #[must_use]
    pub fn takes_grounds(&self) -> bool {
        matches!(
            self,
            Command::Freeze { .. }
                | Command::Unfreeze { .. }
                | Command::Void { .. }
                | Command::Activate { .. }
                | Command::Deactivate { .. }
                | Command::Extend { .. }
                | Command::Expire { .. }
                | Command::Restock { .. }
                | Command::Replace(_)
                | Command::Transfer(_)
                | Command::PinUnlock { .. }
                | Command::RefundValue { .. }
                | Command::Settle { .. }
                | Command::Cancel(_)
                | Command::Return(_)
                | Command::OrderFetch { .. }
        ) || self.changes_object()
    }

    /// Whether it reads what it tells before the lock: what was asked before it must be done by then.
    #[inline]
    pub(crate) fn begins_turn(&self) -> bool {
        matches!(self, Command::AccountStatement { .. } | Command::OrderList(_))
    }

    /// Whether it changes what turns are prepared for, or takes long enough that others are to have the lock next.
    #[inline]
    pub(crate) fn ends_turn(&self) -> bool {
        matches!(
            self,
            Command::LimitPut(_)
                | Command::ExceptionList { .. }
                // Each looks at every card of its order.
                | Command::OrderFetch { .. }
                | Command::OrderStatus(_)
        )
    }

    fn is_read(&self) -> bool {
        matches!(
            self,
            Command::BatchList { .. }
                | Command::ProductList
                | Command::Stock { .. }
                | Command::PrincipalList
                | Command::TenantList
                | Command::ProposalList { .. }
                | Command::AccountQuery { .. }
                | Command::AccountList { .. }
                | Command::AccountStatement { .. }
                | Command::LimitList
                | Command::ExceptionList { .. }
                | Command::OrderList(_)
                | Command::Stats
                | Command::OrderStatus(_)
                | Command::OutcomeOfOrder { .. }
                | Command::OutcomeOfDocument { .. }
        )
    }
}
