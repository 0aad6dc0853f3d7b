//! Products: what a card of a kind is worth and how long.

/// Minor units of a currency (cents, 分). Never a fraction.
pub type Money = i64;

/// How a card of the product is used. Numbers are part of the log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CardKind {
    /// Once, as a whole.
    Single = 1,
    /// A number of times.
    MultiUse = 2,
    /// In parts, until its value is spent.
    StoredValue = 3,
    /// 循环卡密: one code sold many times.
    Shared = 4,
}

impl CardKind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<CardKind> {
        match number {
            1 => Some(CardKind::Single),
            2 => Some(CardKind::MultiUse),
            3 => Some(CardKind::StoredValue),
            4 => Some(CardKind::Shared),
            _ => None,
        }
    }
}

/// What is said of a product when it is added or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductSpec {
    /// 1 to 64 bytes, unique in the tenant; what the command line calls it by.
    pub name: String,
    /// How its cards are used.
    pub kind: CardKind,
    /// ISO 4217, upper case.
    pub currency: [u8; 3],
    /// What a card is worth unless its batch or row says otherwise; not negative.
    pub face: Money,
    /// Days from import until a card expires unless its batch or row says otherwise; 0 is never.
    pub valid_days: u32,
    /// How long after a redemption it may be reversed, in seconds.
    pub reversal_s: u32,
}

impl ProductSpec {
    /// A single-use product with the customary 24 hours for reversals and no expiry.
    #[must_use]
    pub fn single(name: &str, currency: [u8; 3], face: Money) -> ProductSpec {
        ProductSpec {
            name: name.to_owned(),
            kind: CardKind::Single,
            currency,
            face,
            valid_days: 0,
            reversal_s: 24 * 3600,
        }
    }
}

/// A product as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Its number.
    pub id: crate::ProductId,
    /// What it was added or last changed with.
    pub spec: ProductSpec,
    /// Whether all its cards are frozen.
    pub frozen: bool,
}
