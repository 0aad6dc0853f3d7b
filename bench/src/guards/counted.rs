//! The work whose instructions are counted: a child under callgrind, which collects only while one of the
//! functions `guarded_…` runs.
//!
//! Everything here repeats itself: the lookup key, the codes, the request ids and the clock are fixed, the disk is
//! simulated, and no thread but this one exists, since the log is committed by hand between two counted calls. So
//! neither the disk nor another thread nor the time of day is in a count.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::BytesMut;
use kami_engine::measured::{Decisions, LookUps};
use kami_engine::record::Clocks;
use kami_engine::{
    Caller, CardDigest, Clock, CodeGroup, Command, Engine, EngineOptions, ImportRow, ImportSpec, OrderId,
    ProductId, ProductSpec, ReplyBody, Session, Status, TenantId, ValueReport, Work,
};
use kami_net::frame::reply::encode_told;
use kami_net::frame::request::Redeem;
use kami_net::frame::{
    FRAME_BYTES_MAX, Opcode, REQUEST_HEAD_BYTES, ReplyHead, Request, RequestHead, Secret, Split, Splitter,
};
use kami_wal::{Drive, Medium, Record, SimMedium, SimMode, Wal, WalOptions};

use crate::codes::{CODE_BYTES, Codes};
use crate::store::{Purpose, request, request_id};

/// Commands a group.
pub const GROUP: usize = 64;
/// How often each group is counted; one figure is the mean.
pub const ROUNDS: usize = 32;
/// A redemption's entry is about as long.
const ENTRY_BYTES: usize = 64;

/// Times that nobody moves.
struct StoppedClock;

impl Clock for StoppedClock {
    fn read(&self) -> Clocks {
        Clocks { wall_ms: 1_800_000_000_000, boot_ms: 1_000_000, boot_id: 1 }
    }

    fn boot_ms(&self) -> u64 {
        self.read().boot_ms
    }
}

/// Does all of it once.
pub fn run() -> Result<()> {
    let (engine, codes) = sold_cards()?;
    let digests = digest(&engine, codes)?;
    execute(&engine, &digests)?;
    look_up(&digests)?;
    decide()?;
    append()?;
    frames(codes)
}

#[inline(never)]
fn guarded_digest(
    engine: &Engine,
    codes: &[[u8; CODE_BYTES]],
    group: &mut CodeGroup,
    digests: &mut Vec<CardDigest>,
) {
    for codes in codes.chunks(CodeGroup::CODES_MAX) {
        group.clear();
        for code in codes {
            let _ = group.push(black_box(code));
        }
        engine.digest_group(TenantId(0), group);
        digests.extend_from_slice(group.digests());
    }
}

#[inline(never)]
fn guarded_execute(engine: &Engine, work: &mut Work) {
    engine.execute(work);
}

#[inline(never)]
fn guarded_look_up(cards: &LookUps, group: &[CardDigest]) -> usize {
    cards.find(group)
}

#[inline(never)]
fn guarded_decide(decisions: &Decisions) -> usize {
    decisions.decide()
}

#[inline(never)]
fn guarded_append(wal: &Wal, group: &[u8]) -> Result<()> {
    let mut credit = wal.reserve(group.len())?;
    let appended = wal.append(&mut credit, group.len(), |payload, _| {
        payload[..group.len()].copy_from_slice(group);
        group.len()
    });
    appended.map(drop).context("nothing was appended")
}

#[inline(never)]
fn guarded_split(splitter: &mut Splitter, mut piece: &[u8]) -> Result<usize> {
    let mut whole = 0;
    while let Split::Frame(frame) = splitter.next(&mut piece, |_| FRAME_BYTES_MAX)? {
        let head = RequestHead::decode(frame)?;
        let opcode = Opcode::from_number(head.opcode).context("an opcode")?;
        black_box(Request::decode(opcode, &frame[REQUEST_HEAD_BYTES..])?);
        whole += 1;
    }
    Ok(whole)
}

#[inline(never)]
fn guarded_encode(replies: &mut [(ReplyHead, ReplyBody)], out: &mut BytesMut) {
    for (head, body) in replies {
        encode_told(black_box(head), body, out);
    }
}

/// An engine on a simulated disk with `GROUP × ROUNDS` sold cards.
fn sold_cards() -> Result<(Engine, Codes)> {
    let keys = SimMedium::new(2, SimMode::Direct);
    // Where a card stands in the index follows from this key, so it must not be another one each time.
    let file = keys.create("lookup.key")?;
    file.write_at(0, &[[7; 32].as_slice(), &[2]].concat())?;
    file.sync()?;
    keys.sync_dir("")?;
    let engine = Engine::open(EngineOptions {
        data: Arc::new(SimMedium::new(1, SimMode::Direct)),
        keys: Arc::new(keys),
        wal: WalOptions { segment_bytes: 4 << 20, drive: Drive::Manual, ..WalOptions::default() },
        clock: Box::new(StoppedClock),
        accept_clock: false,
    })?;
    let session = Session::new(&engine, Caller::LOCAL);
    let spec = ProductSpec::single("guards", *b"CNY", 2800);
    let product = session.add_product(request_id(Purpose::Product, 0), spec).wait()?.id;
    let (codes, count) = (Codes::new(1), (GROUP * ROUNDS) as u32);
    let all: Vec<_> = (0..u64::from(count)).map(|number| codes.code(number)).collect();
    let rows = all.iter().map(|code| ImportRow { code, ..ImportRow::default() });
    let spec = ImportSpec::of(product, u64::from(count), CODE_BYTES as u8);
    session.import(request_id(Purpose::Import, 0), spec, rows, |_| ())?;
    session.sell(request_id(Purpose::Sell, 0), OrderId(1), product, count).wait()?;
    Ok((engine, codes))
}

fn digest(engine: &Engine, codes: Codes) -> Result<Vec<CardDigest>> {
    let mut digests = Vec::with_capacity(GROUP * ROUNDS);
    let mut ahead = CodeGroup::default();
    for round in 0..ROUNDS as u64 {
        let first = round * GROUP as u64;
        let group: Vec<_> = (first..first + GROUP as u64).map(|number| codes.code(number)).collect();
        guarded_digest(engine, &group, &mut ahead, &mut digests);
    }
    ensure!(digests.len() == GROUP * ROUNDS, "a code was none");
    Ok(digests)
}

fn execute(engine: &Engine, digests: &[CardDigest]) -> Result<()> {
    // The lists of work keep their room from one batch to the next, so the first would pay for all.
    let mut work = Work::default();
    let absent = engine.digest(TenantId(0), b"NO-SUCH-CARD")?;
    for (round, group) in std::iter::once(&[absent; GROUP][..]).chain(digests.chunks(GROUP)).enumerate() {
        work.requests.clear();
        for (card, number) in group.iter().zip((round * GROUP) as u64..) {
            let command = Command::Redeem { card: *card, pin: None, amount: 0, partial: false };
            work.requests.push(request(request_id(Purpose::Redeem, number), command));
        }
        if round == 0 {
            engine.execute(&mut work);
        } else {
            guarded_execute(engine, &mut work);
            let redeemed = work.replies.iter().filter(|reply| reply.status.is_done()).count();
            ensure!(redeemed == GROUP, "{redeemed} of {GROUP} were redeemed");
        }
        engine.drive()?;
    }
    Ok(())
}

fn look_up(digests: &[CardDigest]) -> Result<()> {
    let cards = LookUps::of(digests);
    for group in digests.chunks(GROUP) {
        ensure!(guarded_look_up(&cards, group) == GROUP, "a card was not found");
    }
    Ok(())
}

fn decide() -> Result<()> {
    let decisions = Decisions::redemptions(GROUP);
    for _ in 0..ROUNDS {
        ensure!(guarded_decide(&decisions) == GROUP, "a card was not redeemed");
    }
    Ok(())
}

fn append() -> Result<()> {
    let medium = SimMedium::new(3, SimMode::Direct);
    let options = WalOptions { segment_bytes: 4 << 20, drive: Drive::Manual, ..WalOptions::default() };
    let visit = &mut |_: Record<'_>| Ok::<(), std::io::Error>(());
    let wal = Wal::open(Arc::new(medium), options, None, visit)?;
    wal.prepare()?;
    for _ in 0..ROUNDS {
        guarded_append(&wal, &[7; GROUP * ENTRY_BYTES])?;
        wal.commit()?;
    }
    Ok(())
}

fn frames(codes: Codes) -> Result<()> {
    let mut piece = BytesMut::new();
    let mut replies = Vec::new();
    for number in 0..GROUP as u64 {
        let code = codes.code(number);
        let body = Request::Redeem(Redeem { amount: 0, code: Secret(&code), pin: None });
        let head = RequestHead::new(Opcode::Redeem, request_id(Purpose::Redeem, number));
        body.encode(&head, &mut piece)?;
        let told = ValueReport { product: ProductId(1), amount: 2800, remaining: 0 };
        replies.push((ReplyHead::local(&head, Status::Ok), ReplyBody::Value(told)));
    }
    let mut splitter = Splitter::new(REQUEST_HEAD_BYTES);
    let mut out = BytesMut::with_capacity(GROUP << 10);
    for _ in 0..ROUNDS {
        ensure!(guarded_split(&mut splitter, &piece)? == GROUP, "a frame was lost");
        out.clear();
        guarded_encode(&mut replies, &mut out);
        ensure!(GROUP * kami_net::frame::REPLY_HEAD_BYTES < out.len(), "a reply was lost");
    }
    Ok(())
}
