//! The number in a reply's head that says which body follows, and what comes after which command.

use crate::frame::Opcode;

macro_rules! body_kinds {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $code:literal;)+) => {
        /// Which body follows a reply's head.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum BodyKind { $($(#[doc = $doc])+ $name = $number,)+ }

        impl BodyKind {
            /// Every kind, in order of number.
            pub const ALL: &'static [BodyKind] = &[$(BodyKind::$name,)+];

            /// The kind with this number.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<BodyKind> {
                match number { $($number => Some(BodyKind::$name),)+ _ => None }
            }

            /// The stable name.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(BodyKind::$name => $code,)+ }
            }

            /// One sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(BodyKind::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

body_kinds! {
    /// Nothing.
    None = 0, "NONE";
    /// After REDEEM, REVERSE, CAPTURE, RELEASE, LOAD, REFUND_VALUE and TRANSFER: what was moved and what is left.
    Value = 1, "VALUE";
    /// After QUERY, FREEZE, UNFREEZE, VOID, SETTLE, ACTIVATE, DEACTIVATE, EXTEND, EXPIRE and RESTOCK; after REPLACE the
    /// card that took the place.
    Card = 2, "CARD";
    /// After HISTORY, newest first.
    History = 3, "HISTORY";
    /// After SELL and ORDER_FETCH: codes.
    Codes = 4, "CODES";
    /// After PRODUCT_LIST, and the one product after the commands about a product.
    Products = 5, "PRODUCTS";
    /// After BATCH_LIST, and the one batch after the commands about a batch and IMPORT_COMMIT.
    Batches = 6, "BATCHES";
    /// After STOCK.
    Stock = 7, "STOCK";
    /// After PRINCIPAL_LIST, and the one principal after the commands about a principal.
    Principals = 8, "PRINCIPALS";
    /// After STATS.
    Stats = 9, "STATS";
    /// After IMPORT_DUPLICATES; and after an IMPORT_COMMIT was refused for duplicates, the first of them.
    Duplicates = 10, "DUPLICATES";
    /// After IMPORT_BEGIN, IMPORT_CHUNK, IMPORT_STATUS and IMPORT_ABORT; after MALFORMED, `rows` is the bad row.
    Import = 11, "IMPORT";
    /// After HELLO.
    Welcome = 12, "WELCOME";
    /// After REDEEM_BATCH: one line per item, in order.
    Items = 13, "ITEMS";
    /// After MALFORMED: which field of the frame is wrong, for the person who mends the client.
    Reason = 14, "REASON";
    /// After RATE_LIMITED: how long to wait before the same request is sent again.
    Wait = 15, "WAIT";
    /// After ACCOUNT_LIST, in order of number, and the one account after the other commands about one.
    Accounts = 24, "ACCOUNTS";
    /// After ACCOUNT_STATEMENT.
    Statement = 25, "STATEMENT";
    /// After POST: what moved, with the balances it left.
    Posted = 26, "POSTED";
    /// After LIMIT_LIST, and the one limit after LIMIT_PUT.
    Limits = 27, "LIMITS";
    /// After LIMIT_ACCOUNT, LIMIT_IP, LIMIT_RESERVATIONS, LIMIT_TERMINAL and LIMIT_ORDER: which limit, what is left,
    /// when it opens again.
    Exceeded = 28, "EXCEEDED";
    /// After legs were refused: the account that stands against them.
    Account = 29, "ONE_ACCOUNT";
    /// After RESERVE, CANCEL, RETURN and ORDER_STATUS, and after a sale without its codes.
    Order = 30, "ORDER";
    /// After CHECKPOINT.
    Checkpoint = 32, "CHECKPOINT";
    /// After KEY_ROTATE.
    Keys = 33, "KEYS";
    /// After TENANT_LIST, and the one tenant after the other commands about one.
    Tenants = 34, "TENANTS";
    /// After ORDER_LIST.
    Orders = 35, "ORDERS";
    /// After FEED_OPEN: where the feed begins.
    Feed = 40, "FEED";
    /// On the stream of a feed, again and again: events, and up to where all were told.
    Events = 41, "EVENTS";
    /// After RECONCILE.
    Totals = 42, "TOTALS";
    /// After HOLD: what is held, and until when.
    Hold = 43, "HELD";
    /// After SIGNED_CHECKPOINT.
    SignedNote = 48, "SIGNED_NOTE";
    /// After PROOF.
    ProofPart = 49, "PROOF_PART";
    /// After CONSISTENCY.
    Path = 50, "PATH";
    /// After OUTCOME_QUERY: the effect that the request had; where and when is in the head.
    Outcome = 56, "OUTCOME";
    /// After EXCEPTION_LIST, in order of number, and the one exception after EXCEPTION_RESOLVE.
    Exceptions = 57, "EXCEPTIONS";
    /// After PROPOSAL_LIST, in order of number, and the one proposal after PROPOSE, APPROVE and PROPOSAL_WITHDRAW; after
    /// TENANT_CONTROL without any.
    Proposals = 58, "PROPOSALS";
}

impl BodyKind {
    /// What a reply of class done carries; `None` for what this version does not serve.
    #[must_use]
    pub const fn after(opcode: Opcode) -> Option<BodyKind> {
        Some(match opcode {
            Opcode::Hello => BodyKind::Welcome,
            Opcode::Ping => BodyKind::None,
            Opcode::Redeem
            | Opcode::Reverse
            | Opcode::Capture
            | Opcode::Release
            | Opcode::Load
            | Opcode::Advice
            | Opcode::RefundValue
            | Opcode::Transfer => BodyKind::Value,
            Opcode::Hold => BodyKind::Hold,
            Opcode::Query
            | Opcode::Freeze
            | Opcode::Unfreeze
            | Opcode::Void
            | Opcode::Settle
            | Opcode::PinUnlock
            | Opcode::Activate
            | Opcode::Deactivate
            | Opcode::Extend
            | Opcode::Expire
            | Opcode::Restock
            | Opcode::Replace => BodyKind::Card,
            Opcode::History => BodyKind::History,
            Opcode::RedeemBatch => BodyKind::Items,
            Opcode::Sell | Opcode::OrderFetch | Opcode::SellLines | Opcode::Confirm => BodyKind::Codes,
            Opcode::Reserve | Opcode::Cancel | Opcode::Return | Opcode::OrderStatus => BodyKind::Order,
            Opcode::BatchActivate
            | Opcode::BatchDeactivate
            | Opcode::BatchFreeze
            | Opcode::BatchUnfreeze
            | Opcode::BatchVoid
            | Opcode::BatchExtend
            | Opcode::BatchList
            | Opcode::BatchActivateRows
            | Opcode::BatchDeactivateRows
            | Opcode::ImportCommit => BodyKind::Batches,
            Opcode::ProductAdd
            | Opcode::ProductSet
            | Opcode::ProductFreeze
            | Opcode::ProductUnfreeze
            | Opcode::ProductList => BodyKind::Products,
            Opcode::Stock => BodyKind::Stock,
            Opcode::ImportBegin | Opcode::ImportChunk | Opcode::ImportStatus | Opcode::ImportAbort => {
                BodyKind::Import
            }
            Opcode::ImportDuplicates => BodyKind::Duplicates,
            Opcode::PrincipalAdd
            | Opcode::PrincipalRevoke
            | Opcode::PrincipalRenew
            | Opcode::PrincipalList => BodyKind::Principals,
            Opcode::AccountPut
            | Opcode::AccountFreeze
            | Opcode::AccountUnfreeze
            | Opcode::AccountQuery
            | Opcode::AccountList => BodyKind::Accounts,
            Opcode::AccountStatement => BodyKind::Statement,
            Opcode::OrderList => BodyKind::Orders,
            Opcode::Post => BodyKind::Posted,
            Opcode::LimitPut | Opcode::LimitList => BodyKind::Limits,
            Opcode::TenantPut | Opcode::TenantFreeze | Opcode::TenantUnfreeze | Opcode::TenantList => {
                BodyKind::Tenants
            }
            Opcode::Stats => BodyKind::Stats,
            Opcode::Checkpoint => BodyKind::Checkpoint,
            Opcode::KeyRotate => BodyKind::Keys,
            Opcode::FeedOpen => BodyKind::Feed,
            // Not answered, unless it is refused.
            Opcode::FeedAck => BodyKind::None,
            Opcode::Reconcile => BodyKind::Totals,
            Opcode::SignedCheckpoint => BodyKind::SignedNote,
            Opcode::Proof => BodyKind::ProofPart,
            Opcode::Consistency => BodyKind::Path,
            Opcode::OutcomeQuery => BodyKind::Outcome,
            Opcode::ExceptionList | Opcode::ExceptionResolve => BodyKind::Exceptions,
            Opcode::Propose
            | Opcode::Approve
            | Opcode::ProposalWithdraw
            | Opcode::ProposalList
            | Opcode::TenantControl => BodyKind::Proposals,
            // Never done by itself.
            Opcode::Export => BodyKind::None,
            _ => return None,
        })
    }
}
