//! What may be asked of the engine, and what it answers.
//!
//! A [`Request`] is small and owns no heap memory for the commands of the hot path. Codes do not
//! appear here: the caller turns the typed code into a [`CardDigest`] with
//! [`Engine::digest`](crate::Engine::digest) at the door, and the plaintext ends there.

use std::fmt;
use std::time::Instant;

use kami_wal::Lsn;

use crate::product::{CardKind, Money, Product, ProductSpec};
use crate::record::{self, Head, Kind, Stored};
use crate::sequencer::GROUP_BYTES;
use crate::status::Status;
use crate::table::Batch;
use crate::vault::CodeList;
use crate::word::{CardRef, Flags, Lifecycle, Word};

macro_rules! ids {
    ($($(#[doc = $doc:literal])+ $name:ident($int:ty);)+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
    )+ };
}

ids! {
    /// A merchant platform on a shared engine; 0 is the only one until tenants come.
    TenantId(u16);
    /// Who sent the request: a certificate's owner. 0 is the engine itself.
    PrincipalId(u32);
    /// The till, or 0.
    TerminalId(u32);
    /// The merchant a redeemer belongs to, or 0. A reversal must come from the same one.
    MerchantId(u32);
    /// Through which channel the sale or redemption came (shop, marketplace, agent), or 0.
    ChannelId(u16);
    /// A product.
    ProductId(u32);
    /// A batch: at most 24 bits.
    BatchId(u32);
}

macro_rules! wide_ids {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{:032x}", self.0) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{:032x}", self.0) }
        }
    )+ };
}

wide_ids! {
    /// Chosen by the client, unique per attempt: the same id on the same target is the same request.
    RequestId;
    /// Chosen by the client: the order that owns the cards it bought.
    OrderId;
}

/// The keyed 128-bit digest of a normalised code: all the engine ever looks a card up by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CardDigest(pub(crate) u128);

impl fmt::Debug for CardDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Half of it names a card well enough in a log, and less is given away.
        write!(f, "card:{:016x}…", (self.0 >> 64) as u64)
    }
}

/// The keyed digest of a PIN, bound to its card; compared in constant time.
#[derive(Clone, Copy)]
pub struct PinDigest(pub(crate) [u8; 16]);

impl fmt::Debug for PinDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pin:…")
    }
}

/// What a principal may do. Numbers are part of the log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// Everything.
    Admin = 1,
    /// Imports cards.
    Issuer = 2,
    /// Sells: a platform or an agent.
    Seller = 3,
    /// Redeems: a terminal.
    Redeemer = 4,
    /// Freezes, activates, answers customers.
    Operator = 5,
    /// Settles and reconciles.
    Finance = 6,
    /// Reads.
    Auditor = 7,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 7] = [
        Role::Admin,
        Role::Issuer,
        Role::Seller,
        Role::Redeemer,
        Role::Operator,
        Role::Finance,
        Role::Auditor,
    ];

    /// The role with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Role> {
        match number {
            1 => Some(Role::Admin),
            2 => Some(Role::Issuer),
            3 => Some(Role::Seller),
            4 => Some(Role::Redeemer),
            5 => Some(Role::Operator),
            6 => Some(Role::Finance),
            7 => Some(Role::Auditor),
            _ => None,
        }
    }

    /// The name used on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Issuer => "issuer",
            Role::Seller => "seller",
            Role::Redeemer => "redeemer",
            Role::Operator => "operator",
            Role::Finance => "finance",
            Role::Auditor => "auditor",
        }
    }
}

/// Who asks. Constant for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The tenant all of the caller's cards belong to.
    pub tenant: TenantId,
    /// The caller.
    pub principal: PrincipalId,
    /// What it may do.
    pub role: Role,
    /// The merchant it redeems for.
    pub merchant: MerchantId,
}

impl Caller {
    /// The caller for a platform that embeds the engine and does its own authorisation.
    pub const LOCAL: Caller =
        Caller { tenant: TenantId(0), principal: PrincipalId(1), role: Role::Admin, merchant: MerchantId(0) };
}

/// One request: who, through what, by when, and what.
#[derive(Clone, Debug)]
pub struct Request {
    /// The id that makes a retry safe.
    pub id: RequestId,
    /// Who asks.
    pub caller: Caller,
    /// The till.
    pub terminal: TerminalId,
    /// The sales channel.
    pub channel: ChannelId,
    /// Not executed when this has passed before the decision.
    pub deadline: Option<Instant>,
    /// What is asked.
    pub command: Command,
}

/// What is asked. `docs/wire-protocol.md` has one opcode for each.
#[derive(Clone, Debug)]
pub enum Command {
    /// Uses up a sold card. `amount` is minor units; 0 means all of it, and a SINGLE card takes
    /// nothing else but its face value.
    Redeem {
        /// The card.
        card: CardDigest,
        /// Its PIN, where the batch has PINs.
        pin: Option<PinDigest>,
        /// How much.
        amount: Money,
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
    /// Lists the principals.
    PrincipalList,
    /// Reads the engine's own figures.
    Stats,
}

/// The most cards one order may hold.
pub const ORDER_CARDS_MAX: u32 = 100_000;

/// A principal to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrincipalSpec {
    /// 1 to 64 bytes, unique in the store.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Its tenant.
    pub tenant: TenantId,
    /// The merchant it redeems for.
    pub merchant: MerchantId,
    /// SHA-256 of the public key (DER `SubjectPublicKeyInfo`) that it proves itself with.
    pub key: [u8; 32],
}

/// A principal as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Its number.
    pub id: PrincipalId,
    /// What it was added with.
    pub spec: PrincipalSpec,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// The answer to one [`Request`].
///
/// **No reply leaves before `durable_end` has reached the log's tail as it was after the decision**:
/// not a success, not a refusal, not a read. See [`Work`](crate::Work).
#[derive(Debug)]
pub struct Reply {
    /// The id of the request.
    pub request: RequestId,
    /// The outcome.
    pub status: Status,
    /// More about the outcome.
    pub flags: ReplyFlags,
    /// Where the effect stands in the log; the receipt. `None` for refusals and reads of what never moved.
    pub lsn: Option<Lsn>,
    /// Engine time of the decision, milliseconds since 1970.
    pub time_ms: u64,
    /// What was asked for.
    pub body: ReplyBody,
}

/// Bits of [`Reply::flags`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyFlags(pub u8);

impl ReplyFlags {
    /// The effect is that of an earlier request with the same id.
    pub const REPLAYED: ReplyFlags = ReplyFlags(1);
    /// There is more than this reply carries: fetch the rest.
    pub const PARTIAL: ReplyFlags = ReplyFlags(2);
    /// The replayed effect has been reversed since.
    pub const REVERSED: ReplyFlags = ReplyFlags(4);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: ReplyFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// These bits and those of `other`.
    #[must_use]
    pub const fn with(self, other: ReplyFlags) -> ReplyFlags {
        ReplyFlags(self.0 | other.0)
    }
}

/// What a reply carries beside its head.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReplyBody {
    /// Nothing.
    None,
    /// After REDEEM and REVERSE: what this request moved and what is left.
    Value(ValueReport),
    /// After QUERY, FREEZE, UNFREEZE and VOID.
    Card(CardReport),
    /// After HISTORY, newest first.
    History(Vec<HistoryEvent>),
    /// After SELL and ORDER_FETCH: cards whose codes are read after the reply is durable.
    Cards(CodeList),
    /// After PRODUCT_LIST, and the one product after PRODUCT_ADD and PRODUCT_SET.
    Products(Vec<Product>),
    /// After BATCH_LIST, and the one batch after a batch command or an import.
    Batches(Vec<BatchReport>),
    /// After STOCK.
    Stock(Vec<StockLine>),
    /// After PRINCIPAL_LIST, and the one principal after PRINCIPAL_ADD.
    Principals(Vec<Principal>),
    /// After STATS.
    Stats(Box<Stats>),
    /// After an import was refused for duplicates: the first [`DUPLICATES_MAX`] of them.
    Duplicates(Vec<Duplicate>),
    /// After IMPORT_BEGIN, IMPORT_CHUNK and IMPORT_STATUS.
    Import(ImportReport),
}

/// What a redemption or reversal moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueReport {
    /// The product, which the till prints.
    pub product: ProductId,
    /// What was redeemed or given back, in minor units of the product's currency.
    pub amount: Money,
    /// What is left on the card.
    pub remaining: Money,
}

/// A card as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CardReport {
    /// Where it stands.
    pub card: CardRef,
    /// Its product.
    pub product: ProductId,
    /// The effective state at engine time: freezes, voids and expiry of batch and product included.
    pub lifecycle: Lifecycle,
    /// The effective flags.
    pub flags: Flags,
    /// Its face value in minor units.
    pub face: Money,
    /// When it expires, in milliseconds since 1970; 0 is never.
    pub expires_ms: u64,
    /// The order that bought it.
    pub order: Option<OrderId>,
}

/// One event of a card's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryEvent {
    /// What happened: a record kind's number, see [`record::Kind`](crate::record::Kind).
    pub kind: crate::record::Kind,
    /// Where it stands in the log.
    pub lsn: Lsn,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// The state it left the card in.
    pub lifecycle: Lifecycle,
    /// The flags it left.
    pub flags: Flags,
    /// Who did it.
    pub principal: PrincipalId,
    /// At which till.
    pub terminal: TerminalId,
    /// For which merchant.
    pub merchant: MerchantId,
    /// Through which channel.
    pub channel: ChannelId,
    /// With which request id.
    pub request: RequestId,
    /// The order, for a sale; the original's id, for a reversal or tombstone; else 0.
    pub related: u128,
}

/// A batch as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchReport {
    /// Its number.
    pub id: BatchId,
    /// Its product.
    pub product: ProductId,
    /// The importer's label.
    pub label: String,
    /// When it was imported, in milliseconds since 1970.
    pub imported_ms: u64,
    /// Its cards by logged lifecycle, see [`Lifecycle`]; their sum is the number imported.
    pub counts: [u64; Lifecycle::COUNT],
    /// Whether its cards are redeemable once sold.
    pub active: bool,
    /// Whether it is frozen.
    pub frozen: bool,
    /// Whether its unsold cards were made void.
    pub voided: bool,
    /// When its cards expire, in milliseconds since 1970; 0 is never.
    pub expires_ms: u64,
}

/// The stock of one batch. A product's stock is the sum over its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockLine {
    /// The product.
    pub product: ProductId,
    /// The batch.
    pub batch: BatchId,
    /// How many were imported: the sum of `counts`.
    pub imported: u64,
    /// How many an order could take right now: available, not frozen, not void, not expired.
    pub sellable: u64,
    /// The cards by logged lifecycle.
    pub counts: [u64; Lifecycle::COUNT],
}

/// Figures of the engine since it was opened, and of the store as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Cards in committed batches.
    pub cards: u64,
    /// Committed batches.
    pub batches: u64,
    /// Products.
    pub products: u64,
    /// Orders.
    pub orders: u64,
    /// Commands decided since open.
    pub commands: u64,
    /// Commands refused since open.
    pub refused: u64,
    /// The log's tail, in bytes.
    pub tail: u64,
    /// The end of what is durable, in bytes.
    pub durable_end: u64,
    /// Commits since open: how often the disk was waited for.
    pub commits: u64,
    /// Engine time, milliseconds since 1970.
    pub time_ms: u64,
    /// Cards by logged lifecycle over all batches.
    pub counts: [u64; Lifecycle::COUNT],
}

/// The most duplicates one reply lists.
pub const DUPLICATES_MAX: usize = 1000;

/// A row of an import whose card is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The row of the import, counted from 0.
    pub row: u64,
    /// The same card: in the import itself (`batch` is `None`) or in an earlier batch.
    pub batch: Option<BatchId>,
    /// Its row there.
    pub other_row: u64,
}

/// How far a staged import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportReport {
    /// Rows received so far; the next chunk begins with this row.
    pub rows: u64,
    /// Rows announced.
    pub rows_total: u64,
}

/// What is said of a batch before its rows are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportSpec {
    /// The product its cards are of.
    pub product: ProductId,
    /// The importer's label (supplier, purchase order); 0 to 128 bytes.
    pub label: String,
    /// How many rows will come; the commit is refused if it is another number.
    pub rows: u64,
    /// The longest normalised code, in bytes: 4 to 128. Every row takes this much room.
    pub code_bytes_max: u8,
    /// Whether rows carry a PIN.
    pub pins: bool,
    /// Whether rows carry a face value of their own.
    pub faces: bool,
    /// Whether rows carry an end of validity of their own.
    pub expiries: bool,
    /// The face value of the batch's cards; `None` is the product's.
    pub face: Option<Money>,
    /// From when the batch's cards can be redeemed, in milliseconds since 1970; 0 is at once.
    pub valid_from_ms: u64,
    /// When the batch's cards expire, in milliseconds since 1970; 0 is the product's rule.
    pub expires_ms: u64,
    /// Whether the cards are redeemable once sold, without a later activation.
    pub active: bool,
}

impl ImportSpec {
    /// Active cards with nothing of their own: face and validity are the product's.
    #[must_use]
    pub fn of(product: ProductId, rows: u64, code_bytes_max: u8) -> ImportSpec {
        ImportSpec {
            product,
            label: String::new(),
            rows,
            code_bytes_max,
            pins: false,
            faces: false,
            expiries: false,
            face: None,
            valid_from_ms: 0,
            expires_ms: 0,
            active: true,
        }
    }
}

/// One row of an import.
#[derive(Clone, Copy, Debug)]
pub struct ImportRow<'a> {
    /// The code as the merchant wrote it.
    pub code: &'a [u8],
    /// The PIN; only if the batch has PINs.
    pub pin: Option<&'a [u8]>,
    /// The face value; only if the batch has faces.
    pub face: Option<Money>,
    /// The end of validity; only if the batch has expiries. Milliseconds since 1970, 0 is the batch's.
    pub expires_ms: u64,
}

/// The most bytes of the log an administrative entry takes: its object is small.
const OBJECT_ENTRY_BYTES_MAX: usize = 1024;

impl Command {
    /// The card it is about, if it is about one.
    #[inline]
    #[must_use]
    pub fn card(&self) -> Option<CardDigest> {
        match self {
            Command::Redeem { card, .. }
            | Command::Reverse { card, .. }
            | Command::Query { card }
            | Command::History { card }
            | Command::Freeze { card }
            | Command::Unfreeze { card }
            | Command::Void { card } => Some(*card),
            _ => None,
        }
    }

    /// The batch it changes, if it changes one.
    pub(crate) fn batch(&self) -> Option<BatchId> {
        match self {
            Command::BatchActivate(batch)
            | Command::BatchDeactivate(batch)
            | Command::BatchFreeze(batch)
            | Command::BatchUnfreeze(batch)
            | Command::BatchVoid(batch)
            | Command::BatchExtend { batch, .. } => Some(*batch),
            _ => None,
        }
    }

    /// What is said to `role` when there is no such card. To a reversal the answer is that of a card which
    /// is there, and to a till's read that of a card which is not sold, so that nobody can ask with them
    /// which codes exist.
    pub(crate) fn unknown_card(&self, role: Role) -> Status {
        match self {
            Command::Redeem { .. } => Status::CardNotValid,
            Command::Query { .. } | Command::History { .. } if role == Role::Redeemer => Status::CardNotValid,
            Command::Reverse { .. } => Status::Tombstoned,
            _ => Status::NotFound,
        }
    }

    /// The most bytes of the log that executing it takes. A command that is about no card ends the group
    /// before it and needs one for itself.
    pub(crate) fn log_bytes_max(&self) -> usize {
        match self {
            Command::Query { .. } | Command::History { .. } => 0,
            Command::Sell { count, .. } => {
                2 * GROUP_BYTES + record::Allocation::entry_bytes_max((*count).min(ORDER_CARDS_MAX))
            }
            command if command.card().is_some() => record::HEAD_BYTES + record::ORIGINAL_BYTES,
            command if command.is_read() => GROUP_BYTES,
            _ => 2 * GROUP_BYTES + OBJECT_ENTRY_BYTES_MAX,
        }
    }

    fn is_read(&self) -> bool {
        matches!(
            self,
            Command::BatchList { .. }
                | Command::ProductList
                | Command::Stock { .. }
                | Command::PrincipalList
                | Command::Stats
        )
    }

    /// Whether it changes a batch, product or principal.
    pub(crate) fn changes_object(&self) -> bool {
        self.card().is_none()
            && !self.is_read()
            && !matches!(self, Command::Sell { .. } | Command::OrderFetch { .. })
    }

    /// A checksum of what is asked, by which a retry is told from another request with the same id.
    pub(crate) fn body(&self) -> u32 {
        let mut bytes = [0; 32];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        match self {
            Command::Redeem { amount, .. } => put(0, &amount.to_le_bytes()),
            Command::Reverse { original, .. } => put(0, &original.0.to_le_bytes()),
            Command::Sell { product, count, validity_s_min, .. } => {
                put(0, &product.0.to_le_bytes());
                put(4, &count.to_le_bytes());
                put(8, &validity_s_min.to_le_bytes());
            }
            Command::BatchExtend { expires_ms, .. } => put(0, &expires_ms.to_le_bytes()),
            Command::ProductAdd(spec) | Command::ProductSet(spec) => {
                return crc32c::crc32c(&record::StoredProduct::from((&**spec, TenantId(0))).encode());
            }
            Command::PrincipalAdd(spec) => {
                return crc32c::crc32c(&record::StoredPrincipal::from(&**spec).encode());
            }
            _ => {}
        }
        crc32c::crc32c(&bytes)
    }

    /// The encoded object of a command that adds or changes one.
    pub(crate) fn object_tail(&self, tenant: TenantId) -> Vec<u8> {
        match self {
            Command::ProductAdd(spec) | Command::ProductSet(spec) => {
                record::StoredProduct::from((&**spec, tenant)).entry_tail()
            }
            Command::PrincipalAdd(spec) => record::StoredPrincipal::from(&**spec).entry_tail(),
            _ => Vec::new(),
        }
    }
}

impl Request {
    /// The head of an entry that records this request; post, subject and prev are the caller's. `body` is
    /// [`Command::body`], which takes a while.
    pub(crate) fn head(&self, kind: Kind, body: u32) -> Head {
        Head {
            kind,
            request: self.id,
            principal: self.caller.principal,
            terminal: self.terminal,
            merchant: self.caller.merchant,
            tenant: self.caller.tenant,
            channel: self.channel,
            body,
            post: 0,
            subject: 0,
            prev: 0,
        }
    }
}

impl HistoryEvent {
    /// The event that an entry of a card's chain records; `word` is the card's word after it.
    pub(crate) fn of(entry: &record::Entry<'_>, word: Word) -> Result<HistoryEvent, record::FormatError> {
        let related = match entry.head.kind {
            Kind::Sell => entry.sale()?.0.0,
            Kind::Reverse | Kind::Tombstone => entry.original()?.0.0,
            _ => 0,
        };
        Ok(HistoryEvent {
            kind: entry.head.kind,
            lsn: entry.lsn,
            time_ms: entry.time_ms,
            lifecycle: word.lifecycle(),
            flags: word.flags(),
            principal: entry.head.principal,
            terminal: entry.head.terminal,
            merchant: entry.head.merchant,
            channel: entry.head.channel,
            request: entry.head.request,
            related,
        })
    }

    /// The event a card's history begins with.
    pub(crate) fn of_import(batch: &Batch) -> HistoryEvent {
        HistoryEvent {
            kind: Kind::Import,
            lsn: batch.import_lsn,
            time_ms: batch.imported_ms,
            lifecycle: Lifecycle::Available,
            flags: Flags::NONE,
            principal: batch.imported_by,
            terminal: TerminalId(0),
            merchant: MerchantId(0),
            channel: ChannelId(0),
            request: batch.import,
            related: u128::from(batch.id.0),
        }
    }
}

impl From<(&ProductSpec, TenantId)> for record::StoredProduct {
    fn from((spec, tenant): (&ProductSpec, TenantId)) -> Self {
        record::StoredProduct {
            tenant: tenant.0,
            name: spec.name.clone(),
            kind: spec.kind as u8,
            currency: spec.currency,
            face: spec.face,
            valid_days: spec.valid_days,
            reversal_s: spec.reversal_s,
        }
    }
}

impl record::StoredProduct {
    /// The specification, if every field is known to this version.
    #[must_use]
    pub fn spec(&self) -> Option<ProductSpec> {
        Some(ProductSpec {
            name: self.name.clone(),
            kind: CardKind::from_number(self.kind)?,
            currency: self.currency,
            face: self.face,
            valid_days: self.valid_days,
            reversal_s: self.reversal_s,
        })
    }
}

impl From<&PrincipalSpec> for record::StoredPrincipal {
    fn from(spec: &PrincipalSpec) -> Self {
        record::StoredPrincipal {
            name: spec.name.clone(),
            role: spec.role as u8,
            tenant: spec.tenant.0,
            merchant: spec.merchant.0,
            key: spec.key,
        }
    }
}

impl record::StoredPrincipal {
    /// The specification, if the role is known to this version.
    #[must_use]
    pub fn spec(&self) -> Option<PrincipalSpec> {
        Some(PrincipalSpec {
            name: self.name.clone(),
            role: Role::from_number(self.role)?,
            tenant: TenantId(self.tenant),
            merchant: MerchantId(self.merchant),
            key: self.key,
        })
    }
}
