//! Whatever is encoded is decoded as the same, for every body.

use bytes::BytesMut;
use kami_engine::Lsn;
use kami_engine::{
    Account, AccountId, AccountKind, AccountPut, AccountSpec, BatchId, BatchReport, CardKind, CardRef,
    CardReport, CertificateNote, ChannelId, Checkpoint, Confirmation, DocumentId, DualControl, Duplicate,
    Event, Exceeded, ExceptionNote, FeedSpec, Flags, Grounds, HistoryEvent, HoldReport, ImportReport,
    ImportRow, ImportSpec, KeyRotation, KindSet, Leg, Lifecycle, Limit, LimitAction, LimitId, LimitScope,
    LimitSpec, LimitWindow, Line, MerchantId, OrderId, OrderReport, OrderState, Origin, PostedLeg, Posting,
    Principal, PrincipalId, PrincipalSpec, Product, ProductId, ProductSpec, ProductTerms, ProofPart,
    ProposalId, Purchase, Renewal, ReplyFlags, RequestId, Role, SignedNote, StatementLine, Stats, Status,
    StockLine, TenantId, TerminalId, TotalKey, TotalLine, Totals, TotalsQuery, ValueReport, record::Kind,
};
use kami_net::frame::control::{Asked, Export, OneProposal, ProposalList, TenantControl};
use kami_net::frame::money::{AccountList, AccountQuery, AccountStatement, OneAccount, Statement};
use kami_net::frame::order::{GiveBack, OneOrder};
use kami_net::frame::reply::{self, Answer, Codes, CodesFrame};
use kami_net::frame::request::{
    Advice, BatchExtend, BatchRows, Capture, Chunk, ChunkRows, Columns, ConsistencyOf, DuplicatesOf,
    ExceptionList, Extend, FeedAck, FeedOpen, Hold, Item, Items, Load, OfProduct, OneBatch, OneCard,
    OneImport, OnePrincipal, OneProduct, OrderFetch, OutcomeQuery, ProofOf, Redeem, RefundValue, Release,
    Replace, Restock, Reverse, Sell, Transfer,
};
use kami_net::frame::{
    Body, FRAME_BYTES_MAX, FeedBegin, FeedEvents, ItemReport, Listing, Opcode, PathHash, REQUEST_HEAD_BYTES,
    ReplyHead, Request, RequestFlags, RequestHead, Secret, SoldCard, Wait, Welcome,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn same(head: RequestHead, request: &Request<'_>) {
    let mut out = BytesMut::from(&b"before"[..]);
    request.encode(&head, &mut out).unwrap();
    let frame = &out[6..];
    assert_eq!(u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize, frame.len());
    let expected = RequestHead { opcode: request.opcode().number(), ..head };
    assert_eq!(RequestHead::decode(frame).unwrap(), expected);
    assert_eq!(&Request::decode(request.opcode(), &frame[REQUEST_HEAD_BYTES..]).unwrap(), request);
}

fn heads() -> impl Strategy<Value = RequestHead> {
    (0_u8..4, 1_u128.., any::<u32>(), any::<u32>(), any::<u16>()).prop_map(
        |(flags, id, deadline_ms, t, c)| RequestHead {
            flags: RequestFlags(flags),
            opcode: 0,
            request: RequestId(id),
            deadline_ms,
            terminal: TerminalId(t),
            channel: ChannelId(c),
        },
    )
}

fn specs() -> impl Strategy<Value = ProductSpec> {
    (".{0,20}", 1_u8..5, any::<[u8; 3]>(), any::<i64>(), any::<(u32, u32)>()).prop_map(
        |(name, kind, currency, face, (valid_days, reversal_s))| ProductSpec {
            name,
            kind: CardKind::from_number(kind).unwrap(),
            currency,
            face,
            valid_days,
            reversal_s,
            terms: ProductTerms { uses: valid_days, hold_s: reversal_s, ..ProductTerms::default() },
        },
    )
}

fn principals() -> impl Strategy<Value = PrincipalSpec> {
    (".{0,20}", select(&Role::ALL[..]), any::<u16>(), any::<u32>(), renewals(), any::<[u32; 2]>()).prop_map(
        |(name, role, tenant, merchant, Renewal { key, certificate, .. }, [misses_per_minute, product])| {
            PrincipalSpec {
                name,
                role,
                tenant: TenantId(tenant),
                merchant: MerchantId(merchant),
                key,
                certificate,
                products: (0..product % 70).map(|n| ProductId(product ^ n)).collect(),
                misses_per_minute,
                store: product,
                classes: certificate.expires_ms,
            }
        },
    )
}

fn renewals() -> impl Strategy<Value = Renewal> {
    any::<(u32, [u8; 32], u128, u64)>().prop_map(|(principal, key, serial, expires_ms)| Renewal {
        principal: PrincipalId(principal),
        key,
        certificate: CertificateNote { serial, expires_ms },
    })
}

fn imports() -> impl Strategy<Value = ImportSpec> {
    (".{0,30}", any::<(u32, u64, u8, u64, u64)>(), any::<[bool; 6]>(), option::of(i64::MIN + 1..)).prop_map(
        |(
            label,
            (product, rows, code_bytes_max, valid_from_ms, expires_ms),
            [pins, faces, expiries, origins, active, skip_duplicates],
            face,
        )| {
            ImportSpec {
                product: ProductId(product),
                label,
                rows,
                code_bytes_max,
                pins,
                faces,
                expiries,
                origins,
                face,
                valid_from_ms,
                expires_ms,
                active,
                skip_duplicates,
                content: u128::from(rows) << 40,
            }
        },
    )
}

fn codes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=255)
}

fn pins() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(vec(any::<u8>(), 1..20))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn card_commands(head in heads(), code in codes(), pin in pins(), amount in any::<i64>(), id in any::<u128>()) {
        let code = Secret(&code);
        let card = OneCard { code };
        same(head, &Request::Redeem(Redeem { amount, code, pin: pin.as_deref().map(Secret) }));
        same(head, &Request::Reverse(Reverse { original: RequestId(id), code }));
        same(head, &Request::Query(card));
        same(head, &Request::History(card));
        same(head, &Request::Proof(ProofOf { size: id as u64, from: amount.cast_unsigned(), code }));
        same(head, &Request::Freeze(card));
        same(head, &Request::Unfreeze(card));
        same(head, &Request::Void(card));
        same(head, &Request::Activate(card));
        same(head, &Request::Deactivate(card));
        same(head, &Request::Extend(Extend { expires_ms: amount.cast_unsigned(), code }));
        same(head, &Request::Expire(card));
        same(head, &Request::Replace(Replace { code, with: pin.as_deref().map(Secret) }));
        same(head, &Request::Transfer(Transfer { amount, code, to: code }));
        same(head, &Request::Restock(Restock { reference: DocumentId(id.max(1)), code }));
        let (hold, original) = (RequestId(id), RequestId(id));
        let seconds = amount as u32;
        same(head, &Request::Hold(Hold { amount, seconds, code, pin: pin.as_deref().map(Secret) }));
        same(head, &Request::Capture(Capture { hold, amount, code }));
        same(head, &Request::Release(Release { hold, code }));
        same(head, &Request::Load(Load { amount, code }));
        same(head, &Request::RefundValue(RefundValue { original, amount, code }));
        same(head, &Request::Settle(card));
        same(head, &Request::PinUnlock(card));
        same(head, &Request::Advice(Advice { amount, made_ms: id as u64, code, pin: pin.as_deref().map(Secret) }));
        same(head, &Request::ExceptionList(ExceptionList { after: id as u64, count: seconds, all: amount > 0 }));
        let note = "n".repeat(seconds as usize % 201);
        same(head, &Request::ExceptionResolve(Box::new(ExceptionNote { id: id as u64, note })));
        let proposal = ProposalId(id.max(1));
        same(head, &Request::Approve(OneProposal { proposal }));
        same(head, &Request::ProposalWithdraw(OneProposal { proposal }));
        same(head, &Request::ProposalList(ProposalList { after: id as u64, count: seconds, all: amount > 0 }));
        let export = Export { batch: BatchId(seconds), count: seconds };
        same(head, &Request::Export(export));
        let control = DualControl { on: amount > 0, reveal_cards: seconds, lapse_s: seconds ^ 7 };
        let control = TenantControl { tenant: TenantId(seconds as u16), control };
        same(head, &Request::TenantControl(control));
        for request in [
            Request::Void(card),
            Request::RefundValue(RefundValue { original, amount, code }),
            Request::OrderFetch(OrderFetch { order: OrderId(id.max(1)), from: seconds, count: 7 }),
            Request::Export(export),
            Request::TenantControl(control),
        ] {
            same(head, &Request::Propose(Box::new(Asked { request })));
        }
        same(head, &Request::OutcomeQuery(OutcomeQuery { asked: original, target: seconds as u8, id, code }));
    }

    #[test]
    fn batch_frames(head in heads(), rows in vec((1_u128.., any::<i64>(), codes(), pins()), 1..40)) {
        let items: Vec<Item<'_>> = rows.iter().map(|(id, amount, code, pin)| Item {
            request: RequestId(*id), amount: *amount, code: Secret(code), pin: pin.as_deref().map(Secret),
        }).collect();
        same(head, &Request::RedeemBatch(Items::new(&items)));
    }

    #[test]
    fn objects(head in heads(), order in 1_u128.., a in any::<u32>(), b in any::<u32>(), product in option::of(0..u32::MAX), ms in any::<u64>(), id in any::<u128>()) {
        same(head, &Request::Sell(Sell { order: OrderId(order), product: ProductId(a), count: b, validity_s_min: a }));
        same(head, &Request::OrderFetch(OrderFetch { order: OrderId(order), from: a, count: b }));
        let batch = OneBatch { batch: BatchId(a) };
        same(head, &Request::BatchActivate(batch));
        same(head, &Request::BatchDeactivate(batch));
        same(head, &Request::BatchFreeze(batch));
        same(head, &Request::BatchUnfreeze(batch));
        same(head, &Request::BatchVoid(batch));
        same(head, &Request::BatchExtend(BatchExtend { batch: BatchId(a), expires_ms: ms }));
        let rows = BatchRows { batch: BatchId(a), from: ms, rows: u64::from(b) };
        same(head, &Request::BatchActivateRows(rows));
        same(head, &Request::BatchDeactivateRows(rows));
        same(head, &Request::BatchList(OfProduct { product: product.map(ProductId) }));
        same(head, &Request::Stock(OfProduct { product: product.map(ProductId) }));
        same(head, &Request::ProductFreeze(OneProduct { product: ProductId(a) }));
        same(head, &Request::ProductUnfreeze(OneProduct { product: ProductId(a) }));
        same(head, &Request::ImportStatus(OneImport { import: RequestId(id) }));
        same(head, &Request::ImportCommit(OneImport { import: RequestId(id) }));
        same(head, &Request::ImportAbort(OneImport { import: RequestId(id) }));
        same(head, &Request::ImportDuplicates(DuplicatesOf { import: RequestId(id), from: id as u64 }));
        same(head, &Request::PrincipalRevoke(OnePrincipal { principal: PrincipalId(a) }));
        let spec = FeedSpec {
            after: (ms % (1 << 48) != 0).then(|| Lsn::from_units(ms % (1 << 48)).unwrap()),
            epoch: a,
            kinds: KindSet([a as u8; 32]),
            products: (0..b % 60).map(ProductId).collect(),
        };
        same(head, &Request::FeedAck(FeedAck { seen: spec.after, credit: b }));
        let key = TotalKey {
            day: b,
            merchant: MerchantId(a),
            channel: ChannelId(b as u16),
            terminal: TerminalId(a ^ b),
            product: ProductId(b),
            kind: a as u8,
        };
        same(head, &Request::Reconcile(TotalsQuery {
            day: a,
            days: b,
            offset_min: a as i16,
            lines_max: b,
            end: spec.after,
            after: (a as u8 != 0).then_some(key),
        }));
        same(head, &Request::FeedOpen(FeedOpen { credit: b, spec }));
        same(head, &Request::Consistency(ConsistencyOf { old: ms, new: id as u64 }));
        for plain in [
            Request::Hello,
            Request::Ping,
            Request::ProductList,
            Request::PrincipalList,
            Request::Stats,
            Request::Checkpoint,
            Request::KeyRotate,
            Request::SignedCheckpoint,
        ] {
            same(head, &plain);
        }
    }

    #[test]
    fn specifications(head in heads(), product in specs(), principal in principals(), import in imports()) {
        same(head, &Request::ProductAdd(Box::new(product.clone())));
        same(head, &Request::ProductSet(Box::new(product)));
        same(head, &Request::PrincipalAdd(Box::new(principal)));
        same(head, &Request::ImportBegin(Box::new(import)));
    }

    #[test]
    fn money(head in heads(), a in any::<u32>(), b in any::<i64>(), id in 1_u128.., name in ".{0,20}", kind in 1_u8..5, currency in any::<[u8; 3]>(), new in any::<bool>(), legs in vec(any::<(u32, i64)>(), 0..70), from in option::of(lsns()), limit in limits()) {
        let account = OneAccount { account: AccountId(a) };
        let kind = AccountKind::from_number(kind).unwrap();
        let spec = AccountSpec { name: name.clone(), currency, kind, credit_limit: b, owner: PrincipalId(a) };
        same(head, &Request::AccountPut(Box::new(AccountPut { spec, new })));
        same(head, &Request::AccountFreeze(account));
        same(head, &Request::AccountUnfreeze(account));
        same(head, &Request::AccountQuery(AccountQuery { account: AccountId(a), name: name.clone() }));
        same(head, &Request::AccountList(AccountList { after: AccountId(a), count: a }));
        same(head, &Request::AccountStatement(AccountStatement { account: AccountId(a), from, count: a }));
        let legs = legs.into_iter().map(|(account, amount)| Leg { account: AccountId(account), amount }).collect();
        same(head, &Request::Post(Box::new(Posting { document: DocumentId(id), legs, note: name })));
        let lines = vec![Line { product: ProductId(a), count: a, face: (a % 2 == 0).then_some(i64::from(a)) }; usize::from(a % 3 == 0)];
        let purchase = Purchase {
            order: OrderId(id.max(1)),
            lines: lines.clone(),
            validity_s_min: a,
            account: (a != 0).then_some(AccountId(a)),
            ip: u64::from(a) << 20,
            legs: Vec::new(),
            sealed: a % 2 == 1,
            reserve_s: a / 2,
        };
        same(head, &Request::SellLines(Box::new(purchase.clone())));
        same(head, &Request::Reserve(Box::new(purchase)));
        let order = OrderId(id.max(1));
        let (realloc, sealed) = (a % 2 == 0, a % 3 == 0);
        same(head, &Request::Confirm(Box::new(Confirmation { order, legs: Vec::new(), realloc, sealed })));
        same(head, &Request::Cancel(OneOrder { order }));
        same(head, &Request::OrderStatus(OneOrder { order }));
        same(head, &Request::OrderList(Box::default()));
        let codes = vec![Secret(b"CODE-1"); (a % 65) as usize];
        same(head, &Request::Return(Box::new(GiveBack { order, legs: Vec::new(), codes })));
        same(head, &Request::LimitPut(Box::new(limit)));
        same(head, &Request::LimitList);
        same(head, &Request::TenantList);
    }

    #[test]
    fn chunks(head in heads(), import in imports(), first_row in any::<u64>(), rows in vec((codes(), pins(), option::of(i64::MIN + 1..), any::<u64>()), 0..60)) {
        let columns = Columns::of(&import);
        let rows: Vec<ImportRow<'_>> = rows.iter().map(|(code, pin, face, expires_ms)| ImportRow {
            code,
            pin: pin.as_deref().filter(|_| import.pins),
            face: face.filter(|_| import.faces),
            expires_ms: if import.expiries { *expires_ms } else { 0 },
            origin: import.origins.then(|| Origin {
                state: Lifecycle::Sold,
                frozen: expires_ms % 2 == 0,
                sold_ms: *expires_ms,
                remaining: *face,
                order: Some(OrderId(u128::from(first_row) + 1)),
                ..Origin::default()
            }),
        }).collect();
        let mut encoded = ChunkRows::new(columns, 1 << 16);
        for row in &rows {
            prop_assert!(encoded.push(row));
        }
        let chunk = Chunk::new(RequestId(7), first_row, &encoded);
        same(head, &Request::ImportChunk(chunk.clone()));
        let mut out = BytesMut::new();
        Request::ImportChunk(chunk).encode(&head, &mut out).unwrap();
        let opcode = kami_net::frame::Opcode::ImportChunk;
        let Ok(Request::ImportChunk(read)) = Request::decode(opcode, &out[REQUEST_HEAD_BYTES..]) else { panic!() };
        let fields = |row: &ImportRow<'_>| (row.code.to_vec(), row.pin.map(<[u8]>::to_vec), row.face, row.expires_ms);
        prop_assert!(read.rows().map(|row| fields(&row)).eq(rows.iter().map(fields)));
    }
}

fn accounts() -> impl Strategy<Value = Account> {
    (any::<(u32, u16, bool, i64, i64, i64, u32)>(), ".{0,20}", 1_u8..5, any::<[u8; 3]>()).prop_map(
        |((id, tenant, frozen, balance, held, credit_limit, owner), name, kind, currency)| Account {
            id: AccountId(id),
            tenant: TenantId(tenant),
            spec: AccountSpec {
                name,
                currency,
                kind: AccountKind::from_number(kind).unwrap(),
                credit_limit,
                owner: PrincipalId(owner),
            },
            frozen,
            balance,
            held,
        },
    )
}

fn limits() -> impl Strategy<Value = LimitSpec> {
    let scope = prop_oneof![
        option::of((1_u32..).prop_map(AccountId)).prop_map(LimitScope::Account),
        select(vec![LimitScope::Ip, LimitScope::Terminal, LimitScope::Principal, LimitScope::Order]),
    ];
    let window = prop_oneof![
        any::<i16>().prop_map(|offset_min| LimitWindow::Day { offset_min }),
        (0..=i32::MAX as u32).prop_map(|seconds| LimitWindow::Rolling { seconds }),
        select(vec![LimitWindow::Life, LimitWindow::OpenCards, LimitWindow::OpenOrders]),
    ];
    let product = option::of((0..u32::MAX).prop_map(ProductId));
    let action = select(vec![LimitAction::Refuse, LimitAction::Alert]);
    (".{0,20}", scope, product, window, any::<u64>(), action, any::<bool>()).prop_map(
        |(name, scope, product, window, max, action, ended)| LimitSpec {
            name,
            scope,
            product,
            window,
            max,
            action,
            ended,
        },
    )
}

fn lsns() -> impl Strategy<Value = Lsn> {
    (1_u64..1 << 48).prop_map(|units| Lsn::from_units(units).unwrap())
}

fn flags() -> impl Strategy<Value = Flags> {
    (0_u16..256).prop_map(|bits| Flags::from_bits(bits).unwrap())
}

fn values() -> impl Strategy<Value = ValueReport> {
    any::<(u32, i64, i64)>().prop_map(|(product, amount, remaining)| ValueReport {
        product: ProductId(product),
        amount,
        remaining,
    })
}

fn counts() -> impl Strategy<Value = [u64; 8]> {
    any::<[u64; 8]>()
}

fn orders() -> impl Strategy<Value = Option<OrderId>> {
    option::of((1_u128..).prop_map(OrderId))
}

fn bodies() -> impl Strategy<Value = Body> {
    let card = (any::<(u64, u32, i64, u64)>(), select(&Lifecycle::ALL[..]), flags(), orders()).prop_map(
        |((card, product, face, expires_ms), lifecycle, flags, order)| CardReport {
            card: CardRef::from_bits(card),
            product: ProductId(product),
            lifecycle,
            flags,
            face,
            remaining: face ^ 1,
            held: !face,
            expires_ms,
            order,
        },
    );
    let event = (
        select(Kind::ALL),
        lsns(),
        select(&Lifecycle::ALL[..]),
        flags(),
        any::<(u64, u32, u32, u32, u16, u128, u128)>(),
    )
        .prop_map(|(kind, lsn, lifecycle, flags, (time_ms, p, t, m, c, request, related))| {
            HistoryEvent {
                kind,
                lsn,
                time_ms,
                lifecycle,
                flags,
                principal: PrincipalId(p),
                terminal: TerminalId(t),
                merchant: MerchantId(m),
                channel: ChannelId(c),
                request: RequestId(request),
                related,
                amount: time_ms as i64,
                remaining: !time_ms as i64,
                made_ms: time_ms ^ 5,
                grounds: (t % 2 == 0).then(|| Box::new(Grounds::because("为什么"))),
            }
        });
    let sold = (any::<u64>(), codes()).prop_map(|(card, code)| SoldCard {
        card: CardRef::from_bits(card),
        code: zeroize::Zeroizing::new(code.into()),
    });
    let product = (any::<u32>(), specs(), any::<bool>()).prop_map(|(id, spec, frozen)| Product {
        id: ProductId(id),
        spec,
        frozen,
    });
    let batch = (any::<(u32, u32, u64, u64)>(), ".{0,30}", counts(), any::<[bool; 3]>()).prop_map(
        |((id, product, imported_ms, expires_ms), label, counts, [active, frozen, voided])| BatchReport {
            id: BatchId(id),
            product: ProductId(product),
            label,
            imported_ms,
            counts,
            active_rows: imported_ms,
            active,
            frozen,
            voided,
            expires_ms,
        },
    );
    let stock = (any::<(u32, u32, u64, u64)>(), counts()).prop_map(
        |((product, batch, imported, sellable), counts)| StockLine {
            product: ProductId(product),
            batch: BatchId(batch),
            imported,
            sellable,
            counts,
        },
    );
    let principal = (any::<u32>(), principals(), any::<bool>()).prop_map(|(id, spec, revoked)| Principal {
        id: PrincipalId(id),
        spec,
        revoked,
    });
    let stats = (any::<[u64; 13]>(), counts()).prop_map(|(n, counts)| Stats {
        cards: n[0],
        batches: n[1],
        products: n[2],
        orders: n[3],
        commands: n[4],
        refused: n[5],
        misses: n[10],
        rate_limited: n[11],
        budgets_spent: n[12],
        tail: n[6],
        durable_end: n[7],
        commits: n[8],
        time_ms: n[9],
        counts,
    });
    let duplicate = (any::<(u64, u64)>(), option::of(0..u32::MAX))
        .prop_map(|((row, other_row), batch)| Duplicate { row, batch: batch.map(BatchId), other_row });
    let welcome = (any::<(u32, u32, u16, u8)>(), select(&Role::ALL[..]), any::<[u32; 3]>()).prop_map(
        |((principal, merchant, tenant, version_max), role, [frame_bytes_max, streams_max, items_max])| {
            Welcome {
                principal: PrincipalId(principal),
                merchant: MerchantId(merchant),
                tenant: TenantId(tenant),
                role,
                version_max,
                frame_bytes_max,
                streams_max,
                items_max,
            }
        },
    );
    let item = (any::<u128>(), option::of(lsns()), select(Status::ALL), any::<u8>(), values()).prop_map(
        |(request, lsn, status, flags, value)| ItemReport {
            request: RequestId(request),
            lsn,
            status,
            flags: ReplyFlags(flags),
            value,
        },
    );
    let line = (lsns(), select(Kind::ALL), any::<(u64, u32, u16, u128, i64, i64)>()).prop_map(
        |(lsn, kind, (time_ms, principal, channel, related, amount, balance))| StatementLine {
            lsn,
            time_ms,
            kind,
            principal: PrincipalId(principal),
            channel: ChannelId(channel),
            related,
            amount,
            balance,
        },
    );
    let leg =
        (any::<(u32, i64, i64)>(), option::of(lsns())).prop_map(|((account, amount, balance), prev)| {
            PostedLeg { leg: Leg { account: AccountId(account), amount }, balance, prev }
        });
    prop_oneof![
        Just(Body::None),
        values().prop_map(Body::Value),
        any::<(u32, i64, i64, i64, u64)>().prop_map(|(product, amount, remaining, held, deadline_ms)| {
            let product = ProductId(product);
            Body::Hold(HoldReport { product, amount, remaining, held, deadline_ms })
        }),
        card.prop_map(Body::Card),
        vec(event, 0..20).prop_map(|rows| Body::History(Listing::of(rows))),
        (any::<(u32, u32)>(), vec(sold, 0..20)).prop_map(|((total, from), cards)| Body::Codes(Codes {
            total,
            from,
            cards
        })),
        vec(product, 0..20).prop_map(|rows| Body::Products(Listing::of(rows))),
        vec(batch, 0..20).prop_map(|rows| Body::Batches(Listing::of(rows))),
        vec(stock, 0..20).prop_map(|rows| Body::Stock(Listing::of(rows))),
        vec(principal, 0..20).prop_map(|rows| Body::Principals(Listing::of(rows))),
        stats.prop_map(Body::Stats),
        vec(duplicate, 0..20).prop_map(|rows| Body::Duplicates(Listing::of(rows))),
        (lsns(), lsns(), any::<(u64, u64)>()).prop_map(|(start, end, (bytes, took_ms))| {
            Body::Checkpoint(Checkpoint { start, end, bytes, took_ms })
        }),
        any::<(u64, u64)>().prop_map(|(key, keys)| Body::Keys(KeyRotation { key, keys })),
        (lsns(), any::<u32>(), lsns()).prop_map(|(position, epoch, end)| Body::Feed(FeedBegin {
            position,
            epoch,
            end
        })),
        (lsns(), any::<u32>(), lsns(), 0_usize..20).prop_map(|(position, epoch, end, count)| {
            let events = vec![Event { epoch, ..crate::samples::feed_event() }; count];
            Body::Events(FeedEvents { position, epoch, end, events })
        }),
        (lsns(), any::<bool>(), vec(any::<(u32, u16, u64, i64)>(), 0..20)).prop_map(|(end, more, lines)| {
            let line = |(number, channel, count, amount): (u32, u16, u64, i64)| TotalLine {
                key: TotalKey {
                    day: number,
                    merchant: MerchantId(number ^ 1),
                    channel: ChannelId(channel),
                    terminal: TerminalId(number ^ 2),
                    product: ProductId(number ^ 3),
                    kind: channel as u8,
                },
                count,
                amount,
            };
            Body::Totals(Totals { end, more, lines: lines.into_iter().map(line).collect() })
        }),
        (any::<u64>(), ".{0,60}", ".{0,60}").prop_map(|(size, note, key)| Body::SignedNote(SignedNote {
            size,
            note,
            key
        })),
        (any::<(u64, u64, u64)>(), ".{0,60}", vec(any::<u8>(), 0..300)).prop_map(
            |((size, total, from), key, bytes)| {
                Body::ProofPart(ProofPart { size, key, total, from, bytes })
            }
        ),
        vec(any::<[u8; 32]>(), 0..64).prop_map(|path| {
            Body::Path(Listing::of(path.into_iter().map(|hash| PathHash { hash }).collect()))
        }),
        any::<(u64, u64, u64)>().prop_map(|(rows, rows_total, duplicates)| Body::Import(ImportReport {
            rows,
            rows_total,
            duplicates
        })),
        welcome.prop_map(Body::Welcome),
        vec(item, 0..20).prop_map(|rows| Body::Items(Listing::of(rows))),
        ".{0,30}".prop_map(Body::Reason),
        any::<u32>().prop_map(|wait_ms| Body::Wait(Wait { wait_ms })),
        vec(accounts(), 0..20).prop_map(|rows| Body::Accounts(Listing::of(rows))),
        (accounts(), option::of(lsns()), vec(line, 0..20)).prop_map(|(account, next, lines)| {
            Body::Statement(Box::new(Statement { next, account, lines }))
        }),
        vec(leg, 0..20).prop_map(|rows| Body::Posted(Listing::of(rows))),
        vec((any::<(u32, u16)>(), limits()), 0..20).prop_map(|rows| {
            let limit = |((id, tenant), spec)| Limit { id: LimitId(id), tenant: TenantId(tenant), spec };
            Body::Limits(Listing::of(rows.into_iter().map(limit).collect()))
        }),
        (any::<(u32, u64, u64)>(), select(Status::ALL)).prop_map(|((limit, left, opens_ms), status)| {
            Body::Exceeded(Exceeded { limit: LimitId(limit), status, left, opens_ms })
        }),
        (any::<(u32, u64, bool)>(), 1_u128.., 0_u8..4).prop_map(
            |((n, deadline_ms, fetched), order, state)| {
                Body::Order(Box::new(OrderReport {
                    order: OrderId(order),
                    state: OrderState::from_number(state).unwrap(),
                    fetched,
                    buyer: PrincipalId(n),
                    account: AccountId(n / 2),
                    cards: n,
                    deadline_ms,
                    lines: vec![Line { product: ProductId(n), count: n, face: None }; (n % 65) as usize],
                }))
            }
        ),
        any::<u32>().prop_map(|id| Body::Account(OneAccount { account: AccountId(id) })),
    ]
}

/// A frame of proposals in proposals would be as deep as it is long.
#[test]
fn a_proposal_proposes_no_proposal_and_nothing_that_one_person_may_do() {
    let mut body = 42_u128.to_le_bytes().to_vec();
    for _ in 0..1000 {
        body.splice(0..0, Opcode::Propose.number().to_le_bytes());
    }
    assert_eq!(Request::decode(Opcode::Propose, &body).unwrap_err().field, "opcode");
    for opcode in Opcode::ALL {
        let mut out = opcode.number().to_le_bytes().to_vec();
        out.extend([4, b'C', b'O', b'D', b'E']);
        let taken = !matches!(Request::decode(Opcode::Propose, &out), Err(error) if error.field == "opcode");
        let may =
            [Opcode::Void, Opcode::RefundValue, Opcode::OrderFetch, Opcode::Export, Opcode::TenantControl];
        assert_eq!(taken, may.contains(opcode), "{}", opcode.code());
    }
}

proptest! {
    #[test]
    fn replies(body in bodies(), status in select(Status::ALL), flags in 0_u8..8, opcode in any::<u16>(), id in any::<u128>(), lsn in option::of(lsns()), time_ms in any::<u64>()) {
        let head = ReplyHead { flags: ReplyFlags(flags), opcode, request: RequestId(id), status, lsn, time_ms };
        let mut out = BytesMut::from(&b"before"[..]);
        reply::encode(&head, &body, &mut out);
        let frame = &out[6..];
        assert_eq!(u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize, frame.len());
        prop_assert_eq!(Answer::decode(frame).unwrap(), Answer { head, body });
    }
}

fn reply_head() -> ReplyHead {
    ReplyHead {
        flags: ReplyFlags(0),
        opcode: 1,
        request: RequestId(1),
        status: Status::Ok,
        lsn: None,
        time_ms: 0,
    }
}

/// A list that does not fit is cut at a row, flagged, and says how many there are.
#[test]
fn long_lists_are_partial_and_fit_a_frame() {
    let line =
        StockLine { product: ProductId(1), batch: BatchId(2), imported: 3, sellable: 4, counts: [0; 8] };
    let mut out = BytesMut::new();
    reply::encode(&reply_head(), &Body::Stock(Listing::of(vec![line; 20_000])), &mut out);
    assert!(out.len() <= FRAME_BYTES_MAX && out.len() > FRAME_BYTES_MAX - 100);
    let answer = Answer::decode(&out).unwrap();
    assert!(answer.head.flags.contains(ReplyFlags::PARTIAL));
    let Body::Stock(listing) = answer.body else { panic!() };
    assert_eq!(listing.total, 20_000);
    assert_eq!(listing.rows.len(), (FRAME_BYTES_MAX - 48 - 8) / 88);
}

/// Codes beyond a frame are left for ORDER_FETCH; the total tells how many.
#[test]
fn many_codes_are_partial_and_fit_a_frame() {
    let mut frame = CodesFrame::begin(&reply_head(), 100_000, 0, 100_000);
    let mut pushed = 0_u32;
    while frame.push(CardRef::new(1, pushed.into()), b"0123456789abcdef") {
        pushed += 1;
    }
    assert!(!frame.push(CardRef::new(1, 0), b"x"), "nothing may follow a code that was left out");
    let bytes = frame.finish();
    assert!(bytes.len() <= FRAME_BYTES_MAX);
    let answer = Answer::decode(&bytes).unwrap();
    assert!(answer.head.flags.contains(ReplyFlags::PARTIAL));
    let Body::Codes(codes) = answer.body else { panic!() };
    assert_eq!((codes.total, codes.from, codes.cards.len() as u32), (100_000, 0, pushed));
    assert!(pushed > 40_000);
}
