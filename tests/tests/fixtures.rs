//! Stores of released versions: whole small data directories, written once and opened by every version since.
//!
//! `fixtures/vN/` holds `data/`, `keys/` and `expected.txt`, which says in words what is in it. A test opens a
//! copy with and without its snapshots, reads everything, repeats an old request, goes on trading and has the
//! result verified. A fixture is never rewritten: when the format changes, the next one is made beside it by
//! `KAMI_MAKE_FIXTURE=vN cargo test -p kami-tests fixtures::make`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kami_engine::{
    BatchId, Caller, CertificateNote, Command, DiskOptions, Engine, EngineOptions, Failure, ImportRow,
    ImportSpec, MerchantId, OrderId, PrincipalId, PrincipalSpec, ProductId, ProductSpec, Renewal, ReplyBody,
    RequestId, Role, Session, Status, TenantId, TerminalId,
};
use kami_wal::{CommitChoice, DiskMedium, Medium, WalOptions};

use crate::model::clock::ManualClock;

/// When the fixtures' stores begin: 2026-01-01.
const BEGUN_MS: u64 = 1_767_225_600_000;
const DAY_MS: u64 = 24 * 3600 * 1000;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn open(home: &Path, clock: &ManualClock) -> Engine {
    let disk = |name: &str| {
        // A copy may lie on a file system that takes no direct writes, or forgets.
        let options = DiskOptions {
            commit_path: CommitChoice::Mapped,
            unsafe_filesystem: true,
            ..DiskOptions::default()
        };
        Arc::new(DiskMedium::open(home.join(name), options).expect("a directory")) as Arc<dyn Medium>
    };
    Engine::open(EngineOptions {
        data: disk("data"),
        keys: disk("keys"),
        // The shortest there are: several of them, and small to keep.
        wal: WalOptions { segment_bytes: 64 << 10, ..WalOptions::default() },
        clock: Box::new(clock.clone()),
        accept_clock: false,
    })
    .expect("the store opens")
}

const SELLER: Caller =
    Caller { tenant: TenantId(0), principal: PrincipalId(1), role: Role::Seller, merchant: MerchantId(0) };
const TILL: Caller =
    Caller { tenant: TenantId(0), principal: PrincipalId(2), role: Role::Redeemer, merchant: MerchantId(9) };

const fn id(number: u128) -> RequestId {
    RequestId(0xf1f0_0000 << 64 | number)
}

/// All that happens in the fixture: every kind of object, every state a card can be in, two epochs, a
/// snapshot in the middle and a log that goes on behind it over several segments.
fn trade(home: &Path) {
    let clock = ManualClock::new(BEGUN_MS);
    first_run(home, &clock);
    clock.reboot(DAY_MS);
    second_run(home, &clock);
}

fn first_run(home: &Path, clock: &ManualClock) {
    let engine = open(home, clock);
    let admin = Session::new(&engine, Caller::LOCAL);
    let coffee =
        admin.add_product(id(4), ProductSpec::single("coffee 咖啡", *b"CNY", 2800)).wait().unwrap().id;
    let tea = ProductSpec { valid_days: 30, reversal_s: 3600, ..ProductSpec::single("tea", *b"EUR", 350) };
    let tea = admin.add_product(id(5), tea).wait().unwrap().id;
    done(&admin, id(6), Command::ProductSet(Box::new(ProductSpec::single("coffee 咖啡", *b"CNY", 2900))));
    for (number, name, role) in
        [(0, "shop", Role::Seller), (1, "till 17", Role::Redeemer), (2, "gone", Role::Operator)]
    {
        let redeems = role == Role::Redeemer;
        let spec = PrincipalSpec {
            merchant: MerchantId(if redeems { 9 } else { 0 }),
            certificate: CertificateNote { serial: 0x5e81a1 << 64, expires_ms: BEGUN_MS + 365 * DAY_MS },
            products: if redeems { vec![ProductId(1), ProductId(2)] } else { Vec::new() },
            misses_per_minute: if redeems { 7 } else { 0 },
            ..PrincipalSpec::of(name, role, [number as u8 + 1; 32])
        };
        done(&admin, id(number), Command::PrincipalAdd(Box::new(spec)));
    }
    done(&admin, id(3), Command::PrincipalRevoke(PrincipalId(3)));
    let certificate = CertificateNote { serial: 9, expires_ms: BEGUN_MS + 700 * DAY_MS };
    let renewal = Renewal { principal: PrincipalId(1), key: [0xa1; 32], certificate };
    done(&admin, id(13), Command::PrincipalRenew(Box::new(renewal)));

    let codes: Vec<String> = (1..=40).map(|n| format!("COFFEE-{n:04}")).collect();
    let rows = codes.iter().enumerate().map(|(row, code)| ImportRow {
        code: code.as_bytes(),
        pin: Some(b"1234"),
        face: Some(if row % 8 == 7 { 5000 } else { 2900 }),
        expires_ms: if row == 4 { BEGUN_MS + DAY_MS } else { 0 },
        ..ImportRow::default()
    });
    let spec = ImportSpec {
        label: "PO-2026-1".to_owned(),
        pins: true,
        faces: true,
        expiries: true,
        ..ImportSpec::of(coffee, 40, 16)
    };
    admin.import(id(7), spec, rows, |_| ()).unwrap();
    let plain = |prefix: &str, count: usize| -> Vec<String> {
        (1..=count).map(|n| format!("{prefix}-{n:04}")).collect()
    };
    let import = |number: u128, product, codes: &[String], active, valid_from_ms| {
        let rows = codes.iter().map(|code| ImportRow { code: code.as_bytes(), ..ImportRow::default() });
        let spec = ImportSpec { active, valid_from_ms, ..ImportSpec::of(product, codes.len() as u64, 16) };
        admin.import(id(number), spec, rows, |_| ()).unwrap().id
    };
    import(8, tea, &plain("TEA", 10), false, 0);
    let later = import(9, tea, &plain("LATER", 3), true, BEGUN_MS + 90 * DAY_MS);
    done(&admin, id(10), Command::BatchExtend { batch: later, expires_ms: BEGUN_MS + 400 * DAY_MS });
    let voided = import(11, coffee, &plain("VOID", 5), true, 0);
    let frozen = import(12, coffee, &plain("ICE", 5), true, 0);

    let shop = Session::new(&engine, SELLER);
    shop.sell(id(20), OrderId(1), coffee, 20).wait().unwrap();
    shop.sell(id(21), OrderId(2), tea, 4).wait().unwrap();
    done(&admin, id(22), Command::BatchVoid(voided));
    done(&admin, id(23), Command::BatchFreeze(frozen));
    let till = Session::new(&engine, TILL).at(TerminalId(17));
    till.redeem_with_pin(id(30), "COFFEE-0001", "1234").wait().unwrap();
    till.redeem_with_pin(id(31), "COFFEE-0004", "1234").wait().unwrap();
    assert!(till.redeem(id(29), "COFFEE-0005").wait().is_err(), "without its PIN");
    till.redeem_with_pin(id(32), "COFFEE-0002", "1234").wait().unwrap();
    till.reverse(id(33), "COFFEE-0002", id(32)).wait().unwrap();
    // Never seen: refused from here on.
    till.reverse(id(34), "COFFEE-0003", id(35)).wait().unwrap();
    admin.freeze(id(36), "COFFEE-0006").wait().unwrap();
    admin.freeze(id(37), "COFFEE-0007").wait().unwrap();
    admin.unfreeze(id(38), "COFFEE-0007").wait().unwrap();
    admin.void(id(39), "COFFEE-0040").wait().unwrap();
    engine.checkpoint().unwrap();

    // Behind the snapshot, over several segments.
    clock.advance(2 * DAY_MS);
    for round in 0..150 {
        // A card is given back 64 times at most.
        let code = ["COFFEE-0009", "COFFEE-0010", "COFFEE-0011"][round as usize % 3];
        till.redeem_with_pin(id(1000 + 2 * round), code, "1234").wait().unwrap();
        till.reverse(id(1001 + 2 * round), code, id(1000 + 2 * round)).wait().unwrap();
        clock.advance(150);
    }
    drop((admin, shop, till));
    engine.close().unwrap();
}

fn second_run(home: &Path, clock: &ManualClock) {
    let engine = open(home, clock);
    let admin = Session::new(&engine, Caller::LOCAL);
    done(&admin, id(50), Command::BatchActivate(BatchId(2)));
    done(&admin, id(51), Command::BatchUnfreeze(BatchId(5)));
    done(&admin, id(52), Command::ProductFreeze(ProductId(2)));
    let shop = Session::new(&engine, SELLER);
    shop.sell(id(53), OrderId(0x1234_5678 << 96), ProductId(1), 1).wait().unwrap();
    let till = Session::new(&engine, TILL).at(TerminalId(18));
    till.redeem_with_pin(id(54), "COFFEE-0003", "1234").wait().unwrap();
    drop((admin, shop, till));
    engine.close().unwrap();
}

fn done(session: &Session, id: RequestId, command: Command) {
    let reply = session.run(id, command).wait().unwrap();
    assert!(reply.status.is_done(), "{reply:?}");
}

/// Everything in the store, in words that later versions can say as well.
fn describe(engine: &Engine) -> String {
    let mut out = String::new();
    let admin = Session::new(engine, Caller::LOCAL);
    let read = |command| admin.run(RequestId::default(), command).wait().unwrap().body;
    let ReplyBody::Products(products) = read(Command::ProductList) else { panic!("products") };
    for product in products {
        let (spec, currency) = (&product.spec, String::from_utf8_lossy(&product.spec.currency).into_owned());
        writeln!(
            out,
            "product {} `{}` kind={} {currency} face={} valid_days={} reversal_s={} frozen={}",
            product.id,
            spec.name,
            spec.kind as u8,
            spec.face,
            spec.valid_days,
            spec.reversal_s,
            product.frozen
        )
        .unwrap();
    }
    let ReplyBody::Principals(principals) = read(Command::PrincipalList) else { panic!("principals") };
    for principal in principals {
        let spec = &principal.spec;
        writeln!(
            out,
            "principal {} `{}` {} merchant={} key={:02x} serial={:x} expires_ms={} products={:?} misses={} revoked={}",
            principal.id,
            spec.name,
            spec.role.name(),
            spec.merchant,
            spec.key[0],
            spec.certificate.serial,
            spec.certificate.expires_ms,
            spec.products.iter().map(|product| product.0).collect::<Vec<_>>(),
            spec.misses_per_minute,
            principal.revoked
        )
        .unwrap();
    }
    let ReplyBody::Batches(batches) = read(Command::BatchList { product: None }) else { panic!("batches") };
    for batch in batches {
        writeln!(
            out,
            "batch {} of {} `{}` imported_ms={} counts={:?} active={} frozen={} voided={} expires_ms={}",
            batch.id,
            batch.product,
            batch.label,
            batch.imported_ms,
            batch.counts,
            batch.active,
            batch.frozen,
            batch.voided,
            batch.expires_ms
        )
        .unwrap();
    }
    for line in admin.stock(None).wait().unwrap() {
        writeln!(out, "stock of batch {}: {} of {}", line.batch, line.sellable, line.imported).unwrap();
    }
    let shop = Session::new(engine, SELLER);
    for order in [1, 2, 0x1234_5678 << 96] {
        let sold = shop.order(RequestId::random(), OrderId(order)).wait().unwrap();
        let codes: Vec<&str> = sold.codes.iter().map(|code| code.as_str()).collect();
        writeln!(out, "order {}: {}", OrderId(order), codes.join(" ")).unwrap();
    }
    for (prefix, count) in [("COFFEE", 40), ("TEA", 10), ("LATER", 3), ("VOID", 5), ("ICE", 5)] {
        for number in 1..=count {
            let code = format!("{prefix}-{number:04}");
            let card = admin.query(&code).wait().unwrap();
            let flags = card.flags.bits();
            writeln!(
                out,
                "card {code} at {}:{} product={} {} flags={flags:#x} face={} expires_ms={} order={:?}",
                card.card.batch(),
                card.card.row(),
                card.product,
                card.lifecycle.name(),
                card.face,
                card.expires_ms,
                card.order
            )
            .unwrap();
            let history = admin.history(&code).wait().unwrap();
            if history.len() > 20 {
                writeln!(out, "  {} events", history.len()).unwrap();
            }
            for event in history.iter().take(20) {
                writeln!(
                    out,
                    "  {} lsn={} time_ms={} request={} by {} at {} related={:x} left {} {:#x}",
                    event.kind.name(),
                    event.lsn.bytes(),
                    event.time_ms,
                    event.request,
                    event.principal,
                    event.terminal,
                    event.related,
                    event.lifecycle.name(),
                    event.flags.bits()
                )
                .unwrap();
            }
        }
    }
    out
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Makes a fixture, if it is asked to; one that is there stays as it is.
#[test]
fn make() {
    let Ok(version) = std::env::var("KAMI_MAKE_FIXTURE") else { return };
    let home = fixtures().join(version);
    assert!(!home.exists(), "a fixture is never rewritten: {}", home.display());
    fs::create_dir_all(&home).unwrap();
    trade(&home);
    let dir = tempfile::tempdir().unwrap();
    copy(&home, dir.path());
    let engine = open(dir.path(), &ManualClock::new(BEGUN_MS + 10 * DAY_MS));
    fs::write(home.join("expected.txt"), describe(&engine)).unwrap();
    for directory in ["data", "keys"] {
        fs::remove_file(home.join(directory).join("LOCK")).unwrap();
    }
    // Segments that lie ready are zeros: the next start makes them again.
    for entry in fs::read_dir(home.join("data/log")).unwrap() {
        let path = entry.unwrap().path();
        if fs::read(&path).unwrap().iter().all(|byte| *byte == 0) {
            fs::remove_file(path).unwrap();
        }
    }
}

/// The script of the fixture does what it says on today's version, too, so that the next one can be made.
#[test]
fn the_script_still_runs() {
    let dir = tempfile::tempdir().unwrap();
    trade(dir.path());
    let engine = open(dir.path(), &ManualClock::new(BEGUN_MS + 10 * DAY_MS));
    assert!(describe(&engine).lines().count() > 100);
}

#[test]
fn every_released_store_opens_and_goes_on() {
    let mut versions = 0;
    for entry in fs::read_dir(fixtures()).unwrap() {
        let fixture = entry.unwrap().path();
        let expected = fs::read_to_string(fixture.join("expected.txt")).unwrap();
        for with_snapshots in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            copy(&fixture, dir.path());
            if !with_snapshots {
                fs::remove_dir_all(dir.path().join("data/snapshots")).unwrap();
            }
            let clock = ManualClock::new(BEGUN_MS + 10 * DAY_MS);
            let engine = open(dir.path(), &clock);
            assert_eq!(describe(&engine), expected, "{} snapshots={with_snapshots}", fixture.display());
            engine.check().unwrap();

            let till = Session::new(&engine, TILL).at(TerminalId(17));
            let again = till.redeem_with_pin(id(30), "COFFEE-0001", "1234").wait().unwrap();
            assert!(again.replayed, "an old request has its old effect");
            let late = till.redeem_with_pin(id(35), "COFFEE-0003", "1234").wait().unwrap_err();
            assert!(matches!(late, Failure::Refused(Status::ReversedBeforeArrival)), "{late:?}");
            assert!(!till.redeem_with_pin(id(2000), "COFFEE-0010", "1234").wait().unwrap().replayed);
            let admin = Session::new(&engine, Caller::LOCAL);
            done(&admin, id(2001), Command::BatchFreeze(BatchId(5)));
            drop((admin, till));
            engine.close().unwrap();

            let medium = |name: &str| {
                let options = DiskOptions { unsafe_filesystem: true, ..DiskOptions::default() };
                Arc::new(DiskMedium::open(dir.path().join(name), options).unwrap()) as Arc<dyn Medium>
            };
            let found = kami_engine::verify(medium("data"), medium("keys")).unwrap();
            assert_eq!(found.problems, Vec::<String>::new());
        }
        versions += 1;
    }
    assert!(versions >= 1, "no fixture was found");
}
