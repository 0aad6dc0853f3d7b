//! The bodies of commands about what is for sale: products, batches, and imports but for their rows.

use kami_engine::{
    BatchId, CardKind, ImportSpec, MerchantId, Money, ProductId, ProductSpec, ProductTerms, RequestId,
    ValidFrom,
};

use super::wire::wire;

/// The body of the commands about one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneProduct {
    /// The product.
    pub product: ProductId,
}

wire!(OneProduct: "ONE_PRODUCT" {
    product: ProductId, "the product";
});

/// The body of lists that may be narrowed to one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfProduct {
    /// Only this product's.
    pub product: Option<ProductId>,
}

wire!(OfProduct: "OF_PRODUCT" {
    product: Option<ProductId>, "only this product's; 0xffffffff: all";
});

wire!(ProductSpec: "PRODUCT_SPEC" {
    face: Money, "face value in minor units, not negative";
    valid_days: u32, "days from import until a card expires; 0: never";
    reversal_s: u32, "how long after a redemption it may be reversed, in seconds";
    kind: CardKind, "1 SINGLE, 2 MULTI_USE, 3 STORED_VALUE, 4 SHARED";
    currency: [u8; 3], "ISO 4217, upper case";
    name: String, "1 to 64 bytes, unique in the tenant";
    terms: ProductTerms, "what else is agreed about its cards";
});

wire!(ProductTerms: "PRODUCT_TERMS" {
    valid_from: ValidFrom, "from when the days of validity count: 0 import, 1 activation, 2 sale, 3 first use";
    reserve_s: u32, "how long cards stay reserved for an order that is not paid, in seconds";
    hold_s: u32, "how long a hold stands, in seconds";
    uses: u32, "MULTI_USE: how often a card can be used; SHARED: how often its code can be sold, at most 32,768";
    value_max: Money, "STORED_VALUE: the most a card can hold; 0: its face value";
    partial: bool, "whether a redemption for more than what is left takes what is left";
    listed: bool, "whether it can be sold";
    class: u8, "its class, 0 to 63";
    merchants: Vec<MerchantId>, "the merchants that may redeem it, at most 64; none: all";
    stores: Vec<u32>, "the stores that may redeem it, at most 64; none: all";
    attributes: String, "what the merchant keeps with it; at most 255 bytes";
});

/// The body of the commands about one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneBatch {
    /// The batch.
    pub batch: BatchId,
}

wire!(OneBatch: "ONE_BATCH" {
    batch: BatchId, "the batch";
});

/// The body of BATCH_EXTEND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchExtend {
    /// The batch.
    pub batch: BatchId,
    /// The new end of validity.
    pub expires_ms: u64,
}

wire!(BatchExtend: "BATCH_EXTEND" {
    batch: BatchId, "the batch";
    expires_ms: u64, "the new end of validity, ms since 1970; cards whose own end is later, or was set by EXTEND or EXPIRE, keep it";
});

/// The body of the commands about some rows of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRows {
    /// The batch.
    pub batch: BatchId,
    /// The first row.
    pub from: u64,
    /// How many.
    pub rows: u64,
}

wire!(BatchRows: "BATCH_ROWS" {
    batch: BatchId, "the batch";
    from: u64, "the first row, counted from 0 in the order of the import";
    rows: u64, "how many rows; the batch must have all of them";
});

wire!(ImportSpec: "IMPORT_SPEC" {
    content: u128, "a digest of what is imported, of the importer's choosing; 0: none. Another one is another import";
    rows: u64, "how many rows will come, duplicates included";
    face: Option<Money>, "face value of the batch's cards; the lowest i64: the product's";
    valid_from_ms: u64, "from when the batch's cards can be redeemed, ms since 1970; 0: at once";
    expires_ms: u64, "when the batch's cards expire, ms since 1970; 0: the product's rule";
    product: ProductId, "the product";
    code_bytes_max: u8, "the longest normalised code, 4 to 128";
    pins: bool, "1: rows carry a PIN";
    faces: bool, "1: rows carry a face value";
    expiries: bool, "1: rows carry an end of validity";
    active: bool, "1: redeemable once sold, without a later activation";
    skip_duplicates: bool, "1: rows whose card is there already are left out; 0: one such row refuses the commit";
    origins: bool, "1: rows say what they were in the system they come from: an admin's import, committed with a reason";
    label: String, "the importer's label, 0 to 128 bytes, no control characters";
});

/// The body of the commands about an import that was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneImport {
    /// The request id of its IMPORT_BEGIN.
    pub import: RequestId,
}

wire!(OneImport: "ONE_IMPORT" {
    import: RequestId, "the request id of its IMPORT_BEGIN";
});

/// The body of IMPORT_DUPLICATES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DuplicatesOf {
    /// The request id of its IMPORT_BEGIN.
    pub import: RequestId,
    /// The first one wanted.
    pub from: u64,
}

wire!(DuplicatesOf: "DUPLICATES_OF" {
    import: RequestId, "the request id of its IMPORT_BEGIN";
    from: u64, "how many of the duplicates are left out: those that were listed before";
});
