//! Every command of the protocol: its number, who may send it, and whether this version serves it.
//!
//! Numbers are assigned to everything the product is going to do, so that later versions add bodies
//! and not numbers; what this version does not do yet is answered UNSUPPORTED. A number is never
//! reused. The high byte groups: 00 session, 01 card, 02 order, 03 batch, 04 product, 05 stock and
//! reports, 06 import, 07 principals, 08 money and limits, 09 feeds and proofs, 0a administration.

use kami_engine::Role;

/// Which roles may send a command. An admin always may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    const fn of(roles: &[Role]) -> Roles {
        let mut bits = 1 << Role::Admin as u8;
        let mut i = 0;
        while i < roles.len() {
            bits |= 1 << roles[i] as u8;
            i += 1;
        }
        Roles(bits)
    }

    /// Whether `role` is one of them.
    #[must_use]
    pub const fn contains(self, role: Role) -> bool {
        self.0 >> role as u8 & 1 == 1
    }
}

macro_rules! opcodes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $code:literal, $served:ident, [$($role:ident),*];)+) => {
        /// What a request asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum Opcode { $($(#[doc = $doc])+ $name = $number,)+ }

        impl Opcode {
            /// Every opcode, in order of number.
            pub const ALL: &'static [Opcode] = &[$(Opcode::$name,)+];

            /// The opcode with this number.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Opcode> {
                match number { $($number => Some(Opcode::$name),)+ _ => None }
            }

            /// The stable name.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Opcode::$name => $code,)+ }
            }

            /// One sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Opcode::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }

            /// Who may send it.
            #[must_use]
            pub const fn roles(self) -> Roles {
                match self { $(Opcode::$name => const { Roles::of(&[$(Role::$role),*]) },)+ }
            }

            /// Whether this version carries it out; what it does not is answered UNSUPPORTED.
            #[must_use]
            pub const fn is_served(self) -> bool {
                match self { $(Opcode::$name => opcodes!(@ $served),)+ }
            }
        }
    };
    (@ served) => { true };
    (@ later) => { false };
}

opcodes! {
    /// Says who the server takes the caller for, and the limits of this connection.
    Hello = 0x0001, "HELLO", served, [Issuer, Seller, Redeemer, Operator, Finance, Auditor];
    /// Does nothing; the reply shows that the server answers.
    Ping = 0x0002, "PING", served, [Issuer, Seller, Redeemer, Operator, Finance, Auditor];
    /// Asks what became of a request id on a target, without doing it.
    OutcomeQuery = 0x0003, "OUTCOME_QUERY", served, [Issuer, Seller, Redeemer, Operator, Finance, Auditor];
    /// Runs the next command without effect, to try an integration.
    Sandbox = 0x0004, "SANDBOX", later, [Issuer, Seller, Redeemer, Operator];

    /// Uses a sold card, in part or as a whole.
    Redeem = 0x0101, "REDEEM", served, [Redeemer, Operator];
    /// 冲正: undoes a redemption, capture, load or hold by its request id; one never seen is refused from then on.
    Reverse = 0x0102, "REVERSE", served, [Redeemer, Operator];
    /// Reads a card's state.
    Query = 0x0103, "QUERY", served, [Seller, Redeemer, Operator, Finance, Auditor];
    /// Reads all that ever happened to a card.
    History = 0x0104, "HISTORY", served, [Operator, Finance, Auditor];
    /// Freezes a card.
    Freeze = 0x0105, "FREEZE", served, [Operator];
    /// Ends the freeze of a card.
    Unfreeze = 0x0106, "UNFREEZE", served, [Operator];
    /// Makes a card void for good.
    Void = 0x0107, "VOID", served, [Operator];
    /// Makes a card redeemable, whatever its batch says; a seller does so for cards that are sold.
    Activate = 0x0108, "ACTIVATE", served, [Seller, Operator];
    /// Makes an unused card not redeemable, whatever its batch says.
    Deactivate = 0x0109, "DEACTIVATE", served, [Operator];
    /// Moves the end of a card's validity to a later time; one that had expired is valid again.
    Extend = 0x010a, "EXTEND", served, [Operator];
    /// Ends a card's validity now; what is held of it can still be captured.
    Expire = 0x010b, "EXPIRE", served, [Operator];
    /// Holds a card's value, or part of it; the request id names the hold.
    Hold = 0x010c, "HOLD", served, [Redeemer, Operator];
    /// Redeems all or part of what is held; the hold is over then.
    Capture = 0x010d, "CAPTURE", served, [Redeemer, Operator];
    /// Gives back what is held.
    Release = 0x010e, "RELEASE", served, [Redeemer, Operator];
    /// A hold ran out; written by the engine alone.
    HoldTimeout = 0x010f, "HOLD_TIMEOUT", later, [];
    /// Loads value onto a card.
    Load = 0x0110, "LOAD", served, [Seller];
    /// Gives value of a redemption back that can be reversed no more.
    RefundValue = 0x0111, "REFUND_VALUE", served, [Operator, Finance];
    /// Takes a sold card back.
    Return = 0x0112, "RETURN", served, [Operator];
    /// Makes a returned card void because it went back to its supplier; the one that comes for it is imported.
    Restock = 0x0113, "RESTOCK", served, [];
    /// Makes a sold card void and puts another in its place in its order; the reply is the other card.
    Replace = 0x0114, "REPLACE", served, [Operator];
    /// Moves value of a card to another of its product; all of it makes the card void.
    Transfer = 0x0115, "TRANSFER", served, [Operator];
    /// Settles what was redeemed of a card: it can be reversed no more.
    Settle = 0x0116, "SETTLE", served, [Finance];
    /// Reports a redemption that was made offline: it is one now if it fits the card, else an exception.
    Advice = 0x0117, "ADVICE", served, [Redeemer, Operator];
    /// Lifts the locks that wrong PINs put on a card, and lets everybody try its PIN again.
    PinUnlock = 0x0118, "PIN_UNLOCK", served, [Operator];
    /// Lists exceptions: redemptions made offline that did not fit their card.
    ExceptionList = 0x0119, "EXCEPTION_LIST", served, [Operator, Finance, Auditor];
    /// Notes what was done about an exception.
    ExceptionResolve = 0x011a, "EXCEPTION_RESOLVE", served, [Operator];
    /// Redeems many cards in one frame, each under an id of its own.
    RedeemBatch = 0x0140, "REDEEM_BATCH", served, [Redeemer, Operator];

    /// Sells cards of a product under an order id, all or nothing, and delivers their codes.
    Sell = 0x0201, "SELL", served, [Seller];
    /// Delivers the codes of an order again, to the principal that bought it; to an operator those of another's order
    /// under an approved proposal, or if the tenant's control allows as many.
    OrderFetch = 0x0202, "ORDER_FETCH", served, [Seller, Operator];
    /// Takes cards for an order that is not paid yet.
    Reserve = 0x0203, "RESERVE", served, [Seller];
    /// Completes a reservation.
    Confirm = 0x0204, "CONFIRM", served, [Seller];
    /// Gives a reservation up.
    Cancel = 0x0205, "CANCEL", served, [Seller, Operator];
    /// A reservation ran out; written by the engine alone.
    ReserveTimeout = 0x0206, "RESERVE_TIMEOUT", later, [];
    /// A late payment took other cards; written by the engine alone.
    Realloc = 0x0207, "REALLOC", later, [];
    /// Gives cards out without a price.
    Issue = 0x0208, "ISSUE", later, [Seller, Operator];
    /// Sells several products and denominations under one order id.
    SellLines = 0x0209, "SELL_LINES", served, [Seller];
    /// Reads an order without its codes.
    OrderStatus = 0x020a, "ORDER_STATUS", served, [Seller, Operator, Finance, Auditor];
    /// Lists orders, newest first: a seller its own.
    OrderList = 0x020b, "ORDER_LIST", served, [Seller, Operator, Finance, Auditor];
    /// Makes a link under which the buyer may fetch the codes.
    OrderLink = 0x020c, "ORDER_LINK", later, [Seller];
    /// Sells unsold cards of a batch to an order of the caller's, through which their codes leave; only as a proposal.
    Export = 0x0210, "EXPORT", served, [Operator];

    /// Makes all cards of a batch redeemable.
    BatchActivate = 0x0301, "BATCH_ACTIVATE", served, [Operator];
    /// Makes the unused cards of a batch not redeemable.
    BatchDeactivate = 0x0302, "BATCH_DEACTIVATE", served, [Operator];
    /// Freezes all cards of a batch.
    BatchFreeze = 0x0303, "BATCH_FREEZE", served, [Operator];
    /// Ends the freeze of a batch.
    BatchUnfreeze = 0x0304, "BATCH_UNFREEZE", served, [Operator];
    /// Makes the unsold cards of a batch void for good.
    BatchVoid = 0x0305, "BATCH_VOID", served, [Operator];
    /// Moves the end of validity of a batch to a later time.
    BatchExtend = 0x0306, "BATCH_EXTEND", served, [Operator];
    /// Lists batches.
    BatchList = 0x0307, "BATCH_LIST", served, [Issuer, Operator, Finance, Auditor];
    /// Makes a range of a batch's rows redeemable.
    BatchActivateRows = 0x0310, "BATCH_ACTIVATE_ROWS", served, [Operator];
    /// Makes the unused cards in a range of a batch's rows not redeemable.
    BatchDeactivateRows = 0x0311, "BATCH_DEACTIVATE_ROWS", served, [Operator];

    /// Adds a product.
    ProductAdd = 0x0401, "PRODUCT_ADD", served, [];
    /// Changes a product.
    ProductSet = 0x0402, "PRODUCT_SET", served, [];
    /// Freezes all cards of a product.
    ProductFreeze = 0x0403, "PRODUCT_FREEZE", served, [Operator];
    /// Ends the freeze of a product.
    ProductUnfreeze = 0x0404, "PRODUCT_UNFREEZE", served, [Operator];
    /// Lists products.
    ProductList = 0x0405, "PRODUCT_LIST", served, [Issuer, Seller, Operator, Finance, Auditor];

    /// Counts the stock.
    Stock = 0x0501, "STOCK", served, [Issuer, Seller, Operator, Finance, Auditor];
    /// Totals by day, merchant, channel, terminal, product and kind of event, from the log itself.
    Reconcile = 0x0502, "RECONCILE", served, [Operator, Finance, Auditor];

    /// Announces an import; the request id names it from here on.
    ImportBegin = 0x0601, "IMPORT_BEGIN", served, [Issuer];
    /// Adds rows to an import.
    ImportChunk = 0x0602, "IMPORT_CHUNK", served, [Issuer];
    /// Says how far an import is.
    ImportStatus = 0x0603, "IMPORT_STATUS", served, [Issuer];
    /// Makes an import's cards stock, all or none.
    ImportCommit = 0x0604, "IMPORT_COMMIT", served, [Issuer];
    /// Gives an import up.
    ImportAbort = 0x0605, "IMPORT_ABORT", served, [Issuer];
    /// Lists the rows of an import whose cards are there already.
    ImportDuplicates = 0x0606, "IMPORT_DUPLICATES", served, [Issuer];

    /// Adds a principal.
    PrincipalAdd = 0x0701, "PRINCIPAL_ADD", served, [];
    /// Withdraws a principal for good and closes its connections.
    PrincipalRevoke = 0x0702, "PRINCIPAL_REVOKE", served, [];
    /// Lists principals.
    PrincipalList = 0x0703, "PRINCIPAL_LIST", served, [Operator, Auditor];
    /// Adds a tenant; only the house may, tenant 0, as with the other commands about tenants.
    TenantPut = 0x0704, "TENANT_PUT", served, [];
    /// Freezes all cards of a tenant.
    TenantFreeze = 0x0705, "TENANT_FREEZE", served, [Operator];
    /// Ends the freeze of a tenant.
    TenantUnfreeze = 0x0706, "TENANT_UNFREEZE", served, [Operator];
    /// Proposes a command that a second person must approve, with a reason; whoever may send the command may propose it.
    Propose = 0x0707, "PROPOSE", served, [Operator, Finance];
    /// Approves what somebody else proposed, and has it done; whoever may send the command may approve it.
    Approve = 0x0708, "APPROVE", served, [Operator, Finance];
    /// Notes a new certificate of a principal, and its key if that is new; then the old key's connections
    /// are closed.
    PrincipalRenew = 0x0709, "PRINCIPAL_RENEW", served, [];
    /// Lists the tenants but for the house.
    TenantList = 0x070a, "TENANT_LIST", served, [Operator, Auditor];
    /// Sets what of a tenant takes two people; once it is on, only as a proposal.
    TenantControl = 0x070b, "TENANT_CONTROL", served, [];
    /// Lists proposals, and what of the caller's tenant takes two people; to the house's admins those of all tenants.
    ProposalList = 0x070c, "PROPOSAL_LIST", served, [Operator, Finance, Auditor];
    /// Withdraws what the caller proposed.
    ProposalWithdraw = 0x070d, "PROPOSAL_WITHDRAW", served, [Operator, Finance];

    /// Adds or changes an account.
    AccountPut = 0x0801, "ACCOUNT_PUT", served, [Finance];
    /// Freezes an account.
    AccountFreeze = 0x0802, "ACCOUNT_FREEZE", served, [Operator, Finance];
    /// Ends the freeze of an account.
    AccountUnfreeze = 0x0803, "ACCOUNT_UNFREEZE", served, [Operator, Finance];
    /// Moves money between accounts.
    Post = 0x0804, "POST", served, [Finance];
    /// Reads an account.
    AccountQuery = 0x0805, "ACCOUNT_QUERY", served, [Seller, Operator, Finance, Auditor];
    /// Lists accounts.
    AccountList = 0x0806, "ACCOUNT_LIST", served, [Finance, Auditor];
    /// Sets a limit on purchases, reservations or velocity.
    LimitPut = 0x0807, "LIMIT_PUT", served, [Operator];
    /// Lists limits.
    LimitList = 0x0808, "LIMIT_LIST", served, [Operator, Finance, Auditor];
    /// Reads what happened to an account's money, newest first.
    AccountStatement = 0x0809, "ACCOUNT_STATEMENT", served, [Seller, Operator, Finance, Auditor];

    /// Follows the log's events in order from a position: turns its stream into a feed.
    FeedOpen = 0x0901, "FEED_OPEN", served, [Operator, Finance, Auditor];
    /// Tells how far a feed was read, and how many more events may be sent; on a feed's own stream, not answered.
    FeedAck = 0x0902, "FEED_ACK", served, [Operator, Finance, Auditor];
    /// Proves what happened to a card, up to a signed checkpoint; travels in parts.
    Proof = 0x0903, "PROOF", served, [Operator, Finance, Auditor];
    /// Proves that one checkpoint continues another.
    Consistency = 0x0904, "CONSISTENCY", served, [Operator, Finance, Auditor];

    /// Reads the engine's own figures.
    Stats = 0x0a01, "STATS", served, [Operator, Finance, Auditor];
    /// Writes a snapshot beside all other work; BUSY if one is being written.
    Checkpoint = 0x0a02, "CHECKPOINT", served, [Operator];
    /// Accepts a step of the wall clock.
    ClockAccept = 0x0a03, "CLOCK_ACCEPT", later, [];
    /// Wraps the keys of all batches with a new master key.
    KeyRotate = 0x0a04, "KEY_ROTATE", served, [];
    /// Signs the log as it stands; if nothing happened since the last time, that one is given out again.
    SignedCheckpoint = 0x0a05, "SIGNED_CHECKPOINT", served, [Operator, Finance, Auditor];
    /// Stops or resumes changes.
    ReadOnly = 0x0a06, "READ_ONLY", later, [];
}

impl Opcode {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Whether a caller of this role may send it: denied unless the table says otherwise.
    #[must_use]
    pub const fn allows(self, role: Role) -> bool {
        self.roles().contains(role)
    }

    /// Whether its body may begin with its grounds: why, and under whose approval. These are the changes that people
    /// make by hand.
    #[must_use]
    pub const fn takes_grounds(self) -> bool {
        matches!(
            self,
            Opcode::Freeze
                | Opcode::Unfreeze
                | Opcode::Void
                | Opcode::Activate
                | Opcode::Deactivate
                | Opcode::Extend
                | Opcode::Expire
                | Opcode::Restock
                | Opcode::Replace
                | Opcode::Transfer
                | Opcode::PinUnlock
                | Opcode::RefundValue
                | Opcode::Settle
                | Opcode::ExceptionResolve
                | Opcode::Cancel
                | Opcode::Return
                | Opcode::OrderFetch
                | Opcode::BatchActivate
                | Opcode::BatchDeactivate
                | Opcode::BatchActivateRows
                | Opcode::BatchDeactivateRows
                | Opcode::BatchFreeze
                | Opcode::BatchUnfreeze
                | Opcode::BatchVoid
                | Opcode::BatchExtend
                | Opcode::ProductAdd
                | Opcode::ProductSet
                | Opcode::ProductFreeze
                | Opcode::ProductUnfreeze
                | Opcode::PrincipalAdd
                | Opcode::PrincipalRevoke
                | Opcode::PrincipalRenew
                | Opcode::TenantPut
                | Opcode::TenantFreeze
                | Opcode::TenantUnfreeze
                | Opcode::TenantControl
                | Opcode::Export
                | Opcode::Propose
                | Opcode::Approve
                | Opcode::ProposalWithdraw
                | Opcode::AccountPut
                | Opcode::AccountFreeze
                | Opcode::AccountUnfreeze
                | Opcode::LimitPut
                | Opcode::ImportCommit
                | Opcode::KeyRotate
        )
    }

    /// The longest frame of this command, head included. Only commands that carry many rows may be
    /// long, so that few callers can make the server keep much.
    #[must_use]
    pub const fn frame_bytes_max(self) -> usize {
        match self {
            Opcode::ImportChunk => super::FRAME_BYTES_MAX,
            Opcode::RedeemBatch => 128 << 10,
            _ => SMALL_FRAME_BYTES_MAX,
        }
    }
}

/// The longest frame of a command that carries no rows, and of an unknown one.
pub const SMALL_FRAME_BYTES_MAX: usize = 4 << 10;
