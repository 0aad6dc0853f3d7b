//! Ids that follow from what people call things.

use kami_engine::OrderId;

/// 32 hex digits as the id that they are.
pub fn hex_id(text: &str) -> Option<u128> {
    let hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// An id made of `input`, another one for each `context`.
pub fn derive(context: &str, input: &[u8]) -> u128 {
    let hash = blake3::derive_key(context, input);
    let (half, _) = hash.split_first_chunk().expect("a hash has 32 bytes");
    u128::from_le_bytes(*half)
}

/// An order by what the shop calls it: 32 hex digits are the id itself, any other text is hashed to one.
///
/// # Errors
/// If there is no name, or the id is zero.
pub fn order_id(name: &str) -> Result<OrderId, String> {
    if name.is_empty() {
        return Err("an order needs a name".to_owned());
    }
    let id = hex_id(name).unwrap_or_else(|| derive("kami 2026-11 order id of a name", name.as_bytes()));
    if id == 0 { Err("zero is no order id".to_owned()) } else { Ok(OrderId(id)) }
}
