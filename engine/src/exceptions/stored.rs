//! Exceptions in log and snapshot: the tail of ADVICE, the note of a resolution, a row of the ledger.

use kami_wal::Lsn;

use super::{Exception, ExceptionState, Resolution};
use crate::identity::{CardDigest, ChannelId, MerchantId, PrincipalId, RequestId, TenantId, TerminalId};
use crate::product::Money;
use crate::record::{self, Entry, FormatError, stored};
use crate::status::Status;
use crate::word::CardRef;

/// Bytes of the tail of ADVICE.
pub const ADVICE_BYTES: usize = 48;

/// What an entry says of an exception beside its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The card, if there is one.
    pub card: Option<CardRef>,
    /// The code.
    pub digest: CardDigest,
    /// How much.
    pub amount: Money,
    /// When it was made.
    pub made_ms: u64,
    /// Why it did not fit.
    pub reason: Status,
}

impl Kept {
    /// Writes the tail of ADVICE.
    pub fn encode(&self, tail: &mut [u8]) {
        tail[..8].copy_from_slice(&self.card.map_or(u64::MAX, CardRef::to_bits).to_le_bytes());
        tail[8..24].copy_from_slice(&self.digest.0.to_le_bytes());
        tail[24..32].copy_from_slice(&self.amount.to_le_bytes());
        tail[32..40].copy_from_slice(&self.made_ms.to_le_bytes());
        tail[40..42].copy_from_slice(&self.reason.number().to_le_bytes());
        tail[42..].fill(0);
    }

    /// Reads the tail of ADVICE.
    ///
    /// # Errors
    /// If it is too short or gives a reason that this version does not know.
    pub fn of(entry: &Entry<'_>) -> Result<Kept, FormatError> {
        let wrong = FormatError { what: "offline redemption damaged", lsn: entry.lsn };
        let tail = entry.bytes().get(record::HEAD_BYTES..).filter(|tail| tail.len() >= ADVICE_BYTES);
        let Some(tail) = tail else { return Err(wrong) };
        let number = |at: usize| u64::from_le_bytes(tail[at..at + 8].try_into().expect("eight bytes"));
        let reason = Status::from_number(u16::from_le_bytes([tail[40], tail[41]])).ok_or(wrong)?;
        Ok(Kept {
            card: (number(0) != u64::MAX).then(|| CardRef::from_bits(number(0))),
            digest: CardDigest(u128::from(number(8)) | u128::from(number(16)) << 64),
            amount: number(24).cast_signed(),
            made_ms: number(32),
            reason,
        })
    }
}

/// A resolution in the log.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StoredNote {
    /// What was done.
    pub note: String,
}

stored!(StoredNote);

/// An exception in a snapshot.
#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StoredException {
    id: u64,
    card: u64,
    digest: u128,
    reason: u16,
    request: u128,
    principal: u32,
    terminal: u32,
    merchant: u32,
    channel: u16,
    tenant: u16,
    body: u32,
    amount: i64,
    made_ms: u64,
    time_ms: u64,
    lsn: u64,
    last: u64,
    /// Who resolved it, when and how.
    resolution: Option<(u32, u64, String)>,
}

impl StoredException {
    pub(super) fn of(state: &ExceptionState) -> StoredException {
        let ExceptionState { exception, tenant, digest, body, lsn } = state;
        let resolution = exception.resolution.as_ref();
        StoredException {
            id: exception.id,
            card: exception.card.map_or(u64::MAX, CardRef::to_bits),
            digest: digest.0,
            reason: exception.reason.number(),
            request: exception.request.0,
            principal: exception.principal.0,
            terminal: exception.terminal.0,
            merchant: exception.merchant.0,
            channel: exception.channel.0,
            tenant: tenant.0,
            body: *body,
            amount: exception.amount,
            made_ms: exception.made_ms,
            time_ms: exception.time_ms,
            lsn: exception.lsn.bytes(),
            last: lsn.bytes(),
            resolution: resolution.map(|end| (end.principal.0, end.time_ms, end.note.clone())),
        }
    }

    pub(super) fn state(&self) -> Option<ExceptionState> {
        let resolution = self.resolution.clone().map(|(principal, time_ms, note)| Resolution {
            principal: PrincipalId(principal),
            time_ms,
            note,
        });
        Some(ExceptionState {
            exception: Exception {
                id: self.id,
                card: (self.card != u64::MAX).then(|| CardRef::from_bits(self.card)),
                reason: Status::from_number(self.reason)?,
                request: RequestId(self.request),
                principal: PrincipalId(self.principal),
                terminal: TerminalId(self.terminal),
                merchant: MerchantId(self.merchant),
                channel: ChannelId(self.channel),
                amount: self.amount,
                made_ms: self.made_ms,
                time_ms: self.time_ms,
                lsn: Lsn::from_bytes(self.lsn)?,
                resolution,
            },
            tenant: TenantId(self.tenant),
            digest: CardDigest(self.digest),
            body: self.body,
            lsn: Lsn::from_bytes(self.last)?,
        })
    }
}
