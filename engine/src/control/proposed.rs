//! What can be proposed, and how it stands in the log.

use crate::command::Command;
use crate::control::DualControl;
use crate::identity::{BatchId, CardDigest, OrderId, RequestId, Role, TenantId};
use crate::product::Money;
use crate::record::{Kind, stored};
use crate::word::CardRef;

/// A command that was proposed, with all its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proposed {
    /// VOID.
    Void {
        /// The card.
        card: CardRef,
    },
    /// REFUND_VALUE.
    RefundValue {
        /// The card.
        card: CardRef,
        /// The redemption.
        original: RequestId,
        /// How much; 0 is all that was not refunded yet.
        amount: Money,
    },
    /// ORDER_FETCH of another's order.
    OrderFetch {
        /// The order.
        order: OrderId,
        /// The first card.
        from: u32,
        /// How many cards at most.
        count: u32,
    },
    /// EXPORT.
    Export {
        /// The batch.
        batch: BatchId,
        /// How many unsold cards at most.
        count: u32,
    },
    /// TENANT_CONTROL.
    TenantControl {
        /// The tenant.
        tenant: TenantId,
        /// Its control from then on.
        control: DualControl,
    },
}

impl Proposed {
    /// What proposing a command names; `None` if it cannot be proposed, or if it is about a card and none is given.
    pub(crate) fn of(command: &Command, card: Option<CardRef>) -> Option<Proposed> {
        Some(match *command {
            Command::Void { .. } => Proposed::Void { card: card? },
            Command::RefundValue { original, amount, .. } => {
                Proposed::RefundValue { card: card?, original, amount }
            }
            Command::OrderFetch { order, from, count } => Proposed::OrderFetch { order, from, count },
            Command::Export { batch, count } => Proposed::Export { batch, count },
            Command::TenantControl { tenant, control } => Proposed::TenantControl { tenant, control },
            _ => return None,
        })
    }

    /// The command; the digest is its card's, if it is about one.
    pub(crate) fn command(&self, digest: CardDigest) -> Command {
        match *self {
            Proposed::Void { .. } => Command::Void { card: digest },
            Proposed::RefundValue { original, amount, .. } => {
                Command::RefundValue { card: digest, original, amount }
            }
            Proposed::OrderFetch { order, from, count } => Command::OrderFetch { order, from, count },
            Proposed::Export { batch, count } => Command::Export { batch, count },
            Proposed::TenantControl { tenant, control } => Command::TenantControl { tenant, control },
        }
    }

    /// The kind of entry that it leaves once it is done; of ORDER_FETCH every time it is made use of.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Proposed::Void { .. } => Kind::Void,
            Proposed::RefundValue { .. } => Kind::RefundValue,
            Proposed::OrderFetch { .. } => Kind::Reveal,
            Proposed::Export { .. } => Kind::Export,
            Proposed::TenantControl { .. } => Kind::TenantControl,
        }
    }

    /// Whether a principal of this role may propose it, and approve it.
    #[must_use]
    pub const fn allows(&self, role: Role) -> bool {
        match role {
            Role::Admin => true,
            Role::Operator => !matches!(self, Proposed::TenantControl { .. }),
            Role::Finance => matches!(self, Proposed::RefundValue { .. }),
            _ => false,
        }
    }

    /// Whether it lets these codes be fetched.
    pub(crate) fn reveals(&self, order: OrderId, from: u32, count: u32) -> bool {
        match *self {
            Proposed::OrderFetch { order: own, from: first, count: cards } => {
                own == order && first <= from && from.saturating_add(count) <= first.saturating_add(cards)
            }
            _ => false,
        }
    }

    /// The card it is about, if it is about one.
    #[must_use]
    pub const fn card(&self) -> Option<CardRef> {
        match *self {
            Proposed::Void { card } | Proposed::RefundValue { card, .. } => Some(card),
            _ => None,
        }
    }
}

/// Whether a command can be proposed.
pub(crate) const fn is_proposable(command: &Command) -> bool {
    matches!(
        command,
        Command::Void { .. }
            | Command::RefundValue { .. }
            | Command::OrderFetch { .. }
            | Command::Export { .. }
            | Command::TenantControl { .. }
    )
}

/// A checksum of what proposing a command asks, by which a retry is told from another request with the same id.
pub(crate) fn body(command: &Command) -> u32 {
    let mut bytes = [0; 48];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &command.body().to_le_bytes());
    put(8, &command.card().map_or(0, |card| card.0).to_le_bytes());
    match command {
        Command::Void { .. } => put(4, &[1]),
        Command::RefundValue { .. } => put(4, &[2]),
        Command::OrderFetch { order, from, count } => {
            put(4, &[3]);
            put(24, &order.0.to_le_bytes());
            put(40, &from.to_le_bytes());
            put(44, &count.to_le_bytes());
        }
        Command::Export { .. } => put(4, &[4]),
        Command::TenantControl { .. } => put(4, &[5]),
        _ => {}
    }
    crc32c::crc32c(&bytes)
}

/// What was proposed, in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StoredProposed {
    /// [`Proposed::kind`].
    pub kind: u8,
    /// The role of who proposed it.
    pub role: u8,
    /// How long the proposal lasts, and what it lets be fetched, in seconds.
    pub lapse_s: u32,
    /// The card.
    pub card: u64,
    /// Its code's digest.
    pub digest: u128,
    /// The redemption, or the order.
    pub target: u128,
    /// How much.
    pub amount: i64,
    /// The first card.
    pub from: u32,
    /// How many cards.
    pub count: u32,
    /// The batch.
    pub batch: u32,
    /// The tenant whose control it is.
    pub tenant: u16,
    /// That control.
    pub control: StoredControl,
}

/// A tenant's control, in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StoredControl {
    /// Whether it is on.
    pub on: bool,
    /// Cards of another's order that are given out without an approval.
    pub reveal_cards: u32,
    /// How long proposals last.
    pub lapse_s: u32,
}

stored!(StoredProposed, StoredControl);

impl StoredControl {
    pub(crate) const fn of(control: DualControl) -> StoredControl {
        let DualControl { on, reveal_cards, lapse_s } = control;
        StoredControl { on, reveal_cards, lapse_s }
    }

    pub(crate) const fn control(&self) -> DualControl {
        let StoredControl { on, reveal_cards, lapse_s } = *self;
        DualControl { on, reveal_cards, lapse_s }
    }
}

impl StoredProposed {
    /// The most bytes of the tail of PROPOSE.
    pub(crate) const BYTES_MAX: usize = 256;

    pub(crate) fn of(
        proposed: &Proposed,
        digest: Option<CardDigest>,
        role: Role,
        lapse_s: u32,
    ) -> StoredProposed {
        let stored = StoredProposed {
            kind: proposed.kind().number(),
            role: role as u8,
            lapse_s,
            digest: digest.map_or(0, |digest| digest.0),
            card: proposed.card().map_or(0, CardRef::to_bits),
            ..StoredProposed::default()
        };
        match *proposed {
            Proposed::Void { .. } => stored,
            Proposed::RefundValue { original, amount, .. } => {
                StoredProposed { target: original.0, amount, ..stored }
            }
            Proposed::OrderFetch { order, from, count } => {
                StoredProposed { target: order.0, from, count, ..stored }
            }
            Proposed::Export { batch, count } => StoredProposed { batch: batch.0, count, ..stored },
            Proposed::TenantControl { tenant, control } => {
                StoredProposed { tenant: tenant.0, control: StoredControl::of(control), ..stored }
            }
        }
    }

    /// What was proposed; `None` if this version does not know it.
    pub(crate) fn proposed(&self) -> Option<Proposed> {
        let card = CardRef::from_bits(self.card);
        Some(match Kind::from_number(self.kind)? {
            Kind::Void => Proposed::Void { card },
            Kind::RefundValue => {
                Proposed::RefundValue { card, original: RequestId(self.target), amount: self.amount }
            }
            Kind::Reveal => {
                Proposed::OrderFetch { order: OrderId(self.target), from: self.from, count: self.count }
            }
            Kind::Export => Proposed::Export { batch: BatchId(self.batch), count: self.count },
            Kind::TenantControl => {
                Proposed::TenantControl { tenant: TenantId(self.tenant), control: self.control.control() }
            }
            _ => return None,
        })
    }
}
