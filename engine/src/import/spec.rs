//! What is said of an import before its rows come, and one of its rows.

use std::fmt;

use crate::identity::ProductId;
use crate::origin::Origin;
use crate::product::Money;

/// What is said of a batch before its rows are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportSpec {
    /// The product its cards are of.
    pub product: ProductId,
    /// The importer's label (supplier, purchase order); 0 to 128 bytes, no control characters.
    pub label: String,
    /// How many rows will come, those that will be left out included; the commit is refused if it is
    /// another number.
    pub rows: u64,
    /// The longest normalised code, in bytes: 4 to 128. Every row takes this much room.
    pub code_bytes_max: u8,
    /// Whether rows carry a PIN.
    pub pins: bool,
    /// Whether rows carry a face value of their own.
    pub faces: bool,
    /// Whether rows carry an end of validity of their own.
    pub expiries: bool,
    /// Whether rows say what they were in the system they come from, so that cards that are sold or used up elsewhere
    /// stand here as that. Such an import makes sold cards of nothing: it is an admin's, and its commit says why.
    pub origins: bool,
    /// The face value of the batch's cards; `None` is the product's.
    pub face: Option<Money>,
    /// From when the batch's cards can be redeemed, in milliseconds since 1970; 0 is at once.
    pub valid_from_ms: u64,
    /// When the batch's cards expire, in milliseconds since 1970; 0 is the product's rule.
    pub expires_ms: u64,
    /// Whether the cards are redeemable once sold, without a later activation.
    pub active: bool,
    /// Whether rows whose card is there already are left out. If not, one such row refuses the commit.
    pub skip_duplicates: bool,
    /// A digest of what is imported, of the importer's choosing; 0 says nothing. The same import id with
    /// another one is another import, so that two files are never mixed under one id.
    pub content: u128,
}

impl ImportSpec {
    /// Active cards with nothing of their own: face and validity are the product's.
    #[must_use]
    pub fn of(product: ProductId, rows: u64, code_bytes_max: u8) -> ImportSpec {
        ImportSpec {
            product,
            label: String::new(),
            rows,
            code_bytes_max,
            pins: false,
            faces: false,
            expiries: false,
            origins: false,
            face: None,
            valid_from_ms: 0,
            expires_ms: 0,
            active: true,
            skip_duplicates: false,
            content: 0,
        }
    }

    /// The longest label, in bytes.
    pub const LABEL_BYTES_MAX: usize = 128;

    /// Whether a text may be a label: not too long, and without control characters, since it is shown to
    /// whoever lists the batches.
    #[must_use]
    pub fn is_label(text: &str) -> bool {
        text.len() <= ImportSpec::LABEL_BYTES_MAX && !text.chars().any(char::is_control)
    }

    /// A checksum of all of it, by which a retry is told from another import with the same id.
    pub(crate) fn body(&self) -> u32 {
        let face = self.face.map_or([0; 9], |face| {
            let mut bytes = [1; 9];
            bytes[1..].copy_from_slice(&face.to_le_bytes());
            bytes
        });
        let flags = [self.pins, self.faces, self.expiries, self.active, self.skip_duplicates].map(u8::from);
        let parts: [&[u8]; 10] = [
            &self.product.0.to_le_bytes(),
            &self.rows.to_le_bytes(),
            &[self.code_bytes_max],
            &flags,
            &face,
            &self.valid_from_ms.to_le_bytes(),
            &self.expires_ms.to_le_bytes(),
            &self.content.to_le_bytes(),
            // The first version knew of none, and what it summed up must still be the same.
            if self.origins { &[1] } else { &[] },
            // Last, because it alone has no fixed length.
            self.label.as_bytes(),
        ];
        parts.iter().fold(0, |sum, part| crc32c::crc32c_append(sum, part))
    }
}

/// One row of an import. No trace shows its code or PIN.
#[derive(Clone, Copy, Default)]
pub struct ImportRow<'a> {
    /// The code as the merchant wrote it.
    pub code: &'a [u8],
    /// The PIN; only if the batch has PINs.
    pub pin: Option<&'a [u8]>,
    /// The face value; only if the batch has faces.
    pub face: Option<Money>,
    /// The end of validity; only if the batch has expiries. Milliseconds since 1970, 0 is the batch's.
    pub expires_ms: u64,
    /// What it was in the system it comes from; only if the batch says that of its rows.
    pub origin: Option<Origin>,
}

impl fmt::Debug for ImportRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ImportRow { code: _, pin, face, expires_ms, origin } = self;
        let pin = pin.map(|_| "…");
        write!(
            f,
            "ImportRow {{ code: …, pin: {pin:?}, face: {face:?}, expires_ms: {expires_ms}, origin: {origin:?} }}"
        )
    }
}
