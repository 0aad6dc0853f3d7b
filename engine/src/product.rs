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

/// A code that is sold many times is sold at most so often: its value moves a bounded number of times, and each use that
/// was sold must be able to be held and captured.
pub const SHARED_USES_MAX: u32 = crate::value::EFFECTS_MAX / 2;

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
    /// What else is agreed about its cards.
    pub terms: ProductTerms,
}

/// From when the days of a card's validity count. Numbers are part of the log format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ValidFrom {
    /// From its import.
    #[default]
    Import = 0,
    /// From its activation.
    Activation = 1,
    /// From its sale.
    Sale = 2,
    /// From its first use.
    FirstUse = 3,
}

impl ValidFrom {
    /// The rule with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<ValidFrom> {
        match number {
            0 => Some(ValidFrom::Import),
            1 => Some(ValidFrom::Activation),
            2 => Some(ValidFrom::Sale),
            3 => Some(ValidFrom::FirstUse),
            _ => None,
        }
    }
}

/// How long a card is valid from an event of its own, as was agreed when its batch was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From when its days count; not from the import.
    pub from: ValidFrom,
    /// How many, more than 0.
    pub days: u32,
}

impl Validity {
    /// The end of what began at `begun_ms`; 0, which is never, if nothing began.
    #[must_use]
    pub fn ends_ms(self, begun_ms: u64) -> u64 {
        if begun_ms == 0 { 0 } else { begun_ms + self.ms() }
    }

    /// How long that is, in milliseconds.
    #[must_use]
    pub fn ms(self) -> u64 {
        u64::from(self.days) * 24 * 3600 * 1000
    }
}

/// The terms of a product beyond its worth and validity. The default is what a product of the first version
/// had: a card that is used once, anywhere, with the customary times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductTerms {
    /// From when the days of validity count.
    pub valid_from: ValidFrom,
    /// How long cards stay reserved for an order that is not paid, in seconds.
    pub reserve_s: u32,
    /// How long a hold stands that is neither captured nor released, in seconds.
    pub hold_s: u32,
    /// MULTI_USE: how often a card can be used. SHARED: how often its code can be sold, at most
    /// [`SHARED_USES_MAX`].
    pub uses: u32,
    /// STORED_VALUE: the most a card can hold; 0 is its face value, so that nothing can be loaded.
    pub value_max: Money,
    /// Whether a redemption for more than what is left takes what is left.
    pub partial: bool,
    /// Whether it can be sold (上架); redemption is not concerned.
    pub listed: bool,
    /// Its class, 0 to 63, by which tills are allowed or denied whole groups of products.
    pub class: u8,
    /// The merchants that may redeem it, at most 64; none is all.
    pub merchants: Vec<crate::MerchantId>,
    /// The stores that may redeem it, at most 64; none is all.
    pub stores: Vec<u32>,
    /// What the merchant wants to keep with it, as it likes: at most 255 bytes.
    pub attributes: String,
}

impl Default for ProductTerms {
    fn default() -> Self {
        ProductTerms {
            valid_from: ValidFrom::Import,
            reserve_s: 15 * 60,
            hold_s: 5 * 60,
            uses: 0,
            value_max: 0,
            partial: false,
            listed: true,
            class: 0,
            merchants: Vec::new(),
            stores: Vec::new(),
            attributes: String::new(),
        }
    }
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
            terms: ProductTerms::default(),
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
