//! kami-engine: cards, batches, orders. Knows no sockets.
//!
//! One process, one engine: a state machine for every card key, in memory, with every transition in the
//! log before anyone hears of it.
//!
//! # The life of a card
//! ```text
//!             SELL                REDEEM
//! AVAILABLE ────────▶ SOLD ─────────────────▶ REDEEMED
//!   │  在库            │ 已售  ◀───────────────  已核销
//!   │                  │           REVERSE
//!   │ VOID             │ VOID (two people)
//!   ▼                  ▼
//! VOIDED 作废     FREEZE and UNFREEZE 冻结 set a flag and leave the state;
//!                 EXPIRED 过期 follows from engine time and the card's end of validity
//! ```
//! An order that is to be paid keeps its cards RESERVED 占用 until then; what comes back by RETURN goes into stock again if
//! nobody saw its code, and is RETURNED 退回 otherwise (`order.rs`).
//!
//! # The path of a command
//! ```text
//! net/desk.rs                  bytes -> Request; digest of the code at the door
//! engine/sequencer/prepare.rs  before the lock: digest -> CardRef (index.rs), prefetched as a group; pasts read (chain.rs)
//! engine/sequencer/turn.rs     the lock; for each (subject.rs, order.rs, admin.rs): decide -> entry at the tail; publish; words
//! engine/card.rs               decide(view, past, action) -> Outcome            pure, total
//! wal                          append in place, publish the tail; commit; durable_end
//! net/outbox.rs                wait until durable_end >= the tail after the decisions; reply
//! ```
//! **No reply leaves before the state it was decided on is durable**: sales, refusals and reads alike.
//! Changing memory before the log is durable is sound, because whatever rests on the change gets a later
//! position in the same log, and because a failed write ends the process.
//!
//! Recovery takes the same road from [`replay`](record) to the same functions; nothing else writes a word.

mod account;
mod accounts;
mod activity;
mod admin;
mod backup;
mod batch;
mod card;
mod chain;
mod checkpoint;
mod clock;
mod code;
mod command;
mod control;
mod due;
mod engine;
mod event;
mod exceptions;
mod feed;
mod figures;
mod grounds;
mod holds;
mod identity;
mod import;
mod index;
mod keyring;
mod limit;
mod limits;
#[doc(hidden)]
pub mod measured;
mod money;
mod order;
mod orders;
mod origin;
mod outcome;
mod pair;
mod pins;
mod product;
mod proof;
pub mod record;
mod recovery;
mod region;
mod replay;
mod reply;
mod sequencer;
mod session;
mod sharded;
mod state;
mod status;
mod stock;
mod store;
mod subject;
mod sync;
mod table;
mod tenants;
mod totals;
mod upkeep;
mod value;
mod vault;
mod verify;
mod window;
mod word;

/// The store of the integration tests, for tests that look inside the engine on it.
#[cfg(test)]
#[path = "../tests/suite/store.rs"]
#[allow(dead_code, reason = "few of them ask and sell")]
mod tested;
#[cfg(test)]
extern crate self as kami_engine;

pub use account::{
    Account, AccountKind, AccountPut, AccountSpec, LEGS_MAX, Leg, MONEY_MAX, NOTE_BYTES_MAX, Posting,
};
pub use backup::{
    BACKUP_FILE_FIELDS, BACKUP_HEADER_FIELDS, Backup, BackupError, BackupFile, BackupReport, Damage,
    DamagedFile, Dropped, FileKind, Manifest, RestorePoint, RestoreReport, Until, backup,
};
pub use batch::HEADER_FIELDS as BATCH_HEADER_FIELDS;
pub use checkpoint::{CheckpointError, HEADER_FIELDS as SNAPSHOT_HEADER_FIELDS};
pub use clock::{Clock, ClockStep, SystemClock};
pub use code::{Code, CodeError, CodeGroup, lookup_digest};
pub use command::*;
pub use control::{
    ControlReport, DualControl, LAPSE_S, PROPOSALS_PER_LIST, PROPOSALS_PER_PRINCIPAL_MAX,
    PROPOSALS_PER_TENANT_MAX, Proposal, ProposalState, Proposed,
};
pub use engine::{EXIT_POISONED, Engine, EngineOptions, OpenError, RevealError};
pub use event::Event;
pub use exceptions::{
    ADVICE_AGE_MAX_MS, Advice, CLOCK_SKEW_MS, EXCEPTIONS_MAX, EXCEPTIONS_PER_LIST, Exception, ExceptionNote,
    ExceptionPage, RESOLUTION_BYTES_MAX, Resolution,
};
pub use feed::{Feed, FeedPlace, FeedSpec, KindSet, PastError};
pub use figures::{Figures, ProductStock};
pub use grounds::{Grounds, WHY_BYTES_MAX};
pub use identity::*;
pub use import::{ImportRow, ImportSpec};
pub use kami_wal::{
    CommitPath, DiskOptions, Distribution, Durable, DurableWaiter, Histogram, Lsn, Poisoned, planted,
};
pub use keyring::{KeyRotation, copy_keys, copy_keys_for};
pub use limit::{Exceeded, Limit, LimitAction, LimitScope, LimitSpec, LimitWindow, Subject};
pub use limits::LIMITS_MAX;
pub use order::list::{ORDERS_PER_LIST, OrderLine, OrderPage};
pub use order::{Confirmation, GivenBack, Line, ORDER_LINES_MAX, Purchase, RETURN_CARDS_MAX, RETURNS_MAX};
pub use orders::OrderState;
pub use origin::{ORIGIN_BYTES, Origin};
pub use outcome::OutcomeReport;
pub use pair::{REPLACEMENTS_MAX, Replace, Transfer};
pub use pins::{PIN_LOCK_MS, PIN_TRIES};
pub use product::{CardKind, Money, Product, ProductSpec, ProductTerms, SHARED_USES_MAX, ValidFrom};
pub use proof::{
    CardProof, ConsistencyProof, DigestProof, Leaf, ProofCheckpoint, ProofError, ProofKey, ProvenCard,
    VerifierKey, merkle,
};
pub use record::Kind;
pub use record::PostedLeg;
pub use replay::ReplayError;
pub use reply::*;
pub use sequencer::{CodeSet, Work};
pub use session::{AccountPage, Call, Delivery, Failure, Part, Receipt, Reversal, Session, Sold};
pub use status::{Class, Status};
pub use store::IdentityError;
pub use tenants::{TENANTS_MAX, Tenant, TenantSpec};
pub use totals::{
    OFFSET_MIN_MAX, TOTALLED, TOTALS_DAYS_MAX, TOTALS_LINES_MAX, TotalKey, TotalLine, Totals, TotalsQuery,
};
pub use vault::{CodeList, KeyError};
pub use verify::{Verification, VerifyError, verify};
pub use word::{CardRef, Flags, Lifecycle, Word};
