//! One frame of every kind, with values that tell the fields apart.

use bytes::BytesMut;
use kami_engine::{
    Account, AccountId, AccountKind, AccountPut, AccountSpec, BatchId, BatchReport, CardKind, CardRef,
    CardReport, CertificateNote, ChannelId, Checkpoint, Confirmation, DocumentId, DualControl, Duplicate,
    Event, Exceeded, Exception, ExceptionNote, FeedSpec, Flags, Grounds, HistoryEvent, HoldReport,
    ImportReport, ImportRow, ImportSpec, KeyRotation, KindSet, Leg, Lifecycle, Limit, LimitAction, LimitId,
    LimitScope, LimitSpec, LimitWindow, Line, MerchantId, OrderId, OrderLine, OrderPage, OrderQuery,
    OrderReport, OrderState, Origin, OutcomeReport, PostedLeg, Posting, Principal, PrincipalId,
    PrincipalSpec, Product, ProductId, ProductSpec, ProductTerms, ProofPart, Proposal, ProposalId,
    ProposalState, Proposed, Purchase, Renewal, ReplyFlags, RequestId, Resolution, Role, SignedNote,
    StatementLine, Stats, Status, StockLine, Tenant, TenantId, TenantSpec, TerminalId, TotalKey, TotalLine,
    Totals, TotalsQuery, ValidFrom, ValueReport, record::Kind,
};
use kami_net::frame::control::{Asked, Export, OneProposal, ProposalList, Proposals, TenantControl};
use kami_net::frame::money::{AccountList, AccountQuery, AccountStatement, OneAccount, Statement};
use kami_net::frame::order::{GiveBack, OneOrder};
use kami_net::frame::reply::{self, Codes};
use kami_net::frame::request::{
    Advice, BatchExtend, BatchRows, Capture, Chunk, ChunkRows, Columns, ConsistencyOf, DuplicatesOf,
    ExceptionList, Extend, FeedAck, FeedOpen, Hold, Item, Items, Load, OfProduct, OneBatch, OneCard,
    OneImport, OnePrincipal, OneProduct, OneTenant, OrderFetch, OutcomeQuery, ProofOf, Redeem, RefundValue,
    Release, Replace, Restock, Reverse, Sell, Transfer,
};
use kami_net::frame::{
    Body, Exceptions, FeedBegin, FeedEvents, ItemReport, Listing, Opcode, PathHash, ReplyHead, Request,
    RequestFlags, RequestHead, Secret, SoldCard, Wait, Welcome,
};

const ID: RequestId = RequestId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0101);
const ORDER: OrderId = OrderId(0xa0a1_a2a3_a4a5_a6a7_a8a9_aaab_acad_aeaf);

fn lsn(units: u64) -> Option<kami_engine::Lsn> {
    kami_engine::Lsn::from_units(units)
}

/// Each request body this version has, in order of opcode, as whole frames.
pub fn requests() -> Vec<(Opcode, Vec<u8>)> {
    let code = Secret(b"KAMI-7QFM-2X9T");
    let card = OneCard { code };
    let batch = OneBatch { batch: BatchId(7) };
    let product = OneProduct { product: ProductId(3) };
    let of_product = OfProduct { product: Some(ProductId(3)) };
    let import = OneImport { import: ID };
    let account = OneAccount { account: AccountId(4) };
    let items = [
        Item { request: RequestId(0x21), amount: 0, code, pin: None },
        Item { request: RequestId(0x22), amount: 250, code: Secret(b"CARD0002"), pin: Some(Secret(b"4711")) },
    ];
    let import_spec = ImportSpec {
        product: ProductId(3),
        label: "PO-2031".to_owned(),
        rows: 2,
        code_bytes_max: 16,
        pins: true,
        faces: true,
        expiries: true,
        origins: true,
        face: None,
        valid_from_ms: 1_770_000_000_000,
        expires_ms: 1_800_000_000_000,
        active: true,
        skip_duplicates: true,
        content: 0x5151,
    };
    let mut rows = ChunkRows::new(Columns::of(&import_spec), 4096);
    for row in [
        ImportRow {
            code: b"CARD0001",
            pin: Some(b"0815"),
            face: Some(5000),
            expires_ms: 0,
            origin: Some(Origin::default()),
        },
        ImportRow {
            code: b"CARD0002",
            expires_ms: 1_900_000_000_000,
            origin: Some(Origin {
                state: Lifecycle::Sold,
                frozen: true,
                sold_ms: 1_760_000_000_000,
                redeemed_ms: 1_761_000_000_000,
                remaining: Some(250),
                order: Some(OrderId(0x0dd)),
            }),
            ..ImportRow::default()
        },
    ] {
        assert!(rows.push(&row));
    }
    let bodies = vec![
        Request::Hello,
        Request::Ping,
        Request::OutcomeQuery(OutcomeQuery { asked: ID, target: OutcomeQuery::CARD, id: 0, code }),
        Request::Redeem(Redeem { amount: 1234, code, pin: Some(Secret(b"4711")) }),
        Request::Reverse(Reverse { original: RequestId(0x31), code }),
        Request::Query(card),
        Request::History(card),
        Request::Freeze(card),
        Request::Unfreeze(card),
        Request::Void(card),
        Request::Activate(card),
        Request::Deactivate(card),
        Request::Extend(Extend { expires_ms: 1_900_000_000_000, code }),
        Request::Expire(card),
        Request::Restock(Restock { reference: DocumentId(0xd0c), code }),
        Request::Replace(Replace { code, with: Some(Secret(b"GIFT-00000002")) }),
        Request::Transfer(Transfer { amount: 1234, code, to: Secret(b"GIFT-00000002") }),
        Request::Hold(Hold { amount: 1234, seconds: 90, code, pin: Some(Secret(b"4711")) }),
        Request::Capture(Capture { hold: RequestId(0x41), amount: 1000, code }),
        Request::Release(Release { hold: RequestId(0x41), code }),
        Request::Load(Load { amount: 5000, code }),
        Request::RefundValue(RefundValue { original: RequestId(0x31), amount: 234, code }),
        Request::Settle(card),
        Request::Advice(Advice {
            amount: 1234,
            made_ms: 1_767_225_600_123,
            code,
            pin: Some(Secret(b"4711")),
        }),
        Request::PinUnlock(card),
        Request::ExceptionList(ExceptionList { after: 17, count: 500, all: true }),
        Request::ExceptionResolve(Box::new(ExceptionNote { id: 17, note: "paid by the shop".to_owned() })),
        Request::RedeemBatch(Items::new(&items)),
        Request::Sell(Sell { order: ORDER, product: ProductId(3), count: 100, validity_s_min: 86400 }),
        Request::OrderFetch(OrderFetch { order: ORDER, from: 10, count: 90 }),
        Request::BatchActivate(batch),
        Request::BatchDeactivate(batch),
        Request::BatchFreeze(batch),
        Request::BatchUnfreeze(batch),
        Request::BatchVoid(batch),
        Request::BatchExtend(BatchExtend { batch: BatchId(7), expires_ms: 1_900_000_000_000 }),
        Request::BatchActivateRows(BatchRows { batch: BatchId(7), from: 1000, rows: 500 }),
        Request::BatchDeactivateRows(BatchRows { batch: BatchId(7), from: 1000, rows: 500 }),
        Request::BatchList(of_product),
        Request::ProductAdd(Box::new(product_spec())),
        Request::ProductSet(Box::new(product_spec())),
        Request::ProductFreeze(product),
        Request::ProductUnfreeze(product),
        Request::ProductList,
        Request::Stock(OfProduct { product: None }),
        Request::Reconcile(TotalsQuery {
            day: 20_780,
            days: 2,
            offset_min: 480,
            lines_max: 1000,
            end: lsn(0x2000),
            after: Some(total_key()),
        }),
        Request::ImportBegin(Box::new(import_spec)),
        Request::ImportChunk(Chunk::new(ID, 1000, &rows)),
        Request::ImportStatus(import),
        Request::ImportCommit(import),
        Request::ImportAbort(import),
        Request::ImportDuplicates(DuplicatesOf { import: ID, from: 10_000 }),
        Request::PrincipalAdd(Box::new(principal_spec())),
        Request::PrincipalRevoke(OnePrincipal { principal: PrincipalId(9) }),
        Request::PrincipalRenew(Box::new(Renewal {
            principal: PrincipalId(9),
            key: std::array::from_fn(|i| i as u8),
            certificate: certificate_note(),
        })),
        Request::PrincipalList,
        Request::SellLines(Box::new(purchase())),
        Request::Reserve(Box::new(purchase())),
        Request::Confirm(Box::new(Confirmation {
            order: OrderId(0x0bde),
            legs: purchase().legs,
            realloc: true,
            sealed: false,
        })),
        Request::Cancel(OneOrder { order: OrderId(0x0bde) }),
        Request::Return(Box::new(GiveBack {
            order: OrderId(0x0bde),
            legs: vec![
                Leg { account: AccountId(4), amount: -2000 },
                Leg { account: AccountId(2), amount: 2000 },
            ],
            codes: vec![Secret(b"AB12-CD34"), Secret(b"EF56-GH78")],
        })),
        Request::OrderStatus(OneOrder { order: OrderId(0x0bde) }),
        Request::OrderList(Box::new(OrderQuery {
            from: lsn(0x2000),
            count: 50,
            buyer: Some(PrincipalId(9)),
            account: Some(AccountId(4)),
            product: Some(ProductId(3)),
            state: Some(OrderState::Reserved),
        })),
        Request::AccountPut(Box::new(AccountPut { spec: account_spec(), new: true })),
        Request::AccountFreeze(account),
        Request::AccountUnfreeze(account),
        Request::Post(Box::new(Posting {
            document: DocumentId(0x2031),
            legs: vec![
                Leg { account: AccountId(2), amount: -150_000 },
                Leg { account: AccountId(4), amount: 150_000 },
            ],
            note: "转账 31".to_owned(),
        })),
        Request::AccountQuery(AccountQuery { account: AccountId(0), name: "shop-17".to_owned() }),
        Request::AccountList(AccountList { after: AccountId(500), count: 100 }),
        Request::LimitPut(Box::new(limit_spec())),
        Request::LimitList,
        Request::TenantPut(Box::new(TenantSpec { name: "north-shop".to_owned() })),
        Request::TenantFreeze(OneTenant { tenant: TenantId(2) }),
        Request::TenantUnfreeze(OneTenant { tenant: TenantId(2) }),
        Request::TenantList,
        Request::TenantControl(TenantControl { tenant: TenantId(2), control: CONTROL }),
        Request::Export(Export { batch: BatchId(7), count: 500 }),
        Request::Propose(Box::new(Asked { request: Request::Void(card) })),
        Request::Approve(OneProposal { proposal: ProposalId(0x51) }),
        Request::ProposalWithdraw(OneProposal { proposal: ProposalId(0x51) }),
        Request::ProposalList(ProposalList { after: 17, count: 500, all: true }),
        Request::AccountStatement(AccountStatement { account: AccountId(4), from: lsn(0x2000), count: 50 }),
        Request::FeedOpen(FeedOpen {
            credit: 4096,
            spec: FeedSpec {
                after: lsn(0x2000),
                epoch: 3,
                kinds: KindSet::of(&[Kind::Redeem, Kind::Sell]),
                products: vec![ProductId(3), ProductId(7)],
            },
        }),
        Request::FeedAck(FeedAck { seen: lsn(0x2008), credit: 2048 }),
        Request::Stats,
        Request::Checkpoint,
        Request::KeyRotate,
        Request::SignedCheckpoint,
        Request::Proof(ProofOf { size: 1234, from: 524_288, code }),
        Request::Consistency(ConsistencyOf { old: 1000, new: 1234 }),
    ];
    let encode = |body: &Request<'_>| {
        let head = RequestHead {
            flags: RequestFlags::NONE,
            opcode: 0,
            request: ID,
            deadline_ms: 1500,
            terminal: TerminalId(0x7e57),
            channel: ChannelId(5),
        };
        let mut out = BytesMut::new();
        body.encode(&head, &mut out).unwrap();
        (body.opcode(), out.to_vec())
    };
    bodies.iter().map(encode).collect()
}

/// A reply with each kind of body, as whole frames.
pub fn replies() -> Vec<(&'static str, Vec<u8>)> {
    replies_decoded()
        .into_iter()
        .map(|(head, body)| {
            let mut out = BytesMut::new();
            reply::encode(&head, &body, &mut out);
            (body.kind().code(), out.to_vec())
        })
        .collect()
}

/// The same before they are encoded.
pub fn replies_decoded() -> Vec<(ReplyHead, Body)> {
    let value = ValueReport { product: ProductId(3), amount: 1234, remaining: 766 };
    let counts = [1, 2, 3, 4, 5, 6, 7, 0];
    let card = CardRef::new(7, 41);
    let sold = |card, code: &[u8]| SoldCard { card, code: zeroize::Zeroizing::new(code.into()) };
    let bodies = vec![
        (Opcode::Ping, Body::None),
        (Opcode::Redeem, Body::Value(value)),
        (
            Opcode::Hold,
            Body::Hold(HoldReport {
                product: ProductId(3),
                amount: 1234,
                remaining: 2000,
                held: 1734,
                deadline_ms: 1_763_800_000_000,
            }),
        ),
        (
            Opcode::Query,
            Body::Card(CardReport {
                remaining: 766,
                held: 100,
                card,
                product: ProductId(3),
                lifecycle: Lifecycle::Sold,
                flags: Flags::ACTIVE.with(Flags::REVEALED),
                face: 2000,
                expires_ms: 1_900_000_000_000,
                order: Some(ORDER),
            }),
        ),
        (
            Opcode::History,
            Body::History(Listing::of(vec![HistoryEvent {
                amount: 1234,
                remaining: 766,
                made_ms: 1_767_225_500_123,
                kind: Kind::Redeem,
                lsn: lsn(0x2000).unwrap(),
                time_ms: 1_767_225_600_123,
                lifecycle: Lifecycle::Redeemed,
                flags: Flags::HAS_EFFECTS.with(Flags::USED),
                principal: PrincipalId(9),
                terminal: TerminalId(0x7e57),
                merchant: MerchantId(6),
                channel: ChannelId(5),
                request: ID,
                related: 0,
                grounds: grounds(),
            }])),
        ),
        (
            Opcode::Sell,
            Body::Codes(Codes {
                total: 5,
                from: 1,
                cards: vec![sold(card, b"CARD0001"), sold(CardRef::new(7, 42), b"CARD0002")],
            }),
        ),
        (
            Opcode::ProductList,
            Body::Products(Listing::of(vec![Product {
                id: ProductId(3),
                spec: product_spec(),
                frozen: true,
            }])),
        ),
        (
            Opcode::BatchList,
            Body::Batches(Listing::of(vec![BatchReport {
                id: BatchId(7),
                product: ProductId(3),
                label: "PO-2031".to_owned(),
                imported_ms: 1_767_225_600_000,
                counts,
                active: true,
                active_rows: 100,
                frozen: false,
                voided: true,
                expires_ms: 1_900_000_000_000,
            }])),
        ),
        (
            Opcode::Stock,
            Body::Stock(Listing::of(vec![StockLine {
                product: ProductId(3),
                batch: BatchId(7),
                imported: 28,
                sellable: 1,
                counts,
            }])),
        ),
        (
            Opcode::PrincipalList,
            Body::Principals(Listing::of(vec![Principal {
                id: PrincipalId(9),
                spec: principal_spec(),
                revoked: false,
            }])),
        ),
        (
            Opcode::Stats,
            Body::Stats(Stats {
                cards: 28,
                batches: 1,
                products: 3,
                orders: 4,
                commands: 100,
                refused: 8,
                misses: 5,
                rate_limited: 4,
                budgets_spent: 1,
                tail: 0x2_0000,
                durable_end: 0x1_ff00,
                commits: 12,
                time_ms: 1_767_225_600_123,
                counts,
            }),
        ),
        (
            Opcode::ImportCommit,
            Body::Duplicates(Listing::of(vec![
                Duplicate { row: 17, batch: Some(BatchId(6)), other_row: 4 },
                Duplicate { row: 18, batch: None, other_row: 2 },
            ])),
        ),
        (Opcode::ImportChunk, Body::Import(ImportReport { rows: 1002, rows_total: 5000, duplicates: 3 })),
        (
            Opcode::Hello,
            Body::Welcome(Welcome {
                principal: PrincipalId(9),
                merchant: MerchantId(6),
                tenant: TenantId(0),
                role: Role::Redeemer,
                version_max: 1,
                frame_bytes_max: 1 << 20,
                streams_max: 32,
                items_max: 1024,
            }),
        ),
        (
            Opcode::RedeemBatch,
            Body::Items(Listing::of(vec![
                ItemReport {
                    request: RequestId(0x21),
                    lsn: lsn(0x2000),
                    status: Status::Ok,
                    flags: ReplyFlags::REPLAYED,
                    value,
                },
                ItemReport {
                    request: RequestId(0x22),
                    lsn: None,
                    status: Status::CardNotValid,
                    flags: ReplyFlags(0),
                    value: ValueReport { product: ProductId(0), amount: 0, remaining: 0 },
                },
            ])),
        ),
        (
            Opcode::Checkpoint,
            Body::Checkpoint(Checkpoint {
                start: lsn(0x1_0000).unwrap(),
                end: lsn(0x1_2000).unwrap(),
                bytes: 8192,
                took_ms: 70,
            }),
        ),
        (Opcode::KeyRotate, Body::Keys(KeyRotation { key: 0x0123_4567_89ab_cdef, keys: 12 })),
        (Opcode::AccountList, Body::Accounts(Listing::of(vec![account()]))),
        (
            Opcode::AccountStatement,
            Body::Statement(Box::new(Statement {
                next: lsn(0x1f00),
                account: account(),
                lines: vec![StatementLine {
                    lsn: lsn(0x2000).unwrap(),
                    time_ms: 1_767_225_600_123,
                    kind: Kind::Post,
                    principal: PrincipalId(9),
                    channel: ChannelId(5),
                    related: 0x2031,
                    amount: 150_000,
                    balance: 148_000,
                }],
            })),
        ),
        (
            Opcode::OrderList,
            Body::Orders(OrderPage {
                lines: vec![OrderLine {
                    order: OrderId(0x0bde),
                    state: OrderState::TimedOut,
                    fetched: false,
                    buyer: PrincipalId(9),
                    account: AccountId(4),
                    product: Some(ProductId(3)),
                    cards: 12,
                    opened_ms: 1_767_225_600_123,
                    lsn: lsn(0x2000).unwrap(),
                }],
                next: lsn(0x1f00),
            }),
        ),
        (
            Opcode::Post,
            Body::Posted(Listing::of(vec![PostedLeg {
                leg: Leg { account: AccountId(4), amount: 150_000 },
                balance: 148_000,
                prev: lsn(0x1f00),
            }])),
        ),
        (
            Opcode::Reserve,
            Body::Order(Box::new(OrderReport {
                order: OrderId(0x0bde),
                state: OrderState::Reserved,
                fetched: false,
                buyer: PrincipalId(5),
                account: AccountId(2),
                cards: 3,
                deadline_ms: 1_767_225_600_000,
                lines: purchase().lines,
            })),
        ),
        (
            Opcode::LimitList,
            Body::Limits(Listing::of(vec![Limit {
                id: LimitId(2),
                tenant: TenantId(0),
                spec: limit_spec(),
            }])),
        ),
        (
            Opcode::Redeem,
            Body::Exceeded(Exceeded {
                limit: LimitId(2),
                status: Status::LimitTerminal,
                left: 3,
                opens_ms: 40_000,
            }),
        ),
        (
            Opcode::TenantList,
            Body::Tenants(Listing::of(vec![Tenant {
                id: TenantId(2),
                spec: TenantSpec { name: "north-shop".to_owned() },
                frozen: true,
            }])),
        ),
        (Opcode::Post, Body::Account(OneAccount { account: AccountId(4) })),
        (
            Opcode::FeedOpen,
            Body::Feed(FeedBegin { position: lsn(0x2000).unwrap(), epoch: 3, end: lsn(0x3000).unwrap() }),
        ),
        (
            Opcode::FeedOpen,
            Body::Events(FeedEvents {
                position: lsn(0x2020).unwrap(),
                epoch: 3,
                end: lsn(0x3000).unwrap(),
                events: vec![feed_event()],
            }),
        ),
        (
            Opcode::Reconcile,
            Body::Totals(Totals {
                end: lsn(0x3000).unwrap(),
                more: true,
                lines: vec![TotalLine { key: total_key(), count: 17, amount: 34_000 }],
            }),
        ),
        (
            Opcode::SignedCheckpoint,
            Body::SignedNote(SignedNote {
                size: 1234,
                note: "kami/0000000000000001-9c41d2e0\n1234\n…\n\n— …\n".to_owned(),
                key: "kami/0000000000000001-9c41d2e0+0337ab82+…".to_owned(),
            }),
        ),
        (
            Opcode::Proof,
            Body::ProofPart(ProofPart {
                size: 1234,
                key: "kami/0000000000000001-9c41d2e0+0337ab82+…".to_owned(),
                total: 5000,
                from: 0,
                bytes: b"kami-card-proof/v1\n".to_vec(),
            }),
        ),
        (Opcode::Consistency, Body::Path(Listing::of(vec![PathHash { hash: [0x4f; 32] }; 2]))),
        (
            Opcode::OutcomeQuery,
            Body::Outcome(OutcomeReport {
                kind: Kind::Hold,
                principal: PrincipalId(9),
                product: Some(ProductId(3)),
                amount: 1000,
                remaining: 2000,
                deadline_ms: 1_767_225_600_000,
            }),
        ),
        (
            Opcode::ExceptionList,
            Body::Exceptions(Exceptions {
                reached: 19,
                listing: Listing::of(vec![Exception {
                    id: 17,
                    card: Some(CardRef::new(7, 41)),
                    reason: Status::AlreadyRedeemed,
                    request: ID,
                    principal: PrincipalId(9),
                    terminal: TerminalId(0x7e57),
                    merchant: MerchantId(6),
                    channel: ChannelId(5),
                    amount: 1234,
                    made_ms: 1_767_225_600_123,
                    time_ms: 1_767_225_700_123,
                    lsn: lsn(0x2000).unwrap(),
                    resolution: Some(Resolution {
                        principal: PrincipalId(2),
                        time_ms: 1_767_225_800_123,
                        note: "paid by the shop".to_owned(),
                    }),
                }]),
            }),
        ),
        (
            Opcode::ProposalList,
            Body::Proposals(Box::new(Proposals {
                control: CONTROL,
                listing: Listing::of(vec![Proposal {
                    number: 17,
                    id: ProposalId(0x51),
                    tenant: TenantId(2),
                    proposed: Proposed::RefundValue {
                        card: CardRef::new(7, 41),
                        original: RequestId(0x31),
                        amount: 234,
                    },
                    proposer: PrincipalId(9),
                    why: "reported stolen".to_owned(),
                    time_ms: 1_767_225_600_123,
                    lapses_ms: 1_767_312_000_123,
                    state: ProposalState::Approved,
                    ended: Some((PrincipalId(12), 1_767_225_700_123)),
                    lsn: lsn(0x2000).unwrap(),
                }]),
            })),
        ),
        (Opcode::Redeem, Body::Reason("code".to_owned())),
        (Opcode::Redeem, Body::Wait(Wait { wait_ms: 6000 })),
    ];
    let head = |opcode: Opcode, body: &Body| ReplyHead {
        flags: match body {
            Body::Codes(_) => ReplyFlags::PARTIAL,
            _ => ReplyFlags(0),
        },
        opcode: opcode.number(),
        request: ID,
        status: match body {
            Body::Duplicates(_) => Status::DuplicateCard,
            Body::Reason(_) => Status::Malformed,
            Body::Wait(_) => Status::RateLimited,
            Body::Exceeded(_) => Status::LimitTerminal,
            Body::Account(_) => Status::InsufficientFunds,
            _ => Status::Ok,
        },
        lsn: lsn(0x2008),
        time_ms: 1_767_225_600_123,
    };
    bodies.into_iter().map(|(opcode, body)| (head(opcode, &body), body)).collect()
}

fn total_key() -> TotalKey {
    TotalKey {
        day: 20_780,
        merchant: MerchantId(6),
        channel: ChannelId(5),
        terminal: TerminalId(0x7e57),
        product: ProductId(3),
        kind: Kind::Redeem.number(),
    }
}

pub fn feed_event() -> Event {
    Event {
        lsn: lsn(0x2010).unwrap(),
        epoch: 3,
        time_ms: 1_767_225_600_123,
        kind: Kind::Reverse,
        request: ID,
        related: 0x31,
        order: Some(ORDER),
        card: Some(CardRef::new(7, 41)),
        object: 11,
        amount: Some(2000),
        count: 1,
        product: Some(ProductId(3)),
        batch: Some(BatchId(7)),
        principal: PrincipalId(9),
        terminal: TerminalId(0x7e57),
        merchant: MerchantId(6),
        tenant: TenantId(1),
        channel: ChannelId(5),
        grounds: grounds(),
    }
}

const CONTROL: DualControl = DualControl { on: true, reveal_cards: 10, lapse_s: 86_400 };

fn grounds() -> Option<Box<Grounds>> {
    Some(Box::new(Grounds {
        why: "reported stolen".to_owned(),
        approval: Some(ProposalId(0x51)),
        approver: Some(PrincipalId(12)),
    }))
}

fn account_spec() -> AccountSpec {
    AccountSpec {
        name: "shop-17".to_owned(),
        currency: *b"CNY",
        kind: AccountKind::Customer,
        credit_limit: 50_000,
        owner: PrincipalId(9),
    }
}

fn account() -> Account {
    Account {
        id: AccountId(4),
        tenant: TenantId(0),
        spec: account_spec(),
        frozen: true,
        balance: 148_000,
        held: 2_000,
    }
}

fn limit_spec() -> LimitSpec {
    LimitSpec {
        name: "per day".to_owned(),
        scope: LimitScope::Account(Some(AccountId(4))),
        product: Some(ProductId(3)),
        window: LimitWindow::Day { offset_min: -480 },
        max: 500,
        action: LimitAction::Refuse,
        ended: false,
    }
}

pub fn purchase() -> Purchase {
    Purchase {
        order: OrderId(0x0bde),
        lines: vec![
            Line { product: ProductId(3), count: 2, face: None },
            Line { product: ProductId(4), count: 1, face: Some(5000) },
        ],
        validity_s_min: 86_400,
        account: Some(AccountId(2)),
        ip: 0x0102_0304_0506_0708,
        legs: vec![Leg { account: AccountId(2), amount: -9000 }, Leg { account: AccountId(4), amount: 9000 }],
        sealed: true,
        reserve_s: 600,
    }
}

pub fn product_spec() -> ProductSpec {
    ProductSpec {
        name: "coffee-20".to_owned(),
        kind: CardKind::StoredValue,
        currency: *b"CNY",
        face: 2000,
        valid_days: 365,
        reversal_s: 86400,
        terms: ProductTerms {
            valid_from: ValidFrom::Sale,
            value_max: 100_000,
            merchants: vec![MerchantId(6)],
            stores: vec![17, 18],
            attributes: "{\"brand\":\"x\"}".to_owned(),
            ..ProductTerms::default()
        },
    }
}

pub fn principal_spec() -> PrincipalSpec {
    PrincipalSpec {
        name: "till-17".to_owned(),
        role: Role::Redeemer,
        tenant: TenantId(0),
        merchant: MerchantId(6),
        key: std::array::from_fn(|i| i as u8),
        certificate: certificate_note(),
        products: vec![ProductId(3), ProductId(7)],
        misses_per_minute: 30,
        store: 17,
        classes: 0b101,
    }
}

fn certificate_note() -> CertificateNote {
    CertificateNote { serial: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10, expires_ms: 1_798_761_600_000 }
}
