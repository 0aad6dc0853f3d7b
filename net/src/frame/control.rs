//! The bodies about what takes two people: a tenant's control, proposals, the export of codes.

use bytes::BytesMut;
use kami_engine::{
    BatchId, CardRef, DualControl, Kind, OrderId, PrincipalId, Proposal, ProposalId, ProposalState, Proposed,
    RequestId, TenantId,
};

use super::reply::Listing;
use super::request::Request;
use super::wire::{Field, Malformed, Reader, Wire, wire};
use super::{Opcode, field};

/// The body of PROPOSE: the command that is proposed, with its own body.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked<'a> {
    /// The command: VOID, REFUND_VALUE, ORDER_FETCH, EXPORT or TENANT_CONTROL.
    pub request: Request<'a>,
}

impl Asked<'_> {
    /// Whether a command can be proposed.
    #[must_use]
    pub const fn takes(opcode: Opcode) -> bool {
        matches!(
            opcode,
            Opcode::Void | Opcode::RefundValue | Opcode::OrderFetch | Opcode::Export | Opcode::TenantControl
        )
    }
}

impl<'a> Wire<'a> for Asked<'a> {
    const TYPE: &'static str = "PROPOSE";
    const FIELDS: &'static [Field] = &[
        field(
            "opcode",
            "u16",
            "of what is proposed: VOID, REFUND_VALUE, ORDER_FETCH, EXPORT or TENANT_CONTROL",
        ),
        field("body", "body of opcode", "its body, without grounds"),
    ];
    fn put(&self, out: &mut BytesMut) {
        self.request.opcode().number().put(out);
        self.request.put(out);
    }
    fn take(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let number: u16 = reader.field("opcode")?;
        // Nothing that holds another command is among them, so this does not go deeper.
        let opcode = Opcode::from_number(number).filter(|opcode| Asked::takes(*opcode));
        let opcode = opcode.ok_or(reader.malformed())?;
        let body = reader.bytes(reader.rest().len())?;
        Ok(Asked { request: Request::decode(opcode, body)? })
    }
}

/// The body of APPROVE and PROPOSAL_WITHDRAW.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneProposal {
    /// The proposal.
    pub proposal: ProposalId,
}

wire!(OneProposal: "ONE_PROPOSAL" {
    proposal: ProposalId, "the proposal: the request id of its PROPOSE";
});

/// The body of PROPOSAL_LIST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProposalList {
    /// Those with higher numbers only.
    pub after: u64,
    /// How many at most.
    pub count: u32,
    /// Whether those that are not open any more are listed, too.
    pub all: bool,
}

wire!(ProposalList: "PROPOSAL_LIST" {
    after: u64, "only those with higher numbers; 0: from the first";
    count: u32, "how many at most, 1 to 500";
    all: bool, "1: those that are not open any more, too";
});

/// The body of TENANT_CONTROL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantControl {
    /// The tenant.
    pub tenant: TenantId,
    /// What of it takes two people from now on.
    pub control: DualControl,
}

wire!(TenantControl: "TENANT_CONTROL" {
    tenant: TenantId, "the tenant; 0: the house. Only the house may name another than the caller's own";
    control: DualControl, "what of it takes two people from now on";
});

wire!(DualControl: "DUAL_CONTROL" {
    on: bool, "1: REFUND_VALUE and TENANT_CONTROL take two people";
    reveal_cards: u32, "with it on: codes of another's order with at most so many cards are given to one person";
    lapse_s: u32, "how long proposals last, and what was approved may be fetched, in seconds: 60 to 2,592,000";
});

/// The body of EXPORT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    /// The batch.
    pub batch: BatchId,
    /// How many cards at most.
    pub count: u32,
}

wire!(Export: "EXPORT" {
    batch: BatchId, "the batch";
    count: u32, "how many of its unsold cards at most, 1 to 100,000";
});

/// A tenant's control, and proposals.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposals {
    /// What of the tenant takes two people.
    pub control: DualControl,
    /// In order of number.
    pub listing: Listing<Proposal>,
}

/// The fields of PROPOSALS.
pub(super) const PROPOSALS: &[Field] = &[
    field("control", "DUAL_CONTROL", "what of the caller's tenant takes two people"),
    field("total", "u32", "how many there are here; more than `count`: they did not fit"),
    field("count", "u32", "how many rows follow"),
    field("rows", "PROPOSAL × count", "the rows"),
];

impl Wire<'_> for Proposal {
    const TYPE: &'static str = "PROPOSAL";
    const FIELDS: &'static [Field] = &[
        field("number", "u64", "its number, from 1 on over all tenants"),
        field("id", "u128", "by which it is approved: the request id of its PROPOSE"),
        field("time_ms", "u64", "when it was proposed, ms since 1970"),
        field("lapses_ms", "u64", "when it lapses, ms since 1970"),
        field("lsn", "u64", "where it stands in the log"),
        field("ended_ms", "u64", "when it was approved or withdrawn, ms since 1970; else 0"),
        field("related", "u128", "of RefundValue the redemption, of Reveal the order; else 0"),
        field("card", "u64", "the card; 0: it is about none"),
        field("amount", "i64", "of RefundValue how much, 0: all of it; else 0"),
        field("proposer", "u32", "who proposed it"),
        field("ended_by", "u32", "who approved or withdrew it; else 0"),
        field("batch", "u32", "of Export the batch; else 0"),
        field("from", "u32", "of Reveal the first card; else 0"),
        field("count", "u32", "of Reveal and Export how many cards at most; else 0"),
        field("tenant", "u16", "whose cards it is about"),
        field("other", "u16", "of TenantControl the tenant whose control it is; else 0"),
        field("control", "DUAL_CONTROL", "of TenantControl what is to be; else zeros"),
        field("kind", "u8", "what is to be done: the number of the event that it leaves"),
        field("state", "u8", "0: open, 1: approved and done, 2: withdrawn, 3: lapsed"),
        field("why", "text8", "why it was proposed"),
    ];
    fn put(&self, out: &mut BytesMut) {
        let none = DualControl { on: false, reveal_cards: 0, lapse_s: 0 };
        let (mut related, mut amount, mut batch, mut from, mut count) = (0_u128, 0_i64, 0_u32, 0_u32, 0_u32);
        let (mut other, mut control) = (TenantId(0), none);
        match self.proposed {
            Proposed::RefundValue { original, amount: much, .. } => (related, amount) = (original.0, much),
            Proposed::OrderFetch { order, from: first, count: cards } => {
                (related, from, count) = (order.0, first, cards);
            }
            Proposed::Export { batch: of, count: cards } => (batch, count) = (of.0, cards),
            Proposed::TenantControl { tenant, control: wanted } => (other, control) = (tenant, wanted),
            _ => {}
        }
        let (ended_by, ended_ms) = self.ended.unwrap_or((PrincipalId(0), 0));
        self.number.put(out);
        self.id.put(out);
        self.time_ms.put(out);
        self.lapses_ms.put(out);
        self.lsn.put(out);
        ended_ms.put(out);
        related.put(out);
        self.proposed.card().put(out);
        amount.put(out);
        self.proposer.put(out);
        ended_by.put(out);
        batch.put(out);
        from.put(out);
        count.put(out);
        self.tenant.put(out);
        other.put(out);
        control.put(out);
        self.proposed.kind().put(out);
        (self.state as u8).put(out);
        self.why.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let number = reader.field("number")?;
        let id = reader.field("id")?;
        let time_ms = reader.field("time_ms")?;
        let lapses_ms = reader.field("lapses_ms")?;
        let lsn = reader.field("lsn")?;
        let ended_ms: u64 = reader.field("ended_ms")?;
        let related: u128 = reader.field("related")?;
        let card: Option<CardRef> = reader.field("card")?;
        let amount = reader.field("amount")?;
        let proposer = reader.field("proposer")?;
        let ended_by: PrincipalId = reader.field("ended_by")?;
        let batch: u32 = reader.field("batch")?;
        let from = reader.field("from")?;
        let count = reader.field("count")?;
        let tenant = reader.field("tenant")?;
        let other = reader.field("other")?;
        let control = reader.field("control")?;
        let kind: Kind = reader.field("kind")?;
        let card = card.ok_or(reader.malformed());
        let proposed = match kind {
            Kind::Void => Proposed::Void { card: card? },
            Kind::RefundValue => Proposed::RefundValue { card: card?, original: RequestId(related), amount },
            Kind::Reveal => Proposed::OrderFetch { order: OrderId(related), from, count },
            Kind::Export => Proposed::Export { batch: BatchId(batch), count },
            Kind::TenantControl => Proposed::TenantControl { tenant: other, control },
            _ => return Err(reader.malformed()),
        };
        let state: u8 = reader.field("state")?;
        let state = ProposalState::from_number(state).ok_or(reader.malformed())?;
        let has_end = matches!(state, ProposalState::Approved | ProposalState::Withdrawn);
        let ended = has_end.then_some((ended_by, ended_ms));
        let why = reader.field("why")?;
        Ok(Proposal { number, id, tenant, proposed, proposer, why, time_ms, lapses_ms, state, ended, lsn })
    }
}

/// The layouts of requests.
pub(super) fn request_layouts() -> Vec<(&'static str, &'static [Field])> {
    vec![
        of::<Asked<'_>>(),
        of::<OneProposal>(),
        of::<ProposalList>(),
        of::<TenantControl>(),
        of::<DualControl>(),
        of::<Export>(),
    ]
}

fn of<T: Wire<'static>>() -> (&'static str, &'static [Field]) {
    (T::TYPE, T::FIELDS)
}
